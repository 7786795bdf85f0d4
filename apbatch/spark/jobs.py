"""How the steps meet Spark: jobs with progress and a count of what they did."""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyspark.accumulators import AccumulatorParam

from apbatch.datasets.commit import Loss, SplitRecord
from apbatch.errors import ApbatchError, ServerError
from apbatch.progress import progress
from apbatch.spark.connect.workers import first_line
from apbatch.spark.inputs.reading import OF_FILES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Problems told in words; the rest is only counted.
MOST_PROBLEMS = 100
#: How often Spark is asked how far it is; a log gets a line every five seconds only.
_POLL_S, _POLL_LOG_S = 0.5, 2.5


class _Sums(AccumulatorParam[tuple[int, ...]]):  # type: ignore[misc]  # no types there
    def zero(self, value: tuple[int, ...]) -> tuple[int, ...]:
        return (0,) * len(value)

    def addInPlace(self, value1: tuple[int, ...], value2: tuple[int, ...]) -> tuple[int, ...]:  # noqa: N802
        return tuple(a + b for a, b in zip(value1, value2, strict=True))


class Counter:
    """Counts images and bytes while tasks end, for the display; goes to workers."""

    def __init__(self, spark: SparkSession) -> None:
        self._sums = spark.sparkContext.accumulator((0, 0, 0), _Sums())

    def add(self, result: Any) -> None:
        """Count what a task did."""
        images, read = getattr(result, "images", None), getattr(result, "bytes_read", 0)
        if images is not None:
            written = sum(part.bytes for part in result.parts.values()) if isinstance(result, SplitRecord) else 0
            self._sums.add((images, read, written))

    @property
    def value(self) -> tuple[int, int, int]:
        """Images, bytes read and bytes written so far, by the driver; an attempt that is thrown away counts."""
        images, read, written = self._sums.value
        return images, read, written


@dataclass
class Meter:
    """What the jobs of a step did: tasks of Spark, attempts that failed, splits that were done before."""

    tasks: int = 0
    retries: int = 0
    resumed: int = 0
    counters: list[Counter] = field(default_factory=list)

    def counter(self, spark: SparkSession) -> Counter:
        """Return a new counter, shown while the next job runs."""
        self.counters.append(Counter(spark))
        return self.counters[-1]


def tally(losses: Iterable[Loss]) -> tuple[dict[str, int], list[str]]:
    """Sum losses by reason, and return some of them in words; a whole file that several tasks lost counts once."""
    counted: dict[str, int] = {}
    texts: dict[str, None] = {}
    files: set[tuple[str, str]] = set()
    for loss in sorted(losses, key=lambda loss: (loss.url, loss.reason, loss.text)):
        if loss.reason in OF_FILES:
            if (loss.url, loss.reason) in files:
                continue
            files.add((loss.url, loss.reason))
        counted[loss.reason] = counted.get(loss.reason, 0) + loss.count
        texts[loss.text] = None
    problems = list(texts)
    more = len(problems) - MOST_PROBLEMS
    return counted, problems[:MOST_PROBLEMS] + ([f"{more} more problems"] if more > 0 else [])


@contextmanager
def run_job(spark: SparkSession, title: str, tasks: int | None, meter: Meter) -> Iterator[None]:
    """Run a Spark job in the body, showing its progress; what is left of it is cancelled when the body is left early.

    `tasks` is None where only Spark knows how many there will be.

    Parameters
    ----------
    spark : SparkSession
    title : str
        Shown with the progress.
    tasks : int, optional
        How many there will be.
    meter : Meter
        Counts tasks, images and bytes.

    Raises
    ------
    ServerError
        With the line that says why the job failed.
    """
    context = spark.sparkContext
    group = f"apbatch-{secrets.token_hex(4)}"
    context.setJobGroup(group, title, interruptOnCancel=True)
    try:
        with _watched(spark, title, tasks, group, meter):
            yield
    except ApbatchError:
        raise
    except Exception as error:  # py4j and pyspark raise many kinds, none of ours
        raise ServerError(
            f"Spark failed: {first_line(error)}", remedy="what is finished stays: run it again"
        ) from error
    except BaseException:
        context.cancelJobGroup(group)
        raise
    finally:
        context._jsc.clearJobGroup()


@contextmanager
def _watched(spark: SparkSession, title: str, tasks: int | None, group: str, meter: Meter) -> Iterator[None]:
    """Show how many tasks are done while the body runs, and how fast; count the attempts that failed."""
    tracker = spark.sparkContext.statusTracker()
    stop = threading.Event()
    started = time.monotonic()
    counts: dict[int, tuple[int, int]] = {}

    def poll() -> None:
        for job in tracker.getJobIdsForGroup(group):
            info = tracker.getJobInfo(job)
            for stage in info.stageIds if info is not None else ():
                state = tracker.getStageInfo(stage)
                if state is not None:
                    counts[stage] = state.numCompletedTasks, state.numFailedTasks

    def watch(task: Any) -> None:
        advance, pause = 0, _POLL_S if sys.stderr.isatty() else _POLL_LOG_S
        while True:
            last = stop.wait(pause)
            poll()
            done = sum(completed for completed, _ in counts.values())
            task.note(_note(meter, time.monotonic() - started))
            task.advance(done - advance)
            advance = done
            if last:
                return

    with progress(title, tasks) as task:
        watcher = threading.Thread(target=watch, args=(task,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            meter.tasks += tasks if tasks is not None else sum(completed for completed, _ in counts.values())
            meter.retries += sum(failed for _, failed in counts.values())


def _note(meter: Meter, seconds: float) -> str:
    images, read, written = meter.counters[-1].value if meter.counters else (0, 0, 0)
    if not images:
        return "tasks"
    return (
        f"tasks, {images} images ({images / max(seconds, 1e-3):.0f}/s), "
        f"{read / 1e6:.0f} MB read, {written / 1e6:.0f} MB written"
    )

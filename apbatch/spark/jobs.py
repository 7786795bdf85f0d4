"""How the bulk steps meet Spark: workers on Arrow batches, counting of losses, writing with progress."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.accumulators import AccumulatorParam

from apbatch.errors import ApbatchError, ServerError
from apbatch.progress import progress
from apbatch.spark.session import first_line

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Losses by place and reason: how many, and a text for people.
_Lost = dict[tuple[str, str], tuple[int, str]]
#: Problems told in words; the rest is only counted.
MOST_PROBLEMS = 100
#: Damaged images of a batch, by the worker.
DAMAGED_IMAGES = "damaged images"
_POLL_S = 0.5


class _Union(AccumulatorParam[_Lost]):  # type: ignore[misc]  # no types there
    """A union by key, so that a task which Spark runs twice counts once."""

    def zero(self, value: _Lost) -> _Lost:
        return {}

    def addInPlace(self, value1: _Lost, value2: _Lost) -> _Lost:  # noqa: N802  Spark's name
        value1.update(value2)
        return value1


class LossCounter:
    """Counts what workers pass over; shared with them by Spark."""

    def __init__(self, spark: SparkSession) -> None:
        self._lost = spark.sparkContext.accumulator({}, _Union())

    def lose(self, url: str, reason: str, count: int, text: str) -> None:
        """Count `count` losses in the file at `url`; `text` is for people."""
        self._lost.add({(url, reason): (count, text)})

    def result(self) -> tuple[dict[str, int], list[str]]:
        """Return the losses by reason, and the problems in words."""
        counted: dict[str, int] = {}
        lost: _Lost = self._lost.value
        for (_, reason), (count, _) in sorted(lost.items()):
            counted[reason] = counted.get(reason, 0) + count
        problems = [text for _, (_, text) in sorted(lost.items())]
        more = len(problems) - MOST_PROBLEMS
        return counted, problems[:MOST_PROBLEMS] + ([f"{more} more problems"] if more > 0 else [])


class Worker:
    """What is sent to Spark's workers: a function of the Arrow batches of a task."""

    def __init__(self, losses: LossCounter) -> None:
        self.losses = losses

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Work on each batch."""
        for batch in batches:
            if batch.num_rows:
                yield self.work(batch)

    def work(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Work on one batch that is not empty."""
        raise NotImplementedError


def spark_schema(schema: pa.Schema) -> str:
    """Return an Arrow schema as Spark writes schemas."""
    names = {pa.string(): "string", pa.int64(): "bigint", pa.int32(): "int", pa.float64(): "double"}
    return ", ".join(f"`{field.name}` {names.get(field.type, 'binary')}" for field in schema)


def arrow_map(frame: DataFrame, worker: Worker, schema: pa.Schema) -> DataFrame:
    """Apply a worker to a DataFrame; its batches have the Arrow schema `schema`."""
    return frame.mapInArrow(worker.__call__, spark_schema(schema))


def write_parquet(spark: SparkSession, frame: DataFrame, url: str, title: str) -> None:
    """Run a job that writes Parquet, showing its progress.

    Raises
    ------
    ServerError
        With the line that says why.
    """
    try:
        with _watched(spark, title):
            frame.write.mode("overwrite").parquet(url)
    except ApbatchError:
        raise
    except Exception as error:  # py4j and pyspark raise many kinds, none of ours
        raise ServerError(f"Spark failed: {first_line(error)}", where=url) from error


@contextmanager
def _watched(spark: SparkSession, title: str) -> Iterator[None]:
    """Show how many tasks are done while the body runs."""
    tracker = spark.sparkContext.statusTracker()
    stop = threading.Event()

    def watch(task: Any) -> None:
        seen: dict[int, int] = {}
        while not stop.wait(_POLL_S):
            for stage in tracker.getActiveStageIds():
                info = tracker.getStageInfo(stage)
                if info is not None:
                    new = info.numCompletedTasks - seen.get(stage, 0)
                    seen[stage] = info.numCompletedTasks
                    task.note(f"{info.numCompletedTasks} of {info.numTasks} tasks of stage {stage}")
                    task.advance(new)

    with progress(title) as task:
        watcher = threading.Thread(target=watch, args=(task,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()

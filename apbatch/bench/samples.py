"""Samples as they are kept: one JSON line each, appended at once, so that a kill loses none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from apbatch.bench.case import Operation
from apbatch.errors import NotFoundError, UsageError

SAMPLES, RUN = "samples.jsonl", "run.json"


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one case.

    Attributes
    ----------
    round : int
        0 is the warm-up round.
    started : str
        UTC.
    seconds : float
        Wall-clock time of the operation.
    cpu_user_s, cpu_system_s : float
        CPU time of the client in that time: this process, or the peer's with its children; servers' is not in it.
    bytes : int
        Payload moved.
    load : float
        Load average of the machine (1 minute) when it began.
    error : str, optional
        Why it failed; then there is no figure.
    """

    suite: str
    operation: str
    peer: str
    round: int
    started: str
    seconds: float
    cpu_user_s: float
    cpu_system_s: float
    bytes: int
    load: float
    figure: float | None
    error: str | None = None


@dataclass(frozen=True)
class SampleRun:
    """A run of the benchmark with everything that was kept of it.

    Attributes
    ----------
    about : dict
        Machine, versions, size, what was left out and why.
    operations : list of Operation
    """

    about: dict[str, Any]
    operations: list[Operation]
    samples: list[Sample]

    def of(self, operation: Operation) -> list[Sample]:
        """Return the measured samples of an operation, warm-up and failures left out."""
        return [
            sample
            for sample in self.samples
            if (sample.suite, sample.operation) == (operation.suite, operation.name)
            and sample.round > 0
            and sample.error is None
        ]


class SampleFile:
    """Where samples of a run go."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / SAMPLES
        if file.exists():  # what a killed writer left without its end
            whole = file.read_bytes().rfind(b"\n") + 1
            os.truncate(file, whole)
        self._file = file.open("a", encoding="utf-8")

    def add(self, sample: Sample) -> None:
        """Append a sample and force it to the disk."""
        self._file.write(json.dumps(asdict(sample)) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def write_about(folder: Path, about: dict[str, Any], operations: list[Operation]) -> None:
    """Keep what a run is about beside its samples, in one move.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the run.
    about : dict
        Machine, software and settings.
    operations : list of Operation
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{RUN}.part"
    content = {"about": about, "operations": [asdict(operation) for operation in operations]}
    part.write_text(json.dumps(content, indent=1, default=str), encoding="utf-8")
    part.replace(folder / RUN)


def read_run(folder: Path) -> SampleRun:
    """Read a run; a last line that was cut off by a kill is passed over.

    Raises
    ------
    NotFoundError
        If there is no run in the folder.
    UsageError
        If its files are damaged.
    """
    try:
        content = json.loads((folder / RUN).read_text(encoding="utf-8"))
        operations = [Operation(**operation) for operation in content["operations"]]
        about = dict(content["about"])
    except FileNotFoundError as error:
        raise NotFoundError(
            "no benchmark run here", where=str(folder), remedy="apbatch bench run storage index"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"damaged: {error}", where=str(folder / RUN)) from error
    return SampleRun(about, operations, list(_samples(folder / SAMPLES)))


def _samples(file: Path) -> Iterator[Sample]:
    names = {field.name for field in fields(Sample)}
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            content = json.loads(line)
            yield Sample(**{name: content[name] for name in names})
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # no newline at its end: the writer was killed in it
                return
            raise UsageError(f"damaged: {error}", where=f"{file}:{number}") from error

"""Whether Spark's workers can do the work: asked once, before it starts, so that what they lack is told plainly."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from apbatch.errors import ApbatchError, MissingSoftwareError, ServerError
from apbatch.formats.reader import readers

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_VERSIONS = re.compile(r"PYTHON_VERSION_MISMATCH\].*?version: ([\d.]+).*?driver: ([\d.]+)", re.DOTALL)
_NO_PROGRAM = re.compile(r'Cannot run program "([^"]+)"')
_NO_MODULE = re.compile(r"No module named '?([\w.]+)'?")
_NO_START = re.compile(r"Error from python worker:\s*(.*?)\n\s*PYTHONPATH was", re.DOTALL)
_IMPORT = re.compile(r"(ImportError|OSError): (.*)")


def first_line(error: BaseException) -> str:
    """Return the line of a Java stack trace that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("An error occurred while calling"):
        lines = lines[1:]  # py4j's own words
    causes = [line for line in lines if line.startswith("Caused by:") or "apbatch.errors." in line]
    text = causes[-1] if causes else (lines[0] if lines else type(error).__name__)
    return text.removeprefix("Caused by:").removeprefix(":").strip()[:300]


def check_workers(spark: SparkSession) -> None:
    """Let one worker import what the steps use.

    Raises
    ------
    MissingSoftwareError
        If it has no Python, another Python, or lacks a package or a reader.
    ServerError
        If it does not answer for another reason.
    """
    try:
        (names,) = spark.sparkContext.parallelize([0], 1).map(_reader_names).collect()
    except Exception as error:  # py4j and pyspark raise many kinds, none of ours
        lack = what_workers_lack(str(error))
        raise lack or ServerError(f"the workers do not answer: {first_line(error)}") from error
    if lacks := sorted(readers().keys() - set(names)):
        raise MissingSoftwareError(
            f"the workers' apbatch has no reader for {', '.join(lacks)}", remedy="in the settings: spark: {ship: true}"
        )


def what_workers_lack(trace: str) -> ApbatchError | None:
    """Return the error that a stack trace stands for, if it tells that the workers lack something."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if versions := _VERSIONS.search(trace):
        return MissingSoftwareError(
            f"the workers run Python {versions[1].rstrip('.')}, and this is Python {versions[2].rstrip('.')}",
            remedy=f"in the settings: spark: {{worker_python: python{here}}}",
        )
    if program := _NO_PROGRAM.search(trace):
        return MissingSoftwareError(
            f"the workers have no program {program[1]}",
            remedy=f"install Python {here} there, or name it in the settings: spark: {{worker_python: PATH}}",
        )
    if module := _NO_MODULE.search(trace):
        return MissingSoftwareError(
            f"the workers' Python has no {module[1]}", remedy="in the settings: spark: {ship: true}"
        )
    if broken := _IMPORT.search(trace):
        return MissingSoftwareError(
            f"the workers can't load a package: {broken[2][:200]}",
            remedy="workers need the same processor and as new a C library as this machine has",
        )
    if failed := _NO_START.search(trace):
        return ServerError(f"Python does not start on the workers: {failed[1].splitlines()[-1].strip()[:200]}")
    return None


def _reader_names(_: int) -> list[str]:
    """Import, in a worker, what the steps use; return the formats that it reads."""
    import pyarrow.parquet  # noqa: F401

    import apbatch.camera.hillas  # noqa: F401

    return list(readers())

"""Events of one file read in a process of its own, where a library in C parses it (see `apbatch.ingest.parsing`)."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

import apbatch
from apbatch.errors import FormatError
from apbatch.formats.lines import Problems
from apbatch.formats.reader import Reader, readers
from apbatch.index.files import FileRecord
from apbatch.ingest.opening import open_source
from apbatch.ingest.parsing import BYTES_A_SECOND, LIMIT_S, MEMORY_BYTES, receive, send


def read_events(record: FileRecord, reader: Reader, problems: Problems) -> Iterator[pa.RecordBatch]:
    """Yield the events of a registered file, as `apbatch.formats.reader.Reader.events` gives them.

    Parameters
    ----------
    record : FileRecord
    reader : Reader
    problems : Problems
        Takes what was passed over.

    Raises
    ------
    FormatError
        If the file is not usable, or ended the process that read it.
    NotFoundError, UsageError
        If the file can't be opened.
    """
    with open_source(record) as stream:
        head = stream.read(reader.head_bytes)
        stream.seek(0)
        if reader.isolated(head):
            yield from _apart(record, problems)
            return
        try:
            yield from reader.events(stream, record.source, problems)
        except (ValueError, ArithmeticError, LookupError, TypeError, MemoryError) as error:
            raise _unreadable(record, error) from error


def _unreadable(record: FileRecord, error: BaseException) -> FormatError:
    reason = str(error).split("\n", 1)[0][:120]
    return FormatError(
        f"its events can't be read: {type(error).__name__}: {reason}", where=record.source, remedy="copy the file again"
    )


def _apart(record: FileRecord, problems: Problems) -> Iterator[pa.RecordBatch]:
    package = str(Path(apbatch.__file__).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "apbatch.ingest.event_reading"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"},
    )
    try:
        send(process.stdin, record)
        while True:
            answer = receive(process.stdout)
            if isinstance(answer, pa.RecordBatch):
                yield answer
            elif isinstance(answer, BaseException):
                raise answer if isinstance(answer, FormatError) else _unreadable(record, answer)
            else:
                count, kept = answer
                for problem in kept:
                    problems.add(problem.offset, problem.reason)
                problems.count += count - len(kept)
                return
    except (EOFError, BrokenPipeError) as error:
        code = process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        raise FormatError(
            f"its parser was ended by it ({how})", where=record.source, remedy="copy the file again"
        ) from error
    finally:
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        process.kill()
        process.wait()


def _serve(requests: Any, answers: Any) -> None:
    """Read the events of the one file that is asked for."""
    reader_by_format = readers()
    record = receive(requests)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY_BYTES, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S + record.size / BYTES_A_SECOND)  # the kernel ends it
    problems = Problems()
    try:
        with open_source(record) as stream:
            for batch in reader_by_format[record.format].events(stream, record.source, problems):
                send(answers, batch)
    except Exception as error:
        send(answers, error if isinstance(error, FormatError) else RuntimeError(f"{type(error).__name__}: {error}"))
        return
    send(answers, (problems.count, problems.kept))


if __name__ == "__main__":
    # What a library prints must not come between the answers.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _serve(sys.stdin.buffer, channel)

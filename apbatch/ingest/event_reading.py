"""Events of one file, read in a process of its own where a library in C parses it."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pyarrow as pa

from apbatch.errors import ApbatchError, FormatError
from apbatch.formats.parser_process import stream_apart
from apbatch.formats.reader import Reader, readers
from apbatch.formats.text.lines import Problems
from apbatch.index.files import FileRecord
from apbatch.ingest.opening import open_source


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
        If the file is not usable, ended the process that read it, or took too much time or memory.
    NotFoundError, UsageError
        If the file can't be opened.
    """
    with open_source(record) as stream:
        isolated = reader.isolated(stream.read(reader.head_bytes))
    if isolated:
        losses: Problems = yield from stream_apart(_events, record, size=record.size, where=record.source)
        problems.absorb(losses)
        return
    try:
        problems.absorb((yield from _events(record)))
    except MemoryError as error:
        raise _unreadable(record, error) from error


def _events(record: FileRecord) -> Generator[pa.RecordBatch, None, Problems]:
    problems = Problems()
    try:
        with open_source(record) as stream:
            yield from readers()[record.format].events(stream, record.source, problems)
    except (ApbatchError, OSError, MemoryError):
        raise
    except Exception as error:  # hostile content finds the holes of a plug-in; the other files must go on
        raise _unreadable(record, error) from error
    return problems


def _unreadable(record: FileRecord, error: BaseException) -> FormatError:
    reason = str(error).split("\n", 1)[0][:120]
    return FormatError(
        f"its events can't be read: {type(error).__name__}: {reason}", where=record.source, remedy="copy the file again"
    )

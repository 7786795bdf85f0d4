"""Parquet files, opened and written in one way: with checksums of their pages, and errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.errors import FormatError
from apbatch.formats.compressed import MOST_EXPANSION
from apbatch.formats.text.lines import Problems

MAGIC = b"PAR1"
#: Rows that are decoded at a time. Where a row group is damaged, what comes before depends on this number alone.
BATCH_ROWS = 2048
#: What a short row group may expand to at any rate.
_FREE = 64 << 20
_ERRORS = (pa.ArrowException, OSError, ValueError)


def unreadable(error: Exception, where: str) -> FormatError:
    """Return the error of a Parquet file that can't be read.

    Parameters
    ----------
    error : Exception
        Arrow's.
    where : str
        Path or URL of the file.
    """
    reason = str(error).split("\n", 1)[0][:200] or type(error).__name__
    return FormatError(f"not a readable Parquet file: {reason}", where=where, remedy="the file was cut or damaged")


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what Arrow raises at a damaged file into a `FormatError` that names it."""
    try:
        yield
    except _ERRORS as error:
        raise unreadable(error, where) from error


def open_parquet(stream: BinaryIO, where: str) -> pq.ParquetFile:
    """Open a Parquet file, whose pages are compared with their checksums when they are read.

    Raises
    ------
    FormatError
        If it is none, or its end is damaged.
    """
    with reading(where):
        return pq.ParquetFile(stream, page_checksum_verification=True)


def parquet_options(schema: pa.Schema, level: int = 1) -> dict[str, Any]:
    """Return how columns are written: the arguments of `pyarrow.parquet.ParquetWriter`.

    Pixels have no repeated values and no order: a dictionary or statistics of them would be waste. Their amplitudes are
    noise in the last bits: higher levels of zstandard than 1 cost time and save one part in a hundred.
    """
    return {
        "compression": "zstd",
        "compression_level": level,
        "use_dictionary": [field.name for field in schema if pa.types.is_string(field.type)],
        "write_statistics": [field.name for field in schema if not pa.types.is_binary(field.type)],
        "write_page_checksum": True,
    }


def batches_of_groups(
    file: pq.ParquetFile,
    size: int,
    columns: Sequence[str],
    groups: Sequence[int],
    problems: Problems,
    rows: int = BATCH_ROWS,
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the rows that can be read, with the number of the first; a damaged row group costs what follows in it.

    Parameters
    ----------
    file : ParquetFile
    size : int
        Bytes of the file; a row group that claims more is not read.
    columns : sequence of str
    groups : sequence of int
        Numbers of row groups.
    problems : Problems
        Takes the rows that are lost.
    rows : int
        Most rows of a batch.
    """
    first = sum(file.metadata.row_group(group).num_rows for group in range(groups[0])) if groups else 0
    for group in groups:
        claimed, read = file.metadata.row_group(group).num_rows, 0
        try:
            _check_size(file.metadata.row_group(group), size)
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns), use_threads=False):
                batch.validate(full=True)
                for start in range(0, batch.num_rows, rows):
                    yield first + read + start, batch.slice(start, rows)
                read += batch.num_rows
        except _ERRORS as error:
            reason = str(error).split("\n", 1)[0][:120] or type(error).__name__
            problems.add(first + read, f"rows {first + read} to {first + claimed - 1} can't be read: {reason}")
        else:
            if read != claimed:
                problems.add(first + read, f"row group {group} claims {claimed} rows and has {read}")
        first += max(claimed, 0)


def _check_size(group: pq.RowGroupMetaData, size: int) -> None:
    """Refuse a size that would make Arrow ask for more memory than the file can mean.

    Of the row group alone: a damaged description of a column ends the whole process when Arrow is asked for it.
    """
    if not 0 <= group.total_byte_size <= max(_FREE, MOST_EXPANSION * size):
        raise ValueError(f"{group.total_byte_size} bytes in a file of {size}")

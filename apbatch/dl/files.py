"""Small files that are there whole or not at all, and the hashes by which they are known."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.errors import FormatError, NotFoundError
from apbatch.localfiles import write_whole


def json_bytes(content: Any) -> bytes:
    """Return JSON in its one canonical form: sorted keys, so that equal content has equal bytes."""
    return (json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def write_json(path: Path, content: Any) -> None:
    """Write canonical JSON in one move."""
    write_whole(path, json_bytes(content))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotFoundError("no such file", where=str(path)) from error
    except ValueError as error:
        raise FormatError(f"not JSON: {error}", where=str(path)) from error


def table_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet; the same table gives the same bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=4096, write_page_checksum=True)
    return sink.getvalue()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file in one move."""
    write_whole(path, table_bytes(table))


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read one local Parquet file.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is not Parquet or lacks a column.
    """
    if not path.is_file():
        raise NotFoundError("no such file", where=str(path))
    try:
        schema = pq.read_schema(path)
        missing = [name for name in columns or [] if name not in schema.names]
        if missing:
            raise FormatError(f"there is no column {', '.join(missing)}", where=str(path))
        return pq.read_table(path, columns=columns, partitioning=None, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise FormatError(f"not a readable Parquet file: {error}", where=str(path)) from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal, as `sha256sum` prints it.

    Raises
    ------
    NotFoundError
        If there is no such file.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFoundError("no such file", where=str(path)) from error

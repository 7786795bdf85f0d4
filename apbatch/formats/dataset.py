"""A dataset: a folder of Parquet part files with a sidecar that says what is in them, on a disk or in HDFS.

The sidecar ``_apbatch.json`` carries what a column can't (camera, cleaning, shape of grids, provenance). A dataset
counts only when both ``_SUCCESS`` and the sidecar are there: whatever a killed writer leaves is no dataset.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.errors import FormatError, NotFoundError, UsageError, nearest_word
from apbatch.storage.store import Store, open_store

SIDECAR = "_apbatch.json"
SUCCESS = "_SUCCESS"


def part_files(url: str) -> list[str]:
    """Return the names of the part files of a dataset, sorted.

    Raises
    ------
    NotFoundError
        If there is no such folder.
    """
    return _parts(open_store(url))


def _parts(store: Store) -> list[str]:
    return [
        entry.path
        for entry in store.entries("")
        if not entry.is_directory and entry.path.endswith(".parquet") and not entry.path.startswith(("_", "."))
    ]


def read_table(url: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a dataset into memory; rows in the order of its part files.

    Parameters
    ----------
    url : str
        ``file:///…`` or ``hdfs://…``.
    columns : sequence of str, optional
        Only these.

    Raises
    ------
    NotFoundError
        If there is no complete dataset.
    FormatError
        If a part file is damaged.
    UsageError
        If there is no such column.
    """
    store = open_store(url)
    _need_complete(store)
    tables = [_read_part(store, name, columns) for name in _parts(store)]
    if not tables:
        raise FormatError("the dataset has no part files", where=url)
    # Spark leaves empty part files; all have the same schema.
    return pa.concat_tables(tables, promote_options="permissive")


def _read_part(store: Store, name: str, columns: Sequence[str] | None) -> pa.Table:
    where = store.url_of(name)
    with store.open(name) as stream:
        try:
            file = pq.ParquetFile(stream)
            known = file.schema_arrow.names
            for column in columns or ():
                if column not in known:
                    raise UsageError(
                        f"there is no column '{column}'",
                        where=where,
                        nearest=nearest_word(column, known),
                        remedy=f"columns are {', '.join(known)}",
                    )
            table = file.read(columns=list(columns) if columns is not None else None)
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = str(error).split("\n", 1)[0][:200]
            raise FormatError(f"not a readable Parquet file: {reason}", where=where) from error
    return table.replace_schema_metadata(None)


def count_rows(url: str) -> int:
    """Return the number of rows in the part files of a folder, finished or not, from their footers.

    Raises
    ------
    FormatError
        If a part file is damaged.
    """
    store, rows = open_store(url), 0
    for name in _parts(store):
        with store.open(name) as stream:
            try:
                rows += int(pq.read_metadata(stream).num_rows)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise FormatError(f"not a readable Parquet file: {error}", where=store.url_of(name)) from error
    return rows


def info(url: str) -> dict[str, Any]:
    """Return the sidecar of a dataset.

    Raises
    ------
    NotFoundError
        If there is no complete dataset.
    FormatError
        If the sidecar is damaged.
    """
    store = open_store(url)
    _need_complete(store)
    with store.open(SIDECAR) as stream:
        content = stream.read()
    try:
        found = json.loads(content)
    except ValueError as error:
        raise FormatError(f"not JSON: {error}", where=store.url_of(SIDECAR)) from error
    if not isinstance(found, dict):
        raise FormatError("not a JSON object", where=store.url_of(SIDECAR))
    return found


def write_info(url: str, info: dict[str, Any]) -> None:
    """Write the sidecar of a dataset, in one move; call it when all part files are there."""
    with open_store(url).publish(SIDECAR) as file:
        file.write((json.dumps(info, indent=1, sort_keys=True, default=str) + "\n").encode())


def is_complete(url: str) -> bool:
    """Tell whether there is a dataset that was written to its end."""
    return _complete(open_store(url))


def _complete(store: Store) -> bool:
    return all(store.info(name) is not None for name in (SUCCESS, SIDECAR))


def _need_complete(store: Store) -> None:
    if not _complete(store):
        there = store.info("") is not None
        raise NotFoundError(
            "the dataset was not written to its end" if there else "there is no such dataset",
            where=store.url,
            remedy="run again the step that makes it",
        )


def remove(url: str) -> None:
    """Remove a dataset with all its files; nothing there is no error.

    Raises
    ------
    UsageError
        If the folder holds something, but nothing that looks like a dataset: a wrong URL must not cost data.
    """
    parent, name = parent_of(url)
    store = open_store(url)
    here = store.info("")
    if here is None:
        return
    if here.is_directory:
        names = [entry.path for entry in store.entries("")]
        if names and not any(name.endswith(".parquet") or name in (SIDECAR, SUCCESS, "_temporary") for name in names):
            raise UsageError("this folder is not a dataset, so it is not removed", where=url)
    else:
        raise UsageError("this is a file, not a dataset", where=url)
    open_store(parent).remove(name)


def replace(part: str, url: str) -> None:
    """Give a finished dataset its name, in place of an older one.

    Parameters
    ----------
    part, url : str
        In the same folder.

    Raises
    ------
    NotFoundError
        If `part` is not complete.
    """
    _need_complete(open_store(part))
    remove(url)
    (parent, name), (_, unfinished) = parent_of(url), parent_of(part)
    open_store(parent).rename(unfinished, name)


def parent_of(url: str) -> tuple[str, str]:
    """Split the URL of a dataset into the URL of the folder above and its name.

    Raises
    ------
    UsageError
        If it is the root of a store.
    """
    parent, _, name = url.rstrip("/").rpartition("/")
    if not name or parent.endswith(":/") or parent.endswith("://"):
        raise UsageError("a dataset needs a folder of its own", where=url)
    return parent, name

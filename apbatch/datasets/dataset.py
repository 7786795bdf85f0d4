"""A dataset: a folder of Parquet part files with a sidecar that says what is in them, on a disk or in HDFS.

The sidecar ``_apbatch.json`` carries what a column can't (camera, cleaning, shape of grids, provenance). A dataset
counts only when both ``_SUCCESS`` and the sidecar are there: whatever a killed writer leaves is no dataset.

Where the sidecar lists ``files``, the dataset is these part files and no others: writing the sidecar, one rename, is
the moment at which a new dataset takes the place of an older one (see `apbatch.datasets.commit`). Without the list,
it is every part file of the folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.errors import FormatError, NotFoundError, UsageError, nearest_word
from apbatch.formats.parquet import open_parquet, reading
from apbatch.storage.backends import open_store
from apbatch.storage.store import Store

SIDECAR = "_apbatch.json"
SUCCESS = "_SUCCESS"
#: Names of what a step keeps in the folder of a dataset while it writes; hidden from Spark and others.
HIDDEN = ".apbatch-"
#: How often a reader starts again because the dataset was replaced under its hands.
_REPLACED_LIMIT = 3

Result = TypeVar("Result")


def part_files(url: str) -> list[str]:
    """Return the names of the part files of a dataset, sorted; of a folder that is not complete, those it has.

    Raises
    ------
    NotFoundError
        If there is no such folder.
    FormatError
        If the sidecar is damaged.
    """
    store = open_store(url)
    return _parts(store) if _complete(store) else _visible(store)


def _parts(store: Store) -> list[str]:
    listed = _info(store).get("files")
    if listed is None:
        return _visible(store)
    try:
        return sorted(str(file["name"]) for file in listed)
    except (TypeError, KeyError) as error:
        raise FormatError("the list of files is damaged", where=store.url_of(SIDECAR)) from error


def _visible(store: Store) -> list[str]:
    return [
        entry.path
        for entry in store.entries("")
        if not entry.is_directory and entry.path.endswith(".parquet") and not entry.path.startswith(("_", "."))
    ]


def _whole(store: Store, read: Callable[[list[str]], Result]) -> Result:
    """Call `read` with the part files; again, if meanwhile a new dataset took this one's place."""
    for _ in range(_REPLACED_LIMIT):
        _need_complete(store)
        names = _parts(store)
        try:
            return read(names)
        except NotFoundError:
            if names == _parts(store):
                raise
    return read(_parts(store))


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
    tables = _whole(store, lambda names: [_read_part(store, name, columns) for name in names])
    if not tables:
        raise FormatError("the dataset has no part files", where=url)
    # Part files may be empty; all have the same schema.
    return pa.concat_tables(tables, promote_options="permissive")


def read_batches(url: str, columns: Sequence[str] | None = None, rows: int = 65536) -> Iterator[pa.RecordBatch]:
    """Read a dataset piece by piece, in the order of its part files: memory for `rows` rows is enough.

    Parameters
    ----------
    url : str
        URL of the dataset.
    columns : sequence of str, optional
        Columns to read; all if left out.
    rows : int
        Most rows of a batch.

    Raises
    ------
    NotFoundError, FormatError, UsageError
        As `read_table`.
    """
    store = open_store(url)
    attempts, yielding = 0, False
    while True:
        _need_complete(store)
        names = _parts(store)
        try:
            for name in names:
                with _opened(store, name, columns) as file:
                    selection = list(columns) if columns is not None else None
                    for batch in file.iter_batches(batch_size=rows, columns=selection):
                        yielding = True
                        yield batch
            return
        except NotFoundError as error:
            attempts += 1
            if names == _parts(store):
                raise
            if yielding:  # rows of the older dataset are given already
                raise FormatError(
                    "the dataset was replaced while it was read", where=url, remedy="read it again"
                ) from error
            if attempts > _REPLACED_LIMIT:
                raise


def _read_part(store: Store, name: str, columns: Sequence[str] | None) -> pa.Table:
    with _opened(store, name, columns) as file:
        table = file.read(columns=list(columns) if columns is not None else None)
    return table.replace_schema_metadata(None)


@contextmanager
def _opened(store: Store, name: str, columns: Sequence[str] | None) -> Iterator[pq.ParquetFile]:
    where = store.url_of(name)
    with store.open(name) as stream, reading(where):
        file = open_parquet(stream, where)
        names = file.schema_arrow.names
        for column in columns or ():
            if column not in names:
                raise UsageError(
                    f"there is no column '{column}'",
                    where=where,
                    nearest=nearest_word(column, names),
                    remedy=f"columns are {', '.join(names)}",
                )
        yield file


def schema(url: str) -> pa.Schema:
    """Return the schema of a dataset with its metadata, from its first part file.

    Raises
    ------
    NotFoundError, FormatError
    """
    store = open_store(url)

    def first(names: list[str]) -> pa.Schema | None:
        for name in names:
            with _opened(store, name, None) as file:
                return file.schema_arrow
        return None

    file_schema = _whole(store, first)
    if file_schema is None:
        raise FormatError("the dataset has no part files", where=url)
    return file_schema


def count_rows(url: str) -> int:
    """Return the number of rows in the part files of a dataset, from their footers.

    Raises
    ------
    FormatError
        If a part file is damaged.
    """
    store, rows = open_store(url), 0
    for name in part_files(url):
        with store.open(name) as stream:
            rows += int(open_parquet(stream, store.url_of(name)).metadata.num_rows)
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
    return _info(store)


def _info(store: Store) -> dict[str, Any]:
    with store.open(SIDECAR) as stream:
        content = stream.read()
    try:
        fields = json.loads(content)
    except ValueError as error:
        raise FormatError(f"not JSON: {error}", where=store.url_of(SIDECAR)) from error
    if not isinstance(fields, dict):
        raise FormatError("not a JSON object", where=store.url_of(SIDECAR))
    return fields


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


def belongs(name: str) -> bool:
    """Tell whether a file of this name may be in the folder of a dataset."""
    return name.endswith(".parquet") or name.startswith(HIDDEN) or name in (SIDECAR, SUCCESS, "_temporary")


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

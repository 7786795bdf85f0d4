"""Single images of Parquet files: where they lie, found from the key columns, and reading no others.

A row group is the least that is read of a column. The pixels of row groups that hold no wanted image are never read,
nor is any column that was not asked for.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.errors import FormatError
from apbatch.formats.images import IMAGE_KEY, OPTIONAL
from apbatch.formats.parquet import open_parquet, reading

_MAY_MISS = OPTIONAL.keys() - {"mask"}
#: Row groups, and which rows of each.
Rows = tuple[tuple[int, tuple[int, ...]], ...]
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bounds:
    """Smallest and largest run and event number of what is looked for."""

    runs: tuple[int, int]
    events: tuple[int, int]

    @classmethod
    def of(cls, keys: pa.RecordBatch | pa.Table) -> Bounds | None:
        """Return the bounds of keys; None without any."""
        if not keys.num_rows:
            return None
        runs, events = (np.asarray(keys.column(name).to_numpy(zero_copy_only=False)) for name in ("run", "event"))
        return cls((int(runs.min()), int(runs.max())), (int(events.min()), int(events.max())))

    def may_hold(self, group: pq.RowGroupMetaData) -> bool:
        """Tell from the statistics of a row group whether an image in it can be within the bounds.

        Of a file that may be damaged, ask only where the process may end: Arrow does not survive every description of
        a column.
        """
        for place in range(group.num_columns):
            column = group.column(place)
            limits = {"run": self.runs, "event": self.events}.get(column.path_in_schema)
            if limits is None or column.statistics is None or not column.statistics.has_min_max:
                continue
            if column.statistics.max < limits[0] or column.statistics.min > limits[1]:
                return False
        return True


class Places:
    """Where images lie: file, row group and row by key, 32 bytes an image; files are scanned first, then looked up."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self._blocks: dict[tuple[str, int, int], list[_Integers]] = {}
        self._sorted: dict[tuple[str, int, int], _Integers] = {}

    def experiments(self) -> list[str]:
        """Return the experiments whose images were found."""
        return sorted({experiment for experiment, _, _ in (*self._blocks, *self._sorted)})

    def scan(self, stream: BinaryIO, name: str, bounds: Bounds | None = None) -> None:
        """Take in the images of one Parquet file, of row groups that may hold some within the bounds.

        Parameters
        ----------
        stream : BinaryIO
            The file.
        name : str
            Its name, for errors and for what `find` returns.
        bounds : Bounds, optional
            Ranges of the key columns that are of interest.

        Raises
        ------
        FormatError
            If it can't be read or lacks a key column.
        """
        self.take(name, keys_in(stream, name, bounds))

    def take(self, name: str, keys: Iterable[tuple[int, pa.Table]]) -> None:
        """Take in the images of one Parquet file: row groups and the keys in them, as `keys_in` gives them."""
        number = len(self.files)
        self.files.append(name)
        for group, table in keys:
            self._add(number, group, table)

    def _add(self, number: int, group: int, keys: pa.Table) -> None:
        for key, rows in _by_series(keys):
            events = np.asarray(keys.column("event").to_numpy(), np.int64)[rows]
            block = np.stack([events, np.full(len(rows), number), np.full(len(rows), group), rows])
            self._blocks.setdefault(key, []).append(block)

    def find(self, keys: pa.RecordBatch | pa.Table) -> tuple[_Integers, _Integers, _Integers]:
        """Look images up.

        Parameters
        ----------
        keys : RecordBatch or Table
            With the columns `IMAGE_KEY`.

        Returns
        -------
        files, groups, rows : ndarray of int64
            Number in `files`, row group, and row in it; -1 for an image that is not there. Of several images with
            one key, the first.
        """
        result = np.full((3, keys.num_rows), -1, np.int64)
        events = np.asarray(keys.column("event").to_numpy(zero_copy_only=False), np.int64)
        for key, rows in _by_series(keys):
            index = self._by_event(key)
            if index is None:
                continue
            places = np.minimum(np.searchsorted(index[0], events[rows]), index.shape[1] - 1)
            there = index[0][places] == events[rows]
            result[:, rows[there]] = index[1:, places[there]]
        return result[0], result[1], result[2]

    def _by_event(self, key: tuple[str, int, int]) -> _Integers | None:
        """Return event, file, row group and row of the images of a series, by event number."""
        if key in self._blocks:
            whole = np.concatenate(self._blocks.pop(key), axis=1)
            self._sorted[key] = whole[:, np.argsort(whole[0], kind="stable")]
        return self._sorted.get(key)


def keys_in(stream: BinaryIO, name: str, bounds: Bounds | None = None) -> Generator[tuple[int, pa.Table], None, None]:
    """Yield the row groups of a Parquet file that may hold images within the bounds, and the keys of each.

    Parameters
    ----------
    stream : BinaryIO
        The file.
    name : str
        Its name, for errors.
    bounds : Bounds, optional
        Ranges of the key columns that are of interest.

    Raises
    ------
    FormatError
        If it can't be read or lacks a key column.
    """
    with _opened(stream, name, IMAGE_KEY) as file:
        for group in range(file.num_row_groups):
            if bounds is None or bounds.may_hold(file.metadata.row_group(group)):
                yield group, file.read_row_group(group, list(IMAGE_KEY), use_threads=False)


def _by_series(keys: pa.RecordBatch | pa.Table) -> Iterator[tuple[tuple[str, int, int], _Integers]]:
    """Yield (experiment, run, telescope) and its rows."""
    if not keys.num_rows:
        return
    column = keys.column("experiment")
    experiments = (column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column).dictionary_encode()
    columns = [np.asarray(experiments.indices.to_numpy(), np.int64)]
    columns += [np.asarray(keys.column(name).to_numpy(zero_copy_only=False), np.int64) for name in ("run", "telescope")]
    order = np.lexsort(columns[::-1])
    ordered = np.stack(columns)[:, order]
    starts = np.flatnonzero(np.any(np.diff(ordered, axis=1, prepend=ordered[:, :1] - 1) != 0, axis=0))
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        code, run, telescope = ordered[:, start].tolist()
        yield (str(experiments.dictionary[code]), run, telescope), np.sort(order[start:stop])


def rows_by_file(files: Sequence[str], numbers: _Integers, groups: _Integers, rows: _Integers) -> dict[str, Rows]:
    """Sort places by file and row group; places of number -1 are left out, repeated ones given once.

    Parameters
    ----------
    files : sequence of str
        Names of part files.
    numbers : ndarray of int64, shape (n_images,)
        Number of each image's file in `files`; -1 for none.
    groups, rows : ndarray of int64, shape (n_images,)
        Row group, and row in it.
    """
    places = np.unique(np.stack([numbers, groups, rows], axis=1)[numbers >= 0], axis=0)
    by_file: dict[str, dict[int, list[int]]] = {}
    for number, group, row in places.tolist():
        by_file.setdefault(files[number], {}).setdefault(group, []).append(row)
    return {name: tuple((group, tuple(group_rows)) for group, group_rows in of.items()) for name, of in by_file.items()}


def read_rows(
    stream: BinaryIO, name: str, rows: Rows, columns: Mapping[str, pa.DataType], batch_size: int
) -> Iterator[pa.RecordBatch]:
    """Read certain columns of certain rows, in the order of the file.

    Parameters
    ----------
    stream : BinaryIO
        Seekable.
    name : str
        For messages.
    rows : Rows
    columns : Mapping
        Names and types; for `time_ns`, a column `time` will do, and optional ones that the file has not become null.
    batch_size : int
        Most rows of a batch.

    Raises
    ------
    FormatError
        If it is not that Parquet file: cut, damaged, without such columns or rows.
    """
    with _opened(stream, name, ()) as file:
        names = set(file.schema_arrow.names)
        stored = {column: column for column in columns if column not in _MAY_MISS or column in names}
        if "time_ns" in stored and "time_ns" not in names:
            stored["time_ns"] = "time"
        _need(file, name, list(stored.values()))
        for group, numbers in rows:
            if group >= file.num_row_groups or max(numbers) >= file.metadata.row_group(group).num_rows:
                raise FormatError(
                    f"there is no row {max(numbers)} in row group {group}",
                    where=name,
                    remedy="the file is another one than the catalogue points to: register its events again",
                )
            # One thread: Spark runs as many tasks as there are cores.
            table = file.read_row_group(group, list(stored.values()), use_threads=False)
            part = table.take(pa.array(numbers)).combine_chunks()
            for batch in part.to_batches(max_chunksize=batch_size):
                arrays = [
                    batch.column(stored[column]).cast(kind) if column in stored else pa.nulls(batch.num_rows, kind)
                    for column, kind in columns.items()
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=list(columns))


def only_wanted(batch: pa.RecordBatch, keys: Sequence[tuple[int, int, int]]) -> pa.RecordBatch:
    """Keep the images (or records) of a batch whose run, event and telescope are wanted; all, if none is named."""
    if not keys:
        return batch
    columns = [batch.column(name).to_pylist() for name in ("run", "event", "telescope")]
    keep = set(map(tuple, keys))
    return batch.filter(pa.array([key in keep for key in zip(*columns, strict=True)], pa.bool_()))


def schema_in(stream: BinaryIO, name: str) -> pa.Schema:
    """Return the schema of a Parquet file, from its footer.

    Raises
    ------
    FormatError
        If it is none.
    """
    with _opened(stream, name, ()) as file:
        return file.schema_arrow


@contextmanager
def _opened(stream: BinaryIO, name: str, columns: Sequence[str]) -> Iterator[pq.ParquetFile]:
    with reading(name):
        file = open_parquet(stream, name)
        _need(file, name, columns)
        yield file


def _need(file: pq.ParquetFile, name: str, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in file.schema_arrow.names:
            raise FormatError(f"there is no column '{column}'", where=name)

"""HDF5 files as the readers see them: tables are found by their columns, and only rows that have bytes are read.

The number of rows in the header of a data set is a claim. What counts are the chunks that lie within the file, and a
chunk that can't be decompressed costs its own rows only. Data kept in other files are never followed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from apbatch.errors import ApbatchError, FormatError, MissingSoftwareError
from apbatch.formats.compressed import MOST_EXPANSION
from apbatch.formats.text.lines import Problems

MAGIC = b"\x89HDF\r\n\x1a\n"
#: Rows that are read at a time.
_ROWS = 65536
#: Bytes of a chunk: more would be memory that the file asks for. (h5py's and PyTables' own choices are below 1 MB.)
_LARGEST_CHUNK = 256 << 20
#: What a short chunk may expand to at any rate.
_FREE = 1 << 20
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Hdf5:
    """An open HDF5 file.

    Attributes
    ----------
    file : h5py.File
    name : str
        For messages.
    size : int
        Bytes that there are.
    problems : Problems
        Takes what is passed over.
    """

    file: Any
    name: str
    size: int
    problems: Problems
    _notes: set[str] = field(default_factory=set)

    def note_once(self, reason: str) -> None:
        """Note what is wrong with a table, once however often the table is looked at."""
        if reason not in self._notes:
            self._notes.add(reason)
            self.problems.add(0, reason)


def with_file(stream: BinaryIO, name: str, work: Callable[[Hdf5], Result]) -> Result:
    """Open an HDF5 file, and return what `work` makes of it; see `opened`.

    Parameters
    ----------
    stream : BinaryIO
    name : str
        Name of the file, for errors.
    work : callable
    """
    with opened(stream, name) as hdf5:
        return work(hdf5)


@contextmanager
def opened(stream: BinaryIO, name: str, problems: Problems | None = None) -> Iterator[Hdf5]:
    """Open an HDF5 file.

    Parameters
    ----------
    stream : BinaryIO
    name : str
        Name of the file, for errors.
    problems : Problems, optional
        Takes what is damaged.

    Raises
    ------
    FormatError
        If it is no HDF5 file, or damaged: h5py raises almost anything then.
    MissingSoftwareError
        Without h5py.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingSoftwareError(
            "h5py is needed to read this HDF5 file", where=name, remedy="pip install 'apbatch[hdf5]'"
        ) from error
    size = stream.seek(0, 2)
    stream.seek(0)
    try:
        with h5py.File(stream, "r") as file:
            yield Hdf5(file, name, size, problems if problems is not None else Problems())
    except (ApbatchError, MemoryError):
        raise
    except Exception as error:
        reason = str(error).split("\n", 1)[0][:200] or type(error).__name__
        raise FormatError(f"a damaged HDF5 file: {reason}", where=name, remedy="copy the file again") from error


def tables_with(file: Any, columns: Collection[str]) -> list[tuple[str, Any]]:
    """Return paths and low-level data sets of the tables that have these columns.

    By names and low-level types: PyTables writes members of HDF5's time type, which numpy has not.
    """
    import h5py

    tables: list[tuple[str, Any]] = []

    def visit(name: bytes | str) -> None:
        path = name if isinstance(name, bytes) else name.encode()
        item = h5py.h5o.open(file.id, path)
        if isinstance(item, h5py.h5d.DatasetID):
            kind = item.get_type()
            if isinstance(kind, h5py.h5t.TypeCompoundID):
                members = {kind.get_member_name(index).decode() for index in range(kind.get_nmembers())}
                if members >= set(columns):
                    tables.append((path.decode("utf-8", "replace"), item))

    h5py.h5o.visit(file.id, visit)
    return tables


def columns_of(group: Any, rank: int = 1) -> dict[str, Any]:
    """Return the low-level data sets in a group by name; links to elsewhere are left out.

    Parameters
    ----------
    group : h5py.Group
    rank : int
        Dimensions: 2 of columns that hold several values a row.
    """
    import h5py

    columns: dict[str, Any] = {}
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            item = h5py.h5o.open(group.id, name.encode())
            if isinstance(item, h5py.h5d.DatasetID) and item.rank == rank:
                columns[name] = item
    return columns


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows that are stored together."""

    start: int
    stop: int
    offset: int


def stored_rows(hdf5: Hdf5, path: str, table: Any) -> int:
    """Return how many rows of a table have bytes in the file; fewer than it claims is noted as a problem.

    Parameters
    ----------
    hdf5 : Hdf5
    path : str
        Path of the table in the file.
    table : h5py.Dataset
    """
    return sum(piece.stop - piece.start for piece in _pieces(hdf5, path, table))


def blocks(
    hdf5: Hdf5, path: str, table: Any, dtype: npt.DTypeLike, memory_type: Any = None
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the rows of a table that can be read, some at a time; the others are noted as problems.

    Parameters
    ----------
    hdf5 : Hdf5
    path : str
        Of the table, for messages.
    table : h5py.h5d.DatasetID
        Of one dimension and those that `dtype` has.
    dtype : dtype
        As which rows are read.
    memory_type : h5py.h5t.TypeID, optional
        The same for HDF5, where numpy has no such type.

    Returns
    -------
    iterator of (int, ndarray)
        Number of the first row in the table, rising, and the rows.
    """
    import h5py

    dtype = np.dtype(dtype)
    memory_type = h5py.h5t.py_create(dtype.base) if memory_type is None else memory_type

    def read(start: int, stop: int) -> npt.NDArray[Any]:
        space = table.get_space()
        space.select_hyperslab((start, *(0 for _ in dtype.shape)), (stop - start, *dtype.shape))
        block = np.zeros(stop - start, dtype)
        table.read(h5py.h5s.create_simple(block.shape), space, block, memory_type)
        return block

    if reason := _lacking_filter(table):
        hdf5.problems.add(0, f"{path} can't be read: {reason}")
        return
    for piece in _pieces(hdf5, path, table, dtype.shape):
        for start in range(piece.start, piece.stop, _ROWS):
            stop = min(start + _ROWS, piece.stop)
            try:
                block = read(start, stop)
            except MemoryError:
                raise
            except Exception as error:  # h5py, and the filters that it calls, raise almost anything
                what = str(error).split("\n", 1)[0][:120]
                hdf5.problems.add(piece.offset, f"rows {start} to {stop - 1} of {path} can't be read: {what}")
                continue
            yield start, block


@dataclass(frozen=True, slots=True)
class Column:
    """A data set that is one column of a table.

    Attributes
    ----------
    path : str
        In the file, for messages.
    data : h5py.h5d.DatasetID
    dtype : dtype
        As which values are read; with a shape where a row has several.
    needed : bool
        Whether a row without its value is none.
    """

    path: str
    data: Any
    dtype: np.dtype[Any]
    needed: bool = False


def joined(
    hdf5: Hdf5, columns: Mapping[str, Column]
) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[Any]]]]:
    """Yield the rows of a table whose columns are data sets of their own, some at a time.

    A row has the values that bear its number. What can't be read is noted as a problem: it costs the rows that need
    it; other rows have NaN there.

    Parameters
    ----------
    hdf5 : Hdf5
    columns : Mapping
        Columns by name, at least one of them needed.

    Returns
    -------
    iterator of (ndarray of int64, dict of ndarray)
        Numbers of rows, rising, and their values by name of column.
    """
    lengths = {name: int(column.data.shape[0]) for name, column in columns.items()}
    needed = [name for name, column in columns.items() if column.needed]
    shortest = min(lengths[name] for name in needed)
    streams = {name: blocks(hdf5, column.path, column.data, column.dtype) for name, column in columns.items()}
    waiting = {name: next(stream, None) for name, stream in streams.items()}
    while starts := [place[0] for name in needed if (place := waiting[name]) is not None]:
        begin = max(starts)
        if len(starts) < len(needed) or begin >= shortest:
            break
        end = min(begin + _ROWS, shortest)
        values, read = {}, {}
        for name, column in columns.items():
            values[name] = np.zeros(end - begin, column.dtype)
            if column.dtype.base.kind == "f":
                values[name].fill(np.nan)
            read[name] = np.zeros(end - begin, bool)
            while (place := waiting[name]) is not None and place[0] < end:
                start, block = place
                low, high = max(start, begin), min(start + len(block), end)
                if low < high:
                    values[name][low - begin : high - begin] = block[low - start : high - start]
                    read[name][low - begin : high - begin] = True
                rest = block[end - start :]
                waiting[name] = (end, rest) if len(rest) else next(streams[name], None)
        whole = np.logical_and.reduce([read[name] for name in needed])
        if whole.any():
            yield begin + np.flatnonzero(whole), {name: column[whole] for name, column in values.items()}
    if min(lengths.values()) < max(lengths.values()):
        hdf5.problems.add(0, f"columns have from {min(lengths.values())} to {max(lengths.values())} rows")


def _pieces(hdf5: Hdf5, path: str, table: Any, shape: tuple[int, ...] = ()) -> list[_Piece]:
    """Return the rows of a table, each of this shape, that have bytes within the file, as they lie together.

    What is no such table has none, with a problem: it leaves other tables of the file.
    """
    import h5py

    if table.rank != 1 + len(shape) or table.shape[1:] != shape:
        hdf5.note_once(f"{path} has {table.rank} dimensions, a table has one")
        return []
    claimed, width = int(table.shape[0]), int(table.get_type().get_size()) * math.prod(shape)
    settings = table.get_create_plist()
    layout = settings.get_layout()
    if settings.get_external_count() or layout not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        hdf5.note_once(f"the rows of {path} are kept in other files (h5repack brings them together)")
        return []
    pieces = []
    if layout == h5py.h5d.COMPACT:
        pieces = [_Piece(0, min(claimed, hdf5.size // max(width, 1)), 0)]
    elif layout == h5py.h5d.CONTIGUOUS:
        offset = table.get_offset()
        if offset is not None:
            pieces = [_Piece(0, max(min(claimed, (hdf5.size - offset) // max(width, 1)), 0), int(offset))]
    else:
        pieces = _chunks(hdf5, table)
    pieces = [piece for piece in pieces if piece.start < piece.stop]
    stored = sum(piece.stop - piece.start for piece in pieces)
    if stored < claimed:
        hdf5.note_once(f"{path} claims {claimed} rows and has bytes for {stored}")
    return pieces


def _chunks(hdf5: Hdf5, table: Any) -> list[_Piece]:
    """Return the rows of a table in chunks; chunks may cut the values of a row, which needs all of its own."""
    settings = table.get_create_plist()
    claimed, (rows, *across) = int(table.shape[0]), (int(count) for count in settings.get_chunk())
    chunk_bytes = rows * math.prod(across) * int(table.get_type().get_size())
    side_by_side = math.prod(-(-int(count) // part) for count, part in zip(table.shape[1:], across, strict=True))
    stored: list[Any] = []
    table.chunk_iter(stored.append)
    pieces: dict[int, dict[tuple[int, ...], int]] = {}
    for chunk in stored:
        start, size = int(chunk.chunk_offset[0]), int(chunk.size)
        most = max(_FREE, MOST_EXPANSION * size) if settings.get_nfilters() else size
        within = chunk.byte_offset is not None and chunk.byte_offset + size <= hdf5.size
        if within and 0 <= start < claimed and chunk_bytes <= min(most, _LARGEST_CHUNK):
            pieces.setdefault(start, {})[tuple(chunk.chunk_offset[1:])] = int(chunk.byte_offset)
    return [
        _Piece(start, min(start + rows, claimed), min(pieces[start].values()))
        for start in sorted(pieces)
        if len(pieces[start]) == side_by_side
    ]


def _lacking_filter(table: Any) -> str | None:
    """Return which filter a table is compressed by that is not there, and how to get it; None if all are."""
    import h5py

    settings = table.get_create_plist()
    for place in range(settings.get_nfilters()):
        code, _, _, name = settings.get_filter(place)
        if h5py.h5z.filter_avail(code):
            continue
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401  registers its filters
        if not h5py.h5z.filter_avail(code):
            label = name.decode("ascii", "replace").strip("\0 ") or f"number {code}"
            return f"it is compressed by the filter {label}; pip install hdf5plugin"
    return None

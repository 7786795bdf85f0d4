"""Columns of ROOT trees, read basket by basket: uproot finds the bytes, numpy views them as rows of numbers.

uproot makes Python objects of every row of a variable-length branch, which costs several times the decompression. In
the files of an instrument such rows are all of one length: here they stay an array. A basket that is damaged costs
its own entries only.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from apbatch.errors import FormatError, MissingSoftwareError
from apbatch.formats.compressed import MOST_EXPANSION
from apbatch.formats.text.lines import Problems

#: Of a basket: more would be memory that the file asks for.
_LARGEST = 256 << 20
#: What a short basket may expand to at any rate.
_FREE = 1 << 20
#: Length of a `TArrayF`, written before its numbers.
_COUNT_BYTES = 4


def open_trees(stream: BinaryIO, name: str, *trees: str) -> list[Any]:
    """Open trees of a ROOT file; None where the file has none of that name.

    Parameters
    ----------
    stream : BinaryIO
    name : str
        Name of the file, for errors.
    trees : str
        Names of trees.

    Raises
    ------
    FormatError
        If the file is damaged.
    MissingSoftwareError
        Without uproot.
    """
    try:
        import uproot
    except ImportError as error:
        raise MissingSoftwareError(
            "ROOT files need the package uproot", where=name, remedy="pip install 'apbatch[magic]'"
        ) from error
    try:
        file = uproot.open(_Borrowed(stream))
        opened = [file.get(tree, None) for tree in trees]
        begin, end, size = file.file.fBEGIN, file.file.fEND, stream.seek(0, 2)
        if opened[0] is None and not begin < end <= size:
            raise ValueError(f"its header speaks of bytes {begin} to {end}, there are {size}")
        return opened
    except MemoryError:
        raise
    except Exception as error:  # uproot raises almost anything at a damaged file
        reason = str(error).strip().split("\n", 1)[0][:160] or type(error).__name__
        raise FormatError(
            f"not a readable ROOT file: {reason}", where=name, remedy="the file was cut or damaged"
        ) from error


class _Borrowed:
    """A stream that uproot may read, but not close when it is done."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read, self.seek, self.tell = stream.read, stream.seek, stream.tell
        stream.seek(0)


class Column:
    """One branch of a tree as rows of numbers.

    Parameters
    ----------
    tree : uproot.TTree
    branch : str
    width : int
        Numbers of a row that are wanted; rows with fewer are bad. 1 for a branch of single numbers.
    counted : bool
        Whether it is a `TArrayF`, whose rows begin with their length. (uproot would have to read the description of
        all classes of the file to find that out.)
    """

    def __init__(self, tree: Any, branch: str, width: int = 1, *, counted: bool = False) -> None:
        self.name, self.width, self._counted = branch, width, counted
        self._branch = tree[branch]
        self._dtype = np.dtype(">f4") if counted else _type(self._branch, branch)
        self._last_basket: tuple[int, npt.NDArray[Any] | None] = (-1, None)
        self._reported: set[int] = set()
        bounds = [self._branch.basket_entry_start_stop(number) for number in range(self._branch.num_baskets)]
        self._starts = np.array([int(start) for start, _ in bounds], np.int64)
        self._stops = np.array([int(stop) for _, stop in bounds], np.int64)
        if (self._starts >= self._stops).any() or (self._starts[1:] < self._stops[:-1]).any():
            raise FormatError(f"the baskets of branch {branch} do not follow each other")

    @property
    def entries(self) -> int:
        """How many entries the baskets hold."""
        return int(self._stops[-1]) if len(self._stops) else 0

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """First entry of each basket."""
        return self._starts

    def rows(self, start: int, stop: int, problems: Problems) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read entries.

        Parameters
        ----------
        start, stop : int
            Entries of the tree.
        problems : Problems
            Takes baskets that can't be read.

        Returns
        -------
        values : ndarray of shape (stop - start, width)
            In the machine's byte order; undefined where not `good`.
        good : ndarray of bool, shape (stop - start,)
            Entries in baskets that could be read, with rows that are long enough.
        """
        values = np.empty((stop - start, self.width), self._dtype.newbyteorder("="))
        good = np.zeros(stop - start, bool)
        first = int(np.searchsorted(self._stops, start, side="right"))
        last = int(np.searchsorted(self._starts, stop, side="left"))
        for number in range(first, last):
            content = self._basket(number, problems)
            begin, end = max(start, int(self._starts[number])), min(stop, int(self._stops[number]))
            if content is None or begin >= end:
                continue
            base = int(self._starts[number])
            here = slice(begin - start, end - start)
            values[here], good[here] = content[begin - base : end - base], True
        return values, good

    def _basket(self, number: int, problems: Problems) -> npt.NDArray[Any] | None:
        if self._last_basket[0] == number:
            return self._last_basket[1]
        content = None
        try:
            content = self._decoded(number)
        except MemoryError:
            raise
        except Exception as error:  # uproot, and the decompressors it calls, raise almost anything
            if number not in self._reported:
                self._reported.add(number)
                reason = str(error).strip().split("\n", 1)[0][:120] or type(error).__name__
                problems.add(
                    self._place(number),
                    f"entries {self._starts[number]} to {self._stops[number] - 1} of {self.name}: {reason}",
                )
        self._last_basket = (number, content)
        return content

    def _decoded(self, number: int) -> npt.NDArray[Any]:
        size, stored = (
            int(count)
            for count in (
                self._branch.basket_uncompressed_bytes(number),
                self._branch.basket_compressed_bytes(number),
            )
        )
        count = int(self._stops[number] - self._starts[number])
        least = count * self.width * self._dtype.itemsize
        if not least <= size <= min(_LARGEST, max(_FREE, MOST_EXPANSION * stored)):
            raise ValueError(f"a basket of {stored} bytes that expands to {size} for {count} entries")
        basket = self._branch.basket(number)
        data = np.asarray(basket.data).view(np.uint8)
        if count < 1 or len(data) % count:
            raise ValueError(f"{len(data)} bytes are no {count} rows of one length")
        rows = data.reshape(count, -1)
        offsets = basket.byte_offsets
        if offsets is not None and (np.diff(np.asarray(offsets)) != rows.shape[1]).any():
            raise ValueError("rows of different lengths")
        if self._counted:
            counts = np.ascontiguousarray(rows[:, :_COUNT_BYTES]).view(">u4")[:, 0]
            rows = rows[:, _COUNT_BYTES:]
            if (counts != rows.shape[1] // self._dtype.itemsize).any():
                raise ValueError("rows whose length is not the one they name")
        if rows.shape[1] % self._dtype.itemsize or rows.shape[1] < self.width * self._dtype.itemsize:
            raise ValueError(f"rows of {rows.shape[1]} bytes, {self.width} numbers are wanted")
        rows = np.ascontiguousarray(rows[:, : self.width * self._dtype.itemsize])
        return rows.view(self._dtype)

    def _place(self, number: int) -> int:
        try:
            return int(self._branch.member("fBasketSeek")[number])
        except Exception:  # where it is, is worth telling, but no more
            return 0


def _type(branch: Any, name: str) -> np.dtype[Any]:
    """Return the type of the numbers of a branch."""
    interpretation = branch.interpretation
    kind = type(interpretation).__name__
    if kind == "AsDtype":
        return np.dtype(interpretation.from_dtype)
    if kind == "AsJagged" and type(interpretation.content).__name__ == "AsDtype" and not interpretation.header_bytes:
        return np.dtype(interpretation.content.from_dtype)
    raise FormatError(f"branch {name} is {interpretation}, no rows of numbers")

"""What makes a row of numbers no event: the bounds of a format, stated once for all forms in which it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

#: Rows by column: an array with named fields, or arrays by name.
Rows = Any


class RowRules:
    """Rules that a row must obey, in this order.

    Parameters
    ----------
    rules : tuple
        Each a function of rows that tells which obey, and what is said of one that does not, with names of columns
        in braces.
    """

    def __init__(self, *rules: tuple[Callable[[Rows], npt.NDArray[np.bool_]], str]) -> None:
        self._rules = rules

    def broken(self, rows: Rows, count: int) -> npt.NDArray[np.int64]:
        """Return the number of the first rule that each row breaks, -1 where it is an event.

        Parameters
        ----------
        rows : ndarray or mapping
        count : int
            How many rows these are.
        """
        with np.errstate(invalid="ignore"):
            passes = np.stack([*(rule(rows) for rule, _ in self._rules), np.zeros(count, bool)])
        first = np.argmin(passes, axis=0)
        return np.where(first == len(self._rules), -1, first).astype(np.int64)

    def reasons(self, rows: Rows, broken: npt.NDArray[np.int64]) -> Iterator[tuple[int, str]]:
        """Yield the places of the rows that are no events, with the reason.

        Parameters
        ----------
        rows : ndarray or mapping
        broken : ndarray of int64
            What `broken` gave for them.
        """
        for place in np.flatnonzero(broken >= 0).tolist():
            yield place, self._rules[broken[place]][1].format_map(_Row(rows, place))


class _Row(dict[str, float]):
    """The values of one row by column, as far as they are asked for."""

    def __init__(self, rows: Rows, place: int) -> None:
        self._rows, self._place = rows, place

    def __missing__(self, name: str) -> float:
        return float(self._rows[name][self._place])

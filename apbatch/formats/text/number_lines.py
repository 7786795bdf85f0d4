"""Tables of numbers as text, a block of lines at a time: words are counted and parsed by one compiled pass."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from apbatch.formats.text.lines import CUT_LINE, LONGEST_LINE, Line, Problems, numbers

_BLOCK = 1 << 20
_POWERS = np.array([10.0**power for power in range(23)])
_STRANGE = -1


@dataclass(frozen=True, eq=False)
class NumberLines:
    """Lines that follow each other and are not blank.

    Attributes
    ----------
    offset : ndarray of int64, shape (n_lines,)
        Byte at which each begins.
    number : ndarray of int64, shape (n_lines,)
        From 1; 0 if it is not known.
    count : ndarray of int64, shape (n_lines,)
        How many numbers it has; -1 if it has anything else.
    values : ndarray of float64, shape (n_lines, most)
        The first of them; what is beyond `count` means nothing.
    """

    offset: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def line(self, index: int) -> Line:
        """Return number and offset of a line, for messages."""
        return Line(int(self.number[index]), int(self.offset[index]), "")


def number_lines(
    stream: BinaryIO, problems: Problems, most: int, start: int = 0, *, compiled: bool = True
) -> Iterator[NumberLines]:
    """Yield the lines of a stream in blocks; overlong lines, and a last one without its end, are noted and passed over.

    Parameters
    ----------
    stream : BinaryIO
        Needs only `read`, unless `start` is not 0.
    problems : Problems
        Takes lines that were passed over.
    most : int
        Numbers of a line that are kept.
    start : int
        Byte from which on lines must begin.
    compiled : bool
        Whether many lines are expected: for a few, loading the compiled parser takes longer than doing without it.
    """
    parse = _compiled() if compiled else None
    offset, number, skipping = 0, 1, start > 0
    if start > 0:
        offset = stream.seek(start - 1)
    buffer = b""
    while True:
        block = stream.read(_BLOCK)
        buffer += block
        if offset == 0 and buffer.startswith(BOM_UTF8):  # blanks, so that every line stays at its byte
            buffer = b" " * len(BOM_UTF8) + buffer[len(BOM_UTF8) :]
        if skipping:  # to the end of a line that began before, or is overlong
            end = buffer.find(b"\n") + 1
            offset, buffer = offset + (end or len(buffer)), buffer[end or len(buffer) :]
            skipping = not end
        cut = buffer.rfind(b"\n") + 1
        if cut:
            yield _parsed(buffer[:cut], offset, number if not start else 0, most, problems, parse)
            number += buffer.count(b"\n", 0, cut)
            offset, buffer = offset + cut, buffer[cut:]
        if not block:
            if buffer.strip():
                problems.at_line(Line(0 if start else number, offset, ""), CUT_LINE)
            return
        if len(buffer) > LONGEST_LINE + 1:
            problems.at_line(Line(0 if start else number, offset, ""), _overlong(len(buffer)))
            offset, buffer, number, skipping = offset + len(buffer), b"", number + 1, True


def _overlong(length: int) -> str:
    return f"{length} bytes long or more, no line of a table"


def _parsed(
    text: bytes, offset: int, number: int, most: int, problems: Problems, parse: Callable[..., None] | None
) -> NumberLines:
    content = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(content == 10) + 1
    if not len(ends) or ends[-1] < len(text):
        ends = np.append(ends, len(text))
    begins = np.concatenate([[0], ends]).astype(np.int64)
    counts = np.full(len(ends), _STRANGE, np.int64)
    values = np.empty((len(ends), most))
    if parse is not None:
        parse(content, begins, _POWERS, counts, values)
    for line in np.flatnonzero(counts == _STRANGE).tolist():
        _by_python(text[begins[line] : begins[line + 1]], line, counts, values)
    length = np.diff(begins)
    for line in np.flatnonzero(length > LONGEST_LINE + 1).tolist():
        counts[line] = 0  # as if it were blank
        place = Line(number + line if number else 0, offset + int(begins[line]), "")
        problems.at_line(place, _overlong(int(length[line])))
    keep = np.flatnonzero(counts)
    numbered = keep + number if number else np.zeros_like(keep)
    return NumberLines(begins[keep] + offset, numbered, counts[keep], values[keep])


def _by_python(text: bytes, line: int, counts: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
    words = text.decode("utf-8", errors="backslashreplace").split()
    row = numbers(words)
    if row is None:
        return
    counts[line] = len(row)
    values[line, : len(row)] = row[: values.shape[1]]


@cache
def _compiled() -> Callable[..., None] | None:
    """Return the compiled parser; None without numba, and then all lines are Python's."""
    try:
        from apbatch.formats.text.number_kernel import parse_numbers
    except ImportError:
        return None
    return parse_numbers

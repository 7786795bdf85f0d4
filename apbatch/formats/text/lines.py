"""Text files read line by line, in bounded memory whatever the file holds; a byte order mark is no part of a line."""

from __future__ import annotations

from codecs import BOM_UTF8, getincrementaldecoder
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

#: A longer line is no line of any table here.
LONGEST_LINE = 64 * 1024
#: What is said of a last line whose numbers can't be trusted.
CUT_LINE = "the last line has no end: the file may be cut, the line is passed over"
#: Problems that are kept of one file; the rest is only counted.
MOST_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that could not be read and was passed over."""

    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a text file.

    Attributes
    ----------
    number : int
        From 1; 0 if it is not known, in a part of a file.
    offset : int
        Byte at which it starts.
    text : str
        Without the end of line; bytes that are not UTF-8 are shown as ``\\xNN``.
    """

    number: int
    offset: int
    text: str

    @property
    def words(self) -> list[str]:
        """The line split at white space."""
        return self.text.split()


class Problems:
    """Collects what was passed over in one file; keeps the first hundred and the number of all."""

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.count = 0

    def add(self, offset: int, reason: str) -> None:
        """Note a record that was passed over."""
        self.count += 1
        if len(self.kept) < MOST_PROBLEMS:
            self.kept.append(Problem(offset, reason))

    def at_line(self, line: Line | RawLine, reason: str) -> None:
        """Note a line that was passed over."""
        self.add(line.offset, f"line {line.number}: {reason}" if line.number else reason)

    def absorb(self, others: Problems) -> None:
        """Take over what was noted elsewhere in the same file, after what is here."""
        self.count += others.count
        self.kept += others.kept[: MOST_PROBLEMS - len(self.kept)]

    def result(self) -> tuple[Problem, ...]:
        """Return what was noted; if more than a hundred, the last entry says how many more."""
        more = self.count - len(self.kept)
        last = (Problem(self.kept[-1].offset, f"{more} more after this"),) if more else ()
        return (*self.kept, *last)


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line as bytes, with its end; number and offset as in `Line`."""

    number: int
    offset: int
    content: bytes


def raw_lines(stream: BinaryIO, problems: Problems, start: int = 0, longest: int = LONGEST_LINE) -> Iterator[RawLine]:
    """Yield the lines of a stream that are not blank; overlong lines are noted and passed over.

    Parameters
    ----------
    stream : BinaryIO
    problems : Problems
        Takes lines that were passed over.
    start : int
        Byte from which on lines must begin; the stream must be able to seek unless it is 0.
    longest : int
        Bytes of the longest line.
    """
    number, offset = 0, 0
    if start > 0:
        offset = stream.seek(start - 1)
        while piece := stream.readline(longest):  # to the end of the line that began before
            offset += len(piece)
            if piece.endswith(b"\n"):
                break
    while raw := stream.readline(longest + 1):
        number += 1
        begin, length = offset, len(raw)
        complete = raw.endswith(b"\n") or length <= longest
        while not complete:  # drop the rest of an overlong line, a piece at a time
            piece = stream.readline(longest)
            length += len(piece)
            complete = not piece or piece.endswith(b"\n")
        offset += length
        if begin == 0:
            raw = raw.removeprefix(BOM_UTF8)
        if length > longest + 1:
            problems.at_line(Line(0 if start else number, begin, ""), f"{length} bytes long, no line of a table")
        elif raw.strip():
            yield RawLine(0 if start else number, begin, raw)


def lines_of(stream: BinaryIO, problems: Problems, start: int = 0, *, whole: bool = False) -> Iterator[Line]:
    """Yield the lines of a stream of text that are not blank, as `raw_lines` does.

    Parameters
    ----------
    stream : BinaryIO
    problems : Problems
        Takes lines that were passed over.
    start : int
        Byte from which on lines must begin.
    whole : bool
        Pass over a last line without its end, with a problem: a number at its end may be cut.
    """
    for line in raw_lines(stream, problems, start):
        if whole and not line.content.endswith(b"\n"):
            problems.at_line(Line(line.number, line.offset, ""), CUT_LINE)
            continue
        text = line.content.decode("utf-8", errors="backslashreplace").rstrip("\r\n")
        yield Line(line.number, line.offset, text)


def head_lines(head: bytes) -> list[str] | None:
    """Return the whole, non-blank lines at the start of a text file; None if the bytes are no plain text."""
    if b"\0" in head:
        return None
    text = head.removeprefix(BOM_UTF8).decode("utf-8", errors="replace")
    whole = text.split("\n")
    if len(head) >= 4096 or len(whole) > 1:  # the last line may be cut by the end of the head
        whole = whole[:-1] if not text.endswith("\n") and len(head) >= 4096 else whole
    return [line.rstrip("\r") for line in whole if line.strip()]


def is_text(head: bytes) -> bool:
    """Tell whether the first bytes of a file are of plain text: ASCII or UTF-8, of which the last letter may be cut."""
    if not head or b"\0" in head:
        return False
    try:
        getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def numbers(words: list[str]) -> list[float] | None:
    """Return the words as numbers, or None if one is none (``nan`` is a number here, ``1_000`` is none)."""
    try:
        return [float(word) for word in words] if not any("_" in word for word in words) else None
    except ValueError:
        return None

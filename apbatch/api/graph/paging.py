"""Pages of connections: how many nodes, where they begin, and the cursor of each node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apbatch.api.graph.measure import MANY
from apbatch.errors import UsageError
from apbatch.index.pages import identity, read_cursor, write_cursor


@dataclass(frozen=True, slots=True)
class Start:
    """Where a page begins: some nodes after the cursor of a page.

    A back-end gives a cursor for the end of a page alone. What follows a node within a page is reached from where the
    page began, by passing over the nodes before.

    Attributes
    ----------
    cursor : str, optional
        Of the page before; None at the beginning.
    passed : int
        Nodes after it that are passed over.
    """

    cursor: str | None
    passed: int

    def nodes_read(self, first: int) -> int:
        """Return how many nodes after the cursor are read: those passed over, and the page.

        A page that begins within another ends where that one could have ended at the latest: else the cursors of its
        nodes would pass over ever more.

        Raises
        ------
        UsageError
            If no page has so many nodes.
        """
        if not 1 <= first <= MANY:
            raise UsageError(f"a page of {first}", where="first", remedy=f"1 to {MANY}")
        return self.passed + max(1, min(first, MANY - self.passed))

    @classmethod
    def of(cls, after: str | None) -> Start:
        """Read what a client gives back.

        Raises
        ------
        UsageError
        """
        number, plus, cursor = (after or "").partition("+")
        if not plus:
            return cls(after, 0)
        if not (number.isascii() and number.isdecimal() and len(number) < 6 and int(number) <= 2 * MANY):
            raise UsageError("there is no such cursor", where="after", remedy="endCursor leads any number of pages on")
        return cls(cursor or None, int(number))

    def after(self, number: int) -> str:
        """Return the cursor of what follows the first nodes of the page."""
        return f"{self.passed + number}+{self.cursor or ''}"


def page_of_names(names: Sequence[str], of: str, first: int, start: Start) -> tuple[list[str], str | None]:
    """Return some of sorted names, and the cursor of the next ones; None after the last.

    Parameters
    ----------
    names : sequence of str
    of : str
        What they are names of.
    first : int
        How many at most.
    start : Start
    """
    question = identity(of)
    if start.cursor is not None:
        last = read_cursor(start.cursor, question, ("string",)).after[0] or ""
        names = [name for name in names if name > last]
    end = start.nodes_read(first)
    return list(names[start.passed : end]), write_cursor(question, [names[end - 1]]) if len(names) > end else None

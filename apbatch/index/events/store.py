"""The store of events: one interface, several back-ends, one contract suite (`tests/contract/test_events.py`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from apbatch.errors import ApbatchError, UsageError, nearest_word
from apbatch.formats.reader import Attribute
from apbatch.index.events.columns import EVENT_KEYS
from apbatch.index.events.cursor import Cursor
from apbatch.index.query import Everything, Query

#: Most events of one page.
LARGEST_PAGE = 1_000_000


@dataclass(frozen=True, slots=True)
class Order:
    """One column by which a result is ordered; null is less than any value."""

    name: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a result.

    Attributes
    ----------
    events : pyarrow.Table
    cursor : str, optional
        What the next page is asked for with; None on the last one.
    """

    events: pa.Table
    cursor: str | None


class EventStore(ABC):
    """Events of all experiments, found by the key `EVENT_KEYS`.

    Writes are idempotent (upsert by key) and whole: a killed writer leaves all events of one call old or new where the
    back-end can (`Parquet`, PostgreSQL), else each event.
    """

    @abstractmethod
    def declare(self, attributes: Iterable[Attribute]) -> None:
        """Make columns of events known for typing and units.

        Raises
        ------
        UsageError
            If a name is declared already with another type or unit.
        """

    @abstractmethod
    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query of events may name."""

    @abstractmethod
    def upsert(self, events: pa.RecordBatch | Iterable[pa.RecordBatch]) -> int:
        """Insert or replace whole events by (experiment, run, event, telescope, cleaning); return how many were given.

        Parameters
        ----------
        events : RecordBatch or iterable of RecordBatch
            Columns of `EVENT_KEYS`, and any others: those that are not declared are parameters, numbers without a
            unit. NaN and infinity are no values and become null. Of several events with one key the last counts.

        Raises
        ------
        UsageError
            If a key column is missing or has gaps, or a value is not of its column's type.
        """

    @abstractmethod
    def remove(self, where: Query) -> int:
        """Forget the events that match; return how many there were."""

    @abstractmethod
    def select(
        self,
        where: Query = Everything(),
        columns: Sequence[str] | None = None,
        *,
        order: Sequence[Order] = (),
        limit: int | None = None,
        after: Sequence[Any] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield events that match, in the order of `order`, then of their keys.

        Parameters
        ----------
        where : Query
            Of the attributes that `attributes` returns.
        columns : sequence of str, optional
            Which columns to give besides those of `EVENT_KEYS` and `POINTER`; by default all that there are.
        order : sequence of Order
        limit : int, optional
        after : sequence, optional
            Values of the columns of `order` and of the key, of the event after which to begin.

        Raises
        ------
        UsageError
            If a name is not known, or the back-end can't serve the query without a full scan; the message says why.
        """

    @abstractmethod
    def count(self, where: Query = Everything(), by: str | None = None) -> dict[Any, int]:
        """Count the events that match, by the values of attribute `by`; one entry under None without `by`."""

    @abstractmethod
    def explain(self, where: Query) -> str:
        """Return how the back-end would answer, for people."""

    def check(self, *, forget: bool = False) -> list[ApbatchError]:
        """Read everything through; return what is wrong with each part that is gone or damaged.

        Parameters
        ----------
        forget : bool
            Whether such parts are left out from now on.
        """
        return []  # a server looks after its own files

    def compact(self) -> int:
        """Make searches quick again after many small writes; return how many parts were joined."""
        return 0

    @abstractmethod
    def close(self) -> None:
        """Release connections."""

    def page(
        self,
        where: Query = Everything(),
        columns: Sequence[str] | None = None,
        *,
        size: int = 1000,
        cursor: str | None = None,
        order: Sequence[Order] = (),
    ) -> Page:
        """Return up to `size` events that match, from the beginning or from a cursor on.

        Parameters
        ----------
        where : Query
        columns : sequence of str, optional
            Besides the keys; by default all.
        size : int
            Events at most.
        cursor : str, optional
            Of the page before.
        order : sequence of Order
            The keys decide between equals.

        Raises
        ------
        UsageError
            As `select`, and if the cursor is of another query.
        """
        if not 1 <= size <= LARGEST_PAGE:
            raise UsageError(f"a page of {size} events", remedy=f"1 to {LARGEST_PAGE}")
        attributes = self.attributes()
        names = [*(one.name for one in order), *EVENT_KEYS]
        place = Cursor.of(where, [(one.name, one.descending) for one in order])
        after = None if cursor is None else place.read(cursor, [attributes[name] for name in names])
        fields = columns if columns is None else [*columns, *(one.name for one in order)]
        batches = list(self.select(where, fields, order=order, limit=size + 1, after=after))
        if not batches:
            return Page(pa.table({}), None)
        events = pa.Table.from_batches(batches)
        if events.num_rows <= size:
            return Page(events, None)
        events = events.slice(0, size)
        last = events.slice(size - 1, 1).to_pylist()[0]
        return Page(events, place.write([last[name] for name in names]))

    def __enter__(self) -> EventStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def order_of(order: Sequence[Order], attributes: dict[str, Attribute]) -> tuple[list[str], list[bool]]:
    """Return the columns that order a result completely, and which of them descend.

    Raises
    ------
    UsageError
        If one is not known.
    """
    for one in order:
        if one.name not in attributes:
            raise UsageError(f"unknown attribute '{one.name}'", nearest=nearest_word(one.name, attributes))
    unique = {one.name: one.descending for one in reversed(order)}
    named = [one.name for one in order if one.name in unique]
    first = list(dict.fromkeys(named))
    rest = [key for key in EVENT_KEYS if key not in unique]
    return [*first, *rest], [*(unique[name] for name in first), *(False for _ in rest)]


def compare_rows(
    one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str], descending: Sequence[bool]
) -> int:
    """Return -1, 0 or 1 as a row comes before another, beside it or after it; null is less than any value.

    Parameters
    ----------
    one, other : Mapping
        Values by column.
    names : sequence of str
        Columns of the order, the first one decides first.
    descending : sequence of bool
        For each column.
    """
    for name, down in zip(names, descending, strict=True):
        mine, theirs = one.get(name), other.get(name)
        if mine == theirs:
            continue
        less = mine is None or (theirs is not None and mine < theirs)
        return 1 if less == down else -1
    return 0

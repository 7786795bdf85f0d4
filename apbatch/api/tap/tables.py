"""The tables that TAP shows, each with its columns, its rows and its counts: files and events here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa

from apbatch.access.described import event_batches, file_batches
from apbatch.access.guard import Guard
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.events.columns import ARROW_TYPES, POINTER, arrow_type

Rows = tuple[pa.Schema, Iterator[pa.RecordBatch]]

_UCDS = {
    "path": "meta.id;meta.main", "place": "meta.id", "size": "phys.size;meta.file", "experiment": "meta.id;instr.tel",
    "time_start": "time.start;obs", "time_end": "time.end;obs", "time": "time.epoch", "run": "meta.id;obs",
    "event": "meta.id", "telescope": "meta.id;instr.tel", "events": "meta.number", "energy": "phys.energy",
    "ra": "pos.eq.ra", "dec": "pos.eq.dec", "pointing_ra": "pos.eq.ra", "pointing_dec": "pos.eq.dec",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A column as TAP_SCHEMA and VOTables describe it.

    Attributes
    ----------
    attribute : Attribute
        Name, type, unit and description.
    ucd, utype : str
        What it means in the words of the IVOA; empty for nothing.
    is_standard : bool
        Whether a standard of the IVOA defines it.
    is_ascii : bool
        Whether its values are ASCII alone.
    arrow : DataType, optional
        Where it is not the usual one of the attribute's type.
    """

    attribute: Attribute
    ucd: str = ""
    utype: str = ""
    is_standard: bool = False
    is_ascii: bool = False
    arrow: pa.DataType | None = None

    @property
    def kind(self) -> pa.DataType:
        """Type of its values."""
        return self.arrow or ARROW_TYPES[self.attribute.type]


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A column whose values are those of a column of another table."""

    column: str
    target_table: str
    target_column: str


class Table(ABC):
    """One table, as one principal may see it."""

    #: Full name, in lower case.
    name: ClassVar[str]
    description: ClassVar[str]
    utype: ClassVar[str | None] = None
    keys: ClassVar[tuple[ForeignKey, ...]] = ()
    columns: Mapping[str, Column]

    @property
    def attributes(self) -> dict[str, Attribute]:
        """What a statement may name."""
        return {name: column.attribute for name, column in self.columns.items()}

    @abstractmethod
    def rows(self, columns: Sequence[str], where: q.Query, order: Sequence[q.Order], limit: int | None) -> Rows:
        """Return a schema that has these columns, and batches of the rows that match.

        Parameters
        ----------
        columns : sequence of str
            Of the result.
        where : Query
        order : sequence of Order
        limit : int, optional
            Rows at most.

        Raises
        ------
        UsageError
            If the table can't serve the condition or the order.
        """

    @abstractmethod
    def count(self, where: q.Query, by: str | None) -> dict[Any, int]:
        """Count the rows that match, by the values of a column; one entry under None without one."""


class FileTable(Table):
    """Files of the catalogue."""

    name = "apbatch.files"
    description = "Files of all experiments that the asker may see; registered ones, unless `state` is asked for."

    def __init__(self, door: Guard) -> None:
        self._door = door
        self.columns = _columns(door.attributes())

    def rows(self, columns: Sequence[str], where: q.Query, order: Sequence[q.Order], limit: int | None) -> Rows:
        """Return the files that match."""
        return file_batches(self._door, q.Search(where, tuple(order), limit), columns)

    def count(self, where: q.Query, by: str | None) -> dict[Any, int]:
        """Count the files that match."""
        return self._door.count(where, by)


class EventTable(Table):
    """Events with their image parameters."""

    name = "apbatch.events"
    description = "Events with their image parameters, one row an event and cleaning."

    def __init__(self, door: Guard) -> None:
        self._door = door
        columns = {name: one for name, one in door.event_attributes().items() if name not in POINTER}
        self.columns = {name: replace(one, arrow=arrow_type(one.attribute)) for name, one in _columns(columns).items()}

    def rows(self, columns: Sequence[str], where: q.Query, order: Sequence[q.Order], limit: int | None) -> Rows:
        """Return the events that match."""
        return event_batches(self._door, q.Search(where, tuple(order), limit), columns)

    def count(self, where: q.Query, by: str | None) -> dict[Any, int]:
        """Count the events that match."""
        return self._door.events_count(where, by)


def _columns(attributes: Mapping[str, Attribute]) -> dict[str, Column]:
    return {name: Column(attribute, _UCDS.get(name, "")) for name, attribute in attributes.items()}

"""Rows of files as records, with the attributes that side tables have of them, and what their statement stands on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from apbatch.formats.reader import Attribute
from apbatch.index.files import STATES, FileRecord, RecordTwin
from apbatch.index.sql.database import Row
from apbatch.index.sql.schema import RECORD, side_table

#: More side tables, or columns of them, are not joined to files, but asked for what was found.
_MOST_TABLES = 8
_MOST_COLUMNS = 128
_AS_STORED = ("string", "integer", "number")
#: Columns of a row that are fields of a record; its id follows.
_FIELDS = len(RECORD) - 1


@dataclass(slots=True)
class SideTable:
    """The attributes of one experiment: number of its table, names of its columns."""

    number: int
    names: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Declarations:
    """What was declared, as of a version of the schema."""

    version: int = -1
    attributes: dict[str, Attribute] = field(default_factory=dict)
    tables: dict[str, SideTable] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Joined:
    """Side tables beside the files of a statement, which are ``f`` there.

    Attributes
    ----------
    version : int
        Of the schema.
    columns : str
        Their columns, each after a comma; they follow those of `RECORD`.
    source : str
        What follows the files in FROM.
    places : dict
        By experiment: where its attributes are in a row, their names and types.
    statements : dict
        What was composed with these tables, by source and condition.
    """

    version: int
    columns: str
    source: str
    places: dict[str, tuple[slice, tuple[tuple[str, str], ...]]]
    statements: dict[tuple[str, str], str] = field(default_factory=dict)

    def records(self, rows: Sequence[Row], is_typed: bool) -> list[FileRecord]:
        """Return the records of rows.

        Parameters
        ----------
        rows : sequence of tuple
        is_typed : bool
            See `apbatch.index.sql.database.Database`.
        """
        if not self.places:
            return records_of(rows, ({} for _ in rows), is_typed)
        beside = []
        for row in rows:
            where, names = self.places.get(row[8], _NOWHERE)
            beside.append(attributes_of(names, row[where], is_typed))
        return records_of(rows, beside, is_typed)


class Standing(NamedTuple):
    """What a statement is composed for.

    Attributes
    ----------
    declarations : Declarations
    shared : bool
        Whether any content has several sources.
    """

    declarations: Declarations
    shared: bool

    @property
    def number(self) -> int:
        """Both as a statement returns them."""
        return 2 * self.declarations.version + self.shared


class Statement(NamedTuple):
    """A statement.

    Attributes
    ----------
    sql : str
    values : list
    joined : Joined, optional
        Side tables that it joins for whole records; None if they are too many.
    keys : tuple of int
        Where in a row are the values of the order.
    """

    sql: str
    values: list[Any]
    joined: Joined | None = None
    keys: tuple[int, ...] = ()


_NOWHERE: tuple[slice, tuple[tuple[str, str], ...]] = (slice(0, 0), ())


def side_tables(declarations: Declarations, experiments: Collection[object] | None = None) -> Joined | None:
    """Return the side tables of experiments as a statement joins them; None if there are too many.

    Parameters
    ----------
    declarations : Declarations
    experiments : collection of str, optional
        By default all.
    """
    tables = {
        name: table
        for name, table in declarations.tables.items()
        if table.names and (experiments is None or name in experiments)
    }
    if len(tables) > _MOST_TABLES or sum(len(table.names) for table in tables.values()) > _MOST_COLUMNS:
        return None
    columns, source, at = "", "", len(RECORD)
    places: dict[str, tuple[slice, tuple[tuple[str, str], ...]]] = {}
    for name, table in tables.items():
        columns += "".join(f', a{table.number}."{column}"' for column in table.names)
        source += f" LEFT JOIN {side_table(table.number)} a{table.number} ON a{table.number}.id = f.id"
        types = tuple((column, declarations.attributes[column].type) for column in table.names)
        places[name] = (slice(at, at + len(types)), types)
        at += len(types)
    return Joined(declarations.version, columns, source, places)


def attributes_of(names: Iterable[tuple[str, str]], values: Sequence[Any], is_typed: bool) -> dict[str, Any]:
    """Return the attributes that a row of a side table has.

    Parameters
    ----------
    names : iterable of pairs
        Names and types of the values.
    values : sequence
    is_typed : bool
    """
    return {
        name: value if is_typed or kind in _AS_STORED else as_typed(kind, value)
        for (name, kind), value in zip(names, values, strict=True)
        if value is not None
    }


def records_of(rows: Sequence[Row], attributes: Iterable[dict[str, Any]], is_typed: bool) -> list[FileRecord]:
    """Return the records of rows that begin with the columns of `RECORD`.

    Parameters
    ----------
    rows : sequence of tuple
    attributes : iterable of dict
        Those of each row.
    is_typed : bool
    """
    records: list[FileRecord] = []
    new = object.__new__
    for row, of_row in zip(rows, attributes, strict=True):
        one = new(RecordTwin)
        (
            one.path, one.site, one.source, one.size, one.mtime_ns, one.checksum, one.adler32, one.format,
            one.experiment, state, one.reason, one.run, night, start, end, one.telescope, one.cluster, one.events,
            one.place, one.revision,
        ) = row[:_FIELDS]  # fmt: skip
        if not is_typed:
            night, start, end = night and _date(night), start and _moment(start), end and _moment(end)
        one.state, one.night, one.time_start, one.time_end = STATES[state], night, start, end
        one.attributes = of_row
        one.__class__ = FileRecord
        records.append(one)
    return records


def as_typed(kind: str, value: Any) -> Any:
    """Return a stored value as one of the attribute's type."""
    if value is None:
        return None
    match kind:
        case "date" if isinstance(value, str):
            return _date(value)
        case "time":
            return _moment(value)
        case "boolean":
            return bool(value)
    return value


_date = lru_cache(maxsize=10_000)(date.fromisoformat)


def _moment(value: Any) -> datetime:
    moment: datetime = datetime.fromisoformat(value + "+00:00") if type(value) is str else value.astimezone(UTC)
    return moment

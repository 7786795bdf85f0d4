"""Records to and from rows of the Cassandra tables of files (`schema.cql`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any
from zlib import crc32

from apbatch.formats.reader import Attribute, AttributeType, Scalar
from apbatch.index.attributes import COMMON
from apbatch.index.files import COMMON_FIELDS, STATES, FileRecord, RecordTwin
from apbatch.index.records import from_plain, to_plain

#: Columns of file_by_night that are no common attributes; an attribute of such a name gets no column of its own.
_OWN = {"parent", "name", "microseconds", "numbers", "integers", "texts", "tree_name", "tree_number", "first_revision"}
_MAPS = ("numbers", "integers", "texts")
_CQL: dict[AttributeType, str] = {
    "string": "text",
    "integer": "bigint",
    "number": "double",
    "boolean": "boolean",
    "date": "date",
    "time": "timestamp",
}
_TIMES = ("time_start", "time_end")
_common = itemgetter(*COMMON_FIELDS)
#: An index takes no longer text; it is in the map alone.
LONGEST_INDEXED = 1000
_NIGHTLESS = 32


def column_type(attribute: Attribute) -> str | None:
    """Return the CQL type of an attribute's column in file_by_night; None if it can't have one."""
    return None if attribute.name in _OWN or attribute.name in COMMON else _CQL[attribute.type]


def is_indexed(attribute: Attribute) -> bool:
    """Tell whether an attribute's column has an index; one on true and false would pick too little."""
    return column_type(attribute) is not None and attribute.type != "boolean"


def split(path: str) -> tuple[str, str]:
    """Return folder and name; the root is ``/``, as Cassandra has no empty partition key."""
    parent, _, name = path.rpartition("/")
    return parent or "/", name


def night_partition(night: date | None, path: str) -> str:
    """Return the partition of file_by_night in which a file is."""
    return night.isoformat() if night else f"none-{crc32(path.encode()) % _NIGHTLESS:02}"


def to_cells(record: FileRecord) -> dict[str, Any]:
    """Return the cells that both tables of files have; `night` is the partition's name."""
    cells: dict[str, Any] = {name: getattr(record, name) for name in COMMON_FIELDS}
    cells["state"] = record.state.value
    cells["night"] = night_partition(record.night, record.path)
    cells["microseconds"] = {}
    for name in _TIMES:
        if cells[name] is not None:
            cells[name] = _utc(cells[name])
            rest = cells[name].microsecond % 1000
            cells[name] = _milliseconds(cells[name])
            if rest:
                cells["microseconds"][name] = rest
    maps: dict[str, dict[str, Any]] = {name: {} for name in _MAPS}
    for name, value in record.attributes.items():
        plain = to_plain(value)
        kind = "texts" if isinstance(plain, str) else "integers" if isinstance(plain, int) else "numbers"
        maps[kind][name] = plain
    return {**cells, **maps}


def search_cells(attributes: Mapping[str, Scalar], declared: Mapping[str, Attribute]) -> dict[str, Any]:
    """Return the typed cells of file_by_night by which attributes are searched."""
    cells: dict[str, Any] = {}
    for name, value in attributes.items():
        if column_type(declared[name]) is None:
            continue
        if isinstance(value, str) and len(value.encode()) > LONGEST_INDEXED:
            continue
        cells[name] = _milliseconds(_utc(value)) if isinstance(value, datetime) else value
    return cells


def attribute_names(row: Mapping[str, Any]) -> set[str]:
    """Return the attributes that a stored row has."""
    return {name for kind in _MAPS for name in row[kind] or ()}


def columns_for(names: Iterable[str]) -> list[str]:
    """Return the columns that hold attributes of these names, and those by which each content is seen once."""
    columns = {"path", "site", "place", "tree_name", "tree_number"}
    for name in names:
        columns.update((name,) if name in COMMON else _MAPS)
        if name in _TIMES:
            columns.add("microseconds")
    return sorted(columns)


def from_cells(row: Mapping[str, Any], declared: Mapping[str, Attribute]) -> dict[str, Any]:
    """Return what a row holds, exactly: common attributes, and the others under their own names."""
    values = {name: row[name] for name in COMMON_FIELDS if name in row}
    if "night" in values:
        values["night"] = _night_of(values["night"])
    for name in _TIMES:
        if values.get(name) is not None:
            values[name] = values[name].replace(tzinfo=UTC)
            if row["microseconds"]:
                values[name] += timedelta(microseconds=row["microseconds"].get(name, 0))
    for kind in _MAPS:
        if cells := row.get(kind):
            for name, value in cells.items():
                values[name] = from_plain(declared.get(name), value)
    return values


@lru_cache(maxsize=10_000)
def _night_of(partition: str) -> date | None:
    return None if partition.startswith("none") else date.fromisoformat(partition)


def record_of(values: Mapping[str, Any]) -> FileRecord:
    """Return the record of what `from_cells` took from a whole row."""
    one = RecordTwin.__new__(RecordTwin)
    (
        one.path, one.place, one.site, one.source, one.size, one.mtime_ns, one.checksum, one.adler32, one.format,
        one.experiment, state, one.reason, one.run, one.night, one.time_start, one.time_end, one.telescope,
        one.cluster, one.events, one.revision,
    ) = _common(values)  # fmt: skip
    one.state, one.place = STATES[state], one.place or one.path
    extra = len(values) > len(COMMON_FIELDS)
    one.attributes = {name: value for name, value in values.items() if name not in COMMON} if extra else {}
    one.__class__ = FileRecord
    record: FileRecord = one
    return record


def to_record(row: Mapping[str, Any], declared: Mapping[str, Attribute]) -> FileRecord:
    """Return the record of a whole row."""
    return record_of(from_cells(row, declared))


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

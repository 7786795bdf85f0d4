"""Records to and from rows: the one place that knows how values are written down."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute, Scalar
from apbatch.index.attributes import COMMON
from apbatch.index.catalogue import COMMON_FIELDS, EVENT_KEYS, POINTER, FileRecord, State

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "date": (date,),
    "time": (datetime,),
}


def is_text(text: str) -> bool:
    """Tell whether text can be stored: bytes of a name that are no UTF-8 can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked(record: FileRecord, declared: Mapping[str, Attribute]) -> FileRecord:
    """Return the record with attributes as they are stored; those that are None or NaN are left out.

    Raises
    ------
    UsageError
        If an attribute was not declared or a value is not of its type.
    """
    attributes: dict[str, Scalar] = {}
    for name, value in record.attributes.items():
        if name in COMMON or name not in declared:
            raise UsageError(f"attribute '{name}' was not declared", where=ascii(record.path)[1:-1])
        kept = _checked_value(declared[name], value, record.path)
        if kept is not None:
            attributes[name] = kept
    for name in COMMON_FIELDS:
        value = getattr(record, name)
        if value is not None:
            _checked_value(COMMON[name], value, record.path)
    return replace(record, attributes=attributes)


def _checked_value(attribute: Attribute, value: Any, path: str) -> Scalar | None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value != value:
        return None
    fits = isinstance(value, _TYPES[attribute.type])
    fits = fits and isinstance(value, bool) == (attribute.type == "boolean")
    fits = fits and isinstance(value, datetime) == (attribute.type == "time")
    if not fits or (isinstance(value, str) and not is_text(value)) or (isinstance(value, int) and abs(value) >= 2**63):
        raise UsageError(
            f"attribute '{attribute.name}' is a {attribute.type}, not {ascii(value)[:60]}", where=ascii(path)[1:-1]
        )
    kept: Scalar = float(value) + 0.0 if attribute.type == "number" else value  # -0.0 becomes 0.0: one value, one place
    return kept


def to_plain(value: Any) -> Any:
    """Write a value as text or number: dates as ISO text, times as UTC ISO text of fixed width, so that order holds."""
    if isinstance(value, datetime):
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return value.replace(tzinfo=None).isoformat(timespec="microseconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, State):
        return value.value
    return value


def from_plain(attribute: Attribute | None, value: Any) -> Any:
    """Read back what `to_plain` wrote."""
    if value is None or attribute is None:
        return value
    match attribute.type:
        case "date":
            return date.fromisoformat(value)
        case "time":
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        case "boolean":
            return bool(value)
        case "integer":
            return int(value)
        case "number":
            return float(value)
    return value


def to_row(record: FileRecord) -> dict[str, Any]:
    """Return the common fields of a record as plain values."""
    return {name: to_plain(getattr(record, name)) for name in COMMON_FIELDS}


def from_row(row: Mapping[str, Any], attributes: Mapping[str, Scalar]) -> FileRecord:
    """Return the record of a row of plain values."""
    values = {name: from_plain(COMMON[name], row[name]) for name in COMMON_FIELDS}
    values["state"] = State(values["state"])
    return FileRecord(**values, attributes=attributes)


def parameter_names(events: pa.RecordBatch) -> list[str]:
    """Return the columns of a batch of events that are parameters."""
    return [name for name in events.schema.names if name not in (*EVENT_KEYS, *POINTER)]


#: Key, pointer and image parameters of an event.
EventRow = tuple[tuple[Any, ...], tuple[Any, ...], Mapping[str, float]]


def event_rows(events: pa.RecordBatch) -> Iterator[EventRow]:
    """Yield key, pointer and parameters of each event; values that are missing or no finite number are left out.

    Raises
    ------
    UsageError
        If a key column is missing or has gaps, or a parameter is no number.
    """
    for name in EVENT_KEYS:
        if name not in events.schema.names or events.column(name).null_count:
            raise UsageError(f"events need a column '{name}' without gaps")
    for name in parameter_names(events):
        kind = events.schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise UsageError(f"the events' column '{name}' is {kind}: a parameter is a number")
    names = parameter_names(events)
    keys = [events.column(name).to_pylist() for name in EVENT_KEYS]
    missing = [None] * len(events)
    pointers = [events.column(name).to_pylist() if name in events.schema.names else missing for name in POINTER]
    columns = [events.column(name).to_pylist() for name in names]
    for row in range(len(events)):
        values = {
            name: float(column[row])
            for name, column in zip(names, columns, strict=True)
            if column[row] is not None and math.isfinite(column[row])
        }
        yield tuple(key[row] for key in keys), tuple(place[row] for place in pointers), values


def event_batch(rows: Sequence[EventRow], names: Sequence[str]) -> pa.RecordBatch:
    """Return events as one batch: keys, pointer, then one float64 column for each parameter in `names`."""
    types = {
        "experiment": pa.string(), "cleaning": pa.string(), "telescope": pa.int32(), "dataset": pa.string(),
        "image_file": pa.string(),
    }  # fmt: skip
    columns = {
        name: pa.array([key[index] for key, _, _ in rows], types.get(name, pa.int64()))
        for index, name in enumerate(EVENT_KEYS)
    }
    for index, name in enumerate(POINTER):
        columns[name] = pa.array([pointer[index] for _, pointer, _ in rows], types.get(name, pa.int64()))
    for name in names:
        columns[name] = pa.array([values.get(name) for _, _, values in rows], pa.float64())
    return pa.RecordBatch.from_pydict(columns)

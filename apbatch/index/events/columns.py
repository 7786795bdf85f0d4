"""The columns of an event: which every event has, which a query may name, and the form in which they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apbatch.camera.parameters import UNITS
from apbatch.errors import UsageError, nearest_word
from apbatch.formats.images import IMAGE_KEY
from apbatch.formats.reader import Attribute, AttributeType
from apbatch.messages import with_article

#: Key of an event: `cleaning` names how an image was cleaned (``none``, ``tailcuts-14-7``, …).
EVENT_KEYS = (*IMAGE_KEY, "cleaning")
#: Where an event's image is: URL of a dataset, name of its part file, row group, row in the row group.
POINTER = ("dataset", "image_file", "image_row_group", "image_row")

_COLUMNS = (
    Attribute("experiment", "string", "experiment that took or simulated the event"),
    Attribute("run", "integer", "number of the run"),
    Attribute("event", "integer", "number of the event in its run"),
    Attribute("telescope", "integer", "number of the telescope or station; 0 for a whole array"),
    Attribute("cleaning", "string", "how the image was cleaned"),
    Attribute("dataset", "string", "URL of the image's dataset"),
    Attribute("image_file", "string", "part file of the dataset that holds the image"),
    Attribute("image_row_group", "integer", "row group of the file"),
    Attribute("image_row", "integer", "row in the row group"),
    Attribute("file", "string", "path in the merged tree of the file that the event was read from"),
    Attribute("content", "string", "BLAKE3 of the file that the event was read from"),
    Attribute("night", "date", "date of the evening on which the night began (noon to noon UTC)"),
    Attribute("time", "time", "time of the event, UTC"),
    Attribute("nanoseconds", "integer", "part of the time below the microsecond, 0 to 999", "ns"),
)
#: What any event may have besides parameters.
EVENT_COLUMNS: dict[str, Attribute] = {attribute.name: attribute for attribute in _COLUMNS}
#: Of image parameters, by name; any other numbers may stand beside them.
IMAGE_PARAMETERS: dict[str, Attribute] = {
    name: Attribute(name, "number", "image parameter", unit or None) for name, unit in UNITS.items()
}

ARROW_TYPES: dict[AttributeType, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "time": pa.timestamp("us", "UTC"),
}
_DAY_US = 24 * 3600 * 1_000_000
#: Times beyond these years can't be written by every back-end.
_FIRST_US, _LAST_US = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1e6) for year in (1000, 9999))


def event_attributes(declared: Iterable[Attribute] = ()) -> dict[str, Attribute]:
    """Return what a query of events may name: keys, pointer, time, image parameters and these others."""
    return {**{attribute.name: attribute for attribute in declared}, **IMAGE_PARAMETERS, **EVENT_COLUMNS}


def arrow_type(attribute: Attribute) -> pa.DataType:
    """Return the type in which a column is stored and given."""
    return pa.int32() if attribute.name == "telescope" else ARROW_TYPES[attribute.type]


def schema_of(names: Sequence[str], attributes: Mapping[str, Attribute]) -> pa.Schema:
    """Return the schema of these columns."""
    return pa.schema([pa.field(name, arrow_type(attributes[name]), name not in EVENT_KEYS) for name in names])


def wanted_columns(
    columns: Sequence[str] | None, there: Iterable[str], attributes: Mapping[str, Attribute]
) -> list[str]:
    """Return the columns of a result: keys, pointer, then those that are wanted, or all others in `there`, by name.

    Parameters
    ----------
    columns : sequence of str, optional
        Wanted besides the keys; by default all.
    there : iterable of str
        Columns that the events have.
    attributes : Mapping of str to Attribute
        What a query may name.

    Raises
    ------
    UsageError
        If a wanted column is not known.
    """
    fixed = (*EVENT_KEYS, *POINTER)
    if columns is None:
        return [*fixed, *sorted(set(there) - set(fixed))]
    for name in columns:
        if name not in attributes:
            raise UsageError(
                f"unknown attribute '{name}'",
                nearest=nearest_word(name, attributes),
                remedy="apbatch attributes --events lists them",
            )
    return [*fixed, *dict.fromkeys(name for name in columns if name not in fixed)]


def undeclared(schema: pa.Schema, attributes: Mapping[str, Attribute]) -> list[Attribute]:
    """Return declarations of the columns of a batch that are not yet known: numbers without a unit.

    Raises
    ------
    UsageError
        If one is no number.
    """
    fresh = []
    for field in schema:
        if field.name in attributes:
            continue
        kind = field.type
        if not (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_null(kind)
        ):
            raise UsageError(
                f"the events' column {ascii(field.name)[:60]} is {kind}: a parameter that is not declared is a number"
            )
        fresh.append(Attribute(field.name, "number", "parameter"))
    return fresh


def canonical(batch: pa.RecordBatch | pa.Table, attributes: Mapping[str, Attribute]) -> pa.Table:
    """Return events as they are stored: columns of their types, no NaN and no infinity, a night where there is a time.

    Values that are missing or no finite number are null: NaN is no measurement, and no back-end orders it as another.

    Parameters
    ----------
    batch : pyarrow.RecordBatch or Table
        With the columns of `EVENT_KEYS`, and others that are in `attributes`.

    Raises
    ------
    UsageError
        If a key is missing or has gaps, or a value is not of its column's type.
    """
    table = pa.table(batch) if isinstance(batch, pa.RecordBatch) else batch
    names = table.schema.names
    for name in EVENT_KEYS:
        if name not in names or table.column(name).null_count:
            raise UsageError(f"events need a column '{name}' without gaps")
    if len(set(names)) != len(names):
        raise UsageError("the events have two columns of one name")
    if "time" in names and "nanoseconds" not in names and table.schema.field("time").type == pa.timestamp("ns", "UTC"):
        whole = table.column("time").cast(pa.int64())
        below = pc.subtract(whole, pc.multiply(_floor_microseconds(whole), 1000))
        table = table.append_column("nanoseconds", below)
        names = table.schema.names
    columns = {name: _stored(table.column(name), attributes[name]) for name in names}
    for name in EVENT_KEYS:
        if columns[name].null_count:
            raise UsageError(f"the events' column '{name}' holds what is not a whole number")
    if "time" in columns:
        night = (pc.subtract(columns["time"].cast(pa.int64()), _DAY_US // 2)).cast(pa.timestamp("us")).cast(pa.date32())
        columns["night"] = pc.coalesce(columns["night"], night) if "night" in columns else night
    order = [*EVENT_KEYS, *(name for name in columns if name not in EVENT_KEYS)]
    return pa.Table.from_arrays([columns[name] for name in order], schema=schema_of(order, attributes))


def _stored(column: pa.ChunkedArray, attribute: Attribute) -> pa.ChunkedArray:
    expected = arrow_type(attribute)
    try:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if attribute.type == "number":
            if not (pa.types.is_primitive(column.type) or pa.types.is_null(column.type)) or pa.types.is_temporal(
                column.type
            ):
                raise UsageError(f"the events' column '{attribute.name}' is {column.type}: it is a number")
            values = column.cast(pa.float64(), safe=False)
            if column.type == expected and not _needs_care(values):
                return values
            finite = pc.is_finite(values)
            return pc.add(pc.if_else(finite, values, pa.scalar(None, pa.float64())), 0.0)  # -0.0 becomes 0.0
        if attribute.type == "time" and pa.types.is_timestamp(column.type):
            column = _microseconds(column)
            _require_between(column.cast(pa.int64()), _FIRST_US, _LAST_US)
        elif attribute.type in ("string", "date", "time") and not _of_kind(column.type, attribute.type):
            raise UsageError(
                f"the events' column '{attribute.name}' is {column.type}, not {with_article(attribute.type)}"
            )
        elif attribute.type in ("integer", "boolean") and not _is_number(column.type):
            raise UsageError(f"the events' column '{attribute.name}' is {column.type}, not {expected}")
        elif attribute.type in ("integer", "boolean") and pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
        column = column.cast(expected)
        if attribute.type == "date":
            _require_between(column.cast(pa.int32()), _FIRST_US // _DAY_US, _LAST_US // _DAY_US)
        if attribute.type == "string":
            column.validate(full=True)
            if pc.any(pc.match_substring(column, "\0")).as_py():
                raise UsageError(f"a text of the events' column '{attribute.name}' has a NUL in it")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UsageError(f"the events' column '{attribute.name}' is not {expected}: {reason}") from None
    return column


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    )


def _needs_care(values: pa.ChunkedArray) -> bool:
    """Tell whether a column holds NaN, infinity or a negative zero."""
    for chunk in values.chunks:
        if not len(chunk):
            continue
        plain = np.frombuffer(chunk.buffers()[1], "<f8", len(chunk), chunk.offset * 8)  # of a null: anything
        if not np.isfinite(plain).all() or (np.signbit(plain) & (plain == 0)).any():
            return True
    return False


def _of_kind(kind: pa.DataType, expected: AttributeType) -> bool:
    if pa.types.is_null(kind):
        return True
    if expected == "string":
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
    return bool(pa.types.is_date(kind)) if expected == "date" else False


def _microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times as microseconds; what is below is cut off, towards the past."""
    if column.type.unit == "ns":
        return _floor_microseconds(column.cast(pa.int64())).cast(pa.timestamp("us", "UTC"))
    return column.cast(pa.timestamp("us", column.type.tz or "UTC")).cast(pa.timestamp("us", "UTC"))


def _floor_microseconds(nanoseconds: pa.ChunkedArray) -> pa.ChunkedArray:
    whole = pc.divide(nanoseconds, 1000)  # towards zero
    return pc.subtract(whole, pc.cast(pc.less(nanoseconds, pc.multiply(whole, 1000)), pa.int64()))


def _require_between(times: pa.ChunkedArray, first: int, last: int) -> None:
    if pc.any(pc.or_(pc.less(times, first), pc.greater_equal(times, last))).as_py():
        raise UsageError("the events hold a date or time before the year 1000 or after 9998")


def key_order(table: pa.Table) -> npt.NDArray[np.intp] | None:
    """Return the rows of stored events by key, of rows with one key the last; None where they lie so already."""
    codes = key_codes(table)
    if _increases(codes):
        return None
    order: npt.NDArray[np.intp] = np.lexsort(codes[::-1])
    last = np.zeros(max(len(order) - 1, 0), bool)
    for code in codes:
        last |= code[order][1:] != code[order][:-1]
    kept: npt.NDArray[np.intp] = order[np.append(last, True)]
    return kept


def key_codes(table: pa.Table) -> list[npt.NDArray[np.int64]]:
    """Return the columns of the key as numbers that order as the values do."""
    return [_codes(table.column(name)) for name in EVENT_KEYS]


def _codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    if not pa.types.is_string(column.type):
        return np.asarray(column.to_numpy(), np.int64)
    coded = (
        column.combine_chunks().dictionary_encode() if column.num_chunks != 1 else column.chunk(0).dictionary_encode()
    )
    texts = coded.dictionary.to_pylist()
    ranks = np.empty(len(texts), np.int64)
    ranks[np.array(sorted(range(len(texts)), key=lambda n: texts[n]), np.intp)] = np.arange(len(texts))
    return ranks[coded.indices.to_numpy()] if texts else np.zeros(0, np.int64)


def _increases(codes: Sequence[npt.NDArray[np.int64]]) -> bool:
    """Tell whether keys grow strictly from row to row."""
    if len(codes[0]) < 2:
        return True
    equal = np.ones(len(codes[0]) - 1, bool)
    for code in codes:
        steps = code[1:].astype(np.int64), code[:-1]
        if (equal & (steps[0] < steps[1])).any():
            return False
        equal &= steps[0] == steps[1]
    return not equal.any()


def chunks_of(tables: Iterable[pa.Table], rows: int, size: int) -> Iterator[pa.Table]:
    """Gather stored events into tables of about `rows` rows or `size` bytes, whichever is less.

    Parameters
    ----------
    tables : iterable of pyarrow.Table
        Columns may differ.
    rows, size : int
        Rows and bytes from which a table is large enough.
    """
    kept: list[pa.Table] = []
    many = large = 0
    for table in tables:
        kept.append(table)
        many, large = many + table.num_rows, large + table.nbytes
        if many >= rows or large >= size:
            yield pa.concat_tables(kept, promote_options="default")
            kept, many, large = [], 0, 0
    if kept:
        yield pa.concat_tables(kept, promote_options="default")


def plain_value(attribute: Attribute, value: object) -> object:
    """Return a value of a query as it is compared with a stored one.

    Raises
    ------
    UsageError
        If it is not of the attribute's type.
    """
    if attribute.type == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) + 0.0
    fits = {
        "string": isinstance(value, str),
        "integer": isinstance(value, int | float) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "date": isinstance(value, date) and not isinstance(value, datetime),
        "time": isinstance(value, datetime),
    }
    if not fits.get(attribute.type, False):
        raise UsageError(f"'{attribute.name}' is {with_article(attribute.type)}, which {ascii(value)[:60]} is not")
    return value

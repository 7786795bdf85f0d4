"""Batches whose fields carry what their attributes mean, and the columns that a search gives by default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import pyarrow as pa

from apbatch.access.guard import Guard
from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.attributes import known_attribute
from apbatch.index.events.columns import POINTER, schema_of, wanted_columns
from apbatch.index.events.store import Order
from apbatch.index.files import COMMON_FIELDS
from apbatch.index.query import Search, names

#: Rows of a page of files.
_ROWS = 10_000


def described(schema: pa.Schema, attributes: Mapping[str, Attribute]) -> pa.Schema:
    """Return a schema whose fields carry `unit` and `description`, for clients to use."""
    fields = []
    for field in schema:
        attribute = attributes.get(field.name)
        metadata = {} if attribute is None else {"description": attribute.description}
        if attribute is not None and attribute.unit:
            metadata["unit"] = attribute.unit
        fields.append(field.with_metadata(metadata) if metadata else field)
    return pa.schema(fields)


def columns_of(text: Sequence[str], attributes: Mapping[str, Attribute], usual: Sequence[str]) -> list[str]:
    """Return the attributes that somebody lists, each once; all for ``*``.

    Parameters
    ----------
    text : sequence of str
        Names, as people write them.
    attributes : Mapping of str to Attribute
    usual : sequence of str
        Those if none is listed.

    Raises
    ------
    UsageError
        If one is unknown.
    """
    listed = [name.strip() for name in text if name.strip()]
    if listed == ["*"]:
        return list(attributes)
    return list(dict.fromkeys(known_attribute(name.lower(), attributes).name for name in listed)) or list(usual)


def file_batches(
    door: Guard, search: Search, columns: Sequence[str], cursor: str | None = None
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return the schema of a result, and its batches, each asked for when it is wanted.

    Parameters
    ----------
    door : Guard
    search : Search
    columns : sequence of str
        By default the common ones and those that the search names.
    cursor : str, optional
        Where to begin.
    """
    attributes = door.attributes()
    fields = columns_of(columns, attributes, list(dict.fromkeys([*COMMON_FIELDS, *sorted(names(search.where))])))
    first = door.select_batch(search, fields, cursor, _ROWS)
    schema = described(first.batch.schema, attributes)

    def batches() -> Iterator[pa.RecordBatch]:
        page = first
        while True:
            yield page.batch.cast(schema)
            if page.cursor is None:
                return
            page = door.select_batch(search, fields, page.cursor, _ROWS)

    return schema, batches()


def event_batches(
    door: Guard, search: Search, columns: Sequence[str], *, inside: bool = False
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return the schema of a result of events, and its batches.

    Parameters
    ----------
    door : Guard
    search : Search
    columns : sequence of str
        By default all that there are.
    inside : bool
        Give the columns, too, that say where images lie inside: nothing for strangers.
    """
    attributes = door.event_attributes()
    fields: list[str] | None = columns_of(columns, attributes, ())
    if not fields or [name.strip() for name in columns] == ["*"]:
        fields = None
    order = [Order(one.name, one.descending) for one in search.order]
    batches = door.events_batches(search.where, fields, order=order, limit=search.limit)
    first = next(batches, None)
    if first is None:
        first = pa.RecordBatch.from_pylist([], schema_of(wanted_columns(fields, (), attributes), attributes))
    schema = described((first if inside else outside(first)).schema, attributes)
    return schema, (batch.select(schema.names).cast(schema) for batch in chain([first], batches))


def events_page(
    door: Guard, search: Search, columns: Sequence[str] | None, size: int, cursor: str | None
) -> tuple[pa.Table, str | None]:
    """Return some events of a search, which may have a limit, and the cursor of the next ones; None after the last.

    Parameters
    ----------
    door : Guard
    search : Search
    columns : sequence of str, optional
        By default all that there are.
    size : int
        Most events of the page.
    cursor : str, optional
        Of the page before.

    Raises
    ------
    UsageError
        As `Guard.events_page`.
    """
    left = search.limit
    if cursor is not None and left is not None:
        text, _, cursor = cursor.partition("~")
        if not (text.isascii() and text.isdecimal() and 0 < int(text[:18]) <= left and cursor):
            raise UsageError("the cursor belongs to another question", remedy="begin without one")
        left = int(text[:18])
    order = [Order(one.name, one.descending) for one in search.order]
    size = size if left is None else min(size, left)
    page = door.events_page(search.where, columns, size=size, cursor=cursor, order=order)
    following = page.cursor
    if left is not None and following is not None:
        following = f"{left - size}~{following}" if left > size else None
    return outside(page.events), following


def outside(events: pa.Table | pa.RecordBatch) -> pa.Table | pa.RecordBatch:
    """Return events without the columns that say where their images lie inside."""
    return events.select([name for name in events.schema.names if name not in POINTER])


def limited(limits: Iterable[int | None]) -> int | None:
    """Return the smallest of several limits; None for no limit."""
    return min((limit for limit in limits if limit is not None), default=None)

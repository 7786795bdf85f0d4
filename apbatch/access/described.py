"""Batches whose fields carry what their attributes mean, and the columns that a search gives by default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import pyarrow as pa

from apbatch.access.guard import Guard
from apbatch.formats.reader import Attribute
from apbatch.index.attributes import known_attribute
from apbatch.index.events.columns import POINTER, schema_of, wanted_columns
from apbatch.index.events.store import Order
from apbatch.index.files import COMMON_FIELDS
from apbatch.index.query import Search, names

#: Rows of a page of files.
_ROWS = 10_000


def described(schema: pa.Schema, known: Mapping[str, Attribute]) -> pa.Schema:
    """Return a schema whose fields carry `unit` and `description`, for clients to use."""
    fields = []
    for field in schema:
        attribute = known.get(field.name)
        metadata = {} if attribute is None else {"description": attribute.description}
        if attribute is not None and attribute.unit:
            metadata["unit"] = attribute.unit
        fields.append(field.with_metadata(metadata) if metadata else field)
    return pa.schema(fields)


def columns_of(text: Sequence[str], known: Mapping[str, Attribute], usual: Sequence[str]) -> list[str]:
    """Return the attributes that somebody lists, each once; `usual` ones if none, all for ``*``.

    Raises
    ------
    UsageError
        If one is unknown.
    """
    listed = [name.strip() for name in text if name.strip()]
    if listed == ["*"]:
        return list(known)
    return list(dict.fromkeys(known_attribute(name.lower(), known).name for name in listed)) or list(usual)


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
    known = door.attributes()
    wanted = columns_of(columns, known, list(dict.fromkeys([*COMMON_FIELDS, *sorted(names(search.where))])))
    first = door.select_batch(search, wanted, cursor, _ROWS)
    schema = described(first.batch.schema, known)

    def batches() -> Iterator[pa.RecordBatch]:
        page = first
        while True:
            yield page.batch.cast(schema)
            if page.cursor is None:
                return
            page = door.select_batch(search, wanted, page.cursor, _ROWS)

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
    known = door.event_attributes()
    wanted: list[str] | None = columns_of(columns, known, ())
    if not wanted or [name.strip() for name in columns] == ["*"]:
        wanted = None
    order = [Order(one.name, one.descending) for one in search.order]
    batches = door.events_batches(search.where, wanted, order=order, limit=search.limit)
    first = next(batches, None)
    if first is None:
        first = pa.RecordBatch.from_pylist([], schema_of(wanted_columns(wanted, (), known), known))
    schema = described((first if inside else outside(first)).schema, known)
    return schema, (batch.select(schema.names).cast(schema) for batch in chain([first], batches))


def outside(events: pa.Table | pa.RecordBatch) -> pa.Table | pa.RecordBatch:
    """Return events without the columns that say where their images lie inside."""
    return events.select([name for name in events.schema.names if name not in POINTER])


def limited(limits: Iterable[int | None]) -> int | None:
    """Return the smallest of several limits; None for no limit."""
    return min((limit for limit in limits if limit is not None), default=None)

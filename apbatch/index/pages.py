"""Pages of a search or a folder: cursors that nobody needs to understand, and batches of the wanted columns."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import pyarrow as pa

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.files import Entry, EntryPage, FileRecord
from apbatch.index.query import Order, Search, written

_ARROW: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "time": pa.timestamp("us", "UTC"),
}
_LONGEST = 100_000


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and the cursor for the next ones; None after the last."""

    batch: pa.RecordBatch
    cursor: str | None


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Some files, and the cursor for the next ones; None after the last."""

    records: list[FileRecord]
    cursor: str | None


class Stretch(NamedTuple):
    """Files of a site whose sources follow each other.

    Attributes
    ----------
    site : str
    below : str
        Folder of the site; empty for all of it.
    since, until : str, optional
        Sources are not before the first, and before the second.
    after : tuple, optional
        Source and path of the file that they come after.
    """

    site: str
    below: str = ""
    since: str = ""
    until: str | None = None
    after: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a search goes on.

    Attributes
    ----------
    after : tuple
        Values of the last row: of the attributes of the order, then its path.
    offset : int
        Rows returned so far, for the limit.
    """

    after: tuple[Any, ...]
    offset: int


def ordering(search: Search) -> tuple[Order, ...]:
    """Return what a search is sorted by, all ties decided: what follows a key decides nothing and is left out."""
    order: list[Order] = []
    for one in (*search.order, Order("path")):
        if one.name not in {earlier.name for earlier in order}:
            order.append(one)
        if one.name == "path":
            break
    return tuple(order)


def identity(*parts: object) -> str:
    """Return a short name of what is asked, which ties a cursor to its question."""
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()


def identity_of(search: Search) -> str:
    """Return the name of a search."""
    return identity(written(search.where), search.order, search.limit)


def write_cursor(question: str, after: Sequence[Any], offset: int = 0) -> str:
    """Return the cursor for what follows a row.

    Parameters
    ----------
    question : str
        What was asked, as `identity` says it.
    after : sequence
        Values of the order's columns in the last row of the page.
    offset : int
        Rows that the pages gave until now.
    """
    content = json.dumps([question, offset, [_plain(value) for value in after]], ensure_ascii=False)
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def read_cursor(cursor: str, question: str, types: Sequence[str]) -> Position:
    """Read a cursor back.

    Parameters
    ----------
    cursor : str
    question : str
        Name of what is asked now.
    types : sequence of str
        Attribute types of the values in it.

    Raises
    ------
    UsageError
        If it is no cursor, or one of another question.
    """
    try:
        if len(cursor) > _LONGEST:
            raise ValueError
        content = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), "-_", validate=True).decode())
        cursor_question, offset, after = content
        if cursor_question == question and isinstance(offset, int) and offset >= 0 and len(after) == len(types):
            return Position(tuple(_typed(kind, value) for kind, value in zip(types, after, strict=True)), offset)
    except (ValueError, TypeError, binascii.Error, OverflowError, RecursionError):
        raise UsageError("this is not a cursor of the catalogue", remedy="begin without one") from None
    raise UsageError("the cursor belongs to another question", remedy="begin without one")


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _typed(kind: str, value: Any) -> Any:
    if value is None:
        return None
    match kind:
        case "string" if isinstance(value, str):
            value.encode()
            if "\0" not in value:
                return value
        case "date" if isinstance(value, str):
            return date.fromisoformat(value)
        case "time" if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        case "boolean" if isinstance(value, bool):
            return value
        case "integer" if type(value) is int and abs(value) < 2**63:
            return value
        case "number" if type(value) in (int, float) and abs(value) < float("inf"):
            return float(value)
    raise ValueError


def to_batch(
    rows: Sequence[Sequence[Any]], columns: Sequence[str], attributes: Mapping[str, Attribute]
) -> pa.RecordBatch:
    """Return rows as a batch of typed columns; dates and times may come as ISO text, truth values as numbers.

    Parameters
    ----------
    rows : sequence of sequence
        Values in the order of the columns; what follows them is left out.
    columns : sequence of str
    attributes : Mapping of str to Attribute
        Types of the columns.
    """
    arrays = []
    for values, name in zip(zip(*rows, strict=True) if rows else [()] * len(columns), columns, strict=False):
        kind = _ARROW[attributes[name].type]
        first = next((value for value in values if value is not None), None)
        if isinstance(first, str) and kind != pa.string():
            text = [value if value is None or kind == pa.date32() else f"{value}Z" for value in values]
            arrays.append(pa.array(text, pa.string()).cast(kind))
        elif kind == pa.bool_() and isinstance(first, int):
            arrays.append(pa.array([None if value is None else bool(value) for value in values], kind))
        else:
            arrays.append(pa.array(values, kind))
    return pa.RecordBatch.from_arrays(arrays, schema=schema_of(columns, attributes))


def schema_of(columns: Sequence[str], attributes: Mapping[str, Attribute]) -> pa.Schema:
    """Return the schema of a batch of attributes."""
    return pa.schema([pa.field(name, _ARROW[attributes[name].type]) for name in columns])


def folder_page(question: str, cursor: str | None, limit: int, first: Callable[[str, int], list[Entry]]) -> EntryPage:
    """Return a page of a folder's entries.

    Parameters
    ----------
    question : str
        What is asked, as `identity` says it.
    cursor : str, optional
    limit : int
    first : callable
        Returns the first entries after a name, by name: that name and one more than the page has are its arguments.
    """
    after = "" if cursor is None else read_cursor(cursor, question, ("string",)).after[0]
    entries = first(after, limit + 1)
    if len(entries) <= limit:
        return EntryPage(entries, None)
    return EntryPage(entries[:limit], write_cursor(question, [entries[limit - 1].name]))

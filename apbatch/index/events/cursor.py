"""Opaque cursors: where a page of events ended, for the next one to begin; of one query and order only."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.query import Query, normalise, written
from apbatch.provenance import digest

_LONGEST = 100_000


@dataclass(frozen=True)
class Cursor:
    """What a cursor must fit.

    Attributes
    ----------
    query : str
        Hash of the query and of the order of its result.
    """

    query: str

    @classmethod
    def of(cls, where: Query, order: Sequence[tuple[str, bool]]) -> Cursor:
        """Return what cursors of a query and its order share."""
        return cls(digest([written(normalise(where)), order]))

    def write(self, values: Sequence[Any]) -> str:
        """Return the cursor after a row with these values of the columns that order it."""
        plain = [value.isoformat() if isinstance(value, date) else value for value in values]
        text = json.dumps([self.query, *plain], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def read(self, cursor: str, columns: Sequence[Attribute]) -> list[Any]:
        """Return the values that `write` was given.

        Raises
        ------
        UsageError
            If it is no cursor, or one of another query.
        """
        try:
            if len(cursor) > _LONGEST:
                raise ValueError
            content = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            if not isinstance(content, list) or len(content) != len(columns) + 1:
                raise ValueError
            values = [_value(column, value) for column, value in zip(columns, content[1:], strict=True)]
        except (ValueError, TypeError, UnicodeError, binascii.Error, RecursionError):
            raise UsageError("not a cursor", remedy="give one as it came with the page before, or none") from None
        if content[0] != self.query:
            raise UsageError("the cursor is of another query", remedy="ask with the query it came from")
        return values


def _value(column: Attribute, value: Any) -> Any:
    if value is None:
        return None
    match column.type:
        case "date":
            return date.fromisoformat(value)
        case "time":
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise ValueError
            return moment
        case "number":
            return float(value)
        case "integer" if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
            return value
        case "boolean" if isinstance(value, bool):
            return value
        case "string" if isinstance(value, str):
            return value
    raise ValueError

"""Which parts can hold an event that matches, by the ranges of their columns."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apbatch.index import query as q
from apbatch.index.events.manifest import Part, Range, short_bound

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ranges_of(table: pa.Table) -> dict[str, Range]:
    """Return the range of each column of stored events."""
    return {name: _range(table.column(name)) for name in table.schema.names}


def _range(column: pa.ChunkedArray) -> Range:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if column.null_count == len(column):
        return None, None, column.null_count
    if pa.types.is_string(column.type):
        column = pc.unique(column)
        bounds = [text for text in column.to_pylist() if text is not None]
        low, high = min(bounds), max(bounds)
        if short_bound(low) is None or short_bound(high) is None:
            return None, None, 0
        return low, high, 0
    extremes = pc.min_max(column).as_py()
    return _json(extremes["min"]), _json(extremes["max"]), column.null_count


def _json(value: Any) -> Any:
    """Return a value as ranges keep it: dates as ISO text, times as microseconds since 1970."""
    if isinstance(value, datetime):
        return (value - _EPOCH) // timedelta(microseconds=1)
    return value.isoformat() if isinstance(value, date) else value


def parts_for(query: q.Query, parts: Iterable[Part]) -> list[Part]:
    """Return the parts that may hold events for which a simplified query holds."""
    return [part for part in parts if _may_hold(query, part)]


def _may_hold(query: q.Query, part: Part) -> bool:
    match query:
        case q.And(choices):
            return all(_may_hold(choice, part) for choice in choices)
        case q.Or(choices):
            return any(_may_hold(choice, part) for choice in choices)
        case q.Everything():
            return True
        case q.Not(q.Everything()):
            return False
        case q.IsNull(name):
            return name not in part.ranges or part.ranges[name][2] > 0 or part.ranges[name][0] is None
        case _:
            (name,) = q.names(query)
            if name not in part.ranges:
                return False
            low, high, nulls = part.ranges[name]
            if low is None:
                return nulls < part.rows
            return _leaf(query, low, high)


def _leaf(query: q.Query, low: Any, high: Any) -> bool:
    match query:
        case q.Compare(_, "=", value):
            return bool(low <= _json(value) <= high)
        case q.Compare(_, "<", value):
            return bool(low < _json(value))
        case q.Compare(_, "<=", value):
            return bool(low <= _json(value))
        case q.Compare(_, ">", value):
            return bool(high > _json(value))
        case q.Compare(_, ">=", value):
            return bool(high >= _json(value))
        case q.Between(_, first, last):
            return bool(low <= _json(last) and high >= _json(first))
        case q.In(_, values):
            return any(low <= _json(value) <= high for value in values)
        case q.Like(_, pattern):
            prefix = q.like_prefix(pattern)
            return bool(high >= prefix and low[: len(prefix)] <= prefix)
        case _:
            return True

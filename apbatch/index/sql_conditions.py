"""Conditions of the query language as SQL, on the tables of `apbatch.index.sql_tables`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.attributes import COMMON, EVENT_COLUMNS
from apbatch.index.records import to_plain
from apbatch.index.sql_tables import events, files, values


def conditions(query: q.Query, leaf: Callable[[q.Query], sa.ColumnElement[bool]]) -> sa.ColumnElement[bool]:
    """Return the SQL of a normalised query; `leaf` gives that of one condition."""
    match query:
        case q.And(parts):
            return sa.and_(*(conditions(part, leaf) for part in parts))
        case q.Or(parts):
            return sa.or_(*(conditions(part, leaf) for part in parts))
        case q.Everything():
            return sa.true()
        case q.Not(q.Everything()):
            return sa.false()
        case _:
            return leaf(query)


def _test(column: sa.ColumnElement[Any], leaf: q.Query) -> sa.ColumnElement[bool]:
    """Return the SQL of one normalised leaf on a column."""
    match leaf:
        case q.Compare(_, operator, value):
            return column.op("!=" if operator == "!=" else operator)(to_plain(value))
        case q.Between(_, low, high):
            return column.between(to_plain(low), to_plain(high))
        case q.In(_, choices):
            return column.in_([to_plain(choice) for choice in choices])
        case q.Like(_, pattern):
            return column.like(pattern)
        case q.IsNull():
            return column.is_(None)
        case q.Not(q.IsNull()):
            return column.is_not(None)
        case q.Not(part):
            return sa.not_(_test(column, part))
    raise AssertionError(leaf)


def file_leaf(leaf: q.Query, declared: dict[str, Attribute]) -> sa.ColumnElement[bool]:
    """Return the SQL of one condition on files."""
    (name,) = q.names(leaf)
    if name in COMMON:
        return _test(files.c[name], leaf)
    having = sa.select(values.c.path).where(values.c.name == name)
    if isinstance(leaf, q.IsNull):
        return files.c.path.not_in(having)
    if leaf == q.Not(q.IsNull(name)):
        return files.c.path.in_(having)
    column = values.c.text if declared[name].type in ("string", "date", "time") else values.c.number
    return files.c.path.in_(having.where(_test(column, leaf)))


def event_leaf(leaf: q.Query) -> sa.ColumnElement[bool]:
    """Return the SQL of one condition on events."""
    (name,) = q.names(leaf)
    if name in EVENT_COLUMNS:
        return _test(events.c[name], leaf)
    return _test(sa.func.json_extract(events.c.parameters, f'$."{name}"'), leaf)

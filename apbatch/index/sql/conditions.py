"""Conditions of the query language as SQL with bound values; what can't hold in a table is known without asking."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apbatch.index import query as q
from apbatch.index.sql.database import Database

#: SQL and its values; or what is known without asking.
Condition = tuple[str, list[Any]] | bool


@dataclass(frozen=True, slots=True)
class Column:
    """A column as a condition names it.

    Attributes
    ----------
    sql : str
    type : str
        Type of the attribute.
    is_long : bool
        Whether it is a text that an index may hold in part only.
    """

    sql: str
    type: str
    is_long: bool = False


#: Gives the column of an attribute; None where a table has none, so that all values are missing.
Columns = Callable[[str], Column | None]


def condition(query: q.Query, columns: Columns, db: Database) -> Condition:
    """Return the SQL of a normalised query.

    Parameters
    ----------
    query : Query
    columns : Columns
        Where attributes are kept.
    db : Database
        Of which dialect.
    """
    match query:
        case q.And(parts):
            return both(*(condition(part, columns, db) for part in parts))
        case q.Or(parts):
            return either(*(condition(part, columns, db) for part in parts))
        case q.Everything():
            return True
        case q.Not(q.Everything()):
            return False
        case _:
            return _leaf(query, columns, db)


def both(*parts: Condition) -> Condition:
    """Return the condition that all hold."""
    if any(part is False for part in parts):
        return False
    return _joined(" AND ", [part for part in parts if not isinstance(part, bool)], True)


def either(*parts: Condition) -> Condition:
    """Return the condition that one holds at least."""
    if any(part is True for part in parts):
        return True
    return _joined(" OR ", [part for part in parts if not isinstance(part, bool)], False)


def _joined(word: str, parts: list[tuple[str, list[Any]]], empty: bool) -> Condition:
    if not parts:
        return empty
    if len(parts) == 1:
        return parts[0]
    return f"({word.join(sql for sql, _ in parts)})", [value for _, values in parts for value in values]


def where(part: Condition) -> tuple[str, list[Any]]:
    """Return a condition as SQL, also where it is known."""
    return part if isinstance(part, tuple) else ("1 = 1" if part else "1 = 0", [])


def _leaf(leaf: q.Query, columns: Columns, db: Database) -> Condition:
    negated = isinstance(leaf, q.Not)
    inner = leaf.part if isinstance(leaf, q.Not) else leaf
    if isinstance(inner, q.Cone):
        pair = [columns(name) for name in inner.names]
        if pair[0] is None or pair[1] is None:
            return False
        sql, values = inner.sql(pair[0].sql, pair[1].sql)
        return (f"NOT {sql}" if negated else sql), values
    (name,) = q.names(inner)
    column = columns(name)
    if isinstance(inner, q.IsNull):
        if column is None:
            return not negated
        return f"{column.sql} IS {'NOT ' if negated else ''}NULL", []
    if column is None:
        return False
    test = _test(inner, column, db)
    if isinstance(test, bool):
        return (f"{column.sql} IS NOT NULL", []) if test is not negated else False
    return (f"NOT {test[0]}", test[1]) if negated else test


def _test(leaf: q.Query, column: Column, db: Database) -> Condition:
    match leaf:
        case q.Compare(_, operator, value):
            return _compare(column, operator, value, db)
        case q.Between(_, low, high):
            return both(_compare(column, ">=", low, db), _compare(column, "<=", high, db))
        case q.In(_, values):
            return _one_of(column, values, db)
        case q.Like(_, pattern):
            return _like(column, pattern, db)
    raise AssertionError(leaf)


def _compare(column: Column, operator: str, value: Any, db: Database) -> Condition:
    if column.type == "integer" and isinstance(value, float):
        if not value.is_integer():
            if operator in ("=", "!="):
                return operator == "!="
            operator, value = ("<=", math.floor(value)) if operator in ("<", "<=") else (">=", math.ceil(value))
        if abs(value) >= 2**63:
            return (operator in ("<", "<=")) == (value > 0) if operator not in ("=", "!=") else operator == "!="
        value = int(value)
    stored = db.plain(value)
    if not column.is_long or operator == "!=" or db.narrow(column.sql) == column.sql:
        return f"({column.sql} {'<>' if operator == '!=' else operator} ?)", [stored]
    outer = operator if operator == "=" else f"{operator[0]}="
    return (
        f"({db.narrow(column.sql)} {outer} ? AND {column.sql} {operator} ?)",
        [db.narrowed(stored), stored],
    )


def _one_of(column: Column, values: tuple[Any, ...], db: Database) -> Condition:
    if column.type == "integer":
        values = tuple(int(value) for value in values if float(value).is_integer() and abs(value) < 2**63)
        if not values:
            return False
    stored = [db.plain(value) for value in values]
    marks = ", ".join("?" * len(stored))
    if not column.is_long or db.narrow(column.sql) == column.sql:
        return f"({column.sql} IN ({marks}))", stored
    narrowed = [db.narrowed(value) for value in stored]
    return f"({db.narrow(column.sql)} IN ({marks}) AND {column.sql} IN ({marks}))", [*narrowed, *stored]


def _like(column: Column, pattern: str, db: Database) -> Condition:
    prefix = q.like_prefix(pattern)
    test = (f"({column.sql} LIKE ? ESCAPE '\\')", [q.like_escaped(pattern)])
    text = db.narrow(column.sql) if column.is_long else column.sql
    low = db.narrowed(prefix) if column.is_long else prefix
    high = after_all(low)
    parts: list[Condition] = [(f"({text} >= ?)", [low])] if prefix else []
    if prefix and high is not None:
        parts.append((f"({text} < ?)", [high]))
    return both(*parts, test)


def after_all(prefix: str) -> str | None:
    """Return the first text, by bytes, after all that begin with `prefix`; None if there is none."""
    for end in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[end])
        if code < 0x10FFFF:
            following = code + 1 if not 0xD800 <= code + 1 <= 0xDFFF else 0xE000
            return prefix[:end] + chr(following)
    return None

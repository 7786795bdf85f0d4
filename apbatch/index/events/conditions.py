"""The query language as text of SQL with bound values, for every back-end that speaks it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apbatch.errors import UsageError, nearest_word
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.events.columns import plain_value
from apbatch.messages import with_article

_MANY = 32


@dataclass(frozen=True)
class Dialect:
    """How a database writes what they write differently.

    Attributes
    ----------
    mark : str
        Of a bound value.
    like : str
        A `like` whose pattern is escaped by backslashes, with places for the column and the mark.
    member : str, optional
        Whether a value is one of a bound list; without it each value is bound alone.
    """

    mark: str = "?"
    like: str = "{column} LIKE {mark} ESCAPE '\\'"
    member: str | None = None
    quote: str = '"'

    def name(self, column: str) -> str:
        """Return the quoted name of a column."""
        return f"{self.quote}{column.replace(self.quote, self.quote * 2)}{self.quote}"


@dataclass
class Sql:
    """SQL text with the values that are bound to it, in order."""

    text: str
    values: list[Any] = field(default_factory=list)


def condition(query: q.Query, attributes: Mapping[str, Attribute], dialect: Dialect) -> Sql:
    """Return the SQL of a query of events.

    Parameters
    ----------
    query : Query
    attributes : Mapping of str to Attribute
        What a query may name.
    dialect : Dialect
        Of the database.

    Raises
    ------
    UsageError
        If it names what is not known, or compares with a value of another type.
    """
    values: list[Any] = []
    text = _write(simplify(query, attributes), attributes, dialect, values)
    return Sql(text, values)


def simplify(query: q.Query, attributes: Mapping[str, Attribute]) -> q.Query:
    """Return a query normalised, with whole numbers where whole numbers are compared: 1.5 is between two of them.

    Databases compare a whole number with a fraction as floating point, which takes large neighbours for equal.

    Raises
    ------
    UsageError
    """
    return _whole(q.normalise(query), attributes)


def _whole(query: q.Query, attributes: Mapping[str, Attribute]) -> q.Query:
    match query:
        case q.And(parts):
            return q.And(tuple(_whole(part, attributes) for part in parts))
        case q.Or(parts):
            return q.Or(tuple(_whole(part, attributes) for part in parts))
        case q.Not(q.Everything()) | q.Everything():
            return query
        case q.Not(part):
            return q.Not(_whole(part, attributes))
        case q.Compare(name, operator, value):
            attribute = _attribute_named(name, attributes)
            value = plain_value(attribute, value)  # type: ignore[assignment]
            if attribute.type == "integer" and isinstance(value, float):
                return _compare_fraction(name, operator, value)
            return q.Compare(name, operator, value)
        case q.Between(name, low, high):
            attribute = _attribute_named(name, attributes)
            first, last = plain_value(attribute, low), plain_value(attribute, high)
            if attribute.type == "integer":
                return q.And(
                    (_whole(q.Compare(name, ">=", low), attributes), _whole(q.Compare(name, "<=", high), attributes))
                )
            return q.Between(name, first, last)  # type: ignore[arg-type]
        case q.In(name, choices):
            attribute = _attribute_named(name, attributes)
            plain = [plain_value(attribute, choice) for choice in choices]
            if attribute.type == "integer":
                plain = [int(one) for one in plain if one == one and one == math.floor(_finite(one))]  # type: ignore[call-overload]
                plain = [one for one in plain if abs(one) < 2**63]  # type: ignore[arg-type]
            return q.In(name, tuple(dict.fromkeys(plain)))  # type: ignore[arg-type]
        case q.Like(name):
            if _attribute_named(name, attributes).type != "string":
                raise UsageError(f"'like' is for text, and '{name}' is {with_article(attributes[name].type)}")
            return query
        case q.IsNull(name):
            _attribute_named(name, attributes)
            return query
        case q.Cone(pair):
            for name in pair:
                _attribute_named(name, attributes)
            return query
    raise AssertionError(query)


def _attribute_named(name: str, attributes: Mapping[str, Attribute]) -> Attribute:
    if name not in attributes:
        raise UsageError(
            f"unknown attribute '{name}'",
            nearest=nearest_word(name, attributes),
            remedy="apbatch attributes --events lists them",
        )
    return attributes[name]


def _finite(value: Any) -> Any:
    return value if math.isfinite(value) else 0.5


def _compare_fraction(name: str, operator: q.Operator, value: float) -> q.Query:
    """Compare a whole number with a fraction, or with a number that none can be."""
    always, never = q.Not(q.IsNull(name)), q.And((q.IsNull(name), q.Not(q.IsNull(name))))
    if math.isnan(value):
        return always if operator == "!=" else never
    if operator in ("=", "!="):
        if math.isfinite(value) and value == math.floor(value) and abs(value) < 2**63:
            return q.Compare(name, operator, int(value))
        return always if operator == "!=" else never
    if abs(value) >= 2**63:
        return always if (value > 0) == (operator in ("<", "<=")) else never
    if value == math.floor(value):
        return q.Compare(name, operator, int(value))
    return q.Compare(
        name,
        "<=" if operator in ("<", "<=") else ">=",
        math.floor(value) if operator in ("<", "<=") else math.ceil(value),
    )


def _write(query: q.Query, attributes: Mapping[str, Attribute], dialect: Dialect, values: list[Any]) -> str:
    def bound(value: Any) -> str:
        values.append(value)
        return dialect.mark

    def joined(parts: Sequence[q.Query], word: str) -> str:
        return "(" + f" {word} ".join(_write(part, attributes, dialect, values) for part in parts) + ")"

    match query:
        case q.And(parts):
            return joined(parts, "AND")
        case q.Or(parts):
            return joined(parts, "OR")
        case q.Everything():
            return "TRUE"
        case q.Not(q.Everything()):
            return "FALSE"
        case q.Compare(name, operator, value):
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
                return _write(_compare_fraction(name, operator, float(value)), attributes, dialect, values)
            return f"{dialect.name(name)} {'<>' if operator == '!=' else operator} {bound(value)}"
        case q.Between(name, low, high):
            column = dialect.name(name)
            return f"({column} >= {bound(low)} AND {column} <= {bound(high)})"
        case q.Cone(pair):
            text, bounds = query.sql(dialect.name(pair[0]), dialect.name(pair[1]), dialect.mark)
            values.extend(bounds)
            return text
        case q.In(name, ()):
            return f"({dialect.name(name)} IS NULL AND {dialect.name(name)} IS NOT NULL)"
        case q.In(name, choices):
            column = dialect.name(name)
            if dialect.member is not None and len(choices) > _MANY:
                return dialect.member.format(column=column, mark=bound(list(choices)))
            return f"{column} IN ({', '.join(bound(choice) for choice in choices)})"
        case q.Like(name, pattern):
            return dialect.like.format(column=dialect.name(name), mark=bound(q.like_escaped(pattern)))
        case q.IsNull(name):
            return f"{dialect.name(name)} IS NULL"
        case q.Not(q.IsNull(name)):
            return f"{dialect.name(name)} IS NOT NULL"
        case q.Not(q.In(name, ())):
            return f"{dialect.name(name)} IS NOT NULL"
        case q.Not(part):
            return f"(NOT {_write(part, attributes, dialect, values)})"
    raise AssertionError(query)


def after_row(columns: Sequence[str], descending: Sequence[bool], last: Sequence[Any], dialect: Dialect) -> Sql:
    """Return the SQL of "comes after this row" in an order of columns; null is less than any value.

    Parameters
    ----------
    columns : sequence of str
        The order; together they tell any two rows apart.
    descending : sequence of bool
    last : sequence
        Values of the row after which to go on.
    dialect : Dialect
        Of the database.
    """
    values: list[Any] = []
    choices = []
    equal = ""
    equal_values: list[Any] = []
    for column, down, value in zip(columns, descending, last, strict=True):
        name = dialect.name(column)
        if value is None:
            comes = "FALSE" if down else f"{name} IS NOT NULL"
            same = f"{name} IS NULL"
        else:
            comes = f"({name} < {dialect.mark} OR {name} IS NULL)" if down else f"{name} > {dialect.mark}"
            same = f"{name} = {dialect.mark}"
        choices.append(f"({equal}{comes})")
        values += [*equal_values, *([] if value is None else [value])]
        equal += f"{same} AND "
        equal_values += [] if value is None else [value]
    return Sql(f"({' OR '.join(choices)})", values)

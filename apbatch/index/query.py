"""The query language, the same everywhere: parsed once to a small tree, compiled by each back-end.

``experiment = 'TAIGA' and zenith < 30 deg and night between 2017-10-01 and 2017-11-01 and path like '/taiga/raw/%'``
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Literal

from apbatch.formats.reader import Scalar

Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Compare:
    """``name operator value``; after `parse` the value has the attribute's type and unit."""

    name: str
    operator: Operator
    value: Scalar


@dataclass(frozen=True, slots=True)
class Between:
    """``name between low and high``, both ends included."""

    name: str
    low: Scalar
    high: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """``name in (value, …)``."""

    name: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """``name like 'pattern'`` with ``%`` and ``_``; case counts."""

    name: str
    pattern: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """``name is null``."""

    name: str


@dataclass(frozen=True, slots=True)
class Cone:
    """Directions within `radius` degrees of a point; the second attribute may be a zenith angle.

    Attributes
    ----------
    names : tuple of str
        Attributes with longitude and latitude in degrees: right ascension and declination, or azimuth and zenith angle.
    at : tuple of float
        The point, as the attributes would give it.
    radius : float
        Degrees.
    """

    names: tuple[str, str]
    at: tuple[float, float]
    radius: float

    @property
    def is_zenith(self) -> bool:
        """Whether the second attribute counts from the zenith."""
        return self.names[1].startswith("zenith")

    @property
    def latitudes(self) -> tuple[float, float]:
        """Values of the second attribute between which all such directions are."""
        return self.at[1] - self.radius, self.at[1] + self.radius

    @property
    def most(self) -> float:
        """The haversine of the radius, with which that of a distance is compared."""
        return math.sin(math.radians(min(self.radius, 180.0)) / 2) ** 2

    def holds(self, longitude: float, latitude: float) -> bool:
        """Tell whether a direction is within the cone (haversine formula)."""
        across = math.sin(math.radians(longitude - self.at[0]) / 2) ** 2
        along = math.sin(math.radians(latitude - self.at[1]) / 2) ** 2
        turned = math.sin if self.is_zenith else math.cos
        return along + turned(math.radians(latitude)) * turned(math.radians(self.at[1])) * across <= self.most

    def sql(self, longitude: str, latitude: str, mark: str = "?") -> tuple[str, list[Any]]:
        """Return the same as SQL on two columns.

        Parameters
        ----------
        longitude, latitude : str
            Expressions for the two angles, deg.
        mark : str
            How the database writes a bound value.
        """
        turned = "sin" if self.is_zenith else "cos"
        along = f"sin(radians({latitude} - {mark}) / 2)"
        across = f"sin(radians({longitude} - {mark}) / 2)"
        text = (
            f"({latitude} >= {mark} AND {latitude} <= {mark} AND {along} * {along} + {turned}(radians({latitude})) "
            f"* {turned}(radians({mark})) * {across} * {across} <= {mark})"
        )
        low, high = self.latitudes
        (at, of), most = self.at, self.most
        return text, [low, high, of, of, of, at, at, most]


@dataclass(frozen=True, slots=True)
class Not:
    """``not query``."""

    part: Query


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold."""

    parts: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any part holds."""

    parts: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Everything:
    """The empty query."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is asked, of what a rule allows: both hold. Only what is asked decides how a back-end searches.

    Attributes
    ----------
    question : Query
    rule : Query
        A condition that whoever asks did not write: it never makes a query one that the back-end refuses, and a
        `state` in it does not ask for files that are not registered.
    """

    question: Query
    rule: Query


Query = Compare | Between | In | Like | IsNull | Cone | Not | And | Or | Everything | Allowed
#: Tells of the values of one record whether a query holds.
Predicate = Callable[[Mapping[str, Any]], bool]
#: The query that nothing matches.
NOTHING: Query = Not(Everything())


@dataclass(frozen=True, slots=True)
class Order:
    """One attribute to sort by."""

    name: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for, in which order, and how many at most.

    Attributes
    ----------
    where : Query
    order : tuple of Order
        By path, if empty; path decides where the named attributes are equal.
    limit : int, optional
        At most so many.
    """

    where: Query = Everything()
    order: tuple[Order, ...] = ()
    limit: int | None = None


def written(query: Query) -> str:
    """Write a query as text that `parse` reads back; numbers are in the attributes' own units."""
    match query:
        case Everything():
            return ""
        case Compare(name, operator, value):
            return f"{name} {operator} {_literal(value)}"
        case Between(name, low, high):
            return f"{name} between {_literal(low)} and {_literal(high)}"
        case In(name, values):
            return f"{name} in ({', '.join(map(_literal, values))})"
        case Like(name, pattern):
            return f"{name} like {_literal(pattern)}"
        case IsNull(name):
            return f"{name} is null"
        case Cone(pair, at, radius):
            return f"cone({pair[0]}, {pair[1]}, {at[0]!r} deg, {at[1]!r} deg, {radius!r} deg)"
        case Not(part):
            return f"not ({written(part)})"
        case And(parts):
            return " and ".join(f"({written(part)})" if isinstance(part, And | Or) else written(part) for part in parts)
        case Or(parts):
            return " or ".join(f"({written(part)})" if isinstance(part, And | Or) else written(part) for part in parts)
        case Allowed(question, rule):
            return " and ".join(f"({text})" for text in (written(question), written(rule)) if text)


def _literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, date):  # a datetime is one
        return f"'{value.isoformat()}'"
    return "'" + value.replace("'", "''") + "'"


def names(query: Query) -> set[str]:
    """Return the attributes that a query names."""
    match query:
        case And(parts) | Or(parts):
            return set().union(*(names(part) for part in parts))
        case Not(part):
            return names(part)
        case Allowed(question, rule):
            return names(question) | names(rule)
        case Everything():
            return set()
        case Cone(pair):
            return set(pair)
        case Compare(name=name) | Between(name=name) | In(name=name) | Like(name=name) | IsNull(name=name):
            return {name}


def values_of(query: Query, name: str) -> tuple[Scalar, ...] | None:
    """Return the values one of which an attribute must have for a normalised query to hold; None if it may have any."""
    match query:
        case Compare(attribute, "=", value) if attribute == name:
            return (value,)
        case In(attribute, choices) if attribute == name:
            return tuple(dict.fromkeys(choices))
        case And(parts):
            return next((values for part in parts if (values := values_of(part, name)) is not None), None)
        case Or(parts):
            of_parts = [values_of(part, name) for part in parts]
            if any(values is None for values in of_parts):
                return None
            return tuple(dict.fromkeys(value for values in of_parts for value in values or ()))
        case _:
            return None


def bounds_of(query: Query, name: str) -> tuple[Any, Any]:
    """Return numbers between which an attribute must be for a normalised query to hold; both ends included."""
    match query:
        case Compare(attribute, "=", value) if attribute == name:
            return value, value
        case Compare(attribute, ">" | ">=", value) if attribute == name:
            return value, math.inf
        case Compare(attribute, "<" | "<=", value) if attribute == name:
            return -math.inf, value
        case Between(attribute, low, high) if attribute == name:
            return low, high
        case In(attribute, values) if attribute == name:
            return min(values), max(values)  # type: ignore[type-var]
        case And(parts):
            bounds = [bounds_of(part, name) for part in parts]
            return max(low for low, _ in bounds), min(high for _, high in bounds)
        case Or(parts):
            bounds = [bounds_of(part, name) for part in parts]
            return min(low for low, _ in bounds), max(high for _, high in bounds)
        case _:
            return -math.inf, math.inf


_OPPOSITE: dict[Operator, Operator] = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def normalise(query: Query, negated: bool = False) -> Query:
    """Push `not` down to the leaves; what is left is `Not` around `In`, `Like`, `IsNull` and `Everything` only.

    A comparison with a missing value is neither true nor false, as in SQL; pushed down, that holds on every back-end.
    """
    match query:
        case Not(part):
            return normalise(part, not negated)
        case And(parts):
            kind = Or if negated else And
            return kind(tuple(normalise(part, negated) for part in parts))
        case Or(parts):
            kind = And if negated else Or
            return kind(tuple(normalise(part, negated) for part in parts))
        case Compare(name, operator, value) if negated:
            return Compare(name, _OPPOSITE[operator], value)
        case Between(name, low, high) if negated:
            return Or((Compare(name, "<", low), Compare(name, ">", high)))
        case Allowed(question, rule):
            return normalise(And((question, rule)), negated)
        case _:
            return Not(query) if negated else query


def asked_of(query: Query) -> Query:
    """Return what is asked, without the rule that is added to it."""
    return query.question if isinstance(query, Allowed) else query


def of_registered(query: Query) -> Query:
    """Leave out quarantined and missing files, unless the query names `state`; the result is normalised."""
    if isinstance(query, Allowed):
        return And((of_registered(query.question), normalise(query.rule)))
    if "state" in names(query):
        return normalise(query)
    registered = Compare("state", "=", "registered")
    return registered if isinstance(query, Everything) else And((normalise(query), registered))


def matches(query: Query, values: Mapping[str, Any]) -> bool:
    """Tell whether a normalised query holds for one record: the reference for every back-end."""
    return predicate(query)(values)


def predicate(query: Query) -> Predicate:
    """Return what tells whether a normalised query holds for a record: of many records quicker than `matches`."""
    match query:
        case And(parts):
            tests = tuple(predicate(part) for part in parts)

            def hold_all(values: Mapping[str, Any]) -> bool:
                for test in tests:  # noqa: SIM110 - a generator takes twice as long
                    if not test(values):
                        return False
                return True

            return hold_all
        case Allowed(question, rule):
            return predicate(And((question, rule)))
        case Or(parts):
            alternatives = tuple(predicate(part) for part in parts)
            return lambda values: any(test(values) for test in alternatives)
        case Everything():
            return lambda values: True
        case Not(Everything()):
            return lambda values: False
        case IsNull(name):
            return lambda values: values.get(name) is None
        case Not(IsNull(name)):
            return lambda values: values.get(name) is not None
        case Not(part):
            opposite, named = predicate(part), names(part)
            return lambda values: all(values.get(one) is not None for one in named) and not opposite(values)
        case Cone(pair):
            return lambda values: _in_cone(query, values.get(pair[0]), values.get(pair[1]))
        case Compare(name, operator, other):
            return _value_test(name, _COMPARE[operator], other)
        case Between(name, low, high):
            return _value_test(name, lambda value, ends: ends[0] <= value <= ends[1], (low, high))
        case In(name, choices):
            return _value_test(name, lambda value, choices: value in choices, choices)
        case Like(name, pattern):
            return _value_test(name, lambda value, other: is_like(str(value), other), pattern)


def _value_test(name: str, test: Callable[[Any, Any], Any], other: Any) -> Predicate:
    """Return the test of one attribute, which holds for no record that lacks it."""

    def hold(values: Mapping[str, Any]) -> bool:
        value = values.get(name)
        return value is not None and bool(test(value, other))

    return hold


def _in_cone(cone: Cone, longitude: Any, latitude: Any) -> bool:
    return longitude is not None and latitude is not None and cone.holds(longitude, latitude)


_COMPARE: dict[Operator, Callable[[Any, Any], Any]] = {
    "=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge,
}  # fmt: skip


def is_like(text: str, pattern: str) -> bool:
    """Tell whether text fits a `like` pattern; steps grow with the product of the lengths, whatever the pattern."""
    pieces, length = _pieces(pattern)
    if len(pieces) == 1:
        return pieces[0].fullmatch(text) is not None
    start, end = pieces[0].match(text), len(text) - length
    if start is None or end < start.end() or pieces[-1].fullmatch(text, end) is None:
        return False
    position = start.end()
    for piece in pieces[1:-1]:  # the leftmost place of each piece leaves most room for the rest
        match = piece.search(text, position, end)
        if match is None:
            return False
        position = match.end()
    return True


#: What `%` and `_` of a pattern become, apart from the same characters meant as themselves.
_ANY, _ONE = object(), object()


def _tokens(pattern: str) -> list[Any]:
    """Read a pattern: `_ANY`, `_ONE` or a plain character; a backslash before ``%``, ``_`` or itself makes it plain."""
    tokens: list[Any] = []
    place = 0
    while place < len(pattern):
        char = pattern[place]
        place += 1
        if char == "\\" and pattern[place : place + 1] in ("%", "_", "\\"):
            char, place = pattern[place], place + 1
            tokens.append(char)
        else:
            tokens.append({"%": _ANY, "_": _ONE}.get(char, char))
    return tokens


@lru_cache(maxsize=1024)
def _pieces(pattern: str) -> tuple[tuple[re.Pattern[str], ...], int]:
    """Return a regular expression for each piece between ``%``, and the length of the last one."""
    pieces: list[list[Any]] = [[]]
    for token in _tokens(pattern):
        if token is _ANY:
            pieces.append([])
        else:
            pieces[-1].append(token)
    compiled = ("".join("." if token is _ONE else re.escape(token) for token in piece) for piece in pieces)
    return tuple(re.compile(piece, re.DOTALL) for piece in compiled), len(pieces[-1])


def like_prefix(pattern: str) -> str:
    """Return the fixed text with which every match of a `like` pattern begins."""
    prefix = []
    for token in _tokens(pattern):
        if token is _ANY or token is _ONE:
            break
        prefix.append(token)
    return "".join(prefix)


def like_escaped(pattern: str) -> str:
    """Return a pattern for SQL's ``LIKE … ESCAPE '\\'``, which allows a backslash only before what it escapes."""
    escapes = {_ANY: "%", _ONE: "_", "%": "\\%", "_": "\\_", "\\": "\\\\"}
    return "".join(escapes.get(token, token) for token in _tokens(pattern))

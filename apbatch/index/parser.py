"""Text to query tree: grammar in `query.lark`, types and units from the declared attributes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args
from lark.exceptions import VisitError

from apbatch.errors import ApbatchError, UsageError, nearest_word
from apbatch.formats.reader import Attribute, Scalar
from apbatch.index import query as q
from apbatch.units import convert

_LONGEST = 100_000
_DEEPEST = 100
_KEYWORDS = ("and", "or", "not", "between", "in", "like", "is", "null", "true", "false")


@cache
def _grammar() -> Lark:
    return Lark(files("apbatch.index").joinpath("query.lark").read_text(), parser="lalr", lexer="contextual")


def parse_query(text: str, attributes: Mapping[str, Attribute]) -> q.Query:
    """Parse `text`; see `apbatch.index.query.parse`."""
    if not text.strip():
        return q.Everything()
    if len(text) > _LONGEST:
        raise UsageError(f"a query of {len(text)} characters is too long (at most {_LONGEST})")
    depth = max(_nesting(text), len(re.findall(r"\bnot\b", text, re.IGNORECASE)))
    if depth > _DEEPEST:
        raise UsageError(f"the query is nested too deeply (at most {_DEEPEST} levels)")
    try:
        tree = _grammar().parse(text)
    except UnexpectedInput as error:
        raise _syntax_error(text, error) from None
    try:
        result: q.Query = _Build(attributes).transform(tree)
    except VisitError as error:
        if isinstance(error.orig_exc, ApbatchError):
            raise error.orig_exc from None
        raise
    return result


def _nesting(text: str) -> int:
    depth = deepest = 0
    for char in text:
        depth += (char == "(") - (char == ")")
        deepest = max(deepest, depth)
    return deepest


def _syntax_error(text: str, error: UnexpectedInput) -> UsageError:
    column = getattr(error, "column", 0) or 0
    position = error.pos_in_stream
    if position is None or position < 0 or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        return UsageError("the query ends too early", where=f"query, column {len(text) + 1}")
    word = re.match(r"\w+|.", text[position:], re.DOTALL)
    found = word[0] if word else ""
    if isinstance(error, UnexpectedCharacters) and found in "'\"":
        return UsageError("a string is not closed", where=f"query, column {column}")
    near = nearest_word(found.lower(), _KEYWORDS) if found.isalpha() else None
    return UsageError(f"'{found!s}' is not expected here", where=f"query, column {column}", nearest=near)


class _Value:
    """A value as written, before the attribute tells its type."""

    def __init__(self, kind: str, content: Any, column: int, unit: str | None = None) -> None:
        self.kind, self.content, self.column, self.unit = kind, content, column, unit


@v_args(inline=True)
class _Build(Transformer):  # type: ignore[misc]  # lark has no types
    def __init__(self, attributes: Mapping[str, Attribute]) -> None:
        super().__init__()
        self._attributes = attributes

    def _named(self, token: Token) -> Attribute:
        attribute = self._attributes.get(str(token).lower())
        if attribute is None:
            raise UsageError(
                f"unknown attribute '{token}'",
                where=f"query, column {token.column}",
                nearest=nearest_word(str(token).lower(), self._attributes),
                remedy="apbatch attributes lists them",
            )
        return attribute

    def value(self, part: Any) -> _Value:
        if isinstance(part, _Value):
            return part
        text, column = str(part), part.column or 0
        if part.type == "STRING":
            return _Value("string", text[1:-1].replace(text[0] * 2, text[0]), column)
        if part.type in ("TRUE", "FALSE"):
            return _Value("boolean", part.type == "TRUE", column)
        return _Value(part.type.lower(), text, column)

    def quantity(self, number: Token, unit: str | None = None) -> _Value:
        return _Value("number", str(number), number.column or 0, unit)

    def unit(self, token: Token) -> str:
        return str(token)

    def disjunction(self, *parts: q.Query) -> q.Query:
        return parts[0] if len(parts) == 1 else q.Or(parts)

    def conjunction(self, *parts: q.Query) -> q.Query:
        return parts[0] if len(parts) == 1 else q.And(parts)

    def negation(self, part: q.Query) -> q.Query:
        return q.Not(part)

    def compare(self, name: Token, operator: Token, value: _Value) -> q.Query:
        attribute = self._named(name)
        sign: Any = {"==": "=", "<>": "!="}.get(str(operator), str(operator))
        if attribute.type == "boolean" and sign not in ("=", "!="):
            raise UsageError(f"'{attribute.name}' is true or false: it has no order", where=_at(value))
        return q.Compare(attribute.name, sign, _typed(attribute, value))

    def between(self, name: Token, low: _Value, high: _Value) -> q.Query:
        attribute = self._named(name)
        if low.unit is None and high.unit is not None:  # between 10 and 20 deg
            low.unit = high.unit
        return q.Between(attribute.name, _typed(attribute, low), _typed(attribute, high))

    def not_between(self, name: Token, low: _Value, high: _Value) -> q.Query:
        return q.Not(self.between(name, low, high))

    def contained(self, name: Token, *values: _Value) -> q.Query:
        attribute = self._named(name)
        return q.In(attribute.name, tuple(_typed(attribute, value) for value in values))

    def not_contained(self, name: Token, *values: _Value) -> q.Query:
        return q.Not(self.contained(name, *values))

    def like(self, name: Token, pattern: Token) -> q.Query:
        attribute = self._named(name)
        if attribute.type != "string":
            raise UsageError(
                f"'like' wants text, and '{attribute.name}' is a {attribute.type}", where=f"query, column {name.column}"
            )
        return q.Like(attribute.name, self.value(pattern).content)

    def not_like(self, name: Token, pattern: Token) -> q.Query:
        return q.Not(self.like(name, pattern))

    def is_null(self, name: Token) -> q.Query:
        return q.IsNull(self._named(name).name)

    def is_not_null(self, name: Token) -> q.Query:
        return q.Not(q.IsNull(self._named(name).name))


def _at(value: _Value) -> str:
    return f"query, column {value.column}"


def _typed(attribute: Attribute, value: _Value) -> Scalar:
    """Give a value the attribute's type and unit."""
    try:
        match attribute.type:
            case "string" if value.kind == "string":
                return str(value.content)
            case "boolean" if value.kind == "boolean":
                return bool(value.content)
            case "integer" | "number" if value.kind == "number":
                return _number(attribute, value)
            case "date" if value.kind in ("date", "string"):
                return date.fromisoformat(value.content)
            case "time" if value.kind in ("time", "date", "string"):
                moment = datetime.fromisoformat(value.content)
                return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"'{value.content}' is no {attribute.type}: {error}", where=_at(value)) from None
    except UsageError as error:
        raise UsageError(f"{attribute.name}: {error.what}", where=_at(value), remedy=error.remedy) from None
    wanted = {"string": "text in quotes", "boolean": "true or false", "date": "a date such as 2017-10-28"}
    raise UsageError(
        f"'{attribute.name}' is a {attribute.type}, which '{value.content}' is not",
        where=_at(value),
        remedy=f"write {wanted.get(attribute.type, 'a ' + attribute.type)}",
    )


def _number(attribute: Attribute, value: _Value) -> int | float:
    if attribute.type == "integer" and value.unit is None and re.fullmatch(r"[-+]?\d+", value.content):
        number: int | float = int(value.content)
        if abs(number) >= 2**63:
            raise ValueError("too large")
        return number
    number = convert(float(value.content), value.unit, attribute.unit)
    if number in (float("inf"), float("-inf")):
        raise ValueError("too large")
    return int(number) if attribute.type == "integer" and number == int(number) else number

"""Text to query tree: grammar in `query.lark`, types and units from the declared attributes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args

from apbatch.errors import UsageError, nearest_word
from apbatch.formats.reader import Attribute, Scalar
from apbatch.index import query as q
from apbatch.index.attributes import KEYWORDS
from apbatch.index.conditions import ConditionTransformer, moment_of
from apbatch.messages import excerpt, with_article
from apbatch.units import convert

_LONGEST = 100_000
_DEEPEST = 50
_STRINGS = re.compile(r"""'[^']*'|"[^"]*\"""")
#: Attributes that are few words, each with what it may be.
_CHOICES = {"state": ("listed", "registered", "archived", "missing", "quarantined")}


#: Pairs of attributes that `cone(…)` takes if none are named, the first that is declared.
CONE_PAIRS = (("ra", "dec"), ("pointing_ra", "pointing_dec"), ("azimuth", "zenith"))


@cache
def _grammar() -> Lark:
    return Lark(
        files("apbatch.index").joinpath("query.lark").read_text(),
        parser="lalr",
        lexer="contextual",
        maybe_placeholders=True,
    )


def parse(text: str, attributes: Mapping[str, Attribute]) -> q.Query:
    """Parse a query and give its values the types and units of `attributes`.

    Parameters
    ----------
    text : str
        The query; empty text matches everything.
    attributes : Mapping
        What may be named, as `Catalogue.attributes` returns it.

    Raises
    ------
    UsageError
        With the place in the text and the nearest known attribute or keyword; also for an order or a limit, which
        `parse_search` takes.
    """
    search = parse_search(text, attributes)
    if search.order or search.limit is not None:
        place = re.search(r"\b(order\s+by|limit)\b(?=[^'\"]*$)", text, re.IGNORECASE)
        raise UsageError(
            "a condition without order and limit is wanted here", where=_place(place.start() if place else 0)
        )
    return search.where


def parse_search(text: str, attributes: Mapping[str, Attribute]) -> q.Search:
    """Parse a query that may end in ``order by NAME [desc], …`` and ``limit N``; see `parse`."""
    if not text.strip():
        return q.Search()
    return _Build(attributes).result(_tree(text))


def names_in(text: str) -> set[str]:
    """Return the attributes that a query names, known or not, in lower case.

    Raises
    ------
    UsageError
        If the text is no query.
    """
    if not text.strip():
        return set()
    return {str(token).lower() for token in _tree(text).scan_values(lambda token: getattr(token, "type", "") == "NAME")}


def _tree(text: str) -> Any:
    if len(text) > _LONGEST:
        raise UsageError(f"a query of {len(text)} characters is too long (at most {_LONGEST})")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError("a character is not valid Unicode", where=f"query, column {error.start + 1}") from None
    if _nesting(_STRINGS.sub("''", text)) > _DEEPEST:
        raise UsageError(f"the query is nested too deeply (at most {_DEEPEST} levels)")
    try:
        return _grammar().parse(text)
    except UnexpectedInput as error:
        raise _syntax_error(text, error) from None


def _nesting(text: str) -> int:
    """Return how deep the tree can become: open parentheses and negations, none of them in a string."""
    depth = deepest = 0
    for part in re.findall(r"[()]|\bnot\b", text, re.IGNORECASE):
        depth += -1 if part == ")" else part == "("
        deepest = max(deepest, depth)
    return max(deepest, len(re.findall(r"\bnot\s*(?=\(|not\b)", text, re.IGNORECASE)))


def _syntax_error(text: str, error: UnexpectedInput) -> UsageError:
    position = error.pos_in_stream
    if position is None or position < 0 or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        return UsageError("the query ends too early", where=_place(len(text)))
    where = _place(position)
    word = re.match(r"\w+|.", text[position:], re.DOTALL)
    token = word[0] if word else ""
    compared = re.search(r"(\w+)\s*(=|==|!=|<>)\s*$", text[:position])
    if token.lower() == "null" and compared:
        negated = "not " if compared[2] in ("!=", "<>") else ""
        remedy_text = f"write '{excerpt(compared[1])} is {negated}null'"
        return UsageError("a comparison with null is never true", where=where, remedy=remedy_text)
    if isinstance(error, UnexpectedCharacters) and token in ("'", '"'):
        return UsageError("a string is not closed", where=where)
    # `zenith < 30 adn …`: what stands where a unit may stand was taken for one.
    before = re.search(r"(?:^|[\s(])[-+.\d]\S*\s+([A-Za-z]+)\s*$", text[:position])
    if before and (keyword := nearest_word(before[1].lower(), ("and", "or"))):
        return UsageError(
            f"'{excerpt(before[1])}' is not expected here", where=_place(before.start(1)), nearest=keyword
        )
    near = nearest_word(token.lower(), KEYWORDS) if token.isalpha() else None
    if near is None and re.search(r"(?:[=<>(,]|\blike)\s*$", text[:position], re.IGNORECASE) and token.isalpha():
        return UsageError(f"a value is wanted here, not '{excerpt(token)}'", where=where, remedy="text goes in quotes")
    return UsageError(f"'{excerpt(token)}' is not expected here", where=where, nearest=near)


def _place(position: int) -> str:
    return f"query, column {position + 1}"


class _Value:
    """A value as written, before the attribute tells its type."""

    def __init__(self, kind: str, content: Any, column: int, unit: str | None = None) -> None:
        self.kind, self.content, self.column, self.unit = kind, content, column, unit


@v_args(inline=True)
class _Build(ConditionTransformer[_Value, q.Search]):
    MOST_VALUES = 10_000

    def __init__(self, attributes: Mapping[str, Attribute]) -> None:
        super().__init__()
        self._attributes = attributes

    def _at(self, token: Token) -> str:
        return _of(token)

    def _named(self, name: Token) -> Attribute:
        attribute = self._attributes.get(str(name).lower())
        if attribute is None:
            raise UsageError(
                f"unknown attribute '{excerpt(name)}'",
                where=_of(name),
                nearest=nearest_word(str(name).lower(), self._attributes),
                remedy="apbatch attributes lists them",
            )
        return attribute

    def _typed(self, attribute: Attribute, value: _Value) -> Scalar:
        return _typed(attribute, value)

    def _pattern(self, token: Token) -> str:
        return str(self.value(token).content)

    def value(self, part: Any) -> _Value:
        if isinstance(part, _Value):
            return part
        text, column = str(part), (part.start_pos or 0) + 1
        if part.type == "STRING":
            return _Value("string", text[1:-1].replace(text[0] * 2, text[0]), column)
        if part.type in ("TRUE", "FALSE"):
            return _Value("boolean", part.type == "TRUE", column)
        return _Value(part.type.lower(), text, column)

    def quantity(self, number: Token, unit: str | None = None) -> _Value:
        return _Value("number", str(number), (number.start_pos or 0) + 1, unit)

    def unit(self, token: Token) -> str:
        return str(token)

    def start(self, where: q.Query | None, order: tuple[q.Order, ...] | None, limit: int | None) -> q.Search:
        return q.Search(q.Everything() if where is None else where, order or (), limit)

    def ordering(self, *keys: q.Order) -> tuple[q.Order, ...]:
        return keys

    def key(self, name: Token, direction: Token | None) -> q.Order:
        return q.Order(self._attribute(name).name, direction is not None and str(direction).lower() == "desc")

    def limiting(self, number: Token) -> int:
        limit = int(number) if len(number) < 19 else 0
        if limit < 1:
            raise UsageError(
                f"a limit of {excerpt(number)} is not possible", where=_of(number), remedy="write 1 or more"
            )
        return limit

    def cone(self, token: Token, longitude: Token | None, latitude: Token | None, *point: _Value) -> q.Query:
        if longitude is None or latitude is None:
            pair = next((pair for pair in CONE_PAIRS if all(name in self._attributes for name in pair)), None)
            if pair is None:
                raise UsageError(
                    "no pair of attributes gives a direction",
                    where=_of(token),
                    remedy="name two: cone(LONGITUDE, LATITUDE, 83.6 deg, 22 deg, 2 deg)",
                )
            attributes = [self._attributes[name] for name in pair]
        else:
            attributes = [self._angle(longitude), self._angle(latitude)]
        degrees = Attribute("radius", "number", "", "deg")
        at = [float(str(_typed(one, value))) for one, value in zip((*attributes, degrees), point, strict=True)]
        if not 0 <= at[2] <= 180:
            raise UsageError("a radius is from 0 to 180 degrees", where=_at(point[2]))
        return q.Cone((attributes[0].name, attributes[1].name), (at[0], at[1]), at[2])

    def _comparison(self, attribute: Attribute, sign: Any, value: _Value) -> q.Query:
        day = _day(attribute, value)
        return super()._comparison(attribute, sign, value) if day is None else _of_day(attribute.name, sign, *day)

    def between(self, name: Token, low: _Value, high: _Value) -> q.Query:
        if low.unit is None and high.unit is not None:  # between 10 and 20 deg
            low.unit = high.unit
        attribute = self._named(name)
        if _day(attribute, high) is None:
            return super().between(name, low, high)
        self._attribute(name)
        return q.And((self._comparison(attribute, ">=", low), self._comparison(attribute, "<=", high)))

    def contained(self, name: Token, *values: _Value) -> q.Query:
        attribute = self._named(name)
        if all(_day(attribute, value) is None for value in values):
            return super().contained(name, *values)
        return q.Or(tuple(self.compare(name, Token("OPERATOR", "="), value) for value in values))


def _day(attribute: Attribute, value: _Value) -> tuple[datetime, datetime | None] | None:
    """Return when the day begins that is compared with a time, and when the next one does; None for what is no date."""
    if attribute.type != "time" or not re.fullmatch(r"\d{4}-\d\d-\d\d", str(value.content)):
        return None
    start = _typed(attribute, value)
    assert isinstance(start, datetime)
    return start, None if start.date() == date.max else start + timedelta(days=1)


def _of_day(name: str, sign: str, start: datetime, after: datetime | None) -> q.Query:
    """Return a comparison of a time with a whole day, UTC; nothing comes after the last day of the calendar."""
    since, before = q.Compare(name, ">=", start), q.Compare(name, "<", start)
    until: q.Query = q.Not(q.IsNull(name)) if after is None else q.Compare(name, "<", after)
    beyond: q.Query = q.Not(q.Everything()) if after is None else q.Compare(name, ">=", after)
    comparisons: dict[str, q.Query] = {
        "=": q.And((since, until)), "!=": q.Or((before, beyond)), "<": before, "<=": until, ">": beyond, ">=": since,
    }  # fmt: skip
    return comparisons[sign]


def _at(value: _Value) -> str:
    return f"query, column {value.column}"


def _of(token: Token) -> str:
    return _place(token.start_pos or 0)


def _typed(attribute: Attribute, value: _Value) -> Scalar:
    """Give a value the attribute's type and unit."""
    try:
        match attribute.type:
            case "string" if value.kind == "string":
                return _choice_of(attribute, value)
            case "boolean" if value.kind == "boolean":
                return bool(value.content)
            case "integer" | "number" if value.kind == "number":
                return _number(attribute, value)
            case "date" if value.kind in ("date", "string"):
                return date.fromisoformat(value.content)
            case "time" if value.kind in ("time", "date", "string"):
                return moment_of(value.content)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"'{excerpt(str(value.content))}' is not {with_article(attribute.type)}: {excerpt(str(error))}",
            where=_at(value),
        ) from None
    except UsageError as error:
        where = error.where or _at(value)
        raise UsageError(
            f"{attribute.name}: {error.what}", where=where, nearest=error.nearest, remedy=error.remedy
        ) from None
    examples = {"string": "text in quotes", "boolean": "true or false", "date": "a date such as 2017-10-28"}
    raise UsageError(
        f"'{attribute.name}' is {with_article(attribute.type)}, which '{excerpt(str(value.content))}' is not",
        where=_at(value),
        remedy=f"write {examples.get(attribute.type, with_article(attribute.type))}",
    )


def _choice_of(attribute: Attribute, value: _Value) -> str:
    text = str(value.content)
    choices = _CHOICES.get(attribute.name)
    if choices and text not in choices:
        raise UsageError(
            f"'{excerpt(text)}' is none of {', '.join(choices)}", where=_at(value), nearest=nearest_word(text, choices)
        )
    return text


def _number(attribute: Attribute, value: _Value) -> int | float:
    if attribute.type == "integer" and value.unit is None and re.fullmatch(r"[-+]?\d+", value.content):
        number: int | float = int(value.content)
        if abs(number) >= 2**63:
            raise ValueError("too large")
        return number
    number = convert(float(value.content), value.unit, attribute.unit)
    if number in (float("inf"), float("-inf")):
        raise ValueError("too large")
    if attribute.type == "integer" and abs(number) >= 2**63:
        raise ValueError("too large")
    return int(number) if attribute.type == "integer" and number == int(number) else number

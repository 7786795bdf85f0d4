"""ADQL to a checked statement over the query tree of the catalogue.

One table; ``TOP``, ``DISTINCT``, columns or ``COUNT``; ``WHERE`` with ``AND``, ``OR``, ``NOT``, ``IN``, ``BETWEEN``,
``LIKE``, ``IS NULL`` and cones by ``CONTAINS``; ``GROUP BY``; ``ORDER BY``. The rest is refused by name and place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, UnexpectedInput, UnexpectedToken, v_args

from apbatch.api.tap.statement import Count, Item, Key, Statement
from apbatch.errors import UsageError, nearest_word
from apbatch.formats.reader import Attribute, Scalar
from apbatch.index import query as q
from apbatch.index.conditions import ConditionTransformer, moment_of
from apbatch.messages import excerpt, with_article

_LONGEST = 20_000
#: Levels of the parsed tree; a pair of parentheses makes three.
_DEEPEST = 150
_MOST_COLUMNS = 500
_LARGEST = 2**63
_WORDS = ("and", "as", "asc", "between", "by", "contains", "count", "desc", "distinct", "from", "group", "in", "is",
          "like", "not", "null", "or", "order", "select", "top", "where")  # fmt: skip
#: Words of ADQL that are understood and not served.
_NOT_SERVED = ("all", "avg", "box", "case", "cross", "distance", "except", "exists", "full", "having", "ilike", "inner",
               "intersect", "intersects", "join", "left", "lower", "max", "min", "natural", "offset", "outer",
               "polygon", "right", "sum", "union", "upper", "using", "with")  # fmt: skip
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
Tables = Mapping[str, Mapping[str, Attribute]]


@cache
def _grammar() -> Lark:
    text = files("apbatch.api.tap").joinpath("adql.lark").read_text()
    return Lark(text, parser="lalr", lexer="contextual", maybe_placeholders=True)


def parse_adql(text: str, tables: Tables) -> Statement:
    """Parse a statement; its values get the types of the table's columns.

    Parameters
    ----------
    text : str
    tables : Mapping
        Columns of each table, by full name in lower case.

    Raises
    ------
    UsageError
        With the line and column in the text, and the nearest right word.
    """
    if len(text) > _LONGEST:
        raise UsageError(f"a statement of {len(text)} characters is too long (at most {_LONGEST})", where="QUERY")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError("a character is not valid Unicode", where=_place(text, error.start)) from None
    try:
        tree = _grammar().parse(text)
    except UnexpectedInput as error:
        raise _syntax_error(text, error) from None
    _check_depth(tree)
    name, aliases = _table_of(next(tree.find_data("table")), tables)
    return _Build(name, tables[name], aliases).result(tree)


def _place(text: str, position: int) -> str:
    before = text[:position]
    return f"QUERY, line {before.count(chr(10)) + 1}, column {position - before.rfind(chr(10))}"


def _at(token: Token) -> str:
    return f"QUERY, line {token.line}, column {token.column}"


def _syntax_error(text: str, error: UnexpectedInput) -> UsageError:
    position = error.pos_in_stream
    if position is None or position < 0 or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        return UsageError(
            "the statement ends too early",
            where=_place(text, len(text.rstrip())),
            remedy="SELECT TOP 10 path, night FROM files WHERE events > 1000",
        )
    where = _place(text, position)
    match = re.compile(r"\w+|.", re.DOTALL).match(text, position)
    word = match[0] if match else ""
    if word in ("'", '"'):
        return UsageError("a string is not closed", where=where)
    before = re.search(r"(\w+)\s*\Z", text[max(0, position - 80) : position])
    if word == "(" and before and before[1].lower() not in _WORDS:
        return UsageError(
            f"the function {excerpt(before[1])} is not served", where=where, remedy="compare columns with values"
        )
    if word.lower() in _NOT_SERVED:
        return UsageError(f"{word.upper()} is not served", where=where, remedy="ask one table at a time, or use REST")
    near = nearest_word(word.lower(), _WORDS) if word.isalpha() and word.lower() not in _WORDS else None
    remedy = None
    if re.search(r"(?:[=<>(,]|\blike|\band|\bbetween)\s*\Z", text[max(0, position - 80) : position], re.IGNORECASE):
        remedy = "a value is a number, or text in single quotes"
    return UsageError(
        f"'{excerpt(word)}' is not expected here", where=where, nearest=near and near.upper(), remedy=remedy
    )


def _check_depth(tree: Any) -> None:
    """Refuse a tree that recursion could not walk; measured without recursion."""
    level, depth = [tree], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise UsageError("the statement is nested too deeply", where="QUERY", remedy="leave out parentheses")
        level = [child for node in level for child in node.children if hasattr(child, "children")]


def _word(token: Token) -> str:
    return str(token)[1:-1].replace('""', '"') if token.type == "QUOTED" else str(token).lower()


def _table_of(tree: Any, tables: Tables) -> tuple[str, frozenset[tuple[str, ...]]]:
    """Return the full name of the table, and what may stand before a column's name."""
    first, second, alias = (None if child is None else child.children[0] for child in tree.children)
    full_name = ".".join(_word(part).lower() for part in (first, second) if part is not None)
    names = [name for name in tables if name == full_name or (second is None and name.partition(".")[2] == full_name)]
    if not names:
        near = nearest_word(full_name[:100], tables)
        raise UsageError(
            f"there is no table '{excerpt(full_name)}'",
            where=_at(first),
            nearest=near,
            remedy=f"there are {', '.join(tables)}",
        )
    schema, _, short = names[0].partition(".")
    if alias is not None:
        return names[0], frozenset({(_word(alias),)})
    return names[0], frozenset({(short,), (schema, short)})


class _Literal:
    """A value as written, before its column tells the type."""

    def __init__(self, value: Scalar, token: Token) -> None:
        self.value, self.token = value, token


class _Counted:
    """A count, and where it stands."""

    def __init__(self, count: Count, token: Token) -> None:
        self.count, self.token = count, token


@v_args(inline=True)
class _Build(ConditionTransformer[_Literal, Statement]):
    MOST_VALUES = 2_000

    def __init__(self, table: str, columns: Mapping[str, Attribute], aliases: frozenset[tuple[str, ...]]) -> None:
        super().__init__()
        self._table, self._columns, self._aliases = table, columns, aliases

    def _at(self, token: Token) -> str:
        return _at(token)

    def _typed(self, attribute: Attribute, value: _Literal) -> Scalar:
        return _typed(attribute, value)

    def _pattern(self, token: Token) -> str:
        return str(token)[1:-1].replace("''", "'").replace("\\", "\\\\")  # ADQL has no escape, the query tree has

    def start(self, distinct: Token | None, top: int | None, items: list[Any], table: None, where: q.Query | None,
              groups: list[Token] | None, order: list[Any] | None) -> Statement:  # fmt: skip
        columns = self._items(items)
        grouped = tuple(dict.fromkeys(self._named(name).name for name in groups or ()))
        counts = [what for what, _ in items if isinstance(what, _Counted)]
        if distinct is not None:
            if counts or groups:
                raise UsageError("DISTINCT goes with columns alone", where=_at(distinct), remedy="use GROUP BY")
            grouped = tuple(dict.fromkeys(str(item.what) for item in columns))
        if grouped or counts:
            for what, _ in items:
                if isinstance(what, Token) and str(what) not in grouped:
                    raise UsageError(
                        f"'{excerpt(what)}' is neither grouped nor counted",
                        where=_at(what),
                        remedy="SELECT night, COUNT(*) FROM files GROUP BY night",
                    )
        keys = tuple(self._key(one, descending, columns) for one, descending in order or ())
        statement = Statement(self._table, columns, q.Everything() if where is None else where, grouped, keys, top)
        if statement.is_grouped and any(isinstance(key.what, str) and key.what not in grouped for key in keys):
            raise UsageError("groups are ordered by a grouped column or a count", where="QUERY")
        if not statement.is_grouped and any(isinstance(key.what, Count) for key in keys):
            raise UsageError("rows that are not grouped have no count to order by", where="QUERY")
        return statement

    def _items(self, items: list[Any]) -> tuple[Item, ...]:
        if len(items) > _MOST_COLUMNS:
            raise UsageError(f"more than {_MOST_COLUMNS} columns", where="QUERY")
        if not items:
            return tuple(Item(name, name) for name in self._columns)
        columns: list[Item] = []
        labels: set[str] = set()
        for what, label in items:
            name = _word(label) if label is not None else "count" if isinstance(what, _Counted) else str(what)
            name, number = name[:200], 1
            while (unique := name if number == 1 else f"{name}_{number}") in labels:
                number += 1
            labels.add(unique)
            columns.append(Item(what.count if isinstance(what, _Counted) else self._named(what).name, unique))
        return tuple(columns)

    def _key(self, what: Any, descending: bool, columns: tuple[Item, ...]) -> Key:
        if isinstance(what, _Counted):
            return Key(what.count, descending)
        if what.type == "INTEGER":
            if len(what) > 4 or not 1 <= int(what) <= len(columns):
                raise UsageError(f"there is no column {excerpt(what)} to order by", where=_at(what))
            return Key(columns[int(what) - 1].what, descending)
        labelled = next((item.what for item in columns if item.label == what), None)
        return Key(self._named(what).name if labelled is None else labelled, descending)

    def top(self, number: Token) -> int:
        if len(number) > 12 or int(number) < 0:
            raise UsageError(f"TOP {excerpt(number)} is not possible", where=_at(number), remedy="write 0 or more")
        return int(number)

    def columns(self, *items: Any) -> list[Any]:
        if not isinstance(items[-1], Token):
            return list(items)
        if len(items) == 2 and (_word(items[0]),) not in self._aliases:
            raise self._no_table(items[0])
        return []

    def item(self, what: Any, label: Token | None) -> tuple[Any, Token | None]:
        return what, label

    def count(self, token: Token, what: Token) -> _Counted:
        return _Counted(Count() if what.type == "STAR" else Count(self._named(what).name), token)

    def table(self, *names: Any) -> None:
        return None

    def where(self, condition: q.Query) -> q.Query:
        return condition

    def grouping(self, *names: Token) -> list[Token]:
        return list(names)

    def ordering(self, *keys: Any) -> list[Any]:
        return list(keys)

    def key(self, what: Any, direction: Token | None) -> tuple[Any, bool]:
        return what, direction is not None and direction.lower() == "desc"

    def name(self, token: Token) -> Token:
        return token

    def column(self, *parts: Token) -> Token:
        """Return the name alone, where it stands."""
        *before, last = parts
        if before and tuple(map(_word, before)) not in self._aliases:
            raise self._no_table(before[0])
        return Token.new_borrow_pos(last.type, _word(last), last)

    def _no_table(self, token: Token) -> UsageError:
        return UsageError(
            f"'{excerpt(_word(token))}' is not the table of this statement",
            where=_at(token),
            remedy=" or ".join(".".join(one) for one in sorted(self._aliases)),
        )

    def text(self, token: Token) -> _Literal:
        return _Literal(str(token)[1:-1].replace("''", "'"), token)

    def truth(self, token: Token) -> _Literal:
        return _Literal(token.type == "TRUE", token)

    def number(self, token: Token) -> _Literal:
        value: int | float = int(token) if token.type == "INTEGER" and len(token) < 19 else float(token)
        if value in (float("inf"), float("-inf")):
            raise UsageError("a number is too large", where=_at(token))
        return _Literal(value, token)

    def compare_turned(self, value: _Literal, operator: Token, name: Token) -> q.Query:
        turned = Token.new_borrow_pos("OPERATOR", _TURNED.get(str(operator), str(operator)), operator)
        return self.compare(name, turned, value)

    def point(self, token: Token, system: Token | None, *names: Token) -> tuple[str, str]:
        longitude, latitude = map(self._angle, names)
        return longitude.name, latitude.name

    def centre(self, token: Token, system: Token | None, longitude: _Literal, latitude: _Literal) -> list[_Literal]:
        return [longitude, latitude]

    def circle(self, token: Token, system: Token | None, *numbers: _Literal) -> tuple[float, float, float]:
        longitude, latitude, radius = (float(str(one.value)) for one in numbers)
        if not 0 <= radius <= 180:
            raise UsageError("a radius is from 0 to 180 degrees", where=_at(numbers[2].token))
        if not -90 <= latitude <= 180 or not -360 <= longitude <= 360:
            raise UsageError("no such direction in degrees", where=_at(numbers[0].token))
        return longitude, latitude, radius

    def circle_around(self, token: Token, system: Token | None, centre: list[_Literal], radius: _Literal) -> Any:
        return self.circle(token, system, *centre, radius)

    def contains(self, token: Token, point: tuple[str, str], circle: tuple[float, float, float]) -> q.Query:
        return q.Cone(point, circle[:2], circle[2])

    def cone(self, condition: q.Query, operator: Token, number: _Literal) -> q.Query:
        if operator not in ("=", "!=", "<>") or isinstance(number.value, bool) or number.value not in (0, 1):
            raise UsageError("CONTAINS is compared with 1 or 0", where=_at(operator), remedy="CONTAINS(…) = 1")
        return condition if (operator == "=") == (number.value == 1) else q.Not(condition)

    def cone_turned(self, number: _Literal, operator: Token, condition: q.Query) -> q.Query:
        return self.cone(condition, operator, number)

    def _named(self, name: Token) -> Attribute:
        attribute = self._columns.get(str(name))
        if attribute is None:
            raise UsageError(
                f"there is no column '{excerpt(name)}' in {self._table}",
                where=_at(name),
                nearest=nearest_word(str(name)[:100], self._columns),
            )
        return attribute


def _typed(attribute: Attribute, literal: _Literal) -> Scalar:
    """Give a literal the type of a column."""
    value = literal.value
    try:
        match attribute.type:
            case "string" if isinstance(value, str):
                return value
            case "boolean" if isinstance(value, bool) or value in (0, 1):
                return bool(value)
            case "integer" | "number" if isinstance(value, int | float) and not isinstance(value, bool):
                if attribute.type == "integer" and abs(value) >= _LARGEST:
                    raise UsageError("a number is too large", where=_at(literal.token))
                return value if attribute.type == "integer" else float(value)
            case "date" if isinstance(value, str):
                return date.fromisoformat(value)
            case "time" if isinstance(value, str):
                return moment_of(value)
    except (ValueError, OverflowError):
        pass
    examples = {
        "string": "text in single quotes",
        "boolean": "1 or 0",
        "date": "'2017-10-28'",
        "time": "'2017-10-28T20:15:00'",
    }
    raise UsageError(
        f"'{attribute.name}' is {with_article(attribute.type)}, which {excerpt(str(value))!r} is not",
        where=_at(literal.token),
        remedy=f"write {examples.get(attribute.type, 'a number')}",
    )

"""Conditions from the parse tree of a language to the query tree: what the query language and ADQL have in common."""
# ruff: noqa: D102  (methods are the rules of the grammars)

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar

from lark import Token, Transformer, Tree, v_args
from lark.exceptions import VisitError

from apbatch.errors import ApbatchError, UsageError
from apbatch.formats.reader import Attribute, Scalar
from apbatch.index import query as q
from apbatch.messages import with_article

#: SQLite nests one level for each `or`; a longer list of values is what `in` is for.
_MOST_CONDITIONS = 500
_LONGEST_PATTERN = 1000
Literal = TypeVar("Literal")
Result = TypeVar("Result")


@v_args(inline=True)
class ConditionTransformer(Transformer, ABC, Generic[Literal, Result]):  # type: ignore[misc]  # lark has no types
    """Makes the query tree of conditions: rules of the grammar are methods, called from the leaves upwards.

    A language says what its names, values and patterns are, and how it writes a place in the text.
    """

    #: Values in one list.
    MOST_VALUES: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self._conditions = 0

    def result(self, tree: Tree[Token]) -> Result:
        """Return what a tree stands for.

        Raises
        ------
        UsageError
            With the place in the text.
        """
        try:
            result: Result = self.transform(tree)
        except VisitError as error:
            if isinstance(error.orig_exc, ApbatchError):
                raise error.orig_exc from None
            raise
        return result

    @abstractmethod
    def _named(self, name: Token) -> Attribute: ...

    @abstractmethod
    def _typed(self, attribute: Attribute, value: Literal) -> Scalar: ...

    @abstractmethod
    def _pattern(self, token: Token) -> str:
        """Return a pattern without its quotes, with the escapes of the query tree."""

    @abstractmethod
    def _at(self, token: Token) -> str:
        """Return the place of a token in words."""

    def _attribute(self, name: Token) -> Attribute:
        """Return the attribute of one more condition."""
        self._conditions += 1
        if self._conditions > _MOST_CONDITIONS:
            raise UsageError(
                f"more than {_MOST_CONDITIONS} conditions", where=self._at(name), remedy="use 'in (…)' for many values"
            )
        return self._named(name)

    def _angle(self, name: Token) -> Attribute:
        attribute = self._attribute(name)
        if attribute.type != "number" or attribute.unit != "deg":
            raise UsageError(f"'{attribute.name}' is not an angle in degrees", where=self._at(name))
        return attribute

    def disjunction(self, *parts: q.Query) -> q.Query:
        return parts[0] if len(parts) == 1 else q.Or(parts)

    def conjunction(self, *parts: q.Query) -> q.Query:
        return parts[0] if len(parts) == 1 else q.And(parts)

    def negation(self, part: q.Query) -> q.Query:
        return q.Not(part)

    def compare(self, name: Token, operator: Token, value: Literal) -> q.Query:
        """Return the comparison of an attribute with a value.

        Parameters
        ----------
        name, operator : lark.Token
        value : Literal
            As the language reads it.

        Raises
        ------
        UsageError
            If there is no such attribute, or the value is of another type.
        """
        attribute = self._attribute(name)
        sign: Any = {"==": "=", "<>": "!="}.get(str(operator), str(operator))
        if attribute.type == "boolean" and sign not in ("=", "!="):
            raise UsageError(f"'{attribute.name}' is true or false: it has no order", where=self._at(operator))
        return self._comparison(attribute, sign, value)

    def _comparison(self, attribute: Attribute, sign: Any, value: Literal) -> q.Query:
        return q.Compare(attribute.name, sign, self._typed(attribute, value))

    def between(self, name: Token, low: Literal, high: Literal) -> q.Query:
        """Return the condition that an attribute lies between two values, both included.

        Parameters
        ----------
        name : lark.Token
        low, high : Literal
            As the language reads them.
        """
        attribute = self._attribute(name)
        return q.Between(attribute.name, self._typed(attribute, low), self._typed(attribute, high))

    def not_between(self, name: Token, low: Literal, high: Literal) -> q.Query:
        """Return the opposite; see `ConditionTransformer.between`."""
        return q.Not(self.between(name, low, high))

    def contained(self, name: Token, *values: Literal) -> q.Query:
        attribute = self._attribute(name)
        if len(values) > self.MOST_VALUES:
            raise UsageError(f"{len(values)} values are too many (at most {self.MOST_VALUES})", where=self._at(name))
        return q.In(attribute.name, tuple(self._typed(attribute, value) for value in values))

    def not_contained(self, name: Token, *values: Literal) -> q.Query:
        return q.Not(self.contained(name, *values))

    def like(self, name: Token, pattern: Token) -> q.Query:
        attribute = self._attribute(name)
        if attribute.type != "string":
            raise UsageError(
                f"'like' is for text, and '{attribute.name}' is {with_article(attribute.type)}", where=self._at(name)
            )
        text = self._pattern(pattern)
        if len(text) > _LONGEST_PATTERN:
            raise UsageError(
                f"a pattern of {len(text)} characters is too long (at most {_LONGEST_PATTERN})", where=self._at(pattern)
            )
        return q.Like(attribute.name, text)

    def not_like(self, name: Token, pattern: Token) -> q.Query:
        return q.Not(self.like(name, pattern))

    def is_null(self, name: Token) -> q.Query:
        return q.IsNull(self._attribute(name).name)

    def is_not_null(self, name: Token) -> q.Query:
        return q.Not(self.is_null(name))


def moment_of(text: str) -> datetime:
    """Return a time in UTC, which it is in if it does not say.

    Raises
    ------
    ValueError
        If the text is no time.
    """
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

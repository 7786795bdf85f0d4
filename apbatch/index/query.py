"""The query language, the same everywhere: parsed once to a small tree, compiled by each back-end.

``experiment = 'TAIGA' and zenith < 30 deg and night between 2017-10-01 and 2017-11-01 and path like '/taiga/raw/%'``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from apbatch.formats.reader import Attribute, Scalar

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


Query = Compare | Between | In | Like | IsNull | Not | And | Or | Everything


def parse(text: str, attributes: Mapping[str, Attribute]) -> Query:
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
        With the place in the text and the nearest known attribute or keyword.
    """
    raise NotImplementedError

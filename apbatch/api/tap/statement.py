"""A checked ADQL statement: which table, which columns or counts, under which condition, in which order."""

from __future__ import annotations

from dataclasses import dataclass

from apbatch.index.query import Query


@dataclass(frozen=True, slots=True)
class Count:
    """``COUNT(*)``, or ``COUNT(column)``: the rows in which the column has a value.

    Attributes
    ----------
    column : str, optional
        None for all rows.
    """

    column: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One column of the result.

    Attributes
    ----------
    what : str or Count
        A column of the table, or a number of rows.
    label : str
        Its name in the result; no two are the same.
    """

    what: str | Count
    label: str


@dataclass(frozen=True, slots=True)
class Key:
    """One column by which the result is ordered."""

    what: str | Count
    descending: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement whose names are those of the table, and whose values have the types of its columns.

    Attributes
    ----------
    table : str
        Full name, in lower case.
    items : tuple of Item
    where : Query
    groups : tuple of str
        Columns whose values tell the groups apart.
    order : tuple of Key
    top : int, optional
        At most so many rows.
    """

    table: str
    items: tuple[Item, ...]
    where: Query
    groups: tuple[str, ...]
    order: tuple[Key, ...]
    top: int | None

    @property
    def is_grouped(self) -> bool:
        """Whether a row of the result stands for several rows of the table."""
        return bool(self.groups) or any(isinstance(item.what, Count) for item in self.items)

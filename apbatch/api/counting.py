"""Numbers of rows by the values of columns, of as many values as an answer can hold."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, TypeVar

import pyarrow as pa

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.query import Query

#: Values, or groups of values, of an answer.
MOST_VALUES = 200_000
#: Attributes besides numbers and times that may have as many values as there are rows.
_MANY_VALUED = frozenset(
    {"access_estsize", "access_url", "adler32", "checksum", "content", "event", "file", "mtime_ns", "nanoseconds",
     "obs_id", "obs_publisher_did", "path", "place", "reason", "revision", "size", "source"}
)  # fmt: skip
Key = TypeVar("Key", bound=Hashable)


def is_many_valued(attribute: Attribute) -> bool:
    """Tell whether an attribute may have as many values as rows: counted as they come, until they are too many."""
    return attribute.type in ("number", "time") or attribute.name in _MANY_VALUED


def counts_by(
    attribute: Attribute,
    where: Query,
    count: Callable[[Query, str], dict[Any, int]],
    batches: Callable[[Query, list[str]], Iterable[pa.RecordBatch]],
) -> dict[Any, int]:
    """Return the number of files or events that match by the values of an attribute.

    Parameters
    ----------
    attribute : Attribute
    where : Query
    count, batches : callable
        Methods of a guard: they count by an attribute of few values, and give the values of one of many.

    Raises
    ------
    UsageError
        If there are more than `MOST_VALUES` values.
    """
    name = attribute.name
    if not is_many_valued(attribute):
        return few(count(where, name), "by")
    return {key[0]: number for key, number in counts_of(batches(where, [name]), (name,), "by").items()}


def counts_of(batches: Iterable[pa.RecordBatch], columns: tuple[str, ...], where: str) -> dict[tuple[Any, ...], int]:
    """Count the rows of batches by the values of columns, as they come.

    Parameters
    ----------
    batches : iterable of RecordBatch
    columns : tuple of str
    where : str
        The argument that the error names.

    Raises
    ------
    UsageError
        As soon as there are more than `MOST_VALUES` groups.
    """
    counts: dict[tuple[Any, ...], int] = {}
    for key, number in _partial(batches, columns):
        counts[key] = counts.get(key, 0) + number
        few(counts, where)
    return counts


def _partial(batches: Iterable[pa.RecordBatch], columns: tuple[str, ...]) -> Iterator[tuple[tuple[Any, ...], int]]:
    for batch in batches:
        rows = pa.Table.from_batches([batch.select(list(columns)).replace_schema_metadata(None)])
        for row in rows.group_by(list(columns)).aggregate([([], "count_all")]).to_pylist():
            yield tuple(row[name] for name in columns), row["count_all"]


def few(counts: dict[Key, int], where: str) -> dict[Key, int]:
    """Return counts that an answer can hold.

    Parameters
    ----------
    counts : dict
    where : str
        The argument that the error names.

    Raises
    ------
    UsageError
        If there are more than `MOST_VALUES`.
    """
    if len(counts) > MOST_VALUES:
        raise UsageError(f"more than {MOST_VALUES} values", where=where, remedy="narrow the query")
    return counts

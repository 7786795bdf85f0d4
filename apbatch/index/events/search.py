"""A query of events as SQL over Parquet parts: which are opened, and in which order they give the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.events.conditions import Dialect, Sql, after_row, condition
from apbatch.index.events.manifest import Part

if TYPE_CHECKING:
    from apbatch.index.events.duck import Duck

#: How DuckDB writes conditions.
DIALECT = Dialect(member="{column} = ANY({mark})")
#: Values that one query sorts; what comes in the order of keys anyhow is asked for in stretches of about so many.
_STRETCH = 24_000_000
_TYPES = {"string": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN", "date": "DATE",
          "time": "TIMESTAMPTZ"}  # fmt: skip


def stretches(parts: Sequence[Part], columns: int) -> list[list[Part]]:
    """Group parts so that every key of a group comes before those of the next; parts in a group may overlap.

    Parameters
    ----------
    parts : sequence of Part
    columns : int
        How many are read.
    """
    groups: list[list[Part]] = []
    end: tuple[Any, ...] = ()
    for part in sorted(parts, key=lambda part: (part.experiment, part.first)):
        begin, last = (part.experiment, part.first), (part.experiment, part.last)
        if groups and (begin <= end or columns * (part.rows + sum(one.rows for one in groups[-1])) <= _STRETCH):
            groups[-1].append(part)
            end = max(end, last)
        else:
            groups.append([part])
            end = last
    return groups


def source(duck: Duck, parts: Iterable[Part], columns: Sequence[str], attributes: Mapping[str, Attribute]) -> str:
    """Return the SQL of these columns of parts; null where a part has no such column.

    Parameters
    ----------
    duck : Duck
        Knows how files of the store are named.
    parts : iterable of Part
    columns : sequence of str
    attributes : Mapping of str to Attribute
        Types of the columns.
    """
    alike: dict[tuple[str, ...], list[Part]] = {}
    for part in parts:
        alike.setdefault(tuple(name for name in columns if name in part.ranges), []).append(part)
    selects = []
    for there, group in alike.items():
        names = [
            DIALECT.name(name)
            if name in there
            else f"CAST(NULL AS {_TYPES[attributes[name].type]}) AS {DIALECT.name(name)}"
            for name in columns
        ]
        selects.append(f"SELECT {', '.join(names)} FROM {files(duck, group)}")
    if not selects:
        nulls = (f"CAST(NULL AS {_TYPES[attributes[name].type]}) AS {DIALECT.name(name)}" for name in columns)
        return f"SELECT {', '.join(nulls)} WHERE FALSE"
    return " UNION ALL ".join(selects)


def files(duck: Duck, parts: Iterable[Part]) -> str:
    """Return the SQL of a table of parts' files."""
    places = ", ".join(literal(duck.place(part.file)) for part in parts)
    return f"read_parquet([{places}], hive_partitioning = false, binary_as_string = false)"


def statement(
    duck: Duck,
    parts: Sequence[Part],
    where: q.Query,
    attributes: Mapping[str, Attribute],
    columns: Sequence[str],
    *,
    order: tuple[Sequence[str], Sequence[bool]],
    limit: int | None,
    after: Sequence[Any] | None,
) -> Sql:
    """Return the SQL that gives events of parts.

    Parameters
    ----------
    duck : Duck
        Knows how files of the store are named.
    parts : sequence of Part
    where : Query
    attributes : Mapping of str to Attribute
        What a query may name.
    limit : int, optional
        Rows at most.
    after : sequence, optional
        Values of the columns of the order in the row after which to go on.
    columns : sequence of str
        Of the result.
    order : (sequence of str, sequence of bool)
        Columns that order it completely, and which descend.
    """
    names, descending = order
    needed = list(dict.fromkeys([*columns, *names, *sorted(q.names(where))]))
    tests = condition(where, attributes, DIALECT)
    text, values = tests.text, list(tests.values)
    if after is not None:
        rest = after_row(names, descending, after, DIALECT)
        text, values = f"{text} AND {rest.text}", [*values, *rest.values]
    by = ", ".join(
        f"{DIALECT.name(name)} {'DESC NULLS LAST' if down else 'ASC NULLS FIRST'}"
        for name, down in zip(names, descending, strict=True)
    )
    listed = ", ".join(map(DIALECT.name, columns))
    sql = f"SELECT {listed} FROM ({source(duck, parts, needed, attributes)}) WHERE {text} ORDER BY {by}"
    return Sql(sql if limit is None else f"{sql} LIMIT {limit:d}", values)


def as_stored(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch of an engine with the types of stored events."""
    return pa.RecordBatch.from_arrays([batch.column(field.name).cast(field.type) for field in schema], schema=schema)


def literal(text: str) -> str:
    """Return text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"

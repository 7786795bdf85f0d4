"""The rows of a statement: as the table gives them, or grouped and counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from apbatch.api.counting import counts_of, few, is_many_valued
from apbatch.api.tap.statement import Count, Item, Statement
from apbatch.api.tap.tables import Column, Rows, Table
from apbatch.formats.reader import Attribute
from apbatch.index import query as q

_NUMBER = Column(Attribute("count", "integer", "number of rows"), "meta.number")
Groups = dict[tuple[Any, ...], int]


def answer(table: Table, statement: Statement, most: int | None = None) -> Rows:
    """Return the schema of a statement's result, and its batches, each asked for when it is wanted.

    Parameters
    ----------
    table : Table
        That which the statement names.
    statement : Statement
    most : int, optional
        Rows that are wanted at most.

    Raises
    ------
    UsageError
        If the table can't serve it.
    """
    limits = [limit for limit in (statement.top, most) if limit is not None]
    limit = min(limits) if limits else None
    if statement.is_grouped:
        return _grouped(table, statement, limit)
    names = [str(item.what) for item in statement.items]
    order = [q.Order(str(key.what), key.descending) for key in statement.order]
    source, batches = table.rows(
        list(dict.fromkeys(names)), statement.where, order, None if limit is None else max(limit, 1)
    )
    schema = pa.schema(
        [
            _field(item, table.columns, source.field(name).type)
            for item, name in zip(statement.items, names, strict=True)
        ]
    )
    if limit == 0:
        return schema, iter(())
    return schema, (
        pa.RecordBatch.from_arrays([batch.column(name) for name in names], schema=schema) for batch in batches
    )


def _field(item: Item, columns: Mapping[str, Column], kind: pa.DataType) -> pa.Field:
    column = _NUMBER if isinstance(item.what, Count) else columns[item.what]
    about = {"description": column.attribute.description, "unit": column.attribute.unit or "", "ucd": column.ucd,
             "utype": column.utype, "ascii": "yes" if column.is_ascii else ""}  # fmt: skip
    return pa.field(item.label, kind, metadata={name: text for name, text in about.items() if text})


def _grouped(table: Table, statement: Statement, limit: int | None) -> Rows:
    expressions = [item.what for item in statement.items] + [key.what for key in statement.order]
    counts = {what for what in expressions if isinstance(what, Count)}
    numbers = {count: _counts(table, _where(statement.where, count), statement.groups) for count in counts | {Count()}}
    keys = list(numbers[Count()])

    def value(group: tuple[Any, ...], what: str | Count) -> Any:
        return numbers[what].get(group, 0) if isinstance(what, Count) else group[statement.groups.index(what)]

    keys.sort(key=lambda group: [_sortable(one) for one in group])
    for one in reversed(statement.order):
        keys.sort(key=lambda group: _sortable(value(group, one.what)), reverse=one.descending)
    keys = keys[:limit]
    schema = pa.schema(
        [
            _field(item, table.columns, pa.int64() if isinstance(item.what, Count) else table.columns[item.what].kind)
            for item in statement.items
        ]
    )
    arrays = [
        pa.array([value(group, item.what) for group in keys], field.type)
        for item, field in zip(statement.items, schema, strict=True)
    ]
    return schema, iter([pa.RecordBatch.from_arrays(arrays, schema=schema)])


def _sortable(value: Any) -> tuple[bool, Any]:
    return (value is not None, 0 if value is None else value)


def _where(where: q.Query, count: Count) -> q.Query:
    return where if count.column is None else q.And((where, q.Not(q.IsNull(count.column))))


def _counts(table: Table, where: q.Query, groups: tuple[str, ...]) -> Groups:
    """Return the number of rows of each group."""
    if not groups:
        return {(): sum(table.count(where, None).values())}
    if len(groups) == 1 and not is_many_valued(table.columns[groups[0]].attribute):
        return few({(value,): number for value, number in table.count(where, groups[0]).items()}, "QUERY")
    return counts_of(table.rows(list(groups), where, (), None)[1], groups, "QUERY")

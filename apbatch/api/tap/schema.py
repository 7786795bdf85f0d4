"""TAP_SCHEMA: the tables that describe the tables, themselves included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from apbatch.api.tap.tables import Column, ForeignKey, Rows, Table
from apbatch.api.tap.votable import datatype_of, unit_of
from apbatch.api.tap.words import quoted
from apbatch.formats.reader import Attribute, AttributeType
from apbatch.index import query as q

SCHEMAS = {
    "apbatch": "files and events of all experiments",
    "ivoa": "views that the IVOA defines",
    "tap_schema": "description of the tables",
}


class _SchemaTable(Table):
    """A few rows, answered by plain evaluation."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = tables

    def _make(self) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        return list(self._make())

    def _matching(self, where: q.Query) -> list[dict[str, Any]]:
        condition = q.normalise(where)
        return [record for record in self._records if q.matches(condition, record)]

    def rows(self, columns: Sequence[str], where: q.Query, order: Sequence[q.Order], limit: int | None) -> Rows:
        """Return the rows that match."""
        records = self._matching(where)
        for key in reversed(order):
            name = key.name
            records.sort(
                key=lambda one: (one[name] is not None, "" if one[name] is None else one[name]), reverse=key.descending
            )
        schema = pa.schema([pa.field(name, self.columns[name].kind) for name in columns])
        return schema, iter([pa.RecordBatch.from_pylist(records[:limit], schema)])

    def count(self, where: q.Query, by: str | None) -> dict[Any, int]:
        """Count the rows that match."""
        counts: dict[Any, int] = {} if by else {None: 0}
        for record in self._matching(where):
            value = record[by] if by else None
            counts[value] = counts.get(value, 0) + 1
        return counts


def _described(columns: str, integers: str = "") -> dict[str, Column]:
    kinds: list[tuple[str, AttributeType, pa.DataType]] = [(name, "string", pa.string()) for name in columns.split()]
    kinds += [(name, "integer", pa.int32()) for name in integers.split()]
    return {
        name: Column(Attribute(name, kind, name.replace("_", " ")), "", "", True, True, arrow)
        for name, kind, arrow in kinds
    }


class _Schemas(_SchemaTable):
    name = "tap_schema.schemas"
    description = "schemas"
    columns = _described("schema_name utype description", "schema_index")

    def _make(self) -> Iterator[dict[str, Any]]:
        for number, name in enumerate(dict.fromkeys(table.partition(".")[0] for table in self._tables)):
            yield {"schema_name": name, "utype": None, "description": SCHEMAS.get(name), "schema_index": number}


class _Tables(_SchemaTable):
    name = "tap_schema.tables"
    description = "tables"
    columns = _described("schema_name table_name table_type utype description", "table_index")
    keys = (ForeignKey("schema_name", "tap_schema.schemas", "schema_name"),)

    def _make(self) -> Iterator[dict[str, Any]]:
        for number, (name, table) in enumerate(self._tables.items()):
            kind = "view" if table.utype else "table"
            yield {
                "schema_name": name.partition(".")[0],
                "table_name": name,
                "table_type": kind,
                "utype": table.utype,
                "description": table.description,
                "table_index": number,
            }


class _Columns(_SchemaTable):
    name = "tap_schema.columns"
    description = "columns"
    columns = _described(
        "table_name column_name datatype arraysize xtype description utype unit ucd",
        "size principal indexed std column_index",
    )
    keys = (ForeignKey("table_name", "tap_schema.tables", "table_name"),)

    def _make(self) -> Iterator[dict[str, Any]]:
        for name, table in self._tables.items():
            for number, column in enumerate(table.columns.values()):
                kind = datatype_of(column.kind, is_ascii=column.is_ascii)
                yield {
                    "table_name": name, "column_name": quoted(column.attribute.name), **kind, "size": None,
                    "description": column.attribute.description or None, "utype": column.utype or None,
                    "unit": unit_of(column.attribute.unit), "ucd": column.ucd or None, "principal": 1, "indexed": 0,
                    "std": int(column.is_standard), "column_index": number,
                }  # fmt: skip


class _Keys(_SchemaTable):
    name = "tap_schema.keys"
    description = "foreign keys"
    columns = _described("key_id from_table target_table description utype")
    keys = (
        ForeignKey("from_table", "tap_schema.tables", "table_name"),
        ForeignKey("target_table", "tap_schema.tables", "table_name"),
    )

    def _make(self) -> Iterator[dict[str, Any]]:
        for name, key in _keys_of(self._tables):
            yield {
                "key_id": f"{name}.{key.column}",
                "from_table": name,
                "target_table": key.target_table,
                "description": None,
                "utype": None,
            }


class _KeyColumns(_SchemaTable):
    name = "tap_schema.key_columns"
    description = "columns of foreign keys"
    columns = _described("key_id from_column target_column")
    keys = (ForeignKey("key_id", "tap_schema.keys", "key_id"),)

    def _make(self) -> Iterator[dict[str, Any]]:
        for name, key in _keys_of(self._tables):
            yield {"key_id": f"{name}.{key.column}", "from_column": key.column, "target_column": key.target_column}


def _keys_of(tables: Mapping[str, Table]) -> Iterator[tuple[str, ForeignKey]]:
    return ((name, key) for name, table in tables.items() for key in table.keys)


def with_schema(tables: dict[str, Table]) -> dict[str, Table]:
    """Add the tables that describe all tables, themselves included."""
    for kind in (_Schemas, _Tables, _Columns, _Keys, _KeyColumns):
        tables[kind.name] = kind(tables)
    return tables

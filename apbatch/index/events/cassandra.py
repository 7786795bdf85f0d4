"""Events in Cassandra, a column a parameter, partitioned by run: for CQL, and for jobs that read run by run.

A query names its experiments. Partitions of runs and event numbers in question are read, some at the same time, and
each row is tested. A batch of rows goes to one partition and is written at once: a killed writer leaves each of them
old or new.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cmp_to_key
from importlib.resources import files
from itertools import islice
from typing import Any

import pyarrow as pa
from cassandra.query import UNSET_VALUE, BatchStatement, BatchType

from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.attributes import known_attribute, merge_declarations
from apbatch.index.cassandra.plan import Events, plan_events
from apbatch.index.cassandra.session import ALL, CassandraSession
from apbatch.index.events.columns import (
    EVENT_COLUMNS,
    EVENT_KEYS,
    IMAGE_PARAMETERS,
    POINTER,
    canonical,
    event_attributes,
    schema_of,
    undeclared,
    wanted_columns,
)
from apbatch.index.events.conditions import simplify
from apbatch.index.events.store import EventStore, Order, compare_rows, order_of

_EVENTS_A_BUCKET = 4096
#: Cassandra warns of batches of 5 kB and refuses those of 50 kB; numbers of 8 bytes and their overhead.
_CELLS_A_BATCH = 1500
_PARTITIONS_AT_ONCE = 8
_ROWS_A_BATCH = 10_000
_TYPES = {"string": "text", "integer": "bigint", "number": "double", "boolean": "boolean", "date": "date",
          "time": "timestamp"}  # fmt: skip
_BELOW = "{}_below_ms"


class _Session(CassandraSession):
    """A keyspace with the tables of events, beside those of a catalogue or alone."""

    def _create(self, keyspace: str) -> None:
        self.make_keyspace(keyspace)
        text = re.sub(r"--.*", "", files("apbatch.index.events").joinpath("events.cql").read_text(encoding="utf-8"))
        for statement in filter(str.strip, text.split(";")):
            self.change_schema(statement)


class CassandraEvents(EventStore):
    """Events in one keyspace; the URL is that of `CassandraSession`."""

    def __init__(self, url: str) -> None:
        self._session = _Session(url)
        self._attributes: dict[str, Attribute] = {}

    # columns

    def declare(self, attributes: Iterable[Attribute]) -> None:
        """Make columns of events known; each becomes a column of the table before it can be named."""
        fresh = merge_declarations(self.attributes(), attributes).values()
        self._add_columns(fresh)
        for a in fresh:
            self._session.do(
                "INSERT INTO event_column (store, name, type, unit, description) VALUES (?, ?, ?, ?, ?)",
                ALL,
                a.name,
                a.type,
                a.unit,
                a.description,
            )

    def _add_columns(self, attributes: Iterable[Attribute]) -> None:
        columns = []
        for attribute in attributes:
            columns.append(f'"{attribute.name}" {_TYPES[attribute.type]}')
            if attribute.type == "time":
                columns.append(f'"{_BELOW.format(attribute.name)}" int')
        if columns:
            self._session.change_schema(f"ALTER TABLE event_of_run ADD IF NOT EXISTS ({', '.join(columns)})")

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query of events may name."""
        return event_attributes(self._declared().values())

    def _declared(self) -> dict[str, Attribute]:
        rows = self._session.run("SELECT * FROM event_column WHERE store = ?", ALL)
        return {row["name"]: Attribute(row["name"], row["type"], row["description"], row["unit"]) for row in rows}

    # writing

    def upsert(self, events: pa.RecordBatch | Iterable[pa.RecordBatch]) -> int:
        """Insert or replace whole events, in batches of one partition each; the events of a batch appear together."""
        batches = [events] if isinstance(events, pa.RecordBatch) else events
        tables = []
        count = 0
        attributes = dict(self.attributes())
        for batch in batches:
            new = merge_declarations(attributes, undeclared(batch.schema, attributes))
            tables.append(canonical(batch, {**attributes, **new}))
            attributes.update(new)
            count += batch.num_rows
            if sum(table.num_rows for table in tables) >= _ROWS_A_BATCH:
                self._write(tables, attributes)
                tables = []
        self._write(tables, attributes)
        return count

    def _write(self, tables: Sequence[pa.Table], attributes: Mapping[str, Attribute]) -> None:
        declared = self._declared()
        names_given = {name for table in tables for name in table.schema.names}
        names = sorted(names_given - set(EVENT_COLUMNS) - set(declared))
        self.declare(attributes[name] for name in names if name not in IMAGE_PARAMETERS)
        images = [IMAGE_PARAMETERS[name] for name in names if name in IMAGE_PARAMETERS]
        self._add_columns(images)
        for a in images:  # so that it is known which of them are columns
            self._session.do(
                "INSERT INTO event_column (store, name, type, unit, description) VALUES (?, ?, ?, ?, ?)",
                ALL,
                a.name,
                a.type,
                a.unit,
                a.description,
            )
        columns = self._columns()
        rows: defaultdict[tuple[str, int, int], dict[tuple[Any, ...], dict[str, Any]]] = defaultdict(dict)
        for table in tables:
            for row in table.to_pylist():
                partition = (row["experiment"], row["run"], row["event"] // _EVENTS_A_BUCKET)
                rows[partition][row["event"], row["telescope"], row["cleaning"]] = row
        there = self._buckets({experiment for experiment, _, _ in rows})
        enter = self._session.prepare("INSERT INTO event_run (experiment, run, bucket) VALUES (?, ?, ?)")
        self._session.write([(enter, key) for key in sorted(rows) if key not in there])
        cells = ["experiment", "run", "bucket", "event", "telescope", "cleaning", *_cells(columns, attributes)]
        insert = self._session.prepare(
            f"INSERT INTO event_of_run ({', '.join(_quoted(cells))}) VALUES ({', '.join('?' * len(cells))})"
        )
        step = max(1, _CELLS_A_BATCH // len(cells))
        work: list[tuple[Any, Any]] = []
        for partition, events in rows.items():
            missing = None if partition in there else UNSET_VALUE  # nothing to overwrite: a null is a tombstone
            values = iter(events.values())
            while part := list(islice(values, step)):
                batch = BatchStatement(BatchType.UNLOGGED)
                for row in part:
                    batch.add(insert, [*partition, *_values(row, columns, attributes, missing)])
                work.append((batch, ()))
        self._session.write(work)

    def _columns(self) -> list[str]:
        """Return the columns of the table beyond the key."""
        return [*(name for name in EVENT_COLUMNS if name not in EVENT_KEYS), *sorted(self._declared())]

    def _buckets(self, experiments: Iterable[str]) -> set[tuple[str, int, int]]:
        buckets = set()
        for experiment in experiments:
            rows = self._session.run("SELECT run, bucket FROM event_run WHERE experiment = ?", experiment)
            buckets |= {(experiment, row["run"], row["bucket"]) for row in rows}
        return buckets

    def remove(self, where: q.Query) -> int:
        """Forget the events that match."""
        delete = self._session.prepare(
            "DELETE FROM event_of_run WHERE experiment = ? AND run = ? AND bucket = ? AND event = ? AND telescope = ? "
            "AND cleaning = ?"
        )
        removed = 0
        for rows in self._matching(where, set(EVENT_KEYS)):
            keys = [
                (
                    row["experiment"],
                    row["run"],
                    row["event"] // _EVENTS_A_BUCKET,
                    row["event"],
                    row["telescope"],
                    row["cleaning"],
                )
                for row in rows
            ]
            self._session.write([(delete, key) for key in keys])
            removed += len(keys)
        return removed

    # reading

    def select(
        self,
        where: q.Query = q.Everything(),
        columns: Sequence[str] | None = None,
        *,
        order: Sequence[Order] = (),
        limit: int | None = None,
        after: Sequence[Any] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield events that match; in another order than that of their keys, a limit is what is held in memory."""
        attributes = self.attributes()
        names, descending = order_of(order, attributes)
        there = set(self._columns())
        fields = wanted_columns(columns, there, attributes)
        schema = schema_of(fields, attributes)
        last = None if after is None else dict(zip([*(one.name for one in order), *EVENT_KEYS], after, strict=True))

        def compared(one: dict[str, Any], other: dict[str, Any]) -> int:
            return compare_rows(one, other, names, descending)

        compare = cmp_to_key(compared)

        def rows() -> Iterator[dict[str, Any]]:
            for part in self._matching(where, {*fields, *names}):
                for row in part:
                    if last is None or compare_rows(row, last, names, descending) > 0:
                        yield row

        if order:
            matches = iter(
                sorted(rows(), key=compare) if limit is None else heapq.nsmallest(limit, rows(), key=compare)
            )
        else:
            matches = islice(rows(), limit)
        while part := list(islice(matches, _ROWS_A_BATCH)):
            yield pa.RecordBatch.from_pydict({name: [row.get(name) for row in part] for name in fields}, schema=schema)

    def _matching(self, where: q.Query, fields: set[str]) -> Iterator[list[dict[str, Any]]]:
        """Yield the events of each partition that match, by key."""
        attributes = self.attributes()
        query = simplify(where, attributes)
        access = plan_events(query)
        columns = set(self._columns())
        needed = [name for name in sorted({*EVENT_KEYS, *fields, *q.names(query)}) if name in columns | set(EVENT_KEYS)]
        cells = ["experiment", "run", "event", "telescope", "cleaning"]
        cells += _cells([name for name in needed if name not in EVENT_KEYS], attributes)
        low, high = (max(-(2**63), min(2**63 - 1, bound)) for bound in access.events)
        read = self._session.prepare(
            f"SELECT {', '.join(_quoted(cells))} FROM event_of_run "
            f"WHERE experiment = ? AND run = ? AND bucket = ? AND event >= ? AND event <= ?"
        )
        partitions, holds = self._partitions(access), q.predicate(query)
        while part := list(islice(partitions, _PARTITIONS_AT_ONCE)):
            for rows in self._session.concurrently([(read, (*key, int(low), int(high))) for key in part]):
                matching = [row for row in (_event(row, attributes) for row in rows) if holds(row)]
                if matching:
                    yield matching

    def _partitions(self, access: Events) -> Iterator[tuple[str, int, int]]:
        for experiment in access.experiments:
            for row in self._session.run("SELECT run, bucket FROM event_run WHERE experiment = ?", experiment):
                first = row["bucket"] * _EVENTS_A_BUCKET
                if access.holds(row["run"], first, first + _EVENTS_A_BUCKET - 1):
                    yield experiment, row["run"], row["bucket"]

    def count(self, where: q.Query = q.Everything(), by: str | None = None) -> dict[Any, int]:
        """Count the events that match, by the values of attribute `by`; rows stream past, none is kept."""
        if by is None:
            return {None: sum(len(rows) for rows in self._matching(where, set()))}
        known_attribute(by, self.attributes())
        counts: Counter[Any] = Counter()
        for rows in self._matching(where, {by}):
            counts.update(row.get(by) for row in rows)
        return dict(sorted(counts.items(), key=lambda item: (item[0] is not None, item[0])))

    def explain(self, where: q.Query) -> str:
        """Return which partitions are read."""
        query = simplify(where, self.attributes())
        access = plan_events(query)
        number = sum(1 for _ in self._partitions(access))
        experiments = ", ".join(access.experiments)
        return (
            f"event_of_run: {number} partitions of {_EVENTS_A_BUCKET} event numbers each, of {experiments}\n"
            f"each row read is tested: {q.written(query)}"
        )

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _quoted(names: Iterable[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _cells(columns: Iterable[str], attributes: Mapping[str, Attribute]) -> list[str]:
    """Return the columns of the table that hold these columns of events."""
    cells = []
    for name in columns:
        cells.append(name)
        if attributes[name].type == "time":
            cells.append(_BELOW.format(name))
    return cells


def _values(
    row: Mapping[str, Any], columns: Iterable[str], attributes: Mapping[str, Attribute], missing: object
) -> Iterator[Any]:
    yield from (row["event"], row["telescope"], row["cleaning"])
    for name in columns:
        value = row.get(name)
        if attributes[name].type != "time":
            yield missing if value is None else value
        elif value is None:
            yield missing
            yield missing
        else:
            yield value.replace(microsecond=value.microsecond // 1000 * 1000)
            yield value.microsecond % 1000


def _event(row: Mapping[str, Any], attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    """Return a row of the table as an event."""
    event: dict[str, Any] = {}
    for name, value in row.items():
        attribute = attributes.get(name)
        if attribute is None:
            continue
        if value is not None and attribute.type == "date":
            value = value.date()
        elif isinstance(value, datetime):
            below = row.get(_BELOW.format(name)) or 0
            value = value.replace(tzinfo=UTC) + timedelta(microseconds=below)
        event[name] = value
    return event


class _OldSession(CassandraSession):
    """A keyspace as it is; nothing is made."""

    def _create(self, keyspace: str) -> None:
        self.use_keyspace(keyspace)


class OldEvents:
    """The events of a catalogue's keyspace as older versions wrote them: a map of parameters a row."""

    def __init__(self, url: str) -> None:
        self._session = _OldSession(url)
        self._there = self._session.has_table("event_by_run")

    def rows(self) -> Iterator[tuple[dict[str, Any], dict[str, float]]]:
        """Yield key and pointer, and the parameters, of each event."""
        if self._there:
            for row in self._session.run("SELECT * FROM event_by_run"):
                yield {name: row.get(name) for name in (*EVENT_KEYS, *POINTER)}, dict(row["parameters"] or {})

    def drop(self) -> None:
        """Forget them."""
        if self._there:
            for name in ("event_by_run", "event_bucket", "event_parameter"):
                self._session.change_schema(f"DROP TABLE IF EXISTS {name}")

    def __enter__(self) -> OldEvents:
        return self

    def __exit__(self, *exception: object) -> None:
        self._session.close()

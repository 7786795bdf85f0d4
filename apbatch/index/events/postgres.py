"""Events in PostgreSQL: one table, a partition an experiment, a column a parameter.

Events are copied into a table of the session and then written by key in the same transaction, so that all events of a
call appear together or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.attributes import known_attribute, merge_declarations
from apbatch.index.events.columns import (
    EVENT_COLUMNS,
    EVENT_KEYS,
    canonical,
    chunks_of,
    event_attributes,
    schema_of,
    undeclared,
    wanted_columns,
)
from apbatch.index.events.conditions import Dialect, after_row, condition, simplify
from apbatch.index.events.store import EventStore, Order, order_of
from apbatch.index.sql.database import Session
from apbatch.index.sql.postgres import PostgresDatabase

#: A schema of its own: a catalogue may be in the same database.
_SCHEMA = "apbatch_events"
_EVENT = f"{_SCHEMA}.event"
_VERSION = 1
_ROWS, _BYTES = 20_000, 32 << 20
_PAGE = 10_000
_TYPES = {
    "string": 'text COLLATE "C"',
    "integer": "bigint",
    "number": "float8",
    "boolean": "boolean",
    "date": "date",
    "time": "timestamptz",
}
_DIALECT = Dialect(member="{column} = ANY({mark})")
_KEY = ", ".join(_DIALECT.name(name) for name in EVENT_KEYS)


def _type(attribute: Attribute) -> str:
    return "integer" if attribute.name == "telescope" else _TYPES[attribute.type]


class PostgresEvents(EventStore):
    """Events in one database: ``postgresql://USER@HOST:PORT/DATABASE``."""

    def __init__(self, url: str) -> None:
        self._db = PostgresDatabase(url)
        if not urlsplit(url).path.strip("/"):
            raise UsageError("the URL names no database", where=self._db.address, remedy="postgresql://…/DATABASE")
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.create()
        with self._db.write() as session:
            session.run(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}")
            session.run(f"CREATE TABLE IF NOT EXISTS {_SCHEMA}.version (number bigint NOT NULL)")
            version = session.rows(f"SELECT number FROM {_SCHEMA}.version")
            if not version:
                columns = ", ".join(
                    f"{_DIALECT.name(name)} {_type(attribute)}{' NOT NULL' if name in EVENT_KEYS else ''}"
                    for name, attribute in EVENT_COLUMNS.items()
                )
                for statement in (
                    f"CREATE TABLE {_EVENT} ({columns}, PRIMARY KEY ({_KEY})) PARTITION BY LIST (experiment)",
                    f"CREATE INDEX event_by_night ON {_EVENT} (experiment, night)",
                    f"CREATE INDEX event_by_content ON {_EVENT} (experiment, content)",
                    f"CREATE TABLE {_SCHEMA}.partition (number bigserial PRIMARY KEY, experiment text UNIQUE NOT NULL)",
                    f"CREATE TABLE {_SCHEMA}.event_column (name text PRIMARY KEY, type text NOT NULL, "
                    "description text NOT NULL, unit text)",
                    f"INSERT INTO {_SCHEMA}.version VALUES ({_VERSION})",
                ):
                    session.run(statement)
            elif version[0][0] != _VERSION:
                raise UsageError(
                    f"these events have schema {version[0][0]}, this program knows {_VERSION}",
                    where=self._db.address,
                    remedy="use the apbatch that wrote it, or a newer one",
                )

    # columns

    def declare(self, attributes: Iterable[Attribute]) -> None:
        """Make columns of events known."""
        with self._db.write() as session:
            declared = event_attributes(self._declared(session).values())
            self._add(session, merge_declarations(declared, attributes).values())

    def _add(self, session: Session, attributes: Iterable[Attribute]) -> None:
        for a in attributes:
            session.run(f"ALTER TABLE {_EVENT} ADD COLUMN IF NOT EXISTS {_DIALECT.name(a.name)} {_type(a)}")
            session.run(
                f"INSERT INTO {_SCHEMA}.event_column VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (a.name, a.type, a.description, a.unit),
            )

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query of events may name."""
        with self._db.read() as session:
            return event_attributes(self._declared(session).values())

    def _declared(self, session: Session) -> dict[str, Attribute]:
        """Return the columns of the table beyond those of every event."""
        rows = session.rows(f"SELECT name, type, description, unit FROM {_SCHEMA}.event_column ORDER BY name")
        return {row[0]: Attribute(*row) for row in rows}

    # writing

    def upsert(self, events: pa.RecordBatch | Iterable[pa.RecordBatch]) -> int:
        """Insert or replace whole events by key; one transaction."""
        batches = [events] if isinstance(events, pa.RecordBatch) else events
        count = 0
        with self._db.write() as session:
            there = self._declared(session)
            attributes = event_attributes(there.values())

            def checked() -> Iterator[pa.Table]:
                for batch in batches:
                    new = merge_declarations(attributes, undeclared(batch.schema, attributes))
                    stored = canonical(batch, {**attributes, **new})
                    attributes.update(new)
                    yield stored

            for table in chunks_of(checked(), _ROWS, _BYTES):
                count += table.num_rows
                fresh = [
                    attributes[name] for name in table.schema.names if name not in EVENT_COLUMNS and name not in there
                ]
                self._add(session, fresh)
                there |= {attribute.name: attribute for attribute in fresh}
                if table.num_rows:
                    self._write(session, table, [*EVENT_COLUMNS, *there])
        return count

    def _write(self, session: Session, table: pa.Table, columns: Sequence[str]) -> None:
        for experiment in table.column("experiment").unique().to_pylist():
            self._make_partition(session, experiment)
        session.run("DROP TABLE IF EXISTS incoming")
        session.run(f"CREATE TEMPORARY TABLE incoming (LIKE {_EVENT}, place bigint) ON COMMIT DROP")
        rows = zip(*(table.column(name).to_pylist() for name in table.schema.names), range(len(table)), strict=True)
        session.load("incoming", [*table.schema.names, "place"], list(rows))
        names = ", ".join(map(_DIALECT.name, columns))
        renewed = ", ".join(
            f"{_DIALECT.name(name)} = excluded.{_DIALECT.name(name)}" for name in columns if name not in EVENT_KEYS
        )
        session.run(
            f"INSERT INTO {_EVENT} ({names}) SELECT DISTINCT ON ({_KEY}) {names} FROM incoming "
            f"ORDER BY {_KEY}, place DESC ON CONFLICT ({_KEY}) DO UPDATE SET {renewed}"
        )

    def _make_partition(self, session: Session, experiment: str) -> None:
        if session.rows(f"SELECT number FROM {_SCHEMA}.partition WHERE experiment = ?", (experiment,)):
            return
        ((number,),) = session.rows(
            f"INSERT INTO {_SCHEMA}.partition (experiment) VALUES (?) RETURNING number", (experiment,)
        )
        # A statement that makes a table takes no bound values.
        literal = "".join(char if char.isascii() and char.isalnum() else f"\\+{ord(char):06x}" for char in experiment)
        session.run(f"CREATE TABLE {_SCHEMA}.event_{number} PARTITION OF {_EVENT} FOR VALUES IN (U&'{literal}')")

    def remove(self, where: q.Query) -> int:
        """Forget the events that match."""
        with self._db.write() as session:
            attributes = event_attributes(self._declared(session).values())
            tests = self._tests(session, where, attributes)
            return session.run(f"DELETE FROM {_EVENT} WHERE {tests[0]}", tests[1])

    # reading

    def _tests(self, session: Session, where: q.Query, attributes: Mapping[str, Attribute]) -> tuple[str, list[Any]]:
        """Return the SQL of a query; columns that the table has not are null."""
        there = {*EVENT_COLUMNS, *self._declared(session)}
        tests = condition(where, attributes, _DIALECT)
        text = tests.text
        for name in sorted(q.names(simplify(where, attributes)) - there):
            text = text.replace(_DIALECT.name(name), f"CAST(NULL AS {_type(attributes[name])})")
        return text, tests.values

    def select(
        self,
        where: q.Query = q.Everything(),
        columns: Sequence[str] | None = None,
        *,
        order: Sequence[Order] = (),
        limit: int | None = None,
        after: Sequence[Any] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield events that match, as of one moment, page by page."""
        with self._db.read() as session:
            declared = self._declared(session)
            attributes = event_attributes(declared.values())
            there = {*EVENT_COLUMNS, *declared}
            names, descending = order_of(order, attributes)
            schema = schema_of(wanted_columns(columns, there, attributes), attributes)
            read = list(dict.fromkeys([*schema.names, *names]))
            text, values = self._tests(session, where, attributes)
            listed = ", ".join(
                _DIALECT.name(name) if name in there else f"CAST(NULL AS {_type(attributes[name])})" for name in read
            )
            by = ", ".join(
                f"{_DIALECT.name(name)} {'DESC NULLS LAST' if down else 'ASC NULLS FIRST'}"
                for name, down in zip(names, descending, strict=True)
                if name in there
            )
            key_names = [*(one.name for one in order), *EVENT_KEYS]
            last = None if after is None else [dict(zip(key_names, after, strict=True))[name] for name in names]
            while limit is None or limit > 0:
                size = _PAGE if limit is None else min(_PAGE, limit)
                rest, bound = self._after(names, descending, last)
                rows = session.rows(
                    f"SELECT {listed} FROM {_EVENT} WHERE {text}{rest} ORDER BY {by} LIMIT {size}", [*values, *bound]
                )
                if not rows:
                    return
                last = [rows[-1][read.index(name)] for name in names]
                limit = None if limit is None else limit - len(rows)
                arrays = zip(*rows, strict=True)
                yield pa.RecordBatch.from_arrays(
                    [pa.array(list(array), field.type) for array, field in zip(arrays, schema, strict=False)],
                    schema=schema,
                )
                if len(rows) < size:
                    return

    @staticmethod
    def _after(names: Sequence[str], descending: Sequence[bool], last: Sequence[Any] | None) -> tuple[str, list[Any]]:
        if last is None:
            return "", []
        if list(names) == list(EVENT_KEYS) and not any(descending):  # as the index of the key can search
            return f" AND ({_KEY}) > ({', '.join('?' * len(names))})", list(last)
        rest = after_row(names, descending, last, _DIALECT)
        return f" AND {rest.text}", rest.values

    def count(self, where: q.Query = q.Everything(), by: str | None = None) -> dict[Any, int]:
        """Count the events that match, by the values of attribute `by`."""
        with self._db.read() as session:
            declared = self._declared(session)
            attributes = event_attributes(declared.values())
            text, values = self._tests(session, where, attributes)
            if by is None:
                ((number,),) = session.rows(f"SELECT count(*) FROM {_EVENT} WHERE {text}", values)
                return {None: int(number)}
            known_attribute(by, attributes)
            value = _DIALECT.name(by) if by in {*EVENT_COLUMNS, *declared} else "NULL"
            rows = session.rows(
                f"SELECT {value} AS value, count(*) FROM {_EVENT} WHERE {text} GROUP BY 1 ORDER BY 1 NULLS FIRST",
                values,
            )
            return {row[0]: int(row[1]) for row in rows}

    def explain(self, where: q.Query) -> str:
        """Return PostgreSQL's plan with its costs."""
        with self._db.read() as session:
            attributes = event_attributes(self._declared(session).values())
            text, values = self._tests(session, where, attributes)
            return "\n".join(
                self._db.explain(session, f"SELECT {_KEY} FROM {_EVENT} WHERE {text} ORDER BY {_KEY}", values)
            )

    def close(self) -> None:
        """Close the connections."""
        self._db.close()

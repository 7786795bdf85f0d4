"""The catalogue in SQLite, by SQLAlchemy Core: composed statements, bound parameters.

Typed attributes are rows of `attribute_value`, indexed by (name, number) and (name, text), so that a condition on
an attribute is as much a search in an index as one on a column. Every write is one transaction; with the
write-ahead log, readers never wait for writers, and what was acknowledged survives a killed process.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from apbatch.errors import ApbatchError, ServerError, UsageError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.attributes import COMMON, event_attributes, known_attribute, merge_declarations
from apbatch.index.catalogue import EVENT_KEYS, POINTER, Catalogue, FileRecord, Replica
from apbatch.index.records import (
    checked,
    event_batch,
    event_rows,
    from_plain,
    from_row,
    is_text,
    parameter_names,
    to_plain,
    to_row,
)
from apbatch.index.sql_conditions import conditions, event_leaf, file_leaf
from apbatch.index.sql_tables import (
    SCHEMA_VERSION,
    UPGRADES,
    counters,
    declarations,
    directories,
    event_parameters,
    events,
    files,
    metadata,
    replicas,
    values,
)

_BATCH = 500
_MANY = 500


class SqlCatalogue(Catalogue):
    """A catalogue in one SQLite file, open to several processes at once."""

    def __init__(self, url: str) -> None:
        path = Path(url.removeprefix("sqlite:///"))
        if not path.name or "://" in str(path):
            raise UsageError("the URL names no file", where=url, remedy="sqlite:///FILE")
        self._path = path
        self._written = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServerError(f"the catalogue's folder can't be made: {error.strerror}", where=str(path)) from None
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60})
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)
        try:
            self._prepare()
        except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
            raise _explained(error, path) from error

    def _prepare(self) -> None:
        with self._engine.connect() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            strange = version == 0 and sa.inspect(connection).get_table_names()
        if version == SCHEMA_VERSION:
            return
        if 0 < version < SCHEMA_VERSION:
            self._upgrade()
            return
        if version:
            raise UsageError(
                f"this catalogue has schema {version}, this program knows {SCHEMA_VERSION}",
                where=str(self._path),
                remedy="use the apbatch that wrote it, or move it away and ingest the sites again",
            )
        if strange:
            raise UsageError("the database of another program", where=str(self._path), remedy="name another file")
        with self._write() as connection:
            metadata.create_all(connection)
            connection.execute(insert(counters).values(name="revision", value=0).on_conflict_do_nothing())
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _upgrade(self) -> None:
        with self._write() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()  # another process may be first
            for number in range(version + 1, SCHEMA_VERSION + 1):
                for statement in UPGRADES[number]:
                    connection.exec_driver_sql(statement)
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with self._engine.connect().execution_options(write=True) as connection:
            try:
                with connection.begin():
                    yield connection
            except (sa.exc.OperationalError, sa.exc.DatabaseError) as error:
                raise _explained(error, self._path) from error

    def _rows(self, statement: sa.Select[Any]) -> Iterator[sa.RowMapping]:
        try:
            with self._engine.connect() as connection:
                yield from connection.execution_options(yield_per=1000).execute(statement).mappings()
        except sa.exc.DatabaseError as error:
            raise _explained(error, self._path) from error

    # attributes

    def declare(self, attributes: Iterable[Attribute]) -> None:
        """Make attributes known; see `Catalogue.declare`."""
        fresh = merge_declarations(self.attributes(), attributes)
        if fresh:
            rows = [
                {"name": a.name, "type": a.type, "unit": a.unit, "description": a.description} for a in fresh.values()
            ]
            with self._write() as connection:
                connection.execute(insert(declarations).on_conflict_do_nothing(), rows)

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query may name."""
        declared = {
            row["name"]: Attribute(row["name"], row["type"], row["description"], row["unit"])
            for row in self._rows(sa.select(declarations).order_by(declarations.c.name))
        }
        return {**COMMON, **declared}

    # files

    def upsert(self, records: Iterable[FileRecord]) -> int:
        """Insert or replace files by path, in transactions of some hundred."""
        declared = self.attributes()
        iterator = iter(records)
        written = 0
        while batch := list(islice(iterator, _BATCH)):
            batch = list({record.path: checked(record, declared) for record in batch}.values())
            self._upsert_batch(batch)
            written += len(batch)
            self._written += len(batch)
        return written

    def _upsert_batch(self, batch: list[FileRecord]) -> None:
        paths = [record.path for record in batch]
        with self._write() as connection:
            last = connection.execute(
                sa.update(counters)
                .where(counters.c.name == "revision")
                .values(value=counters.c.value + len(batch))
                .returning(counters.c.value)
            ).scalar_one()
            rows, typed, folders = [], [], set()
            for revision, record in enumerate(batch, start=last - len(batch) + 1):
                plain = {name: to_plain(value) for name, value in record.attributes.items()}
                parent = record.path.rpartition("/")[0]
                rows.append({**to_row(record), "parent": parent, "revision": revision, "attributes": json.dumps(plain)})
                folders.add(parent)
                for name, value in plain.items():
                    text = isinstance(value, str)
                    typed.append(
                        {
                            "path": record.path,
                            "name": name,
                            "number": None if text else value,
                            "text": value if text else None,
                        }
                    )
            statement = insert(files)
            replaced = {c.name: statement.excluded[c.name] for c in files.c if c.name != "path"}
            connection.execute(statement.on_conflict_do_update(index_elements=["path"], set_=replaced), rows)
            connection.execute(sa.delete(values).where(values.c.path.in_(paths)))
            if typed:
                connection.execute(sa.insert(values), typed)
            connection.execute(insert(directories).on_conflict_do_nothing(), _with_parents(folders))

    def remove(self, paths: Iterable[str]) -> None:
        """Forget files, their replicas, and folders left empty."""
        iterator = iter(paths)
        while batch := list(islice(iterator, _BATCH)):
            with self._write() as connection:
                connection.execute(sa.delete(files).where(files.c.path.in_([path for path in batch if is_text(path)])))
                empty = (
                    sa.delete(directories)
                    .where(~sa.exists().where(files.c.parent == directories.c.path))
                    .where(~directories.c.path.in_(sa.select(directories.alias("child").c.parent)))
                )
                while connection.execute(empty).rowcount:
                    pass

    def get(self, path: str) -> FileRecord | None:
        """Return one file, or None."""
        if not is_text(path):
            return None
        return next(self._records(sa.select(files).where(files.c.path == path)), None)

    def list_directory(self, directory: str) -> Iterator[tuple[str, bool]]:
        """Yield (name, is_directory) of the entries of a folder of the merged tree."""
        directory = "/" + directory.strip("/") if directory.strip("/") else ""
        start = len(directory) + 1
        folders = self._rows(sa.select(directories.c.path).where(directories.c.parent == directory))
        plain = self._rows(sa.select(files.c.path).where(files.c.parent == directory, files.c.state == "registered"))
        entries = {row["path"][start:]: True for row in folders} | {row["path"][start:]: False for row in plain}
        yield from sorted((name, folder) for name, folder in entries.items() if name)

    def of_site(self, site: str) -> Iterator[FileRecord]:
        """Yield every file of a site, in any state."""
        return self._records(sa.select(files).where(files.c.site == site).order_by(files.c.path))

    def select(self, query: q.Query, limit: int | None = None) -> Iterator[FileRecord]:
        """Yield the files that match, by path."""
        statement = sa.select(files).where(self._condition(query)).order_by(files.c.path)
        return self._records(statement if limit is None else statement.limit(limit))

    def count(self, query: q.Query, by: str | None = None) -> dict[Any, int]:
        """Count matching files, by the values of attribute `by`."""
        condition = self._condition(query)
        if by is None:
            statement = sa.select(sa.func.count().label("n")).select_from(files).where(condition)
            return {None: next(self._rows(statement))["n"]}
        attribute = known_attribute(by, self.attributes())
        if by in COMMON:
            key: sa.ColumnElement[Any] = files.c[by]
        else:
            column = values.c.text if attribute.type in ("string", "date", "time") else values.c.number
            key = sa.select(column).where(values.c.path == files.c.path, values.c.name == by).scalar_subquery()
        grouped = sa.select(key.label("key"), sa.func.count().label("n")).where(condition).group_by("key")
        return {from_plain(attribute, row["key"]): row["n"] for row in self._rows(grouped.order_by("key"))}

    def explain(self, query: q.Query) -> str:
        """Return SQLite's own plan and the statement."""
        statement = sa.select(files.c.path).where(self._condition(query))
        compiled = statement.compile(self._engine)
        with self._engine.connect() as connection:
            plan = connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {compiled}", tuple(compiled.params[name] for name in compiled.positiontup or ())
            )
            lines = [str(row[3]) for row in plan]
        return "\n".join([*lines, "", str(compiled)])

    def changes(self, since: int) -> Iterator[FileRecord]:
        """Yield files with a revision above `since`, oldest change first."""
        return self._records(sa.select(files).where(files.c.revision > since).order_by(files.c.revision))

    def _records(self, statement: sa.Select[Any]) -> Iterator[FileRecord]:
        declared = self.attributes()
        for row in self._rows(statement):
            plain = json.loads(row["attributes"])
            yield from_row(dict(row), {name: from_plain(declared.get(name), value) for name, value in plain.items()})

    def _condition(self, query: q.Query) -> sa.ColumnElement[bool]:
        declared = self.attributes()
        return conditions(q.of_registered(query), lambda leaf: file_leaf(leaf, declared))

    # replicas

    def add_replica(self, replica: Replica) -> None:
        """Record (or renew) a replica, by path and URL."""
        row = {
            "path": replica.path,
            "url": replica.url,
            "kind": replica.kind,
            "checksum": replica.checksum,
            "verified": to_plain(replica.verified),
        }
        renewed = {name: row[name] for name in ("kind", "checksum", "verified")}
        with self._write() as connection:
            connection.execute(
                insert(replicas).values(row).on_conflict_do_update(index_elements=["path", "url"], set_=renewed)
            )

    def replicas(self, path: str) -> list[Replica]:
        """Return the replicas of a file."""
        rows = self._rows(sa.select(replicas).where(replicas.c.path == path).order_by(replicas.c.url))
        time = COMMON["time_start"]
        return [
            Replica(row["path"], row["url"], row["kind"], row["checksum"], from_plain(time, row["verified"]))
            for row in rows
        ]

    def remove_replica(self, path: str, url: str) -> None:
        """Forget a replica."""
        with self._write() as connection:
            connection.execute(sa.delete(replicas).where(replicas.c.path == path, replicas.c.url == url))

    # events

    def upsert_events(self, batch: pa.RecordBatch) -> int:
        """Insert or replace image parameters; one transaction."""
        rows = [
            {
                **dict(zip(EVENT_KEYS, key, strict=True)),
                **dict(zip(POINTER, pointer, strict=True)),
                "parameters": json.dumps(parameters),
            }
            for key, pointer, parameters in event_rows(batch)
        ]
        if rows:
            statement = insert(events)
            renewed = {name: statement.excluded[name] for name in (*POINTER, "parameters")}
            experiments = sorted({row["experiment"] for row in rows})
            names = [{"experiment": e, "name": name} for e in experiments for name in parameter_names(batch)]
            with self._write() as connection:
                connection.execute(statement.on_conflict_do_update(index_elements=list(EVENT_KEYS), set_=renewed), rows)
                if names:
                    connection.execute(insert(event_parameters).on_conflict_do_nothing(), names)
        return len(rows)

    def select_events(
        self, where: q.Query = q.Everything(), parameters: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield events that match, ordered by key."""
        where = q.normalise(where)
        if parameters is None:
            experiments = q.values_of(where, "experiment")
            known = sa.select(event_parameters.c.name).distinct()
            if experiments is not None:
                known = known.where(event_parameters.c.experiment.in_(experiments))
            parameters = sorted(row["name"] for row in self._rows(known))
        columns = [events.c[name] for name in (*EVENT_KEYS, *POINTER)]
        statement = sa.select(*columns, events.c.parameters) if parameters else sa.select(*columns)
        statement = statement.where(conditions(where, event_leaf)).order_by(*columns[: len(EVENT_KEYS)])
        rows = self._rows(statement)
        while part := list(islice(rows, 10_000)):
            yield event_batch(
                [
                    (
                        tuple(row[name] for name in EVENT_KEYS),
                        tuple(row[name] for name in POINTER),
                        json.loads(row["parameters"]) if parameters else {},
                    )
                    for row in part
                ],
                parameters,
            )

    def event_attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query of events may name."""
        return event_attributes(
            row["name"]
            for row in self._rows(sa.select(event_parameters.c.name).distinct().order_by(event_parameters.c.name))
        )

    def close(self) -> None:
        """Close the connections; after many writes, refresh what the query planner knows of the tables first."""
        if self._written >= _MANY:
            with suppress(ApbatchError), self._write() as connection:  # only speed depends on it
                connection.exec_driver_sql("PRAGMA analysis_limit = 1000")
                connection.exec_driver_sql("ANALYZE")
        self._written = 0
        self._engine.dispose()


def _configure(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # SQLAlchemy begins transactions, see _begin
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "case_sensitive_like=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    # A writer takes the lock at once: a reader that turns writer could only fail.
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _explained(error: Exception, path: Path) -> ApbatchError:
    text = str(getattr(error, "orig", error))
    if "not a database" in text or "malformed" in text:
        return ServerError(
            f"the catalogue is damaged ({text})",
            where=str(path),
            remedy="move it away and ingest the sites again: nothing but the catalogue is affected",
        )
    if "locked" in text:
        return ServerError("another process holds the catalogue for over a minute", where=str(path))
    return ServerError(f"the catalogue failed: {text}", where=str(path))


def _with_parents(folders: Iterable[str]) -> list[dict[str, str]]:
    every: set[str] = set()
    for folder in folders:
        while folder and folder not in every:
            every.add(folder)
            folder = folder.rpartition("/")[0]
    return [{"path": path, "parent": path.rpartition("/")[0]} for path in sorted(every)]

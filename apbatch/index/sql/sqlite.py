"""The catalogue in one SQLite file, open to several threads and processes of one host at once.

With the write-ahead log, readers never wait for writers, and what was acknowledged survives a killed process.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from apbatch.errors import ApbatchError, CancelledQueryError, ServerError, UsageError
from apbatch.index.cancelling import cancellable
from apbatch.index.sql.database import Database, Row, Session
from apbatch.index.sql.estimates import rows_of_plan
from apbatch.index.sql.keeping import SqlKeeping
from apbatch.index.sql.schema import SCHEMA_VERSION, staging_columns, tables
from apbatch.index.sql.sqlite_upgrade import upgrade
from apbatch.index.sql.visibility import SqlSeen

#: Changed rows after which the query planner's knowledge of the tables is refreshed.
_MANY = 500
_PATIENCE_S = 60.0
_ISO = "%04d-%02d-%02dT%02d:%02d:%02d.%06d"


_OPEN: weakref.WeakSet[SqliteDatabase] = weakref.WeakSet()
#: Connections of the process that this one was forked from.
_LEFT: list[object] = []


def _forget_all() -> None:
    for database in _OPEN:
        database.forget()


os.register_at_fork(after_in_child=_forget_all)


class SqliteSession(Session):
    """A connection of one thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return all rows."""
        return self.connection.execute(statement, values).fetchall()

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run a statement."""
        return self.connection.execute(statement, values).rowcount

    def many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row."""
        self.connection.executemany(statement, rows)

    def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert many rows."""
        names = ", ".join(f'"{name}"' for name in columns)
        self.connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})", rows)


class SqliteDatabase(Database):
    """Connections to one file, one for each thread."""

    types: ClassVar[dict[str, str]] = {
        "string": "TEXT", "integer": "INTEGER", "number": "REAL", "boolean": "INTEGER", "date": "TEXT", "time": "TEXT",
    }  # fmt: skip
    binary: ClassVar[str] = "BLOB"
    now: ClassVar[str] = "CAST(strftime('%s', 'now') AS REAL)"
    is_typed: ClassVar[bool] = False
    texts: ClassVar[str] = "json_each(?) AS item"
    numbers: ClassVar[str] = "json_each(?) AS item"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sessions: dict[threading.Thread, SqliteSession] = {}
        self._lock = threading.Lock()
        self.changed = 0
        _OPEN.add(self)

    def forget(self) -> None:
        """Leave the connections to the process that was forked from: none must cross a fork, not even to be closed."""
        _LEFT.append(self._sessions)
        self._sessions, self._lock = {}, threading.Lock()

    def _session(self) -> SqliteSession:
        thread = threading.current_thread()
        session = self._sessions.get(thread)
        if session is None:
            connection = sqlite3.connect(
                self.path, timeout=_PATIENCE_S, isolation_level=None, cached_statements=512, check_same_thread=False
            )
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "case_sensitive_like=ON", "temp_store=MEMORY"):
                connection.execute(f"PRAGMA {pragma}")
            for name, function in (("sin", math.sin), ("cos", math.cos), ("radians", math.radians)):
                if not connection.execute("SELECT 1 FROM pragma_function_list WHERE name = ?", (name,)).fetchone():
                    connection.create_function(name, 1, function, deterministic=True)
            connection.execute(f"CREATE TEMP TABLE staged ({staging_columns(self)}, PRIMARY KEY (n))")
            session = SqliteSession(connection)
            with self._lock:
                for ended in [one for one in self._sessions if not one.is_alive()]:  # a pool's threads come and go
                    self._sessions.pop(ended).connection.close()
                self._sessions[thread] = session
        return session

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[SqliteSession]:
        try:
            session = self._session()
            session.connection.execute(begin)
            try:
                yield session
            except BaseException:
                if session.connection.in_transaction:
                    session.connection.execute("ROLLBACK")
                raise
            session.connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise explained(error, self.path) from error

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Begin a transaction that sees one state."""
        with self._transaction("BEGIN") as session, cancellable(session.connection.interrupt):
            yield session

    def ask(self, statement: str, values: Sequence[Any]) -> list[Row]:
        """Return all rows of one statement."""
        try:
            connection = self._session().connection
            with cancellable(connection.interrupt):
                return connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise explained(error, self.path) from error

    def ask_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[Row]:
        """Return the rows of several statements: one by one, as rows of a union are copied once more."""
        with self.read() as session:
            return [row for statement, values in statements for row in session.rows(statement, values)]

    def write(self) -> AbstractContextManager[Session]:
        """Begin a transaction that writes: it takes the lock at once, as a reader that turns writer could only fail."""
        return self._transaction("BEGIN IMMEDIATE")

    @contextmanager
    def write_staged(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[Session]:
        """Begin a transaction that writes, with rows in ``staged``."""
        with self._transaction("BEGIN IMMEDIATE") as session:
            session.run("DELETE FROM staged")
            session.load("staged", columns, rows)
            yield session
        self.changed += len(rows)

    def bound(self, values: Sequence[Any]) -> Any:
        """Return a list as JSON."""
        return json.dumps(values, ensure_ascii=False)

    def plain(self, value: Any) -> Any:
        """Return dates as ISO text, times as UTC ISO text of fixed width, so that order holds."""
        if isinstance(value, datetime):
            if value.tzinfo is not UTC:
                value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
            date_part = (value.year, value.month, value.day)  # twice as quick as isoformat, which asks the zone
            return _ISO % (*date_part, value.hour, value.minute, value.second, value.microsecond)
        return value.isoformat() if isinstance(value, date) else value

    def narrow(self, column: str) -> str:
        """Return the column: an index of SQLite takes texts of any length."""
        return column

    def narrowed(self, text: str) -> str:
        """Return the text."""
        return text

    def unique(self, column: str) -> str:
        """Return the column."""
        return column

    def sorted_after(self, expression: str) -> str:
        """Return the key so that its index is of no use: SQLite would rather read all files by path than sort a few."""
        return f"+{expression}"

    def explain(self, session: Session, statement: str, values: Sequence[Any]) -> list[str]:
        """Return SQLite's plan; its cost is that whole tables are read (SCAN) or that an index is (SEARCH)."""
        lines = [str(row[3]) for row in session.rows(f"EXPLAIN QUERY PLAN {statement}", values)]
        files = session.value("SELECT COUNT(*) FROM file")
        whole = [line for line in lines if line.startswith("SCAN f") and "USING INDEX" not in line]
        cost = f"every row of {files} files" if whole else f"parts of indexes of {files} files"
        return [*lines, f"cost: {cost} read"]

    def rows_read(self, session: Session, statement: str, values: Sequence[Any]) -> int:
        """Estimate from SQLite's plan, and from its statistics where there are any."""
        lines = [str(row[3]) for row in session.rows(f"EXPLAIN QUERY PLAN {statement}", values)]
        counted: dict[str, list[int]] = {}
        if session.value("SELECT COUNT(*) FROM sqlite_master WHERE name = 'sqlite_stat1'"):
            for index, numbers in session.rows("SELECT idx, stat FROM sqlite_stat1 WHERE tbl = 'file'"):
                counted[index] = [int(number) for number in str(numbers).split()[1:] if number.isdecimal()]
        return rows_of_plan(lines, int(session.value("SELECT COUNT(*) FROM file")), counted)

    def clock(self, session: Session) -> tuple[float, str]:
        """Return the time since this host was started, which nobody sets; another start is another clock."""
        with suppress(OSError):
            return time.clock_gettime(time.CLOCK_BOOTTIME), Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return time.time(), "wall clock"

    def damage(self) -> list[str]:
        """Return what SQLite's own check finds."""
        rows = self.ask("PRAGMA integrity_check(100)", ())
        return [row[0] for row in rows if row[0] != "ok"]

    def backup(self, path: Path) -> None:
        """Write a copy of one state, page by page; other processes go on."""
        path.unlink(missing_ok=True)
        self._copy(self._session().connection, path, reverse=False)

    def restore(self, path: Path) -> None:
        """Take over a copy in one transaction, if it is whole and of this schema."""
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as copy:
                (version,) = copy.execute("PRAGMA user_version").fetchone()
                whole = copy.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok"
        except sqlite3.Error as error:
            raise explained(error, path) from error
        if not whole or version != SCHEMA_VERSION:
            raise UsageError(f"not a whole copy of a catalogue of schema {SCHEMA_VERSION}", where=str(path))
        self._copy(self._session().connection, path, reverse=True)

    def _copy(self, connection: sqlite3.Connection, path: Path, *, reverse: bool) -> None:
        try:
            with closing(sqlite3.connect(path, timeout=_PATIENCE_S)) as other:
                source, target = (other, connection) if reverse else (connection, other)
                source.backup(target, pages=-1)
                if not reverse:
                    other.execute("PRAGMA journal_mode=DELETE")  # one file, which a read-only medium can hold too
        except sqlite3.Error as error:
            raise explained(error, path) from error

    def close(self) -> None:
        """Close the connections; after many writes, refresh what the query planner knows of the tables first."""
        if self.changed >= _MANY:
            with suppress(ApbatchError), self._transaction("BEGIN IMMEDIATE") as session:  # only speed depends on it
                session.run("PRAGMA analysis_limit = 1000")
                session.run("ANALYZE")
        self.changed = 0
        with self._lock:
            for session in self._sessions.values():
                with suppress(sqlite3.Error):
                    session.connection.close()
            self._sessions.clear()


class SqliteCatalogue(SqlKeeping, SqlSeen):
    """A catalogue at ``sqlite:///FILE``."""

    def __init__(self, url: str) -> None:
        path = Path(url.removeprefix("sqlite:///"))
        if not path.name or "://" in str(path):
            raise UsageError("the URL names no file", where=url, remedy="sqlite:///FILE")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServerError(f"the catalogue's folder can't be made: {error.strerror}", where=str(path)) from None
        self._db: SqliteDatabase
        super().__init__(SqliteDatabase(path))
        try:
            self._prepare(path)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, path: Path) -> None:
        with self._db.read() as session:
            version = session.value("PRAGMA user_version")
            strange = version == 0 and session.rows("SELECT 1 FROM sqlite_master WHERE type = 'table'")
        if version == SCHEMA_VERSION:
            return
        if version > SCHEMA_VERSION or version < 0:
            raise UsageError(
                f"this catalogue has schema {version}, this program knows {SCHEMA_VERSION}",
                where=str(path),
                remedy="use the apbatch that wrote it, or a newer one",
            )
        if strange:
            raise UsageError("the database of another program", where=str(path), remedy="name another file")
        with self._db.write() as session:
            version = session.value("PRAGMA user_version")  # another process may be first
            if version == SCHEMA_VERSION:
                return
            if version == 0:
                for statement in tables(self._db):
                    session.run(statement)
            else:
                upgrade(self._db, session)
            session.run(f"PRAGMA user_version = {SCHEMA_VERSION}")


def explained(error: sqlite3.Error, path: Path) -> ApbatchError:
    """Return an error of SQLite with its remedy."""
    text = str(error)
    if text == "interrupted":
        return CancelledQueryError("the query was cancelled")
    if "not a database" in text or "malformed" in text:
        return ServerError(
            f"the catalogue is damaged ({text})",
            where=str(path),
            remedy="restore a backup (apbatch index restore), or move it away and ingest the sites again",
        )
    if "locked" in text:
        return ServerError("another process holds the catalogue for over a minute", where=str(path))
    if "full" in text:
        return ServerError(f"no room for the catalogue ({text})", where=str(path), remedy="free space; nothing is lost")
    return ServerError(f"the catalogue failed: {text}", where=str(path))

"""The catalogue in PostgreSQL, by psycopg: staged by COPY, then one short transaction that takes the revisions."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool, PoolTimeout

from apbatch.errors import ApbatchError, CancelledQueryError, MissingSoftwareError, ServerError, UsageError
from apbatch.index.cancelling import cancellable
from apbatch.index.catalogue import LOST_SERVER
from apbatch.index.sql.database import ConnectionLostError, Database, Row, Session
from apbatch.index.sql.keeping import SqlKeeping
from apbatch.index.sql.schema import SCHEMA_VERSION, digest_table, staging_columns, tables
from apbatch.index.sql.visibility import SqlSeen

#: An index entry takes some 2,700 bytes, four for each of so many characters.
_NARROW = 640
_CONNECTIONS = 8
#: A server that is being restarted is awaited for so long, seconds.
_PATIENCE_S = 30.0
#: Takes the lock that writers take in turn; its key is any number that is ours.
_LOCK = b"SELECT pg_advisory_xact_lock(1634755169)"


class PostgresSession(Session):
    """A connection inside a transaction.

    Parameters
    ----------
    connection : psycopg.Connection
    types : dict
        Numbers of the types of columns, by table and columns; filled as rows are loaded.
    """

    def __init__(self, connection: psycopg.Connection[Row], types: dict[str, list[int]]) -> None:
        self._connection, self._types = connection, types

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return all rows."""
        return self._connection.execute(
            _marked(statement), values, prepare=_prepared(statement), binary=True
        ).fetchall()

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run a statement."""
        return self._connection.execute(_marked(statement), values, prepare=_prepared(statement)).rowcount

    def many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row."""
        with self._connection.cursor() as cursor:
            cursor.executemany(_marked(statement), rows)

    def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert many rows by COPY, in binary: neither side writes or reads numbers and times as text."""
        names = ", ".join(f'"{name}"' for name in columns)
        if (types := self._types.get(f"{table} ({names})")) is None:
            description = self._connection.execute(f"SELECT {names} FROM {table} WHERE FALSE".encode()).description
            types = self._types[f"{table} ({names})"] = [column.type_code for column in description or ()]
        statement = f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)".encode()
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)


@lru_cache(maxsize=1000)
def _marked(statement: str) -> bytes:
    """Return a statement as psycopg takes it; given the same bytes again, it knows what it made of them."""
    return statement.replace("?", "%s").encode()


def _prepared(statement: str) -> bool | None:
    """Keep the plan of a statement once it was asked often, but for one over `staged`, made while tables were small."""
    return False if " staged " in statement else None


class PostgresDatabase(Database):
    """A pool of connections to one database."""

    types: ClassVar[dict[str, str]] = {
        "string": 'text COLLATE "C"',
        "integer": "bigint",
        "number": "float8",
        "boolean": "boolean",
        "date": "date",
        "time": "timestamptz",
    }
    binary: ClassVar[str] = "bytea"
    now: ClassVar[str] = "extract(epoch FROM clock_timestamp())::float8"
    is_typed: ClassVar[bool] = True
    texts: ClassVar[str] = "unnest(?::text[]) AS item(value)"
    numbers: ClassVar[str] = "unnest(?::bigint[]) AS item(value)"

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = _without_password(url)
        self._pool: ConnectionPool[psycopg.Connection[Row]] | None = None
        self._process = 0
        self._types: dict[str, list[int]] = {}

    def _connections(self) -> ConnectionPool[psycopg.Connection[Row]]:
        if self._pool is None or self._process != os.getpid():  # a connection must not cross a fork
            self._pool = ConnectionPool(
                self.url,
                min_size=1,
                max_size=_CONNECTIONS,
                kwargs={"autocommit": True, "options": "-c timezone=UTC -c client_min_messages=warning"},
                configure=self._configure,
                timeout=_PATIENCE_S,
                open=True,
            )
            self._process = os.getpid()
        return self._pool

    def _configure(self, connection: psycopg.Connection[Row]) -> None:
        connection.execute(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS staged ({staging_columns(self)}) ON COMMIT DELETE ROWS".encode()
        )

    @contextmanager
    def _transaction(self, begin: bytes) -> Iterator[psycopg.Connection[Row]]:
        """Begin a transaction on a connection that is alive; after a restart of the server, on a new one."""
        deadline = time.monotonic() + _PATIENCE_S
        try:
            while True:
                pool = self._connections()
                connection = pool.getconn()
                try:
                    connection.execute(begin)
                    break
                except psycopg.OperationalError:
                    pool.putconn(connection)
                    if time.monotonic() > deadline:
                        raise
            try:
                yield connection
                connection.execute(b"COMMIT")
            except BaseException:
                with suppress(psycopg.Error):
                    connection.execute(b"ROLLBACK")
                raise
            finally:
                pool.putconn(connection)
        except (psycopg.Error, PoolTimeout) as error:
            raise explained(error, self.address) from error

    def ask(self, statement: str, values: Sequence[Any]) -> list[Row]:
        """Return all rows of one statement; it is asked again if the server went away meanwhile."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            pool = self._connections()
            try:
                connection = pool.getconn()
                try:
                    with cancellable(connection.cancel_safe):
                        return connection.execute(_marked(statement), values, binary=True).fetchall()
                finally:
                    pool.putconn(connection)
            except psycopg.errors.QueryCanceled as error:
                raise explained(error, self.address) from None
            except (psycopg.Error, PoolTimeout) as error:
                if not isinstance(error, psycopg.OperationalError) or time.monotonic() > deadline:
                    raise explained(error, self.address) from error

    def ask_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[Row]:
        """Return the rows of several statements by one: a transaction would cost more answers."""
        parts = [f"SELECT * FROM ({statement}) AS part{number}" for number, (statement, _) in enumerate(statements)]
        return self.ask(" UNION ALL ".join(parts), [value for _, values in statements for value in values])

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Begin a transaction that sees one state."""
        begin = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        with self._transaction(begin) as connection, cancellable(connection.cancel_safe):
            yield PostgresSession(connection, self._types)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Begin a transaction that writes; writers come one after another, so that revisions are commits in order."""
        with self._transaction(b"BEGIN; " + _LOCK) as connection:
            yield PostgresSession(connection, self._types)

    @contextmanager
    def write_staged(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[Session]:
        """Begin a transaction that writes; the rows were sent before it, while others could write."""
        with self._transaction(b"BEGIN") as connection:
            session = PostgresSession(connection, self._types)
            session.load("staged", columns, rows)
            connection.execute(_LOCK)
            yield session

    def bound(self, values: Sequence[Any]) -> Any:
        """Return a list as it is: psycopg makes it an array."""
        return list(values)

    def plain(self, value: Any) -> Any:
        """Return the value; a time without a zone is UTC."""
        return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value

    def narrow(self, column: str) -> str:
        """Return the beginning of a text."""
        return f"left({column}, {_NARROW})"

    def narrowed(self, text: str) -> str:
        """Return the beginning of a text."""
        return text[:_NARROW]

    def unique(self, column: str) -> str:
        """Return the beginning and a hash of the whole."""
        return f"left({column}, {_NARROW}), md5({column})"

    def null(self, kind: str) -> str:
        """Return a missing value of a type."""
        name, _, collation = self.types[kind].partition(" ")
        return f"CAST(NULL AS {name}) {collation}".strip()

    def explain(self, session: Session, statement: str, values: Sequence[Any]) -> list[str]:
        """Return PostgreSQL's plan with its costs."""
        return [str(row[0]) for row in session.rows(f"EXPLAIN {statement}", values)]

    def rows_read(self, session: Session, statement: str, values: Sequence[Any]) -> int:
        """Estimate from the cost of PostgreSQL's plan, which counts a row with its part of a page as about a tenth."""
        ((plan,),) = session.rows(f"EXPLAIN (FORMAT JSON) {statement}", values)
        return round(10 * float(plan[0]["Plan"]["Total Cost"]))

    def clock(self, session: Session) -> tuple[float, str]:
        """Return the server's time."""
        return float(session.value(f"SELECT {self.now}")), "server"

    def damage(self) -> list[str]:
        """Return nothing: PostgreSQL's pages carry checksums, which it compares whenever it reads."""
        return []

    def backup(self, path: Path) -> None:
        """Write a copy of one state by pg_dump."""
        self._program("pg_dump", "--format=custom", "--no-owner", f"--file={path}", self.url)

    def restore(self, path: Path) -> None:
        """Take over a copy in one transaction, by pg_restore."""
        self._program(
            "pg_restore",
            "--clean",
            "--if-exists",
            "--no-owner",
            "--single-transaction",
            f"--dbname={self.url}",
            str(path),
        )

    def _program(self, name: str, *arguments: str) -> None:
        program = shutil.which(name)
        if program is None:
            raise MissingSoftwareError(f"{name} is not installed", remedy="as root: apt-get install postgresql-client")
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerError(f"{name} failed: {done.stderr.strip()[-500:]}", where=self.address)

    def close(self) -> None:
        """Close the connections."""
        if self._pool is not None and self._process == os.getpid():
            self._pool.close()
        self._pool = None

    def create(self) -> None:
        """Create the database, unless it is there."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=10).close()
                return
            except psycopg.OperationalError as error:
                if "does not exist" in str(error):
                    break
                if "starting up" not in str(error) or time.monotonic() > deadline:
                    raise explained(error, self.address) from error
                time.sleep(0.1)
        parts = urlsplit(self.url)
        name = parts.path.strip("/")
        try:
            with psycopg.connect(parts._replace(path="/postgres").geturl(), autocommit=True) as connection:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0").format(
                        sql.Identifier(name)
                    )
                )
        except psycopg.errors.DuplicateDatabase:
            return  # another process was first
        except psycopg.Error as error:
            if "already exists" not in str(error):
                raise explained(error, self.address) from error


class PostgresCatalogue(SqlKeeping, SqlSeen):
    """A catalogue in one database: ``postgresql://USER@HOST:PORT/DATABASE``."""

    def __init__(self, url: str) -> None:
        if not urlsplit(url).path.strip("/"):
            raise UsageError(
                "the URL names no database", where=_without_password(url), remedy="postgresql://…/DATABASE"
            )
        self._db: PostgresDatabase
        super().__init__(PostgresDatabase(url))
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        where = self._db.address
        self._db.create()
        with self._db.write() as session:
            there = session.rows(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
            )
            if not there:
                if session.value("SHOW server_encoding") != "UTF8":
                    raise UsageError(
                        "the database is not in UTF-8", where=where, remedy="create it with ENCODING 'UTF8'"
                    )
                for statement in tables(self._db):
                    session.run(statement)
                session.run("INSERT INTO counter (name, value) VALUES ('version', ?)", (SCHEMA_VERSION,))
                return
            if ("counter",) not in there or ("file",) not in there:
                raise UsageError("the database of another program", where=where, remedy="name another database")
            version = session.value("SELECT value FROM counter WHERE name = 'version'")
            if version == 3:
                session.run(digest_table(self._db))
                session.run("UPDATE counter SET value = ? WHERE name = 'version'", (SCHEMA_VERSION,))
            elif version != SCHEMA_VERSION:
                raise UsageError(
                    f"this catalogue has schema {version}, this program knows {SCHEMA_VERSION}",
                    where=where,
                    remedy="use the apbatch that wrote it, or a newer one",
                )


def explained(error: Exception, where: str) -> ApbatchError:
    """Return an error of PostgreSQL with its remedy."""
    text = " ".join(str(error).split())
    if isinstance(error, psycopg.errors.QueryCanceled):
        return CancelledQueryError("the query was cancelled")
    if isinstance(error, psycopg.errors.DiskFull):
        return ServerError("no room for the catalogue", where=where, remedy="free space; nothing is lost")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return ServerError(f"the catalogue refuses: {text}", where=where, remedy="ask for CREATE on the database")
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | PoolTimeout):
        return ConnectionLostError(f"the server does not answer: {text}", where=where, remedy=LOST_SERVER)
    return ServerError(f"the catalogue failed: {text}", where=where)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, host = parts.username or "", parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}@{host}").geturl()

"""PostgreSQL by psycopg and hand-written SQL, at the catalogue's own durability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from apbatch.bench.cases.catalogue.bare_sql import COLUMNS, TRANSACTION, BareSql, Row
from apbatch.index.sql.postgres import PostgresDatabase
from apbatch.index.sql.schema import tables

_NAMES = ", ".join(COLUMNS)
_CHANGES = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in ("id", "path"))


class BarePostgres(BareSql):
    """One connection: rows by COPY into a temporary table, and from there by one statement."""

    def __init__(self, url: str) -> None:
        db = PostgresDatabase(url)
        db.create()
        super().__init__(db, "%s")
        self._connection = psycopg.connect(url, autocommit=True, options="-c timezone=UTC")
        if not self._ask("SELECT 1 FROM information_schema.tables WHERE table_name = 'file'"):
            with self._connection.transaction():
                for statement in tables(db):
                    self._connection.execute(statement.encode())
        self._connection.execute(b"CREATE TEMPORARY TABLE prepared (LIKE file)")
        self._key = db.unique("path")

    def write(self, rows: Sequence[Any]) -> None:
        """Insert or replace rows."""
        into = f"INSERT INTO file ({_NAMES}) SELECT {_NAMES} FROM prepared "
        replacing = f"{into} ON CONFLICT ({self._key}) DO UPDATE SET {_CHANGES}".encode()
        for start in range(0, len(rows), TRANSACTION):
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.execute(b"TRUNCATE prepared")
                with cursor.copy(f"COPY prepared ({_NAMES}) FROM STDIN".encode()) as copy:
                    for row in rows[start : start + TRANSACTION]:
                        copy.write_row(row)
                cursor.execute(replacing)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()
        self._db.close()

    def _ask(self, statement: str, *values: Any) -> list[Row]:
        return list(self._connection.execute(statement.encode(), values).fetchall())

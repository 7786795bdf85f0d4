"""The questions of the index suite by hand, through the bare drivers: what a catalogue is measured against.

Tables, indexes, durability and consistency are the catalogue's own; so are the types of what comes back (dates, times).
Rows are plain tuples that nobody checks.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from apbatch.index.files import COMMON_FIELDS, FileRecord
from apbatch.index.query import And, Between, Compare, Query
from apbatch.index.sql.database import Database
from apbatch.index.sql.schema import tables
from apbatch.index.sql.sqlite import SqliteDatabase

#: Columns of the table `file`, in its order.
COLUMNS = ("id", "path", "parent", "entry", "copy", *COMMON_FIELDS[1:])
#: Rows of a transaction, as the catalogue has them.
TRANSACTION = 500
_PATH, _SIZE = COLUMNS.index("path"), COLUMNS.index("size")
_DATE = COLUMNS.index("night")
_TIMES = COLUMNS.index("time_start")

Row = Sequence[Any]


class BareIndex(ABC):
    """What the questions ask of a peer without a catalogue."""

    @abstractmethod
    def prepared(self, records: Sequence[FileRecord], first: int) -> Sequence[Any]:
        """Return records as `write` takes them, which the load does not pay for.

        Parameters
        ----------
        records : sequence of FileRecord
        first : int
            Number of the first one, which serves as its revision.
        """

    @abstractmethod
    def write(self, rows: Sequence[Any]) -> None:
        """Insert or replace the rows of records, as many a transaction as the catalogue has."""

    @abstractmethod
    def size_of(self, path: str) -> int | None:
        """Read the whole record of a file; return its size."""

    @abstractmethod
    def paths(self, query: Query, limit: int | None = None) -> list[str]:
        """Read the whole records of the files that match, by path; return their paths."""

    @abstractmethod
    def count(self, query: Query) -> int:
        """Count the files that match."""

    @abstractmethod
    def count_by_night(self, experiment: str) -> dict[date | None, int]:
        """Count the files of an experiment by night."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, with what is columns of them read too."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


def tests(query: Query) -> list[Compare | Between]:
    """Return the comparisons of a conjunction."""
    if isinstance(query, And):
        return [test for part in query.parts for test in tests(part)]
    assert isinstance(query, Compare | Between)
    return [query]


class BareSql(BareIndex):
    """SQL by hand in the catalogue's own tables."""

    def __init__(self, db: Database, mark: str) -> None:
        self._db, self._mark = db, mark

    def prepared(self, records: Sequence[FileRecord], first: int) -> list[Row]:
        """Return the rows of records."""
        plain = self._db.plain
        return [
            (
                n, record.path, record.path.rpartition("/")[0], record.path, 0,
                *(plain(getattr(record, name)) for name in COMMON_FIELDS[1:-1]), n,
            )
            for n, record in enumerate(records, first)
        ]  # fmt: skip

    def size_of(self, path: str) -> int | None:
        """Read the whole record of a file; return its size."""
        where, values = self._is("path", path)
        rows = self._typed(self._ask(f"SELECT * FROM file WHERE {where}", *values))
        return rows[0][_SIZE] if rows else None

    def paths(self, query: Query, limit: int | None = None) -> list[str]:
        """Read the files that match, by path; return their paths."""
        condition, values = self._where(query)
        limited = "" if limit is None else f" LIMIT {limit}"
        rows = self._ask(f"SELECT * FROM file WHERE {condition} ORDER BY path{limited}", *values)
        return [row[_PATH] for row in self._typed(rows)]

    def count(self, query: Query) -> int:
        """Count the files that match."""
        condition, values = self._where(query)
        return int(self._ask(f"SELECT COUNT(*) FROM file WHERE {condition}", *values)[0][0])

    def count_by_night(self, experiment: str) -> dict[date | None, int]:
        """Count the files of an experiment by night."""
        condition, values = self._where(Compare("experiment", "=", experiment))
        rows = self._ask(f"SELECT night, COUNT(*) FROM file WHERE {condition} GROUP BY night", *values)
        return {date.fromisoformat(night) if isinstance(night, str) else night: number for night, number in rows}

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder."""
        where, values = self._is("parent", folder)
        columns = "entry, size, mtime_ns, state, checksum, place"
        start = len(folder) + 1
        rows = self._ask(f"SELECT {columns} FROM file WHERE {where} AND copy = 0 ORDER BY entry", *values)
        return [row[0][start:] for row in rows]

    def _where(self, query: Query) -> tuple[str, list[Any]]:
        statement, values = "state = 'registered' AND copy = 0", []
        for test in tests(query):
            if isinstance(test, Between):
                statement += f" AND {test.name} BETWEEN {self._mark} AND {self._mark}"
                values += [test.low, test.high]
            else:
                statement += f" AND {test.name} = {self._mark}"
                values.append(self._db.plain(test.value))
        return statement, values

    def _is(self, column: str, text: str) -> tuple[str, list[str]]:
        narrow = self._db.narrow(column)
        if narrow == column:
            return f"{column} = {self._mark}", [text]
        return f"{narrow} = {self._mark} AND {column} = {self._mark}", [self._db.narrowed(text), text]

    def _typed(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return rows with dates and times as such."""
        return rows

    @abstractmethod
    def _ask(self, statement: str, *values: Any) -> list[Row]:
        """Return all rows of a statement."""


class BareSqlite(BareSql):
    """SQLite by Python's own driver."""

    def __init__(self, path: Path) -> None:
        super().__init__(SqliteDatabase(path), "?")
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self._connection.execute(f"PRAGMA {pragma}")
        if not self._ask("SELECT 1 FROM sqlite_master WHERE name = 'file'"):
            for statement in tables(self._db):
                self._connection.execute(statement)

    def write(self, rows: Sequence[Any]) -> None:
        """Insert or replace rows."""
        statement = f"INSERT OR REPLACE INTO file ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
        for start in range(0, len(rows), TRANSACTION):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(statement, rows[start : start + TRANSACTION])
            self._connection.execute("COMMIT")

    def _typed(self, rows: Sequence[Row]) -> Sequence[Row]:
        moment, day = datetime.fromisoformat, date.fromisoformat
        typed = []
        for row in rows:
            night, start, end = row[_DATE], row[_TIMES], row[_TIMES + 1]
            typed.append((
                *row[:_DATE], night and day(night), start and moment(start).replace(tzinfo=UTC),
                end and moment(end).replace(tzinfo=UTC), *row[_TIMES + 2 :],
            ))  # fmt: skip
        return typed

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()
        self._db.close()

    def _ask(self, statement: str, *values: Any) -> list[Row]:
        return self._connection.execute(statement, values).fetchall()

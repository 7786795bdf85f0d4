"""The same questions in SQL written by hand, through the bare driver: what a catalogue is measured against.

Tables and indexes are the catalogue's own, durability is the same; rows are plain tuples that nobody checks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from apbatch.index.files import COMMON_FIELDS, FileRecord
from apbatch.index.query import And, Between, Compare, Query
from apbatch.index.sql.schema import tables
from apbatch.index.sqlite import SqliteDatabase

_COLUMNS = ("id", "path", "parent", "entry", "copy", *COMMON_FIELDS[1:])
#: Rows of a transaction, as the catalogue has them.
_ROWS = 500


class BareSqlite:
    """SQLite by Python's own driver; it has the few methods of a catalogue that the questions call."""

    def __init__(self, path: Path) -> None:
        self._db = SqliteDatabase(path)
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self._connection.execute(f"PRAGMA {pragma}")
        for statement in tables(self._db):
            self._connection.execute(statement)
        self._rows: list[tuple[Any, ...]] = []

    def prepare(self, records: Sequence[FileRecord]) -> None:
        """Turn records into rows, which the load does not pay for."""
        self._rows = [
            (
                n, record.path, record.path.rpartition("/")[0], record.path, 0,
                *(self._db.plain(getattr(record, name)) for name in COMMON_FIELDS[1:-1]), n,
            )
            for n, record in enumerate(records, 1)
        ]  # fmt: skip

    def upsert(self, _: Sequence[FileRecord]) -> None:
        """Write the prepared rows."""
        statement = f"INSERT OR REPLACE INTO file ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
        for start in range(0, len(self._rows), _ROWS):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(statement, self._rows[start : start + _ROWS])
            self._connection.execute("COMMIT")

    def of_site(self, site: str) -> Iterator[tuple[Any, ...]]:
        """Return all rows of a site."""
        return iter(self._ask("SELECT * FROM file WHERE site = ? ORDER BY source", site))

    def get(self, path: str) -> SimpleNamespace | None:
        """Return what is asked of a file."""
        rows = self._ask(f"SELECT {', '.join(_COLUMNS)} FROM file WHERE path = ?", path)
        return SimpleNamespace(**dict(zip(_COLUMNS, rows[0], strict=True))) if rows else None

    def select(self, query: Query) -> list[SimpleNamespace]:
        """Return all columns of the files of a night, or of those with some numbers of events."""
        statement, values = "SELECT * FROM file WHERE state = 'registered' AND copy = 0", []
        parts = query.parts if isinstance(query, And) else (query,)
        flat = [inner for part in parts for inner in (part.parts if isinstance(part, And) else (part,))]
        for part in flat:
            if isinstance(part, Compare):
                statement += f" AND {part.name} = ?"
                values.append(self._db.plain(part.value))
            elif isinstance(part, Between):
                statement += f" AND {part.name} BETWEEN ? AND ?"
                values += [part.low, part.high]
        return [SimpleNamespace(path=row[1]) for row in self._ask(f"{statement} ORDER BY path", *values)]

    def count(self, query: Compare, by: str) -> dict[date, int]:
        """Count by night."""
        rows = self._ask(
            f"SELECT {by}, COUNT(*) FROM file "
            f"WHERE {query.name} = ? AND state = 'registered' AND copy = 0 GROUP BY {by}",
            query.value,
        )
        return {date.fromisoformat(night): number for night, number in rows}

    def entries(self, folder: str) -> SimpleNamespace:
        """Return the files of a folder."""
        statement = "SELECT entry, size, mtime_ns, state FROM file WHERE parent = ? AND copy = 0 ORDER BY entry"
        start = len(folder) + 1
        rows = [SimpleNamespace(name=row[0][start:], kind="file") for row in self._ask(statement, folder)]
        return SimpleNamespace(entries=rows)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()
        self._db.close()

    def _ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()

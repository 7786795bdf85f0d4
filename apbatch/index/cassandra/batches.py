"""Whole writes: what belongs together goes into one logged batch, several small ones into the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cassandra.query import BatchStatement, BatchType

from apbatch.index.cassandra.session import CassandraSession

#: Each batch is noted in the cluster's log of batches first: some records share that cost.
_RECORDS_A_BATCH = 5
#: Cassandra refuses batches of 50 kB by default; this counts text alone.
_BATCH_BYTES = 20_000
#: A prepared statement and its values.
Write = tuple[Any, Sequence[Any]]


def insertion(session: CassandraSession, table: str, row: dict[str, Any]) -> Write:
    """Return the statement that writes a row.

    Parameters
    ----------
    session : CassandraSession
    table : str
    row : dict
        Values by column.
    """
    names = sorted(row)
    quoted = ", ".join(f'"{name}"' for name in names)
    marks = ", ".join("?" * len(names))
    return session.prepare(f"INSERT INTO {table} ({quoted}) VALUES ({marks})"), [row[name] for name in names]


def write_whole(session: CassandraSession, groups: Iterable[list[Write]]) -> None:
    """Write groups of statements, each in one logged batch with some others; too large a group, row by row."""
    batches: list[list[Write]] = []
    room = 0
    for writes in groups:
        size = sum(map(_size, writes))
        if size > _BATCH_BYTES:
            for write in writes:
                session.write([write])
            continue
        if not batches or size > room:
            batches.append([])
            room = _BATCH_BYTES
        batches[-1] += writes
        room -= max(size, _BATCH_BYTES // _RECORDS_A_BATCH)
    work: list[Write] = []
    for writes in batches:
        batch = BatchStatement(BatchType.LOGGED)
        for statement, values in writes:
            batch.add(statement, values)
        work.append((batch, ()))
    session.write(work)


def _size(write: Write) -> int:
    """Return about how many bytes a statement's values are."""
    total = 0
    for value in write[1]:
        if isinstance(value, str):
            total += len(value.encode())
        elif isinstance(value, dict):
            total += sum(len(name) + (len(v.encode()) if isinstance(v, str) else 8) for name, v in value.items())
        else:
            total += 8
    return total

"""Revisions in Cassandra: numbers in one order for all writers, and a feed of changes that misses none.

A writer takes a block of numbers by a light-weight transaction, which in the same step notes that the block is in
use, and strikes the note out when its rows are written. The feed stops before the lowest block in use: a slow writer
delays it but is never passed over. The note of a killed writer expires.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from cassandra import ConsistencyLevel
from cassandra.query import BatchStatement, BatchType

from apbatch.errors import ServerError
from apbatch.index.cassandra.session import ALL, CassandraSession

#: Revisions in one partition of the table `change`.
BUCKET = 10_000
#: How long a block can be in use; the feed waits at most so long for a killed writer.
_LIFE_S = 300
_TRIES = 50


class Revisions:
    """The revisions of one catalogue."""

    def __init__(self, session: CassandraSession) -> None:
        self._session = session
        self._reading = session.prepare("SELECT next, writer, first FROM revision WHERE catalogue = ?")
        self._reading.consistency_level = ConsistencyLevel.SERIAL
        self._advance = session.prepare("UPDATE revision SET next = ? WHERE catalogue = ? IF next = ?")
        self._note = session.prepare(
            f"INSERT INTO revision (catalogue, writer, first) VALUES (?, ?, ?) USING TTL {_LIFE_S}"
        )
        self._strike = session.prepare("DELETE FROM revision WHERE catalogue = ? AND writer = ? IF EXISTS")

    def _state(self) -> tuple[int, dict[uuid.UUID, int]]:
        """Return the next revision, and the first of each block in use, by its writer."""
        rows = self._session.do(self._reading.bind((ALL,)))
        return rows[0]["next"], {row["writer"]: row["first"] for row in rows if row["first"] is not None}

    @contextmanager
    def block(self, size: int) -> Iterator[int]:
        """Give out `size` revisions, the first of which is yielded, for writes that are done within the context."""
        writer = uuid.uuid4()
        first = self._take(writer, size)
        start = time.monotonic()
        yield first  # after an error the note stays until it expires: some rows may be on their way
        if time.monotonic() - start > _LIFE_S:
            raise ServerError(
                "Cassandra took too long to write, the feed of changes may have passed by", remedy="ingest again"
            )
        self._session.do(self._strike.bind((ALL, writer)))

    def _take(self, writer: uuid.UUID, size: int) -> int:
        for attempt in range(_TRIES):
            first, in_use = self._state()
            if writer in in_use:  # taken by a statement whose answer was lost
                return in_use[writer]
            batch = BatchStatement(BatchType.UNLOGGED)  # of one partition
            batch.add(self._advance, (first + size, ALL, first))
            batch.add(self._note, (ALL, writer, first))
            if self._session.do(batch)[0]["[applied]"]:
                return int(first)
            time.sleep(random.uniform(0, 0.01 * (attempt + 1)))
        raise ServerError("too many writers ask for revisions at the same time", remedy="try again")

    def settled(self) -> int:
        """Return the revision before which nothing more will be written."""
        following, in_use = self._state()
        return min([following, *in_use.values()])

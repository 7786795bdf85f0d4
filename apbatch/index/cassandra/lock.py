"""Leases in Cassandra: light-weight transactions, and cells that expire by the server's clock."""

from __future__ import annotations

import math
import random
import secrets
import time

from cassandra import ConsistencyLevel
from cassandra.query import BatchStatement, BatchType

from apbatch.errors import ServerError
from apbatch.index.cassandra.session import CassandraSession
from apbatch.index.leases import Lease, held_by, lost

_TRIES = 50
_STEPS = 1 << 30


class Locks:
    """The leases of one catalogue. A token grows at each change of hands, the end of a lease included."""

    def __init__(self, session: CassandraSession) -> None:
        self._session = session

    def acquire(self, name: str, holder: str, ttl_s: float) -> Lease:
        """Take a lease for whole seconds, at least one; see `Catalogue.acquire`."""
        next_token = 0
        for attempt in range(_TRIES):
            token, present = self._state(name)
            if present == holder and token == next_token:  # taken by a statement whose answer was lost
                return Lease(name, holder, next_token, ttl_s)
            if present is not None:
                raise held_by(name, present, token or 0)
            test = "IF number = NULL" if token is None else "IF number = ? AND holder = NULL"
            values = () if token is None else (token,)
            # Numbers only grow, by steps that no other thread of this process, which has the same name, would take too.
            next_token = (token or 0) + 1 + secrets.randbelow(_STEPS)
            batch = BatchStatement(BatchType.UNLOGGED)  # of one partition
            advance = self._session.prepare(f"UPDATE lease SET number = ? WHERE name = ? {test}")
            batch.add(advance, (next_token, name, *values))
            batch.add(self._hold, (_whole(ttl_s), holder, name))
            if self._session.do(batch)[0]["[applied]"]:
                return Lease(name, holder, next_token, ttl_s)
            time.sleep(random.uniform(0, 0.01 * (attempt + 1)))
        raise ServerError(f"too many ask for the lease '{name}' at the same time", remedy="try again")

    def renew(self, lease: Lease) -> None:
        """Begin a lease's time anew; one that ran out is still good if nobody else took it."""
        cql = "UPDATE lease USING TTL ? SET holder = ? WHERE name = ? IF number = ?"
        rows = self._session.do(cql, _whole(lease.ttl_s), lease.holder, lease.name, lease.token)
        if not rows[0]["[applied]"]:
            raise lost(lease)

    def release(self, lease: Lease) -> None:
        """Give a lease back."""
        cql = "UPDATE lease SET number = ?, holder = NULL WHERE name = ? IF number = ?"
        self._session.do(cql, lease.token + 1, lease.name, lease.token)

    @property
    def _hold(self):  # type: ignore[no-untyped-def]
        return self._session.prepare("UPDATE lease USING TTL ? SET holder = ? WHERE name = ?")

    def _state(self, name: str) -> tuple[int | None, str | None]:
        statement = self._session.prepare("SELECT number, holder FROM lease WHERE name = ?")
        statement.consistency_level = ConsistencyLevel.SERIAL
        rows = self._session.do(statement.bind((name,)))
        return (rows[0]["number"], rows[0]["holder"]) if rows else (None, None)


def _whole(ttl_s: float) -> int:
    return max(1, math.ceil(ttl_s))

"""The servers by name, and the lock that keeps two `up` or `down` from meeting."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from apbatch.cluster.afs import Afs
from apbatch.cluster.cassandra import Cassandra
from apbatch.cluster.hdfs import Hdfs
from apbatch.cluster.history import History
from apbatch.cluster.postgres import Postgres
from apbatch.cluster.server import Server
from apbatch.cluster.spark import Spark
from apbatch.cluster.squid import Squid
from apbatch.cluster.yarn import Yarn
from apbatch.config import home
from apbatch.errors import UsageError, nearest_word
from apbatch.progress import say

SERVERS: dict[str, type[Server]] = {
    server.name: server for server in (Hdfs, Cassandra, Postgres, Spark, Yarn, History, Afs, Squid)
}
#: What `apbatch cluster up` starts when no server is named.
DEFAULT = ("hdfs", "cassandra", "spark")


def named(names: Iterable[str]) -> list[Server]:
    """Return the servers with these names.

    Raises
    ------
    UsageError
        With the nearest known name.
    """
    servers = []
    for name in names:
        if name not in SERVERS:
            raise UsageError(
                f"unknown server '{name}'",
                nearest=nearest_word(name, SERVERS),
                remedy=f"servers are {', '.join(SERVERS)}",
            )
        servers.append(SERVERS[name]())
    return servers


@contextmanager
def exclusively() -> Iterator[None]:
    """Wait until no other process brings servers up or down."""
    folder = home() / "cluster"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting: another process brings servers up or down")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield

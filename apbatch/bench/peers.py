"""The stores and catalogues that take part, and why one can't."""

from __future__ import annotations

import secrets

from apbatch.bench.suite import Setting
from apbatch.errors import ApbatchError
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.storage.backends import open_store
from apbatch.storage.store import Store

LOCAL, SQLITE, CASSANDRA = "local store", "SQLite", "Cassandra"
#: Name in the report, server that it needs, endpoint of that server.
_STORES = (("HDFS (hdfs-native)", "hdfs", "hdfs"), ("HDFS (WebHDFS)", "hdfs", "webhdfs"), ("AFS", "afs", "afs"))


def stores(setting: Setting) -> dict[str, Store]:
    """Return the stores that answer; the others are left out."""
    found = {LOCAL: open_store(f"file://{setting.scratch.absolute()}/store")}
    for peer, server, name in _STORES:
        try:
            store = open_store(f"{setting.servers.endpoint(server, name).rstrip('/')}/bench")
            store.info("")  # it must answer
            found[peer] = store
        except ApbatchError as error:
            setting.left_out[peer] = str(error)
    return found


def catalogues(setting: Setting) -> dict[str, Catalogue]:
    """Return empty catalogues, closed at the end; Cassandra's is a keyspace of its own, dropped at the end."""
    found = {SQLITE: open_catalogue(f"sqlite:///{setting.scratch.absolute()}/catalogue.sqlite")}
    try:
        address = setting.servers.endpoint("cassandra", "cassandra").rstrip("/")
        keyspace = f"bench_{secrets.token_hex(4)}"
        setting.at_end.callback(_drop, address, keyspace)
        found[CASSANDRA] = open_catalogue(f"{address}/{keyspace}")
    except ApbatchError as error:
        setting.left_out[CASSANDRA] = str(error)
    for catalogue in found.values():
        setting.at_end.callback(catalogue.close)
    return found


def _drop(address: str, keyspace: str) -> None:
    from cassandra.cluster import Cluster

    host, _, port = address.partition("://")[2].partition(":")
    cluster = Cluster([host], port=int(port or 9042))
    try:
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {keyspace}", timeout=60)
    finally:
        cluster.shutdown()

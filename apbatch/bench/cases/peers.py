"""The stores and catalogues that take part, and why one can't."""

from __future__ import annotations

import secrets
from typing import cast

from apbatch.bench.cases.bare_index import BareSqlite
from apbatch.bench.suite import Setting
from apbatch.errors import ApbatchError
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.storage.backends import open_store
from apbatch.storage.store import Store

LOCAL, SQLITE, POSTGRES, CASSANDRA = "local store", "SQLite", "PostgreSQL", "Cassandra"
#: Hand-written SQL through Python's own driver, in tables of the same kind.
BARE = "SQLite (bare driver)"
#: Name in the report, server that it needs, endpoint of that server.
_STORES = (("HDFS (hdfs-native)", "hdfs", "hdfs"), ("HDFS (WebHDFS)", "hdfs", "webhdfs"), ("AFS", "afs", "afs"))


def stores(setting: Setting) -> dict[str, Store]:
    """Return the stores that answer; the others are left out."""
    by_peer = {LOCAL: open_store(f"file://{setting.scratch.absolute()}/store")}
    for peer, server, name in _STORES:
        try:
            store = open_store(f"{setting.servers.endpoint(server, name).rstrip('/')}/bench")
            store.info("")  # it must answer
            by_peer[peer] = store
        except ApbatchError as error:
            setting.left_out[peer] = str(error)
    return by_peer


def catalogues(setting: Setting) -> dict[str, Catalogue]:
    """Return empty catalogues, closed at the end; those on servers are dropped at the end."""
    by_peer = {SQLITE: open_catalogue(f"sqlite:///{setting.scratch.absolute()}/catalogue.sqlite")}
    by_peer[BARE] = cast("Catalogue", BareSqlite(setting.scratch.absolute() / "bare.sqlite"))
    try:
        address = setting.servers.endpoint("postgres", "postgres").rstrip("/")
        database = f"bench_{secrets.token_hex(4)}"
        setting.at_end.callback(_drop_database, address, database)
        by_peer[POSTGRES] = open_catalogue(f"{address}/{database}")
    except ApbatchError as error:
        setting.left_out[POSTGRES] = str(error)
    try:
        address = setting.servers.endpoint("cassandra", "cassandra").rstrip("/")
        keyspace = f"bench_{secrets.token_hex(4)}"
        setting.at_end.callback(_drop, address, keyspace)
        by_peer[CASSANDRA] = open_catalogue(f"{address}/{keyspace}")
    except ApbatchError as error:
        setting.left_out[CASSANDRA] = str(error)
    for catalogue in by_peer.values():
        setting.at_end.callback(catalogue.close)
    return by_peer


def _drop_database(address: str, database: str) -> None:
    import psycopg

    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)".encode())


def _drop(address: str, keyspace: str) -> None:
    from cassandra.cluster import Cluster

    host, _, port = address.partition("://")[2].partition(":")
    cluster = Cluster([host], port=int(port or 9042))
    try:
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {keyspace}", timeout=60)
    finally:
        cluster.shutdown()

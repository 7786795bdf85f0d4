"""The stores and catalogues that take part, and why one can't."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from apbatch.bench.suite import Setting
from apbatch.errors import ApbatchError
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.localfiles import write_whole
from apbatch.storage.backends import open_store
from apbatch.storage.store import Store

if TYPE_CHECKING:
    from apbatch.bench.cases.catalogue.bare_sql import BareIndex

LOCAL, HDFS, SQLITE, POSTGRES, CASSANDRA = "local store", "HDFS (hdfs-native)", "SQLite", "PostgreSQL", "Cassandra"
#: Name in the report, server that it needs, endpoint of that server.
_STORES = ((HDFS, "hdfs", "hdfs"), ("HDFS (WebHDFS)", "hdfs", "webhdfs"), ("AFS", "afs", "afs"))


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


def catalogue_urls(setting: Setting, name: str) -> dict[str, str]:
    """Return the URL of a new catalogue on each back-end that is up; those on servers are dropped at the end.

    Parameters
    ----------
    setting : Setting
    name : str
        Of SQLite's file, and in the names of databases: suites have their own.
    """
    urls = {SQLITE: f"sqlite:///{setting.scratch.absolute()}/{name}.sqlite"}
    for peer, server, drop in ((POSTGRES, "postgres", _drop_database), (CASSANDRA, "cassandra", _drop)):
        try:
            address = setting.servers.endpoint(server, server).rstrip("/")
        except ApbatchError as error:
            setting.left_out[peer] = str(error)
            continue
        database = _database(setting, name)
        setting.at_end.callback(drop, address, database)
        urls[peer] = f"{address}/{database}"
    return urls


def catalogues(setting: Setting, urls: Mapping[str, str]) -> dict[str, Catalogue]:
    """Return the catalogues at some URLs by peer, closed at the end; one that can't be opened is left out."""
    by_peer = {}
    for peer, url in urls.items():
        try:
            by_peer[peer] = open_catalogue(url)
        except ApbatchError as error:
            setting.left_out[peer] = str(error)
            continue
        setting.at_end.callback(by_peer[peer].close)
    return by_peer


def bare_peers(setting: Setting) -> dict[str, BareIndex]:
    """Return hand-written SQL and CQL through the bare drivers, for the back-ends that are up, closed at the end."""
    from apbatch.bench.cases.catalogue.bare_sql import BareSqlite

    peers: dict[str, BareIndex] = {}
    for peer, url in catalogue_urls(setting, "bare").items():
        try:
            if peer == POSTGRES:
                from apbatch.bench.cases.catalogue.bare_postgres import BarePostgres

                bare: BareIndex = BarePostgres(url)
            elif peer == CASSANDRA:
                from apbatch.bench.cases.catalogue.bare_cassandra import BareCassandra

                bare = BareCassandra(url)
            else:
                bare = BareSqlite(Path(url.removeprefix("sqlite:///")))
        except ApbatchError as error:
            setting.left_out[bare_name(peer)] = str(error)
            continue
        setting.at_end.callback(bare.close)
        peers[bare_name(peer)] = bare
    return peers


def bare_name(peer: str) -> str:
    """Return the name of the bare driver of a back-end."""
    return f"{peer} (bare driver)"


def _database(setting: Setting, name: str) -> str:
    """Return a name of a run's own.

    It is kept beside the run, so that a run that goes on finds what it has loaded, and a new one in a folder of the
    same name does not.
    """
    kept = setting.scratch / "databases"
    if not kept.exists():
        write_whole(kept, secrets.token_hex(6))
    return f"bench_{name}_{kept.read_text()}"


def _drop_database(address: str, database: str) -> None:
    import psycopg

    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)".encode())


def _drop(address: str, keyspace: str) -> None:
    from cassandra.cluster import Cluster

    host, _, port = address.partition("://")[2].partition(":")
    cluster = Cluster([host], port=int(port or 9042), connect_timeout=10, control_connection_timeout=30)
    try:
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {keyspace}", timeout=60)
    finally:
        cluster.shutdown()

"""Which store of events serves which URL."""

from __future__ import annotations

from apbatch.errors import MissingSoftwareError, UsageError, nearest_word
from apbatch.index.events.store import EventStore

_SCHEMES = ("file", "hdfs", "webhdfs", "afs", "cassandra", "postgresql")


def open_events(url: str) -> EventStore:
    """Open (and on first use create) the store of events at a URL.

    Parameters
    ----------
    url : str
        ``file:///FOLDER``, ``hdfs://HOST:PORT/FOLDER`` or another store for Parquet files;
        ``cassandra://HOST:PORT/KEYSPACE``; ``postgresql://USER@HOST:PORT/DATABASE``.

    Raises
    ------
    UsageError
        If the scheme is unknown.
    ServerError
        If the server can't be reached.
    MissingSoftwareError
        If a package is missing.
    """
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise UsageError(
            f"no store of events of kind '{scheme}'",
            where=url,
            nearest=nearest_word(scheme, _SCHEMES),
            remedy="file:///FOLDER, hdfs://HOST:PORT/FOLDER, cassandra://HOST:PORT/KEYSPACE or postgresql://…/DATABASE",
        )
    extra = {"cassandra": "cassandra", "postgresql": "postgres"}.get(scheme, "duckdb")
    try:
        if scheme == "cassandra":
            from apbatch.index.events.cassandra import CassandraEvents

            return CassandraEvents(url)
        if scheme == "postgresql":
            from apbatch.index.events.postgres import PostgresEvents

            return PostgresEvents(url)
        from apbatch.index.events.parquet import ParquetEvents

        return ParquetEvents(url)
    except ImportError as error:
        raise MissingSoftwareError(
            f"a package for {scheme} is missing: {error}", remedy=f"pip install 'apbatch[{extra}]'"
        ) from error

"""Which back-end serves which catalogue URL."""

from __future__ import annotations

from apbatch.errors import MissingSoftwareError, UsageError, nearest_word
from apbatch.index.catalogue import Catalogue

_SCHEMES = ("sqlite", "postgresql", "cassandra")
_URLS = "sqlite:///FILE, postgresql://USER@HOST:PORT/DATABASE or cassandra://HOST:PORT/KEYSPACE"


def open_catalogue(url: str) -> Catalogue:
    """Open (and on first use create) the catalogue at a URL.

    It is ``sqlite:///FILE``, ``postgresql://USER@HOST:PORT/DATABASE`` or ``cassandra://HOST:PORT/KEYSPACE``.

    Raises
    ------
    UsageError
        If the scheme is unknown, or that of a server in front of a catalogue.
    ServerError
        If the server can't be reached.
    """
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        from apbatch.index.sql.sqlite import SqliteCatalogue

        return SqliteCatalogue(url)
    if scheme == "postgresql":
        try:
            from apbatch.index.sql.postgres import PostgresCatalogue
        except ImportError as error:
            raise MissingSoftwareError(
                f"the PostgreSQL driver is missing: {error}", remedy="pip install 'apbatch[postgres]'"
            ) from error
        return PostgresCatalogue(url)
    if scheme == "cassandra":
        try:
            from apbatch.index.cassandra.catalogue import CassandraCatalogue
        except ImportError as error:
            raise MissingSoftwareError(
                f"the Cassandra driver is missing: {error}", remedy="pip install 'apbatch[cassandra]'"
            ) from error
        return CassandraCatalogue(url)
    if scheme in ("http", "https"):
        raise UsageError(
            "this is done on the catalogue itself, not on a server in front of it",
            where=url,
            remedy=f"run it beside the catalogue, and name that: {_URLS}",
        )
    raise UsageError(
        f"no catalogue of kind '{scheme}'",
        where=url,
        nearest=nearest_word(scheme, _SCHEMES),
        remedy=_URLS,
    )

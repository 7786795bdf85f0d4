"""Which back-end serves which catalogue URL."""

from __future__ import annotations

from apbatch.errors import MissingSoftwareError, UsageError, nearest_word
from apbatch.index.catalogue import Catalogue

_SCHEMES = ("sqlite", "cassandra")


def backend_for(url: str) -> Catalogue:
    """Return the catalogue at `url`; see `apbatch.index.catalogue.open_catalogue`."""
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        from apbatch.index.sql import SqlCatalogue

        return SqlCatalogue(url)
    if scheme == "cassandra":
        try:
            from apbatch.index.cassandra import CassandraCatalogue
        except ImportError as error:
            raise MissingSoftwareError(
                f"the Cassandra driver is missing: {error}", remedy="pip install 'apbatch[cassandra]'"
            ) from error
        return CassandraCatalogue(url)
    raise UsageError(
        f"no catalogue of kind '{scheme}'",
        where=url,
        nearest=nearest_word(scheme, _SCHEMES),
        remedy="sqlite:///FILE or cassandra://HOST:PORT/KEYSPACE",
    )

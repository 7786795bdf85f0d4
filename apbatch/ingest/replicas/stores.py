"""Which store a mirror writes to, and from which place a file with replicas is best read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from apbatch.config import Settings, endpoints, fill_in, home, load_settings
from apbatch.errors import ServerError, UsageError, nearest_word
from apbatch.index.files import FileRecord, Replica
from apbatch.ingest.opening import source_url
from apbatch.ingest.sites import sites
from apbatch.storage.backends import open_store
from apbatch.storage.places import url_of_place
from apbatch.storage.store import Checksums, Store

#: Names that may stand for a URL as the target of a mirror.
TARGETS = ("hdfs", "webhdfs", "afs", "local", "store")
#: Stands for the checksum of a replica whose bytes can't be had whole; it equals no file's: readers pass it over.
DAMAGED = "damaged"


def target_store(target: str, settings: Settings | None = None) -> Store:
    """Return the store that ``--to`` names: a URL, or one of `TARGETS`.

    Raises
    ------
    UsageError
        If it is neither, or a folder of a site, where nothing is written.
    ServerError
        If the server of that name is not up.
    """
    if "/" in target:
        store = open_store(url_of_place(target))
        _refuse_sites(store)
        return store
    if target not in TARGETS:
        raise UsageError(
            f"unknown target '{target}'",
            nearest=nearest_word(target, TARGETS),
            remedy=f"give a path, a URL or one of {', '.join(TARGETS)}",
        )
    if target == "local":
        return open_store(f"file://{home()}/mirror")
    if target == "store":
        return open_store(f"{(settings or load_settings()).store}/mirror")
    if target == "webhdfs" and "webhdfs" not in endpoints():
        raise ServerError("the server 'hdfs' is not up", remedy="apbatch cluster up hdfs")
    return open_store(f"{fill_in('{' + target + '}').rstrip('/')}/mirror")


def _refuse_sites(store: Store) -> None:
    scheme, _, path = store.url.partition("://")
    if scheme not in ("file", "afs"):
        return
    folder = Path(path).resolve()
    for site in sites():
        if not site.is_remote and folder.is_relative_to(Path(site.root).resolve()):
            raise UsageError(
                f"the folder belongs to the site '{site.name}', where nothing is written",
                where=store.url,
                remedy="choose a folder outside of every site",
            )


def replica_path(record: FileRecord, under: str = "") -> str:
    """Return the path of a file's replica in a store; `under` is a folder for all of them."""
    path, folder = record.path.lstrip("/"), under.strip("/")
    return f"{folder}/{path}" if folder else path


def registered_checksums(record: FileRecord) -> Checksums:
    """Return what the bytes of a registered file must be."""
    return Checksums(record.checksum, record.adler32, record.size)


def best_source(record: FileRecord, replicas: Iterable[Replica], prefer: str | None = None) -> str:
    """Return the URL at which a file is best read.

    Parameters
    ----------
    record : FileRecord
    replicas : iterable of Replica
        Its replicas; those of an older content are passed over.
    prefer : str, optional
        Kind (``hdfs``) or URL of the preferred store.

    Returns
    -------
    str
        The replica in the preferred store, or else the file in place at its site.
    """
    if prefer:
        root = prefer.rstrip("/") + "/"
        for replica in sorted(replicas, key=lambda replica: replica.verified, reverse=True):
            if replica.checksum == record.checksum and (replica.kind == prefer or replica.url.startswith(root)):
                return replica.url
    return source_url(record)

"""Removes replicas that no rule wants: only where rules put them, and never the last good copy of a file.

Before a replica is removed, another copy of the same content, which stays, is read whole and compared: a replica, or
the file at its site. The file goes first and its record after it, so that a kill in between leaves a record of
nothing, which the next run forgets, and never bytes that nobody knows of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from apbatch.errors import ApbatchError, UsageError
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord, Replica, State
from apbatch.index.leases import Keeper, leased
from apbatch.ingest.opening import open_source as open_at_site
from apbatch.ingest.replicas.copying import OpenSource
from apbatch.ingest.replicas.rules import ReplicaRule, ReplicaRules
from apbatch.ingest.replicas.stores import registered_checksums, replica_path
from apbatch.storage.backends import store_of
from apbatch.storage.hashing import hash_stream
from apbatch.storage.store import FileInfo

#: One prune at a time: two could each take the other's copy for the one that stays.
LEASE = "prune replicas"
#: Reading a large copy whole takes its time, s.
_TTL_S = 3600.0
_PAGE = 500


class Pruned(StrEnum):
    """What became of a replica that no rule wants."""

    REMOVED = "removed"
    WOULD_REMOVE = "would be removed"
    KEPT = "kept: the last good copy"
    FORGOTTEN = "was gone"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PrunedReplica:
    """A replica that no rule wants.

    Attributes
    ----------
    path, url : str
        Of the file and of its replica.
    size : int
        Bytes.
    outcome : Pruned
    reason : str, optional
        Which copy stays; or why this one does.
    """

    path: str
    url: str
    size: int
    outcome: Pruned
    reason: str | None = None


def prune(
    catalogue: Catalogue, rules: ReplicaRules, *, dry_run: bool = False, open_source: OpenSource = open_at_site
) -> Iterator[PrunedReplica]:
    """Remove replicas that no rule wants, and yield what became of each.

    Looked at are the replicas that the catalogue has, at the URLs where these rules would put them; any other is
    left alone, whatever the catalogue says.

    Parameters
    ----------
    catalogue : Catalogue
    rules : ReplicaRules
    dry_run : bool
        Remove nothing; other copies are read all the same.
    open_source : callable
        Opens the file of a record at its site.

    Raises
    ------
    LeaseHeldError
        If another prune of this catalogue goes on.
    """
    with leased(catalogue, LEASE, _TTL_S) as keeper:
        files = (change.record for change in catalogue.all_changes(0))
        records = (record for record in files if record is not None)
        while page := list(islice(records, _PAGE)):
            replicas = catalogue.replicas([record.path for record in page])
            for record in page:
                urls = [replica.url for replica in replicas[record.path]]
                if unwanted := rules.unwanted(record, urls) if urls else {}:
                    yield from _of_file(
                        catalogue, record, replicas[record.path], unwanted, dry_run, open_source, keeper
                    )


def _of_file(
    catalogue: Catalogue,
    record: FileRecord,
    replicas: list[Replica],
    unwanted: dict[str, ReplicaRule],
    dry_run: bool,
    open_source: OpenSource,
    keeper: Keeper,
) -> Iterator[PrunedReplica]:
    right: set[str] = set()  # what was found right for the first replica is so for the others
    left = [one for one in replicas if one.checksum == record.checksum]
    # Those that readers pass over go first: of copies that nobody wants, the last good one is kept.
    for url, rule in sorted(unwanted.items(), key=lambda item: item[0] in {one.url for one in left}):
        keeper.keep()
        path = replica_path(record, rule.under)
        try:
            info = rule.store.info(path)
            if info is None:
                if not dry_run:
                    catalogue.remove_replicas([(record.path, url)])
                yield PrunedReplica(record.path, url, record.size, Pruned.FORGOTTEN)
                continue
            if info.is_directory:
                raise UsageError("a folder is where the replica should be", where=url)
            others = sorted((one for one in left if one.url != url), key=lambda one: one.url in unwanted)
            staying = _good_copy(record, others, open_source, info, right)
            if staying is None:
                yield PrunedReplica(record.path, url, info.size, Pruned.KEPT, "no other copy is right")
                continue
            if not dry_run:
                keeper.keep()
                rule.store.remove(path)
                catalogue.remove_replicas([(record.path, url)])
            left = [one for one in left if one.url != url]
            outcome = Pruned.WOULD_REMOVE if dry_run else Pruned.REMOVED
            yield PrunedReplica(record.path, url, info.size, outcome, f"{staying} is right")
        except (ApbatchError, OSError) as error:
            yield PrunedReplica(record.path, url, record.size, Pruned.FAILED, str(error))


def _good_copy(
    record: FileRecord, replicas: list[Replica], open_source: OpenSource, goes: FileInfo, right: set[str]
) -> str | None:
    """Return where a copy is that was read whole just now and is right; None if there is none.

    One file may be reached by two URLs (``hdfs://`` and ``webhdfs://``, a link): what has the very size and time of
    change of the replica that `goes` is taken for the same file, and does not count.

    Parameters
    ----------
    record : FileRecord
    replicas : list of Replica
        The others, the best first.
    open_source : callable
    goes : FileInfo
        Of the replica that is to be removed.
    right : set of str
        Copies that were read whole already; takes those that are read now.
    """
    if not record.checksum:
        return None
    expected = registered_checksums(record)
    for replica in replicas:
        try:
            store, path = store_of(replica.url)
            info = store.info(path)
            if info is None or _same(info.size, info.mtime_ns, goes):
                continue
            if replica.url in right or store.checksums(path) == expected:
                right.add(replica.url)
                return replica.url
        except (ApbatchError, OSError):
            continue
    source = f"{record.site}:{record.source}"
    if record.state is State.REGISTERED:
        try:
            with open_source(record) as stream:
                status = os.fstat(stream.fileno())
                if _same(status.st_size, status.st_mtime_ns, goes):
                    return None
                if source in right or hash_stream(stream) == expected:
                    right.add(source)
                    return source
        except (ApbatchError, OSError):
            return None
    return None


def _same(size: int, mtime_ns: int | None, goes: FileInfo) -> bool:
    return (size, mtime_ns) == (goes.size, goes.mtime_ns)

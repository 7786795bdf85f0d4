"""A mirror whose copies are made by Spark's workers: each reads the sites and writes the store by itself.

The driver reads the selection page by page, hands it out in rounds, and records what is right; nothing is held whole.
Workers need the sites' folders under the same paths. A task that is tried again finds what the first attempt
published, compares it and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

from apbatch.errors import NotFoundError
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord, Replica
from apbatch.ingest.opening import open_source
from apbatch.ingest.replicas.copying import Copier
from apbatch.ingest.replicas.mirror import LARGE, copy_all, record_replicas, with_replicas
from apbatch.ingest.replicas.outcomes import MirroredFile, Outcome
from apbatch.ingest.replicas.rules import ReplicaRule
from apbatch.ingest.replicas.stores import replica_path
from apbatch.ingest.site import Site
from apbatch.ingest.sites import load_site
from apbatch.progress import say
from apbatch.spark.bulk import run_tasks
from apbatch.spark.jobs import Meter
from apbatch.storage.backends import open_store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: What one task copies at most, and how many tasks a round has for each core.
_FILES, _BYTES, _ROUNDS = 200, 8 * LARGE, 4
#: Files that one task copies at the same time.
_THREADS = 8

Pair = tuple[FileRecord, Replica | None]


@dataclass(frozen=True)
class CopyFiles:
    """What a task does with some files: sent to the workers."""

    url: str
    under: str
    verify: bool
    dry_run: bool
    sites: dict[str, Site]

    def __call__(self, files: list[Pair]) -> list[tuple[FileRecord, MirroredFile]]:
        """Copy the files and return what became of each."""
        copier = Copier(open_store(self.url), self.under, self.verify, self.dry_run, self._open)
        pairs = [pair for ended in copy_all(copier, files, _THREADS) for pair in ended]
        copier.settle(pairs)
        return pairs

    def _open(self, record: FileRecord) -> BinaryIO:
        site = self.sites.get(record.site)
        if site is None:
            raise NotFoundError(f"there is no site '{record.site}' where the mirror was started", where=record.path)
        return open_source(record, site)


def mirror_on_spark(
    spark: SparkSession,
    catalogue: Catalogue,
    records: Iterable[FileRecord],
    rule: ReplicaRule,
    *,
    verify: bool = False,
    dry_run: bool = False,
) -> Iterator[MirroredFile]:
    """Give every file a verified replica, by Spark's workers, and yield what became of each.

    Parameters
    ----------
    spark : SparkSession
    catalogue : Catalogue
        Only the driver uses it.
    records : iterable of FileRecord
    rule : ReplicaRule
        Names the store and the folder.
    verify, dry_run : bool
        As `apbatch.ingest.replicas.mirror.mirror` takes them.

    Raises
    ------
    ServerError
        If a task failed too often. What was copied is found by the next run.
    """
    meter, sites = Meter(), dict[str, Site]()
    cores = int(spark.sparkContext.defaultParallelism)
    tasks = _tasks(with_replicas(catalogue, records, rule.url))
    gone: str | None = None
    while part := list(islice(tasks, _ROUNDS * cores)):
        if gone is not None:  # no file of the store would fare better
            for record in (record for files in part for record, _ in files):
                url = rule.store.url_of(replica_path(record, rule.under))
                yield MirroredFile(record.path, url, record.size, Outcome.NOT_TRIED, gone)
            continue
        _learn(sites, part)
        work = CopyFiles(rule.store.url, rule.under, verify, dry_run, sites)
        for ended in run_tasks(spark, part, work, "mirror", meter):
            if not dry_run:
                record_replicas(catalogue, rule.store, ended)
            for _, file in ended:
                if file.outcome is Outcome.FAILED:
                    say(f"{file.path}: {file.reason}")
                if file.outcome is Outcome.NOT_TRIED:
                    gone = file.reason
                yield file


def _tasks(files: Iterator[Pair]) -> Iterator[list[Pair]]:
    """Cut files into tasks, by number and by bytes."""
    task: list[Pair] = []
    size = 0
    for pair in files:
        if task and (len(task) == _FILES or size + pair[0].size > _BYTES):
            yield task
            task, size = [], 0
        task.append(pair)
        size += pair[0].size
    if task:
        yield task


def _learn(sites: dict[str, Site], tasks: Iterable[list[Pair]]) -> None:
    """Add the descriptions of sites that tasks need; one that is not known here is an error of its files."""
    for name in {record.site for files in tasks for record, _ in files} - sites.keys():
        try:
            sites[name] = load_site(name)
        except NotFoundError:
            continue

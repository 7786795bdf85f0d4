"""Mirror: copies of selected files in a store, each compared with its registered checksum before it is recorded.

A mirror can be killed at any time and started again. What is recorded and still there is left alone; what was
published but not recorded is compared and recorded; only the rest is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from threading import Event
from typing import BinaryIO

from apbatch.config import Settings, endpoints, fill_in, home, load_settings
from apbatch.errors import ApbatchError, ServerError, UsageError, nearest_word
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord, Replica
from apbatch.index.query import Query
from apbatch.ingest.opening import ingest_remedy, source_url
from apbatch.ingest.opening import open_source as open_at_site
from apbatch.progress import progress, say
from apbatch.storage.backends import open_store
from apbatch.storage.places import url_of_place
from apbatch.storage.store import Checksums, Store, StoreRefusedError
from apbatch.storage.transfer import InterruptedTransferError, SourceChangedError, transfer

OpenSource = Callable[[FileRecord], BinaryIO]

#: Files that are copied at the same time: enough to hide waiting for servers, few enough for a site's disks.
THREADS = 4
#: Names that may stand for a URL as the target of a mirror.
TARGETS = ("hdfs", "webhdfs", "afs", "local", "store")


class Outcome(StrEnum):
    """What a mirror did with one file."""

    COPIED = "copied"
    REPAIRED = "repaired"
    ADOPTED = "recorded"
    VERIFIED = "verified"
    SKIPPED = "there already"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class MirroredFile:
    """What became of one file.

    Attributes
    ----------
    path : str
        Logical path.
    url : str
        Where its replica is or would be.
    reason : str, optional
        Why it failed.
    """

    path: str
    url: str
    size: int
    outcome: Outcome
    reason: str | None = None


@dataclass
class MirrorSummary:
    """What a mirror did.

    Attributes
    ----------
    store : str
        URL of the store.
    files : list of MirroredFile
        One for each selected file, in the order in which they ended.
    """

    store: str
    files: list[MirroredFile] = field(default_factory=list)

    def count(self, *outcomes: Outcome) -> int:
        """Return how many files ended in one of these ways."""
        return sum(file.outcome in outcomes for file in self.files)

    @property
    def bytes_copied(self) -> int:
        """Bytes that were written into the store."""
        return sum(file.size for file in self.files if file.outcome in (Outcome.COPIED, Outcome.REPAIRED))

    @property
    def failures(self) -> list[MirroredFile]:
        """Files without a good replica."""
        return [file for file in self.files if file.outcome in (Outcome.FAILED, Outcome.NOT_TRIED)]

    def record(self) -> dict[str, object]:
        """Return the summary as one flat record."""
        counts = {outcome.value: self.count(outcome) for outcome in Outcome}
        return {"store": self.store, "files": len(self.files), **counts, "bytes copied": self.bytes_copied}


def target_store(target: str, settings: Settings | None = None) -> Store:
    """Return the store that ``--to`` names: a URL, or one of `TARGETS`.

    Raises
    ------
    UsageError
        If it is neither.
    ServerError
        If the server of that name is not up.
    """
    if "/" in target:
        return open_store(url_of_place(target))
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


def registered_checksums(record: FileRecord) -> Checksums:
    """Return what the bytes of a registered file must be."""
    return Checksums(record.checksum, record.adler32, record.size)


def mirror(
    catalogue: Catalogue,
    query: Query,
    store: Store,
    *,
    under: str = "",
    verify: bool = False,
    threads: int = THREADS,
    open_source: OpenSource | None = None,
) -> MirrorSummary:
    """Give every selected file a verified replica in a store and record it.

    Parameters
    ----------
    catalogue : Catalogue
    query : Query
        Which files; those that are missing at their site or in quarantine are no candidates.
    store : Store
        Replicas lie under their logical paths below its root.
    under : str
        Folder below the root for all of them.
    verify : bool
        Read replicas that are there already and compare them, too; what differs is copied anew.
    threads : int
        How many files at the same time.
    open_source : callable, optional
        Opens the file of a record; by default at its site.

    Returns
    -------
    MirrorSummary
        With every file that failed and why; a failure does not stop the others, but a store that is gone, or refuses
        every file (safe mode, quota or permission of its root), does.
    """
    records = list(catalogue.select(query))
    return mirror_records(
        catalogue, records, store, under=under, verify=verify, threads=threads, open_source=open_source
    )


def mirror_records(
    catalogue: Catalogue,
    records: Iterable[FileRecord],
    store: Store,
    *,
    under: str = "",
    verify: bool = False,
    threads: int = THREADS,
    open_source: OpenSource | None = None,
) -> MirrorSummary:
    """Give every file of `records` a verified replica; see `mirror`."""
    open_source = open_source or open_at_site
    records = list(records)
    summary = MirrorSummary(store.url)
    worker = _Worker(store, under.strip("/"), verify, open_source)
    running: dict[Future[MirroredFile], FileRecord] = {}

    # The catalogue is used by this thread alone; the others only move bytes.
    def collect(when: str) -> None:
        done, _ = wait(running, return_when=when)
        for future in done:
            record = running.pop(future)
            file = future.result()
            _note_replica(catalogue, store, record, file)
            summary.files.append(file)
            task.advance()
            if file.outcome is Outcome.FAILED:
                say(f"{file.path}: {file.reason}")

    with ThreadPoolExecutor(threads, thread_name_prefix="mirror") as pool, progress("mirror", len(records)) as task:
        try:
            for record in records:
                url = store.url_of(worker.target(record))
                known = next((one for one in catalogue.replicas([record.path])[record.path] if one.url == url), None)
                running[pool.submit(worker.run, record, known)] = record
                task.note(record.path)
                if len(running) >= 2 * threads:
                    collect(FIRST_COMPLETED)
            while running:
                collect(FIRST_COMPLETED)
        except BaseException:
            worker.stop.set()  # the threads give up after their present block
            raise
    return summary


def _note_replica(catalogue: Catalogue, store: Store, record: FileRecord, file: MirroredFile) -> None:
    if file.outcome in (Outcome.COPIED, Outcome.REPAIRED, Outcome.ADOPTED, Outcome.VERIFIED):
        now = datetime.now(UTC)
        catalogue.add_replicas([Replica(record.path, file.url, store.kind, record.checksum, now)])


class _Worker:
    """What is done with one file, in a thread."""

    def __init__(self, store: Store, under: str, verify: bool, open_source: OpenSource) -> None:
        self._store, self._under, self._verify, self._open_source = store, under, verify, open_source
        self.stop = Event()
        self._gone: str | None = None

    def target(self, record: FileRecord) -> str:
        """Return the path of a record's replica in the store."""
        return f"{self._under}/{record.path.lstrip('/')}" if self._under else record.path.lstrip("/")

    def run(self, record: FileRecord, known: Replica | None) -> MirroredFile:
        """Make sure that the replica is there and right."""
        url = self._store.url_of(self.target(record))
        if self.stop.is_set():
            return MirroredFile(record.path, url, record.size, Outcome.NOT_TRIED, self._gone or "told to stop")
        try:
            outcome = self._ensure(record, known)
        except SourceChangedError as error:
            error.where, error.remedy = record.source, ingest_remedy(record)
            return MirroredFile(record.path, url, record.size, Outcome.FAILED, str(error))
        except InterruptedTransferError as error:
            return MirroredFile(record.path, url, record.size, Outcome.NOT_TRIED, str(error))
        except (ApbatchError, OSError) as error:
            if isinstance(error, StoreRefusedError):
                self._give_up(f"the store takes nothing: {error}")
            elif isinstance(error, ServerError):
                self._check_store()
            return MirroredFile(record.path, url, record.size, Outcome.FAILED, str(error))
        return MirroredFile(record.path, url, record.size, outcome)

    def _ensure(self, record: FileRecord, known: Replica | None) -> Outcome:
        path, expected = self.target(record), registered_checksums(record)
        info = self._store.info(path)
        there = info is not None and not info.is_directory and info.size == record.size
        if there:
            recorded = known is not None and known.checksum == record.checksum
            if recorded and not self._verify:
                return Outcome.SKIPPED
            if self._holds(path, expected):
                return Outcome.VERIFIED if recorded else Outcome.ADOPTED
        transfer(lambda: self._open_source(record), self._store, path, expected, stop=self.stop.is_set)
        # A replica that was recorded, or had been published, was damaged; anything else is new.
        return Outcome.REPAIRED if known is not None and known.checksum == record.checksum else Outcome.COPIED

    def _holds(self, path: str, expected: Checksums) -> bool:
        """Compare a replica's content; one that can't be read (HDFS: all copies of a block damaged) is not right."""
        try:
            return self._store.checksums(path) == expected
        except StoreRefusedError:
            raise
        except ServerError:
            if self._reachable():
                return False
            raise

    def _reachable(self) -> bool:
        try:
            self._store.info("")
        except ServerError:
            return False
        return True

    def _check_store(self) -> None:
        """After a failure of the server: if it does not answer at all, don't try the other files."""
        if not self.stop.is_set() and not self._reachable():
            self._give_up(f"the store {self._store.url} does not answer")

    def _give_up(self, reason: str) -> None:
        """Leave the other files untried: none would fare better."""
        self._gone = reason
        self.stop.set()


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

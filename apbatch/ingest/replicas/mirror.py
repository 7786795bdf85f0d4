"""Mirror: copies of selected files in a store, each compared with its registered checksum before it is recorded.

A mirror can be killed at any time and started again. What is recorded and still there is left alone; what was
published but not recorded is compared and recorded; only the rest is copied. Nothing is held whole: the selection is
read by pages, and what became of a file is handed on when it ended.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Condition

from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord, Replica
from apbatch.index.query import Query, Search
from apbatch.ingest.opening import open_source as open_at_site
from apbatch.ingest.replicas.copying import Copier, OpenSource
from apbatch.ingest.replicas.outcomes import GOOD, MirroredFile, MirrorSummary, Outcome, summarise
from apbatch.progress import progress, say
from apbatch.storage.store import Store

#: Files that are copied at the same time: enough to hide waiting for servers, and fewer of large ones, which move bytes
#: all the time and of which a client may keep so many bytes in memory.
FILES, LARGE_FILES, LARGE = 32, 4, 32 << 20
#: Records whose replicas are asked for at once.
_PAGE = 500
#: Replicas that are recorded at once at most, and how long the first of them waits, s; so many files are in hand for
#: threads that end meanwhile.
_TOGETHER, _PATIENCE_S = 64, 0.5

#: A file, and what became of it.
Copied = tuple[FileRecord, MirroredFile]


class Room:
    """How many files may be under way: fewer of large ones, and half as many after each failure of the server.

    What it gave way it takes back one file at a time, as copies succeed.
    """

    def __init__(self, files: int) -> None:
        self._most, self._limit = files, float(files)
        self._files, self._bytes = 0, 0

    def admits(self, record: FileRecord) -> bool:
        """Tell whether one more file may begin; the first always may."""
        if self._files == 0:
            return True
        return self._files + 1 <= self._limit and self._bytes + _weight(record) <= LARGE_FILES * LARGE

    def enter(self, record: FileRecord) -> None:
        """Count a file that begins."""
        self._files += 1
        self._bytes += _weight(record)

    def leave(self, record: FileRecord, setbacks: int) -> None:
        """Count a file that ended; `setbacks` is how often the server failed since the last one did."""
        self._files -= 1
        self._bytes -= _weight(record)
        if setbacks:
            self._limit = max(1.0, self._limit / 2)
        else:
            self._limit = min(float(self._most), self._limit + 1 / self._limit)


def _weight(record: FileRecord) -> int:
    return min(record.size, LARGE)


def mirror(
    catalogue: Catalogue,
    query: Query | Search,
    store: Store,
    *,
    under: str = "",
    verify: bool = False,
    dry_run: bool = False,
    threads: int = FILES,
    open_source: OpenSource | None = None,
) -> MirrorSummary:
    """Give every selected file a verified replica in a store and record it.

    Parameters
    ----------
    catalogue : Catalogue
    query : Query or Search
        Which files; those that are missing at their site or in quarantine are no candidates.
    store : Store
        Replicas lie under their logical paths below its root.
    under : str
        Folder below the root for all of them.
    verify : bool
        Read replicas that are there already and compare them, too; what differs is copied anew.
    dry_run : bool
        Write nothing, neither there nor into the catalogue.
    threads : int
        Files at the same time at most; of those larger than `LARGE` bytes, `LARGE_FILES`.
    open_source : callable, optional
        Opens the file of a record; by default at its site.

    Returns
    -------
    MirrorSummary
        With the files that failed and why; a failure does not stop the others, but a store that is gone, or refuses
        every file (safe mode, quota or permission of its root), does.
    """
    records = catalogue.select(query)
    files = mirror_records(
        catalogue,
        records,
        store,
        under=under,
        verify=verify,
        dry_run=dry_run,
        threads=threads,
        open_source=open_source,
    )
    return summarise(store.url, files)


def mirror_records(
    catalogue: Catalogue,
    records: Iterable[FileRecord],
    store: Store,
    *,
    under: str = "",
    verify: bool = False,
    dry_run: bool = False,
    threads: int = FILES,
    open_source: OpenSource | None = None,
) -> Iterator[MirroredFile]:
    """Give every file of `records` a verified replica, and yield what became of each as it ends.

    Whoever stops to listen stops the copies.

    Parameters
    ----------
    catalogue : Catalogue
    records : iterable of FileRecord
    store : Store
    under, verify, dry_run, threads, open_source
        As those of `mirror`.
    """
    copier = Copier(store, under, verify, dry_run, open_source or open_at_site)
    with progress("mirror") as task:
        for ended in _together(copy_all(copier, with_replicas(catalogue, records, copier.url), threads)):
            if not dry_run:
                copier.settle(ended)
                record_replicas(catalogue, store, ended)
            for _, file in ended:
                task.advance()
                task.note(file.path)
                if file.outcome is Outcome.FAILED:
                    say(f"{file.path}: {file.reason}")
                yield file


def _together(lists: Iterable[list[Copied]]) -> Iterator[list[Copied]]:
    """Put short lists together: a transaction for each small file would take longer than its copy.

    What is not recorded yet when the process is killed is read once more by the next run.
    """
    waiting: list[Copied] = []
    start = time.monotonic()
    for some in lists:
        waiting += some
        if waiting and (len(waiting) >= _TOGETHER or time.monotonic() - start >= _PATIENCE_S):
            yield waiting
            waiting, start = [], time.monotonic()
    if waiting:
        yield waiting


class _Line:
    """Files that wait for a thread: each takes the next one itself, whatever the one who brings them is doing.

    Parameters
    ----------
    copier : Copier
    threads : int
        That call `work`, at most.
    """

    def __init__(self, copier: Copier, threads: int) -> None:
        self._copier, self._room = copier, Room(threads)
        self._waiting = deque[tuple[FileRecord, Replica | None]]()
        self._turn, self._closed = Condition(), False
        self._done = SimpleQueue[Copied | BaseException]()

    def put(self, record: FileRecord, recorded: Replica | None) -> None:
        """Add a file, with the replica that the catalogue has of it."""
        with self._turn:
            self._waiting.append((record, recorded))
            self._turn.notify()

    def close(self) -> None:
        """Let the threads end when nothing waits any more."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()

    def ended(self) -> list[Copied]:
        """Return the files that have ended since this was last asked; none if that takes long."""
        files: list[Copied] = []
        with suppress(Empty):
            one = self._done.get(timeout=_PATIENCE_S)
            while True:
                if isinstance(one, BaseException):
                    raise one
                files.append(one)
                one = self._done.get_nowait()
        return files

    def work(self) -> None:
        """Copy one file after the other."""
        while (file := self._next()) is not None:
            try:
                self._done.put((file[0], self._copier.run(*file)))
            except BaseException as error:
                self._done.put(error)
            with self._turn:
                self._room.leave(file[0], self._copier.setbacks())

    def _next(self) -> tuple[FileRecord, Replica | None] | None:
        with self._turn:
            while True:
                if self._waiting and self._room.admits(self._waiting[0][0]):
                    file = self._waiting.popleft()
                    self._room.enter(file[0])
                    if not self._waiting:
                        if self._closed:
                            self._turn.notify_all()
                    elif self._room.admits(self._waiting[0][0]):
                        self._turn.notify()
                    return file
                if self._closed and not self._waiting:
                    return None
                self._turn.wait()


def copy_all(
    copier: Copier, files: Iterable[tuple[FileRecord, Replica | None]], threads: int
) -> Iterator[list[Copied]]:
    """Copy files by threads, and yield what became of those that have ended, some at a time, none now and then.

    Only threads move bytes; whoever asks for the next ones is the only one who uses the catalogue. Meanwhile the
    threads have files to go on with.

    Parameters
    ----------
    copier : Copier
    files : iterable of (FileRecord, Replica or None)
        As `with_replicas` yields them.
    threads : int
    """
    line, started, open_files = _Line(copier, threads), 0, 0
    ended: list[Copied] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="mirror") as pool:
        try:
            for record, recorded in files:
                if (
                    open_files >= threads + _TOGETHER
                ):  # as many as that are left to the threads while these are recorded
                    yield ended
                    ended = line.ended()
                    while not ended:
                        yield ended
                        ended = line.ended()
                    open_files -= len(ended)
                line.put(record, recorded)
                open_files += 1
                if started < threads:
                    pool.submit(line.work)
                    started += 1
            yield ended
            while open_files:
                ended = line.ended()
                open_files -= len(ended)
                yield ended
        except BaseException:
            copier.stop.set()  # the threads give up after their present block
            raise
        finally:
            line.close()


def with_replicas(
    catalogue: Catalogue, records: Iterable[FileRecord], url_of: Callable[[FileRecord], str]
) -> Iterator[tuple[FileRecord, Replica | None]]:
    """Yield files, each with its replica at a URL if the catalogue has one, asked for by pages.

    Parameters
    ----------
    catalogue : Catalogue
    records : iterable of FileRecord
    url_of : callable
        Returns the URL of a record's replica.
    """
    remaining = iter(records)
    while page := list(islice(remaining, _PAGE)):
        replicas = catalogue.replicas([record.path for record in page])
        for record in page:
            url = url_of(record)
            yield record, next((one for one in replicas[record.path] if one.url == url), None)


def record_replicas(catalogue: Catalogue, store: Store, files: Iterable[tuple[FileRecord, MirroredFile]]) -> None:
    """Record the replicas that are known to be right.

    Parameters
    ----------
    catalogue : Catalogue
    store : Store
        Where the replicas are.
    files : iterable of (FileRecord, MirroredFile)
        Those with another outcome than a good copy are left out.
    """
    now = datetime.now(UTC)
    replicas = [
        Replica(record.path, file.url, store.kind, record.checksum, now)
        for record, file in files
        if file.outcome in GOOD
    ]
    if replicas:
        catalogue.add_replicas(replicas)

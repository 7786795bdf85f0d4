"""One file at a time: a copy in a store that is compared with the registered checksum before it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Event, Lock
from typing import BinaryIO

from apbatch.errors import ApbatchError, ServerError
from apbatch.index.files import FileRecord, Replica
from apbatch.ingest.opening import ingest_remedy
from apbatch.ingest.replicas.outcomes import MirroredFile, Outcome
from apbatch.ingest.replicas.stores import registered_checksums, replica_path
from apbatch.storage.store import Checksums, Store, StoreRefusedError
from apbatch.storage.transfer import InterruptedTransferError, SourceChangedError, transfer

OpenSource = Callable[[FileRecord], BinaryIO]


def reachable(store: Store) -> bool:
    """Tell whether a store answers at all."""
    try:
        store.info("")
    except ServerError:
        return False
    return True


class Copier:
    """Makes sure that a store holds a right copy of a file; threads share it.

    Parameters
    ----------
    store : Store
    under : str
        Folder below the store's root.
    verify : bool
        Read what is there already and compare it.
    dry_run : bool
        Write nothing; say what would be done.
    open_source : callable
        Opens the file of a record.

    Attributes
    ----------
    stop : threading.Event
        Set to end all copies after their present block.
    """

    def __init__(self, store: Store, under: str, verify: bool, dry_run: bool, open_source: OpenSource) -> None:
        self.store, self._under, self._verify, self._dry_run = store, under, verify, dry_run
        self._open_source = open_source
        self.stop = Event()
        self._gone: str | None = None
        self._setbacks, self._lock = 0, Lock()

    def url(self, record: FileRecord) -> str:
        """Return the URL of a record's replica in the store."""
        return self.store.url_of(replica_path(record, self._under))

    def setbacks(self) -> int:
        """Return how often the server failed an attempt since this was last asked."""
        with self._lock:
            number, self._setbacks = self._setbacks, 0
        return number

    def _note_setback(self) -> None:
        with self._lock:
            self._setbacks += 1

    def run(self, record: FileRecord, recorded: Replica | None) -> MirroredFile:
        """Make sure that the replica is there and right.

        Parameters
        ----------
        record : FileRecord
        recorded : Replica, optional
            What the catalogue has of it.
        """
        url = self.url(record)
        if self.stop.is_set():
            return MirroredFile(record.path, url, record.size, Outcome.NOT_TRIED, self._gone or "told to stop")
        try:
            outcome = self._ensure(record, recorded)
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

    def _ensure(self, record: FileRecord, recorded: Replica | None) -> Outcome:
        path, expected = replica_path(record, self._under), registered_checksums(record)
        info = self.store.info(path)
        current = recorded is not None and recorded.checksum == record.checksum
        if info is not None and not info.is_directory and info.size == record.size:
            if current and not self._verify:
                return Outcome.SKIPPED
            if self._holds(path, expected):
                return Outcome.VERIFIED if current else Outcome.ADOPTED
        if self._dry_run:
            return Outcome.WOULD_COPY
        transfer(
            lambda: self._open_source(record),
            self.store,
            path,
            expected,
            stop=self.stop.is_set,
            failed=self._note_setback,
            settled=False,
        )
        # A replica that was recorded, or had been published, was damaged; anything else is new.
        return Outcome.REPAIRED if current else Outcome.COPIED

    def settle(self, files: Iterable[tuple[FileRecord, MirroredFile]]) -> None:
        """Have new copies outlast a power cut: to be called before they are recorded.

        Parameters
        ----------
        files : iterable of (FileRecord, MirroredFile)
            As they ended; those that were recorded already are left out.

        Raises
        ------
        ServerError
        """
        new = (Outcome.COPIED, Outcome.REPAIRED, Outcome.ADOPTED)
        self.store.settle(replica_path(record, self._under) for record, file in files if file.outcome in new)

    def _holds(self, path: str, expected: Checksums) -> bool:
        """Compare a replica's content; one that can't be read (HDFS: all copies of a block damaged) is not right."""
        try:
            return self.store.checksums(path) == expected
        except StoreRefusedError:
            raise
        except ServerError:
            if reachable(self.store):
                return False
            raise

    def _check_store(self) -> None:
        """After a failure of the server: if it does not answer at all, don't try the other files."""
        if not self.stop.is_set() and not reachable(self.store):
            self._give_up(f"the store {self.store.url} does not answer")

    def _give_up(self, reason: str) -> None:
        """Leave the other files untried: none would fare better."""
        self._gone = reason
        self.stop.set()

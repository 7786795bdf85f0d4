"""Reads copies again and compares them with what was registered; what is wrong is marked, so that readers pass it over.

A mark is the checksum that a replica is recorded with: that of its present bytes, or `DAMAGED` where they can't be
had. `apbatch mirror` makes such a replica anew. A server that does not answer says nothing of its copies: nothing is
marked for that.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import BinaryIO

from apbatch.errors import ApbatchError, NotFoundError, ServerError
from apbatch.index import query as q
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord, Replica, State
from apbatch.index.pages import identity_of
from apbatch.ingest.opening import ingest_remedy
from apbatch.ingest.opening import open_source as open_at_site
from apbatch.ingest.replicas.copying import OpenSource
from apbatch.ingest.replicas.stores import DAMAGED, registered_checksums
from apbatch.localfiles import write_whole
from apbatch.progress import progress
from apbatch.storage.backends import split_url, store_of
from apbatch.storage.hashing import READ_BYTES, hash_blocks
from apbatch.storage.store import Checksums, RefusedError

#: Copies that are read at the same time; files of a page, after which a run that was stopped goes on.
THREADS = 4
_PAGE = 200


class Finding(StrEnum):
    """What reading a copy showed."""

    RIGHT = "right"
    MISSING = "missing"
    SIZE = "other size"
    CONTENT = "other content"
    UNREADABLE = "unreadable"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class CheckedCopy:
    """A replica, or a file at its site, and what reading it showed.

    Attributes
    ----------
    path : str
        Of the file.
    copy : str
        URL of the replica, or ``site:source``.
    finding : Finding
    size : int
        Bytes that were registered.
    reason : str, optional
        What differs, and the remedy where there is one.
    checksum : str, optional
        BLAKE3 of what is there, if it was read whole.
    """

    path: str
    copy: str
    finding: Finding
    size: int
    reason: str | None = None
    checksum: str | None = None


class Rate:
    """Lets threads together read so many bytes a second at most.

    Parameters
    ----------
    bytes_per_s : float, optional
        By default as fast as can be.
    """

    def __init__(self, bytes_per_s: float | None) -> None:
        self._bytes_per_s, self._next, self._lock = bytes_per_s, time.monotonic(), threading.Lock()

    @property
    def unlimited(self) -> bool:
        """Whether nothing is held back."""
        return self._bytes_per_s is None

    def take(self, number: int) -> None:
        """Wait until `number` bytes more may be read."""
        if self._bytes_per_s is None:
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + number / self._bytes_per_s
        time.sleep(begin - now)

    def checksums(self, stream: BinaryIO) -> Checksums:
        """Read a stream to its end, no faster than allowed."""

        def blocks() -> Iterator[bytes]:
            while block := stream.read(READ_BYTES):
                self.take(len(block))
                yield block

        return hash_blocks(blocks())


def check(
    catalogue: Catalogue,
    query: q.Query,
    *,
    sources: bool = False,
    older_than: timedelta | None = None,
    rate: Rate | None = None,
    threads: int = THREADS,
    position: Path | None = None,
    resume: bool = False,
    open_source: OpenSource = open_at_site,
) -> Iterator[CheckedCopy]:
    """Read the replicas of files, compare them with what was registered, and note in the catalogue what was seen.

    Parameters
    ----------
    catalogue : Catalogue
    query : Query
        Which files; unless it names `state`, registered ones and those of which only replicas are left.
    sources : bool
        Read the files at their sites as well; what is wrong there is reported only.
    older_than : datetime.timedelta, optional
        Pass over replicas that were found right within this time.
    rate : Rate, optional
    threads : int
        Copies that are read at the same time.
    position : pathlib.Path, optional
        File that keeps how far this run came.
    resume : bool
        Go on where the last run of the same query was stopped, as `position` has it.
    open_source : callable
        Opens the file of a record at its site.

    Yields
    ------
    CheckedCopy
        Every copy that was looked at.
    """
    checker = _Checker(rate or Rate(None), open_source)
    if "state" not in q.names(query):
        states = q.In("state", (State.REGISTERED.value, State.ARCHIVED.value))
        query = states if isinstance(query, q.Everything) else q.And((query, states))
    search = q.Search(query)
    cursor = _read_position(position, search) if resume else None
    newest = None if older_than is None else datetime.now(UTC) - older_than
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool, progress("verify") as task:
        try:
            while True:
                page = catalogue.select_records(search, cursor, _PAGE)
                replicas = catalogue.replicas([record.path for record in page.records])
                todo: list[tuple[Replica | None, Callable[[], CheckedCopy]]] = []
                for record in page.records:
                    for replica in replicas[record.path] if record.checksum else ():
                        if newest is None or replica.verified < newest or replica.checksum != record.checksum:
                            todo.append((replica, partial(checker.replica, record, replica)))
                    if sources and record.state is State.REGISTERED:
                        todo.append((None, partial(checker.source, record)))
                for (registered, _), checked in zip(todo, pool.map(lambda one: one[1](), todo), strict=True):
                    if registered is not None:
                        _note(catalogue, registered, checked)
                    task.note(checked.path)
                    task.advance()
                    yield checked
                if (cursor := page.cursor) is None:
                    break
                if position is not None:
                    write_whole(position, json.dumps({"search": identity_of(search), "cursor": cursor}))
        except BaseException:
            checker.stop.set()
            raise
    if position is not None:
        position.unlink(missing_ok=True)


def _read_position(position: Path | None, search: q.Search) -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        if position is not None:
            content = json.loads(position.read_text())
            if content["search"] == identity_of(search):
                return str(content["cursor"])
    return None


def _note(catalogue: Catalogue, replica: Replica, checked: CheckedCopy) -> None:
    """Keep in the catalogue what was seen of a replica."""
    match checked.finding:
        case Finding.NOT_CHECKED:
            return
        case Finding.MISSING:
            catalogue.remove_replicas([(replica.path, replica.url)])
        case _:
            checksum = checked.checksum or DAMAGED
            catalogue.add_replicas([Replica(replica.path, replica.url, replica.kind, checksum, datetime.now(UTC))])


class _Checker:
    """Reads copies; threads share it."""

    def __init__(self, rate: Rate, open_source: OpenSource) -> None:
        self._rate, self._open_source = rate, open_source
        self._silent: dict[str, str] = {}
        self.stop = threading.Event()

    def replica(self, record: FileRecord, replica: Replica) -> CheckedCopy:
        """Read a replica."""
        root = split_url(replica.url)[0]

        def result(finding: Finding, reason: str | None = None, checksum: str | None = None) -> CheckedCopy:
            return CheckedCopy(record.path, replica.url, finding, record.size, reason, checksum)

        if self.stop.is_set() or root in self._silent:
            return result(Finding.NOT_CHECKED, self._silent.get(root, "told to stop"))
        try:
            store, path = store_of(replica.url)
            info = store.info(path)
            if info is None:
                return result(Finding.MISSING, "nothing is there")
            if info.is_directory or info.size != record.size:
                return result(Finding.SIZE, f"{info.size} bytes, registered were {record.size}")
            if self._rate.unlimited:
                checksums = store.checksums(path)
            else:
                with store.open(path) as stream:
                    checksums = self._rate.checksums(stream)
        except NotFoundError:
            return result(Finding.MISSING, "nothing is there")
        except RefusedError as error:
            return result(Finding.NOT_CHECKED, str(error))
        except (ApbatchError, OSError) as error:
            try:
                store_of(replica.url)[0].info("")
            except (ApbatchError, OSError):
                self._silent[root] = f"{root} does not answer: {error}"
                return result(Finding.NOT_CHECKED, self._silent[root])
            return result(Finding.UNREADABLE, str(error))
        return result(*_compared(record, checksums))

    def source(self, record: FileRecord) -> CheckedCopy:
        """Read a file at its site."""

        def result(finding: Finding, reason: str | None = None, checksum: str | None = None) -> CheckedCopy:
            if finding in (Finding.MISSING, Finding.SIZE, Finding.CONTENT):
                reason = f"{reason} ({ingest_remedy(record)})"
            return CheckedCopy(record.path, f"{record.site}:{record.source}", finding, record.size, reason, checksum)

        if self.stop.is_set():
            return result(Finding.NOT_CHECKED, "told to stop")
        try:
            stream = self._open_source(record)
        except NotFoundError as error:
            # The site itself may be unknown here, which says nothing of the file.
            gone = error.what == "the file is gone"
            return result(Finding.MISSING if gone else Finding.NOT_CHECKED, error.what if gone else str(error))
        except (ApbatchError, OSError) as error:
            return result(Finding.NOT_CHECKED, str(error))
        try:
            with stream:
                checksums = self._rate.checksums(stream)
        except (ServerError, OSError) as error:
            return result(Finding.UNREADABLE, str(error))
        return result(*_compared(record, checksums))


def _compared(record: FileRecord, checksums: Checksums) -> tuple[Finding, str | None, str | None]:
    expected = registered_checksums(record)
    if checksums == expected:
        return Finding.RIGHT, None, checksums.blake3
    if checksums.size != expected.size:
        return Finding.SIZE, f"{checksums.size} bytes, registered were {expected.size}", checksums.blake3
    reason = f"BLAKE3 {checksums.blake3[:16]}…, registered was {expected.blake3[:16]}…"
    return Finding.CONTENT, reason, checksums.blake3

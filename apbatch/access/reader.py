"""Bytes of entries of the merged tree: block by block, each verified, from the first source that has it right.

Threads that want the same block share one transfer; only blocks that are read, or that follow a sequential reader, are
transferred. A wrong byte is never delivered: the next source is tried, and if none is right the read fails.
"""

from __future__ import annotations

import io
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Protocol

from apbatch.access.blocks import Digests, block_count, block_length, pieces
from apbatch.access.cache import BlockCache
from apbatch.access.keeping import Keeper
from apbatch.access.sources import Breakers, Opener, Source, at_site, sources_of
from apbatch.errors import ApbatchError, FileUnavailableError, NotFoundError, ServerError, VerificationError
from apbatch.index.contents import BLOCK, Content
from apbatch.index.files import FileRecord, Replica, State
from apbatch.progress import say
from apbatch.storage.deadline import within
from apbatch.storage.range_stream import RangeStream
from apbatch.storage.store import Ranges, RefusedError, StoreRefusedError

#: One source may take so long for a block; a read that no source answers fails after a few times that.
LIMIT_S = 30.0
#: Blocks of all open files that are kept in memory, bytes.
MEMORY = 64 << 20
#: Blocks that are fetched ahead of a sequential reader.
AHEAD = 8
_THREADS = 8
_BAD_FOR_S = 30.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A source that did not give a block.

    Attributes
    ----------
    path : str
        Of the entry in the merged tree.
    where : str
        The source.
    block : int
    reason : str
    """

    path: str
    where: str
    block: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: block {self.block} from {self.where}: {self.reason}"


def say_fault(fault: Fault) -> None:
    """Print a fault as one line on standard error."""
    say(str(fault))


class ClosedFileError(FileUnavailableError):
    """The open file was closed by whoever had it, which says nothing of any source."""


class Readable(Protocol):
    """The methods of `Guard` that a reader needs, with the same meaning."""

    def readable(self, path: str) -> list[FileRecord]:
        """Return the files behind an entry whose bytes may be read, or raise NotFoundError."""

    def content(self, checksum: str) -> Content | None:
        """Return the hashes of a content."""

    def replicas(self, paths: Iterable[str]) -> dict[str, list[Replica]]:
        """Return the copies of files whose bytes may be read, by path."""


class Reader:
    """Opens entries of the merged tree; one for a process, used by any number of threads.

    Parameters
    ----------
    guard : Readable
        Decides what may be read.
    cache : BlockCache, optional
        Blocks on disk; without one, blocks are kept in memory only.
    openers : sequence of Opener
        How holdings are reached.
    limit_s : float
        What one source may take for one block.
    memory : int
        Bytes of blocks that are kept in memory.
    report : callable
        Told of every source that failed or gave wrong bytes.
    """

    def __init__(
        self,
        guard: Readable,
        cache: BlockCache | None = None,
        *,
        openers: Sequence[Opener] = (at_site,),
        limit_s: float = LIMIT_S,
        memory: int = MEMORY,
        report: Callable[[Fault], None] = say_fault,
    ) -> None:
        self._guard, self._cache, self._openers, self._limit_s = guard, cache, openers, limit_s
        self._report, self._most = report, max(1, memory // BLOCK)
        self.breakers = Breakers()
        self._lock = threading.Lock()
        self._memory: OrderedDict[tuple[object, int], bytes] = OrderedDict()
        self._flights: dict[tuple[object, int], Future[bytes]] = {}
        self._ahead = ThreadPoolExecutor(_THREADS, thread_name_prefix="read-ahead")
        self._keeper = Keeper(cache) if cache is not None else None
        self._closed = False

    def open(self, path: str) -> OpenFile:
        """Open the file at a path of the merged tree.

        Raises
        ------
        NotFoundError
            If there is none, or its bytes may not be read.
        """
        records = self._guard.readable(path)
        if not records:
            raise NotFoundError("no such file, or it may not be read", where=path)
        return OpenFile(self, path, records)

    def digests(self, record: FileRecord) -> Digests | None:
        """Return what the blocks of a file must be; None if it can't be verified."""
        if record.state is not State.REGISTERED or not record.checksum:
            return None
        content = self._guard.content(record.checksum) if record.size > BLOCK else None
        return Digests.of(record.checksum, record.size, content)

    def sources(self, records: Sequence[FileRecord]) -> list[Source]:
        """Return where the bytes of an entry are, the best first."""
        replicas = self._guard.replicas([record.path for record in records])
        return sources_of(records, [one for some in replicas.values() for one in some], self._openers)

    def close(self) -> None:
        """Keep what was fetched and end the threads; open files are of no use afterwards."""
        self._closed = True
        self._ahead.shutdown(wait=False, cancel_futures=True)
        if self._keeper is not None:
            self._keeper.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _note_reader(self) -> None:
        if self._keeper is not None:
            self._keeper.note_reader()

    def _from_memory(self, key: tuple[object, int]) -> bytes | None:
        with self._lock:
            data = self._memory.get(key)
            if data is not None:
                self._memory.move_to_end(key)
            return data

    def _block(self, file: OpenFile, block: int) -> bytes:
        """Return a block; threads that want the same one wait for the first. Closing a file ends no read of another."""
        key = (file.identity, block)
        while True:
            with self._lock:
                data = self._memory.get(key)
                if data is not None:
                    self._memory.move_to_end(key)
                    return data
                flight = self._flights.get(key)
                if flight is None:
                    flight = self._flights[key] = Future()
                    break
            try:
                return flight.result()
            except ClosedFileError:  # that of whoever was first
                if file.closed:
                    raise
        try:
            self._fly(file, block, flight)
        except BaseException as error:
            self._landed(key)
            if flight.done():
                raise
            flight.set_exception(error)
        else:
            self._landed(key)
        return flight.result()

    def _landed(self, key: tuple[object, int]) -> None:
        with self._lock:
            del self._flights[key]

    def _fly(self, file: OpenFile, block: int, flight: Future[bytes]) -> None:
        cache, keeper, digests = self._cache, self._keeper, file.digests
        if cache is None or keeper is None or digests is None:
            self._arrived(file, block, file._fetch(block), flight)
            return
        data = cache.get(digests, block)
        if data is None:
            with ExitStack() as lock:
                lock.enter_context(cache.fetching(digests, block))
                data = cache.get(digests, block)  # another process may have had it on its way
                if data is None:
                    data = file._fetch(block)
                    self._arrived(file, block, data, flight)  # who waits need not wait for the disk
                    keeper.keep(digests, block, data, lock.pop_all())
                    return
        self._arrived(file, block, data, flight)

    def _arrived(self, file: OpenFile, block: int, data: bytes, flight: Future[bytes]) -> None:
        with self._lock:
            self._memory[file.identity, block] = data
            while len(self._memory) > self._most:
                self._memory.popitem(last=False)
        flight.set_result(data)

    def _fetch_ahead(self, file: OpenFile, block: int) -> None:
        if self._closed:
            return
        with self._lock:
            if (file.identity, block) in self._memory or (file.identity, block) in self._flights:
                return

        def fetch() -> None:
            if not file.closed:
                with suppress(ApbatchError, OSError, ValueError):  # who reads it is told
                    self._block(file, block)

        with suppress(RuntimeError):  # closed meanwhile
            self._ahead.submit(fetch)


class OpenFile:
    """One open entry; any number of threads may read it.

    Attributes
    ----------
    path : str
        In the merged tree.
    record : FileRecord
        The holding that queries see first.
    size : int
        Bytes.
    verified : bool
        Whether every byte that is delivered is compared with what was registered; not so for a file that is only
        listed, or whose blocks have no hashes.
    """

    def __init__(self, reader: Reader, path: str, records: Sequence[FileRecord]) -> None:
        self._reader, self.path, self._records = reader, path, records
        self.record = records[0]
        self.size = self.record.size
        self.digests = reader.digests(self.record)
        self.verified = self.digests is not None
        #: Under which blocks are shared: a content, or one state of a file that nobody read yet.
        self.identity: object = (
            self.record.checksum
            if self.verified
            else (self.record.path, self.record.size, self.record.mtime_ns, self.record.checksum)
        )
        self.closed = False
        self._lock = threading.Lock()
        self._sources: list[Source] | None = None
        self._open: dict[str, Ranges] = {}
        self._retired: list[Ranges] = []
        self._busy = 0
        self._bad: dict[str, tuple[float, str]] = {}  # until when, why
        self._last, self._streak, self._last_fetched = -1, 0, -1

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, cut at the end of the file.

        Raises
        ------
        VerificationError
            If no source has the right bytes.
        FileUnavailableError
            If no source can be read.
        """
        parts = []
        for piece in pieces(offset, length, self.size):
            self._read_ahead(piece.block)
            data = self._reader._block(self, piece.block)
            if piece.stop - piece.start == len(data):
                parts.append(data)
            else:
                parts.append(data[piece.start : piece.stop])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def at_hand(self, offset: int, length: int) -> memoryview | None:
        """Return a range if it lies in one block that is in memory: nothing is waited for."""
        block, start = divmod(offset, BLOCK)
        length = max(0, min(length, self.size - offset))
        if start + length > BLOCK:
            return None
        data = self._reader._from_memory((self.identity, block))
        if data is None:
            return None
        self._read_ahead(block)
        return memoryview(data)[start : start + length]

    def stream(self) -> io.BufferedReader:
        """Return the file as a stream of Python, which closes it."""
        return io.BufferedReader(RangeStream(self), 256 << 10)

    def close(self) -> None:
        """Close the sources."""
        self.closed = True
        self._close_unused()

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read_ahead(self, block: int) -> None:
        """Have blocks fetched before a sequential reader asks: not before its third block, or the file's second."""
        self._reader._note_reader()
        if block == self._last:
            return
        with self._lock:
            self._streak = self._streak + 1 if block == self._last + 1 and block > 0 else 0
            is_sequential = self._streak >= 2 or (self._streak == 1 and block == 1)
            self._last = block
            if not is_sequential:
                self._last_fetched = block
                return
            first = max(self._last_fetched, block) + 1
            end = min(block + 1 + AHEAD, block_count(self.size))
            self._last_fetched = max(self._last_fetched, end - 1)
        for number in range(first, end):
            self._reader._fetch_ahead(self, number)

    def _fetch(self, block: int) -> bytes:
        """Return a block, verified where that is possible, from the first source that has it."""
        reader, faults = self._reader, []
        wrong = False
        for source in self._candidates():
            now = time.monotonic()
            until, reason = self._bad.get(source.where, (0.0, ""))
            if now < until:
                faults.append(Fault(self.path, source.where, block, reason))
                continue
            if reader.breakers.rests(source.service):
                faults.append(Fault(self.path, source.where, block, "failed a moment ago, and is tried again later"))
                continue
            try:
                data = self._read_from(source, block)
                self._check(block, data)
            except ClosedFileError:
                raise
            except (ApbatchError, OSError) as error:
                what = error.what if isinstance(error, ApbatchError) else str(error)
                wrong = wrong or isinstance(error, VerificationError)
                if _concerns_service(error):
                    reader.breakers.failed(source.service, now)
                else:
                    reader.breakers.answered(source.service)
                    self._bad[source.where] = (now + _BAD_FOR_S, what)
                self._drop(source)
                fault = Fault(self.path, source.where, block, what)
            else:
                reader.breakers.answered(source.service)
                return data
            faults.append(fault)
            reader._report(fault)
        self._sources = None  # there may be another replica by the next time
        raise self._failure(block, faults, wrong)

    def _failure(self, block: int, faults: Sequence[Fault], wrong: bool) -> ApbatchError:
        reasons = "; ".join(f"{fault.where}: {fault.reason}" for fault in faults)
        remedy = "apbatch mirror makes further copies"
        if not faults:
            there = [one.site for one in self._records if one.state not in (State.MISSING, State.ARCHIVED)]
            reasons = "it is gone from its site, and there is no replica"
            if there:
                reasons = f"site {', '.join(sorted(set(there)))} is not described here, and there is no replica"
                remedy = "apbatch site add FILE describes it; its root may be the address of an agent"
        kind = VerificationError if wrong else FileUnavailableError
        return kind(f"block {block} can't be had: {reasons}", where=self.path, remedy=remedy)

    def _candidates(self) -> list[Source]:
        sources = self._sources
        if sources is None:
            sources = self._sources = self._reader.sources(self._records)
        return sources

    def _read_from(self, source: Source, block: int) -> bytes:
        """Return a block of a source, not yet verified, within the reader's limit."""
        limit_s = self._reader._limit_s
        with self._lock:
            if self.closed:
                raise ClosedFileError("the file was closed", where=self.path)
            ranges = self._open.get(source.where)
            self._busy += 1
        try:
            if ranges is None:
                ranges = within(limit_s, source.where, self._open_source, source)
            offset, length = block * BLOCK, block_length(self.size, block)
            if ranges.timed:  # one hand less that the bytes pass through
                return ranges.read(offset, length)
            return within(limit_s, source.where, ranges.read, offset, length)
        finally:
            with self._lock:
                self._busy -= 1
            self._close_unused()

    def _open_source(self, source: Source) -> Ranges:
        ranges = source.open()
        with self._lock:
            if source.where in self._open:  # another thread was first
                self._retired.append(ranges)
                ranges = self._open[source.where]
            else:
                self._open[source.where] = ranges
        if ranges.size != self.size:
            raise VerificationError(f"it has {ranges.size} bytes, registered were {self.size}")
        return ranges

    def _check(self, block: int, data: bytes) -> None:
        if self.digests is not None:
            self.digests.check(block, data)
        elif len(data) != block_length(self.size, block):
            raise VerificationError(f"block {block} has {len(data)} bytes, not {block_length(self.size, block)}")

    def _drop(self, source: Source) -> None:
        """Have a source opened anew the next time."""
        with self._lock:
            ranges = self._open.pop(source.where, None)
            if ranges is not None:
                self._retired.append(ranges)
        self._close_unused()

    def _close_unused(self) -> None:
        """Close what no thread reads from any more: a closed descriptor's number may soon be another file's."""
        with self._lock:
            if self._busy:
                return
            unused, self._retired = self._retired, []
            if self.closed:
                unused += self._open.values()
                self._open = {}
        for ranges in unused:
            with suppress(ApbatchError, OSError):
                ranges.close()


def _concerns_service(error: Exception) -> bool:
    """Tell whether an error says something of all files of a source, not of the one that was read."""
    of_file = isinstance(error, RefusedError | FileUnavailableError) and not isinstance(error, StoreRefusedError)
    return isinstance(error, ServerError) and not of_file

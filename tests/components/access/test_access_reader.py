"""Bytes of the merged tree: never a wrong one, from whichever source has them, and no more of them than are read."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apbatch.access.cache import BlockCache
from apbatch.access.reader import ClosedFileError, Fault, Reader
from apbatch.access.sources import Breakers, Source, at_site
from apbatch.errors import ApbatchError, FileUnavailableError, NotFoundError, ServerError, VerificationError
from apbatch.index.contents import BLOCK
from apbatch.index.files import FileRecord, State
from apbatch.storage.store import Ranges
from tests.merged import Merged
from tests.waits import PATIENCE_S
from tests.webserver import WebServer, served

DATA = random.Random(3).randbytes(5 * BLOCK + 77)
SMALL = b"muon" * 100


@pytest.fixture
def merged(tmp_path: Path, home: Path) -> Merged:
    return Merged(tmp_path / "sites", home)


@pytest.fixture
def web(merged: Merged) -> Iterator[WebServer]:
    merged.site()
    with served(merged.folder) as server:
        yield server


class Counted(Ranges):
    """Ranges whose reads are counted."""

    def __init__(self, ranges: Ranges, reads: list[tuple[int, int]], gate: threading.Event | None = None) -> None:
        self._ranges, self._reads, self._gate, self.size = ranges, reads, gate, ranges.size

    def read(self, offset: int, length: int) -> bytes:
        self._reads.append((offset, length))
        if self._gate is not None:
            self._gate.wait(60)
        return self._ranges.read(offset, length)

    def close(self) -> None:
        self._ranges.close()


class Counter:
    """An opener that counts what is read at sites."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self.gate: threading.Event | None = None

    def __call__(self, record: FileRecord) -> Source | None:
        source = at_site(record)
        assert source is not None
        return Source(source.service, source.where, lambda: Counted(source.open(), self.reads, self.gate))

    @property
    def bytes(self) -> int:
        return sum(length for _, length in self.reads)


@pytest.fixture
def faults() -> list[Fault]:
    return []


@pytest.fixture
def reader(merged: Merged, faults: list[Fault]) -> Iterator[Reader]:
    with Reader(merged.guard, limit_s=3, report=faults.append) as one:
        yield one


def test_a_file_is_read_as_it_is(merged: Merged, reader: Reader) -> None:
    record = merged.add("f", DATA)
    with reader.open(record.path) as file:
        assert (file.size, file.verified) == (len(DATA), True)
        assert file.read(0, len(DATA)) == DATA
        for offset, length in ((0, 1), (BLOCK - 1, 2), (5 * BLOCK, 1000), (len(DATA), 5), (3, 0), (7, 2 * BLOCK)):
            assert file.read(offset, length) == DATA[offset : offset + length]
        assert file.at_hand(5 * BLOCK + 1, 10) == DATA[5 * BLOCK + 1 : 5 * BLOCK + 11]


def test_a_stream_is_read_like_a_file(merged: Merged, reader: Reader) -> None:
    record = merged.add("f", DATA)
    with reader.open(record.path).stream() as stream:
        stream.seek(-10, os.SEEK_END)
        assert stream.read() == DATA[-10:]
        stream.seek(100)
        assert stream.read(50) == DATA[100:150]


def test_an_empty_file_has_no_bytes(merged: Merged, reader: Reader) -> None:
    with reader.open(merged.add("f", b"").path) as file:
        assert (file.read(0, 10), file.verified) == (b"", True)


def test_what_is_not_there_is_not_opened(reader: Reader) -> None:
    with pytest.raises(NotFoundError):
        reader.open("/taiga/one/none")


def test_a_listed_file_is_readable_and_not_verified(merged: Merged, reader: Reader) -> None:
    with reader.open(merged.add("f", DATA, state=State.LISTED).path) as file:
        assert not file.verified
        assert file.read(BLOCK - 5, 10) == DATA[BLOCK - 5 : BLOCK + 5]


def test_a_file_without_hashes_of_blocks_is_readable_and_not_verified(merged: Merged, reader: Reader) -> None:
    with reader.open(merged.add("f", DATA, blocks=False).path) as file:
        assert not file.verified
        assert file.read(0, 10) == DATA[:10]


def damage(merged: Merged, record: FileRecord, offset: int) -> None:
    """Change a byte at the site, behind everybody's back: size and time stay."""
    file = merged.site() / record.source
    with file.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte[0] ^ 1]))
    os.utime(file, ns=(record.mtime_ns, record.mtime_ns))


def test_a_wrong_byte_at_the_site_is_never_delivered(merged: Merged, reader: Reader, faults: list[Fault]) -> None:
    record = merged.add("f", DATA)
    damage(merged, record, BLOCK + 5)
    with reader.open(record.path) as file:
        assert file.read(0, BLOCK) == DATA[:BLOCK]
        with pytest.raises(VerificationError, match="block 1"):
            file.read(BLOCK - 1, 2)
    assert [(fault.block, "not those that were registered" in fault.reason) for fault in faults] == [(1, True)]


def test_a_replica_mends_a_wrong_byte_at_the_site(merged: Merged, reader: Reader, faults: list[Fault]) -> None:
    record = merged.add("f", DATA)
    merged.replica(record, f"file://{merged.folder}/copy", DATA)
    damage(merged, record, 3)
    with reader.open(record.path) as file:
        assert file.read(0, len(DATA)) == DATA
    assert len(faults) == 1


def test_a_file_that_changed_at_the_site_is_noticed(merged: Merged, reader: Reader, faults: list[Fault]) -> None:
    record = merged.add("f", DATA)
    with reader.open(record.path) as file:
        file.read(0, 10)
        (merged.site() / "f").write_bytes(b"other")
        with pytest.raises(ApbatchError, match="changed at its site"):
            file.read(3 * BLOCK, 10)
    listed = merged.add("g", SMALL, state=State.LISTED)
    with reader.open(listed.path) as file:
        (merged.site() / "g").write_bytes(SMALL[::-1] + b"x")
        with pytest.raises(ApbatchError, match="changed at its site"):
            file.read(0, 10)


def test_a_missing_file_is_read_from_its_replica(merged: Merged, reader: Reader) -> None:
    record = merged.add("f", SMALL)
    merged.replica(record, f"file://{merged.folder}/copy", SMALL)
    (merged.site() / "f").unlink()
    with reader.open(record.path) as file:
        assert file.read(0, 1000) == SMALL


@pytest.mark.parametrize("fault", ["cut", "stall", "lie", "error", "long", "silent"])
def test_a_replica_that_fails_leaves_the_turn_to_the_next(
    merged: Merged, reader: Reader, web: WebServer, faults: list[Fault], fault: str
) -> None:
    record = merged.add("f", SMALL)
    merged.replica(record, f"{web.url}/a", SMALL, "a")
    merged.replica(record, f"file://{merged.folder}/copy", SMALL)
    (merged.site() / "f").unlink()
    replicas = [f"{web.url}/a", f"file://{merged.folder}/copy"]
    with reader.open(record.path) as file:
        file._sources = sorted(reader.sources([record]), key=lambda one: one.where not in replicas[:1])
        web.fault = fault
        assert file.read(0, 1000) == SMALL
    assert faults[0].where == replicas[0]


def test_if_no_source_is_right_the_error_names_each(merged: Merged, reader: Reader, web: WebServer) -> None:
    record = merged.add("f", SMALL)
    merged.replica(record, f"{web.url}/a", SMALL, "a")
    (merged.site() / "f").unlink()
    web.fault = "lie"
    with reader.open(record.path) as file, pytest.raises(VerificationError, match=r"one:f.*gone.*/a: the bytes"):
        file.read(0, 10)


def test_a_failing_source_is_left_alone_and_tried_again_later(merged: Merged, web: WebServer) -> None:
    record = merged.add("f", SMALL)
    merged.replica(record, f"{web.url}/a", SMALL, "a")
    (merged.site() / "f").unlink()
    with Reader(merged.guard, limit_s=3, report=lambda fault: None) as reader, reader.open(record.path) as file:
        web.fault = "error"
        for _ in range(3):
            with pytest.raises(ServerError):
                file.read(0, 10)
        asked = len(web.requests)
        assert asked <= 2  # by the first read only
        web.fault = ""
        reader.breakers._rests[web.url].end = 0.0  # its time is over
        assert file.read(0, 10) == SMALL[:10]


def test_a_breaker_lets_one_through_and_rests_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("apbatch.access.sources.time.monotonic", lambda: now)
    breakers = Breakers(first_s=2, longest_s=5)
    assert not breakers.rests("s")
    breakers.failed("s", 99)
    breakers.failed("s", 98)  # another thread's, begun before that failure
    assert breakers.rests("s")
    now = 102.1
    assert [breakers.rests("s") for _ in range(3)] == [False, True, True]
    breakers.failed("s", 102)
    now = 106.0
    assert breakers.rests("s")
    now = 106.2
    assert not breakers.rests("s")
    breakers.failed("s", 106.2)
    assert breakers._rests["s"].length_s == 5
    breakers.answered("s")
    assert not breakers.rests("s")


def test_only_the_blocks_that_are_read_are_transferred(merged: Merged) -> None:
    counter = Counter()
    with Reader(merged.guard, openers=[counter]) as reader, reader.open(merged.add("f", DATA).path) as file:
        file.read(3 * BLOCK + 10, 1000)
        file.read(3 * BLOCK + 5000, 1000)
    assert counter.reads == [(3 * BLOCK, BLOCK)]


def test_one_megabyte_from_the_middle_moves_two_blocks_at_most(merged: Merged) -> None:
    counter = Counter()
    with Reader(merged.guard, openers=[counter]) as reader, reader.open(merged.add("f", DATA).path) as file:
        for offset in range(2 * BLOCK - 500_000, 2 * BLOCK + 500_000, 131_072):
            file.read(offset, 131_072)
        reader._ahead.shutdown()
    assert counter.bytes <= 2 * BLOCK


def test_a_sequential_reader_finds_its_blocks_ahead(merged: Merged) -> None:
    counter = Counter()
    with Reader(merged.guard, openers=[counter]) as reader, reader.open(merged.add("f", DATA).path) as file:
        for offset in range(0, BLOCK + 1, 131_072):
            file.read(offset, 131_072)
        file.read(BLOCK, 10)
        reader._ahead.shutdown()
        assert sorted(offset // BLOCK for offset, _ in counter.reads) == [0, 1, 2, 3, 4, 5]
        assert file.at_hand(4 * BLOCK, 10) == DATA[4 * BLOCK : 4 * BLOCK + 10]


def test_threads_that_want_one_block_share_its_transfer(merged: Merged) -> None:
    counter = Counter()
    counter.gate = threading.Event()
    record = merged.add("f", DATA)
    parts: list[bytes] = []
    with Reader(merged.guard, openers=[counter]) as reader:
        files = [reader.open(record.path) for _ in range(2)]
        threads = [
            threading.Thread(target=lambda file=files[number % 2]: parts.append(file.read(0, 100)))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        counter.gate.set()
        for thread in threads:
            thread.join()
        for file in files:
            file.close()
    assert counter.reads == [(0, BLOCK)]
    assert parts == [DATA[:100]] * 8


def test_who_closes_a_file_ends_no_read_of_another(merged: Merged, faults: list[Fault]) -> None:
    asked, closed, waits = threading.Event(), threading.Event(), threading.Event()
    record = merged.add("f", SMALL)

    def opener(record: FileRecord) -> Source | None:
        if not asked.is_set():
            asked.set()
            closed.wait(PATIENCE_S)
        return at_site(record)

    class Flights(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            flight = super().get(key, default)
            if flight is not None:
                waits.set()
            return flight

    with Reader(merged.guard, openers=[opener], report=faults.append) as reader, ThreadPoolExecutor() as threads:
        reader._flights = Flights()
        first, second = reader.open(record.path), reader.open(record.path)
        ended = threads.submit(first.read, 0, 100)
        assert asked.wait(PATIENCE_S)
        other = threads.submit(second.read, 0, 100)
        assert waits.wait(PATIENCE_S)
        first.close()
        closed.set()
        assert other.result(PATIENCE_S) == SMALL[:100]
        with pytest.raises(ClosedFileError):
            ended.result(PATIENCE_S)
        assert faults == [] and reader.breakers._rests == {}


def test_two_readers_with_one_cache_transfer_each_block_once(merged: Merged, tmp_path: Path) -> None:
    counter = Counter()
    record = merged.add("f", DATA)

    def read(reader: Reader) -> None:
        with reader.open(record.path) as file:
            assert file.read(0, len(DATA)) == DATA

    readers = [Reader(merged.guard, BlockCache(tmp_path / "cache"), openers=[counter]) for _ in range(2)]
    threads = [threading.Thread(target=read, args=(reader,)) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for reader in readers:
        reader.close()
    assert sorted(offset // BLOCK for offset, _ in counter.reads) == [0, 1, 2, 3, 4, 5]


def test_what_is_in_the_cache_is_read_without_any_source(merged: Merged, tmp_path: Path) -> None:
    record = merged.add("f", DATA)
    for _ in range(2):
        with Reader(merged.guard, BlockCache(tmp_path / "cache")) as reader, reader.open(record.path) as file:
            assert file.read(0, len(DATA)) == DATA
        (merged.site() / "f").unlink(missing_ok=True)


def test_a_damaged_block_of_the_cache_is_fetched_again(merged: Merged, tmp_path: Path) -> None:
    record, counter = merged.add("f", SMALL), Counter()

    def read() -> bytes:
        with Reader(merged.guard, BlockCache(tmp_path / "cache"), openers=[counter]) as reader:
            return reader.open(record.path).read(0, 1000)

    assert read() == SMALL
    (block,) = (path for path in (tmp_path / "cache").rglob("*.0") if path.is_file())
    block.write_bytes(b"x" * len(SMALL))
    assert read() == SMALL
    assert read() == SMALL
    assert len(counter.reads) == 2


def test_files_stay_open_while_they_are_read(merged: Merged) -> None:
    counter = Counter()
    counter.gate = threading.Event()
    record = merged.add("f", SMALL)
    with Reader(merged.guard, openers=[counter]) as reader:
        file = reader.open(record.path)
        parts: list[bytes] = []
        thread = threading.Thread(target=lambda: parts.append(file.read(0, 100)))
        thread.start()
        while not counter.reads:
            pass
        file.close()
        counter.gate.set()
        thread.join()
    assert parts == [SMALL[:100]]
    assert not file._open


def test_many_threads_read_many_places(merged: Merged, tmp_path: Path) -> None:
    record = merged.add("f", DATA)
    wrong: list[int] = []

    def read(seed: int, reader: Reader) -> None:
        draw = random.Random(seed)
        with reader.open(record.path) as file:
            for _ in range(30):
                offset, length = draw.randrange(len(DATA)), draw.randrange(200_000)
                if file.read(offset, length) != DATA[offset : offset + length]:
                    wrong.append(offset)

    def run(cache: BlockCache | None) -> Callable[[], None]:
        def work() -> None:
            with Reader(merged.guard, cache, memory=2 * BLOCK) as reader:
                threads = [threading.Thread(target=read, args=(seed, reader)) for seed in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()

        return work

    run(None)()
    run(BlockCache(tmp_path / "cache", limit=3 * BLOCK))()
    assert wrong == []


def test_a_read_that_no_source_answers_says_what_is_missing(merged: Merged, reader: Reader) -> None:
    record = merged.add("f", SMALL)
    path = record.path
    for change, reason in (
        ({"site": "elsewhere"}, "site elsewhere is not described here, and there is no replica"),
        ({"state": State.ARCHIVED}, "it is gone from its site, and there is no replica"),
    ):
        merged.catalogue.remove([path])
        merged.catalogue.upsert([replace(record, **change)])  # type: ignore[arg-type]
        with reader.open(path) as file, pytest.raises(FileUnavailableError, match=reason):
            file.read(0, 10)

"""The mirror's bookkeeping, on local folders and a catalogue of a few dictionaries."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from blake3 import blake3

from apbatch.errors import ServerError, UsageError
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord, Replica
from apbatch.index.query import Everything
from apbatch.ingest.replicas.mirror import FILES, LARGE, LARGE_FILES, Room, mirror, mirror_records
from apbatch.ingest.replicas.outcomes import MirroredFile, MirrorSummary, Outcome
from apbatch.ingest.replicas.stores import best_source, target_store
from apbatch.ingest.sites import add_site
from apbatch.storage.backends import open_store
from apbatch.storage.local import LocalDraft, LocalStore
from apbatch.storage.store import Store
from tests.waits import PATIENCE_S, until


class Shelf:
    """The few methods of a catalogue that a mirror uses."""

    def __init__(self, records: list[FileRecord]) -> None:
        self.records = records
        self.kept: dict[tuple[str, str], Replica] = {}

    def select(self, query: object) -> Iterator[FileRecord]:
        return iter(self.records)

    def replicas(self, paths: Iterable[str]) -> dict[str, list[Replica]]:
        return {path: [replica for (of, _), replica in self.kept.items() if of == path] for path in paths}

    def add_replicas(self, replicas: Iterable[Replica]) -> int:
        self.kept.update({(replica.path, replica.url): replica for replica in replicas})
        return len(self.kept)


class Site:
    """A folder with a few files, and how often each was opened."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opened: list[str] = []
        root.mkdir()

    def register(self, name: str, content: bytes) -> FileRecord:
        (self.root / name).write_bytes(content)
        return FileRecord(
            path=f"/exp/site/{name}",
            site="site",
            source=name,
            size=len(content),
            mtime_ns=0,
            checksum=blake3(content).hexdigest(),
            adler32=f"{zlib.adler32(content):08x}",
            format="test",
            experiment="EXP",
        )

    def open(self, record: FileRecord) -> BinaryIO:
        self.opened.append(record.source)
        return (self.root / record.source).open("rb")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture
def shelf(site: Site) -> Shelf:
    return Shelf([site.register(f"file {n}", os.urandom(1000 + n)) for n in range(5)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store")


def run(shelf: Shelf, store: Store, site: Site, **options: Any) -> MirrorSummary:
    return mirror(cast(Catalogue, shelf), Everything(), store, open_source=site.open, **options)


def replica_file(store: Store, record: FileRecord) -> Path:
    assert isinstance(store, LocalStore)
    return store.root / record.path.lstrip("/")


def test_every_file_is_copied_under_its_logical_path(shelf: Shelf, store: Store, site: Site) -> None:
    run(shelf, store, site)
    for record in shelf.records:
        assert replica_file(store, record).read_bytes() == (site.root / record.source).read_bytes()


def test_every_copy_is_recorded_with_its_checksum(shelf: Shelf, store: Store, site: Site) -> None:
    run(shelf, store, site)
    for record in shelf.records:
        (replica,) = shelf.replicas([record.path])[record.path]
        assert (replica.url, replica.kind) == (f"{store.url}{record.path}", "local")
        assert replica.checksum == record.checksum


def test_names_are_forced_to_the_disk_before_copies_are_recorded_and_not_one_by_one(
    shelf: Shelf, store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[list[str]] = []
    settle, add = LocalStore.settle, shelf.add_replicas

    def settle_and_note(self: LocalStore, paths: Iterable[str]) -> None:
        forced.append(list(paths))
        settle(self, forced[-1])

    def add_after_that(replicas: Iterable[Replica]) -> int:
        recorded = list(replicas)
        assert {store.path_of(one.url) for one in recorded} <= {path for paths in forced for path in paths}
        return add(recorded)

    monkeypatch.setattr(LocalStore, "settle", settle_and_note)
    monkeypatch.setattr(shelf, "add_replicas", add_after_that)
    monkeypatch.setattr("apbatch.ingest.replicas.mirror._PATIENCE_S", PATIENCE_S)
    run(shelf, store, site)
    assert [sorted(paths) for paths in forced] == [sorted(record.path.lstrip("/") for record in shelf.records)]
    assert len(shelf.kept) == 5


def test_a_second_run_reads_nothing(shelf: Shelf, store: Store, site: Site) -> None:
    run(shelf, store, site)
    site.opened.clear()
    summary = run(shelf, store, site)
    assert site.opened == []
    assert summary.count(Outcome.SKIPPED) == 5


def test_what_was_published_but_not_recorded_is_recorded_without_copying(
    shelf: Shelf, store: Store, site: Site
) -> None:
    run(shelf, store, site)
    del shelf.kept[next(iter(shelf.kept))]
    site.opened.clear()
    summary = run(shelf, store, site)
    assert site.opened == []
    assert (summary.count(Outcome.ADOPTED), summary.count(Outcome.SKIPPED)) == (1, 4)
    assert len(shelf.kept) == 5


def test_an_unrecorded_file_with_other_bytes_is_replaced(shelf: Shelf, store: Store, site: Site) -> None:
    record = shelf.records[0]
    with store.publish(record.path) as publication:
        publication.write(b"\0" * record.size)
    run(shelf, store, site)
    assert replica_file(store, record).read_bytes() == (site.root / record.source).read_bytes()


def test_a_replica_that_was_removed_is_copied_again(shelf: Shelf, store: Store, site: Site) -> None:
    run(shelf, store, site)
    store.remove(shelf.records[2].path)
    site.opened.clear()
    run(shelf, store, site)
    assert site.opened == ["file 2"]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_verify_finds_a_flipped_byte_and_copies_anew(shelf: Shelf, store: Store, site: Site) -> None:
    run(shelf, store, site)
    damaged = shelf.records[3]
    flip(replica_file(store, damaged))
    files = list(mirror_records(cast(Catalogue, shelf), shelf.records, store, verify=True, open_source=site.open))
    assert [file.path for file in files if file.outcome is Outcome.REPAIRED] == [damaged.path]
    assert [file.outcome for file in files].count(Outcome.VERIFIED) == 4
    assert replica_file(store, damaged).read_bytes() == (site.root / damaged.source).read_bytes()


def test_verify_renews_the_time_of_verification(shelf: Shelf, store: Store, site: Site) -> None:
    run(shelf, store, site)
    before = {key: replica.verified for key, replica in shelf.kept.items()}
    run(shelf, store, site, verify=True)
    assert all(replica.verified > before[key] for key, replica in shelf.kept.items())


def test_a_source_that_changed_is_reported_and_not_copied(shelf: Shelf, store: Store, site: Site) -> None:
    changed = shelf.records[1]
    flip(site.root / changed.source)
    summary = run(shelf, store, site)
    (failure,) = summary.failures
    assert failure.path == changed.path
    assert "registered" in str(failure.reason)
    assert store.info(changed.path) is None
    assert shelf.replicas([changed.path]) == {changed.path: []}


def test_a_file_that_fails_does_not_stop_the_others(shelf: Shelf, store: Store, site: Site) -> None:
    (site.root / "file 0").unlink()
    summary = run(shelf, store, site)
    assert [failure.path for failure in summary.failures] == ["/exp/site/file 0"]
    assert summary.count(Outcome.COPIED) == 4


def test_a_file_registered_anew_replaces_its_old_replica(shelf: Shelf, store: Store, site: Site) -> None:
    run(shelf, store, site)
    shelf.records[0] = site.register("file 0", b"new content")
    summary = run(shelf, store, site)
    assert summary.count(Outcome.COPIED) == 1
    assert replica_file(store, shelf.records[0]).read_bytes() == b"new content"


def test_a_replica_of_an_older_content_of_the_same_size_is_replaced(shelf: Shelf, store: Store, site: Site) -> None:
    run(shelf, store, site)
    content = os.urandom(shelf.records[0].size)
    shelf.records[0] = site.register("file 0", content)
    summary = run(shelf, store, site)
    assert (summary.count(Outcome.COPIED), summary.count(Outcome.SKIPPED)) == (1, 4)
    assert replica_file(store, shelf.records[0]).read_bytes() == content
    path = shelf.records[0].path
    (replica,) = shelf.replicas([path])[path]
    assert replica.checksum == blake3(content).hexdigest()


def test_a_changed_source_is_named_with_the_command_that_registers_it(home: Path, tmp_path: Path, store: Store) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "f"
    file.write_bytes(b"old content")
    (tmp_path / "site.yaml").write_text("name: here\nexperiment: E\nroot: data\n")
    add_site(tmp_path / "site.yaml")
    status = file.stat()
    record = FileRecord(
        "/e/here/f", "here", "f", 11, status.st_mtime_ns, blake3(b"old content").hexdigest(),
        f"{zlib.adler32(b'old content'):08x}", "test", "E",
    )  # fmt: skip
    for change, command in (("same size and time", "apbatch ingest here --again"), ("later", "apbatch ingest here ")):
        file.write_bytes(b"new content")
        if change == "same size and time":
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        summary = mirror(cast(Catalogue, Shelf([record])), Everything(), store)
        (failure,) = summary.failures
        assert command in str(failure.reason), change
        assert ("--again" in str(failure.reason)) == (change == "same size and time")


def test_replicas_can_lie_under_a_folder(shelf: Shelf, store: Store, site: Site) -> None:
    run(shelf, store, site, under="/deep/er/")
    assert store.info(f"deep/er{shelf.records[0].path}") is not None


def test_a_store_that_is_gone_stops_the_run(
    shelf: Shelf, store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: LocalStore, path: str) -> None:
        raise ServerError("no answer")

    monkeypatch.setattr(LocalStore, "info", gone)
    summary = run(shelf, store, site, threads=1)
    assert len(summary.failures) == 5
    assert summary.count(Outcome.NOT_TRIED) >= 3
    assert "does not answer" in str(summary.failures[-1].reason)


def test_a_full_target_keeps_what_is_whole_and_the_next_run_goes_on(
    shelf: Shelf, store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, write = [2500], LocalDraft._write

    def write_while_there_is_room(self: LocalDraft, block: Any) -> None:
        room[0] -= len(block)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, block)

    with monkeypatch.context() as full:
        full.setattr(LocalDraft, "_write", write_while_there_is_room)
        summary = run(shelf, store, site, threads=1)
    whole = {f"/{one.path}" for one in store.entries("exp/site")}
    assert len(whole) == 2 == 5 - len(summary.failures)
    assert all("No space left" in str(one.reason) for one in summary.failures)
    assert {path for path, _ in shelf.kept} == whole
    assert not run(shelf, store, site).failures
    for record in shelf.records:
        assert store.checksums(record.path[1:]).blake3 == record.checksum


def test_an_interrupted_run_leaves_nothing_half_written(shelf: Shelf, store: Store, site: Site) -> None:
    class Interrupted(Shelf):
        def add_replicas(self, replicas: Iterable[Replica]) -> int:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(shelf.records), store, site)
    for entry in store.entries("exp/site"):
        record = next(record for record in shelf.records if record.path == f"/{entry.path}")
        assert store.checksums(entry.path).blake3 == record.checksum


def replica(record: FileRecord, url: str, kind: str, checksum: str | None = None) -> Replica:
    return Replica(record.path, url, kind, checksum or record.checksum, datetime.now(UTC))


@pytest.mark.parametrize("prefer", ["hdfs", "hdfs://h:1", "hdfs://h:1/mirror/"])
def test_the_replica_in_the_preferred_store_is_read(shelf: Shelf, prefer: str) -> None:
    record = shelf.records[0]
    replicas = [replica(record, "file:///x", "local"), replica(record, "hdfs://h:1/mirror/x", "hdfs")]
    assert best_source(record, replicas, prefer) == "hdfs://h:1/mirror/x"


def test_a_replica_of_older_content_is_not_read(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    record = shelf.records[0]
    replicas = [
        replica(record, "hdfs://h:1/old", "hdfs", checksum="0" * 64),
        replica(record, "hdfs://h:1/new", "hdfs"),
    ]
    assert best_source(record, replicas, "hdfs") == "hdfs://h:1/new"


def test_an_unknown_target_names_the_nearest(home: Path) -> None:
    with pytest.raises(UsageError) as raised:
        target_store("hfds")
    assert raised.value.nearest == "hdfs"


def test_nothing_is_mirrored_into_a_site(home: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "beside").symlink_to("data")
    (tmp_path / "s.yaml").write_text("name: s\nexperiment: TAIGA\nroot: data\n")
    add_site(tmp_path / "s.yaml")
    for folder in ("data", "data/deep/new", "beside/new"):
        with pytest.raises(UsageError, match="belongs to the site 's'"):
            target_store(str(tmp_path / folder))
    assert target_store(str(tmp_path / "data2")).url.endswith("/data2")


@pytest.mark.parametrize("target", ["hdfs", "webhdfs", "afs"])
def test_a_target_whose_server_is_down_says_how_to_start_it(home: Path, target: str) -> None:
    with pytest.raises(ServerError, match="apbatch cluster up"):
        target_store(target)


def test_the_local_target_is_a_folder_of_the_state(home: Path) -> None:
    assert target_store("local").url == f"file://{home}/mirror"


# at scale


def sized(site: Site, sizes: Iterable[int]) -> Iterator[FileRecord]:
    for number, size in enumerate(sizes):
        yield replace(site.register(f"file {number}", bytes([number % 256])), size=size)


def test_many_small_files_are_under_way_at_once_and_few_large_ones(site: Site) -> None:
    for size, most in ((20_000, FILES), (10 * LARGE, LARGE_FILES), (LARGE // 2, 2 * LARGE_FILES)):
        room, records = Room(FILES), list(sized(site, [size] * (FILES + 1)))
        under_way = 0
        while room.admits(records[under_way]):
            room.enter(records[under_way])
            under_way += 1
        assert under_way == most


def test_a_failing_server_gets_half_as_much_and_later_all_again(site: Site) -> None:
    room, record = Room(32), next(sized(site, [1]))

    def filled() -> int:
        number = 0
        while room.admits(record):
            room.enter(record)
            number += 1
        return number

    def emptied(number: int, setbacks: int) -> None:
        for _ in range(number):
            room.leave(record, setbacks)
            setbacks = 0

    first = filled()
    emptied(first, 1)
    second = filled()
    assert first == 32 and 16 <= second <= 17 + 1
    emptied(second, 1)
    for _ in range(60):
        emptied(filled(), 0)
    assert filled() == 32
    emptied(32, 0)
    for _ in range(10):
        room.enter(record)
        room.leave(record, 3)
    assert room.admits(record), "nothing may begin any more"


def test_the_selection_is_read_as_copies_end_and_what_ended_is_handed_on(
    shelf: Shelf, store: Store, site: Site
) -> None:
    taken, many = 0, 1200
    site.register("same", b"same content")

    def records() -> Iterator[FileRecord]:
        nonlocal taken
        base = site.register("same", b"same content")
        for number in range(many):
            taken += 1
            yield replace(base, path=f"/exp/site/{number}")

    files = mirror_records(cast(Catalogue, shelf), records(), store, open_source=site.open, threads=4)
    first = next(files)
    assert first.outcome is Outcome.COPIED and taken <= 500
    files.close()  # who stops to listen stops the copies
    assert taken <= 500 and len(shelf.kept) < 500
    for entry in store.entries("exp/site"):
        assert store.checksums(entry.path).size == 12


def test_a_source_that_is_busy_for_a_moment_is_read_again(
    shelf: Shelf, store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apbatch.storage.transfer._PAUSES_S", (0.0,))
    failures = {"file 1": errno.ESTALE, "file 3": errno.EIO}

    def open_source(record: FileRecord) -> BinaryIO:
        code = failures.pop(record.source, None)
        if code is not None:
            raise OSError(code, "no")
        return site.open(record)

    summary = mirror(cast(Catalogue, shelf), Everything(), store, open_source=open_source)
    assert summary.count(Outcome.COPIED) == 4
    assert [failure.path for failure in summary.failures] == ["/exp/site/file 3"], "a disk's error is no accident"


def test_a_summary_counts_all_failures_and_names_few() -> None:
    summary = MirrorSummary("file:///s")
    for number in range(1000):
        summary.add(MirroredFile(f"/{number}", "u", 10, Outcome.FAILED, "why"))
    assert summary.failed == 1000 and len(summary.failures) == 100


def test_threads_go_on_while_copies_are_recorded(
    shelf: Shelf, store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = site.register("same", b"same content")
    shelf.records = [replace(base, path=f"/exp/site/{number}") for number in range(200)]
    add = shelf.add_replicas

    def slow_add(replicas: Iterable[Replica]) -> int:
        copied = list(replicas)
        ahead = min(200, len(shelf.kept) + len(copied) + 64)
        until(lambda: len(site.opened) >= ahead, "the threads wait for the catalogue")
        return add(copied)

    monkeypatch.setattr(shelf, "add_replicas", slow_add)
    run(shelf, store, site, threads=2)
    assert len(shelf.kept) == 200


def test_an_error_that_is_no_ones_fault_ends_the_mirror(
    shelf: Shelf, store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(record: FileRecord) -> BinaryIO:
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(site, "open", broken)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        run(shelf, store, site)

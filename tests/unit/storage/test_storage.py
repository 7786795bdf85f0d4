"""Parts of the stores that need no server: names, time limits, checksums, URLs, transfers."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from apbatch.errors import ServerError, UsageError
from apbatch.storage import names
from apbatch.storage.backends import local_path, open_store
from apbatch.storage.deadline import Heart, TimedReader, watched, within
from apbatch.storage.hadoop import hdfs
from apbatch.storage.hadoop.crc import FileChecksum
from apbatch.storage.hadoop.hdfs import HdfsDraft, HdfsStore, raise_translated
from apbatch.storage.hashing import READ_BYTES, Hasher, hash_stream
from apbatch.storage.local import LocalStore
from apbatch.storage.store import Checksums
from apbatch.storage.transfer import InterruptedTransferError, SourceChangedError, transfer
from tests.waits import PATIENCE_S, until

# Text with what HDFS can't hold, and with what looks like its replacement.
HOSTILE = st.text(st.sampled_from("%:235A8F\udc80\udcff ab"), max_size=12)


def checksums_of(content: bytes) -> Checksums:
    return Checksums(blake3(content).hexdigest(), f"{zlib.adler32(content):08x}", len(content))


@given(HOSTILE)
def test_an_escaped_name_comes_back(name: str) -> None:
    assert names.unescape(names.escape(name)) == name


@given(HOSTILE.filter(lambda name: ":" not in name and name.isascii()))
def test_a_name_made_by_others_comes_back(name: str) -> None:
    assert names.escape(names.unescape(name)) == name


@given(HOSTILE)
def test_an_escaped_name_can_be_held_by_hdfs(name: str) -> None:
    escaped = names.escape(name)
    assert ":" not in escaped
    escaped.encode("utf-8")


@pytest.mark.parametrize(
    ("name", "kept"),
    [("a:b", "a%3Ab"), ("a%3Ab", "a%253Ab"), ("a%253Ab", "a%25253Ab"), ("100%", "100%"), ("%zz", "%zz")],
)
def test_only_what_must_be_escaped_is(name: str, kept: str) -> None:
    assert names.escape(name) == kept


def test_the_name_of_a_part_fits_into_the_longest_name_of_a_file() -> None:
    assert len(names.new_part("é" * 127).encode()) <= 255


def test_a_part_of_a_dead_process_is_left_behind() -> None:
    program = "from apbatch.storage import names; print(names.new_part('file'))"
    part = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert names.is_part(part)
    assert names.is_left_behind(part, age_s=0)


def test_a_part_that_is_being_written_is_not_left_behind() -> None:
    part = names.new_part("file")
    assert not names.is_left_behind(part, age_s=1e9)
    names.end_part(part)
    assert names.is_left_behind(part, age_s=0)


def test_a_part_from_another_machine_is_left_behind_after_a_day() -> None:
    part = ".file.00000000-1-1-01234567.part"
    assert not names.is_left_behind(part, age_s=3600)
    assert names.is_left_behind(part, age_s=25 * 3600)


def test_a_store_sweeps_the_part_of_another_machine_after_a_day(tmp_path: Path) -> None:
    part = tmp_path / ".file.00000000-1-1-01234567.part"
    part.write_bytes(b"half")
    for age_s, there in ((3600, True), (25 * 3600, False)):
        os.utime(part, (time.time() - age_s,) * 2)
        with open_store(f"file://{tmp_path}").publish("other") as publication:
            publication.write(b"x")
        assert part.exists() is there


def test_links_to_nowhere_and_to_themselves_are_no_entries(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"abc")
    assert [entry.path for entry in open_store(f"file://{tmp_path}").entries("")] == ["file"]


def test_the_name_of_a_part_can_not_be_published(tmp_path: Path) -> None:
    with pytest.raises(UsageError), open_store(f"file://{tmp_path}").publish(names.new_part("file")):
        pass


def test_a_call_that_hangs_is_left_after_its_limit() -> None:
    never = threading.Event()
    with pytest.raises(ServerError, match="no answer within"):
        within(0.1, "hdfs://nowhere", never.wait)
    never.set()


def test_after_a_call_that_hangs_others_go_on() -> None:
    never = threading.Event()
    with pytest.raises(ServerError):
        within(0.05, "here", never.wait)
    assert within(PATIENCE_S, "here", lambda: "answer") == "answer"
    never.set()


def test_a_long_call_goes_on_while_its_heart_beats() -> None:
    def work(heart: Heart) -> str:
        end = time.monotonic() + 3.2
        while time.monotonic() < end:
            time.sleep(0.02)
            heart.beat()
        return "done"

    assert watched(work, 3.0, "here") == "done"


def test_a_call_within_a_watched_one_is_a_part_of_it() -> None:
    def outer(heart: Heart) -> tuple[int, int]:
        for _ in range(4):
            within(0.2, "the server", time.sleep, 0.1)  # together longer than the limit: each has its own
        return threading.get_ident(), within(0.2, "the server", threading.get_ident)

    here, inner = watched(outer, 0.2, "the server")
    assert here == inner != threading.get_ident()


def test_of_a_call_that_was_given_up_no_further_part_begins() -> None:
    stuck, over, begun = threading.Event(), threading.Event(), list[str]()

    def outer(heart: Heart) -> None:
        try:
            within(0.05, "the server", stuck.wait, PATIENCE_S)
            within(0.05, "the server", begun.append, "renamed")
        finally:
            over.set()

    with pytest.raises(ServerError, match="no answer within"):
        watched(outer, 0.05, "the server")
    stuck.set()
    assert over.wait(PATIENCE_S) and not begun


def test_an_error_in_a_call_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        within(PATIENCE_S, "here", lambda: 1 / 0)


def test_a_call_gets_its_helper_again_in_a_forked_process() -> None:
    within(PATIENCE_S, "here", int)
    child = os.fork()
    if child == 0:
        try:
            os._exit(within(PATIENCE_S, "here", lambda: 7))
        finally:
            os._exit(99)
    ends: list[int] = []

    def ended() -> bool:
        pid, status = os.waitpid(child, os.WNOHANG)
        ends.extend([status] if pid else [])
        return bool(pid)

    until(ended, "the forked process hangs")
    assert os.waitstatus_to_exitcode(ends[0]) == 7


def test_helpers_end_with_their_threads() -> None:
    def count() -> int:
        return sum(thread.name == "time-limited" for thread in threading.enumerate())

    before = count()
    for _ in range(5):
        thread = threading.Thread(target=within, args=(PATIENCE_S, "here", int))
        thread.start()
        thread.join()
    until(lambda: count() <= before)


def test_a_stalled_read_has_a_time_limit() -> None:
    class Stalled(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            time.sleep(5)
            return b""

    with pytest.raises(ServerError):
        io.BufferedReader(TimedReader(Stalled(), 0.1, "afs:///x")).read(1)  # type: ignore[arg-type]


def test_a_panic_of_the_client_becomes_an_error_with_its_place() -> None:
    class Panic(BaseException):
        pass

    with pytest.raises(ServerError, match="hdfs://h:1/x: Panic: out of range"):
        raise_translated(Panic("out of range"), "hdfs://h:1/x")


def test_a_namenode_that_is_not_there_is_told_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(ServerError, match="can't be reached"):
        HdfsStore("hdfs://127.0.0.1:1/x").info("file")
    assert time.monotonic() - started < 3


def test_a_webhdfs_server_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(ServerError, match="can't be reached"):
        open_store("webhdfs://127.0.0.1:1/x").info("file")


class _Reader(io.BytesIO):
    """As much of hdfs-native's reader as a store uses."""

    def __len__(self) -> int:
        return len(self.getvalue())

    def read_range(self, offset: int, length: int) -> bytes:
        return self.getvalue()[offset : offset + length]

    def read_range_stream(self, offset: int, length: int) -> Any:
        return iter([self.read_range(offset, length)])


class _LateBlock:
    """A client that leaves out the last block at first, as hdfs-native was seen to do just after a write."""

    def __init__(self, late: int) -> None:
        self.late = late

    def read(self, path: str) -> _Reader:
        self.late -= 1
        return _Reader(b"" if self.late >= 0 else b"muon")

    def get_file_info(self, path: str) -> Any:
        return SimpleNamespace(length=4)


@pytest.fixture
def late_store(monkeypatch: pytest.MonkeyPatch) -> HdfsStore:
    client = _LateBlock(late=2)
    monkeypatch.setattr(HdfsStore, "_client", lambda self: client)
    return HdfsStore("hdfs://h:1/x", limit_s=0.5)


def test_a_block_that_is_reported_late_is_waited_for(late_store: HdfsStore) -> None:
    with late_store.open("file") as stream:
        assert stream.read() == b"muon"


def test_a_file_whose_last_block_is_reported_late_is_hashed_whole(late_store: HdfsStore) -> None:
    assert late_store.checksums("file") == checksums_of(b"muon")


def test_a_block_that_never_comes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HdfsStore, "_client", lambda self: _LateBlock(late=1000))
    with pytest.raises(ServerError, match="only 0 of 4 bytes"):
        HdfsStore("hdfs://h:1/x", limit_s=0.1).open("file")


# Answers of a NameNode (Hadoop 3.5.0) for files of these bytes and block sizes.
@pytest.mark.parametrize(
    ("content", "block_size", "checksum"),
    [
        (b"", 1 << 20, "70bc8f4b72a86921468bf8e8441dce51"),
        (b"hello", 1 << 26, "2ebac5fafc444475c9720587791d7412"),
    ],
)
def test_the_file_checksum_is_that_of_hdfs(content: bytes, block_size: int, checksum: str) -> None:
    computed = FileChecksum(block_size)
    computed.update(content)
    assert computed.hexdigest() == checksum


@given(st.binary(max_size=5000), st.lists(st.integers(1, 700), max_size=8))
def test_the_file_checksum_does_not_depend_on_the_pieces(content: bytes, cuts: list[int]) -> None:
    whole, pieces = FileChecksum(2048), FileChecksum(2048)
    whole.update(content)
    start = 0
    for cut in cuts:
        pieces.update(content[start : start + cut])
        start += cut
    pieces.update(content[start:])
    assert pieces.hexdigest() == whole.hexdigest()


@given(st.binary(max_size=100_000))
def test_a_stream_is_hashed_as_the_libraries_hash_its_bytes(content: bytes) -> None:
    assert hash_stream(io.BytesIO(content)) == checksums_of(content)


@pytest.mark.parametrize(
    "url",
    [
        *("", "/plain/path", "s3://bucket/x", "hdsf://h:1/x", "file://relative", "hdfs:///x", "hdfs://h:port/x"),
        *("https://user:secret@h/x", "https://h/x?token=1", "https://h/x#part"),
    ],
)
def test_a_wrong_url_is_the_users_error(url: str) -> None:
    with pytest.raises(UsageError):
        open_store(url)


def test_an_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(UsageError) as raised:
        open_store("hdsf://h:1/x")
    assert raised.value.nearest == "hdfs"


@pytest.mark.parametrize("url", ["file:///a/b", "afs:///afs/cell", "hdfs://h:1/a?b#c", "webhdfs://h:1/"])
def test_the_url_of_a_path_begins_with_the_url_of_the_store(url: str) -> None:
    store = open_store(url)
    assert store.url_of("x/y") == f"{url.rstrip('/')}/x/y"
    assert store.path_of(store.url_of("x/y")) == "x/y"


def test_a_url_of_another_store_is_refused() -> None:
    with pytest.raises(UsageError):
        open_store("file:///a").path_of("file:///b/c")


class Failing(LocalStore):
    """Fails in the middle of the first `failures` files."""

    def __init__(self, root: Path, failures: int) -> None:
        super().__init__(f"file://{root}", root)
        self.failures, self.tried = failures, 0

    def _create(self, part: str) -> Any:
        draft = super()._create(part)
        self.tried += 1
        if self.tried <= self.failures:

            def fail(block: bytes | memoryview) -> None:
                raise ServerError("the DataNode died")

            draft.write = fail  # type: ignore[method-assign]
        return draft


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apbatch.storage.transfer._PAUSES_S", (0.0,))


def source(content: bytes) -> Any:
    def open_it() -> BinaryIO:
        return io.BytesIO(content)

    return open_it


def test_a_transfer_tries_the_whole_file_again(tmp_path: Path) -> None:
    store = Failing(tmp_path, failures=2)
    transfer(source(b"whole"), store, "file", checksums_of(b"whole"))
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_a_refusal_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def no_space(self: object, block: object) -> None:
        tried.append(block)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("apbatch.storage.local.LocalDraft._write", no_space)
    with pytest.raises(ServerError, match="No space left"):
        transfer(source(b"whole"), open_store(f"file://{tmp_path}"), "file")
    assert len(tried) == 1


class NotingStream(io.BytesIO):
    """Tells when its third block was asked for, into the room of the first."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.blocks, self.third = 0, threading.Event()

    def readinto(self, room: Any) -> int:
        count = super().readinto(room)
        self.blocks += 1
        if self.blocks == 3:
            self.third.set()
        return count


def test_a_block_is_hashed_before_its_room_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, update = NotingStream(os.urandom(5 * READ_BYTES + 17)), Hasher.update

    def late(self: Hasher, block: bytes | memoryview) -> None:
        stream.third.wait(0.2)
        update(self, block)

    monkeypatch.setattr(Hasher, "update", late)
    sums = transfer(lambda: stream, open_store(f"file://{tmp_path}/store"), "copy")
    assert sums.blake3 == blake3((tmp_path / "store" / "copy").read_bytes()).hexdigest()


def test_a_block_that_does_not_stay_is_hashed_before_it_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, update = threading.Event(), Hasher.update

    def late(self: Hasher, block: bytes | memoryview) -> None:
        changed.wait(0.2)
        update(self, block)

    monkeypatch.setattr(Hasher, "update", late)
    room = bytearray(READ_BYTES)
    with open_store(f"file://{tmp_path}").publish("file") as publication:
        publication.write(memoryview(room))
        room[:] = b"x" * READ_BYTES
        changed.set()
    assert publication.checksums.blake3 == blake3(bytes(READ_BYTES)).hexdigest()


def test_a_transfer_gives_up_after_its_attempts(tmp_path: Path) -> None:
    store = Failing(tmp_path, failures=99)
    with pytest.raises(ServerError, match="DataNode died"):
        transfer(source(b"whole"), store, "file", attempts=3)
    assert store.tried == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("now", [b"changed!", b"shorter", b"much longer than before"])
def test_a_source_that_changed_is_not_published(tmp_path: Path, now: bytes) -> None:
    store = open_store(f"file://{tmp_path}")
    with pytest.raises(SourceChangedError):
        transfer(source(now), store, "file", checksums_of(b"original"))
    assert list(tmp_path.iterdir()) == []


def test_a_transfer_stops_when_told(tmp_path: Path) -> None:
    with pytest.raises(InterruptedTransferError):
        transfer(source(b"whole"), open_store(f"file://{tmp_path}"), "file", stop=lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(self: object, block: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("apbatch.storage.local.LocalDraft._write", no_space)
    with (
        pytest.raises(ServerError, match="No space left on device"),
        open_store(f"file://{tmp_path}").publish("file") as publication,
    ):
        publication.write(b"x")
    assert list(tmp_path.iterdir()) == []


class _LosesANode:
    """Takes the place of hdfs-native's client: the first files can't open a block, as when a DataNode has just died."""

    def __init__(self, failures: int, error: str = "Connection refused (os error 111)") -> None:
        self.failures, self.error = failures, error
        self.files: list[bytes] = []

    def create(self, path: str, options: object) -> _LosesANode:
        self.files.append(b"")
        return self

    def write(self, block: bytes) -> None:
        self.files[-1] += block

    def close(self) -> None:
        if len(self.files) <= self.failures:
            raise OSError(self.error)


def _draft(client: _LosesANode, monkeypatch: pytest.MonkeyPatch) -> HdfsDraft:
    monkeypatch.setattr(hdfs, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(HdfsStore, "_client", lambda self: client)
    draft: HdfsDraft = HdfsStore("hdfs://h:1/x")._create("part")
    return draft


def test_a_file_that_met_a_dead_datanode_is_written_again_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    client = _LosesANode(failures=3)
    draft = _draft(client, monkeypatch)
    for block in (b"one", b"two"):
        draft.write(block)
    draft.close()
    assert client.files == [b"onetwo"] * 4


def test_writing_again_ends_when_time_is_up_and_other_faults_are_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hdfs, "_NODE_LOST_S", 0.01)
    with pytest.raises(ServerError, match="refused"):
        _draft(_LosesANode(failures=10_000), monkeypatch).close()
    client = _LosesANode(failures=1, error="no space")
    with pytest.raises(ServerError, match="no space"):
        _draft(client, monkeypatch).close()
    assert len(client.files) == 1


def test_a_file_too_large_to_be_kept_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdfs, "_KEPT_BYTES", 4)
    client = _LosesANode(failures=1)
    draft = _draft(client, monkeypatch)
    draft.write(b"12345")
    with pytest.raises(ServerError, match="refused"):
        draft.close()


@pytest.mark.parametrize(
    ("place", "path"), [("a/b", "a/b"), ("/a b", "/a b"), ("file:///a/b", "/a/b"), ("x:y", "x:y"), (".", ".")]
)
def test_a_local_path_is_given_as_path_or_url_and_is_absolute(place: str, path: str) -> None:
    assert local_path(place) == Path.cwd() / path


@pytest.mark.parametrize("place", ["hdfs://host:1/a", "afs:///a", "file://a/b", "http://x/y"])
def test_another_url_is_no_local_path(place: str) -> None:
    with pytest.raises(UsageError, match=re.escape(place)):
        local_path(place)

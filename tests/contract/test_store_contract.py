"""What every store does, whatever is behind it: one suite, run on local disk, HDFS, WebHDFS and AFS."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import secrets
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from apbatch.errors import ApbatchError, NotFoundError, UsageError, VerificationError
from apbatch.storage import transfer
from apbatch.storage.backends import open_store, open_url
from apbatch.storage.hadoop.hdfs import HdfsStore
from apbatch.storage.hashing import READ_BYTES, hash_blocks
from apbatch.storage.local import LocalStore
from apbatch.storage.lock import Lock
from apbatch.storage.publishing import Draft, PublishingStore
from apbatch.storage.store import Store

BACKENDS = [
    "local",
    pytest.param("hdfs", marks=pytest.mark.hdfs),
    pytest.param("webhdfs", marks=pytest.mark.hdfs),
    pytest.param("afs", marks=pytest.mark.afs),
]

ODD_NAMES = [
    "a b",
    " lead and trail ",
    "ünï©ode 日本 😀",
    "new\nline\ttab",
    "col:on",
    "100% %3A %253A %zz %25",
    "q?m#h&=+;,",
    "back\\slash",
    "[brackets]{braces}*",
    "byte\udc80\udcff",
    "quote'\"",
    "-dash",
    "x" * 200,
]


#: Names that are different files, though Unicode's composed form (NFC) of each is the next one's.
EQUAL_IN_NFC = ["a\u0301", "\u00e1", "\u212b", "\u00c5", "\u1112\u1161\u11ab", "\ud55c", "#LATEST", "#LATEST{2}"]


@pytest.fixture(params=BACKENDS, scope="session")
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an empty folder of one back-end."""
    if request.param == "local":
        yield f"file://{tmp_path_factory.mktemp('store')}"
        return
    server: str = request.getfixturevalue(request.param)
    folder = f"contract-{secrets.token_hex(4)}"
    yield f"{server}/{folder}"
    open_store(server).remove(folder)


@pytest.fixture
def store(root: str) -> Store:
    """A store in a folder of its own for each test."""
    return open_store(f"{root}/{secrets.token_hex(4)}")


def put(store: Store, path: str, content: bytes = b"content") -> None:
    with store.publish(path) as publication:
        publication.write(content)


def names(store: Store, folder: str = "") -> list[str]:
    return [entry.path for entry in store.entries(folder)]


def hidden(store: Store, folder: str = "") -> list[str]:
    """Names that `entries` leaves out: files being written, or left behind."""
    assert isinstance(store, PublishingStore)
    return [entry.path for entry in store._all_entries(folder) if entry.path.endswith(".part")]


def test_a_published_file_is_read_back_as_it_was(store: Store) -> None:
    content = os.urandom(3_000_001)
    put(store, "folder/file", content)
    with store.open("folder/file") as stream:
        assert stream.read() == content


def test_an_empty_file_is_published(store: Store) -> None:
    with store.publish("empty"):
        pass
    with store.open("empty") as stream:
        assert stream.read() == b""


def test_a_file_larger_than_a_block_is_published_from_odd_pieces(store: Store) -> None:
    content = os.urandom(READ_BYTES + 12345)
    with store.publish("large") as publication:
        for start in range(0, len(content), 700_001):
            publication.write(memoryview(content)[start : start + 700_001])
    assert store.checksums("large").blake3 == blake3(content).hexdigest()


def test_publishing_tells_the_checksums_of_what_was_written(store: Store) -> None:
    with store.publish("file") as publication:
        publication.write(b"astro")
        publication.write(b"particle")
    content = b"astroparticle"
    assert publication.checksums.blake3 == blake3(content).hexdigest()
    assert publication.checksums.adler32 == f"{zlib.adler32(content):08x}"
    assert publication.checksums.size == len(content)


def test_the_running_checksum_is_known_before_the_end(store: Store) -> None:
    with store.publish("file") as publication:
        publication.write(b"astro")
        assert publication.so_far().blake3 == blake3(b"astro").hexdigest()
        publication.write(b"particle")


def test_checksums_are_those_of_the_stored_bytes(store: Store) -> None:
    put(store, "file", b"muon")
    assert store.checksums("file").blake3 == blake3(b"muon").hexdigest()


def test_publishing_replaces_an_older_file(store: Store) -> None:
    put(store, "file", b"old and long")
    put(store, "file", b"new")
    with store.open("file") as stream:
        assert stream.read() == b"new"


def test_an_exception_publishes_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError, match="halfway"), store.publish("folder/file") as publication:
        publication.write(b"half")
        raise RuntimeError("halfway")
    assert store.info("folder/file") is None


def test_an_exception_leaves_no_part_behind(store: Store) -> None:
    with pytest.raises(RuntimeError, match="halfway"), store.publish("folder/file") as publication:
        publication.write(b"half")
        raise RuntimeError("halfway")
    assert hidden(store, "folder") == []


def test_an_exception_keeps_the_older_file(store: Store) -> None:
    put(store, "file", b"old")
    with pytest.raises(RuntimeError, match="halfway"), store.publish("file") as publication:
        publication.write(b"half")
        raise RuntimeError("halfway")
    with store.open("file") as stream:
        assert stream.read() == b"old"


def test_a_file_being_written_is_not_listed(store: Store) -> None:
    with store.publish("file") as publication:
        publication.write(b"x")
        assert names(store) == []
        assert store.info("file") is None


def test_a_byte_flipped_on_the_way_is_caught(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(store, LocalStore) and store.kind == "local":
        store = LocalStore(store.url, store.root, read_back=True)  # else the disk is trusted to keep what it got
    _flip_first_byte(store, monkeypatch)
    with pytest.raises(VerificationError), store.publish("file") as publication:
        publication.write(b"gamma ray")
    assert store.info("file") is None


def _flip_first_byte(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage what goes to the server, behind the back of whoever hashes."""
    if store.kind == "hdfs":
        from apbatch.storage.hadoop.hdfs import HdfsDraft

        change: type[Draft] = HdfsDraft
    elif store.kind == "webhdfs":
        from apbatch.storage.hadoop.webhdfs import WebHdfsDraft

        # The draft hashes what it sends itself, so the damage comes after that: in its queue.
        def put_flipped(self: WebHdfsDraft, block: bytes | None) -> None:
            original(self, block and bytes([block[0] ^ 1]) + block[1:])

        original = WebHdfsDraft._put
        monkeypatch.setattr(WebHdfsDraft, "_put", put_flipped)
        return
    else:
        from apbatch.storage.local import LocalDraft

        change = LocalDraft
    write: Callable[[Draft, bytes | memoryview], None] = change.write

    def write_flipped(self: Draft, block: bytes | memoryview) -> None:
        damaged = bytearray(block)
        damaged[0] ^= 1
        write(self, damaged)

    monkeypatch.setattr(change, "write", write_flipped)


def test_bytes_lost_on_the_way_are_caught(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create = type(store)._create  # type: ignore[attr-defined]

    def create_forgetful(self: PublishingStore, part: str) -> Draft:
        draft: Draft = create(self, part)
        draft.write = lambda block: None  # type: ignore[method-assign]
        return draft

    monkeypatch.setattr(type(store), "_create", create_forgetful)
    with pytest.raises(VerificationError, match="9 bytes"), store.publish("file") as publication:
        publication.write(b"gamma ray")
    assert store.info("file") is None


def test_names_that_only_normalisation_makes_equal_are_different_files(store: Store) -> None:
    for name in EQUAL_IN_NFC:
        put(store, f"{name}/{name}", ascii(name).encode())
    assert sorted(names(store)) == sorted(EQUAL_IN_NFC)
    for name in EQUAL_IN_NFC:
        content = ascii(name).encode()
        assert names(store, name) == [f"{name}/{name}"]
        with store.open(f"{name}/{name}") as stream:
            assert stream.read() == content
        assert store.checksums(f"{name}/{name}").blake3 == blake3(content).hexdigest()
    store.remove(EQUAL_IN_NFC[0])
    assert sorted(names(store)) == sorted(EQUAL_IN_NFC[1:])


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_odd_names_come_back_as_they_were(store: Store, name: str) -> None:
    put(store, f"{name}/{name}", name.encode(errors="surrogateescape"))
    assert names(store) == [name]
    assert names(store, name) == [f"{name}/{name}"]
    with store.open(f"{name}/{name}") as stream:
        assert stream.read() == name.encode(errors="surrogateescape")


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_a_file_is_found_again_by_its_url(store: Store, name: str) -> None:
    put(store, name, b"by url")
    assert store.path_of(store.url_of(name)) == name
    with open_url(store.url_of(name)) as stream:
        assert stream.read() == b"by url"


def test_info_tells_size_and_kind(store: Store) -> None:
    put(store, "folder/file", b"12345")
    file, folder = store.info("folder/file"), store.info("folder")
    assert file is not None and folder is not None
    assert (file.path, file.size, file.is_directory) == ("folder/file", 5, False)
    assert folder.is_directory


def test_info_tells_when_a_file_was_written(store: Store) -> None:
    put(store, "file")
    info = store.info("file")
    assert info is not None and info.mtime_ns is not None
    assert abs(info.mtime_ns / 1e9 - time.time()) < 60


def test_info_of_nothing_is_none(store: Store) -> None:
    assert store.info("nothing/here") is None


def test_entries_are_sorted_and_relative_to_the_root(store: Store) -> None:
    for path in ("b", "a/x", "c", "a/y"):
        put(store, path)
    assert names(store) == ["a", "b", "c"]
    assert names(store, "a") == ["a/x", "a/y"]


def test_entries_of_a_missing_folder_are_an_error(store: Store) -> None:
    with pytest.raises(NotFoundError):
        store.entries("missing")


def test_entries_of_a_file_are_an_error(store: Store) -> None:
    put(store, "file")
    with pytest.raises(NotFoundError):
        store.entries("file")


def test_opening_a_missing_file_is_an_error_with_its_url(store: Store) -> None:
    with pytest.raises(NotFoundError) as raised:
        store.open("missing")
    assert raised.value.where == store.url_of("missing")


def test_opening_a_folder_is_an_error(store: Store) -> None:
    put(store, "folder/file")
    with pytest.raises(UsageError):
        store.open("folder")


def test_a_stream_can_be_read_at_any_place(store: Store) -> None:
    content = bytes(range(256)) * 8192
    put(store, "file", content)
    with store.open("file") as stream:
        stream.seek(1_000_003)
        assert stream.read(5) == content[1_000_003:1_000_008]
        stream.seek(-3, os.SEEK_END)
        assert stream.read(10) == content[-3:]
        stream.seek(7)
        assert stream.tell() == 7
        assert stream.read(2_000_000) == content[7:2_000_007]


def test_reading_past_the_end_gives_nothing(store: Store) -> None:
    put(store, "file", b"short")
    with store.open("file") as stream:
        stream.seek(100)
        assert stream.read(4) == b""


def test_a_removed_file_is_gone(store: Store) -> None:
    put(store, "file")
    store.remove("file")
    assert store.info("file") is None


def test_a_removed_folder_is_gone_with_all_in_it(store: Store) -> None:
    put(store, "folder/sub/file")
    store.remove("folder")
    assert store.info("folder") is None


def test_removing_nothing_is_no_error(store: Store) -> None:
    store.remove("nothing")


def test_the_root_is_never_removed(store: Store) -> None:
    put(store, "file")
    with pytest.raises(UsageError):
        store.remove("")
    assert names(store) == ["file"]


@pytest.mark.parametrize("path", ["../escape", "a/../../b", "a/./b", "nul\0"])
def test_a_path_out_of_the_store_is_refused(store: Store, path: str) -> None:
    with pytest.raises(UsageError):
        store.open(path)


def test_a_file_can_not_replace_a_folder(store: Store) -> None:
    put(store, "folder/file")
    with pytest.raises(ApbatchError):
        put(store, "folder")
    assert names(store, "folder") == ["folder/file"]


def test_a_folder_can_not_be_made_below_a_file(store: Store) -> None:
    put(store, "file")
    with pytest.raises(UsageError):
        put(store, "file/below")


def test_a_store_travels_to_another_process(store: Store) -> None:
    put(store, "file", b"abc")
    with pickle.loads(pickle.dumps(store)).open("file") as stream:
        assert stream.read() == b"abc"


def test_what_a_killed_writer_left_is_never_seen_and_swept_by_the_next(store: Store) -> None:
    program = textwrap.dedent(
        """
        import os, signal, sys, time
        from apbatch.storage.backends import open_store
        store = open_store(sys.argv[1])
        with store.publish("folder/file") as publication:
            publication.write(b"x" * 5_000_000)
            for _ in range(9000):  # until the server has begun with it
                if store._all_entries("folder"):
                    break
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    killed = subprocess.run([sys.executable, "-c", program, store.url], check=False, env={**os.environ})
    assert killed.returncode == -9
    assert store.info("folder/file") is None
    assert len(hidden(store, "folder")) == 1
    put(store, "folder/file", b"whole")
    assert hidden(store, "folder") == []
    with store.open("folder/file") as stream:
        assert stream.read() == b"whole"


def test_what_a_killed_writer_left_of_a_large_file_is_gone_on_with(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over WebHDFS, which can't, the file begins anew; it is compared whole in any case."""
    monkeypatch.setattr(transfer, "RESUMED_BYTES", 1)
    data = random.Random(4).randbytes(6_000_000)
    expected = hash_blocks([data])
    program = textwrap.dedent(
        """
        import os, random, signal, sys, time
        from apbatch.storage.backends import open_store
        store = open_store(sys.argv[1])
        with store.publish("folder/large", sys.argv[2]) as publication:
            publication.write(random.Random(4).randbytes(6_000_000)[:5_000_000])
            for _ in range(9000):  # until the server has begun with it
                if store._all_entries("folder"):
                    break
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    killed = subprocess.run([sys.executable, "-c", program, store.url, expected.blake3], check=False)
    assert killed.returncode == -9 and store.info("folder/large") is None
    put(store, "folder/small", b"small")
    assert len(hidden(store, "folder")) == 1, "it was swept"
    begins: list[int] = []

    class Source(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            begins.append(offset)
            return super().seek(offset, whence)

    assert transfer.transfer(lambda: Source(data), store, "folder/large", expected) == expected
    assert store.checksums("folder/large") == expected
    # How much of it a server has when its client is killed is the server's affair.
    assert begins == [5_000_000] if store.kind == "local" else all(0 < one <= 5_000_000 for one in begins)
    if store.kind == "webhdfs":
        assert begins == []
    else:
        assert hidden(store, "folder") == []


def test_a_living_writer_is_not_swept(store: Store) -> None:
    with store.publish("file") as first:
        first.write(b"first")
        put(open_store(store.url), "file", b"second")
        first.write(b" goes on")
    with store.open("file") as stream:
        assert stream.read() == b"first goes on"


@pytest.mark.parametrize("content", ["", "c" * 64])
def test_a_folder_that_somebody_removed_is_made_again(store: Store, content: str) -> None:
    put(store, "folder/a")
    store.remove("folder")
    with store.publish("folder/b", content) as publication:  # with it, what an earlier writer left is looked for
        publication.write(b"b")
    assert names(store, "folder") == ["folder/b"]


def test_a_folder_may_go_as_soon_as_it_is_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(store, PublishingStore)
    make, gone = store._make_folder, []

    def make_in_vain(folder: str) -> None:
        make(folder)
        if not gone:
            gone.append(store.remove(folder))

    monkeypatch.setattr(store, "_make_folder", make_in_vain)
    put(store, "folder/a")
    assert names(store, "folder") == ["folder/a"]


@pytest.fixture
def native(hdfs: str, webhdfs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A folder of HDFS whose NameNode's web interface is known by Hadoop's own configuration."""
    web = webhdfs.partition("://")[2]
    for name, key, value in (("core", "fs.defaultFS", hdfs), ("hdfs", "dfs.namenode.http-address", web)):
        text = f"<configuration><property><name>{key}</name><value>{value}</value></property></configuration>"
        (tmp_path / f"{name}-site.xml").write_text(text)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    store = open_store(f"{hdfs}/contract-{secrets.token_hex(4)}")
    yield store
    store.remove("long")


LONG = [os.urandom(1 << 20) for _ in range(6)]


@pytest.mark.hdfs
def test_a_long_file_in_hdfs_is_verified_by_its_checksum_there_and_not_read_back(
    native: HdfsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_back: list[str] = []
    monkeypatch.setattr(HdfsStore, "_reader", lambda self, path: read_back.append(path))
    with native.publish("long") as publication:
        for block in LONG:
            publication.write(block)
    monkeypatch.undo()
    assert read_back == []
    assert native.checksums("long") == publication.checksums == hash_blocks(LONG)


@pytest.mark.hdfs
@pytest.mark.parametrize("damaged", [0, 5])
def test_a_byte_of_a_long_file_that_is_flipped_on_the_way_to_hdfs_is_caught(
    native: HdfsStore, monkeypatch: pytest.MonkeyPatch, damaged: int
) -> None:
    import hdfs_native

    write, written = hdfs_native.FileWriter.write, []

    def write_flipped(self: hdfs_native.FileWriter, block: bytes) -> int:
        written.append(block)
        return write(self, bytes([block[0] ^ (len(written) == damaged + 1)]) + block[1:])

    monkeypatch.setattr(hdfs_native.FileWriter, "write", write_flipped)
    with pytest.raises(VerificationError), native.publish("long") as publication:
        for block in LONG:
            publication.write(block)
    assert native.info("long") is None and len(written) == len(LONG)


@pytest.mark.hdfs
def test_hdfs_tells_the_hosts_of_each_block(webhdfs: str) -> None:
    store = open_store(f"{webhdfs}/contract-{secrets.token_hex(4)}")
    put(store, "file", b"x" * 1000)
    hosts = store.block_hosts("file")
    store.remove("file")
    assert len(hosts) == 1
    assert hosts[0] and set(hosts[0]) <= {"127.0.0.1", "localhost"}


def test_stores_without_blocks_tell_no_hosts(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    put(store, "file")
    assert store.block_hosts("file") == []


@pytest.mark.hdfs
def test_what_is_written_over_http_is_what_the_native_client_reads(hdfs: str, webhdfs: str) -> None:
    folder = f"contract-{secrets.token_hex(4)}"
    native, web = open_store(f"{hdfs}/{folder}"), open_store(f"{webhdfs}/{folder}")
    content = os.urandom(100_000)
    put(web, "file: ü", content)
    with native.open("file: ü") as stream:
        assert hashlib.sha256(stream.read()).digest() == hashlib.sha256(content).digest()
    native.remove("file: ü")


def test_of_programs_that_want_a_lock_one_has_it_until_it_gives_it_back(store):
    put(store, "data")
    with Lock(store, ".lock", "this folder") as lock:
        assert lock.is_ours()
        for _ in range(2):
            with pytest.raises(UsageError, match="written by another program"):
                Lock(store, ".lock", "this folder").__enter__()
        lock.check()
    with Lock(store, ".lock", "this folder"):
        pass
    assert names(store) == ["data"]


def test_a_lock_whose_owner_was_killed_is_had_by_the_next(store):
    program = """
        import sys
        from apbatch.storage.lock import Lock
        from apbatch.storage.backends import open_store
        Lock(open_store(sys.argv[1]), ".lock", "this folder").__enter__()
        print("held", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), store.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match=f"process {owner.pid} "):
            Lock(store, ".lock", "this folder").__enter__()
        owner.kill()
    with Lock(store, ".lock", "this folder") as lock:
        assert lock.is_ours()
    assert names(store) == []


def test_a_folder_is_not_renamed_onto_another(store):
    put(store, "one/file", b"1")
    put(store, "two/file", b"2")
    with pytest.raises(ApbatchError):
        store.rename("one", "two")
    with store.open("two/file") as file:
        assert file.read() == b"2"
    assert names(store, "one") == ["one/file"]

"""What every store does whose files are read, whatever is behind it: local disk, HDFS, WebHDFS, AFS, a web server."""

from __future__ import annotations

import os
import pickle
import random
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from apbatch.errors import NotFoundError, UsageError
from apbatch.storage.backends import open_readable, open_store, open_url, store_of
from apbatch.storage.store import ReadableStore
from tests.contract.test_store_contract import BACKENDS, ODD_NAMES
from tests.webserver import WebServer

CONTENT = random.Random(5).randbytes(3_000_001)
FILES = {"folder/large": CONTENT, "folder/small": b"muon", "empty": b"", **{f"odd/{name}": b"x" for name in ODD_NAMES}}


@pytest.fixture(params=[*BACKENDS, "http"], scope="module")
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, serve: Callable[[Path], WebServer]
) -> Iterator[ReadableStore]:
    """A store that holds FILES."""
    folder = f"readable-{secrets.token_hex(4)}"
    local = f"file://{tmp_path_factory.mktemp('readable')}"
    root = local if request.param in ("local", "http") else request.getfixturevalue(request.param)
    filled = open_store(f"{root}/{folder}")
    for path, content in FILES.items():
        with filled.publish(path) as publication:
            publication.write(content)
    url = serve(Path(local.removeprefix("file://"))).url if request.param == "http" else root
    yield open_readable(f"{url}/{folder}")
    open_store(root).remove(folder)


def test_a_file_is_read_whole(store: ReadableStore) -> None:
    with store.open("folder/large") as stream:
        assert stream.read() == CONTENT


def test_a_stream_is_read_from_anywhere(store: ReadableStore) -> None:
    with store.open("folder/large") as stream:
        stream.seek(2_000_000)
        assert stream.read(1000) == CONTENT[2_000_000:2_001_000]
        stream.seek(-7, os.SEEK_END)
        assert stream.read() == CONTENT[-7:]


@pytest.mark.parametrize("offset", [0, 1, 2_000_000, len(CONTENT) - 3, len(CONTENT), len(CONTENT) + 9])
def test_a_range_is_what_the_file_has_there(store: ReadableStore, offset: int) -> None:
    with store.ranges("folder/large") as ranges:
        assert ranges.size == len(CONTENT)
        assert ranges.read(offset, 1000) == CONTENT[offset : offset + 1000]


def test_an_empty_file_has_no_bytes(store: ReadableStore) -> None:
    with store.ranges("empty") as ranges:
        assert (ranges.size, ranges.read(0, 10)) == (0, b"")


def test_threads_read_one_file_at_the_same_time(store: ReadableStore) -> None:
    wrong: list[int] = []

    def read(start: int) -> None:
        for offset in range(start, len(CONTENT), 400_000):
            if ranges.read(offset, 5000) != CONTENT[offset : offset + 5000]:
                wrong.append(offset)

    with store.ranges("folder/large") as ranges:
        threads = [threading.Thread(target=read, args=(number * 50_000,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_checksums_are_those_of_the_bytes(store: ReadableStore) -> None:
    assert store.checksums("folder/large").blake3 == blake3(CONTENT).hexdigest()


def test_a_file_has_its_size_and_a_time(store: ReadableStore) -> None:
    info = store.info("folder/small")
    assert info is not None
    assert (info.path, info.size, info.is_directory) == ("folder/small", 4, False)
    assert info.mtime_ns


def test_a_folder_is_one(store: ReadableStore) -> None:
    info = store.info("folder")
    assert info is not None
    assert info.is_directory


def test_of_what_is_not_there_nothing_is_known(store: ReadableStore) -> None:
    assert store.info("folder/none") is None


def test_opening_what_is_not_there_is_an_error(store: ReadableStore) -> None:
    with pytest.raises(NotFoundError):
        store.open("folder/none")
    with pytest.raises(NotFoundError):
        store.ranges("none/none")


def test_a_folder_is_not_opened_as_a_file(store: ReadableStore) -> None:
    with pytest.raises(UsageError), store.ranges("folder") as ranges:
        ranges.read(0, 1)


def test_entries_are_sorted_and_told_with_their_sizes(store: ReadableStore) -> None:
    entries = [(entry.path, entry.size) for entry in store.entries("folder")]
    assert entries == [("folder/large", len(CONTENT)), ("folder/small", 4)]


def test_entries_of_the_root_are_files_and_folders(store: ReadableStore) -> None:
    entries = {entry.path: entry.is_directory for entry in store.entries()}
    assert entries == {"empty": False, "folder": True, "odd": True}


def test_a_folder_that_is_not_there_can_not_be_listed(store: ReadableStore) -> None:
    with pytest.raises(NotFoundError):
        list(store.entries("none"))


@pytest.mark.parametrize("number", range(len(ODD_NAMES)))
def test_a_file_of_any_name_is_listed_and_read_by_its_url(store: ReadableStore, number: int) -> None:
    path = f"odd/{ODD_NAMES[number]}"
    assert path in [entry.path for entry in store.entries("odd")]
    assert store.path_of(store.url_of(path)) == path
    with open_url(store.url_of(path)) as stream:
        assert stream.read() == b"x"


def test_stores_are_pooled_by_their_root(store: ReadableStore) -> None:
    one, path = store_of(store.url_of("folder/small"))
    other, _ = store_of(store.url_of("folder/large"))
    assert one is other
    assert path.endswith("folder/small")


def test_a_store_goes_to_another_process(store: ReadableStore) -> None:
    again = pickle.loads(pickle.dumps(store))
    with again.open("folder/small") as stream:
        assert stream.read() == b"muon"


def test_paths_that_leave_the_root_are_refused(store: ReadableStore) -> None:
    with pytest.raises(UsageError):
        store.open("../folder/small")

"""Web servers that fail or lie: nothing wrong is delivered, and every wait ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apbatch.errors import ApbatchError, NotFoundError, ServerError, UsageError
from apbatch.storage.backends import open_readable, open_store
from apbatch.storage.http import HttpStore
from apbatch.storage.transfer import SourceChangedError
from tests.webserver import WebServer, served

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    (tmp_path / "file").write_bytes(CONTENT)
    with served(tmp_path) as server:
        yield server


@pytest.fixture
def store(web: WebServer) -> HttpStore:
    return HttpStore(web.url, limit_s=3)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("cut", "ended|broke off"),
        ("stall", "within 3 s|broke off"),
        ("trickle", "within 3 s"),
        ("shift", "asked for bytes 100 to 899"),
        ("long", "another length"),
        ("whole", "no ranges"),
        ("packed", "compressed"),
        ("error", "503"),
        ("silent", "within 3 s|no answer"),
    ],
)
def test_a_failing_server_gives_an_error_in_time(web: WebServer, store: HttpStore, fault: str, message: str) -> None:
    with store.ranges("file") as ranges:
        web.fault = fault
        begin = time.monotonic()
        with pytest.raises(ServerError, match=message):
            ranges.read(100, 800)
        assert time.monotonic() - begin < 60
        web.fault = ""
        assert ranges.read(100, 800) == CONTENT[100:900]  # and nothing is left of the failed answer


def test_only_what_is_read_is_transferred(web: WebServer, store: HttpStore) -> None:
    with store.ranges("file") as ranges:
        ranges.read(100, 50)
    assert web.sent == 50


def test_a_file_that_changes_is_not_read_on(web: WebServer, store: HttpStore) -> None:
    with store.ranges("file") as ranges:
        ranges.read(0, 10)
        (web.folder / "file").write_bytes(b"other" * 100)
        with pytest.raises(SourceChangedError):
            ranges.read(10, 10)


def test_a_server_without_ranges_gives_whole_files(web: WebServer, store: HttpStore) -> None:
    web.fault = "whole"
    with store.ranges("file") as ranges:
        assert ranges.read(0, len(CONTENT)) == CONTENT


def test_a_server_without_head_is_asked_otherwise(web: WebServer, store: HttpStore) -> None:
    web.fault = "nohead"
    info = store.info("file")
    assert info is not None
    assert info.size == len(CONTENT)


def test_a_file_that_goes_is_missing(web: WebServer, store: HttpStore) -> None:
    with store.ranges("file") as ranges:
        (web.folder / "file").unlink()
        with pytest.raises(NotFoundError):
            ranges.read(0, 10)


def test_nobody_at_the_address_is_an_error(store: HttpStore) -> None:
    with pytest.raises(ServerError, match="no answer"):
        HttpStore("http://127.0.0.1:1", limit_s=10).info("file")


def test_a_forked_process_has_connections_of_its_own(store: HttpStore) -> None:
    assert store.info("file")
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if store.info("file") else 1)
        except ApbatchError:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.info("file")


def test_a_web_server_is_no_place_to_write_to() -> None:
    with pytest.raises(UsageError, match="only be read"):
        open_store("http://127.0.0.1:1/folder")


@pytest.mark.parametrize("url", ["http://me:secret@host/x", "http://host/x?token=secret", "https:///x"])
def test_a_url_with_secrets_or_without_a_server_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as refusal:
        open_readable(url)
    assert "secret" not in str(refusal.value)

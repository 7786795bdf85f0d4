"""Servers on a full disk: what was acknowledged stays, nothing is half there, and the error says what to do."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apbatch.errors import ServerError
from apbatch.formats.reader import Attribute
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord
from apbatch.index.parser import parse
from tests.contract.conftest import record
from tests.disks import SmallDisk
from tests.servers import Servers

_BATCH = 100
_ROOM = 24 << 20
_DECLARED = (Attribute("zenith", "number", "z", "deg"), Attribute("label", "string", "a text"))


@pytest.fixture
def server() -> Iterator[Servers]:
    """A server of this test alone."""
    with tempfile.TemporaryDirectory(prefix="apbatch-full-") as folder:
        Path(folder).chmod(0o711)
        servers = Servers(Path(folder))
        yield servers
        servers.command("down")


@pytest.fixture
def small(server: Servers) -> Iterator[Callable[[str], SmallDisk]]:
    """Gives a folder of the server a small disk; the server is stopped meanwhile."""
    disks = []

    def make(name: str) -> SmallDisk:
        server.url("postgres")
        assert server.command("down", "postgres").returncode == 0
        disks.append(SmallDisk(next(server.home.rglob("PG_VERSION")).parent / name, _ROOM))
        return disks[-1]

    yield make
    server.command("down")
    for disk in disks:
        disk.unmount()


def fill(catalogue: Catalogue) -> tuple[list[str], ServerError]:
    """Write until the server has no room; return what it acknowledged, and its error."""
    acknowledged: list[str] = []
    catalogue.declare(_DECLARED)
    for start in range(0, 1_000_000, _BATCH):
        names = [f"{n:07}" for n in range(start, start + _BATCH)]
        try:
            report = catalogue.upsert(whole(name) for name in names)
        except ServerError as error:
            return acknowledged, error
        assert report.written == _BATCH
        acknowledged += names
    raise AssertionError("the disk was not full")


def whole(name: str) -> FileRecord:
    return record("E", name, checksum="c" * 64, attributes={"zenith": float(name), "label": f"{name}" * 20})


def assert_whole(catalogue: Catalogue, acknowledged: list[str], unit: int = _BATCH) -> None:
    """What was acknowledged is whole: attributes, folder, revision; of the rest, `unit` files at once or none."""
    held = {file.source: file for file in catalogue.of_site("E-site")}
    assert set(acknowledged) <= set(held)
    assert len(held) % unit == 0
    assert all(file.attributes == whole(name).attributes for name, file in held.items())
    assert catalogue.count(parse("", catalogue.attributes())) == {None: len(held)}
    listed, cursor = [], None
    while True:
        page = catalogue.entries("/E/site", cursor, 1000)
        listed += [entry.name for entry in page.entries]
        if (cursor := page.cursor) is None:
            break
    assert listed == sorted(held)
    feed = [change.revision for change in catalogue.all_changes(0)]
    # Cassandra's feed stops for some minutes before what a writer could not end
    told = [held[name] for name in acknowledged] if unit == 1 else list(held.values())
    assert {file.revision for file in told} <= set(feed) <= {file.revision for file in held.values()}
    assert feed == sorted(set(feed))
    assert catalogue.damage() == []


@pytest.mark.postgres
def test_tables_without_room_lose_nothing_and_the_error_says_what_to_do(
    server: Servers, small: Callable[[str], SmallDisk]
) -> None:
    disk = small("base")
    url = f"{server.url('postgres')}/full"
    with open_catalogue(url) as catalogue:
        acknowledged, error = fill(catalogue)
        assert error.what == "no room for the catalogue"
        assert error.remedy == "free space; nothing is lost"
        assert acknowledged
        assert_whole(catalogue, acknowledged)  # it reads on
        disk.grow()
        assert catalogue.upsert([whole(f"{n:07}") for n in range(9_000_000, 9_000_100)]).written == 100  # and writes
        assert_whole(catalogue, acknowledged)


@pytest.mark.postgres
def test_a_server_that_ends_for_want_of_room_comes_back_with_all_it_acknowledged(
    server: Servers, small: Callable[[str], SmallDisk]
) -> None:
    disk = small("pg_wal")
    url = f"{server.url('postgres')}/full"
    with open_catalogue(url) as catalogue:
        acknowledged, error = fill(catalogue)
        # PostgreSQL refuses, or ends: its log can't be written on
        assert error.remedy and ("free space" in error.remedy or "a full disk" in error.remedy)
        assert acknowledged
    disk.grow()
    server.url("postgres")
    with open_catalogue(url) as catalogue:
        assert_whole(catalogue, acknowledged)
        assert catalogue.upsert([whole(f"{n:07}") for n in range(9_000_000, 9_000_100)]).written == 100


@pytest.mark.cassandra
@pytest.mark.campaign  # two starts of a node
def test_a_node_of_cassandra_that_ends_for_want_of_room_comes_back_with_all_it_acknowledged(server: Servers) -> None:
    folder = server.home / "cluster" / "cassandra" / "data"
    folder.mkdir(parents=True)
    disk = SmallDisk(folder, 256 << 20)  # it asks for 50 MiB at its start
    try:
        url = f"{server.url('cassandra')}/full"
        with open_catalogue(url) as catalogue:
            catalogue.declare(_DECLARED)
            disk.leave(6 << 20)
            acknowledged, error = fill(catalogue)
            # a page of its log that the disk has no room for ends the node
            assert error.remedy and "a full disk" in error.remedy
            assert acknowledged
        disk.grow()
        server.url("cassandra")
        with open_catalogue(url) as catalogue:
            assert_whole(catalogue, acknowledged, unit=1)
            refused = [f"{n:07}" for n in range(len(acknowledged), len(acknowledged) + _BATCH)]
            assert catalogue.upsert(map(whole, refused)).written == _BATCH
            assert catalogue.count(parse("", catalogue.attributes())) == {None: len(acknowledged) + _BATCH}
    finally:
        server.command("down")
        disk.unmount()

"""PostgreSQL on a full disk: what was acknowledged stays, nothing is half there, and the error says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
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
from tests.servers import Servers

pytestmark = pytest.mark.postgres
_BATCH = 100
_ROOM = 24 << 20


class SmallDisk:
    """A file system in memory in the place of a folder, with little room beside what the folder holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept, owner = folder.with_name(f"{folder.name}.kept"), folder.stat()
        used = sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
        folder.rename(kept)
        folder.mkdir()
        place = f"uid={owner.st_uid},gid={owner.st_gid},mode=700"
        done = self._mount(f"size={used + _ROOM},{place}")
        if done.returncode:
            folder.rmdir()
            kept.rename(folder)
            pytest.skip(
                f"a full disk of PostgreSQL is NOT tried, as nothing can be mounted here: {done.stderr.strip()}"
            )
        shutil.copytree(kept, folder, dirs_exist_ok=True, copy_function=_copied)
        for path in folder.rglob("*"):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        shutil.rmtree(kept)

    def _mount(self, options: str) -> subprocess.CompletedProcess[str]:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(self.folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def grow(self) -> None:
        """Free space, as a user does."""
        done = self._mount("remount,size=1g")
        assert done.returncode == 0, done.stderr

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def _copied(source: str, target: str) -> None:
    shutil.copy2(source, target, follow_symlinks=False)


@pytest.fixture
def server() -> Iterator[Servers]:
    """A server of this test alone."""
    with tempfile.TemporaryDirectory(prefix="apbatch-full-") as folder:
        Path(folder).chmod(0o711)
        servers = Servers(Path(folder))
        servers.url("postgres")
        yield servers
        servers.command("down")


@pytest.fixture
def small(server: Servers) -> Iterator[Callable[[str], SmallDisk]]:
    """Gives a folder of the server a small disk; the server is stopped meanwhile."""
    disks = []

    def make(name: str) -> SmallDisk:
        assert server.command("down", "postgres").returncode == 0
        disks.append(SmallDisk(next(server.home.rglob("PG_VERSION")).parent / name))
        return disks[-1]

    yield make
    server.command("down")
    for disk in disks:
        disk.unmount()


def fill(catalogue: Catalogue) -> tuple[list[str], ServerError]:
    """Write until the server has no room; return what it acknowledged, and its error."""
    acknowledged: list[str] = []
    catalogue.declare([Attribute("zenith", "number", "z", "deg"), Attribute("label", "string", "a text")])
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


def assert_whole(catalogue: Catalogue, acknowledged: list[str]) -> None:
    """What was acknowledged is there with its attributes, its folder, its revision; of other batches all or nothing."""
    held = {file.source: file for file in catalogue.of_site("E-site")}
    assert set(acknowledged) <= set(held)
    assert len(held) % _BATCH == 0
    assert all(file.attributes == whole(name).attributes for name, file in held.items())
    assert catalogue.count(parse("", catalogue.attributes())) == {None: len(held)}
    listed, cursor = [], None
    while True:
        page = catalogue.entries("/E/site", cursor, 1000)
        listed += [entry.name for entry in page.entries]
        if (cursor := page.cursor) is None:
            break
    assert listed == sorted(held)
    assert [change.revision for change in catalogue.all_changes(0)] == sorted(file.revision for file in held.values())
    assert catalogue.damage() == []


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

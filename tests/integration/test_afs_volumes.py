"""Volumes of a real AFS cell: filled by the store, frozen, released to a read-only replica, limited by a quota."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from blake3 import blake3

from apbatch.cluster.afs import Afs
from apbatch.errors import ApbatchError, ServerError
from apbatch.storage.afs import AfsStore
from apbatch.storage.backends import open_store
from tests.integration.test_cluster import in_cell, pids
from tests.servers import Servers
from tests.waits import until

pytestmark = pytest.mark.afs

SERVER = "10.99.0.1"


class Volume:
    """A volume that is made for one test."""

    def __init__(self, servers: Servers, cell: Path) -> None:
        self.name = f"ap.{secrets.token_hex(3)}"
        self._servers, self._cell = servers, cell

    def vos(self, *arguments: str) -> str:
        return in_cell(self._servers, "vos", *arguments, "-localauth").decode()

    def path(self, kind: str = "") -> Path:
        """Return where the volume is; `kind` is ``.readonly`` or ``.backup``."""
        return Path(f"{str(self._cell.readlink()).rpartition(':')[0]}:{self.name}{kind}")

    def write(self, name: str, content: bytes) -> None:
        with open_store(f"afs://{self.path()}").publish(name) as publication:
            publication.write(content)


@pytest.fixture
def volume(servers: Servers, afs: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Volume]:
    monkeypatch.setenv("APBATCH_HOME", str(servers.home))
    cell = Path(afs.removeprefix("afs://"))
    volume = Volume(servers, cell)
    volume.vos("create", SERVER, "a", volume.name, "-maxquota", "0")
    Afs().open_to_everybody(volume.name)
    yield volume
    for kind in (".readonly", ""):
        if kind == "" or "RO_Exists" in volume.vos("examine", volume.name):
            volume.vos("remove", SERVER, "a", volume.name + kind)


def test_a_killed_file_server_ends_every_call_in_time_and_loses_nothing(servers: Servers, volume: Volume) -> None:
    content = secrets.token_bytes(3 << 20)
    volume.write("before", content)
    store = AfsStore(f"afs://{volume.path()}", volume.path(), limit_s=20)
    server = _file_server(servers)
    server.kill()
    begun = time.monotonic()
    try:
        with store.publish("during") as publication:
            publication.write(content)
    except ApbatchError:
        pass  # else the cell's own keeper had started another one in time
    assert time.monotonic() - begun < 300

    def readable() -> bool:
        try:
            with store.open("before") as stream:
                return stream.read() == content
        except ServerError:
            return False

    until(readable, "the file server does not come back", 1)
    assert _file_server(servers).pid != server.pid
    assert store.info("during") is None or store.checksums("during").blake3 == blake3(content).hexdigest()
    with store.publish("after") as publication:
        publication.write(content)


def _file_server(servers: Servers) -> psutil.Process:
    keeper = pids(servers, "afs")["keeper"]
    network = Path(f"/proc/{keeper}/ns/net").readlink()

    def inside(process: psutil.Process) -> bool:
        try:
            return Path(f"/proc/{process.pid}/ns/net").readlink() == network
        except OSError:
            return False

    (server,) = [one for one in psutil.process_iter() if one.name() == "dafileserver" and inside(one)]
    return server


def test_readers_of_a_released_volume_see_the_old_state_until_the_next_release(volume: Volume) -> None:
    volume.write("night/a.001", b"first")
    volume.vos("addsite", SERVER, "a", volume.name)
    volume.vos("release", volume.name)
    replica = volume.path(".readonly")
    assert (replica / "night" / "a.001").read_bytes() == b"first"
    with pytest.raises(OSError):
        (replica / "night" / "new").write_bytes(b"")
    volume.write("night/b.001", b"second")
    assert [path.name for path in (replica / "night").iterdir()] == ["a.001"]
    volume.vos("release", volume.name)
    until(lambda: (replica / "night" / "b.001").is_file(), "the release is seen")
    assert (replica / "night" / "b.001").read_bytes() == b"second"


def test_a_snapshot_keeps_what_is_changed_afterwards(volume: Volume) -> None:
    volume.write("a.001", b"before")
    volume.vos("backup", volume.name)
    volume.write("a.001", b"after")
    assert (volume.path() / "a.001").read_bytes() == b"after"
    assert (volume.path(".backup") / "a.001").read_bytes() == b"before"


def test_a_file_over_quota_is_an_error_and_leaves_none(volume: Volume) -> None:
    volume.write("small", bytes(1000))
    volume.vos("setfields", volume.name, "-maxquota", "1000")
    with pytest.raises(ApbatchError):
        volume.write("large", os.urandom(5_000_000))
    assert [path.name for path in volume.path().iterdir() if not path.name.startswith(".")] == ["small"]

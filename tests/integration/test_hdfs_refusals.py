"""What a real NameNode refuses: a mirror stops at once and says what to do; redirects of odd names."""

from __future__ import annotations

import getpass
import io
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from apbatch.cluster.artifacts import java
from apbatch.cluster.hdfs import Hdfs
from apbatch.errors import ApbatchError, ServerError
from apbatch.index.catalogue import Catalogue
from apbatch.index.query import Everything
from apbatch.ingest.replicas.mirror import mirror
from apbatch.ingest.replicas.outcomes import MirrorSummary, Outcome
from apbatch.storage.backends import open_store
from apbatch.storage.hadoop.webhdfs import WebHdfsStore
from apbatch.storage.store import Store
from apbatch.storage.transfer import transfer
from tests.integration.test_cluster import status
from tests.servers import Servers
from tests.unit.storage.test_storage_mirror import Shelf, Site
from tests.waits import until

pytestmark = pytest.mark.hdfs

FILES = 12
Admin = Callable[..., None]


@pytest.fixture
def admin(servers: Servers, hdfs: str) -> Admin:
    """Hadoop's own administration tool."""
    conf = servers.home / "cluster" / "hdfs" / "namenode" / "conf"

    def run(*arguments: str) -> None:
        command = [java(), "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", f"{conf}:{Hdfs.fetch()}/*"]
        command += ["org.apache.hadoop.hdfs.tools.DFSAdmin", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(params=["hdfs", "webhdfs"])
def target(request: pytest.FixtureRequest, hdfs: str) -> Iterator[str]:
    folder = f"refused-{secrets.token_hex(4)}"
    open_store(f"{hdfs}/{folder}")._make_folder("")  # type: ignore[attr-defined]
    yield f"{request.getfixturevalue(request.param)}/{folder}"
    open_store(hdfs).remove(folder)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def run(site: Site, target: str) -> tuple[MirrorSummary, float]:
    shelf = Shelf([site.register(f"file {n}", os.urandom(1000 + n)) for n in range(FILES)])
    started = time.monotonic()
    summary = mirror(
        cast(Catalogue, shelf), Everything(), open_store(target), threads=1, open_source=cast(Any, site.open)
    )
    return summary, time.monotonic() - started


def assert_stopped(summary: MirrorSummary, seconds: float, remedy: str) -> None:
    assert len(summary.failures) == FILES
    assert summary.count(Outcome.NOT_TRIED) >= FILES - 2, "every file was tried"
    assert all(remedy in str(file.reason) for file in summary.failures)
    assert seconds < 25, "a refusal was waited for"  # one pause of another attempt chain alone takes 30 s


def test_safe_mode_stops_a_mirror_at_once(site: Site, target: str, admin: Admin) -> None:
    admin("-safemode", "enter")
    try:
        summary, seconds = run(site, target)
    finally:
        admin("-safemode", "leave")
    assert_stopped(summary, seconds, "hdfs dfsadmin -safemode leave")


@pytest.mark.parametrize(("option", "limit"), [("-setQuota", "1"), ("-setSpaceQuota", "1000")])
def test_a_quota_of_the_root_stops_a_mirror_at_once(
    site: Site, target: str, admin: Admin, option: str, limit: str
) -> None:
    admin(option, limit, "/" + target.rpartition("/")[2])
    summary, seconds = run(site, target)
    assert_stopped(summary, seconds, f"hdfs dfsadmin {option} N /")


def test_a_root_that_may_not_be_written_stops_a_mirror_at_once(
    site: Site, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", f"not-{getpass.getuser()}")
    summary, seconds = run(site, target)
    assert_stopped(summary, seconds, "hdfs dfs -chown")


@pytest.mark.campaign
def test_a_namenode_that_is_killed_stops_work_and_once_it_is_back_nothing_is_lost(
    servers: Servers, site: Site, target: str
) -> None:
    store, content = open_store(target), secrets.token_bytes(3 << 20)
    with store.publish("before") as publication:
        publication.write(content)
    (pid,) = [row["pid"] for row in status(servers, "hdfs") if row["process"] == "namenode"]
    with pytest.raises(ApbatchError), store.publish("during") as publication:
        publication.write(content[:1000])
        os.kill(pid, signal.SIGKILL)
        publication.write(content[1000:])
    with pytest.raises(ServerError):
        store.info("before")
    summary, _ = run(site, target)
    assert len(summary.failures) == FILES and summary.count(Outcome.NOT_TRIED) >= FILES - 4
    try:
        servers.url("hdfs")
        until(lambda: _reads(store, "before", content), "what was written before can't be read", 0.5)
        assert store.info("during") is None
        summary, _ = run(site, target)
        assert not summary.failures
    finally:  # others get servers that have all just met
        servers.command("down", "hdfs")
        servers.url("hdfs")


@pytest.mark.campaign
def test_a_datanode_that_is_killed_in_a_write_or_in_a_read_costs_no_byte(servers: Servers, hdfs: str) -> None:
    store, content = open_store(f"{hdfs}/datanode-{secrets.token_hex(4)}"), secrets.token_bytes(24 << 20)
    killed: list[str] = []

    class Source(io.BytesIO):
        def readinto(self, room: Any) -> int:
            if self.tell() >= 8 << 20 and not killed:
                killed.append(_kill_datanode_that_holds(servers, "rbw"))
            return super().readinto(room)

    try:
        sums = transfer(lambda: Source(content), store, "file")
        assert killed and store.checksums("file") == sums and sums.size == len(content)
        assert servers.command("up", "hdfs").returncode == 0
        with store.open("file") as stream:
            data = stream.read(4 << 20)
            killed.append(_kill_datanode_that_holds(servers, "finalized"))
            data += stream.read()
        assert data == content
    finally:
        servers.command("up", "hdfs")
        open_store(hdfs).remove(store.url.rsplit("/", 1)[1])


def _kill_datanode_that_holds(servers: Servers, kind: str) -> str:
    """Kill the DataNode with the newest block of this kind, ``rbw`` while it is written; return its name."""
    newest: tuple[int, str, int] = (0, "", 0)
    for row in status(servers, "hdfs"):
        if row["process"].startswith("datanode") and row["pid"]:
            for file in (servers.home / "cluster" / "hdfs" / row["process"]).rglob(f"{kind}/**/blk_*"):
                newest = max(newest, (file.stat().st_mtime_ns, row["process"], row["pid"]))
    assert newest[1], f"no DataNode has a block that is {kind}"
    os.kill(newest[2], signal.SIGKILL)
    return newest[1]


def _reads(store: Store, path: str, content: bytes) -> bool:
    """Tell whether a file can be read; a NameNode that was just started waits for reports of blocks."""
    try:
        with store.open(path) as stream:
            data = stream.read()
    except ServerError:
        return False
    assert data == content
    return True


def test_every_redirected_operation_of_webhdfs_keeps_to_the_file_asked_for(hdfs: str, webhdfs: str) -> None:
    store = WebHdfsStore(f"{webhdfs}/redirects-{secrets.token_hex(4)}")
    client = store._client()
    composed, decomposed = f"{store._root}/\u00e1", f"{store._root}/a\u0301"
    try:
        client.write(composed, data=b"composed", overwrite=True)
        client.write(decomposed, data=b"de", overwrite=True)
        client.write(decomposed, data=b"composed?", append=True)
        for path, content in ((composed, b"composed"), (decomposed, b"decomposed?")):
            with client.read(path) as stream:
                assert stream.read() == content
            assert client.status(path)["length"] == len(content)
        assert client.checksum(composed)["bytes"] != client.checksum(decomposed)["bytes"]
    finally:
        client.delete(store._root, recursive=True)

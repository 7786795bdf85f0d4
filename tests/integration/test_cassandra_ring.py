"""A ring of three nodes, of which one is killed under load: reads and writes go on, nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from apbatch.index.backends import open_catalogue
from apbatch.index.parser import parse
from tests.servers import Servers
from tests.waits import PATIENCE_S

pytestmark = [pytest.mark.cassandra, pytest.mark.campaign]

#: Writes blocks of ten files without end, and reads each back.
WRITER = """
import sys
from datetime import date
from apbatch.index.backends import open_catalogue
from apbatch.index.files import FileRecord
with open_catalogue(sys.argv[1]) as catalogue:
    for block in range(10**6):
        catalogue.upsert(FileRecord(
            path=f"/e/s/{block}/{n}", site="s", source=f"{block}/{n}", size=n, mtime_ns=n, checksum=f"{block}-{n}",
            adler32="", format="f", experiment="e", run=block, night=date(2017, 1, 1 + block % 28),
        ) for n in range(10))
        assert len(catalogue.listing("s", f"{block}").batch) == 10
        print(block, flush=True)
"""


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    done = servers.command("up", "cassandra", "--nodes", "3")
    try:
        assert done.returncode == 0, done.stderr
        yield servers
    finally:
        servers.command("down", "cassandra")


def test_one_of_three_nodes_is_killed_and_work_goes_on(ring: Servers) -> None:
    url = ring.url("cassandra") + "/ring"
    assert url.count("127.0.0.") == 3
    second = int((Path(ring.home) / "cluster/cassandra/node2/cassandra2.pid").read_text().split()[0])
    with open_catalogue(url) as catalogue:
        replication = catalogue._session.do(  # type: ignore[attr-defined]
            "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?", "ring"
        )
        assert "3" in replication[0]["replication"].values()
        writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        try:
            for _ in range(3):
                assert writer.stdout.readline()
            os.kill(second, signal.SIGKILL)
            blocks = [int(writer.stdout.readline()) for _ in range(20)]
            declared = catalogue.attributes()
            for block in blocks:
                assert len(list(catalogue.select(parse(f"experiment = 'e' and run = {block}", declared)))) == 10
        finally:
            writer.kill()
            blocks = [int(line) for line in writer.stdout]
            writer.wait(timeout=PATIENCE_S)
        assert ring.url("cassandra") + "/ring" == url  # the dead node comes back
        written = range((blocks or [22])[-1] + 1)
        held = {file.path: file for file in catalogue.of_site("s")}
        assert set(held) >= {f"/e/s/{block}/{n}" for block in written for n in range(10)}
        # each on every way to it, and the feed tells of all of them
        assert len(list(catalogue.select(parse("experiment = 'e' and state = 'registered'", declared)))) >= 10 * len(
            written
        )
        revisions = [change.revision for change in catalogue.all_changes(0)]
        assert revisions == sorted(set(revisions)) and len(revisions) >= len(held)

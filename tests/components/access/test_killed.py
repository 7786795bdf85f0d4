"""Mirror, agent, aggregator and export killed at random moments: what is left is old or new, the next run ends it."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import OWNER
from apbatch.access.reader import Reader
from apbatch.access.sources import at_agents
from apbatch.errors import ApbatchError
from apbatch.index import query as q
from apbatch.index.contents import BLOCK
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.ingest.remote.client import Agent
from apbatch.ingest.remote.feed import Follower
from apbatch.ingest.replicas.mirror import mirror
from apbatch.ingest.replicas.outcomes import Outcome
from apbatch.storage.backends import open_store
from tests.agents import Site, served, site
from tests.waits import PATIENCE_S, until

DATA = random.Random(11).randbytes(2 * BLOCK + 999)

_MIRROR = """
import sys
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.index.query import Everything
from apbatch.ingest.replicas.mirror import mirror
from apbatch.storage.backends import open_store
with SqliteCatalogue(sys.argv[1]) as catalogue:
    mirror(catalogue, Everything(), open_store(sys.argv[2]), threads=4)
"""
_FOLLOW = """
import sys
from pathlib import Path
from apbatch.ingest.remote.feed import Follower
from apbatch.ingest.remote.client import Agent
from apbatch.index.sql.sqlite import SqliteCatalogue
with SqliteCatalogue(sys.argv[1]) as catalogue:
    follower = Follower(Agent(sys.argv[2]), catalogue, "taiga", Path(sys.argv[3]))
    while True:
        follower.catch_up()
"""
_AGENT = """
import sys
from pathlib import Path
from apbatch.access.agents.agent import serve_site
serve_site("taiga", port=int(sys.argv[1]), policy=Path(sys.argv[2]))
"""
_EXPORT = """
import sys
from pathlib import Path
from apbatch.access.exports.bag import export_bag
from apbatch.access.exports.selection import select, served_at
from apbatch.access.exports.tarball import export_tar
from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import OWNER
from apbatch.access.reader import Reader
from apbatch.index.sql.sqlite import SqliteCatalogue
with SqliteCatalogue(sys.argv[1]) as catalogue:
    guard = Guard(catalogue, None, Policy.load(Path(sys.argv[2]), catalogue), OWNER)
    with Reader(guard) as reader:
        items, to = select(guard, "/taiga"), Path(sys.argv[4])
        if sys.argv[3] == "tar":
            export_tar(items, to, reader)
        else:
            export_bag(items, to, served_at("https://data.example.org"), guard, reader)
"""


@pytest.fixture
def taiga(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("APBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("APBATCH_CATALOGUE", f"sqlite:///{tmp_path}/catalogue.sqlite")
    with site(tmp_path) as one:
        monkeypatch.setenv("APBATCH_SITE_SECRET_FILE", str(one.secrets))
        yield one


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill(process: subprocess.Popen[str], when: Callable[[], object], draw: random.Random) -> bool:
    """Kill a process at a random moment after an event; tell whether it was still at work."""
    until(lambda: when() or process.poll() is not None, pause_s=0.002)
    time.sleep(draw.random() * 0.01)
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return alive


def test_a_mirror_killed_again_and_again_ends_whole_and_copies_nothing_twice(taiga: Site, tmp_path: Path) -> None:
    draw = random.Random(1)
    records = [taiga.add(f"f{number:03d}", draw.randbytes(200_000)) for number in range(150)]
    target, url = tmp_path / "store", (tmp_path / "store").as_uri()
    catalogue = os.environ["APBATCH_CATALOGUE"]

    def whole() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in target.rglob("f*") if path.is_file()}

    before: dict[str, int] = {}
    kills = 0
    for _ in range(3):
        wanted = len(before) + draw.randint(1, 12)
        process = start(_MIRROR, catalogue, url)
        kills += kill(process, lambda wanted=wanted: len(whole()) >= wanted, draw)
        after = whole()
        assert after.items() >= before.items(), "a file was written again"
        before = after
    assert kills > 0, "every kill came too late"
    store = open_store(url)
    summary = mirror(taiga.catalogue, q.Everything(), store)
    assert not summary.failed and summary.count(Outcome.COPIED) == len(records) - len(before)
    assert whole().items() >= before.items()
    replicas = taiga.catalogue.replicas([record.path for record in records])
    for record in records:
        assert store.checksums(record.path).blake3 == record.checksum
        assert [one.url for one in replicas[record.path]] == [store.url_of(record.path)]
    assert len([path for path in target.rglob("*") if path.is_file()]) == len(records), "a part was left"


def test_an_aggregator_killed_again_and_again_ends_with_what_the_agent_has(taiga: Site, tmp_path: Path) -> None:
    draw = random.Random(2)
    merged, positions = f"sqlite:///{tmp_path}/merged.sqlite", tmp_path / "positions"
    for number in range(300):
        taiga.add(f"f{number:03d}", b"%d" % number)
    kills = 0
    with served(taiga.gateway()) as (url, _), SqliteCatalogue(merged) as catalogue:
        for turn in range(3):
            process = start(_FOLLOW, merged, url, positions)
            revision = catalogue.revision()
            for number in range(turn, 300, 7):
                if draw.random() < 0.3:
                    taiga.catalogue.remove([f"/taiga/taiga/f{number:03d}"])
                else:
                    taiga.add(f"f{number:03d}", draw.randbytes(20))
            kills += kill(process, lambda revision=revision: catalogue.revision() > revision, draw)
        assert kills == 3
        Follower(Agent(url), catalogue, "taiga", positions).catch_up()
        wanted = {one.path: one.checksum for one in taiga.catalogue.select(q.Everything())}
        assert {one.path: one.checksum for one in catalogue.select(q.Everything())} == wanted
        assert catalogue.damage() == []


def test_an_agent_killed_again_and_again_never_gives_a_wrong_byte(taiga: Site, tmp_path: Path) -> None:
    draw = random.Random(3)
    record = taiga.add("f", DATA)
    port, good, failures = 0, 0, 0
    running: list[subprocess.Popen[str]] = []

    def begin() -> str:
        nonlocal port
        process = start(_AGENT, port, taiga.policy)
        running.append(process)
        assert process.stderr is not None
        address = next(match[0] for line in process.stderr if (match := re.search(r"http://127\S+", line)))
        port = int(address.rsplit(":", 1)[1])
        return address

    try:
        agent = Agent(begin())
        guard = Guard(taiga.catalogue, None, Policy.load(taiga.policy, taiga.catalogue), OWNER)
        for _ in range(2):
            killer = threading.Timer(0.005 + draw.random() * 0.1, running[-1].kill)
            killer.start()
            while running[-1].poll() is None:
                with Reader(guard, openers=(at_agents({"taiga": agent}),)) as reader:
                    try:
                        offset = draw.randrange(len(DATA))
                        with reader.open(record.path) as file:
                            assert file.read(offset, 1000) == DATA[offset : offset + 1000]
                        good += 1
                    except ApbatchError:
                        failures += 1
            killer.join()
            begin()
        with Reader(guard, openers=(at_agents({"taiga": agent}),)) as reader, reader.open(record.path) as file:
            assert file.read(0, len(DATA)) == DATA
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert good + failures >= 2


@pytest.mark.parametrize("form", ["tar", "bagit"])
def test_an_export_killed_leaves_nothing_under_its_name_and_the_next_is_whole(
    taiga: Site, tmp_path: Path, form: str
) -> None:
    draw = random.Random(form)
    records = [taiga.add(f"f{number:02d}", draw.randbytes(1_000_000)) for number in range(40)]
    folder = tmp_path / "exports"
    folder.mkdir()
    to = folder / f"e.{form}"
    arguments = (os.environ["APBATCH_CATALOGUE"], taiga.policy, form, to)
    kills = 0
    while kills < 2 and not to.exists():
        alive = kill(start(_EXPORT, *arguments), lambda: any(folder.iterdir()), draw)
        kills += alive
    assert kills > 0, "it ended before it was killed"
    if not to.exists():
        process = start(_EXPORT, *arguments)
        assert process.wait(PATIENCE_S) == 0, process.communicate()[1]
    if form == "tar":
        with tarfile.open(to) as tar:
            sizes = {member.name.rpartition("/")[2]: member.size for member in tar if member.isfile()}
        assert sizes == {record.source: record.size for record in records}
    else:
        lines = [line.split("  ") for line in (to / "tagmanifest-sha1.txt").read_text().splitlines()]
        assert len(lines) == 4 and all(hashlib.sha1((to / name).read_bytes()).hexdigest() == sum for sum, name in lines)
        assert len((to / "fetch.txt").read_text().splitlines()) == len(records)
    assert [path for path in folder.iterdir() if path.name.endswith(".part")] == [], "a part was left"

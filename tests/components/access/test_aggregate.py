"""An aggregator: the catalogue of an agent by its feed, and bytes only when they are asked for."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from apbatch.access.agents.agent import gateway_over
from apbatch.access.agents.capability import Secrets
from apbatch.access.agents.gateway import Gateway
from apbatch.access.agents.server import Server
from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import OWNER
from apbatch.access.reader import LIMIT_S, Reader
from apbatch.access.sources import at_agents, at_site
from apbatch.errors import ApbatchError, FileUnavailableError, FormatError, ServerError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.catalogue import Catalogue
from apbatch.index.contents import BLOCK
from apbatch.index.files import FileRecord, State
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.ingest.remote.client import Agent
from apbatch.ingest.remote.feed import Follower
from apbatch.ingest.remote.wire import CONCERNS, ITS_FILE
from tests.agents import Site, served, site
from tests.waits import PATIENCE_S

DATA = random.Random(9).randbytes(2 * BLOCK + 7)


@pytest.fixture
def taiga(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "home"))
    with site(tmp_path / "site") as one:
        yield one


@pytest.fixture
def merged(tmp_path: Path) -> Iterator[Catalogue]:
    with SqliteCatalogue(f"sqlite:///{tmp_path}/merged.sqlite") as catalogue:
        yield catalogue


def paths(catalogue: Catalogue) -> dict[str, int]:
    return {record.path: record.size for record in catalogue.select(q.Everything())}


def test_metadata_come_by_the_feed_and_bytes_when_they_are_read(
    taiga: Site, merged: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "site" / "home"
    monkeypatch.setenv("APBATCH_HOME", str(home))
    taiga.catalogue.declare([Attribute("zenith", "number", "zenith angle", "deg")])
    record = taiga.add("f", DATA)
    with served(taiga.gateway()) as (url, server):
        agent = Agent(url)
        follower = Follower(agent, merged, "taiga", tmp_path / "positions")
        assert follower.catch_up() == 1 and paths(merged) == {record.path: len(DATA)}
        assert merged.attributes()["zenith"].unit == "deg" and merged.get(record.path) is not None
        taiga.add("g", b"new")
        assert follower.catch_up() == 1 and follower.catch_up() == 0
        other = Follower(agent, merged, "taiga", tmp_path / "positions")  # goes on where the first one stopped
        taiga.catalogue.remove(["/taiga/taiga/g"])
        assert other.catch_up() == 1 and list(paths(merged)) == [record.path]
        assert server.counts["block_bytes"] == 0
        assert merged.contents([record.checksum]) == taiga.catalogue.contents([record.checksum])
        guard = Guard(merged, None, Policy.load(None, merged), OWNER)
        with Reader(guard, openers=(at_agents({"taiga": agent}),)) as reader, reader.open(record.path) as file:
            assert file.verified and file.read(BLOCK - 6, 6) == DATA[BLOCK - 6 : BLOCK]
        assert server.counts["block_bytes"] == BLOCK


def test_a_file_that_changed_at_its_site_is_read_by_who_read_it_before(
    taiga: Site, merged: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "site" / "home"))
    with served(taiga.gateway()) as (url, _):
        agent = Agent(url)
        follower = Follower(agent, merged, "taiga", tmp_path / "positions")
        guard = Guard(merged, None, Policy.load(None, merged), OWNER)
        with Reader(guard, openers=(at_agents({"taiga": agent}),)) as reader:
            for content in (DATA, b"other content", DATA[:BLOCK]):
                record = taiga.add("f", content)
                assert follower.catch_up() == 1
                with reader.open(record.path) as file:
                    assert file.read(0, len(content)) == content


def test_without_its_position_a_follower_forgets_what_the_agent_lacks(
    taiga: Site, merged: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "site" / "home"))
    taiga.add("f", b"f")
    taiga.add("g", b"g")
    with served(taiga.gateway()) as (url, _):
        Follower(Agent(url), merged, "taiga", tmp_path / "a").catch_up()
        taiga.catalogue.remove(["/taiga/taiga/g"])
        Follower(Agent(url), merged, "taiga", tmp_path / "b").catch_up()
        assert list(paths(merged)) == ["/taiga/taiga/f"]
        taiga.catalogue.upsert([_missing(taiga)])
        Follower(Agent(url), merged, "taiga", tmp_path / "b").catch_up()
        gone = merged.get("/taiga/taiga/f")
        assert paths(merged) == {} and gone is not None and gone.state is State.MISSING


def test_of_a_gateway_a_follower_takes_its_own_site(
    taiga: Site, merged: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "site" / "home"))
    record = taiga.add("f", b"f")
    foreign = replace(record, path="/fact/fact/g", place="/fact/fact/g", site="fact", source="g")
    taiga.catalogue.upsert([foreign])
    gateway = gateway_over(taiga.catalogue, Policy.load(taiga.policy), Secrets(taiga.secrets), None, (at_site,))
    with served(gateway) as (url, _):
        for site in ("taiga", "fact"):
            assert Follower(Agent(url), merged, site, tmp_path / "positions").catch_up() == 1
    assert list(paths(merged)) == [foreign.path, record.path]


@pytest.mark.parametrize("answer", ["none", "503", "short", "silent"])
def test_while_a_cache_fails_blocks_come_from_the_agent(
    taiga: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "site" / "home"))
    record = taiga.add("f", DATA)
    asked: list[str] = []
    done = threading.Event()

    class Broken(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if answer == "silent":
                done.wait(PATIENCE_S)
            self.send_response(503 if answer == "503" else 200)
            self.end_headers()
            self.wfile.write(b"too little")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Broken) as cache, served(taiga.gateway()) as (url, server):
        thread = threading.Thread(target=cache.serve_forever)
        thread.start()
        try:
            agent = Agent(url, proxy=f"http://127.0.0.1:{9 if answer == 'none' else cache.server_port}")
            begun = time.monotonic()
            for _ in range(2):
                assert agent.block(record.path, 2, 7) == DATA[-7:]
            assert answer != "silent" or time.monotonic() - begun < LIMIT_S, "the source itself is taken for dead"
        finally:
            done.set()
            cache.shutdown()
            thread.join()
        assert server.counts["block_bytes"] == 14
    assert len(asked) == (0 if answer == "none" else 1)  # one that fails is left alone


@pytest.fixture
def remote(
    taiga: Site, merged: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Follower, Reader, Server]]:
    """What follows and reads the site from elsewhere, by its agent, and the agent."""
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "site" / "home"))
    with served(taiga.gateway()) as (url, server):
        agent = Agent(url)
        guard = Guard(merged, None, Policy.load(None, merged), OWNER)
        with Reader(guard, openers=(at_agents({"taiga": agent}),)) as reader:
            yield Follower(agent, merged, "taiga", tmp_path / "positions"), reader, server


Remote = tuple[Follower, Reader, Server]


@pytest.mark.parametrize("fault", ["another is registered", "it changed in place", "its disk fails", "it is gone"])
def test_a_file_that_an_agent_can_not_give_leaves_its_others_readable(
    taiga: Site, remote: Remote, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    follower, reader, _ = remote
    bad, good = taiga.add("bad", DATA), taiga.add("good", b"good")
    follower.catch_up()
    if fault == "another is registered":
        taiga.add("bad", b"other")
    elif fault == "it changed in place":
        (taiga.root / "bad").write_bytes(b"other")
    elif fault == "it is gone":
        (taiga.root / "bad").unlink()
    else:
        pread = os.pread

        def failing(descriptor: int, length: int, offset: int) -> bytes:
            if Path(f"/proc/self/fd/{descriptor}").readlink().name == "bad":
                raise OSError(errno.EIO, "Input/output error")
            return pread(descriptor, length, offset)

        monkeypatch.setattr(os, "pread", failing)
    for _ in range(2):
        with reader.open(bad.path) as file, pytest.raises(FileUnavailableError, match="can't be had"):
            file.read(0, 10)
    with reader.open(good.path) as file:
        assert file.read(0, 10) == b"good"


def test_an_agent_that_fails_as_a_whole_is_left_alone(
    taiga: Site, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, reader, _ = remote
    taiga.add("f", b"f")
    follower.catch_up()

    def fails(*_: object) -> None:
        raise ServerError("the catalogue is away")

    monkeypatch.setattr(Gateway, "locate", fails)
    for reason in ("answers 503", "a moment ago"):
        with reader.open("/taiga/taiga/f") as file, pytest.raises(ServerError, match=reason):
            file.read(0, 1)


@pytest.mark.parametrize("conflict", [False, True], ids=["one entry", "in a conflict"])
def test_a_gateway_gives_a_block_of_two_sites_while_one_is_away(
    taiga: Site, merged: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conflict: bool
) -> None:
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "site" / "home"))
    record = taiga.add("f", DATA, place="/sky/f")
    with served(taiga.gateway()) as (url, _):
        agents = {"taiga": Agent(url), "away": Agent("http://127.0.0.1:9")}
        Follower(agents["taiga"], merged, "taiga", tmp_path / "positions").catch_up()
        merged.upsert([replace(record, path="/taiga/away/f", site="away")])
        if conflict:
            merged.upsert([replace(record, path="/taiga/third/f", site="third", checksum="0" * 64)])
        policy = Policy.load(taiga.policy, merged)
        gateway = gateway_over(merged, policy, Secrets(taiga.secrets), None, (at_agents(agents),))
        with served(gateway) as (door, _):
            for path in (record.path, "/taiga/away/f"):
                assert Agent(door).block(path, 2, 7) == DATA[-7:]


@pytest.mark.parametrize("ahead_s", [-3 * 86_400, -3600, 3600, 3 * 86_400])
def test_blocks_are_read_where_clocks_are_apart(
    taiga: Site, merged: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: int
) -> None:
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "site" / "home"))
    record = taiga.add("f", DATA)
    asked: list[str] = []
    ask = Agent.ask

    def counted(self: Agent, target: str, body: Any = None) -> Any:
        asked.append(target)
        return ask(self, target, body)

    with served(taiga.gateway(now=lambda: time.time() + ahead_s)) as (url, _):
        agent = Agent(url)
        assert Follower(agent, merged, "taiga", tmp_path / "positions").catch_up() == 1
        monkeypatch.setattr(Agent, "ask", counted)
        guard = Guard(merged, None, Policy.load(None, merged), OWNER)
        with Reader(guard, openers=(at_agents({"taiga": agent}),)) as reader, reader.open(record.path) as file:
            assert file.verified and file.read(0, len(DATA)) == DATA
    if abs(ahead_s) <= 3600:
        assert asked == ["/locate"], "a capability that is good was asked for again"


def _list_only(taiga: Site, record: FileRecord) -> FileRecord:
    listed = replace(record, state=State.LISTED, checksum="", adler32="")
    taiga.catalogue.upsert([listed])
    return listed


def test_a_file_that_is_only_listed_at_its_site_is_read_unverified(taiga: Site, remote: Remote) -> None:
    follower, reader, server = remote
    record = _list_only(taiga, taiga.add("a b#?é", DATA))
    _list_only(taiga, taiga.add("empty", b""))
    follower.catch_up()
    with reader.open(record.path) as file:
        assert not file.verified
        assert file.read(0, len(DATA)) == DATA and file.read(BLOCK - 2, 4) == DATA[BLOCK - 2 : BLOCK + 2]
        assert server.counts["blocks"] == 0
    with reader.open("/taiga/taiga/empty") as file:
        assert file.read(0, 10) == b""


def test_a_listed_file_that_is_registered_or_changed_while_it_is_read(taiga: Site, remote: Remote) -> None:
    follower, reader, server = remote
    record = taiga.add("f", DATA)
    _list_only(taiga, record)
    follower.catch_up()
    with reader.open(record.path) as file:
        assert file.read(0, 10) == DATA[:10] and server.counts["blocks"] == 0
        taiga.catalogue.upsert([record])
        assert file.read(2 * BLOCK, 10) == DATA[2 * BLOCK :] and server.counts["blocks"] == 1
        changed = DATA[:-1] + b"!"
        taiga.add("f", changed)
        with pytest.raises(FileUnavailableError, match="can't be had"):
            file.read(BLOCK, 10)
    follower.catch_up()
    with reader.open(record.path) as file:
        assert file.verified and file.read(0, len(changed)) == changed


def test_a_listed_file_is_read_where_sites_disagree(taiga: Site, remote: Remote) -> None:
    follower, reader, _ = remote
    mine = _list_only(taiga, taiga.add("f", b"mine", place="/sky/f"))
    others = replace(mine, path="/taiga/other/f", site="other", size=9)
    taiga.catalogue.upsert([others])
    follower.catch_up()
    assert {one.path for one in taiga.catalogue.sources("/sky/f@taiga")} == {mine.path}
    with reader.open("/sky/f") as file:
        assert file.read(0, 10) == b"mine"


def test_a_refusal_of_one_file_leaves_the_cache_in_use(taiga: Site, tmp_path: Path) -> None:
    record = taiga.add("f", DATA)
    asked: list[str] = []

    class Cache(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(503)
            self.send_header(CONCERNS, ITS_FILE)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Cache) as cache, served(taiga.gateway()) as (url, _):
        thread = threading.Thread(target=cache.serve_forever)
        thread.start()
        try:
            agent = Agent(url, proxy=f"http://127.0.0.1:{cache.server_port}")
            for number in (1, 2):
                with pytest.raises(FileUnavailableError):
                    agent.block(record.path, 2, 7)
                assert len(asked) == number
        finally:
            cache.shutdown()
            thread.join()


def _missing(taiga: Site) -> Any:
    record = taiga.catalogue.get("/taiga/taiga/f")
    assert record is not None
    return replace(record, state=State.MISSING)


def test_what_is_no_feed_changes_nothing(merged: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent("http://127.0.0.1:9")
    with pytest.raises(ServerError):
        Follower(agent, merged, "taiga", tmp_path).catch_up()
    about = {"site": "taiga", "attributes": []}
    foreign = dict.fromkeys(("path", "site", "source", "format", "experiment", "place", "adler32", "checksum"), "x")
    record = {**foreign, "size": 1, "mtime_ns": 1, "state": "registered", "reason": None, "run": None, "night": None,
              "time_start": None, "time_end": None, "telescope": None, "cluster": None, "events": None, "revision": 1,
              "attributes": {}}  # fmt: skip
    wrong: list[Any] = [
        [], {"changes": 3, "revision": 1}, {"changes": [3], "revision": 1}, {"changes": [], "revision": "x"},
        {"changes": [{"revision": 1, "kind": "new", "key": "x", "detail": "", "record": {"path": 3}}], "revision": 1},
        {"changes": [{"revision": 1, "kind": "no", "key": "x", "detail": "", "record": None}], "revision": 1},
        {"changes": [{"revision": 1, "kind": "new", "key": "x", "detail": "", "record": record}], "revision": 1},
    ]  # fmt: skip
    for page in wrong:
        monkeypatch.setattr(agent, "ask", lambda target, page=page: about if target == "/" else page)
        with pytest.raises(FormatError):
            Follower(agent, merged, "taiga", tmp_path).catch_up()
    monkeypatch.setattr(agent, "ask", lambda target: {"site": "other", "attributes": []})
    with pytest.raises(ApbatchError, match="serves site"):
        Follower(agent, merged, "taiga", tmp_path).catch_up()
    assert paths(merged) == {}

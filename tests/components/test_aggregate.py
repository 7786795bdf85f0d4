"""An aggregator: the catalogue of an agent by its feed, and bytes only when they are asked for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apbatch.access.agents.aggregate import Follower
from apbatch.access.agents.client import Agent, at_agents
from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import OWNER
from apbatch.access.reader import Reader
from apbatch.errors import ApbatchError, FormatError, ServerError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.catalogue import Catalogue
from apbatch.index.contents import BLOCK
from apbatch.index.files import State
from apbatch.index.sqlite import SqliteCatalogue
from tests.agents import Site, served, site

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


def _missing(taiga: Site) -> Any:
    from dataclasses import replace

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

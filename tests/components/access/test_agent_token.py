"""The token that an agent asks for, where files are read by URL: of the driver, and of those that work for it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from apbatch.access.principals import ANYONE, Principal
from apbatch.errors import AccessError, ApbatchError, NotFoundError
from apbatch.index.files import FileRecord
from apbatch.ingest.opening import open_source, source_url
from apbatch.storage.backends import open_url
from apbatch.storage.tokens import ShownTokens, authorization, show_below
from tests.agents import served, site

TOKEN, DATA = "apb_0123456789ab_secret", b"0123456789"


def identify(headers: Mapping[str, str]) -> Principal:
    given = headers.get("authorization")
    if given not in (None, f"Bearer {TOKEN}"):
        raise AccessError("the token is not valid")
    return ANYONE if given is None else Principal("worker")


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APBATCH_AGENT_ROOTS", "")
    monkeypatch.setenv("APBATCH_AGENT_TOKEN", "")
    monkeypatch.setenv("APBATCH_AGENT_TOKEN_FILE", "")


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileRecord]:
    """A file of a site that is an agent, and opens for one token alone."""
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "home"))
    with site(tmp_path) as taiga:
        taiga.policy.write_text("rules: [{name: w, who: {users: worker}, may: data}]")
        added = taiga.add("a file", DATA)
        with served(taiga.gateway(), identify) as (url, _):
            near = tmp_path / "home" / "sites" / "near.yaml"
            near.write_text(f"name: near\nexperiment: TAIGA\nroot: {url}\n")
            yield replace(added, site="near")


def test_a_worker_shows_the_token_of_its_driver(
    record: FileRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("APBATCH_AGENT_TOKEN_FILE", str(file))
    url = source_url(record)
    with open_url(url) as stream:
        assert stream.read() == DATA
    sent = pickle.dumps(ShownTokens.of_this_process())
    file.unlink()
    monkeypatch.setenv("APBATCH_AGENT_ROOTS", "")  # from here on this is a worker
    monkeypatch.setenv("APBATCH_AGENT_TOKEN_FILE", "")
    with pytest.raises(NotFoundError):
        open_url(url)
    pickle.loads(sent).take_over()
    with open_url(url) as stream:
        assert stream.read() == DATA
    with open_source(record) as stream:
        assert stream.read() == DATA
    monkeypatch.setenv("APBATCH_AGENT_TOKEN", "another one")
    with pytest.raises(ApbatchError, match="401"):
        open_url(url)


def test_only_agents_are_shown_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APBATCH_AGENT_TOKEN", TOKEN)
    show_below("https://agent.example.org:800")
    shown = {"Authorization": f"Bearer {TOKEN}"}
    assert authorization("https://agent.example.org:800/f/x") == shown
    for other in ("https://agent.example.org:8000/f/x", "http://agent.example.org:800/f/x", "https://else.org/f/x"):
        assert authorization(other) == {}
    assert TOKEN not in repr(ShownTokens.of_this_process())


def test_a_worker_keeps_its_own_token_where_the_driver_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = ShownTokens.of_this_process()
    monkeypatch.setenv("APBATCH_AGENT_TOKEN", TOKEN)
    nothing.take_over()
    assert ShownTokens.of_this_process() == ShownTokens((), TOKEN, "")

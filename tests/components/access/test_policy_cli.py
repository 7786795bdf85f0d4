"""`apbatch policy`: checked, shared, explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apbatch.access.agents.server import Server
from apbatch.access.guard import Guard
from apbatch.access.mount.scope import MountScope
from apbatch.access.policy import Policy
from apbatch.access.principals import ANYONE
from apbatch.cli.main import application, run_command
from apbatch.config import load_settings
from apbatch.errors import UsageError
from apbatch.index import query as q
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from tests.unit.access.test_guard import record

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("APBATCH_CONFIG", raising=False)
    (tmp_path / "home").mkdir()
    with open_catalogue(load_settings().catalogue) as catalogue:
        catalogue.upsert([record("/taiga/raw/f", experiment="TAIGA"), record("/fact/a/h", experiment="FACT")])
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run_command(application(), arguments=["policy", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_policy_of_the_repository_is_checked_shared_and_explained(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(ROOT / "conf" / "policy.yaml")
    status, out, err = run(capsys, "check", file, "--format", "json")
    assert status == 0 and len(json.loads(out)) == 3 and err == ""
    assert run(capsys, "show")[0] == 2
    status, out, err = run(capsys, "explain", "alice", "--format", "json")
    assert json.loads(out) == [{"user": "alice", "matching": 2, "sees": 0, "reads": 0}] and "only the owner" in err
    assert run(capsys, "share", file)[0] == 0
    assert run(capsys, "show")[1].strip() == Path(file).read_text().strip()
    out = run(capsys, "explain", "alice", "experiment != 'x'", "--format", "json")[1]
    assert json.loads(out) == [{"user": "alice", "matching": 2, "sees": 2, "reads": 1}]
    status, out, err = run(capsys, "explain", "carol", "/taiga/raw/f", "--group", "taiga", "--format", "json")
    assert "may see and read" in err and [one["applies"] for one in json.loads(out)] == [True, True, True]
    assert [one["holds"] for one in json.loads(out)] == [True, True, False]
    assert run(capsys, "explain", "carol", "/nothing")[0] == 2
    assert run(capsys, "remove")[0] == 0 and run(capsys, "show")[0] == 2


def test_a_rule_without_a_word_on_events_is_reported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / "policy.yaml"
    file.write_text("rules: [{name: sim, who: anyone, may: data, below: /taiga}]")
    status, _, err = run(capsys, "check", str(file))
    assert status == 0 and "rule 'sim' allows no events" in err
    file.write_text("rules: [{name: sim, who: anyone, may: data, below: taiga}]")
    status, _, err = run(capsys, "check", str(file))
    assert status == 2 and f"{file}:1" in err


ONLY_ANN = "rules: [{name: ann, who: {users: ann}, may: data}]"
#: Commands that show files to others than the owner, and the function that is given what they show.
COMMANDS = {
    "serve": ("apbatch.api.run.run", ["serve"]),
    "agent": ("apbatch.access.agents.agent.run", ["serve", "--site", "raw"]),
    "gateway": ("apbatch.access.agents.agent.run", ["gateway"]),
    "export": (
        "apbatch.access.exports.selection.select",
        ["export", "/", "--as", "links", "--to", "x", "--user", "bob"],
    ),
    "cvmfs": ("apbatch.access.exports.cvmfs.publish.publish", ["cvmfs", "publish", "/", "--to", "x", "--name", "a.b"]),
}


@pytest.fixture
def settings(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Settings whose policy closes what the shared one opens."""
    shared = home / "shared.yaml"
    shared.write_text("rules: [{name: all, who: anyone, may: data}]")
    assert run(capsys, "share", str(shared))[0] == 0
    (home / "closed.yaml").write_text(ONLY_ANN)
    settings = home / "settings.yaml"
    settings.write_text("service: {policy: closed.yaml}\n")
    monkeypatch.setenv("APBATCH_CONFIG", str(settings))
    monkeypatch.setenv("APBATCH_SITE_SECRET", "s" * 40)
    sites = home / "home" / "sites"
    sites.mkdir()
    (sites / "raw.yaml").write_text(f"name: raw\nexperiment: TAIGA\nroot: {home}\n")
    return settings


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_policy_of_the_settings_closes_no_command_shows(
    settings: Path, home: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, arguments = COMMANDS[command]
    visible: list[int] = []

    def shown(*given: Any, **_: Any) -> None:
        by_kind = {kind: one for one in given for kind in (Guard, Server, Policy, Catalogue) if isinstance(one, kind)}
        guard = by_kind.get(Guard)
        if Server in by_kind:
            guard = by_kind[Server]._gateway.guard(ANYONE)
        elif Policy in by_kind:
            guard = Guard(by_kind[Catalogue], None, by_kind[Policy], ANYONE)
        assert isinstance(guard, Guard)
        visible.append(guard.count(q.Everything())[None])
        raise UsageError("enough was seen")

    monkeypatch.setattr(name, shown)
    monkeypatch.chdir(home)
    run_command(application(), arguments=arguments)
    assert visible == [0]
    visible.clear()
    settings.write_text("service: {}\n")
    run_command(application(), arguments=arguments)
    assert visible == [1 if command == "agent" else 2], "the shared policy opens all"


def test_a_mount_for_a_user_follows_the_policy_of_the_settings(settings: Path) -> None:
    with open_catalogue(load_settings().catalogue) as catalogue:
        doors = {user: MountScope(user=user).doors(catalogue)[0] for user in ("", "ann", "bob")}
        assert {user: door.count(q.Everything())[None] for user, door in doors.items()} == {"": 2, "ann": 2, "bob": 0}


def test_a_policy_is_explained_as_services_apply_it(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "explain", "bob", "--format", "json")[1]
    assert json.loads(out) == [{"user": "bob", "matching": 2, "sees": 0, "reads": 0}]

"""`apbatch policy`: checked, shared, explained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apbatch.cli.main import application, run_command
from apbatch.config import load_settings
from apbatch.index.backends import open_catalogue
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

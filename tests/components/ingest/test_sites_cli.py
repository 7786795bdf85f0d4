"""`apbatch site` and `apbatch ingest` as a user runs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from apbatch.cli import main as command
from tests.unit.formats.test_formats_taiga_raw import record


@pytest.fixture
def file(home: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "BSM01"
    folder.mkdir(parents=True)
    (folder / "28107001.001").write_bytes(record(1, board=0) + record(2, board=0))
    (folder / "28107001.002").write_bytes(b"\0" * 99)
    path = tmp_path / "site.yaml"
    path.write_text("name: one\nexperiment: TAIGA\nroot: data\n")
    return path


def apbatch(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["apbatch", *arguments])
    with pytest.raises(SystemExit) as left:
        command.main()
    return int(left.value.code or 0)


def test_a_site_is_added_ingested_listed_and_removed(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apbatch("site", "add", str(file), "--format", "json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)[0]["outcome"] == "added"
    assert apbatch("ingest", "--all", "--format", "json", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr()
    (summary,) = json.loads(shown.out)
    assert (summary["registered"], summary["quarantined"]) == (1, 1)
    notes = [json.loads(line)["note"] for line in shown.err.splitlines()]
    (quarantined,) = [note for note in notes if note.startswith("one: in quarantine: BSM01/28107001.002")]
    assert quarantined.count("28107001.002") == 1, "a file is named once"
    assert apbatch("site", "list", "--format", "csv", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == f"site,experiment,root\none,TAIGA,{file.parent / 'data'}\n"
    assert apbatch("site", "show", "one", monkeypatch=monkeypatch) == 0
    assert "TAIGA" in capsys.readouterr().out
    assert apbatch("site", "remove", "one", monkeypatch=monkeypatch) == 0
    assert apbatch("site", "show", "one", monkeypatch=monkeypatch) == 2


def test_a_site_file_can_be_ingested_at_once(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apbatch("ingest", str(file), "--format", "json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)[0]["registered"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "nowhere"], "there is no site 'nowhere'"),
        (["ingest"], "name sites, or give --all"),
        (["ingest", "--all"], "no site is known"),
        (["site", "add", "nowhere.yaml"], "no such file"),
        (["site", "remove", "nowhere"], "there is no site 'nowhere'"),
    ],
)
def test_user_errors_end_with_status_2_and_one_message(
    arguments: list[str],
    message: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert apbatch(*arguments, monkeypatch=monkeypatch) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err

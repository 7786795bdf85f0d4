"""What is printed: data verbatim, nothing hidden, within the terminal, as JSON that is JSON, and into broken places."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apbatch.cli import output
from apbatch.cli.main import application
from apbatch.cli.output import Format, column_named, show
from apbatch.config import load_settings
from apbatch.errors import ApbatchError, NotFoundError, ServerError, UsageError
from apbatch.index.backends import open_catalogue
from apbatch.index.files import FileRecord
from apbatch.messages import error_fields, error_problem, error_text, visible

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = [str(Path(sys.executable).with_name("apbatch"))]
#: Names that a terminal, or a library that prints into one, takes for something else.
HOSTILE = ["[/].jsonl", "run[red].jsonl", "run[bold]x[/bold].jsonl", ":100:.jsonl", "a\u202ecod.jsonl", "-x.jsonl"]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        env={**os.environ, "APBATCH_HOME": str(home), **environment},
    )


def in_terminal(*arguments: str, home: Path, columns: int = 80) -> tuple[int, str]:
    """Run the command in a terminal of its own; return status and what it printed, without colours."""
    own, theirs = pty.openpty()
    environment = {**os.environ, "APBATCH_HOME": str(home), "COLUMNS": str(columns), "TERM": "xterm"}
    process = subprocess.Popen([*PROGRAM, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    text = b""
    while select.select([own], [], [], 120)[0]:
        try:
            block = os.read(own, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not block:
            break
        text += block
    os.close(own)
    return process.wait(timeout=120), ESCAPES.sub("", text.decode("utf-8", "replace")).replace("\r", "\n")


def test_an_ingest_in_a_terminal_shows_names_as_they_are(home: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in HOSTILE:
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"\0" * 20)  # of no known format: listed by name
    (tmp_path / "site.yaml").write_text("name: odd\nexperiment: TAIGA\nroot: data\n")
    status, text = in_terminal("ingest", str(tmp_path / "site.yaml"), home=home)
    assert (status, "Traceback" in text, "\u202e" in text) == (0, False, False)
    for name in HOSTILE:
        assert f"of no known format: {visible(name)}\n" in text, text


def test_files_with_hostile_names_are_found_and_shown_as_they_are(home: Path) -> None:
    with open_catalogue(load_settings().catalogue) as catalogue:
        catalogue.upsert(
            FileRecord(f"/e/odd/{name}", "odd", name, 1, 0, "00", "00", "uci-magic", "E") for name in HOSTILE
        )
    status, text = in_terminal("find", "", home=home)
    assert (status, "\u202e" in text) == (0, False)
    for name in HOSTILE:
        assert f"/e/odd/{visible(name)} " in text, text


def test_tables_show_cells_as_they_are_and_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"path": f"/a/{name}", "size": 10**n, "note": "[a-z]+ \x1b[31m"} for n, name in enumerate(HOSTILE)]
    text = drawn(monkeypatch, rows, columns=("path", "size", "note"))
    for name in HOSTILE:
        assert f"/a/{visible(name)} " in text
    assert r"[a-z]+ \x1b[31m" in text
    assert "\x1b" not in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], width: int = 80, **options: Any) -> str:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    show(rows, Format.TABLE, **options)
    text = ESCAPES.sub("", terminal.getvalue())
    assert max(map(len, text.splitlines())) <= width
    return text


def test_a_wide_table_folds_its_long_column_and_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"path": f"/taiga/site/{'x' * 150}/{n}", "night": "2017-10-28", "events": 123456} for n in range(3)]
    text = drawn(monkeypatch, rows, columns=("path", "night", "events"))
    assert text.count("2017-10-28") == text.count("123456") == 3
    assert text.count("x") == 450
    assert "…" not in text


def test_one_record_that_is_too_wide_becomes_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    record = {f"column {n}": n * 1111 for n in range(12)}
    lines = [line.split() for line in drawn(monkeypatch, [record]).splitlines() if line.strip()]
    assert lines == [["column", str(n), str(n * 1111)] for n in range(12)]


def test_wanted_columns_come_in_the_order_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"a": 1, "time_start": 2, "c": 3}
    text = drawn(monkeypatch, [row], columns=tuple(row), subset="C, Time-Start")
    assert text.split()[:2] == ["c", "time_start"]


@pytest.mark.parametrize("text", ["night", " Night ", "NIGHT"])
def test_a_column_is_named_as_forgivingly_as_in_a_query(text: str) -> None:
    assert column_named(text, ["path", "night"]) == "night"
    with pytest.raises(UsageError) as caught:
        column_named("nihgt", ["path", "night"])
    assert caught.value.nearest == "night"


def test_a_pipe_gets_tabs_and_no_padding(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"a": "x\ty", "b": None}, {"a": "long " * 99, "b": 2.5}], Format.TABLE)
    assert capsys.readouterr().out == f"a\tb\nx\\ty\t\n{'long ' * 99}\t2.5\n"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), [float("inf")], {"x": float("nan")}])
def test_json_has_no_infinity(capsys: pytest.CaptureFixture[str], value: object) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    show([{"value": value}], Format.JSON)
    (row,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert row["value"] in (None, [None], {"x": None})


def test_nothing_is_an_empty_array_and_a_header(capsys: pytest.CaptureFixture[str]) -> None:
    show([], Format.JSON, ("a", "b"))
    assert json.loads(capsys.readouterr().out) == []
    show([], Format.CSV, ("a", "b"))
    assert capsys.readouterr().out == "a,b\n"


def test_csv_has_every_value_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"path": name, "text": 'a,"b"\nc'} for name in HOSTILE]
    show(rows, Format.CSV, ("path", "text"))
    assert list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""))) == rows


@given(st.text())
def test_what_is_visible_holds_no_control_or_direction_and_says_the_rest(text: str) -> None:
    shown = visible(text)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize("arguments", [["find"], ["-h"]])
def test_a_reader_that_goes_away_is_no_error(home: Path, arguments: list[str]) -> None:
    script = '"$@" | true; exit "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *PROGRAM, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["attributes", "--format", "csv"], ["-h"]])
def test_output_that_can_not_be_written_is_said(home: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("apbatch: ") and "No space left on device" in done.stderr
    assert "unexpected" not in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [["count"], ["cluster", "up", "hdfs"]])
@pytest.mark.parametrize("place", ["file", "/proc/none"])
def test_a_misplaced_state_folder_is_said_with_the_remedy(tmp_path: Path, command: list[str], place: str) -> None:
    home = tmp_path / place
    if place == "file":
        home.write_text("not a folder")
    done = run(*command, home=home)
    assert done.returncode == 1
    assert "set APBATCH_HOME to a folder that you may write" in done.stderr
    assert "unexpected" not in done.stderr


def test_a_locale_of_ascii_changes_nothing(home: Path, tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    site = tmp_path / "Ночь.yaml"
    site.write_text("name: night\nexperiment: Тунка\nroot: .\n", encoding="utf-8")
    added = run("site", "add", str(site), home=home, **ascii_only)
    assert (added.returncode, added.stderr) == (0, "")
    assert added.stdout.splitlines()[1] == f"night\tТунка\t{tmp_path}\tadded"
    assert "Тунка" in (home / "sites" / "night.yaml").read_text(encoding="utf-8")
    assert run("site", "list", "--format", "csv", home=home, **ascii_only).stdout == (
        f"site,experiment,root\nnight,Тунка,{tmp_path}\n"
    )


def every_command(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    below = getattr(command, "commands", {})
    return [path, *(found for name, one in below.items() for found in every_command(one, (*path, name)))]


@pytest.mark.parametrize("path", every_command(application()), ids=" ".join)
def test_every_command_has_help_that_fits(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    from apbatch.cli.main import run_command

    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    monkeypatch.setenv("COLUMNS", "80")
    assert run_command(application(), arguments=[*path, "-h"]) == 0
    text = written.getvalue()
    assert "Usage:" in text
    assert "bool>" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_shell_completes_commands(home: Path) -> None:
    done = run(home=home, _APBATCH_COMPLETE="complete_bash", COMP_WORDS="apbatch inges", COMP_CWORD="1")
    assert done.stdout.split() == ["ingest"]


@pytest.mark.parametrize(
    "arguments", [["--errors", "json", "find", "evnts > 1"], ["find", "evnts > 1", "--format=json"]]
)
def test_programs_get_errors_as_lines_of_json(home: Path, arguments: list[str]) -> None:
    done = run(*arguments, home=home)
    (line,) = done.stderr.splitlines()
    assert json.loads(line) == {
        "program": "apbatch", "error": "Usage", "what": "unknown attribute 'evnts'", "where": "query, column 1",
        "nearest": "events", "remedy": "apbatch attributes lists them", "status": 2,
    }  # fmt: skip


def test_an_error_is_rendered_for_people_programs_and_http() -> None:
    error = UsageError("no\x1b such", where="a\u202eb\n:3", nearest="such", remedy="do\nthis")
    assert error_text(error) == r"a\u202eb\n:3: no\x1b such; did you mean 'such'? (do\nthis)"
    assert error_fields(error)["where"] == "a\u202eb\n:3"
    problem = error_problem(error)
    assert (problem["status"], problem["title"], problem["detail"]) == (400, "Usage", "no\x1b such")
    for kind, status in ((NotFoundError, 404), (ServerError, 503), (ApbatchError, 500)):
        assert error_problem(kind("x"))["status"] == status


def test_commands_print_only_through_the_output_module() -> None:
    """Nothing else in the command line, or in the programs, writes to the terminal."""
    sinners = []
    for file in [*(ROOT / "apbatch" / "cli").glob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        if file.name == Path(output.__file__).name:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in ("print", "typer.echo", "Console", "say") or "sys.std" in name:
                sinners.append(f"{file.name}:{node.lineno}: {name}")  # type: ignore[attr-defined]
    assert sinners == []

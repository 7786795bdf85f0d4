"""Programs for spark-submit are doors to the command line's own commands; places are resolved at the door."""

from __future__ import annotations

import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from apbatch.cli.analysis import on_spark
from apbatch.cli.main import application, run_command
from apbatch.config import load_settings
from apbatch.errors import ApbatchError, ServerError, UsageError
from apbatch.ingest.replicas.stores import target_store
from apbatch.storage.backends import local_path
from apbatch.storage.places import url_of_place
from apbatch.workflow.model import load_job
from apbatch.workflow.runner import plan

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))


def help_of(monkeypatch: pytest.MonkeyPatch, run: Any) -> str:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as left:
        run()
    assert left.value.code == 0
    return written.getvalue()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_the_help_of_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = str(ROOT / "jobs" / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [program, "--help"])
    by_program = help_of(monkeypatch, lambda: runpy.run_path(program, run_name="__main__"))
    by_command = help_of(monkeypatch, lambda: sys.exit(run_command(application(), arguments=[name, "--help"])))
    assert by_program == by_command
    assert f"Usage: apbatch {name} " in by_program


def test_every_command_on_spark_has_its_program() -> None:
    commands = {name for name, command in application().commands.items() if "debug" in {p.name for p in command.params}}
    assert commands | {"run", "train"} == set(PROGRAMS)


def given(name: str, *line: str) -> dict[str, Any]:
    params: dict[str, Any] = application().commands[name].make_context(name, list(line)).params
    return params


def test_several_values_may_follow_one_option() -> None:
    for line in (["--input", "a", "b", "--output", "o"], ["--output", "o", "--input", "a", "--input=b"]):
        assert given("clean", *line)["input"] == ["a", "b"]
    assert given("clean", "--input", "a", "--bad-kinds", "dead", "hot", "--output", "o")["bad_kinds"] == ["dead", "hot"]


def test_places_are_absolute_urls_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    found = given("parameters", "--input", "a b/?#", "--output", "~/c")
    assert (found["input"], found["output"]) == (f"file://{tmp_path}/a b/?#", "file:///home/me/c")
    assert url_of_place("hdfs://h:1/x") == "hdfs://h:1/x"
    assert local_path("prod") == tmp_path / "prod"
    assert url_of_place(f"../{tmp_path.name}/./x") == f"file://{tmp_path}/x"
    assert local_path(f"file://{tmp_path}/a/../b") == tmp_path / "b"
    assert given("sim", "--output", "prod")["output"] == tmp_path / "prod"
    assert target_store("./mirrored").url == f"file://{tmp_path}/mirrored"
    for wrong in ("hfds://h/x", "file://relative"):
        with pytest.raises(UsageError):
            url_of_place(wrong)


def test_a_relative_store_lies_beside_the_settings(home: Path, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    file = tmp_path / "conf" / "settings.yaml"
    file.write_text("store: ../data\n")
    assert load_settings(file).store == f"file://{tmp_path}/data"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clean", "--output", "x"], "nothing to read: give --select or --input"),
        (["clean", "--output", "x", "--input", "a", "--select", "b"], "both were given"),
        (["clean", "--output", "x", "--input", "a", "--method", "axail"], "did you mean 'axial'"),
        (["clean", "--output", "x", "--input", "a", "--extras"], "give --parameters"),
        (["clean", "--output", "hfds://x/y", "--input", "a"], "did you mean 'hdfs'"),
        (["grid", "--output", "x"], "give --input or --select"),
        (["train", "a", "b", "--epochs", "0"], "epochs: "),
        (["train", "a", "b", "--collective", "horovdo"], "did you mean 'horovod'"),
        (["stereo", "--output", "x"], "--input"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    home: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(application(), arguments=arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err and "Value error" not in shown.err and "Traceback" not in shown.err


def test_a_summary_is_one_line_of_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from apbatch.spark.summary import StepSummary

    summary = StepSummary(images=3, seconds=1.23456, problems=[f"problem {n}" for n in range(12)])
    on_spark.run_on_spark("clean", None, "file:///x", lambda spark, settings: summary)
    shown = capsys.readouterr()
    (line,) = shown.out.splitlines()
    assert json.loads(line) | {"images": 3, "seconds": 1.235, "output": "file:///x"} == json.loads(line)
    assert shown.err.count("passed over: problem") == 10 and "2 more problems" in shown.err


def job(folder: Path, text: str) -> Path:
    file = folder / "job.yaml"
    file.write_text(f"name: odd\nselect: format = 'taiga-raw'\nsteps:\n{text}")
    return file


def test_a_plan_names_every_wrong_site_and_store_with_its_line(home: Path, tmp_path: Path) -> None:
    file = job(tmp_path, "  - ingest: {site: nowhere}\n  - ingest: {site: none.yaml}\n  - mirror: {to: hfds}\n")
    with pytest.raises(ApbatchError) as caught:
        plan(load_job(file), load_settings())
    lines = str(caught.value).splitlines()
    assert [line.split(" ")[0] for line in lines] == [f"{file}:{number}:" for number in (4, 5, 6)]
    assert "there is no site 'nowhere'" in lines[0] and "no such file" in lines[1] and "'hdfs'" in lines[2]


def test_a_misspelt_store_of_the_settings_is_refused_by_a_plan(home: Path, tmp_path: Path) -> None:
    settings = load_settings().model_copy(update={"store": "hfds://h:1/x"})
    with pytest.raises(UsageError, match="unknown kind of store"):
        plan(load_job(job(tmp_path, "  - clean: {}\n")), settings)


def test_all_servers_that_are_not_up_are_named_at_once(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text('catalogue: "{cassandra}/x"\nstore: "{hdfs}/x"\nspark: {master: "{spark}"}\n')
    with pytest.raises(ServerError, match="'cassandra', 'hdfs', 'spark' are not up") as caught:
        load_settings(file)
    assert caught.value.remedy == "apbatch cluster up cassandra hdfs spark"

"""The step that scores real data: where it looks for files, and what it does when they come later."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from apbatch.workflow.study_steps import Application


def places_of(step: Application, base: Path) -> Any:
    context: Any = SimpleNamespace(base=base, products={"blind": "b", "study": "s"})
    return step.inputs(context)["places"]


def test_files_are_found_by_a_variable_beside_the_job_and_by_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "run").mkdir(parents=True)
    (tmp_path / "jobs").mkdir()
    monkeypatch.setenv("APBATCH_DATA", str(tmp_path / "data"))
    step = Application(files={"a": "$APBATCH_DATA/run", "b": "../data/run", "c": "file:///x/y", "d": "../data/other"})
    run = str(tmp_path / "data" / "run")
    assert places_of(step, tmp_path / "jobs") == {"a": run, "b": run, "c": "file:///x/y"}
    assert Application._place(tmp_path, "../none")[1].startswith("there is no ")


def test_a_folder_that_comes_later_changes_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APBATCH_DATA", raising=False)
    step = Application(files={"a": "$APBATCH_DATA/run"})
    assert places_of(step, tmp_path) == {}
    assert Application._place(tmp_path, "$APBATCH_DATA/run")[1] == "the variable 'APBATCH_DATA' is not set"
    monkeypatch.setenv("APBATCH_DATA", str(tmp_path))
    (tmp_path / "run").mkdir()
    assert places_of(step, tmp_path) == {"a": str(tmp_path / "run")}

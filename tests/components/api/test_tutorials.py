"""The notebooks of the documentation run from a stranger's empty folder, and what the site shows is what they give."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def pictures(note: Any) -> list[int]:
    """Cells that show a picture."""
    return [
        number
        for number, cell in enumerate(note.cells)
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_runs_and_shows_the_same_pictures(
    path: Path, tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"tutorial-{path.stem.replace('_', '-')}"
    folder.mkdir()
    (folder / "sample").symlink_to(sample)  # `apbatch sample` leaves one that is there as it is
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("APBATCH_CONFIG", "APBATCH_CATALOGUE", "APBATCH_ERRORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    committed, note = read(path), read(path)
    for cell in note.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(
        note, timeout=1200, startup_timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert pictures(note) == pictures(committed)


def test_there_is_a_tutorial_for_everyone_and_its_output_names_no_machine() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["analyst", "data_manager", "engineer", "physicist"]
    for path in NOTEBOOKS:
        cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in cells), path
        assert not any(output.output_type == "error" for cell in cells for output in cell.outputs), path
        text = "\n".join(str(output) for cell in cells for output in cell.outputs)
        assert not re.search(r"/(?:home|root|work|tmp)/", text), path
        assert path.stat().st_size < 300_000, path

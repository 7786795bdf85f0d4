"""The validation against real reference tables, as small as it can be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from blake3 import blake3

from apbatch.sim.validation import report, sizes


@pytest.mark.campaign
def test_gammas_are_compared_with_both_references(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sizes.SIZES, "tiny", sizes.Size(8, 30.0, 12, 6, 2, 10))
    found = report.validate(data, tmp_path, size="tiny", parts=("taiga", "fact"))
    assert [part.missing for part in found.parts] == ["", ""]
    assert {check.part for check in found.checks} == {"TAIGA", "FACT"}
    # Gross mistakes only: twelve showers can't show more.
    sizes_there = [check for check in found.checks if check.part == "TAIGA" and check.quantity.startswith("width")]
    assert sizes_there
    assert all(0.7 < check.ratio < 1.4 for check in sizes_there)
    page = found.page.read_text()
    assert page.count("<svg") >= 4
    table = data / "fact_hillas" / "proton.hdf5"
    content = json.loads(found.data.read_text())
    assert content["inputs"]["fact_hillas/proton.hdf5"] == blake3(table.read_bytes()).hexdigest()
    assert f"fact_hillas/proton.hdf5 {blake3(table.read_bytes()).hexdigest()[:16]}" in page

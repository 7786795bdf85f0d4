"""The suite of grids: its cases do their work, and say so when they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apbatch.bench.cases import grids
from apbatch.bench.runner import Group, run_group
from apbatch.bench.samples import Sample
from apbatch.bench.sizes import BUILT_IN
from apbatch.bench.suite import Setting
from apbatch.bench.suites import SUITES


class NoServers:
    def endpoint(self, server: str, name: str) -> str:
        raise AssertionError("no server is wanted")


def setting(tmp_path: Path, images: int = 300) -> Setting:
    return Setting(BUILT_IN["smoke"].model_copy(update={"images": images}), NoServers(), tmp_path)


@pytest.fixture
def no_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise grids._CanNotTakePartError("not installed; pip install it")

    monkeypatch.setattr(grids, "_peer", missing)


def test_every_method_is_measured_on_both_cameras_and_does_its_work(no_peer, tmp_path: Path):
    samples: list[Sample] = []
    where = setting(tmp_path)
    groups = list(grids.grid_groups(where))
    assert len(groups) == SUITES["grids"].operations == len(where.left_out)
    for group in groups:
        run_group(group, 1, samples.append)
    assert {sample.error for sample in samples} == {None}
    assert {sample.peer for sample in samples} == {grids.OURS, grids.COPY}


def test_a_case_that_writes_nothing_is_out(no_peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grids, "to_grid", lambda *_, **__: None)
    samples: list[Sample] = []
    group: Group = next(iter(grids.grid_groups(setting(tmp_path))))
    run_group(group, 1, samples.append)
    assert [sample.error for sample in samples if sample.peer == grids.OURS] == [
        "did not do the work: grids are not what the map gives"
    ]


def test_the_large_camera_has_the_pixels_of_a_large_telescope():
    camera = grids._large_camera()
    assert camera.n_pixels == grids.LARGE
    assert np.hypot(camera.x, camera.y).max() < 2.5

"""Several trainings side by side; the processes here are two lines of Python, not TensorFlow."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.training import launch
from apbatch.dl.training.spec import TrainSpec
from apbatch.errors import ApbatchError
from tests.synthetic import showers

#: Says that it is there, waits for the other one, and is done.
MEETS = """
import pathlib, sys, time
own, other = map(pathlib.Path, sys.argv[1:])
(own / "here").touch()
while not (other / "here").exists():
    time.sleep(0.01)
(own / "trained.json").touch()
"""
LASTS = "import time; time.sleep(60)"
FAILS = "raise SystemExit('no memory left')"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    folder = tmp_path_factory.mktemp("launch")
    return blind.make(
        **showers(folder / "data", 30, 30, 2), folder=folder / "blind", settings=BlindSettings(open=True, seed=3)
    )


def specs(made: BlindSet, folder: Path) -> list[TrainSpec]:
    return [TrainSpec(data=made.files, output=folder / str(seed), seed=seed) for seed in (1, 2)]


def test_trainings_run_side_by_side_each_with_its_share_of_the_cores(
    made: BlindSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def command(spec: TrainSpec, kind: str, ranks: int) -> list[str]:
        assert (kind, ranks) == ("single", 1)
        threads.append(launch._environment(spec, ranks, 2)["TF_NUM_INTEROP_THREADS"])
        other = spec.output.parent / str(3 - spec.seed)
        return [sys.executable, "-c", MEETS, str(spec.output), str(other)]

    monkeypatch.setattr(launch, "_command", command)
    monkeypatch.setattr(launch, "model_card", lambda _: None)
    launch.train_all(specs(made, tmp_path), "auto", ranks=2)
    assert all((tmp_path / name / "trained.json").exists() for name in "12")
    assert threads == ["1", "1"]


def test_the_first_failure_ends_the_others_and_is_told(
    made: BlindSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_command", lambda spec, *_: [sys.executable, "-c", FAILS if spec.seed == 2 else LASTS])
    began = time.monotonic()
    with pytest.raises(ApbatchError, match="no memory left"):
        launch.train_all(specs(made, tmp_path), "single", ranks=2)
    assert time.monotonic() - began < 30


def test_horovod_trains_one_after_the_other_on_all_ranks(
    made: BlindSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(launch, "_train", lambda spec, kind, ranks, company: asked.append((kind, ranks, company.share)))
    launch.train_all(specs(made, tmp_path), "horovod", ranks=2)
    launch.train_all(specs(made, tmp_path), "auto", ranks=4)
    assert asked == [("horovod", 2, 1)] * 2 + [("auto", 4, 1)] * 2

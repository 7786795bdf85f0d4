"""Networks on other back-ends and for other tasks: PyTorch, half precision, energy and direction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.files import sha256
from apbatch.dl.judging.q_factor import roc
from apbatch.dl.training import launch
from apbatch.dl.training.spec import TrainSpec
from apbatch.errors import MissingSoftwareError, UsageError
from tests.synthetic import showers


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    folder = tmp_path_factory.mktemp("backends")
    inputs = showers(folder / "data", 150, 220, contrast=1.5)
    return blind.make(**inputs, folder=folder / "blind", settings=BlindSettings(open=True, seed=3))


def spec_for(made: BlindSet, output: Path, **more: object) -> TrainSpec:
    known = {
        "treatments": ("soft",),
        "epochs": 6,
        "batch_size": 32,
        "epoch_min": 2000,
        "learning_rate": 3e-3,
        "seed": 2,
    }
    return TrainSpec.model_validate({"data": made.files, "output": output, **known, **more})


def auc_of(made: BlindSet, output: Path) -> float:
    rows = pq.read_table(output / "predictions.parquet").to_pylist()
    scores = {row["id"]: row["score"] for row in rows if row["split"] == "validation"}
    known = pq.read_table(made.files / "validation.parquet", columns=["id", "gamma"]).to_pylist()
    return roc(np.array([scores[row["id"]] for row in known]), np.array([row["gamma"] for row in known]))[2]


@pytest.mark.campaign
def test_pytorch_learns_what_tensorflow_learns(made: BlindSet, tmp_path: Path) -> None:
    try:
        launch.python_of("torch")
    except MissingSoftwareError as error:
        pytest.skip(f"NOT TESTED: {error}")
    found = {}
    for backend in ("tensorflow", "torch"):
        output = launch.train(spec_for(made, tmp_path / backend, backend=backend, symmetric=True), "single")
        found[backend] = auc_of(made, output)
        assert json.loads((output / "trained.json").read_text())["spec"]["backend"] == backend
    assert found["tensorflow"] > 0.75
    assert found["torch"] == pytest.approx(found["tensorflow"], abs=0.05)


def test_without_pytorch_the_error_says_how_to_get_it(made: BlindSet, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv("APBATCH_TORCH_PYTHON", raising=False)
    find = launch.importlib.util.find_spec
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    with pytest.raises(MissingSoftwareError) as caught:
        launch.train(spec_for(made, tmp_path / "torch", backend="torch"))
    assert "APBATCH_TORCH_PYTHON" in str(caught.value.remedy)


@pytest.mark.campaign
def test_half_precision_learns_as_well(made: BlindSet, tmp_path: Path) -> None:
    output = launch.train(spec_for(made, tmp_path / "half", mixed_precision=True, epochs=4), "single")
    assert auc_of(made, output) > 0.7


def test_energy_and_direction_are_learnt_from_gammas(made: BlindSet, tmp_path: Path) -> None:
    spec = spec_for(made, tmp_path / "showers", task="showers", epochs=8)
    output = launch.train(spec, "single")
    table = pq.read_table(output / "predictions.parquet")
    assert table.column_names[-3:] == ["log_energy", "source_x", "source_y"]
    found = {row["id"]: row for row in table.to_pylist() if row["split"] == "validation"}
    known = pq.read_table(made.files / "validation.parquet").to_pylist()
    gammas = [row for row in known if row["gamma"]]
    assert set(found) == {row["id"] for row in gammas}
    true = np.log10([row["energy"] for row in gammas])
    guessed = np.array([found[row["id"]]["log_energy"] for row in gammas])
    assert np.std(guessed - true) < 0.6 * np.std(true)


def test_a_checkpoint_of_another_task_is_refused(made: BlindSet, tmp_path: Path) -> None:
    launch.train(spec_for(made, tmp_path / "x", epochs=1), "single")
    with pytest.raises(UsageError, match="another model"):
        launch.train(spec_for(made, tmp_path / "x", epochs=1, task="showers"), "single")


def test_training_from_disk_learns_and_one_rank_and_two_give_the_same_scores(made: BlindSet, tmp_path: Path) -> None:
    pytest.importorskip("horovod")
    folder = tmp_path / "blind"
    shutil.copytree(made.folder, folder)
    place = folder / "set" / "train.parquet"
    pq.write_table(pq.read_table(place), place, row_group_size=60)
    manifest = json.loads((folder / "set" / "manifest.json").read_text())
    manifest["files"]["train"] = sha256(place)
    (folder / "set" / "manifest.json").write_text(json.dumps(manifest))
    scores = []
    for name, collective, ranks in (("one", "single", 1), ("two", "horovod", 2)):
        spec = spec_for(made, tmp_path / name, data=folder / "set", stream=True, epochs=4)
        rows = pq.read_table(launch.train(spec, collective, ranks) / "predictions.parquet")
        scores.append(rows.sort_by("id")["score"].to_numpy())
        assert auc_of(made, tmp_path / name) > 0.6
    assert np.array_equal(*scores)

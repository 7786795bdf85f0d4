"""Training in real processes: one rank and two, killed and started again, from a blind set to a report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.training import launch
from apbatch.dl.training.data import load
from apbatch.dl.training.spec import TrainSpec
from apbatch.errors import ApbatchError, UsageError
from tests.synthetic import showers
from tests.waits import until, until_ended


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    folder = tmp_path_factory.mktemp("training")
    return blind.make(
        **showers(folder / "data", 130, 200, contrast=3.0),
        folder=folder / "blind",
        settings=BlindSettings(open=True, seed=3),
    )


def spec_for(made: BlindSet, output: Path) -> TrainSpec:
    more = {"epochs": 6, "batch_size": 32, "epoch_min": 0, "learning_rate": 4e-3, "seed": 2, "symmetric": True}
    return TrainSpec.model_validate({"data": made.files, "output": output, **more})


def scores_of(output: Path) -> np.ndarray:
    table = pq.read_table(output / "predictions.parquet")
    return table.sort_by([("treatment", "ascending"), ("id", "ascending")])["score"].to_numpy()


@pytest.fixture(scope="module")
def two_ranks(made: BlindSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launch.train(spec_for(made, tmp_path_factory.mktemp("two")), "horovod", ranks=2)


@pytest.fixture(scope="module")
def one_rank(made: BlindSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launch.train(spec_for(made, tmp_path_factory.mktemp("one")), "single")


def ranks_below(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        try:
            if "apbatch.dl.training.loop" in child.cmdline() and child.cmdline()[0].endswith("python"):
                found.append(child)
        except psutil.Error:
            continue
    return found


def wait_for_epoch(log: Path) -> None:
    until(lambda: log.exists() and '"event": "epoch"' in log.read_text(), "no epoch")


@pytest.mark.horovod
def test_two_ranks_learn(two_ranks: Path) -> None:
    record = json.loads((two_ranks / "trained.json").read_text())
    assert record["ranks"] == 2
    for treatment in ("none", "standard"):
        curves = record["treatments"][treatment]["curves"]
        assert len(curves) == 6
        assert curves[-1]["validation_auc"] > 0.7


@pytest.mark.horovod
def test_one_rank_and_two_give_the_same_scores_bit_for_bit(two_ranks: Path, one_rank: Path) -> None:
    assert np.array_equal(scores_of(two_ranks), scores_of(one_rank))


@pytest.mark.horovod
def test_a_dead_rank_ends_the_run_with_its_log_and_a_restart_gives_the_same_scores(
    made: BlindSet, two_ranks: Path, tmp_path: Path
) -> None:
    spec = spec_for(made, tmp_path / "out")
    log = spec.output / "training.log"

    def kill_rank_one() -> None:
        wait_for_epoch(log)
        for rank in ranks_below(psutil.Process()):
            if "1" in (rank.environ().get("HOROVOD_RANK"), rank.environ().get("OMPI_COMM_WORLD_RANK")):
                rank.kill()

    killer = threading.Thread(target=kill_rank_one)
    killer.start()
    with pytest.raises(ApbatchError) as caught:
        launch.train(spec, "horovod", ranks=2)
    killer.join()
    assert caught.value.where == str(log)
    assert "died" in caught.value.what
    assert not ranks_below(psutil.Process())
    assert not (spec.output / "trained.json").exists()

    launch.train(spec, "horovod", ranks=2)
    assert '"event": "resumed"' in log.read_text()
    assert np.array_equal(scores_of(spec.output), scores_of(two_ranks))


def test_a_killed_launcher_leaves_no_orphan_and_a_restart_gives_the_same_scores(
    made: BlindSet, one_rank: Path, tmp_path: Path
) -> None:
    spec = spec_for(made, tmp_path / "out")
    code = (
        "import sys; from apbatch.dl.training import launch; from apbatch.dl.training.spec import TrainSpec;"
        "launch.train(TrainSpec.model_validate_json(sys.argv[1]), 'single')"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code, spec.model_dump_json()])
    wait_for_epoch(spec.output / "training.log")
    ranks = ranks_below(psutil.Process(launcher.pid))
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    assert ranks
    until_ended(ranks)

    launch.train(spec, "single")
    assert np.array_equal(scores_of(spec.output), scores_of(one_rank))


def test_a_finished_training_is_not_done_again(made: BlindSet, one_rank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_run", lambda *_: pytest.fail("trained again"))
    assert launch.train(spec_for(made, one_rank), "single") == one_rank


def test_a_finished_training_is_not_taken_for_another(made: BlindSet, one_rank: Path) -> None:
    other = spec_for(made, one_rank).model_copy(update={"epochs": 7})
    with pytest.raises(UsageError, match="another model, other data or other settings"):
        launch.train(other, "single")


def test_the_saved_model_gives_the_scores_of_the_table(made: BlindSet, one_rank: Path) -> None:
    """In a process of its own, by Keras alone: the model needs nothing beside it."""
    code = (
        "import sys, keras, numpy as np\n"
        "test = np.load(sys.argv[2])\n"
        "logits = keras.saving.load_model(sys.argv[1]).predict(test['grids'], verbose=0)[:, 0]\n"
        "np.savez(sys.argv[3], id=test['id'], score=1 / (1 + np.exp(-logits)))\n"
    )
    out = one_rank / "again.npz"
    model, test = one_rank / "none" / "model.keras", one_rank / "test.npz"
    images = load(made.files, made.manifest, "test", "none")
    np.savez(test, id=images.ids, grids=images.pixels)
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", code, model, test, out], check=True, env=environment)
    again = dict(zip(*(np.load(out)[name] for name in ("id", "score")), strict=True))
    rows = pq.read_table(one_rank / "predictions.parquet").to_pylist()
    mine = {row["id"]: row["score"] for row in rows if (row["treatment"], row["split"]) == ("none", "test")}
    assert mine.keys() == again.keys()
    assert max(abs(mine[name] - again[name]) for name in mine) < 1e-5

"""The halo network with auxiliary outputs, trained: the same bits for one rank and two, and a score alone is saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.files import read_parquet
from apbatch.dl.networks.scoring import load_model
from apbatch.dl.training import launch
from apbatch.dl.training.data import load
from apbatch.dl.training.spec import TrainSpec
from tests.synthetic import showers

pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    folder = tmp_path_factory.mktemp("halo")
    settings = BlindSettings(open=True, seed=3)
    return blind.make(**showers(folder / "data", 40, 40, 2), folder=folder / "blind", settings=settings)


def trained(made: BlindSet, output: Path, ranks: int) -> Path:
    spec = TrainSpec(
        data=made.files, output=output, treatments=("none",), model="halo-net", options={"filters": 4, "dropout": 0.3},
        epochs=2, batch_size=16, epoch_min=0, auxiliary={"energy": 0.3},
    )  # fmt: skip
    return launch.train(spec, "single" if ranks == 1 else "horovod", ranks)


def scores(output: Path) -> np.ndarray:
    return np.asarray(read_parquet(output / "predictions.parquet", ["score"])["score"].to_numpy())


@pytest.mark.horovod
def test_one_rank_and_two_give_the_same_scores_and_the_saved_network_has_them_alone(
    made: BlindSet, tmp_path: Path
) -> None:
    one, two = (trained(made, tmp_path / str(ranks), ranks) for ranks in (1, 2))
    assert np.array_equal(scores(one), scores(two))
    model = load_model(one / "none" / "model.keras")
    images = load(made.files, made.manifest, "validation", "none").pixels
    logits = np.asarray(model(images))
    assert logits.shape == (len(images), 1)
    assert 1 / (1 + np.exp(-logits[:, 0])) == pytest.approx(scores(one)[: len(images)], abs=1e-5)

"""Scores outside of the training: on Spark among the events, by ONNX; and the card of a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from apbatch.camera.instruments.registry import camera_named
from apbatch.config import SparkSettings
from apbatch.datasets import dataset
from apbatch.dl import spark_scoring
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.files import sha256
from apbatch.dl.networks.export import to_onnx
from apbatch.dl.networks.scoring import Network
from apbatch.dl.training import launch
from apbatch.dl.training.data import load
from apbatch.dl.training.spec import TrainSpec
from apbatch.errors import FormatError, UsageError
from apbatch.formats.images import from_binary
from apbatch.index.events.backends import open_events
from apbatch.index.parser import parse
from apbatch.spark.connect.session import close, session
from tests.synthetic import showers

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return showers(tmp_path_factory.mktemp("showers"), 80, 120)


@pytest.fixture(scope="module")
def trained(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scoring")
    made = blind.make(**inputs, folder=folder / "blind", settings=BlindSettings(open=True, seed=3))
    known = {
        "treatments": ("none", "soft"),
        "model": "hex-cnn",
        "options": {"filters": 4},
        "epochs": 1,
        "batch_size": 32,
    }
    return launch.train(TrainSpec.model_validate({"data": made.files, "output": folder / "t", **known}), "single")


def test_spark_gives_the_scores_of_the_network_and_the_catalogue_finds_them(
    inputs: dict[str, str], trained: Path, tmp_path: Path
) -> None:
    output = f"file://{tmp_path}/scores"
    spark = session(SparkSettings(master="local[2]"), "scoring")
    try:
        done = spark_scoring.score_dataset(spark, inputs["images"], trained, output, "soft")
        again = spark_scoring.score_dataset(spark, inputs["images"], trained, output, "soft")
    finally:
        close(spark)
    assert done["images"] == 800 and again == done
    table = dataset.read_table(output)
    images = dataset.read_table(inputs["images"])
    pixels = np.asarray(from_binary(images["image"]), np.float32)
    expected = dict(zip(images["event"].to_pylist(), Network.of_training(trained, "soft").scores(pixels), strict=True))
    for event, score in zip(table["event"].to_pylist(), table["score"].to_pylist(), strict=True):
        assert score == pytest.approx(expected[event], abs=1e-5)
    with open_events(f"file://{tmp_path}/events") as events:
        assert spark_scoring.register_scores(events, output) == 800
        (batch,) = events.select(parse("experiment = 'SYNTHETIC'", events.attributes()))
        assert set(batch.column("cleaning").to_pylist()) == {"score-hex-cnn-soft"}
        assert sorted(batch.column("score").to_pylist()) == pytest.approx(sorted(table["score"].to_pylist()))


def test_a_network_of_another_treatment_or_camera_is_refused(trained: Path) -> None:
    with pytest.raises(UsageError, match="only for none, soft"):
        Network.of_training(trained, "standard")
    with pytest.raises(FormatError, match="takes grids of"):
        Network(trained / "soft" / "model.keras", "soft", camera_named("FACT"))


def test_onnx_gives_the_logits_of_keras(trained: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model = trained / "soft" / "model.keras"
    exported = to_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    files = Path(json.loads((trained / "spec.json").read_text())["data"])
    manifest = json.loads((files / "manifest.json").read_text())
    grids = load(files, manifest, "test", "soft").pixels
    (logits,) = session.run(None, {session.get_inputs()[0].name: grids})
    scores = 1 / (1 + np.exp(-logits[:, 0]))
    rows = pq.read_table(trained / "predictions.parquet").to_pylist()
    mine = [row["score"] for row in rows if (row["treatment"], row["split"]) == ("soft", "test")]
    assert scores == pytest.approx(mine, abs=1e-4)


def test_the_card_names_the_bytes_of_data_and_networks(trained: Path) -> None:
    card = (trained / "card.md").read_text()
    spec = json.loads((trained / "spec.json").read_text())
    manifest = json.loads((Path(spec["data"]) / "manifest.json").read_text())
    for value in (*manifest["files"].values(), manifest["commitment"], sha256(trained / "soft" / "model.keras")):
        assert value in card


def test_a_damaged_network_is_an_error_that_names_it(trained: Path, tmp_path: Path) -> None:
    broken = tmp_path / "model.keras"
    broken.write_bytes((trained / "soft" / "model.keras").read_bytes()[:3000])
    with pytest.raises(FormatError) as caught:
        Network(broken, "soft", "TAIGA-IACT01")
    assert caught.value.where == str(broken)

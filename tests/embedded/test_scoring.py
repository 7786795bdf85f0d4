"""Scores outside of the training: on Spark among the events, by ONNX; and the card of a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from apbatch.camera.instruments.registry import camera_named
from apbatch.config import SparkSettings, TrainingSettings
from apbatch.datasets import dataset
from apbatch.dl import spark_scoring
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.files import read_parquet, sha256, write_json
from apbatch.dl.networks.export import to_onnx
from apbatch.dl.networks.scoring import Network
from apbatch.dl.spark_scoring import TrainedNetwork
from apbatch.dl.study import trainings
from apbatch.dl.study.settings import StudySettings
from apbatch.dl.study.study_method import StudyMethod
from apbatch.dl.training.data import load, load_pixels
from apbatch.errors import FormatError, UsageError, VerificationError
from apbatch.formats.images import from_binary
from apbatch.index.events.backends import open_events
from apbatch.index.parser import parse
from apbatch.spark.connect.session import close, session
from tests.synthetic import showers

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return showers(tmp_path_factory.mktemp("showers"), 80, 120)


@pytest.fixture(scope="module")
def made(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    return blind.make(**inputs, folder=tmp_path_factory.mktemp("blind"), settings=BlindSettings(open=True, seed=3))


@pytest.fixture(scope="module")
def study(made: BlindSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one small network, of trees, and of their mean."""
    output = tmp_path_factory.mktemp("study")
    settings = StudySettings(
        cleanings=("none", "soft"), models={"hex-cnn": {"filters": 4}}, rivals=("halo-trees",),
        means={"both": ("hex-cnn", "halo-trees")}, seeds=1, epochs=1, batch_size=32,
    )  # fmt: skip
    trainings.run(made.folder, output, settings, {}, TrainingSettings(collective="single", ranks=1))
    write_json(output / "study.json", {"settings": settings.model_dump(mode="json")})
    return output


@pytest.fixture(scope="module")
def trained(study: Path) -> Path:
    return study / "trainings" / "hex-cnn-1"


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    opened = session(SparkSettings(master="local[2]"), "scoring")
    yield opened
    close(opened)


def scores_by_event(table: pa.Table) -> dict[int, float]:
    return dict(zip(table["event"].to_pylist(), table["score"].to_pylist(), strict=True))


def test_spark_gives_the_scores_of_the_network_and_the_catalogue_finds_them(
    inputs: dict[str, str], trained: Path, spark: SparkSession, tmp_path: Path
) -> None:
    output = f"file://{tmp_path}/scores"
    source = TrainedNetwork(trained, "soft")
    done = spark_scoring.score_dataset(spark, inputs["images"], source, output)
    assert done["images"] == 800 and spark_scoring.score_dataset(spark, inputs["images"], source, output) == done
    table = dataset.read_table(output)
    images = dataset.read_table(inputs["images"])
    pixels = np.asarray(from_binary(images["image"]), np.float32)
    expected = dict(zip(images["event"].to_pylist(), Network.of_training(trained, "soft").scores(pixels), strict=True))
    assert scores_by_event(table) == pytest.approx(expected, abs=1e-5)
    with open_events(f"file://{tmp_path}/events") as events:
        assert spark_scoring.register_scores(events, output) == 800
        (batch,) = events.select(parse("experiment = 'SYNTHETIC'", events.attributes()))
        assert set(batch.column("cleaning").to_pylist()) == {"score-hex-cnn-soft"}
        assert sorted(batch.column("score").to_pylist()) == pytest.approx(sorted(table["score"].to_pylist()))


def test_what_a_killed_run_of_other_images_left_is_no_part_of_the_scores(
    trained: Path, spark: SparkSession, tmp_path: Path
) -> None:
    images = showers(tmp_path / "showers", 3, 4)["images"]
    left = pa.table({"experiment": ["OTHER"], "run": [1], "event": [1], "telescope": [1], "score": [0.5]})
    (tmp_path / "scores").mkdir()
    pq.write_table(left, tmp_path / "scores" / "part-00009.parquet")
    output = f"file://{tmp_path}/scores"
    done = spark_scoring.score_dataset(spark, images, TrainedNetwork(trained, "none"), output)
    table = dataset.read_table(output)
    assert done["images"] == table.num_rows == dataset.count_rows(output) == 28
    assert set(table["experiment"].to_pylist()) == {"SYNTHETIC"}


def frozen_scores(study: Path, method: str, made: BlindSet) -> dict[bytes, float]:
    """Return the scores that a study froze for its test images, by the bytes of the image."""
    test = pq.read_table(made.files / "test.parquet", columns=["id", "image"])
    image_of = dict(zip(test["id"].to_pylist(), test["image"].to_pylist(), strict=True))
    rows = pq.read_table(study / "scores.parquet").to_pylist()
    return {
        image_of[row["id"]]: row["score"]
        for row in rows
        if (row["method"], row["treatment"], row["split"]) == (method, "none", "test")
    }


def test_the_mean_of_a_study_gives_other_copies_of_its_test_images_the_scores_that_were_frozen(
    inputs: dict[str, str], made: BlindSet, study: Path, spark: SparkSession, tmp_path: Path
) -> None:
    output = f"file://{tmp_path}/scores"
    done = spark_scoring.score_dataset(spark, inputs["images"], StudyMethod(study), output)
    assert done["images"] == 800
    image_of = {row["event"]: row["image"] for row in dataset.read_table(inputs["images"]).to_pylist()}
    scores = {image_of[event]: score for event, score in scores_by_event(dataset.read_table(output)).items()}
    frozen = frozen_scores(study, "both#1", made)
    assert len(frozen) > 50 and len(set(frozen.values())) > 50
    assert {image: scores[image] for image in frozen} == pytest.approx(frozen, abs=1e-5)
    record = dataset.info(output)["network"]
    assert record["model"] == "both" and record["members"] == ["hex-cnn", "halo-trees"]


@pytest.mark.parametrize("method", ["box", "halo-trees", "hex-cnn"])
def test_every_method_of_a_study_scores_as_it_did_there(method: str, made: BlindSet, study: Path) -> None:
    frozen = frozen_scores(study, method if method == "box" else f"{method}#1", made)
    images = np.stack([np.frombuffer(image, "<f4") for image in frozen])
    scores = StudyMethod(study, method, "none").scorer().scores(images)
    assert scores == pytest.approx(np.array(list(frozen.values())), abs=1e-5)


def test_methods_under_a_brighter_sky_score_as_they_did_in_the_study(made: BlindSet, tmp_path: Path) -> None:
    settings = StudySettings(
        cleanings=("none",), models={"hex-cnn": {"filters": 4}}, rivals=("halo-trees",), skies=(2.0,),
        means={"both": ("hex-cnn", "halo-trees")}, seeds=1, epochs=1, batch_size=32,
    )  # fmt: skip
    trainings.run(made.folder, tmp_path, settings, {}, TrainingSettings(collective="single", ranks=1))
    write_json(tmp_path / "study.json", {"settings": settings.model_dump(mode="json")})
    bright = load_pixels(made.files, made.manifest, "test", 2.0)
    frozen = read_parquet(tmp_path / "scores.parquet")
    ids = read_parquet(made.files / "test.parquet", ["id"])["id"].combine_chunks()
    for method, name in (("box", "box"), ("halo-trees", "halo-trees#1"), ("both", "both#1")):
        expected = trainings.scores_of(frozen, name, "none@2", "test", ids)
        scores = StudyMethod(tmp_path, method, "none@2").scorer().scores(bright)
        assert scores == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("method", "treatment", "message"),
    [
        ("bth", None, "no method 'bth'"),
        ("hex-cnn", None, "has scores for none, soft"),
        ("both", "soft", "no scores for 'soft', only for none"),
    ],
)
def test_a_method_that_a_study_lacks_is_refused(study: Path, method: str, treatment: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StudyMethod(study, method, treatment)


def test_trees_that_do_not_give_the_frozen_scores_again_are_refused(study: Path, tmp_path: Path) -> None:
    other = shutil.copytree(study, tmp_path / "study")
    table = pq.read_table(other / "scores.parquet")
    moved = pc.subtract(1.0, table["score"])
    pq.write_table(table.set_column(table.schema.get_field_index("score"), "score", moved), other / "scores.parquet")
    with pytest.raises(VerificationError, match="'halo-trees' fitted again"):
        StudyMethod(other).scorer()


def test_a_blind_set_that_the_study_was_not_trained_on_is_refused(
    study: Path, inputs: dict[str, str], tmp_path: Path
) -> None:
    other = blind.make(**inputs, folder=tmp_path / "blind", settings=BlindSettings(open=True, seed=4))
    copy = shutil.copytree(study, tmp_path / "study")
    record = copy / "trainings" / "hex-cnn-1" / "trained.json"
    content = json.loads(record.read_text())
    content["spec"]["data"] = str(other.files)
    record.write_text(json.dumps(content))
    with pytest.raises(VerificationError, match="not the one that the study was trained on"):
        StudyMethod(copy)


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

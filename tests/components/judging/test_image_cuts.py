"""Cuts of scorers that see images alone, where the study's scores know the direction from a source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind import protocol
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.files import write_table
from apbatch.dl.networks.treatment import parameters
from apbatch.dl.study import application, evaluation, examination, trainings
from apbatch.dl.study.disturbance import standard_disturbances
from apbatch.dl.study.image_cuts import cuts_of_images
from apbatch.dl.study.settings import JudgingSettings, StudySettings
from tests.synthetic import showers, showers_of_a_source

CAMERA = camera_named("TAIGA-IACT01")
SETTINGS = JudgingSettings(hadrons_min=5, resamples=100, bins=1)


class Narrow:
    """In place of a network: the narrower an image, the higher its score, and none is above 0.4."""

    camera = CAMERA

    def __init__(self, place: Path, treatment: str, camera: object) -> None:
        self.treatment = treatment

    def scores(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        width = np.nan_to_num(parameters(images, CAMERA, "soft")["width"], nan=9.0)
        return 0.4 / (1 + np.exp(6 * (width / CAMERA.pitch - 1.2)))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return showers_of_a_source(tmp_path_factory.mktemp("showers"))


@pytest.fixture(scope="module")
def point(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A judged study of the world ``point``, whose network with the direction has scores above 0.5: set and study."""
    made = blind.make(
        **inputs,
        folder=tmp_path_factory.mktemp("blind"),
        settings=BlindSettings(world="point", open=True, seed=3),
    )
    output = tmp_path_factory.mktemp("study")
    settings = StudySettings(cleanings=("soft",), rivals=("trees",), seeds=1)
    tables = list(trainings._by_parameters(made, output / "parameters", settings))
    box = tables[0]
    high = pc.add(0.55, pc.multiply(0.45, box["score"]))  # what a network may give that knows the direction as well
    named = box.set_column(0, "method", pa.array(["hex-cnn#1"] * box.num_rows))
    tables.append(named.set_column(named.column_names.index("score"), "score", high))
    write_table(output / "scores.parquet", pa.concat_tables(tables).combine_chunks())
    protocol.submit(made.folder, output / "scores.parquet", rule=SETTINGS.rule())
    protocol.unseal(made.folder)
    evaluation.evaluate(made.folder, output, SETTINGS)
    return made.folder, output


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (examination, application):
        monkeypatch.setattr(module, "Network", Narrow)
        monkeypatch.setattr(module, "networks", lambda study: [("hex-cnn", "soft", 1, Path())])


def test_robustness_cuts_where_scores_without_the_direction_ask_for_it(
    point: tuple[Path, Path], narrow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "standard_disturbances", lambda: standard_disturbances()[:1])
    content = json.loads(examination.robustness(*point, tmp_path / "robustness.json").read_bytes())
    of = {entry["method"]: entry for entry in content["entries"]}
    assert content["without_direction"] and set(of) == {"hex-cnn", "box", "trees"}
    assert 0.1 <= of["hex-cnn"]["gamma_efficiency_before"] < 0.98
    assert of["hex-cnn"]["hadron_efficiency_before"] < of["hex-cnn"]["gamma_efficiency_before"]


def test_application_cuts_where_a_network_without_the_direction_asks_for_it(
    point: tuple[Path, Path], inputs: dict[str, str], narrow: None, tmp_path: Path
) -> None:
    study = json.loads((point[1] / "study.json").read_bytes())
    (row,) = [row for row in study["rows"] if row["method"] == "hex-cnn"]
    assert row["trainings"][0]["cut"] > 0.4
    applied = application.apply(*point, {"ours": inputs["images"]}, tmp_path / "application.json")
    content = json.loads(applied.read_bytes())
    (network,) = content["datasets"][0]["networks"]
    assert content["without_direction"] and 0 < network["cut"] < 0.4 and network["kept_of_selected"] > 0.05


def test_cuts_are_the_study_s_where_its_scores_are_of_images_alone(tmp_path: Path) -> None:
    made = blind.make(
        **showers(tmp_path / "showers", 30, 40), folder=tmp_path / "blind", settings=BlindSettings(open=True, seed=3)
    )
    rows = [{"method": "hex-cnn", "treatment": which, "trainings": [{"cut": 0.7}]} for which in ("none", "soft")]
    scorer = Narrow(Path(), "soft", CAMERA).scores
    assert cuts_of_images(made, {"rows": rows}, {("hex-cnn", "soft"): scorer}) == {("hex-cnn", "soft"): 0.7}

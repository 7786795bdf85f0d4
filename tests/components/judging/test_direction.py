"""Direction as a feature: alpha and miss of a source that is another for each image, for box, trees and networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.camera.cleaning import PRESETS, clean
from apbatch.camera.halo import halo
from apbatch.camera.hillas import hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.judging import box_cuts
from apbatch.dl.judging.direction import observed_places, towards, with_direction
from apbatch.dl.judging.q_factor import roc
from apbatch.dl.study import trainings
from apbatch.dl.study.settings import StudySettings
from apbatch.dl.training.data import load_pixels
from tests.synthetic import showers_of_a_source

CAMERA = camera_named("TAIGA-IACT01")


@pytest.fixture(scope="module")
def point(tmp_path_factory: pytest.TempPathFactory) -> blind.BlindSet:
    """A set of the world ``point``: images of gammas point to the observed source, those of hadrons anywhere."""
    folder = tmp_path_factory.mktemp("point")
    settings = BlindSettings(world="point", open=True, seed=3)
    return blind.make(**showers_of_a_source(folder), folder=folder / "blind", settings=settings)


def test_the_direction_from_a_source_is_that_of_the_kernels(point: blind.BlindSet) -> None:
    pixels = load_pixels(point.files, point.manifest, "train")[:50]
    here = np.full(len(pixels), 1.1), np.full(len(pixels), -0.4)
    for kernel in (hillas, halo):
        expected = kernel(pixels, CAMERA, source=(1.1, -0.4))
        result = towards(kernel(pixels, CAMERA), *here)
        assert result.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(result[name], values, rtol=1e-6, atol=1e-4, err_msg=name)


def test_every_image_has_its_own_source(point: blind.BlindSet) -> None:
    places = observed_places(point.files, "train")
    assert places is not None and len(np.unique(places[0])) > 100
    gamma = np.asarray(pq.read_table(point.files / "train.parquet")["gamma"].to_numpy(zero_copy_only=False))
    pixels = load_pixels(point.files, point.manifest, "train")
    columns = towards(hillas(pixels, CAMERA, clean(pixels, CAMERA, PRESETS["soft"])), *places)
    assert np.nanmedian(columns["alpha"][gamma]) < 0.5 * np.nanmedian(columns["alpha"][~gamma])


def toy(n: int, seed: int) -> tuple[dict[str, npt.NDArray[np.float64]], npt.NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    gamma = random.random(n) < 0.5
    return {
        "size": 100 * np.exp(random.exponential(1, n)),
        "width": random.normal(0.1, 0.02, n),
        "length": random.normal(0.2, 0.03, n),
        "alpha": np.where(gamma, np.abs(random.normal(0, 8, n)), random.uniform(0, 90, n)),
        "miss": random.random(n),
        "distance": random.random(n),
    }, gamma


def test_the_box_cuts_on_alpha_where_there_is_a_source() -> None:
    (train, gamma), (test, truth) = toy(4000, 1), toy(4000, 2)
    box = box_cuts.fit(box_cuts.features(train, direction=True), gamma)
    assert box.alpha_max is not None and 8 <= box.alpha_max <= 22
    passed = box.score(box_cuts.features(test, direction=True)) >= 0.5
    q_factor = passed[truth].mean() / np.sqrt(passed[~truth].mean())
    assert q_factor > 1.7  # of alpha alone, within 12 degrees: 0.87 / sqrt(12 / 90) = 2.4
    blunt = box_cuts.fit_and_score(train, gamma, {"test": test})["test"] >= 0.5
    assert blunt[truth].mean() / np.sqrt(blunt[~truth].mean()) < 1.1


def test_an_image_without_an_axis_is_outside_of_a_box_with_alpha() -> None:
    train, gamma = toy(2000, 1)
    box = box_cuts.fit(box_cuts.features(train, direction=True), gamma)
    inside = {"size": np.array([300.0]), "width": np.array([0.1]), "length": np.array([0.2])}
    assert box.score(box_cuts.features({**inside, "alpha": np.array([1.0])}, direction=True)) >= 0.5
    assert box.score(box_cuts.features({**inside, "alpha": np.array([np.nan])}, direction=True)) < 0.5


def test_a_score_with_direction_knows_both_and_no_image_is_scored_by_trees_that_saw_its_shower() -> None:
    (known, gamma), (test, truth) = toy(3000, 3), toy(3000, 4)
    random = np.random.default_rng(5)
    scores = {
        split: 1 / (1 + np.exp(-random.normal(np.where(labels, 0.7, -0.7), 1)))
        for split, labels in (("validation", gamma), ("test", truth))
    }
    shower = np.arange(3000) // 4
    both = with_direction(scores, {"validation": known, "test": test}, gamma, shower)
    assert roc(both["test"], truth)[2] > roc(scores["test"], truth)[2] + 0.05
    assert abs(roc(both["test"], truth)[2] - roc(both["validation"], gamma)[2]) < 0.03

    # Labels that are drawn for each shower can only be told by trees that saw it.
    drawn = random.random(750)[shower] < 0.5
    alike = {name: values[shower] for name, values in known.items()}
    nothing = with_direction({"validation": np.full(3000, 0.5)}, {"validation": alike}, drawn, shower)
    assert abs(roc(nothing["validation"], drawn)[2] - 0.5) < 0.06


def test_methods_of_a_study_are_given_the_direction_in_the_world_point(point: blind.BlindSet, tmp_path: Path) -> None:
    settings = StudySettings(cleanings=("soft",), rivals=("trees",), seeds=1)
    tables = list(trainings._by_parameters(point, tmp_path, settings))
    opened = blind.open_set(point.folder)
    gamma = dict(zip(*pq.read_table(opened.files / "validation.parquet", columns=["id", "gamma"]).columns, strict=True))
    names = {key.as_py(): value.as_py() for key, value in gamma.items()}
    for table in tables:
        rows = [row for row in table.to_pylist() if row["split"] == "validation"]
        labels = np.array([names[row["id"]] for row in rows])
        assert roc(np.array([row["score"] for row in rows]), labels)[2] > 0.8, rows[0]["method"]
    networks = tables[0].set_column(0, "method", pa.array(["talk-cnn#1"] * tables[0].num_rows))
    blind_to_light = networks.set_column(
        networks.column_names.index("score"), "score", pa.array(np.full(networks.num_rows, 0.5))
    )
    (validation, test) = trainings._towards_source(point, blind_to_light)
    labels = np.array([names[name] for name in validation["id"].to_pylist()])
    assert roc(np.asarray(validation["score"]), labels)[2] > 0.75
    assert test.num_rows == point.manifest["events"]["test"]["events"]

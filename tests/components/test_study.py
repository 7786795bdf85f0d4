"""The study without any training: blind sets of images, treatments made from them, and scores that are judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.camera.grid import from_grid
from apbatch.camera.registry import camera_named
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.blind_set import BlindSet, BlindSettings
from apbatch.dl.study import evaluation as study_evaluation
from apbatch.dl.study import trainings as study
from apbatch.dl.study.report import render_study_table, write_study_report
from apbatch.dl.training.data import load, load_pixels
from apbatch.dl.training.spec import TrainSpec
from apbatch.errors import UsageError
from tests.synthetic import camera_showers

CAMERA = camera_named("TAIGA-IACT01")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return camera_showers(tmp_path_factory.mktemp("showers"))


@pytest.fixture(scope="module")
def made(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    return blind.make(**inputs, folder=tmp_path_factory.mktemp("blind"), settings=BlindSettings(seed=3))


def test_a_set_of_images_holds_the_pixels_of_the_camera(made: BlindSet) -> None:
    assert made.manifest["camera"] == "TAIGA-IACT01"
    for split in ("train", "validation", "test"):
        assert load_pixels(made.files, made.manifest, split).shape[1] == CAMERA.n_pixels


def test_an_uncleaned_grid_holds_every_pixel_and_a_cleaned_one_the_bright_ones(made: BlindSet) -> None:
    pixels = load_pixels(made.files, made.manifest, "test")
    none, soft, standard = (
        from_grid(load(made.files, made.manifest, "test", name).pixels, CAMERA) for name in ("none", "soft", "standard")
    )
    assert np.array_equal(none, pixels)
    kept = [(values != 0).sum() for values in (none, soft, standard)]
    assert kept[0] > kept[1] > kept[2] > 0
    assert np.array_equal(standard[standard != 0], pixels[standard != 0])


def test_an_unknown_treatment_is_an_error_with_the_nearest(made: BlindSet) -> None:
    spec = TrainSpec(data=made.files, output=Path("x"), variants=("standart",))
    with pytest.raises(UsageError) as caught:
        spec.check(made.manifest)
    assert caught.value.nearest == "standard"


def test_an_unknown_network_or_rival_is_an_error_before_anything_is_trained() -> None:
    for wrong in ({"models": {"resnt": {}}}, {"rivals": ("tree",)}, {"cleanings": ("hard",)}):
        with pytest.raises(UsageError):
            study.StudySettings(**wrong).check()  # type: ignore[arg-type]


def scores_for(made: BlindSet, path: Path, trainings: int = 2) -> Path:
    """Scores of three methods: one that knows nothing, one that knows something, one that knows more."""
    labels = {}
    for split in ("validation", "test"):
        table = pq.read_table(made.files / f"{split}.parquet")
        # The width tells the class; noise of a given strength blurs it.
        labels[split] = (table["id"], table["width_cleaned"].to_numpy() / CAMERA.pitch)
    tables = []
    for method, blur in (("cuts", 3.0), ("talk-cnn", 0.4), ("resnet", 0.02)):
        for seed in range(1, trainings + 1 if method != "cuts" else 2):
            random = np.random.default_rng([seed, int(100 * blur)])
            name = method if method == "cuts" else f"{method}#{seed}"
            for split, (ids, width) in labels.items():
                score = 1 / (1 + np.exp(4 * (width - 1.2 + random.normal(0, blur, len(width)))))
                n = len(ids)
                columns = {"method": [name] * n, "variant": ["none"] * n, "split": [split] * n}
                tables.append(pa.table({**columns, "id": ids, "score": score}))
    pq.write_table(pa.concat_tables(tables), path)
    return path


@pytest.fixture(scope="module")
def judged(made: BlindSet, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("study")
    blind.submit(made.folder, scores_for(made, folder / "scores.parquet"))
    blind.unseal(made.folder)
    settings = study_evaluation.StudyEvaluationSettings(hadrons_min=10, resamples=200, bins=2)
    return study_evaluation.evaluate(made.folder, folder, settings)


def test_the_table_has_a_row_for_each_method_and_the_mean_of_its_trainings(judged: dict) -> None:
    assert [row["method"] for row in judged["rows"]] == ["cuts", "talk-cnn", "resnet", "talk-cnn+", "resnet+"]


def test_q_is_that_of_a_plain_count(judged: dict, made: BlindSet) -> None:
    labels = {row["id"]: row["gamma"] for row in pq.read_table(made.folder / "unsealed/labels.parquet").to_pylist()}
    frozen = [row for row in pq.read_table(made.folder / "frozen").to_pylist() if row["split"] == "test"]
    (row,) = [row for row in judged["rows"] if row["method"] == "resnet"]
    for number, training in enumerate(row["trainings"], start=1):
        above = [
            labels[entry["id"]]
            for entry in frozen
            if entry["method"] == f"resnet#{number}" and entry["score"] > training["cut"]
        ]
        n = judged["events"]["test"]
        expected = sum(above) / n["gammas"] / np.sqrt((len(above) - sum(above)) / n["hadrons"])
        assert training["quality"] == pytest.approx(expected)
        assert training["hadrons_left"] == len(above) - sum(above)
    assert row["quality"]["value"] == pytest.approx(np.mean([t["quality"] for t in row["trainings"]]))


def test_a_better_method_is_found_better_with_its_significance(judged: dict) -> None:
    (row,) = [row for row in judged["rows"] if row["method"] == "resnet"]
    found = row["against"]["cuts"]
    assert found["ratio"]["low"] > 1 and found["sigma"] > 1.5 and found["p_value"] < 0.05
    verdict = next(verdict for verdict in judged["verdicts"] if verdict["cleaning"] is None)
    assert verdict["network"].startswith("residual network")


def test_a_cut_that_leaves_too_few_hadrons_is_not_quoted(made: BlindSet, judged: dict, tmp_path: Path) -> None:
    settings = study_evaluation.StudyEvaluationSettings(hadrons_min=10_000, resamples=100, bins=2)
    again = study_evaluation.evaluate(made.folder, tmp_path, settings)
    assert all(row["quality"] is None and not row["quoted"] for row in again["rows"])
    assert "not quoted" in render_study_table(again)


def test_a_study_on_an_opened_set_is_refused_before_anything_is_trained(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = blind.make(**inputs, folder=tmp_path / "blind", settings=BlindSettings())
    blind.submit(made.folder, scores_for(made, tmp_path / "scores.parquet"))
    blind.unseal(made.folder)
    monkeypatch.setattr(study.launch, "train_all", lambda *arguments: pytest.fail("something was trained"))
    with pytest.raises(UsageError, match="other scores were frozen"):
        study.run(made.folder, tmp_path / "study", study.StudySettings(rivals=()))
    assert not (tmp_path / "study").exists()


def test_bins_hold_every_event_once(judged: dict) -> None:
    test = judged["events"]["test"]
    assert {known["name"] for known in judged["bins"]} == {"size", "energy", "zenith"}
    for row in judged["rows"]:
        for entries in row["bins"].values():
            assert sum(entry["gammas"] for entry in entries) == test["gammas"]
            assert sum(entry["hadrons"] for entry in entries) == test["hadrons"]


def test_the_same_scores_give_the_same_numbers(judged: dict, made: BlindSet, tmp_path: Path) -> None:
    settings = study_evaluation.StudyEvaluationSettings(hadrons_min=10, resamples=200, bins=2)
    again = study_evaluation.evaluate(made.folder, tmp_path, settings)
    assert again["rows"] == judged["rows"]


def test_the_report_is_one_page_with_nothing_from_outside(judged: dict, tmp_path: Path) -> None:
    page = write_study_report(judged, {}, tmp_path).read_text()
    assert page.count("<svg") == 6 and "data:image/png;base64," in page
    assert 'src="http' not in page and "<script" not in page
    assert "1.48" in page and "residual network" in page
    beyond = sum(verdict["beyond"] for verdict in judged["verdicts"])
    assert page.count("interval clear of it") == beyond < len(judged["verdicts"])

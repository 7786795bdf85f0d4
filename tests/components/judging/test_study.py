"""The study without any training: blind sets of images, treatments made from them, and scores that are judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.camera.grid import from_grid
from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind import protocol
from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.judging.resampling import Comparison, Interval
from apbatch.dl.study import evaluation as study_evaluation
from apbatch.dl.study import trainings as study
from apbatch.dl.study.report import render_table, write_report
from apbatch.dl.study.rows import Row
from apbatch.dl.study.settings import Goal, JudgingSettings, StudySettings
from apbatch.dl.study.verdicts import verdict_of, verdicts_on
from apbatch.dl.training.data import load, load_pixels
from apbatch.dl.training.spec import TrainSpec
from apbatch.errors import UsageError
from tests.synthetic import showers

CAMERA = camera_named("TAIGA-IACT01")
GOALS = (Goal(over="box", ratio=1.0), Goal(over="box", ratio=50.0, cleaning="none"))
SETTINGS = JudgingSettings(hadrons_min=10, resamples=200, bins=2, goals=GOALS)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return showers(tmp_path_factory.mktemp("showers"))


@pytest.fixture(scope="module")
def made(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    return blind.make(**inputs, folder=tmp_path_factory.mktemp("blind"), settings=BlindSettings(open=True, seed=3))


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
    spec = TrainSpec(data=made.files, output=Path("x"), treatments=("standart",))
    with pytest.raises(UsageError) as caught:
        spec.check()
    assert caught.value.nearest == "standard"


def test_an_unknown_network_or_rival_is_an_error_before_anything_is_trained() -> None:
    for wrong in (
        {"models": {"resnt": {}}}, {"rivals": ("tree",)}, {"cleanings": ("hard",)}, {"cleanings": ("none", "none")},
        {"rivals": ("trees", "trees")}, {"skies": (2, 2.0)}, {"means": {"m#x": ("talk-cnn", "trees")}},
        {"means": {"m+": ("talk-cnn", "trees")}}, {"means": {"trees": ("talk-cnn", "halo-trees")}},
        {"means": {"m": ("trees", "halo-trees")}}, {"means": {"m": ("talk-cnn", "talk-cnn")}},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            StudySettings(**wrong).check()  # type: ignore[arg-type]
    StudySettings(means={"m": ("talk-cnn", "trees")}).check()


def test_a_goal_of_what_is_not_compared_is_an_error_with_the_nearest() -> None:
    for goal in (Goal(over="halo-tree"), Goal(over="trees", cleaning="non")):
        with pytest.raises(UsageError) as caught:
            StudySettings().check_goals([goal])
        assert caught.value.nearest in ("halo-trees", "none")
    StudySettings().check_goals([Goal(), Goal(over="halo-trees", cleaning="none"), Goal(over="talk-cnn")])


def scores_for(made: BlindSet, path: Path, trainings: int = 2) -> Path:
    """Scores of three methods: one that knows nothing, one that knows something, one that knows more."""
    labels = {}
    for split in ("validation", "test"):
        table = pq.read_table(made.files / f"{split}.parquet")
        # The width tells the class; noise of a given strength blurs it.
        labels[split] = (table["id"], table["width_cleaned"].to_numpy() / CAMERA.pitch)
    tables = []
    for method, blur in (("box", 3.0), ("talk-cnn", 0.4), ("resnet", 0.02)):
        for seed in range(1, trainings + 1 if method != "box" else 2):
            random = np.random.default_rng([seed, int(100 * blur)])
            name = method if method == "box" else f"{method}#{seed}"
            for split, (ids, width) in labels.items():
                score = 1 / (1 + np.exp(4 * (width - 1.2 + random.normal(0, blur, len(width)))))
                n = len(ids)
                columns = {"method": [name] * n, "treatment": ["none"] * n, "split": [split] * n}
                tables.append(pa.table({**columns, "id": ids, "score": score}))
    pq.write_table(pa.concat_tables(tables), path)
    return path


@pytest.fixture(scope="module")
def judged(made: BlindSet, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("study")
    protocol.submit(made.folder, scores_for(made, folder / "scores.parquet"))
    protocol.unseal(made.folder)
    return study_evaluation.evaluate(made.folder, folder, SETTINGS)


def test_the_table_has_a_row_for_each_method_and_the_mean_of_its_trainings(judged: dict) -> None:
    assert [row["method"] for row in judged["rows"]] == ["box", "talk-cnn", "resnet", "talk-cnn+", "resnet+"]


def test_q_is_that_of_a_plain_count(judged: dict, made: BlindSet) -> None:
    labels = {row["id"]: row["gamma"] for row in protocol.read_labels(made).to_pylist()}
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
    found = row["against"]["box"]
    assert found["ratio"]["low"] > 1 and found["sigma"] > 1.5 and found["p_value"] < 0.05
    verdict = next(verdict for verdict in judged["verdicts"] if verdict["cleaning"] is None)
    assert verdict["network"].startswith("residual network")


@pytest.mark.usefixtures("without_bins")
def test_a_cut_that_leaves_too_few_hadrons_is_not_quoted(made: BlindSet, judged: dict, tmp_path: Path) -> None:
    settings = JudgingSettings(hadrons_min=10_000, resamples=100, bins=2)
    again = study_evaluation.evaluate(made.folder, tmp_path, settings)
    assert all(row["quality"] is None and not row["quoted"] for row in again["rows"])
    settings = settings.model_copy(update={"goals": GOALS})
    verdicts = study_evaluation.evaluate(made.folder, tmp_path, settings)["verdicts"]
    assert verdicts and all(v["comparison"] is None and v["verdict"] == "undecided" for v in verdicts)
    assert "not quoted" in render_table(again)


def test_a_study_on_an_opened_set_is_refused_before_anything_is_trained(
    inputs: dict[str, str], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = blind.make(**inputs, folder=tmp_path / "blind", settings=BlindSettings())
    protocol.submit(made.folder, scores_for(made, tmp_path / "scores.parquet"))
    protocol.unseal(made.folder)
    monkeypatch.setattr(study.launch, "train_all", lambda *arguments: pytest.fail("something was trained"))
    with pytest.raises(UsageError, match="other scores were frozen"):
        study.run(made.folder, tmp_path / "study", StudySettings(rivals=()), {})
    assert not (tmp_path / "study").exists()


def test_bins_hold_every_event_once(judged: dict) -> None:
    test = judged["events"]["test"]
    assert {known["name"] for known in judged["bins"]} == {"size", "energy", "zenith"}
    for row in judged["rows"]:
        for entries in row["bins"].values():
            assert sum(entry["gammas"] for entry in entries) == test["gammas"]
            assert sum(entry["hadrons"] for entry in entries) == test["hadrons"]


def test_the_same_scores_give_the_same_numbers(judged: dict, made: BlindSet, tmp_path: Path) -> None:
    again = study_evaluation.evaluate(made.folder, tmp_path, SETTINGS)
    assert again["rows"] == judged["rows"]


def test_the_report_is_one_page_with_nothing_from_outside(judged: dict, tmp_path: Path) -> None:
    page = write_report(judged, {}, tmp_path).read_text()
    assert page.count("<svg") == 8 and "data:image/png;base64," in page
    assert 'src="http' not in page and "<script" not in page
    assert "1.48" in page and "residual network" in page
    assert page.count("above 1: reached") == 2 and page.count("above 50: missed") == 1


def test_goals_are_judged_by_their_interval_for_the_cleanings_they_name(judged: dict) -> None:
    assert [(v["cleaning"], v["goal"], v["verdict"]) for v in judged["verdicts"]] == [
        ("none", 1.0, "reached"), ("none", 50.0, "missed"), (None, 1.0, "reached")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [(1.19, "reached"), (1.2, "undecided"), (1.5, "undecided"), (1.8, "undecided"), (1.81, "missed")],
)
def test_a_verdict_is_what_the_interval_says_and_not_the_value(goal: float, verdict: str) -> None:
    ratio = Interval(value=1.5, error=0.15, low=1.2, high=1.8)
    comparison = Comparison(ratio=ratio, difference=ratio, p_value=0.01, sigma=3.0)
    assert verdict_of(comparison, goal) == verdict
    assert verdict_of(None, goal) == "undecided"


def test_a_network_with_planes_is_judged_against_a_rival_that_sees_them_where_there_is_one() -> None:
    def row(method: str, treatment: str, quality: float) -> Row:
        resamples = quality + np.array([0, 0.01, -0.01])
        return Row(method, treatment, [], [], [], [np.array([True, False])], True, resamples, quality)

    rows = [
        row(method, treatment, quality)
        for method, treatment, quality in (
            ("talk-cnn", "none", 1.5), ("halo-trees", "none", 1.6), ("talk-cnn", "none+time", 2.0),
            ("talk-cnn", "none+partners", 2.4), ("halo-trees", "none+partners", 2.5),
        )
    ]  # fmt: skip
    verdicts = verdicts_on(rows, [Goal(over="halo-trees", cleaning="none")])
    assert [(v["cleaning"], v["rival"].rpartition(", ")[2], v["verdict"]) for v in verdicts] == [
        ("none", "none", "missed"), ("none+time", "none", "reached"), ("none+partners", "none+partners", "missed")
    ]  # fmt: skip


@pytest.fixture
def without_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimating energies takes most of the time and has no part in cuts and verdicts."""
    monkeypatch.setattr(study_evaluation, "_bins", lambda *_: [])


def two_optima(made: BlindSet, path: Path) -> Path:
    """Scores whose best cut is at 0.3 on the validation set and at 0.6 on the test set, by who knows the labels."""
    sealed = protocol.read_labels(made)
    validation = pq.read_table(made.files / "validation.parquet", columns=["id", "gamma"])
    tables = []
    for split, table, best in (("validation", validation, 0.3), ("test", sealed, 0.6)):
        gamma = table["gamma"].to_numpy(zero_copy_only=False).astype(bool)
        # Gammas above the best cut; hadrons below it, one in four far above, so that some are left whatever the cut.
        score = np.where(gamma, best + 0.05, np.where(np.cumsum(~gamma) % 4, best - 0.05, 0.95))
        n = len(gamma)
        columns = {"method": ["box"] * n, "treatment": ["none"] * n, "split": [split] * n, "score": score}
        tables.append(pa.table({**columns, "id": table["id"]}))
    pq.write_table(pa.concat_tables(tables), path)
    return path


@pytest.mark.usefixtures("home", "without_bins")
def test_cuts_are_those_of_the_validation_set_where_the_test_set_would_choose_others(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    # Showers of a secret draw may hold too many of the hadrons far above in one place for any cut to be allowed.
    made = blind.make(**inputs, folder=tmp_path / "blind", settings=BlindSettings(open=True, seed=3))
    protocol.submit(made.folder, two_optima(made, tmp_path / "scores.parquet"))
    protocol.unseal(made.folder)
    settings = SETTINGS.model_copy(update={"hadrons_min": 1})  # so small a set can't promise more
    (row,) = study_evaluation.evaluate(made.folder, tmp_path, settings)["rows"]
    (training,) = row["trainings"]
    assert 0.25 <= training["cut"] < 0.35  # the test set's would be 0.55 or more
    assert training["gamma_efficiency"] == 1.0
    assert row["price"]["best"] >= 0.55


@pytest.mark.usefixtures("home", "without_bins")
def test_a_rule_that_differs_from_the_frozen_one_is_said(inputs: dict[str, str], tmp_path: Path) -> None:
    made = blind.make(**inputs, folder=tmp_path / "blind")
    scores = scores_for(made, tmp_path / "scores.parquet")
    protocol.submit(made.folder, scores, rule=SETTINGS.rule())
    protocol.unseal(made.folder)
    as_frozen = study_evaluation.evaluate(made.folder, tmp_path, SETTINGS)
    assert as_frozen["blind"]["judged_as_frozen"] and as_frozen["blind"]["blind"]
    easier = SETTINGS.model_copy(update={"hadrons_min": 5})
    assert not study_evaluation.evaluate(made.folder, tmp_path, easier)["blind"]["judged_as_frozen"]


@pytest.mark.usefixtures("home", "without_bins")
def test_a_method_whose_cut_keeps_everything_is_said_to_cut_nothing(inputs: dict[str, str], tmp_path: Path) -> None:
    made = blind.make(**inputs, folder=tmp_path / "blind")
    table = pq.read_table(scores_for(made, tmp_path / "some.parquet"))
    cuts = np.array(table["method"].to_pylist()) == "box"
    # The box tells one hadron of the validation set, and one event of the test set, from all the rest.
    told = pq.read_table(made.files / "validation.parquet", columns=["id", "gamma"]).to_pylist()
    worst = {next(row["id"] for row in told if not row["gamma"]), table["id"][table.num_rows - 1].as_py()}
    flat = np.where(np.isin(table["id"].to_pylist(), list(worst)), 0.2, 0.5)
    score = pa.array(np.where(cuts, flat, table["score"].to_numpy()))
    pq.write_table(table.set_column(table.column_names.index("score"), "score", score), tmp_path / "scores.parquet")
    protocol.submit(made.folder, tmp_path / "scores.parquet")
    protocol.unseal(made.folder)
    result = study_evaluation.evaluate(made.folder, tmp_path, SETTINGS)
    said = {row["method"]: row["cuts_nothing"] for row in result["rows"]}
    assert said["box"] and not said["resnet"]
    (box,) = [row for row in result["rows"] if row["method"] == "box"]
    test = result["events"]["test"]
    assert box["hadrons_left"] + box["gamma_efficiency"]["value"] * test["gammas"] == pytest.approx(test["events"] - 1)
    assert "cuts nothing: Q is about 1" in render_table(result)
    assert all(verdict["rival_cuts_nothing"] for verdict in result["verdicts"])


def test_the_mean_of_methods_has_a_score_for_every_image_in_any_order_of_its_members(made: BlindSet) -> None:
    """The members' tables come in another order than the set; the mean of equal scores is these scores."""
    random = np.random.default_rng(4)
    tables, wanted = [], {}
    for split in ("validation", "test"):
        ids = pq.read_table(made.files / f"{split}.parquet", columns=["id"])["id"].to_pylist()
        values = random.random(len(ids))
        wanted |= dict(zip(ids, values, strict=True))
        for method in ("halo-net#1", "halo-trees#1"):
            order = random.permutation(len(ids))
            names = [ids[place] for place in order]
            tables.append(study._rows(method, "none", split, pa.array(names), values[order]))
    settings = StudySettings(models={"halo-net": {}}, means={"halo": ("halo-net", "halo-trees")}, seeds=1)
    settings.check()
    mean = pa.concat_tables(study._means(made, pa.concat_tables(tables), settings))
    assert set(mean["method"].to_pylist()) == {"halo#1"} and mean.num_rows == len(wanted)
    ranks = np.argsort(np.argsort([wanted[name] for name in mean["id"].to_pylist()]))
    assert np.corrcoef(ranks, np.argsort(np.argsort(mean["score"].to_numpy())))[0, 1] > 0.99


def test_a_mean_of_what_is_not_compared_is_refused() -> None:
    with pytest.raises(UsageError, match="is of 'halo-net', which is not compared"):
        StudySettings(means={"halo": ("halo-net", "halo-trees")}).check()


def test_the_impact_is_the_distance_of_the_telescope_from_the_axis() -> None:
    from apbatch.dl.blind.image_selection import _with_impact

    random = np.random.default_rng(2)
    zenith, azimuth, impact, turn = (
        *random.uniform([[20], [0]], [[40], [360]], (2, 20)),
        *random.uniform(0, 6, (2, 20)),
    )
    theta, phi = np.radians(zenith), np.radians(azimuth)
    axis = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
    one = np.stack([-np.sin(phi), np.cos(phi), 0 * phi])
    away = impact * (one * np.cos(turn) + np.cross(axis.T, one.T).T * np.sin(turn))
    core = away - axis * away[2] / axis[2]  # along the axis to the ground
    true = pa.table({"true_core_x": core[0], "true_core_y": core[1], "true_zenith": zenith, "true_azimuth": azimuth})
    assert _with_impact(true, "truth")["true_impact"].to_numpy() == pytest.approx(impact)
    assert _with_impact(true.drop_columns(["true_azimuth"]), "truth").column_names == [
        "true_core_x",
        "true_core_y",
        "true_zenith",
    ]


def test_the_halo_network_is_trained_on_uncleaned_images_only(tmp_path: Path) -> None:
    settings = StudySettings(models={"talk-cnn": {}, "halo-net": {}}, auxiliary={"halo-net": {"energy": 0.3}}, seeds=1)
    specs = dict(settings.trainings(tmp_path, tmp_path, {}))
    assert specs["talk-cnn#1"].treatments == ("none", "soft", "standard") and not specs["talk-cnn#1"].auxiliary
    assert specs["halo-net#1"].treatments == ("none",) and specs["halo-net#1"].auxiliary == {"energy": 0.3}
    with pytest.raises(UsageError, match="takes uncleaned images only"):
        StudySettings(models={"halo-net": {}}, cleanings=("soft",)).check()

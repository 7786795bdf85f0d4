"""What a method sees of an event: names of treatments, a brighter sky, arrival times and other telescopes."""

from __future__ import annotations

import json
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
from apbatch.dl.blind.image_selection import partners_of
from apbatch.dl.blind.production_manifest import night_sky_of
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.judging.halo_trees import with_partners
from apbatch.dl.judging.rivals import features_of
from apbatch.dl.networks import treatment as t
from apbatch.dl.networks.night_sky import under_brighter_sky
from apbatch.dl.networks.planes import time_plane
from apbatch.dl.study import evaluation, trainings
from apbatch.dl.study.report import write_report
from apbatch.dl.study.settings import Goal, JudgingSettings, StudySettings
from apbatch.dl.training.data import Turning, load, load_cleaned, load_partners, load_pixels
from apbatch.dl.training.shards import Shards
from apbatch.errors import UsageError
from tests.synthetic import showers

CAMERA = camera_named("TAIGA-IACT01")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return showers(tmp_path_factory.mktemp("showers"))


@pytest.fixture(scope="module")
def made(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    settings = BlindSettings(open=True, seed=3, times=True, partners=2, partner_min=10, partner_max=300)
    return blind.make(**inputs, folder=tmp_path_factory.mktemp("blind"), settings=settings)


@pytest.mark.parametrize("name", ["none", "soft", "none@2", "none@2.5:bilinear", "none+time+partners", "soft:nearest"])
def test_a_treatment_has_the_name_that_it_was_called_by(name: str) -> None:
    assert t.treatment_named(name).name == name
    assert t.is_plain(name) == (name in ("none", "soft"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none@", "is no number"),
        ("none@-1", "is no number"),
        ("none@nan", "is no number"),
        ("none+tim", "unknown plane"),
        ("soft+time", "no such planes"),
        ("none@2+time", "no such planes"),
        ("none+time+time", "no such planes"),
    ],
)
def test_a_treatment_that_nothing_makes_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        t.treatment_named(name)


def test_a_brighter_sky_adds_its_noise_and_no_light_and_leaves_what_was_not_measured() -> None:
    images = np.full((60, CAMERA.n_pixels), 3, np.float32)
    images[:, 7] = np.nan
    names = [f"image {number}" for number in range(len(images))]
    added = np.delete(under_brighter_sky(images, names, 4.0) - images, 7, axis=1)
    assert added.mean() == pytest.approx(0, abs=0.05)
    # A Poisson number of photo-electrons, each with a charge of relative width 0.45.
    assert added.var() == pytest.approx(4.0 * (1 + 0.45**2), rel=0.04)
    assert np.isnan(under_brighter_sky(images, names, 4.0)[:, 7]).all()
    assert under_brighter_sky(images, names, 0.0) is images


def test_the_light_of_the_sky_belongs_to_the_image_and_the_level_and_to_nothing_else() -> None:
    images = np.zeros((3, CAMERA.n_pixels), np.float32)
    whole = under_brighter_sky(images, ["a", "b", "c"], 2.0)
    assert np.array_equal(under_brighter_sky(images[:2], ["c", "a"], 2.0), whole[[2, 0]])
    other = under_brighter_sky(images, ["a", "b", "c"], 2.5)
    assert abs(np.corrcoef(whole.ravel(), other.ravel())[0, 1]) < 0.1
    assert abs(np.corrcoef(whole[0], whole[1])[0, 1]) < 0.2


def test_every_reader_of_a_set_puts_the_same_sky_over_its_images(made: BlindSet) -> None:
    dark = load_pixels(made.files, made.manifest, "train")
    bright = load_pixels(made.files, made.manifest, "train", 2.0)
    assert (bright - dark).var() == pytest.approx(2.0 * (1 + 0.45**2), rel=0.05)
    assert np.array_equal(from_grid(load(made.files, made.manifest, "train", "none@2").pixels, CAMERA), bright)
    shards = Shards(made.files, made.manifest, "none@2")
    assert np.array_equal(np.concatenate([shards.read(group) for group in range(len(shards.rows))]), bright)


def test_times_are_against_the_mean_of_the_clean_image_and_only_where_there_is_light() -> None:
    images = np.zeros((2, CAMERA.n_pixels), np.float32)
    near = CAMERA.neighbours[100][CAMERA.neighbours[100] >= 0][0]
    images[0, [100, near]] = 30, 10
    times = np.full_like(images, 77)
    times[0, [100, near]] = 40, 60
    plane = time_plane(images, times, CAMERA)
    assert plane[0, [100, near]] == pytest.approx([-0.5, 1.5])  # the mean is 45 ns; tens of ns
    assert np.count_nonzero(plane) == 2
    assert time_plane(images, times + 1000, CAMERA) == pytest.approx(plane, abs=1e-4)


def test_partners_are_the_nearest_telescopes_of_the_same_shower() -> None:
    random = np.random.default_rng(3)
    shower, x, y = random.integers(12, size=80), *random.uniform(-200, 200, (2, 80))
    partners = partners_of(shower, x, y, 2, 50, 200)
    for image in range(80):
        away = {
            other: np.hypot(x[image] - x[other], y[image] - y[other])
            for other in range(80)
            if other != image and shower[other] == shower[image]
        }
        wanted = sorted((other for other in away if 50 <= away[other] <= 200), key=lambda other: away[other])[:2]
        assert [other for other in partners[image] if other >= 0] == wanted


def test_a_set_holds_times_and_partners_and_a_network_sees_them_telescope_by_telescope(made: BlindSet) -> None:
    names = pq.read_schema(made.files / "test.parquet").names
    assert {"time", "partner_1", "partner_1_time", "partner_2", "partner_2_time"} <= set(names)
    values = load_cleaned(made.files, made.manifest, "test", "none+time+partners")
    assert values.shape[1:] == (6, CAMERA.n_pixels)
    assert np.array_equal(values[:, 0], load_pixels(made.files, made.manifest, "test"))
    # Times of the toys run along the image, so they differ from pixel to pixel; a missing partner is dark.
    missing = (values[:, 4] == 0).all(axis=1)
    assert 0 < missing.sum() < len(values) and (values[missing, 5] == 0).all()
    grids = load(made.files, made.manifest, "test", "none+partners").pixels
    assert grids.shape[3] == 3
    for plane, row in ((1, 2), (2, 4)):
        assert np.array_equal(from_grid(np.ascontiguousarray(grids[..., plane]), CAMERA), values[:, row])


def test_all_planes_of_an_event_are_turned_alike(made: BlindSet) -> None:
    turning = Turning.of(made.manifest, "none+partners", True)
    values = load_cleaned(made.files, made.manifest, "test", "none+partners")[:20]
    which = np.arange(20) % len(turning.tables)
    together = turning(values, which)
    for plane in range(3):
        assert np.array_equal(together[..., plane], turning(values[:, plane], which))


def test_a_set_without_times_or_partners_says_so_before_anything_is_trained(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    plain = blind.make(**inputs, folder=tmp_path / "blind", settings=BlindSettings(open=True, seed=3))
    for name in ("time", "partners"):
        with pytest.raises(UsageError, match=f"the set holds no {name}"):
            load(plain.files, plain.manifest, "test", f"none+{name}")
    settings = StudySettings(models={"talk-cnn": {}}, planes=("partners",), plane_model="talk-cnn", seeds=1)
    with pytest.raises(UsageError, match="the set holds no partners"):
        list(trainings._by_parameters(plain, tmp_path / "parameters", settings))
    assert not list((tmp_path / "parameters").glob("*partners*"))
    with pytest.raises(UsageError, match="images from memory"):
        Shards(plain.files, plain.manifest, "none+time")


def test_who_scores_images_alone_refuses_a_treatment_with_planes() -> None:
    t.check_images_alone(t.treatment_named("none@2"), "a network")
    with pytest.raises(UsageError, match="want more than images: time, partners"):
        t.check_images_alone(t.treatment_named("none+partners+time"), "a network")


def test_the_sky_of_a_production_is_read_from_its_manifest(tmp_path: Path) -> None:
    assert night_sky_of(f"file://{tmp_path}/truth") is None
    detector = {"night_sky": 0.035, "integration_window": 100.0}
    (tmp_path / "production.json").write_text(json.dumps({"parameters": {"detector": detector}}))
    assert night_sky_of(f"file://{tmp_path}/truth") == pytest.approx(3.5)


def test_a_study_trains_every_network_at_each_sky_and_one_with_further_planes(tmp_path: Path) -> None:
    settings = StudySettings(
        models={"talk-cnn": {}, "halo-net": {}}, skies=("2 pe", 5), planes=("time", "partners"), seeds=1,
        means={"halo": ("halo-net", "halo-trees")},
    )  # fmt: skip
    settings.check()
    specs = dict(settings.trainings(tmp_path, tmp_path, {}))
    assert specs["talk-cnn#1"].treatments == ("none", "soft", "standard", "none@2", "none@5")
    assert specs["halo-net#1"].treatments == ("none", "none@2", "none@5", "none+time", "none+partners")
    for wrong in ({"skies": (-1,)}, {"planes": ("tim",)}, {"planes": ("time",), "plane_model": "resnet"},
                  {"skies": (1,), "cleanings": ("soft",)}):  # fmt: skip
        with pytest.raises(UsageError):
            StudySettings(**{"models": {"talk-cnn": {}}, "plane_model": "talk-cnn", **wrong}).check()  # type: ignore[arg-type]


def test_the_report_shows_rivals_at_each_sky_against_each_other(made: BlindSet, tmp_path: Path) -> None:
    """Trees are fitted and scored at both levels; scores of a network stand for one that was trained at each."""
    study = StudySettings(models={"talk-cnn": {}}, cleanings=("none",), skies=(6.0,), rivals=("trees",), seeds=1)
    rows = pa.concat_tables(trainings._by_parameters(made, tmp_path / "parameters", study))
    assert set(zip(rows["method"].to_pylist(), rows["treatment"].to_pylist(), strict=True)) == {
        (method, treatment) for method in ("box", "trees#1") for treatment in ("none", "none@6")
    }
    tables, blurs = [rows], {"none": 0.1, "none@6": 0.6, "none+time": 0.05}
    for split in ("validation", "test"):
        table = pq.read_table(made.files / f"{split}.parquet", columns=["id", "width_cleaned"])
        for treatment, blur in blurs.items():
            noise = np.random.default_rng(int(100 * blur)).normal(0, blur, table.num_rows)
            score = 1 / (1 + np.exp(4 * (table["width_cleaned"].to_numpy() / CAMERA.pitch - 1.2 + noise)))
            tables.append(trainings._rows("talk-cnn#1", treatment, split, table["id"].combine_chunks(), score))
    pq.write_table(pa.concat_tables(tables), tmp_path / "scores.parquet")
    judging = JudgingSettings(hadrons_min=5, resamples=100, bins=1, goals=(Goal(over="trees", cleaning="none"),))
    protocol.submit(made.folder, tmp_path / "scores.parquet", rule=judging.rule())
    protocol.unseal(made.folder)
    result = evaluation.evaluate(made.folder, tmp_path, judging)
    of = {(row["method"], row["treatment"]): row for row in result["rows"]}
    assert of["trees", "none@6"]["auc"] < of["trees", "none"]["auc"]
    against = {name: of["talk-cnn", name]["against"]["trees"]["ratio"]["value"] for name in blurs}
    for name, images in (("none", "none"), ("none@6", "none@6"), ("none+time", "none")):
        expected = of["talk-cnn", name]["quality"]["value"] / of["trees", images]["quality"]["value"]
        assert against[name] == pytest.approx(expected, rel=0.2)
    assert [verdict["cleaning"] for verdict in result["verdicts"]] == ["none", "none@6", "none+time"]
    assert result["verdicts"][2]["network"].endswith(", none+time") and result["verdicts"][2]["rival"].endswith(
        ", none"
    )
    page = write_report({**result, "night_sky": 3.5}, {}, tmp_path).read_text()
    assert "The sky's level" in page and "<th>3.5 p.e.</th><th>9.5 p.e.</th>" in page
    assert "Arrival times and other telescopes" in page and "<td>none+time</td>" in page
    assert "without cleaning, sky brighter by 6 p.e." in page and "without cleaning, with time" in page


def test_halo_trees_see_partners_and_means_take_what_each_member_sees(made: BlindSet, tmp_path: Path) -> None:
    """No trees see times. A member of a mean that does not see the partners is that of the images alone."""
    settings = StudySettings(
        models={"talk-cnn": {}, "halo-net": {}}, cleanings=("none",), planes=("time", "partners"), seeds=1,
        plane_model="talk-cnn", rivals=("trees", "halo-trees"),
        means={"ensemble": ("talk-cnn", "halo-net", "halo-trees")},
    )  # fmt: skip
    tables = list(trainings._by_parameters(made, tmp_path / "parameters", settings))
    of = {(table["method"][0].as_py(), table["treatment"][0].as_py()): table for table in tables}
    assert set(of) == {(m, "none") for m in ("box", "trees#1", "halo-trees#1")} | {("halo-trees#1", "none+partners")}
    own = t.parameters(load_pixels(made.files, made.manifest, "test"), CAMERA, "none")
    each = [t.parameters(images, CAMERA, "none") for images in load_partners(made.files, made.manifest, "test")]
    seen = features_of("halo-trees", with_partners(own, each))
    alone = [features_of("halo-trees", columns) for columns in (own, *each)]
    assert len(each) == 2 and np.array_equal(seen, np.column_stack(alone), equal_nan=True)
    random = np.random.default_rng(5)
    for split in ("validation", "test"):
        table = pq.read_table(made.files / f"{split}.parquet", columns=["id"])
        for method, treatment in (
            ("talk-cnn#1", "none"), ("talk-cnn#1", "none+time"), ("talk-cnn#1", "none+partners"),
            ("halo-net#1", "none"),
        ):  # fmt: skip
            score = random.uniform(0.1, 0.9, table.num_rows)
            tables.append(trainings._rows(method, treatment, split, table["id"].combine_chunks(), score))
    said: list[str] = []
    taken = trainings.scores_of

    def scores_of(table: pa.Table, method: str, treatment: str, split: str, ids: pa.Array) -> np.ndarray:
        said.append(f"{method} {treatment}")
        return taken(table, method, treatment, split, ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainings, "scores_of", scores_of)
        means = pa.concat_tables(trainings._means(made, pa.concat_tables(tables), settings))
    assert list(dict.fromkeys(means["treatment"].to_pylist())) == ["none", "none+time", "none+partners"]
    assert said[6:9] == ["talk-cnn#1 none+time", "halo-net#1 none", "halo-trees#1 none"]
    assert said[12:15] == ["talk-cnn#1 none+partners", "halo-net#1 none", "halo-trees#1 none+partners"]

"""The bulk steps on a real Spark, on the sample, with damaged files among them, and on a real run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from apbatch.camera.cleaning import Cleaning
from apbatch.camera.cleaning_words import cleaning_of
from apbatch.camera.extras import EXTRAS, extras
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.pointing import separation
from apbatch.config import SparkSettings
from apbatch.datasets import dataset
from apbatch.errors import FormatError, NotFoundError, UsageError
from apbatch.formats.images import IMAGE_KEY, camera_of, from_binary
from apbatch.formats.reader import readers
from apbatch.index.backends import open_catalogue
from apbatch.index.events.backends import open_events
from apbatch.quality.monitor import BadPixels
from apbatch.sample.site import read_contents
from apbatch.sample.taiga_mc import IMAGES
from apbatch.sample.taiga_raw import DEAD_PIXELS, EVENTS, FACTORS
from apbatch.spark import frames, pipeline
from apbatch.spark.compact import compact, content_digest
from apbatch.spark.connect.session import session
from apbatch.spark.inputs.selection import parse_select, selected_sources
from apbatch.spark.inputs.sources import RawOptions, Source, sources_at
from apbatch.spark.quality import check_quality, image_sources
from apbatch.spark.registration import register_events
from apbatch.spark.saving import save
from apbatch.spark.stereo import stereo
from tests.synthetic import write_dataset
from tests.waits import PATIENCE_S

pytestmark = pytest.mark.spark

ROOT = Path(__file__).resolve().parents[2]
CAMERA = "TAIGA-IACT01-2017"
#: One of them has dead pixels.
SMALL = ("BSM04", "BSM06", "BSM12")


@pytest.fixture(scope="module")
def spark() -> Iterator[object]:
    found = session(SparkSettings(master="local[2]", conf={"spark.default.parallelism": "2"}), "tests")
    yield found
    found.stop()


def raw(paths: list[Path], factors: Path) -> list[Source]:
    calibration = {"factors": str(factors)}
    return [Source(f"file://{path}", "taiga-raw", "TAIGA", 20171028, None, CAMERA, calibration) for path in paths]


@pytest.fixture
def small(sample: Path) -> list[Path]:
    """Files of three clusters, one a cluster."""
    return [next((sample / "taiga_raw" / folder).glob("*.001")) for folder in SMALL]


@pytest.fixture
def factors(sample: Path) -> Path:
    return sample / "taiga_raw" / FACTORS


@pytest.fixture(scope="module")
def count(sample: Path) -> int:
    """Number of images of the sample's Monte Carlo."""
    (listed,) = (content for content in read_contents(sample)[1] if content.path == f"taiga_mc/{IMAGES}")
    return listed.events


@pytest.fixture(scope="module")
def everything(spark, data, tmp_path_factory) -> tuple[str, pipeline.StepSummary]:
    """Images of the whole run of 20 clusters."""
    url = f"file://{tmp_path_factory.mktemp('run')}/images"
    files = sorted((data / "taiga_raw").glob("BSM*/*"))
    factors = data / "taiga_raw" / "FACTORS_300917.txt"
    summary = pipeline.clean(spark, raw(files, factors), url, Cleaning("tailcuts", 14, 7))
    return url, summary


def test_the_real_run_gives_its_events_with_two_and_three_clusters(everything):
    url, summary = everything
    table = dataset.read_table(url, ["event", "image"])
    assert summary.images == table.num_rows == 170_638
    assert summary.losses == {}
    present = np.isfinite(from_binary(table["image"]))
    cluster = camera_named(CAMERA).cluster
    count = sum(present[:, cluster == one].any(axis=1).astype(int) for one in np.unique(cluster))
    assert (count >= 2).sum() == 255
    assert (count >= 3).sum() == 30
    assert len(np.unique(table["event"].to_numpy())) == table.num_rows


def test_damaged_files_are_counted_and_the_rest_goes_on(spark, small, factors, tmp_path):
    good = small
    whole = pipeline.clean(spark, raw(good, factors), f"file://{tmp_path}/good", Cleaning("tailcuts", 14, 7))
    odd = tmp_path / "wie räre [1]"
    odd.mkdir()
    cut = odd / good[0].name
    content = good[0].read_bytes()
    cut.write_bytes(content[: 156 * 20] + b"rubbish" + content[156 * 20 : 156 * 40] + b"\x00" * 20)
    nothing = odd / "28107022.001"
    nothing.write_bytes(b"")
    gone = odd / "28107023.001"
    summary = pipeline.clean(
        spark, raw([*good[1:], cut, nothing, gone], factors), f"file://{tmp_path}/bad", Cleaning("tailcuts", 14, 7)
    )
    assert summary.losses["unreadable files"] == 2
    assert summary.losses["damaged places in files"] == 2
    # The other clusters have all events; 40 records of the damaged one are left.
    assert summary.images == whole.images == EVENTS[0]
    assert any("28107022.001: no whole record" in problem for problem in summary.problems)
    images = dataset.read_table(f"file://{tmp_path}/bad", ["image"])["image"]
    measured = np.isfinite(from_binary(images)[:, camera_named(CAMERA).cluster == 4]).any(axis=1)
    assert len(images) == summary.images and measured.sum() == 40


@pytest.fixture(scope="module")
def monte_carlo(spark, sample, tmp_path_factory) -> str:
    """Datasets of the sample's Monte Carlo images, at URL/images, URL/parameters and URL/grids."""
    url = f"file://{tmp_path_factory.mktemp('mc')}"
    sources = sources_at([f"file://{sample}/taiga_mc"])
    assert [source.camera for source in sources] == ["TAIGA-IACT01"]
    pipeline.clean(spark, sources, f"{url}/images", Cleaning("tailcuts", 14, 7))
    pipeline.parameters(spark, f"{url}/images", f"{url}/parameters")
    pipeline.grid(spark, f"{url}/images", f"{url}/grids")
    return url


def test_monte_carlo_images_get_parameters_and_grids(monte_carlo, count):
    info = dataset.info(f"{monte_carlo}/grids")
    assert (info["camera"], info["cleaning"], info["images"]) == ("TAIGA-IACT01", "tailcuts-14-7", count)
    rows, cols = info["grid_shape"]
    grids = dataset.read_table(f"{monte_carlo}/grids")
    assert from_binary(grids["grid"]).shape == (count, rows * cols)
    parameters = dataset.read_table(f"{monte_carlo}/parameters")
    assert parameters.num_rows == 2 * count
    sums = np.asarray(from_binary(grids["grid"]), np.float64).sum(axis=1)
    none = parameters.filter([name == "none" for name in parameters["cleaning"].to_pylist()])
    np.testing.assert_allclose(np.sort(sums), np.sort(none["size"].to_numpy()), rtol=1e-5)


def test_image_parameters_become_events_once(monte_carlo, count, tmp_path):
    with open_events(f"file://{tmp_path}/events") as events:
        for _ in range(2):
            assert register_events(events, f"{monte_carlo}/parameters") == 2 * count
        rows = sum(batch.num_rows for batch in events.select())
    keys = dataset.read_table(f"{monte_carlo}/parameters", ["experiment", "run", "event", "telescope", "cleaning"])
    assert rows == len(set(zip(*(column.to_pylist() for column in keys.columns), strict=True)))


def test_events_picked_by_their_image_parameters_are_cleaned_again_and_no_others(spark, monte_carlo, tmp_path):
    catalogue = open_catalogue(f"sqlite:///{tmp_path}/catalogue.sqlite")
    with catalogue, open_events(f"file://{tmp_path}/events") as events:
        register_events(events, f"{monte_carlo}/parameters")
        text = "experiment = 'TAIGA-MC' and cleaning = 'tailcuts-14-7' and size > 1500 pe and width < 0.4 deg"
        selection = parse_select(catalogue, events, text)
        rows = [row for batch in events.select(selection.query) for row in batch.to_pylist()]
        sources = selected_sources(catalogue, events, selection)
    assert 10 < len(rows) < 1000
    summary = pipeline.clean(spark, sources, f"file://{tmp_path}/picked", Cleaning("tailcuts", 10, 5))
    assert summary.images == len(rows) and summary.losses == {}
    columns = ["run", "event", "image", "time_ns"]
    got = dataset.read_table(f"file://{tmp_path}/picked", columns).to_pylist()
    wanted = {(row["run"], row["event"]) for row in rows}
    every = dataset.read_table(f"{monte_carlo}/images", columns).to_pylist()
    assert sorted(got, key=str) == sorted((row for row in every if (row["run"], row["event"]) in wanted), key=str)


def test_selected_events_are_skimmed_with_their_masks_parameters_and_grids(spark, monte_carlo, tmp_path):
    catalogue = open_catalogue(f"sqlite:///{tmp_path}/catalogue.sqlite")
    with catalogue, open_events(f"file://{tmp_path}/events") as events:
        register_events(events, f"{monte_carlo}/parameters")
        text = "experiment = 'TAIGA-MC' and cleaning = 'tailcuts-14-7' and size > 3000 pe"
        rows = [
            row for batch in events.select(parse_select(catalogue, events, text).query) for row in batch.to_pylist()
        ]
        outputs = {role: f"file://{tmp_path}/{role}" for role in ("images", "parameters", "grids")}
        summary = pipeline.skim(
            spark, selected_sources(catalogue, events, parse_select(catalogue, events, text)), outputs
        )
    assert summary.images == len(rows) > 10
    columns = ["run", "event", "image", "mask"]
    got = dataset.read_table(outputs["images"], columns).to_pylist()
    wanted = {(row["run"], row["event"]) for row in rows}
    every = dataset.read_table(f"{monte_carlo}/images", columns).to_pylist()
    assert sorted(got, key=str) == sorted((row for row in every if (row["run"], row["event"]) in wanted), key=str)
    again = dataset.read_table(outputs["parameters"]).to_pylist()
    sizes = sorted(row["size"] for row in again if row["cleaning"] == "tailcuts-14-7")
    assert sizes == sorted(row["size"] for row in rows)
    assert dataset.info(outputs["grids"])["images"] == len(rows)


def test_part_files_are_compacted_in_place(spark, monte_carlo, tmp_path):
    url, info = f"file://{tmp_path}/images", dataset.info(f"{monte_carlo}/images")
    table = dataset.read_table(f"{monte_carlo}/images")
    write_dataset(tmp_path / "images", table, {name: info[name] for name in ("kind", "camera", "cleaning")}, parts=40)
    before = content_digest(url)
    summary = compact(spark, url, target_bytes=1 << 20)
    names = dataset.part_files(url)
    assert summary.images == table.num_rows and summary.tasks == len(names) < 8
    assert content_digest(url) == before
    assert {path.name for path in (tmp_path / "images").glob("*.parquet")} == set(names)
    assert dataset.info(url)["cleaning"] == "tailcuts-14-7" and dataset.info(url)["compacted"]["part_files"][0] == 40
    compact(spark, url, target_bytes=1 << 20)  # large files shrink: once more may make fewer
    assert compact(spark, url, target_bytes=1 << 20).tasks == 0 and content_digest(url) == before


def test_a_new_run_replaces_a_failed_one_does_not_and_a_killed_one_left_no_dataset(spark, small, factors, tmp_path):
    url = f"file://{tmp_path}/images"
    left = tmp_path / "images"
    (left / "_temporary").mkdir(parents=True)
    (left / "part-0.parquet").write_bytes(b"half")
    (left / ".apbatch-12345678-000000-aa.parquet").write_bytes(b"half")
    assert not dataset.is_complete(url)
    for picture in (14, 10):
        pipeline.clean(spark, raw(small[:1], factors), url, Cleaning("tailcuts", picture, 7))
        assert dataset.info(url)["cleaning"] == f"tailcuts-{picture}-7"
        there = {path.name for path in left.iterdir()}
        assert there == {"_SUCCESS", "_apbatch.json", *dataset.part_files(url)}
    before = dataset.info(url)
    empty = tmp_path / "28107001.001"
    empty.write_bytes(b"")
    with pytest.raises(FormatError, match="not one image"):
        pipeline.clean(spark, raw([empty], factors), url, Cleaning("tailcuts", 14, 7))
    assert dataset.info(url) == before
    assert dataset.read_table(url).num_rows == before["images"]
    assert {path.name for path in left.iterdir()} == there


def test_one_pass_gives_the_datasets_of_three_steps(spark, sample, monte_carlo, count, tmp_path):
    sources = sources_at([f"file://{sample}/taiga_mc"])
    outputs = {role: f"file://{tmp_path}/{role}" for role in ("images", "parameters", "grids")}
    summary = pipeline.images(spark, sources, outputs, Cleaning("tailcuts", 14, 7))
    assert (summary.images, summary.resumed, summary.retries) == (count, 0, 0)
    assert summary.bytes_written == sum(path.stat().st_size for path in tmp_path.glob("*/*.parquet"))
    assert summary.bytes_read == sum(
        path.stat().st_size for path in (sample / "taiga_mc").iterdir() if "clean" in path.name
    )
    for role, url in outputs.items():
        assert dataset.read_table(url).equals(dataset.read_table(f"{monte_carlo}/{role}")), role
        known = {
            key: value for key, value in dataset.info(url).items() if key in ("kind", "camera", "cleaning", "images")
        }
        assert known.items() <= dataset.info(f"{monte_carlo}/{role}").items()


def test_dataframe_steps_give_the_rows_and_datasets_of_the_bulk_path(spark, sample, monte_carlo, count, tmp_path):
    losses = frames.LossCounter(spark)
    camera = camera_named("TAIGA-IACT01")
    images = frames.clean(
        frames.read_images(spark, sources_at([f"file://{sample}/taiga_mc"]), losses),
        camera,
        Cleaning("tailcuts", 14, 7),
    )
    order = [(name, "ascending") for name in (*IMAGE_KEY, "cleaning")]
    made = frames.parametrise(images, camera, "tailcuts-14-7", losses).toArrow().sort_by(order)
    wanted = dataset.read_table(f"{monte_carlo}/parameters").sort_by(order)
    # Numbers of simulated events repeat between files: rows of equal keys come in any order.
    for name in wanted.column_names:
        assert sorted(map(str, made[name].to_pylist())) == sorted(map(str, wanted[name].to_pylist())), name
    url, origin = f"file://{tmp_path}/grids", dataset.info(f"{monte_carlo}/grids")["images_url"]
    summary = save(frames.grid(images, camera), url, camera, "tailcuts-14-7", images_url=origin, losses=losses)
    assert (summary.images, summary.losses, losses.result()) == (count, {}, ({}, []))
    grids, theirs = dataset.read_table(url), dataset.read_table(f"{monte_carlo}/grids")
    assert grids.schema.equals(theirs.schema, check_metadata=True)
    for name in ("grid", "grid_cleaned"):
        assert sorted(grids[name].to_pylist()) == sorted(theirs[name].to_pylist()), name
    both = dataset.info(url), dataset.info(f"{monte_carlo}/grids")
    assert {**both[1], **{key: both[0][key] for key in ("files", "generation", "losses", "provenance")}} == both[0]
    assert {path.name for path in (tmp_path / "grids").iterdir()} == {
        "_SUCCESS",
        "_apbatch.json",
        *dataset.part_files(url),
    }
    # Rows that Spark has chosen come from the JVM; they take the place of the dataset in one move.
    large = frames.parametrise(images, camera, "tailcuts-14-7").where("size > 500 and cleaning <> 'none'")
    assert (
        save(large, url, camera, "tailcuts-14-7").images
        == dataset.count_rows(url)
        == pc.sum(pc.and_(pc.greater(wanted["size"], 500), pc.not_equal(wanted["cleaning"], "none"))).as_py()
    )
    assert dataset.info(url)["kind"] == "parameters"
    with pytest.raises(UsageError, match="needs the columns run"):
        save(images.drop("run"), url, camera, "tailcuts-14-7")
    with pytest.raises(UsageError, match="neither cleaned images nor parameters"):
        save(images.select("event"), url, camera, "tailcuts-14-7")
    with pytest.raises(FormatError, match="not one row"):
        save(large.where("size < 0"), url, camera, "tailcuts-14-7")
    assert dataset.info(url)["kind"] == "parameters"


def test_senseless_calls_are_refused_before_spark_works(spark, small, factors, tmp_path):
    url = f"file://{tmp_path}/images"
    with pytest.raises(UsageError, match="no input files"):
        pipeline.clean(spark, [], url, Cleaning("tailcuts", 14, 7))
    with pytest.raises(UsageError, match="no two levels"):
        pipeline.clean(spark, raw(small, factors), url, Cleaning("tailcuts", 7, 14))
    with pytest.raises(NotFoundError):
        pipeline.parameters(spark, url, f"{url}-parameters")


def test_other_cleanings_extras_and_mended_pixels_are_options_of_the_pass(spark, small, factors, tmp_path):
    outputs = {role: f"file://{tmp_path}/{role}" for role in ("images", "parameters")}
    rule = cleaning_of(picture="5 sigma", boundary="3 sigma", largest_island=True)
    sources, mend = raw(small, factors), BadPixels("mend")
    summary = pipeline.images(spark, sources, outputs, rule, bad_pixels=mend, more=("extras",))
    images = dataset.read_table(outputs["images"], ["image", "mask"])
    known = dataset.info(outputs["images"])
    (run,) = known["pixels_of_runs"]
    assert (
        len(run["dead"]) == DEAD_PIXELS and known["cleaning"] == rule.name == "sigma-5-3-largest"
    )  # as the quality page says
    assert known["pixels"] == summary.pixels and summary.pixels["mended"] > EVENTS[0]
    noise = from_binary(images["image"])
    light = noise[:, run["dead"]]
    # What neighbours have, where nothing was but the noise of electronics; showers are too few for the median.
    assert np.nanmedian(np.abs(light)) > 0.2 * np.nanmedian(np.abs(noise))
    rows = dataset.read_table(outputs["parameters"])
    camera = camera_named(CAMERA)
    mask = from_binary(images["mask"], "u1").astype(bool)
    wanted = extras(np.asarray(noise, np.float32), camera, mask)
    kept = rows.filter(pc.equal(rows["cleaning"], rule.name))
    for name in EXTRAS:
        np.testing.assert_array_equal(np.sort(kept[name].to_numpy()), np.sort(wanted[name]), err_msg=name)
    assert dataset.info(outputs["parameters"])["units"]["time_slope"] == "ns/deg"
    with pytest.raises(UsageError, match="needs the times of pixels"):
        pipeline.clean(spark, raw(small, factors), outputs["images"], cleaning_of(time_limit="2 ns"))
    assert dataset.info(outputs["images"]) == known  # refused before anything was touched


def test_parameters_of_another_cleaning_are_those_of_images_cleaned_so(spark, sample, monte_carlo, count, tmp_path):
    sources = sources_at([f"file://{sample}/taiga_mc"])
    outputs = {role: f"file://{tmp_path}/{role}" for role in ("images", "parameters", "grids")}
    pipeline.images(spark, sources, outputs, cleaning_of("soft"))
    for role, url in (("parameters", f"file://{tmp_path}/again"), ("grids", f"file://{tmp_path}/gridded")):
        pipeline.derived(spark, f"{monte_carlo}/images", {role: url}, cleaning=cleaning_of("soft"))
        assert dataset.info(url)["cleaning"] == "tailcuts-7-3.5"
        assert dataset.read_table(url).equals(dataset.read_table(outputs[role])), role


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java")
def test_the_entry_points_run_under_spark_submit(sample, count, tmp_path):
    submit = Path(sys.executable).with_name("spark-submit")
    environment = {**os.environ, "APBATCH_HOME": str(tmp_path / "home"), "PYSPARK_PYTHON": sys.executable}
    url = f"file://{tmp_path}/images"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(submit), "--master", "local[1]", *arguments]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)

    mc = str(sample / "taiga_mc" / IMAGES)
    done = run("jobs/clean.py", "--input", f"file://{mc}", "--output", url, "--picture", "14 pe", "--boundary", "7 pe")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["images"] == count
    wrong = run("jobs/grid.py", "--input", f"{url}-none", "--output", f"{url}-grid")
    assert wrong.returncode == 2
    said = wrong.stdout + wrong.stderr  # spark-submit sends a program's messages to the output
    assert "apbatch: " in said and "there is no such dataset" in said and "Traceback" not in said


def test_the_quality_of_runs_is_looked_at_in_parallel(spark, small, factors, monte_carlo, count, tmp_path):
    odd = tmp_path / "28107022.001"
    odd.write_bytes(b"\0" * 1000)
    (run,), summary = check_quality(spark, raw([*small, odd], factors), f"file://{tmp_path}/raw")
    assert run["records"] == 3 * EVENTS[0] and run["files"] == 3
    assert summary.bytes_read == sum(path.stat().st_size for path in [*small, odd]) and summary.images_a_second > 0
    assert summary.losses["unreadable files"] == 1
    assert any("28107022.001" in problem for problem in run["problems"])
    assert run["clusters"]["12"]["pixels"]["dead"] == DEAD_PIXELS
    runs, _ = check_quality(spark, image_sources(f"{monte_carlo}/images"), f"file://{tmp_path}/images")
    assert sum(run["events"] for run in runs) <= count and runs[0]["unit"] == "p.e."
    assert (tmp_path / "images" / "report.html").stat().st_size > 10_000


def test_telescopes_of_several_cameras_see_one_shower(spark, data, tmp_path):
    path = data / "simtel" / "history_meta_75.simtel.zst"
    reader = readers()["simtel"]
    with path.open("rb") as stream:
        cameras = Counter(name for batch in reader.images(stream, str(path)) for name in [camera_of(batch.schema)])
    with path.open("rb") as stream:
        truth = next(reader.truth(stream, str(path))).to_pylist()[0]
    assert len(cameras) > 1
    found = []
    for camera in cameras:  # one file, a dataset for each camera
        outputs = {role: f"file://{tmp_path}/{camera}/{role}" for role in ("images", "parameters")}
        sources = sources_at([f"file://{path}"], RawOptions(camera))
        pipeline.images(spark, sources, outputs, Cleaning("tailcuts", 15, 7.5, 1))
        found.append(outputs["parameters"])
    away = {}
    for axes in ("vertical", "horizontal"):
        summary = stereo(spark, found, f"file://{tmp_path}/{axes}", size_min=50, axes=axes)
        (shower,) = dataset.read_table(f"file://{tmp_path}/{axes}").to_pylist()
        assert (summary.images, shower["event"], shower["reason"]) == (1, truth["event"], "found")
        assert shower["n_images"] > 10
        direction = 90 - truth["true_zenith"], truth["true_azimuth"]
        away[axes] = separation(shower["altitude"], shower["azimuth"], *direction)
    assert away["vertical"] < 0.2 < 3 * away["vertical"] < away["horizontal"]

"""Bad pixels and noise of runs, without Spark: found in a first pass, and used before images are cleaned."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from apbatch.camera.calibration import photo_electrons
from apbatch.camera.cleaning import Cleaning
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.medians import PedestalCounter
from apbatch.chain import steps
from apbatch.chain.pixel_states import MENDED, MISSING, NO_NOISE, NO_TIMES, PixelState, Preparation, RunKey, Tally
from apbatch.chain.recipe import Recipe
from apbatch.errors import UsageError
from apbatch.formats.images import from_binary, to_binary
from apbatch.quality.monitor import HIT_SIGMA, MAD, MEND, BadPixels, Status
from apbatch.spark import pixel_watch
from apbatch.spark.inputs.plan import check_sources
from apbatch.spark.inputs.sources import Source
from apbatch.spark.inputs.splits import Split
from apbatch.spark.inputs.surveys import Survey

CAMERA = camera_named("TAIGA-IACT01")
RUN = ("X", 1, 1)


def batch(images: np.ndarray, runs: list[int] | None = None, times: list[bytes | None] | None = None) -> pa.RecordBatch:
    count = len(images)
    columns = {
        "experiment": pa.array(["X"] * count), "run": pa.array(runs or [1] * count), "event": pa.array(range(count)),
        "telescope": pa.array([1] * count), "time_ns": pa.array([0] * count), "image": to_binary(images),
        "peak_time": pa.array(times or [None] * count, pa.binary()),
    }  # fmt: skip
    return steps.conform(columns, count, steps.IMAGES)


def noisy(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (count, CAMERA.n_pixels)).astype(np.float32)


def state(**pixels: int) -> PixelState:
    status = np.full(CAMERA.n_pixels, Status.GOOD.value, "<U8")
    for kind, pixel in pixels.items():
        status[pixel] = kind
    return PixelState(np.full(CAMERA.n_pixels, 2.0), status)


def test_dead_pixels_are_mended_in_their_run_and_counted():
    images = noisy(4)
    runs, tally = [1, 1, 2, 1], Tally()
    preparation = Preparation(BadPixels(MEND), {RUN: state(dead=100, noisy=200)})
    made = from_binary(preparation(batch(images, runs), CAMERA, tally).column("image"))
    wanted = images.copy()
    neighbours = CAMERA.neighbours[100][CAMERA.neighbours[100] >= 0]
    wanted[[0, 1, 3], 100] = images[[0, 1, 3]][:, neighbours].astype(float).mean(axis=1)
    np.testing.assert_allclose(made, wanted, rtol=1e-6)
    assert dict(tally.pixels) == {MENDED: 3, MISSING: 0}


def test_a_missing_cluster_is_not_made_up_from_its_neighbours():
    cluster = CAMERA.cluster[100]
    images = noisy(2)
    images[1, CAMERA.cluster == cluster] = np.nan
    tally = Tally()
    for treatment in ("mend", "mark"):
        preparation = Preparation(BadPixels(treatment), {RUN: state(dead=100)})
        made = from_binary(preparation(batch(images), CAMERA, tally).column("image"))
        assert np.isnan(made[1, CAMERA.cluster == cluster]).all()
        assert np.isnan(made[0, 100]) == (treatment == "mark")
    assert dict(tally.pixels) == {MENDED: 1, MISSING: 1}


def test_images_without_what_the_cleaning_needs_are_losses():
    images = noisy(3)
    time = images[0].tobytes()
    tally = Tally()
    preparation = Preparation(states={RUN: state()}, with_times=True, with_noise=True)
    made = preparation(batch(images, [1, 1, 2], [time, None, time]), CAMERA, tally)
    assert made.column("event").to_pylist() == [0]
    assert dict(tally.lost) == {NO_TIMES: 1, NO_NOISE: 1}
    assert [loss.count for loss in tally.losses("file")] == [1, 1]


def test_a_cleaning_by_time_of_raw_files_is_refused_without_spark():
    raw = Source("file:///x", "taiga-raw", "X", 1, 3, CAMERA.name, {"factors": "f"})
    with pytest.raises(UsageError, match="needs the times of pixels, and these images have none"):
        check_sources(Cleaning("time-neighbours", 14, 7, time_limit=2), [raw])
    check_sources(Cleaning("tailcuts", 14, 7), [raw])


def test_a_cleaning_by_sigma_takes_the_noise_of_each_run():
    images = np.zeros((2, CAMERA.n_pixels), np.float32)
    images[:, [100, *CAMERA.neighbours[100]]] = 10
    quiet, loud = state(), PixelState(np.full(CAMERA.n_pixels, 4.0), state().status)
    preparation = Preparation(states={RUN: quiet, ("X", 2, 1): loud}, with_noise=True)
    rule = Cleaning("sigma", 4, 2)
    recipe = Recipe(CAMERA, ("images", "parameters"), rule.name, rule, preparation=preparation)
    made = recipe.make(batch(images, [1, 2]))
    assert from_binary(made["images"].column("mask"), "u1").sum(axis=1).tolist() == [7, 0]
    assert made["parameters"].filter(pa.array([False, False, True, True])).column("size").to_pylist() == [70, 0]


def seen(monkeypatch: pytest.MonkeyPatch, images: np.ndarray, runs: list[int]) -> list[tuple[RunKey, np.ndarray]]:
    """Return what the first pass sees in one batch of images."""
    monkeypatch.setattr(pixel_watch, "read_split", lambda *_: iter([batch(images, runs)]))
    return pixel_watch.Watch(CAMERA)(Split(0, (), 0))


def test_noise_is_found_whatever_light_there_is_and_so_are_dead_and_hot_pixels(monkeypatch):
    images = noisy(600)
    images[:, 7] *= 0.01
    images[::20, 300] += 50
    for row in range(0, 600, 10):  # showers
        images[row, CAMERA.neighbours[50 + row % 400]] += 40
    (found,) = pixel_watch.of_images(seen(monkeypatch, images, [1] * 600), CAMERA).values()
    assert np.flatnonzero(found.bad(("dead",))).tolist() == [7]
    assert np.flatnonzero(found.bad(("hot",))).tolist() == [300]
    good = np.arange(CAMERA.n_pixels) != 7
    np.testing.assert_allclose(found.noise[good], 2, rtol=0.25)
    assert abs(np.median(found.noise) - 2) < 0.05


def test_a_short_run_takes_the_noise_of_all_runs_and_cleaned_images_are_refused(monkeypatch):
    found = pixel_watch.of_images(seen(monkeypatch, noisy(40), [1] * 35 + [2] * 5), CAMERA)
    assert set(found) == {RUN, ("X", 2, 1)}
    assert np.isfinite(found["X", 2, 1].noise).all()
    assert pixel_watch.of_images(seen(monkeypatch, noisy(5), [1] * 5), CAMERA) == {}
    cleaned = np.where(noisy(40) > 5, noisy(40), 0).astype(np.float32)
    with pytest.raises(UsageError, match="most pixels hold no noise"):
        pixel_watch.of_images(seen(monkeypatch, cleaned, [1] * 40), CAMERA)


def test_the_noise_of_raw_files_is_that_of_their_images_and_a_channel_without_factor_is_absent():
    rng = np.random.default_rng(4)
    adc = (rng.normal(2000, 30, (500, 32, 2)) * 4).astype(np.uint16)
    adc[:, 5, 0] = 8000
    factors = np.full((32, 2), 15.0)
    factors[9] = np.nan
    counter = PedestalCounter()
    counter.add(adc)
    survey = Survey(
        "file:///x", {"3": 500}, {"3": counter.result().tolist()},
        {"3": np.stack(counter.noise(MAD * HIT_SIGMA)).tolist()},
    )  # fmt: skip
    source = Source("file:///x", "taiga-raw", "X", 1, 3, CAMERA.name, {"factors": "f"})
    (found,) = pixel_watch.of_surveys([source], {"file:///x": survey}, CAMERA, {("f", 3): factors}).values()
    light = photo_electrons(adc, counter.result(), factors)
    wanted = MAD * np.median(np.abs(light - np.median(light, axis=0)), axis=0)
    pixels = CAMERA.index(np.full(32, 3), 2 * np.arange(32))
    there = pixels >= 0
    np.testing.assert_allclose(found.noise[pixels[there]], wanted[there], atol=1e-5)
    assert found.status[pixels[5]] == "dead" and found.status[pixels[9]] == "absent"
    assert (found.status[CAMERA.cluster != 3] == "absent").all()

"""Noise, dead pixels, saturation and arrival times of the Monte Carlo's detector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import NotFoundError, UsageError
from apbatch.formats.taiga.raw import DATA_TYPE, RECORD
from apbatch.sim.detector.noise import NoiseLibrary
from apbatch.sim.detector.raw import _settings, _with_noise, write_raw
from apbatch.sim.detector.response import Camera, Light, digitise, integrate, saturated, triggered
from apbatch.sim.production import key_of
from apbatch.sim.settings import DetectorModel, Production
from apbatch.sim.shower import Simulator

CAMERA = camera_named("TAIGA-IACT01")


def dark(n: int) -> Light:
    return Light.of_counts(np.zeros((n, 560), np.int64))


def raw_run(folder: Path, clusters: list[int], records: int = 400) -> None:
    """Write a run: noise of 20 codes that all channels of a record share, and one channel that always has light."""
    rng = np.random.default_rng(4)
    for cluster in clusters:
        rows = np.zeros(records, RECORD)
        rows["type"], rows["size"], rows["end"], rows["board"] = DATA_TYPE, 132, 0xFFFFFFFF, cluster - 1
        rows["adc"] = (4.0 * (300.0 + 20.0 * rng.standard_normal((records, 1, 1)))).astype(np.uint16)
        rows["adc"][::3, 2, 0] += 4 * 400
        path = folder / f"BSM{cluster:02d}" / f"28107{cluster:03d}.001"
        path.parent.mkdir(parents=True)
        path.write_bytes(rows.tobytes())
    lines = [f"{c} {ch} 1.0 1.1 {10.0 if ch % 2 == 0 else 2.5} 1.0" for c in clusters for ch in range(4, 60)]
    (folder / "FACTORS_300917.txt").write_text("\n".join(lines))


def test_measured_noise_has_the_spread_and_the_correlations_of_the_run(tmp_path: Path) -> None:
    raw_run(tmp_path, [1, 2])
    library = NoiseLibrary.load(tmp_path, None, CAMERA, 10.0)
    noise = library.draw(3000, np.random.default_rng(1))
    first = np.flatnonzero(CAMERA.cluster == 1)
    assert noise[:, first].std() == pytest.approx(2.0, rel=0.05)  # 20 codes at 10 codes a photo-electron
    quiet = first[CAMERA.number[first] != 4]
    assert np.corrcoef(noise[:, quiet[0]], noise[:, quiet[1]])[0, 1] > 0.99
    other = np.flatnonzero(CAMERA.cluster == 2)[3]
    assert abs(np.corrcoef(noise[:, quiet[0]], noise[:, other])[0, 1]) < 0.1
    assert noise.max() < 10.0  # the light that triggered is not noise
    assert np.isfinite(noise).all()  # clusters that the run lacks have noise as well


def test_a_folder_without_raw_files_is_no_noise_library(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no raw file"):
        NoiseLibrary.load(tmp_path, None, CAMERA, 10.0)
    raw_run(tmp_path, [1], 20)
    (tmp_path / "FACTORS_300917.txt").unlink()
    with pytest.raises(NotFoundError, match=r"factors.*noise_factors"):
        NoiseLibrary.load(tmp_path, None, CAMERA, 10.0)


def test_images_take_their_noise_from_the_library(tmp_path: Path) -> None:
    raw_run(tmp_path, [1])
    detector = DetectorModel(noise_library=tmp_path, gain_spread=0.0)
    camera = Camera.of(CAMERA, detector)
    images = digitise(dark(500), camera, detector, np.random.default_rng(2)).amplitude
    assert images.std() == pytest.approx(2.0, rel=0.05)


def test_dead_pixels_have_no_amplitude_and_never_trigger() -> None:
    detector = DetectorModel(dead_pixels=0.2)
    camera = Camera.of(CAMERA, detector)
    assert 0.1 < camera.dead.mean() < 0.3
    bright = digitise(Light.of_counts(np.full((1, 560), 50)), camera, detector, np.random.default_rng(1))
    assert (np.isnan(bright.amplitude) == camera.dead).all()
    assert (np.isnan(bright.time) == camera.dead).all()
    assert triggered(bright.fired_at, camera, detector)[0]
    counts = np.where(camera.dead, 50, 0)
    only_dead = digitise(Light.of_counts(counts), camera, detector, np.random.default_rng(1))
    assert not triggered(only_dead.fired_at, camera, detector)[0]


def test_gains_do_not_depend_on_the_share_of_dead_pixels() -> None:
    one, other = (Camera.of(CAMERA, DetectorModel(dead_pixels=share)) for share in (0.0, 0.5))
    assert (one.gains == other.gains).all()


def test_gains_are_those_of_the_camera_and_telescope_not_of_a_production() -> None:
    # Productions of one class each, made with seeds of their own, would otherwise be told apart by the gains.
    one, other = (
        Simulator(Production(gammas=1, protons=0, seed=seed, array=((0, 0, 0), (90, 0, 0)))).camera for seed in (1, 2)
    )
    assert (one.gains == other.gains).all()
    assert np.corrcoef(one.gains[0], one.gains[1])[0, 1] < 0.2
    assert one.gains.std(axis=1) == pytest.approx(0.05, rel=0.15)
    assert (Camera.of(CAMERA, DetectorModel(), 1).gains[0] == one.gains[0]).all()
    assert (Camera.of(camera_named("TAIGA-IACT01-2017"), DetectorModel()).gains[0] != one.gains[0]).any()


def test_telescopes_of_an_array_keep_their_gains_from_use_to_use() -> None:
    detector = DetectorModel(night_sky=0.0, single_pe_spread=0.0, pedestal_noise=0.0, codes_per_pe=0.0)
    camera = Camera.of(CAMERA, detector, 2)
    images = digitise(Light.of_counts(np.full((4, 560), 100)), camera, detector, np.random.default_rng(1)).amplitude
    assert images == pytest.approx(100.0 * camera.gains[[0, 1, 0, 1]])


def test_the_high_gain_hands_over_to_the_low_gain_and_that_saturates() -> None:
    detector = DetectorModel(codes_per_pe=10.0, gain_ratio=4.0, high_gain_limit=1800.0, low_gain_end=2000.0)
    seen = saturated(np.array([[1.0, 1.013, 179.0, 200.06, 790.0, 5000.0]]), detector)[0]
    assert seen[:3] == pytest.approx([1.0, 1.025, 179.0])  # steps of a quarter of a code: 0.025 p.e.
    assert seen[3] == pytest.approx(200.1)  # steps of 0.1 p.e.
    assert seen[4:] == pytest.approx([790.0, 800.0])  # 2000 codes x 4 / 10


def test_arrival_times_follow_the_light_and_fill_the_window_where_there_is_none() -> None:
    detector = DetectorModel(night_sky=0.0, time_resolution=0.5, integration_window=60.0)
    camera = Camera.of(CAMERA, detector)
    pixel = np.concatenate([np.full(200, 5), np.full(200, 6)]).astype(np.int32)
    time = np.concatenate([np.full(200, 100.0), np.full(200, 108.0)]).astype(np.float32)
    light = integrate(pixel, time, 1, 560, 60.0)
    times = digitise(light, camera, detector, np.random.default_rng(5)).time
    assert times[0, 6] - times[0, 5] == pytest.approx(8.0, abs=3.0)
    empty = np.delete(times[0], [5, 6])
    assert (empty.min() < -25.0, empty.max() > 25.0) == (True, True)
    assert empty.std() == pytest.approx(60.0 / np.sqrt(12.0), rel=0.15)


def test_published_settings_know_measured_noise_and_a_camera_s_file_by_their_content(tmp_path: Path) -> None:
    keys = []
    for name, records in (("one", 400), ("again", 400), ("other", 401)):
        raw_run(tmp_path / name, [1], records)
        (tmp_path / name / "pixels.txt").write_text("0 0\n")
        detector = DetectorModel(noise_library=tmp_path / name, camera=str(tmp_path / name / "pixels.txt"))
        settings = Production(gammas=1, protons=0, detector=detector)
        assert str(tmp_path) not in json.dumps(settings.published())
        keys.append(key_of(settings))
    assert keys[0] == keys[1] != keys[2]
    (tmp_path / "again" / "FACTORS_300917.txt").write_text("1 4 1.0 1.1 9.0 1.0")
    (tmp_path / "one" / "pixels.txt").write_text("0 1\n")
    for name in ("one", "again"):
        detector = DetectorModel(noise_library=tmp_path / name, camera=str(tmp_path / name / "pixels.txt"))
        assert key_of(Production(gammas=1, protons=0, detector=detector)) != keys[0]


def test_raw_files_take_the_noise_of_the_production_where_it_lies_now(tmp_path: Path) -> None:
    for name, records in (("run", 400), ("other", 401)):
        raw_run(tmp_path / name, [1], records)
    settings = Production(gammas=1, protons=0, detector=DetectorModel(noise_library=tmp_path / "run"))
    production = tmp_path / "production"
    production.mkdir()
    (production / "production.json").write_text(json.dumps({"parameters": settings.published()}))
    with pytest.raises(UsageError, match="--noise-library"):
        write_raw(production, tmp_path / "raw")
    with pytest.raises(UsageError, match="not the noise that the production has"):
        write_raw(production, tmp_path / "raw", noise_library=tmp_path / "other")
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(NotFoundError, match="no images"):  # what comes next
        write_raw(production, tmp_path / "raw", noise_library=tmp_path / "moved")
    found = _with_noise(_settings(production).detector, tmp_path / "moved", None, production)
    assert Camera.of(CAMERA, found).noise is not None


def test_raw_files_of_a_production_without_measured_noise_take_none(tmp_path: Path) -> None:
    raw_run(tmp_path / "run", [1])
    (tmp_path / "production.json").write_text(json.dumps({"parameters": Production().published()}))
    with pytest.raises(UsageError, match="has no noise of a raw run"):
        write_raw(tmp_path, tmp_path / "raw", noise_library=tmp_path / "run")

"""Raw files of a production: what the reader and the calibration make of them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apbatch.camera.calibration import factors_of_cluster, pedestals, photo_electrons
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import NotFoundError, UsageError
from apbatch.formats.images import from_binary
from apbatch.formats.taiga.calibration import read_factors
from apbatch.formats.taiga.raw import TaigaRawReader, decode_time, read_records
from apbatch.sim.detector.raw import RawSummary, encode_time, write_raw
from apbatch.sim.production import simulate
from apbatch.sim.settings import DetectorModel, Production, Spectrum

CAMERA = camera_named("TAIGA-IACT01")


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "production"
    settings = Production(
        gammas=6, protons=0, seed=5, telescopes=8, core_max=150.0, cone=1.0,
        gamma=Spectrum(energy_min=3.0, energy_max=20.0, index=-2.0), detector=DetectorModel(dead_pixels=0.01),
    )  # fmt: skip
    simulate(settings, folder, processes=1)
    return folder


@pytest.fixture(scope="module")
def raw(production: Path) -> RawSummary:
    return write_raw(production, production.parent / "all")


@given(st.integers(0, 8_640_000_000_000 - 1))
def test_times_of_day_come_back(tens: int) -> None:
    assert decode_time(encode_time(np.array([10 * tens]))).tolist() == [10 * tens]


def test_every_event_has_a_record_of_all_clusters_with_times_that_rise(raw: RawSummary, production: Path) -> None:
    images = pq.read_table(production / "images")
    assert raw.events == images.num_rows
    assert raw.records == 22 * raw.events
    for cluster in (1, 22):
        file = raw.folder / "281017.01" / f"BSM{cluster:02d}" / f"28107{cluster:03d}.001"
        with file.open("rb") as stream:
            metadata = TaigaRawReader().metadata(stream, str(file.relative_to(raw.folder)))
        assert (metadata.cluster, metadata.events, metadata.problems) == (cluster, raw.events, ())
        assert metadata.night == date(2017, 10, 28)
        assert metadata.run == 2017102801
        records = np.concatenate(list(read_records(file.open("rb"))))
        assert sorted(records["event"]) == sorted(images["event"].to_pylist())
        assert (np.diff(records["time"]) > 0).all()


def test_calibrated_with_pedestals_and_factors_the_images_are_those_of_the_production(
    raw: RawSummary, production: Path
) -> None:
    table = pq.read_table(production / "images").sort_by("event")
    expected = np.asarray(from_binary(table["image"]))
    factors = read_factors(raw.factors)
    found = np.full(expected.shape, np.nan, np.float32)
    for cluster in range(1, 23):
        folder = raw.folder / "281017.01" / f"BSM{cluster:02d}"
        dark = np.concatenate(list(read_records((folder / f"28107{cluster:03d}.ped").open("rb"))))
        data = np.concatenate(list(read_records((folder / f"28107{cluster:03d}.001").open("rb"))))
        codes = factors_of_cluster(factors["cluster"], factors["channel"], factors["codes_per_pe"], cluster)
        pe = photo_electrons(data["adc"], pedestals(dark["adc"]), codes)
        pixels = np.flatnonzero(CAMERA.cluster == cluster)
        found[:, pixels] = pe[:, CAMERA.number[pixels] // 2]
    assert (np.isnan(found) == np.isnan(expected)).all()
    alive = ~np.isnan(expected)
    # The median pedestal of a skewed night sky lies below its mean by a fifth of a photo-electron.
    off = found[alive] - expected[alive]
    assert 0.0 < np.median(off) < 0.5
    bright = expected[alive] > 20.0
    assert bright.sum() > 50
    assert np.abs(off[bright] / expected[alive][bright]).max() < 0.05


def test_only_clusters_that_fired_are_recorded_if_asked(production: Path, tmp_path: Path) -> None:
    some = write_raw(production, tmp_path / "some", clusters="triggered")
    assert some.events <= some.records < 6 * some.events


def test_the_same_production_gives_the_same_bytes(production: Path, raw: RawSummary, tmp_path: Path) -> None:
    again = write_raw(production, tmp_path / "again")
    for file in sorted(raw.folder.rglob("*.*")):
        if file.is_file():
            assert file.read_bytes() == (again.folder / file.relative_to(raw.folder)).read_bytes()


def test_what_is_no_production_and_a_folder_in_use_are_refused(
    raw: RawSummary, production: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="no finished production"):
        write_raw(tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="not empty"):
        write_raw(production, raw.folder)

"""From ADC codes to photo-electrons, by hand-worked numbers and with the real run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apbatch.camera.calibration import HIGH_GAIN_LIMIT, assemble, factors_of_cluster, pedestals, photo_electrons
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import UsageError
from apbatch.formats.taiga.calibration import read_factors
from apbatch.formats.taiga.raw import read_records


def adc(high: float, low: float, channels: int = 1) -> np.ndarray:
    """Return one record with these codes, stored in quarters."""
    return np.array([[[high * 4, low * 4]] * channels], np.uint16)


PEDESTAL = np.array([[300.0, 310.0]])
FACTORS = np.array([[15.0, 3.5]])


def test_an_amplitude_is_a_quarter_of_the_stored_number_less_the_pedestal():
    assert photo_electrons(adc(450, 345), PEDESTAL, FACTORS)[0, 0] == pytest.approx(10.0)


def test_a_saturated_high_gain_gives_way_to_the_low_gain():
    high = 300 + HIGH_GAIN_LIMIT + 1
    assert photo_electrons(adc(high, 310 + 700), PEDESTAL, FACTORS)[0, 0] == pytest.approx(200.0)


def test_just_below_saturation_the_high_gain_counts():
    high = 300 + HIGH_GAIN_LIMIT
    assert photo_electrons(adc(high, 5000), PEDESTAL, FACTORS)[0, 0] == pytest.approx(HIGH_GAIN_LIMIT / 15)


def test_a_channel_without_factors_is_missing():
    assert np.isnan(photo_electrons(adc(450, 345), PEDESTAL, np.array([[np.nan, np.nan]]))[0, 0])


def test_a_saturated_channel_without_a_low_gain_keeps_its_high_gain():
    found = photo_electrons(adc(3300, 345), PEDESTAL, np.array([[15.0, np.nan]]))
    assert found[0, 0] == pytest.approx(200.0)


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="do not fit"):
        photo_electrons(adc(450, 345, channels=2), PEDESTAL, FACTORS)


def test_light_in_a_tenth_of_the_records_does_not_move_the_pedestal():
    rng = np.random.default_rng(3)
    codes = rng.normal(350, 5, (2000, 4, 2))
    codes[::10] += 400
    found = pedestals(np.rint(codes * 4).astype(np.uint16))
    np.testing.assert_allclose(found, 350, atol=1.5)


def test_the_pedestal_of_a_constant_channel_is_its_value_and_of_none_is_missing():
    assert (pedestals(np.full((5, 2, 2), 1400, np.uint16)) == 350).all()
    assert np.isnan(pedestals(np.empty((0, 2, 2), np.uint16))).all()


def test_the_pedestals_of_a_real_run_leave_it_around_0_photo_electrons(data: Path):
    with (data / "taiga_raw" / "BSM06" / "28107006.001").open("rb") as stream:
        records = np.concatenate(list(read_records(stream)))
    table = read_factors(data / "taiga_raw" / "FACTORS_300917.txt")
    factors = factors_of_cluster(table["cluster"], table["channel"], table["codes_per_pe"], 6)
    pe = photo_electrons(records["adc"], pedestals(records["adc"]), factors)[:, 2:30]
    assert np.isfinite(pe).all()
    assert (np.abs(np.median(pe, axis=0)) < 0.01).all()
    assert (np.median(np.abs(pe), axis=0) < 7).all()  # the night sky lies below the thresholds of cleaning


def test_factors_are_sorted_into_high_and_low_gain(data: Path):
    table = read_factors(data / "taiga_raw" / "FACTORS_300917.txt")
    found = factors_of_cluster(table["cluster"], table["channel"], table["codes_per_pe"], 1)
    assert found[2].tolist() == [14.595, 3.436]  # the first two lines of the file: channels 4 and 5
    assert np.isnan(found[0]).all()


def test_records_of_one_event_become_one_image_with_the_other_clusters_missing():
    camera = camera_named("TAIGA-IACT01")
    event, cluster = np.array([7, 9, 7]), np.array([3, 1, 1])
    pe = np.arange(3 * 32, dtype=np.float32).reshape(3, 32)
    whole = assemble(event, cluster, pe, camera)
    assert whole.event.tolist() == [7, 9] and whole.clusters.tolist() == [2, 1] and whole.repeated == 0
    for row, record in ((0, 0), (0, 2), (1, 1)):
        pixels = np.flatnonzero(camera.cluster == cluster[record])
        channels = camera.number[pixels] // 2
        np.testing.assert_array_equal(whole.images[row, pixels], pe[record, channels])
    assert np.isnan(whole.images[1, camera.cluster != 1]).all()
    assert np.isfinite(whole.images[0]).sum() == np.isin(camera.cluster, [1, 3]).sum()


def test_a_cluster_counts_once_in_an_event():
    camera = camera_named("TAIGA-IACT01")
    pe = np.stack([np.full(32, 1.0), np.full(32, 2.0)]).astype(np.float32)
    whole = assemble(np.array([4, 4]), np.array([2, 2]), pe, camera)
    assert whole.repeated == 1
    assert np.nanmax(whole.images) == 1  # the first one


def test_the_real_run_has_255_events_with_two_clusters_and_30_with_three(data: Path):
    camera = camera_named("TAIGA-IACT01-2017")
    events, clusters = [], []
    for path in sorted((data / "taiga_raw").glob("BSM*/*.001")):
        with path.open("rb") as stream:
            for records in read_records(stream):
                events.append(records["event"])
                clusters.append(records["cluster"].astype(np.int64))
    event, cluster = np.concatenate(events), np.concatenate(clusters)
    whole = assemble(event, cluster, np.zeros((len(event), 32), np.float32), camera)
    assert (whole.clusters >= 2).sum() == 255
    assert (whole.clusters >= 3).sum() == 30

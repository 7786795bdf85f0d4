"""Pedestals against numpy, factors that make no sense, repair against a plain version and by its properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apbatch.camera.badpixels import repair
from apbatch.camera.calibration import pedestals, photo_electrons
from apbatch.camera.geometry import camera_from_positions
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.medians import PedestalCounter
from apbatch.errors import UsageError

CAMERA = camera_named("TAIGA-IACT01")


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 40), st.just(2)), elements=st.integers(0, 65535)),
    st.integers(0, 9),
)
def test_pedestals_are_what_numpy_finds_from_an_array_and_in_pieces(adc, cut):
    counter, other = PedestalCounter(adc.shape[1]), PedestalCounter(adc.shape[1])
    counter.add(adc[:cut])
    other.add(adc[cut:])
    counter.absorb(other)
    np.testing.assert_array_equal(counter.result(), np.median(adc / 4.0, axis=0))
    np.testing.assert_array_equal(counter.result(), pedestals(adc))
    spread, _ = counter.noise(6.0)
    np.testing.assert_array_equal(spread, np.median(np.abs(adc / 4.0 - counter.result()), axis=0))


def test_a_run_without_records_has_no_pedestals():
    assert np.isnan(PedestalCounter(3).result()).all()
    assert np.isnan(PedestalCounter(3).noise(6.0)[0]).all()


def run(n_channels: int = 60, n_records: int = 400) -> np.ndarray:
    return np.rint(np.random.default_rng(4).normal(1400, 20, (n_records, n_channels, 2))).astype(np.uint16)


@pytest.mark.parametrize("factor", [0.0, -1.0, np.inf, np.nan])
def test_a_senseless_factor_makes_a_missing_pixel_and_nothing_infinite(factor):
    adc = run(2, 3)
    found = photo_electrons(adc, np.full((2, 2), 350.0), np.array([[factor, factor], [15.0, 3.5]]))
    assert np.isnan(found[:, 0]).all() and np.isfinite(found[:, 1]).all()


def test_a_channel_without_a_pedestal_is_missing():
    found = photo_electrons(run(1, 2), np.array([[np.nan, np.nan]]), np.array([[15.0, 3.5]]))
    assert np.isnan(found).all()


def test_a_whole_camera_is_calibrated_as_its_channels_one_by_one():
    adc = run(CAMERA.n_pixels, 5)
    pedestal, factors = pedestals(adc), np.full((CAMERA.n_pixels, 2), 15.0)
    whole = photo_electrons(adc, pedestal, factors)
    one = photo_electrons(adc[:, 100:101], pedestal[100:101], factors[100:101])
    np.testing.assert_array_equal(whole[:, 100:101], one)


def plain_repair(images, camera, bad, wanted):
    out, repaired, lost = images.copy(), np.zeros(len(images), int), np.zeros(len(images), int)
    for i, image in enumerate(images):
        flags = bad if bad.ndim == 1 else bad[i]
        for p in np.flatnonzero(flags):
            near = [n for n in camera.neighbours[p] if n >= 0 and not flags[n] and np.isfinite(image[n])]
            if len(near) >= wanted:
                out[i, p] = np.mean(image[near], dtype=np.float64)
                repaired[i] += 1
            else:
                out[i, p] = np.nan
                lost[i] += 1
    return out, repaired, lost


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(1, 6), st.booleans())
def test_repair_is_the_mean_of_good_neighbours(seed, share, wanted, each):
    random = np.random.default_rng(seed)
    images = random.normal(5, 3, (3, CAMERA.n_pixels)).astype(np.float32)
    images[random.random(images.shape) < 0.1] = np.nan
    bad = random.random(images.shape if each else CAMERA.n_pixels) < share
    before = images.copy()
    found = repair(images, CAMERA, bad, min_neighbours=wanted)
    out, repaired, lost = plain_repair(images, CAMERA, bad, wanted)
    np.testing.assert_allclose(found.images, out, rtol=1e-6)
    np.testing.assert_array_equal(found.repaired, repaired)
    np.testing.assert_array_equal(found.lost, lost)
    np.testing.assert_array_equal(images, before)
    flags = np.broadcast_to(bad, images.shape)
    np.testing.assert_array_equal(found.repaired + found.lost, flags.sum(axis=1))
    np.testing.assert_array_equal(found.images[~flags], images[~flags])
    again = repair(found.images, CAMERA, bad, min_neighbours=wanted)
    np.testing.assert_array_equal(again.images, found.images)
    good = images[~flags & np.isfinite(images)]
    mended = found.images[flags & np.isfinite(found.images)]
    assert not len(mended) or (good.min() - 1e-3 <= mended.min() and mended.max() <= good.max() + 1e-3)


def test_even_light_stays_even():
    images = np.full((2, CAMERA.n_pixels), 7.0, np.float32)
    bad = np.zeros(CAMERA.n_pixels, bool)
    bad[::5] = True
    images[:, bad] = 1e6
    found = repair(images, CAMERA, bad)
    assert (found.images == 7).all() and not found.lost.any()


def test_a_pixel_without_good_neighbours_stays_missing_and_is_counted():
    images = np.full((1, CAMERA.n_pixels), 7.0, np.float32)
    found = repair(images, CAMERA, np.ones(CAMERA.n_pixels, bool))
    assert np.isnan(found.images).all()
    assert found.lost.tolist() == [CAMERA.n_pixels] and found.repaired.tolist() == [0]


def test_a_missing_cluster_is_not_made_up():
    images = np.full((1, CAMERA.n_pixels), 7.0, np.float32)
    images[0, CAMERA.cluster == 4] = np.nan
    found = repair(images, CAMERA, np.zeros(CAMERA.n_pixels, bool))
    assert np.isnan(found.images[0, CAMERA.cluster == 4]).all() and found.repaired.tolist() == [0]


def test_square_pixels_have_four_neighbours():
    row, col = (axis.ravel() for axis in np.indices((3, 3)))
    camera = camera_from_positions("chess", col * 1.0, row * 1.0)
    image = np.array([[100, 1, 100, 2, 0, 3, 100, 4, 100]], np.float32)
    assert repair(image, camera, np.arange(9) == 4).images[0, 4] == 2.5
    with pytest.raises(UsageError, match="give 1 to 4"):
        repair(image, camera, np.arange(9) == 4, min_neighbours=5)


def test_no_images_are_repaired_to_no_images():
    found = repair(np.empty((0, CAMERA.n_pixels), np.float32), CAMERA, np.zeros(CAMERA.n_pixels, bool))
    assert found.images.shape == (0, CAMERA.n_pixels) and not len(found.repaired)


def test_bad_pixels_of_another_camera_are_refused():
    with pytest.raises(UsageError, match="bad pixels are of shape"):
        repair(np.zeros((1, CAMERA.n_pixels), np.float32), CAMERA, np.zeros(5, bool))

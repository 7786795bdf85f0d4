"""Camera and sky: against astropy's offset frame, and there and back."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.camera.pointing import (
    camera_to_sky,
    camera_vectors,
    offset_vectors,
    offsets,
    offsets_to_sky,
    separation,
    sky_to_camera,
    to_angles,
)
from apbatch.errors import UsageError

RANDOM = np.random.default_rng(8)
ALTITUDE, AZIMUTH = RANDOM.uniform(5, 89, 300), RANDOM.uniform(0, 360, 300)
LONGITUDE, LATITUDE = RANDOM.uniform(-8, 8, 300), RANDOM.uniform(-8, 8, 300)


def of_astropy() -> SkyCoord:
    """The same directions by astropy: offsets about directions of pointing."""
    pointing = SkyCoord(az=AZIMUTH * u.deg, alt=ALTITUDE * u.deg, frame=AltAz())
    frame = pointing.skyoffset_frame()
    return SkyCoord(lon=LONGITUDE * u.deg, lat=LATITUDE * u.deg, frame=frame).transform_to(AltAz())


def degrees_apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs((one - other + 180) % 360 - 180).max())


def test_offsets_become_the_directions_that_astropy_gives():
    altitude, azimuth = offsets_to_sky(LONGITUDE, LATITUDE, ALTITUDE, AZIMUTH)
    there = of_astropy()
    assert np.abs(altitude - there.alt.deg).max() < 1e-10
    assert degrees_apart(azimuth, there.az.deg) < 1e-9


def test_directions_become_the_offsets_they_came_from():
    there = of_astropy()
    longitude, latitude = offsets(there.alt.deg, there.az.deg, ALTITUDE, AZIMUTH)
    np.testing.assert_allclose(longitude, LONGITUDE, atol=1e-9)
    np.testing.assert_allclose(latitude, LATITUDE, atol=1e-9)


def test_the_camera_shows_tangents_of_offsets():
    there = of_astropy()
    x, y = sky_to_camera(there.alt.deg, there.az.deg, ALTITUDE, AZIMUTH)
    lon, lat = np.radians(LONGITUDE), np.radians(LATITUDE)
    np.testing.assert_allclose(np.radians(x), np.tan(lon), atol=1e-12)
    np.testing.assert_allclose(np.radians(y), np.tan(lat) / np.cos(lon), atol=1e-12)


def test_vertical_axes_are_those_of_ctapipe_up_to_its_small_angles():
    coordinates = pytest.importorskip("ctapipe.coordinates")
    x, y = RANDOM.uniform(-1, 1, (2, 50))
    pointing = SkyCoord(az=120 * u.deg, alt=70 * u.deg, frame=AltAz())
    frame = coordinates.CameraFrame(focal_length=10 * u.m, telescope_pointing=pointing)
    metres = [np.radians(axis) * 10 * u.m for axis in (x, y)]
    there = SkyCoord(x=metres[0], y=metres[1], frame=frame).transform_to(AltAz())
    altitude, azimuth = camera_to_sky(x, y, 70.0, 120.0, axes="vertical")
    assert separation(altitude, azimuth, there.alt.deg, there.az.deg).max() < 4e-4
    longitude, latitude = offsets(there.alt.deg, there.az.deg, 70.0, 120.0)
    np.testing.assert_allclose([latitude, longitude], [x, y], atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    st.floats(-20, 20), st.floats(-20, 20), st.floats(-89.9, 89.9), st.floats(-400, 800),
    st.sampled_from(["horizontal", "vertical"]),
)  # fmt: skip
def test_there_and_back_is_where_one_was(x, y, altitude, azimuth, axes):
    sky = camera_to_sky(x, y, altitude, azimuth, axes=axes)
    assert 0 <= sky[1] < 360 and -90 <= sky[0] <= 90
    np.testing.assert_allclose(sky_to_camera(*sky, altitude, azimuth, axes=axes), (x, y), atol=1e-7)


def test_the_middle_of_the_camera_is_where_it_points_also_at_the_zenith():
    for altitude in (0.0, 45.0, 90.0):
        found = camera_to_sky(0.0, 0.0, altitude, 30.0)
        assert separation(*found, altitude, 30.0) < 1e-12
    np.testing.assert_allclose(sky_to_camera(*camera_to_sky(1.0, 2.0, 90.0, 30.0), 90.0, 30.0), (1, 2), atol=1e-10)


def test_straight_lines_in_the_camera_are_great_circles():
    step = np.linspace(-5, 5, 11)
    vectors = camera_vectors(1 + 0.3 * step, step, 60.0, 200.0)
    assert np.linalg.svd(vectors)[1][2] < 1e-12


def test_up_and_right_in_the_camera_are_up_and_right_in_the_sky():
    assert camera_to_sky(0.0, 1.0, 50.0, 10.0)[0] > 50.5
    assert camera_to_sky(1.0, 0.0, 50.0, 10.0)[1] > 11.0
    assert camera_to_sky(1.0, 0.0, 50.0, 10.0, axes="vertical")[0] > 50.5


def test_what_is_behind_the_camera_is_not_shown():
    assert np.isnan(sky_to_camera(-50.0, 190.0, 50.0, 10.0)).all()
    assert np.isnan(sky_to_camera(0.0, 100.0, 0.0, 10.0)).all()


def test_what_is_not_known_stays_so_and_harms_nothing_else():
    altitude, azimuth = camera_to_sky([np.nan, 1.0], [1.0, 1.0], 50.0, [10.0, 20.0])
    assert np.isnan([altitude[0], azimuth[0]]).all() and np.isfinite([altitude[1], azimuth[1]]).all()


def test_arrays_of_any_shapes_are_broadcast():
    assert camera_to_sky(np.zeros((4, 1)), np.zeros(3), 50.0, np.zeros(3))[0].shape == (4, 3)
    assert offset_vectors(np.zeros(5), 0.0, 50.0, 10.0).shape == (5, 3)
    assert to_angles(np.zeros((0, 3)))[0].shape == (0,)


def test_tiny_separations_keep_their_digits():
    assert separation(50.0, 10.0, 50.0 + 1e-9, 10.0) == pytest.approx(1e-9, rel=1e-5)


def test_unknown_axes_name_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'vertical'"):
        camera_to_sky(0.0, 0.0, 50.0, 10.0, axes="vertcal")

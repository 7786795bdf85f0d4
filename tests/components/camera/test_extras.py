"""The further image parameters against ctapipe."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from ctapipe.image import concentration_parameters, hillas_parameters, leakage_parameters, timing_parameters
from ctapipe.image.morphology import morphology_parameters
from ctapipe.instrument import CameraGeometry as CtapipeGeometry

from apbatch.camera.cleaning import Cleaning, clean
from apbatch.camera.extras import EXTRAS, extras
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import UsageError

CAMERA = camera_named("TAIGA-IACT01")
GEOMETRY = CtapipeGeometry(
    CAMERA.name, np.arange(CAMERA.n_pixels), CAMERA.x * u.deg, CAMERA.y * u.deg,
    np.full(CAMERA.n_pixels, np.sqrt(0.75) * CAMERA.pitch**2) * u.deg**2, "hexagonal",
)  # fmt: skip


def batch(number: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noisy ellipses, their masks, and times that grow along x."""
    rng = np.random.default_rng(8)
    images = rng.normal(0, 2, (number, CAMERA.n_pixels))
    for image in images:
        x0, y0, axis = *rng.uniform(-3.5, 3.5, 2), rng.uniform(0, np.pi)
        along = (CAMERA.x - x0) * np.cos(axis) + (CAMERA.y - y0) * np.sin(axis)
        across = (CAMERA.y - y0) * np.cos(axis) - (CAMERA.x - x0) * np.sin(axis)
        image += rng.poisson(90 * np.exp(-0.5 * ((along / 0.9) ** 2 + (across / 0.4) ** 2)))
    images = images.astype(np.float32)
    times = np.broadcast_to(20 + 3 * CAMERA.x, images.shape).astype(np.float32)
    return images, clean(images, CAMERA, Cleaning("tailcuts", 12, 6)), times


def test_extras_are_those_of_ctapipe() -> None:
    images, mask, times = batch()
    ours = extras(images, CAMERA, mask, peak_time=times)
    compared = 0
    for row, (image, kept) in enumerate(zip(images, mask, strict=True)):
        if kept.sum() < 5:
            continue
        cleaned = np.where(kept, image, 0)
        shape = hillas_parameters(GEOMETRY[kept], image[kept])
        leakage = leakage_parameters(GEOMETRY, image, kept)
        concentration = concentration_parameters(GEOMETRY, cleaned, shape)
        islands = morphology_parameters(GEOMETRY, kept)
        line = timing_parameters(GEOMETRY, image, times[row], shape, kept)
        expected = (
            shape.length_uncertainty.value, shape.width_uncertainty.value, shape.psi_uncertainty.to_value("deg"),
            shape.transverse_cog_uncertainty.value, leakage.pixels_width_1, leakage.pixels_width_2,
            leakage.intensity_width_1, leakage.intensity_width_2, concentration.cog, concentration.core,
            concentration.pixel, islands.n_small_islands, islands.n_medium_islands, islands.n_large_islands,
        )  # fmt: skip
        for name, value in zip(EXTRAS, expected, strict=False):
            assert ours[name][row] == pytest.approx(value, rel=1e-5, abs=1e-9), (name, row)
        # Times that lie off the axis's line: the robust fit of ctapipe takes other pixels, so only about the same.
        lit = np.flatnonzero(kept)
        psi = shape.psi.to_value("rad")
        along = (CAMERA.x[lit] - shape.fov_lon.value) * np.cos(psi) + (CAMERA.y[lit] - shape.fov_lat.value) * np.sin(
            psi
        )
        slope, intercept = np.polyfit(along, times[row, lit].astype(float), 1)
        rest = np.sqrt(np.mean((times[row, lit] - slope * along - intercept) ** 2))
        found = [ours[name][row] for name in ("time_slope", "time_intercept", "time_deviation")]
        assert found == pytest.approx([slope, intercept, rest], rel=1e-5, abs=1e-6)
        assert line.deviation >= rest - 1e-6
        compared += 1
    assert compared > 20


def test_times_on_a_line_along_the_axis_give_the_line_of_ctapipe() -> None:
    row = np.flatnonzero(CAMERA.r == CAMERA.r[100])[:6]
    image = np.zeros((1, CAMERA.n_pixels), np.float32)
    image[0, row] = [5, 9, 20, 30, 12, 6]
    times = (7 + 2 * CAMERA.x)[None].astype(np.float32)
    kept = image[0] > 0
    line = timing_parameters(GEOMETRY, image[0], times[0], hillas_parameters(GEOMETRY[kept], image[0, kept]), kept)
    ours = extras(image, CAMERA, peak_time=times)
    assert abs(ours["time_slope"][0]) == pytest.approx(2, rel=1e-5)
    assert ours["time_slope"][0] == pytest.approx(line.slope.value, rel=1e-5)
    assert ours["time_intercept"][0] == pytest.approx(line.intercept, rel=1e-5)


def test_an_image_without_light_has_no_extras_but_counts_of_islands() -> None:
    found = extras(np.zeros((1, CAMERA.n_pixels), np.float32), CAMERA)
    for name in EXTRAS:
        assert found[name][0] == 0 if "islands" in name else np.isnan(found[name][0])


def test_one_pixel_and_missing_times_have_no_line() -> None:
    image = np.zeros((2, CAMERA.n_pixels), np.float32)
    image[:, 5], image[1, 6:9] = 30, np.nan
    found = extras(image, CAMERA, peak_time=np.full(image.shape, np.nan, np.float32))
    assert found["concentration_pixel"].tolist() == [1, 1]
    for name in ("time_slope", "length_uncertainty", "psi_uncertainty"):
        assert np.isnan(found[name]).all()


def test_times_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match="times are of shape"):
        extras(np.zeros((2, CAMERA.n_pixels), np.float32), CAMERA, peak_time=np.zeros((2, 3), np.float32))

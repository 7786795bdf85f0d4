"""Tail cuts against ctapipe's, image by image."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from ctapipe.image.cleaning import tailcuts_clean
from ctapipe.instrument import CameraGeometry as CtapipeGeometry

from apbatch.camera.cleaning import tailcuts, tailcuts_name
from apbatch.camera.geometry import CameraGeometry, camera_named
from apbatch.errors import UsageError


@pytest.fixture(scope="module")
def camera() -> CameraGeometry:
    return camera_named("TAIGA-IACT01")


@pytest.fixture(scope="module")
def geometry(camera: CameraGeometry) -> CtapipeGeometry:
    """The same pixels in ctapipe, which finds neighbours by itself."""
    area = np.full(camera.n_pixels, np.sqrt(0.75) * camera.pitch**2)
    return CtapipeGeometry(
        camera.name, np.arange(camera.n_pixels), camera.x * u.deg, camera.y * u.deg, area * u.deg**2, "hexagonal"
    )


def noise(camera: CameraGeometry, count: int = 60, seed: int = 1) -> np.ndarray:
    """Noise with clumps of light, so that all cases of the two levels occur."""
    rng = np.random.default_rng(seed)
    images = rng.normal(2, 4, (count, camera.n_pixels))
    for image in images:
        middle = rng.integers(camera.n_pixels)
        image += 40 * np.exp(-((camera.x - camera.x[middle]) ** 2 + (camera.y - camera.y[middle]) ** 2) / 0.5)
    return images.astype(np.float32)


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("neighbours", [0, 1, 2, 3])
@pytest.mark.parametrize(("picture", "boundary"), [(14, 7), (10, 5), (6, 6)])
def test_masks_are_those_of_ctapipe(camera, geometry, picture, boundary, neighbours, isolated):
    images = noise(camera)
    mask = tailcuts(
        images, camera, picture=picture, boundary=boundary, min_neighbours=neighbours, keep_isolated=isolated
    )
    expected = [tailcuts_clean(geometry, image, picture, boundary, isolated, neighbours) for image in images]
    assert mask.any() and not mask.all()
    np.testing.assert_array_equal(mask, expected)


def test_a_pixel_exactly_at_the_threshold_is_kept(camera):
    image = np.zeros((1, camera.n_pixels), np.float32)
    image[0, 0], image[0, camera.neighbours[0, 0]] = 14, 7
    assert tailcuts(image, camera, picture=14, boundary=7).sum() == 2


def test_missing_pixels_are_never_kept_and_light_beside_them_is(camera):
    image = np.full((1, camera.n_pixels), np.nan, np.float32)
    image[0, 0], image[0, camera.neighbours[0, 0]] = 20, 20
    mask = tailcuts(image, camera, picture=14, boundary=7)
    assert sorted(np.flatnonzero(mask[0])) == sorted([0, camera.neighbours[0, 0]])


def test_no_images_give_no_masks(camera):
    assert tailcuts(np.empty((0, 0), np.float32), camera, picture=14, boundary=7).shape == (0, camera.n_pixels)


@pytest.mark.parametrize(("picture", "boundary"), [(7, 14), (np.nan, 7), (14, 0), (14, -1)])
def test_senseless_thresholds_are_refused(camera, picture, boundary):
    with pytest.raises(UsageError):
        tailcuts(noise(camera, 1), camera, picture=picture, boundary=boundary)


def test_images_of_another_camera_are_refused(camera):
    with pytest.raises(UsageError, match="560 pixels"):
        tailcuts(np.zeros((2, 37), np.float32), camera, picture=14, boundary=7)


def test_a_cleaning_is_named_by_its_thresholds():
    assert tailcuts_name(14.0, 7.0) == "tailcuts-14-7"
    assert tailcuts_name(8.5, 4.25) == "tailcuts-8.5-4.25"

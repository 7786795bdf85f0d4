"""Tail cuts against ctapipe's, image by image."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from ctapipe.image.cleaning import apply_time_delta_cleaning, tailcuts_clean
from ctapipe.image.morphology import largest_island, number_of_islands
from ctapipe.instrument import CameraGeometry as CtapipeGeometry

from apbatch.camera.cleaning import PRESETS, Cleaning, clean, cleaning_named
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.hillas import PARAMETERS, clean_and_parametrise, hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.islands import label_islands
from apbatch.errors import NotFoundError, UsageError


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
    mask = clean(images, camera, Cleaning("tailcuts", picture, boundary, neighbours, isolated))
    expected = [tailcuts_clean(geometry, image, picture, boundary, isolated, neighbours) for image in images]
    assert mask.any() and not mask.all()
    np.testing.assert_array_equal(mask, expected)


def test_a_pixel_exactly_at_the_threshold_is_kept(camera):
    image = np.zeros((1, camera.n_pixels), np.float32)
    image[0, 0], image[0, camera.neighbours[0, 0]] = 14, 7
    assert clean(image, camera, PRESETS["standard"]).sum() == 2


def test_missing_pixels_are_never_kept_and_light_beside_them_is(camera):
    image = np.full((1, camera.n_pixels), np.nan, np.float32)
    image[0, 0], image[0, camera.neighbours[0, 0]] = 20, 20
    mask = clean(image, camera, PRESETS["standard"])
    assert sorted(np.flatnonzero(mask[0])) == sorted([0, camera.neighbours[0, 0]])


def test_no_images_give_no_masks(camera):
    assert clean(np.empty((0, 0), np.float32), camera, PRESETS["standard"]).shape == (0, camera.n_pixels)


@pytest.mark.parametrize(("picture", "boundary"), [(7, 14), (np.nan, 7), (14, 0), (14, -1)])
def test_senseless_thresholds_are_refused(picture, boundary):
    with pytest.raises(UsageError):
        Cleaning("tailcuts", picture, boundary)


def test_images_of_another_camera_are_refused(camera):
    with pytest.raises(UsageError, match="560 pixels"):
        clean(np.zeros((2, 37), np.float32), camera, PRESETS["standard"])


@pytest.mark.parametrize("level", [(3, 2), (6, 1)], ids=["few pixels reach it", "most pixels reach it"])
def test_masks_are_those_of_ctapipe_also_where_hundreds_of_pixels_reach_the_boundary(camera, geometry, level):
    images = noise(camera, 20, seed=2)
    assert ((images >= level[1]).sum(axis=1) > 64).any()
    for neighbours in (0, 2):
        mask = clean(images, camera, Cleaning("tailcuts", *level, neighbours))
        np.testing.assert_array_equal(mask, [tailcuts_clean(geometry, i, *level, False, neighbours) for i in images])


@pytest.mark.parametrize("per_image", [False, True])
def test_sigma_levels_follow_the_noise_of_each_pixel(camera, geometry, per_image):
    images = noise(camera)
    sigma = np.random.default_rng(3).uniform(1, 6, images.shape if per_image else camera.n_pixels)
    mask = clean(images, camera, Cleaning("sigma", 3, 1.5), noise=sigma)
    rows = np.broadcast_to(sigma, images.shape)
    expected = [tailcuts_clean(geometry, image, 3 * row, 1.5 * row) for image, row in zip(images, rows, strict=True)]
    assert mask.any() and not np.array_equal(mask, clean(images, camera, Cleaning("tailcuts", 9, 4.5)))
    np.testing.assert_array_equal(mask, expected)


def test_a_pixel_without_known_noise_is_never_kept(camera):
    images = np.full((1, camera.n_pixels), 50, np.float32)
    sigma = np.full(camera.n_pixels, 2.0)
    sigma[[4, 5, 6]] = np.nan, 0, -1
    mask = clean(images, camera, Cleaning("sigma", 3, 1.5), noise=sigma)
    assert np.flatnonzero(~mask[0]).tolist() == [4, 5, 6]


@pytest.mark.parametrize("least", [1, 2])
def test_pixels_without_neighbours_of_their_time_are_dropped_as_by_ctapipe(camera, geometry, least):
    images = noise(camera)
    rng = np.random.default_rng(4)
    times = rng.normal(20, 2, images.shape).astype(np.float32)
    times[rng.random(images.shape) < 0.05] = np.nan
    mask = clean(
        images, camera, Cleaning("time-neighbours", 8, 4, time_limit=1.5, time_neighbours=least), peak_time=times
    )
    first = clean(images, camera, Cleaning("tailcuts", 8, 4))
    expected = [apply_time_delta_cleaning(geometry, m, t, least, 1.5) for m, t in zip(first, times, strict=True)]
    assert mask.any() and not np.array_equal(mask, first)
    np.testing.assert_array_equal(mask, expected)


def test_islands_are_those_of_ctapipe(camera, geometry):
    mask = clean(noise(camera), camera, Cleaning("tailcuts", 6, 3))
    found = [number_of_islands(geometry, one)[1] for one in mask]
    assert max(one.max() for one in found) > 3
    np.testing.assert_array_equal(label_islands(mask, camera), found)


def test_only_the_largest_island_stays(camera, geometry):
    images = noise(camera)
    kept = clean(images, camera, Cleaning("tailcuts", 6, 3, largest_island=True))
    mask = clean(images, camera, Cleaning("tailcuts", 6, 3))
    expected = [largest_island(number_of_islands(geometry, one)[1]) for one in mask]
    assert not np.array_equal(kept, mask)
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize(
    "cleaning",
    [
        Cleaning("tailcuts", 14, 7), Cleaning("tailcuts", 6, 3, 2), Cleaning("tailcuts", 6, 3, keep_isolated=True),
        Cleaning("tailcuts", 5, 1), Cleaning("tailcuts", 6, 3, largest_island=True),
    ],
    ids=lambda cleaning: cleaning.name,
)  # fmt: skip
def test_one_pass_gives_what_cleaning_and_parameters_give(camera, cleaning):
    images = noise(camera, 150)
    images[3] = 0
    images[5], images[6, ::7], images[7, 11] = np.nan, np.inf, -np.inf
    mask, found = clean_and_parametrise(images, camera, cleaning, source=(0.3, -0.2))
    np.testing.assert_array_equal(mask, clean(images, camera, cleaning))
    expected = hillas(images, camera, mask, source=(0.3, -0.2))
    assert tuple(found) == PARAMETERS
    for name in PARAMETERS:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_limit_is_more_than_nothing_and_finite(limit: float) -> None:
    with pytest.raises(UsageError, match="is not a time limit"):
        Cleaning("time-neighbours", 8, 4, time_limit=limit)


@pytest.mark.parametrize("cleaning", [Cleaning("sigma", 3, 1.5), Cleaning("time-neighbours", 8, 4, time_limit=2)])
def test_what_a_cleaning_needs_and_is_not_given_is_told(camera, cleaning):
    with pytest.raises(UsageError, match="needs the"):
        clean(noise(camera, 1), camera, cleaning)


@pytest.mark.parametrize(
    ("cleaning", "name"),
    [
        (Cleaning("tailcuts", 14.0, 7.0), "tailcuts-14-7"),
        (Cleaning("tailcuts", 8.5, 4.25, 2, largest_island=True), "tailcuts-8.5-4.25-n2-largest"),
        (Cleaning("sigma", 3, 1.5, keep_isolated=True), "sigma-3-1.5-isolated"),
        (Cleaning("time-neighbours", 7, 3.5, time_limit=2.5, time_neighbours=2), "time-neighbours-7-3.5-t2.5x2"),
    ],
)
def test_a_cleaning_is_found_by_its_name(cleaning, name):
    assert cleaning.name == name
    assert cleaning_named(name) == cleaning


def test_the_soft_cleaning_has_half_the_thresholds_of_the_standard_one():
    assert cleaning_named("soft").name == "tailcuts-7-3.5"
    assert cleaning_named("standard").name == "tailcuts-14-7"


def test_an_unknown_cleaning_names_the_nearest():
    with pytest.raises(NotFoundError) as raised:
        cleaning_named("sofd")
    assert raised.value.nearest == "soft"

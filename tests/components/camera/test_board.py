"""Sets of pixels as bits against plain rules over lists of neighbours, on cameras of all shapes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from apbatch.camera.cleaning import Cleaning, clean
from apbatch.camera.geometry import CameraGeometry, camera_from_positions
from apbatch.camera.hillas import clean_and_parametrise, hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.islands import label_islands
from apbatch.errors import UsageError

Mask = npt.NDArray[np.bool_]


def lattice(columns: int, rows: int, hexagonal: bool, holes: int = 0) -> CameraGeometry:
    """A slanted or square field of pixels in random order, some of them missing."""
    q, r = (axis.ravel() for axis in np.meshgrid(np.arange(columns), np.arange(rows)))
    order = np.random.default_rng(columns * rows).permutation(len(q))[holes:]
    x, y = (q + r / 2, np.sqrt(0.75) * r) if hexagonal else (q.astype(float), r.astype(float))
    return camera_from_positions("field", x[order], y[order], lattice="hexagonal" if hexagonal else "square")


CAMERAS = {
    "TAIGA": camera_named("TAIGA-IACT01"),
    "a few hexagons": lattice(4, 3, True),
    "long rows": lattice(150, 3, True, 17),
    "many rows": lattice(3, 150, True, 17),
    "a row of a word": lattice(63, 9, True),
    "squares": lattice(48, 48, False, 100),
    "squares in rows of a word": lattice(64, 5, False),
}


def near(flags: Mask, camera: CameraGeometry) -> npt.NDArray[np.int64]:
    """Count the neighbours of each pixel for which a flag is set."""
    padded = np.concatenate([flags, np.zeros((len(flags), 1), bool)], axis=1)
    return np.asarray(padded[:, camera.neighbours].sum(axis=2))


def by_the_rule(images: npt.NDArray[np.float32], camera: CameraGeometry, cleaning: Cleaning) -> Mask:
    """Two levels, written out."""
    reach, core = images >= cleaning.boundary, images >= cleaning.picture
    if cleaning.keep_isolated:
        return core | (reach & (near(core, camera) > 0))
    core &= near(core, camera) >= cleaning.min_neighbours
    return (core & (near(reach, camera) > 0)) | (reach & (near(core, camera) > 0))


@pytest.fixture(params=CAMERAS)
def camera(request: pytest.FixtureRequest) -> CameraGeometry:
    return CAMERAS[request.param]


@pytest.mark.parametrize("least", [0, 1, 3, 4, 6])
def test_masks_and_islands_are_those_of_plain_rules_at_any_density(camera: CameraGeometry, least: int) -> None:
    rng = np.random.default_rng(least)
    lit = rng.random((43, 1)) ** 2  # from dark images to full ones; 43 fills no block
    images = np.where(rng.random((43, camera.n_pixels)) < lit, rng.uniform(3, 12, (43, camera.n_pixels)), 0)
    images = images.astype(np.float32)
    images[3], images[4, ::3], images[5, 0] = 9, np.inf, np.nan
    for isolated in (False, True):
        cleaning = Cleaning("tailcuts", 8, 4, least, isolated)
        mask, found = clean_and_parametrise(images, camera, cleaning)
        np.testing.assert_array_equal(mask, by_the_rule(images, camera, cleaning))
        islands = label_islands(mask & np.isfinite(images), camera).max(axis=1)
        np.testing.assert_array_equal(found["n_islands"], islands)
        np.testing.assert_array_equal(found["n_pixels"], (mask & np.isfinite(images)).sum(axis=1))


def test_a_ring_is_one_island_and_what_stands_in_it_another() -> None:
    camera = CAMERAS["squares"]
    far = np.maximum(abs(camera.q - 20), abs(camera.r - 20))
    image = np.where((far == 4) | (far == 0), 10, 0).astype(np.float32)[None]
    assert hillas(image, camera)["n_islands"][0] == label_islands(image > 0, camera).max() >= 2


@pytest.mark.parametrize("offset", [0, 1, 63])
def test_masks_are_written_whole_wherever_their_memory_begins(offset: int) -> None:
    camera = CAMERAS["a few hexagons"]
    images = np.random.default_rng(1).uniform(0, 10, (21, camera.n_pixels)).astype(np.float32)
    memory = np.ones(images.size + 128, np.bool_)
    out = memory[offset : offset + images.size].reshape(images.shape)
    cleaning = Cleaning("tailcuts", 6, 4)
    clean_and_parametrise(images, camera, cleaning, out=out)
    np.testing.assert_array_equal(out, by_the_rule(images, camera, cleaning))
    assert memory[:offset].all() and memory[offset + images.size :].all()


def test_a_camera_of_more_pixels_than_numbers_of_two_bytes_is_refused() -> None:
    camera = lattice(257, 257, False)
    with pytest.raises(UsageError, match="65,536"):
        clean(np.zeros((1, camera.n_pixels), np.float32), camera, Cleaning("tailcuts", 8, 4))

"""Axial and shifted grids: nothing lost, nothing moved apart. The other methods: see test_grid_methods."""

from __future__ import annotations

import numpy as np
import pytest

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.grid import from_grid, grid_of, to_grid
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import UsageError


@pytest.fixture(scope="module", params=["TAIGA-IACT01", "TAIGA-IACT01-2017"])
def camera(request: pytest.FixtureRequest) -> CameraGeometry:
    return camera_named(request.param)


def images(camera: CameraGeometry) -> np.ndarray:
    return np.random.default_rng(2).normal(10, 5, (7, camera.n_pixels)).astype(np.float32)


@pytest.mark.parametrize("method", ["axial", "shifting"])
def test_the_way_back_is_exact(camera, method):
    there = to_grid(images(camera), camera, method=method)
    assert there.dtype == np.float32
    np.testing.assert_array_equal(from_grid(there, camera, method), images(camera))


@pytest.mark.parametrize("method", ["axial", "shifting"])
def test_the_grid_is_the_bounding_box_and_holds_nothing_else(camera, method):
    grid = grid_of(camera, method)
    there = to_grid(images(camera), camera, method=method)
    assert there.shape == (7, grid.rows, grid.cols)
    occupied = grid.occupied
    assert occupied.sum() == camera.n_pixels
    assert occupied.any(axis=1).all() and occupied.any(axis=0).all()
    assert not there[:, ~occupied].any()


def test_neighbours_in_the_camera_are_neighbours_in_the_grid(camera):
    grid = grid_of(camera)
    rows, cols = np.divmod(grid.place, grid.cols)
    for pixel in range(camera.n_pixels):
        near = camera.neighbours[pixel][camera.neighbours[pixel] >= 0]
        steps = set(zip((rows[near] - rows[pixel]).tolist(), (cols[near] - cols[pixel]).tolist(), strict=True))
        assert steps <= {(0, 1), (0, -1), (1, 0), (-1, 0), (1, -1), (-1, 1)}
        assert len(steps) == len(near)


def test_a_mask_leaves_only_what_it_keeps(camera):
    mask = images(camera) > 12
    there = to_grid(images(camera), camera, mask)
    np.testing.assert_array_equal(from_grid(there, camera), np.where(mask, images(camera), 0))


def test_pixels_without_a_measurement_become_0(camera):
    broken = images(camera)
    broken[0, 3] = np.nan
    there = to_grid(broken, camera)
    assert np.isfinite(there).all()
    assert from_grid(there, camera)[0, 3] == 0


def test_no_images_give_no_grids(camera):
    assert to_grid(np.empty((0, 0), np.float32), camera).shape[0] == 0


def test_an_unknown_method_names_the_nearest(camera):
    with pytest.raises(UsageError, match="did you mean 'axial'"):
        grid_of(camera, "axail")


def test_grids_of_another_shape_are_refused(camera):
    with pytest.raises(UsageError, match="not of shape"):
        from_grid(np.zeros((1, 5, 5), np.float32), camera)

"""Grids against those of dl1-data-handler, which CTLearn uses."""

from __future__ import annotations

import numpy as np
import pytest

from apbatch.bench.case import Operation
from apbatch.bench.cases import grids
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.grid import grid_of
from apbatch.camera.instruments.registry import camera_named
from tests.synthetic import disc

mapper = pytest.importorskip("dl1_data_handler.image_mapper", reason="pip install --no-deps dl1-data-handler")

FINE = ("nearest", "bilinear", "bicubic", "rebinning")


CAMERAS = {"TAIGA-IACT01": camera_named("TAIGA-IACT01"), "odd": disc(4.6), "even": disc(5.0, upright=False)}


def peer_matrix(camera: CameraGeometry, method: str) -> np.ndarray:
    """Return dl1-data-handler's map, shape (rows, cols, n_pixels), the right way up."""
    names = {"nearest": "NearestNeighbor", "rebinning": "Rebin"}
    kind = getattr(mapper, f"{names.get(method, method.capitalize())}Mapper")
    if method in FINE:  # some cameras get one row and column less there; its own option for this is not obeyed
        kind = type(kind.__name__, (kind,), {"interpolation_image_shape": grid_of(camera, method).rows})
    made = kind(grids.peer_geometry(camera), subarray=None)
    matrix = np.asarray(made.mapping_table.todense()).reshape(-1, made.image_shape, made.image_shape)
    return matrix.transpose(1, 2, 0)[::-1]


def boxed(matrix: np.ndarray) -> np.ndarray:
    """Cut off rows and columns that no pixel reaches: its squares are padded."""
    some = matrix.any(axis=2)
    rows, cols = np.flatnonzero(some.any(axis=1)), np.flatnonzero(some.any(axis=0))
    return matrix[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


# Its oversampling fails for cameras of these shapes; ours is held to its definition in the unit tests.
@pytest.mark.parametrize("method", ["axial", "shifting"])
@pytest.mark.parametrize("name", ["TAIGA-IACT01", "odd", "even"])
def test_pixels_go_where_dl1_data_handler_puts_them(name, method):
    wanted = boxed(peer_matrix(CAMERAS[name], method))
    grid = grid_of(CAMERAS[name], method)
    np.testing.assert_array_equal(grid.matrix.reshape(grid.rows, grid.cols, -1), wanted)


@pytest.mark.parametrize(
    ("name", "method"),
    [*((name, method) for name in ("odd", "even") for method in FINE), ("TAIGA-IACT01", "bilinear")],
)
def test_cells_are_made_of_what_dl1_data_handler_makes_them_of(name, method):
    camera = CAMERAS[name]
    wanted = peer_matrix(camera, method)
    found = grid_of(camera, method).matrix.reshape(wanted.shape)
    if method == "bilinear":  # points on the outer border of its mesh get into its normalisation
        wanted = wanted * (camera.n_pixels / wanted.sum())
    tolerance = {"nearest": 0, "bilinear": 1e-5, "bicubic": 1e-5, "rebinning": 1e-6}[method]
    differs = np.abs(found - wanted).max(axis=2) > tolerance
    # Points on a border between pixels or triangles may fall on either side.
    assert differs.mean() <= {"nearest": 0.05, "bilinear": 0, "bicubic": 0.02, "rebinning": 0.2}[method]
    assert method != "rebinning" or np.abs(found - wanted).max() < 0.11


def test_the_benchmark_measures_a_peer_that_does_the_same_work():
    camera = camera_named("TAIGA-IACT01")
    images = np.random.default_rng(1).exponential(3, (300, camera.n_pixels)).astype(np.float32)
    operation = Operation("grids", "bilinear", "", "images/s", 300.0)
    ours = grids._Ours(operation, images, camera, grid_of(camera, "bilinear"))
    peer = grids._Peer(operation, images, grids._peer(camera, "bilinear"))
    for case in (ours, peer):
        case.prepare()
        case.run()
        case.check()
    np.testing.assert_allclose(ours.out.sum(axis=(1, 2)), peer.out.sum(axis=(1, 2)), rtol=0.05)

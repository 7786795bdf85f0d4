"""Every grid method against its definition written plainly. Against dl1-data-handler: test_grid_peer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import Delaunay, cKDTree

from apbatch.camera.geometry import CameraGeometry, camera_from_positions
from apbatch.camera.grid import METHODS, from_grid, grid_of, to_grid
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import UsageError
from tests.synthetic import disc

FINE = ("nearest", "bilinear", "bicubic", "rebinning")
#: Nearer than this to a border between pixels or triangles, rounding decides on which side a point lies.
ON_BORDER = 1e-6


CAMERAS = {
    "TAIGA-IACT01-2017": camera_named("TAIGA-IACT01-2017"),  # turned by 37.5 degrees: rows 7.5 degrees off y
    "odd": disc(4.6),
    "even": disc(5.0, upright=False),
}


@pytest.fixture(params=list(CAMERAS))
def camera(request: pytest.FixtureRequest) -> CameraGeometry:
    return CAMERAS[request.param]


def plain_points(camera: CameraGeometry, each: int = 1) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the points of the fine grid (axes `first`, `second` in pitches, as documented) and turned pixels."""
    near = np.hypot(camera.x - camera.x[:, None], camera.y - camera.y[:, None]) < 1.1 * camera.pitch
    i, j = np.nonzero(near & ~np.eye(camera.n_pixels, dtype=bool))
    directions = np.degrees(np.arctan2(camera.y[j] - camera.y[i], camera.x[j] - camera.x[i]))
    to_x = directions[np.argmin(np.abs(directions))]
    to_y = directions[np.argmin(np.abs(directions - 90))] - 90
    upright = abs(to_x) < abs(to_y)
    turn = -np.radians(to_x if upright else to_y)
    x = (np.cos(turn) * camera.x - np.sin(turn) * camera.y) / camera.pitch
    y = (np.sin(turn) * camera.x + np.cos(turn) * camera.y) / camera.pitch
    first, second = (y, x) if upright else (x, y)
    pixels = np.column_stack([first - first.min(), second - second.min()])
    n_rows = round(pixels[:, 0].max() / np.sqrt(0.75)) + 1
    n_halves = round(pixels[:, 1].max() / 0.5) + 1
    m = max(n_rows, int(np.ceil(n_halves / 2)))
    extra = int(np.ceil((m - n_rows) / 2)), int(np.ceil((2 * m - n_halves) / 2))
    index = np.arange(3 * each, (2 * m + 3) * each) / (each * (2 * m + 6) - 1)
    rows = np.sqrt(0.75) * (index * (m + 5) - 3 - extra[0])
    halves = 0.5 * (index * (2 * m + 11) - 6 - extra[1])
    points = np.column_stack([axis.ravel() for axis in np.meshgrid(rows, halves, indexing="ij")])
    return points, pixels, upright


def with_surroundings(pixels: np.ndarray) -> np.ndarray:
    """Return the pixels and behind them the lattice points around the camera, six pitches wide."""
    half = np.rint(pixels[:, 1] / 0.5).astype(int)
    row = np.rint(pixels[:, 0] / np.sqrt(0.75)).astype(int)
    taken = set(zip(row.tolist(), half.tolist(), strict=True))
    parity = (row[0] + half[0]) % 2
    around = [
        (i * np.sqrt(0.75), j * 0.5)
        for i in range(-8, row.max() + 9)
        for j in range(-16, half.max() + 17)
        if (i + j) % 2 == parity and (i, j) not in taken
    ]
    return np.vstack([pixels, around])


def barycentric(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the weights of three corners, shape (n, 3, 2), at n points."""
    ones = np.ones((len(points), 3, 1))
    equations = np.concatenate([corners, ones], axis=2).swapaxes(1, 2)
    return np.linalg.solve(equations, np.concatenate([points, ones[:, 0]], axis=1)[:, :, None])[:, :, 0]


def upright_matrix(camera: CameraGeometry, method: str) -> np.ndarray:
    """Return what the grid says, shape (rows, cols, n_pixels), with the pixels' rows as rows."""
    grid = grid_of(camera, method)
    matrix = grid.matrix.reshape(grid.rows, grid.cols, -1)
    return matrix if plain_points(camera)[2] else matrix.transpose(1, 0, 2)


def differing(camera: CameraGeometry, method: str, wanted: np.ndarray, undecided: np.ndarray) -> np.ndarray:
    found = upright_matrix(camera, method).reshape(wanted.shape)
    return np.abs(found - wanted).max(axis=1)[~undecided]


def test_nearest_takes_the_nearest_pixel(camera):
    points, pixels, _ = plain_points(camera)
    distance, index = cKDTree(with_surroundings(pixels)).query(points, k=2)
    wanted = np.zeros((len(points), camera.n_pixels + 1))
    wanted[np.arange(len(points)), np.minimum(index[:, 0], camera.n_pixels)] = 1
    undecided = distance[:, 1] - distance[:, 0] < ON_BORDER
    assert undecided.mean() < 0.1
    assert differing(camera, "nearest", wanted[:, :-1], undecided).max() == 0


def test_rebinning_counts_points_by_their_nearest_pixel(camera):
    points, pixels, _ = plain_points(camera, each=10)
    side = round(len(points) ** 0.5) // 10
    distance, index = cKDTree(with_surroundings(pixels)).query(points, k=2)
    cells = np.minimum(index[:, 0], camera.n_pixels).reshape(side, 10, side, 10).swapaxes(1, 2).reshape(-1, 100)
    wanted = np.stack([np.bincount(cell, minlength=camera.n_pixels + 1) / 100 for cell in cells])
    border = (distance[:, 1] - distance[:, 0] < ON_BORDER).reshape(side, 10, side, 10).any(axis=(1, 3)).ravel()
    assert border.mean() < 0.4
    assert differing(camera, "rebinning", wanted[:, :-1], border).max() < 1e-6


def test_bilinear_is_barycentric_in_delaunay_triangles_and_keeps_the_sum_on_average(camera):
    points, pixels, _ = plain_points(camera)
    everywhere = with_surroundings(pixels)
    mesh = Delaunay(everywhere)
    wanted = np.zeros((len(points), len(everywhere)))
    corners = mesh.simplices[mesh.find_simplex(points)]
    np.put_along_axis(wanted, corners, barycentric(everywhere[corners], points), axis=1)
    wanted = wanted[:, : camera.n_pixels]
    wanted *= camera.n_pixels / wanted.sum()
    assert differing(camera, "bilinear", wanted, np.zeros(len(points), bool)).max() < 1e-6


def test_bicubic_is_the_mean_over_the_triangles_around_the_point_and_around_its_neighbours(camera):
    points, pixels, _ = plain_points(camera)
    everywhere = with_surroundings(pixels)
    mesh = Delaunay(everywhere)

    triangle = mesh.find_simplex(points)
    border = barycentric(everywhere[mesh.simplices[triangle]], points).min(axis=1) < ON_BORDER
    wanted = np.zeros((len(points), len(everywhere)))
    for middle in (triangle, *mesh.neighbors[triangle].T):
        # Of each triangle next to the middle one, the corner that the two do not share.
        around = mesh.simplices[mesh.neighbors[middle]]
        shared = (around[:, :, :, None] == mesh.simplices[middle][:, None, None, :]).any(axis=3)
        corners = around[~shared].reshape(len(points), 3)
        weights = barycentric(everywhere[corners], points) / 4
        weights[(mesh.simplices[middle] >= camera.n_pixels).all(axis=1)] = 0
        for column in range(3):
            wanted[np.arange(len(points)), corners[:, column]] += weights[:, column]
    assert border.mean() < 0.1
    assert differing(camera, "bicubic", wanted[:, : camera.n_pixels], border).max() < 1e-6


def test_oversampling_gives_each_pixel_four_quarters_side_by_side(camera):
    _, pixels, _ = plain_points(camera)
    row, half = np.rint(pixels / [np.sqrt(0.75), 0.5]).astype(int).T
    wanted = np.zeros((2 * row.max() + 2, half.max() + 2, camera.n_pixels))
    for pixel in range(camera.n_pixels):
        for i in (0, 1):
            for j in (0, 1):
                wanted[2 * row[pixel] + i, half[pixel] + j, pixel] = 0.25
    np.testing.assert_array_equal(upright_matrix(camera, "oversampling"), wanted)


def test_shifting_moves_every_other_row_by_half_a_pixel(camera):
    _, pixels, _ = plain_points(camera)
    row, half = np.rint(pixels / [np.sqrt(0.75), 0.5]).astype(int).T
    found = upright_matrix(camera, "shifting")
    assert set(np.unique(found)) == {0, 1} and (found.sum(axis=(0, 1)) == 1).all()
    to_row, to_col = np.array([np.argwhere(found[:, :, pixel])[0] for pixel in range(camera.n_pixels)]).T
    np.testing.assert_array_equal(to_row, row)
    moved = half - 2 * to_col
    assert len(np.unique(moved)) == 2
    for one in np.unique(row):
        assert len(np.unique(moved[row == one])) == 1
        assert (np.abs(moved[row == one][0] - moved[np.abs(row - one) == 1]) == 1).all()


@pytest.mark.parametrize("method", FINE)
def test_the_picture_is_that_of_the_sky(camera, method):
    """A bright pixel lands where it lies: further right in later columns, further up in later rows."""
    images = np.eye(camera.n_pixels, dtype=np.float32)
    grids = to_grid(images, camera, method=method).astype(np.float64)
    rows, cols = np.indices(grids.shape[1:])
    light = grids.sum(axis=(1, 2))
    inner = ~camera.edge & (light > 0)
    col, row = ((grids * axis).sum(axis=(1, 2))[inner] / light[inner] for axis in (cols, rows))
    assert np.corrcoef(col, camera.x[inner])[0, 1] > 0.98
    assert np.corrcoef(row, camera.y[inner])[0, 1] > 0.98


@pytest.mark.parametrize("method", FINE)
def test_even_light_stays_even_inside_the_camera(camera, method):
    grid = to_grid(np.ones((1, camera.n_pixels), np.float32), camera, method=method)[0]
    middle = grid[grid.shape[0] // 2 - 2 : grid.shape[0] // 2 + 2, grid.shape[1] // 2 - 2 : grid.shape[1] // 2 + 2]
    np.testing.assert_allclose(middle, middle[0, 0], rtol=1e-5)
    if method != "bilinear":  # which is scaled to keep the sum
        np.testing.assert_allclose(middle, 1, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_sums_are_kept_as_documented(camera, method):
    image = np.random.default_rng(5).exponential(10, (1, camera.n_pixels)).astype(np.float32)
    total = to_grid(image, camera, method=method).sum(dtype=float)
    if method in ("axial", "shifting", "oversampling"):
        assert total == pytest.approx(image.sum(dtype=float), rel=1e-6)
    if method == "bilinear":
        flat = np.ones((1, camera.n_pixels), np.float32)
        assert to_grid(flat, camera, method=method).sum(dtype=float) == pytest.approx(camera.n_pixels, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_images", [1, 15, 16, 17, 40])
def test_blocks_of_images_give_what_a_matrix_gives(camera, method, n_images):
    random = np.random.default_rng(n_images)
    images = random.normal(3, 5, (n_images, camera.n_pixels)).astype(np.float32)
    images[random.random(images.shape) < 0.1] = np.nan
    mask = random.random(images.shape) < 0.5
    for keep in (None, mask):
        seen = np.where(np.isnan(images) | (False if keep is None else ~keep), 0.0, images)
        wanted = seen @ grid_of(camera, method).matrix.T
        found = to_grid(images, camera, keep, method)
        np.testing.assert_allclose(found.reshape(n_images, -1), wanted, rtol=1e-5, atol=1e-5)


def test_a_given_array_is_written_into_and_nothing_old_stays(camera):
    images = np.random.default_rng(1).normal(10, 5, (3, camera.n_pixels)).astype(np.float32)
    grid = grid_of(camera, "bilinear")
    out = np.full((3, grid.rows, grid.cols), np.nan, np.float32)
    assert to_grid(images, camera, method="bilinear", out=out) is out
    np.testing.assert_array_equal(out, to_grid(images, camera, method="bilinear"))
    with pytest.raises(UsageError, match="contiguous float32"):
        to_grid(images, camera, method="bilinear", out=out[:2])


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic", "oversampling", "rebinning"])
def test_there_is_no_way_back_from_mixed_pixels(camera, method):
    grid = grid_of(camera, method)
    with pytest.raises(UsageError, match=r"no way back.*\n?.*axial"):
        from_grid(np.zeros((1, grid.rows, grid.cols), np.float32), camera, method)


@pytest.mark.parametrize("method", METHODS)
def test_square_pixels_keep_their_rows_and_columns(method):
    row, col = (axis.ravel() for axis in np.indices((5, 8)))
    camera = camera_from_positions("chess", col * 0.2, row * 0.2)
    images = np.arange(80, dtype=np.float32).reshape(2, 40)
    grids = to_grid(images, camera, method=method)
    np.testing.assert_array_equal(grids, images.reshape(2, 5, 8))
    np.testing.assert_array_equal(from_grid(grids, camera, method), images)

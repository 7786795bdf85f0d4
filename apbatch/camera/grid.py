"""Camera images on square grids, for networks that want rows and columns.

Every method is a sparse linear map from pixels to cells. ``axial``, ``shifting`` and ``oversampling`` give each pixel
cells of its own; ``nearest``, ``bilinear``, ``bicubic`` and ``rebinning`` lay a finer grid over the camera
(`apbatch.camera.interpolation`). Rows ascend with y and columns with x, so that row 0 is the lowest. A camera of square
pixels needs none of this: row and column are the pixel's own, whatever the method.

The methods are those of CTLearn (D. Nieto et al., arXiv:1912.09898) as dl1-data-handler 0.14 defines them, whose
pictures stand upside down against these and are padded to squares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from apbatch.camera import interpolation
from apbatch.camera.cleaning import of_camera
from apbatch.camera.geometry import CameraGeometry, Floats, Ints
from apbatch.camera.interpolation import Weights
from apbatch.camera.kernels import batch
from apbatch.camera.rows import Rows, rows_of
from apbatch.errors import UsageError, nearest_word

#: Known mappings.
METHODS = ("axial", "shifting", "nearest", "bilinear", "bicubic", "oversampling", "rebinning")

_FINE: dict[str, Callable[[Rows], Weights]] = {
    "nearest": interpolation.nearest,
    "bilinear": interpolation.bilinear,
    "bicubic": interpolation.bicubic,
    "rebinning": interpolation.rebinning,
}


@dataclass(frozen=True, eq=False)
class Grid:
    """How the pixels of a camera become the cells of a grid: ``cell = sum of weight * pixel``.

    Attributes
    ----------
    method : str
    rows, cols : int
    start : ndarray of int64, shape (rows * cols + 1,)
        Entries ``start[c]`` to ``start[c + 1]`` of the next two belong to cell c of the flattened grid.
    pixel : ndarray of int64, shape (n_entries,)
    weight : ndarray of float32, shape (n_entries,)
    place : ndarray of int64, shape (n_pixels,), or None
        Index of the pixel's cell in the flattened grid, where each pixel has one cell of its own.
    """

    method: str
    rows: int
    cols: int
    start: Ints
    pixel: Ints
    weight: npt.NDArray[np.float32]
    place: Ints | None

    @property
    def occupied(self) -> npt.NDArray[np.bool_]:
        """Cells that take something of a pixel, shape (rows, cols)."""
        return np.diff(self.start).reshape(self.rows, self.cols) > 0

    @property
    def matrix(self) -> Floats:
        """The map as a dense matrix, shape (rows * cols, n_pixels): for looking at, not for work."""
        n_pixels = int(self.pixel.max()) + 1
        matrix = np.zeros((self.rows * self.cols, n_pixels))
        matrix[np.repeat(np.arange(len(matrix)), np.diff(self.start)), self.pixel] = self.weight
        return matrix


@lru_cache(maxsize=64)
def grid_of(camera: CameraGeometry, method: str = "axial") -> Grid:
    """Return the grid of a camera.

    Parameters
    ----------
    camera : CameraGeometry
    method : str
        * ``axial``: the axial coordinates r and q of the hexagonal lattice are row and column. Neighbours stay
          neighbours (the third direction becomes a diagonal), no amplitude changes, the picture is sheared.
        * ``shifting``: the pixels' rows are rows, every other one of them moved by half a pixel:
          ``column = ⌊(half + k) / 2⌋`` (`apbatch.camera.rows`), less the smallest, where
          ``k = ⌈(2 n_rows - n_halves) / 2⌉`` says which rows move. No amplitude changes.
        * ``oversampling``: each pixel becomes 2 x 2 cells of a quarter of it (`interpolation.oversampling`).
        * ``nearest``, ``bilinear``, ``bicubic``, ``rebinning``: see the functions of these names in
          `apbatch.camera.interpolation`.

    Raises
    ------
    UsageError
        If there is no such method.
    """
    if method not in METHODS:
        raise UsageError(
            f"there is no grid method '{method}'",
            nearest=nearest_word(method, METHODS),
            remedy=f"methods are {', '.join(METHODS)}",
        )
    q, r = camera.q - camera.q.min(), camera.r - camera.r.min()
    if method == "axial" or camera.lattice == "square":
        return _one_to_one(method, r, q)
    rows = rows_of(camera)
    if method == "shifting":
        column = (rows.half - (rows.n_halves - 2 * rows.n_rows) // 2) // 2
        return _one_to_one(method, *((rows.row, column) if rows.upright else (column, rows.row)))
    if method == "oversampling":
        weights, n_rows, n_cols = interpolation.oversampling(rows)
    else:
        weights = _FINE[method](rows).real()
        n_rows = n_cols = interpolation.side_of(rows)
    return _grid(method, weights, n_rows, n_cols, rows.upright)


def _one_to_one(method: str, row: Ints, col: Ints) -> Grid:
    row, col = row - row.min(), col - col.min()
    n_rows, n_cols = int(row.max()) + 1, int(col.max()) + 1
    place = row * n_cols + col
    grid = _grid(method, Weights(place, np.arange(len(place)), np.ones(len(place))), n_rows, n_cols, True)
    return Grid(method, n_rows, n_cols, grid.start, grid.pixel, grid.weight, place)


def _grid(method: str, weights: Weights, n_rows: int, n_cols: int, upright: bool) -> Grid:
    """Sort weights by cell; rows that run along y become columns."""
    cell = weights.cell
    if not upright:
        cell = cell % n_cols * n_rows + cell // n_cols
        n_rows, n_cols = n_cols, n_rows
    order = np.lexsort((weights.pixel, cell))
    start = np.searchsorted(cell[order], np.arange(n_rows * n_cols + 1))
    weight = weights.weight[order].astype(np.float32)
    return Grid(method, n_rows, n_cols, start.astype(np.int64), weights.pixel[order], weight, None)


def to_grid(
    images: npt.NDArray[np.float32],
    camera: CameraGeometry,
    mask: npt.NDArray[np.bool_] | None = None,
    method: str = "axial",
    out: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """Map images onto the grid.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
    camera : CameraGeometry
    mask : ndarray of bool, shape (n_images, n_pixels), optional
        Pixels to take; the others become 0.
    method : str
        See `grid_of`.
    out : ndarray of float32, shape (n_images, rows, cols), optional
        Contiguous array to write into and return. With large cameras half of the time goes into memory that the system
        hands out anew; whoever maps many batches should give the same array again.

    Returns
    -------
    ndarray of float32, shape (n_images, rows, cols)
        0 in cells without a pixel, and where a pixel has no measurement (NaN): a network can't learn from NaN.

    Raises
    ------
    UsageError
        If there is no such method, or the arrays do not fit together.
    """
    grid = grid_of(camera, method)
    images = of_camera(images, camera)
    if mask is not None and mask.shape != images.shape:
        raise UsageError(f"the mask is of shape {mask.shape}, the images of shape {images.shape}")
    shape = (len(images), grid.rows, grid.cols)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise UsageError(f"grids of {camera.name} want a contiguous float32 array of shape {shape} to be written into")
    keep = None if mask is None else np.ascontiguousarray(mask, np.bool_)
    cells = out.reshape(len(images), grid.rows * grid.cols)
    batch.apply_map(images, keep, grid.start, grid.pixel, grid.weight, cells)
    return out


def from_grid(grids: npt.NDArray[np.float32], camera: CameraGeometry, method: str = "axial") -> npt.NDArray[np.float32]:
    """Map grids back onto the camera, where each pixel has one cell of its own: ``axial`` and ``shifting``.

    Parameters
    ----------
    grids : ndarray of float32, shape (n_images, rows, cols)
    camera : CameraGeometry
    method : str
        One of `METHODS` that gives each pixel a cell of its own.

    Returns
    -------
    ndarray of float32, shape (n_images, n_pixels)

    Raises
    ------
    UsageError
        If the grids are not of this camera, or the method mixes pixels.
    """
    grid = grid_of(camera, method)
    if grid.place is None:
        ways = [name for name in METHODS if grid_of(camera, name).place is not None]
        raise UsageError(f"there is no way back from '{method}' grids", remedy=f"there is from {', '.join(ways)}")
    if grids.ndim != 3 or grids.shape[1:] != (grid.rows, grid.cols):
        raise UsageError(f"grids of {camera.name} are {grid.rows} x {grid.cols}, not of shape {grids.shape}")
    return np.ascontiguousarray(grids.reshape(len(grids), -1)[:, grid.place], np.float32)

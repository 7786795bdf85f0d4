"""Hexagonal cameras on square grids: axial coordinates as rows and columns.

The three directions of a hexagonal lattice become the two axes and one diagonal of the grid: neighbours stay
neighbours, no amplitude is interpolated, and the way back is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning import of_camera
from apbatch.camera.geometry import CameraGeometry, Ints
from apbatch.camera.kernel import kernel
from apbatch.errors import UsageError, nearest_word

#: Known mappings.
METHODS = ("axial",)


@dataclass(frozen=True, eq=False)
class Grid:
    """Where each pixel of a camera goes.

    Attributes
    ----------
    rows, cols : int
        Shape, the bounding box of the axial coordinates r (rows) and q (columns).
    place : ndarray of shape (n_pixels,)
        Index of the pixel's cell in the flattened grid.
    """

    rows: int
    cols: int
    place: Ints

    @property
    def occupied(self) -> npt.NDArray[np.bool_]:
        """Cells that hold a pixel, shape (rows, cols)."""
        cells = np.zeros(self.rows * self.cols, bool)
        cells[self.place] = True
        return cells.reshape(self.rows, self.cols)


def grid_of(camera: CameraGeometry, method: str = "axial") -> Grid:
    """Return the grid of a camera.

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
    cols = int(q.max()) + 1
    return Grid(int(r.max()) + 1, cols, r * cols + q)


def to_grid(
    images: npt.NDArray[np.float32],
    camera: CameraGeometry,
    mask: npt.NDArray[np.bool_] | None = None,
    method: str = "axial",
) -> npt.NDArray[np.float32]:
    """Map images onto the grid.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
    camera : CameraGeometry
    mask : ndarray of bool, shape (n_images, n_pixels), optional
        Pixels to take; the others become 0.
    method : str

    Returns
    -------
    ndarray of float32, shape (n_images, rows, cols)
        0 in cells without a pixel, and where a pixel has no measurement (NaN): a network can't learn from NaN.
    """
    images = of_camera(images, camera)
    if mask is not None and mask.shape != images.shape:
        raise UsageError(f"the mask is of shape {mask.shape}, the images of shape {images.shape}")
    grid = grid_of(camera, method)
    keep = np.ones((1, 1), np.bool_) if mask is None else np.ascontiguousarray(mask, np.bool_)
    flat = _scatter(images, keep, mask is not None, grid.place, grid.rows * grid.cols)
    return flat.reshape(len(images), grid.rows, grid.cols)


def from_grid(grids: npt.NDArray[np.float32], camera: CameraGeometry, method: str = "axial") -> npt.NDArray[np.float32]:
    """Map grids back onto the camera.

    Parameters
    ----------
    grids : ndarray of float32, shape (n_images, rows, cols)

    Returns
    -------
    ndarray of float32, shape (n_images, n_pixels)

    Raises
    ------
    UsageError
        If the grids are not of this camera.
    """
    grid = grid_of(camera, method)
    if grids.ndim != 3 or grids.shape[1:] != (grid.rows, grid.cols):
        raise UsageError(f"grids of {camera.name} are {grid.rows} x {grid.cols}, not of shape {grids.shape}")
    return np.ascontiguousarray(grids.reshape(len(grids), -1)[:, grid.place], np.float32)


@kernel
def _scatter(
    images: npt.NDArray[np.float32], keep: npt.NDArray[np.bool_], masked: bool, place: Ints, cells: int
) -> npt.NDArray[np.float32]:
    n_images, n_pixels = images.shape
    out = np.zeros((n_images, cells), np.float32)
    for i in range(n_images):
        for p in range(n_pixels):
            value = images[i, p]
            if not np.isnan(value) and (not masked or keep[i, p]):
                out[i, place[p]] = value
    return out

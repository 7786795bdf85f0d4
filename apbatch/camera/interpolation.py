"""Square grids laid over a hexagonal camera: how much of which pixel each cell takes.

Every method is a sparse linear map, one (cell, pixel, weight) after the other. The grid of points is that of
CTLearn [1]_ as dl1-data-handler 0.14 lays it, so that a network trained there sees the same picture here. With
``m = max(n_rows, ⌈n_halves / 2⌉)`` it has ``N = 2 m`` points a side (there some cameras get one less), at, with rows
and half pixels as in `apbatch.camera.rows`,

``row(i)  = -3 + 3 s + i s - ⌈(m - n_rows) / 2⌉`` with ``s = (m + 5) / (2 m + 5)``, rows,
``half(j) = -6 + 3 t + j t - ⌈(2 m - n_halves) / 2⌉`` with ``t = (2 m + 11) / (2 m + 5)``, half pixels.

Cells are 0.5 pixels long and 0.43 high, so that pictures are 13 % shorter along the rows than they are high. Where the
lattice goes on but the camera has no pixel, the amplitude is 0.

References
----------
.. [1] D. Nieto et al., "Studying deep convolutional neural networks with hexagonal lattices for imaging atmospheric
   Cherenkov telescope event reconstruction", PoS(ICRC2019)753, arXiv:1912.09898.
.. [2] I. Shilon et al., "Application of deep learning methods to analysis of imaging atmospheric Cherenkov telescopes
   data", Astropart. Phys. 105 (2019) 44, arXiv:1803.10698.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apbatch.camera.geometry import Floats, Ints
from apbatch.camera.rows import Rows

#: Rebinning looks at so many points a side of each cell.
SUBPOINTS = 10
#: Points of the grid that CTLearn lays around the camera and cuts off again.
_PAD = 3
#: The four triangles of `bicubic`, around the unit triangle (0, 0), (1, 0), (0, 1) and its three neighbours: the unit
#: triangle itself in axial steps, and the corners between which is interpolated.
_TRIANGLES = (
    (((0, 0), (1, 0), (0, 1)), ((1, 1), (-1, 1), (1, -1))),
    (((1, 0), (0, 1), (1, 1)), ((0, 0), (2, 0), (0, 2))),
    (((0, 0), (0, 1), (-1, 1)), ((1, 0), (-1, 2), (-1, 0))),
    (((0, 0), (1, 0), (1, -1)), ((0, 1), (2, -1), (0, -1))),
)


@dataclass(frozen=True, eq=False)
class Weights:
    """What each cell is made of: entries in any order.

    Attributes
    ----------
    cell : ndarray of int64, shape (n_entries,)
    pixel : ndarray of int64, shape (n_entries,)
        -1 where the camera has none.
    weight : ndarray of float64, shape (n_entries,)
    """

    cell: Ints
    pixel: Ints
    weight: Floats

    def real(self) -> Weights:
        """Return the entries that count: of pixels, and not 0."""
        keep = (self.pixel >= 0) & (self.weight != 0)
        return Weights(self.cell[keep], self.pixel[keep], self.weight[keep])


def side_of(rows: Rows) -> int:
    """Return the number of points a side of the grid."""
    return 2 * max(rows.n_rows, (rows.n_halves + 1) // 2)


def axes_of(rows: Rows, points: int = 1) -> tuple[Floats, Floats]:
    """Return where the points of the grid lie.

    Parameters
    ----------
    rows : Rows
    points : int
        Points a cell, along each side.

    Returns
    -------
    row, half : ndarray of float64, shape (points * side,)
        In rows and in half steps.
    """
    side = side_of(rows)
    first = -(-(side // 2 - rows.n_rows) // 2) + _PAD
    second = -(-(side - rows.n_halves) // 2) + 2 * _PAD
    steps = points * (side + 2 * _PAD) - 1
    index = np.arange(points * _PAD, points * (_PAD + side))
    row = index * ((side // 2 + 2 * _PAD - 1) / steps) - first
    half = index * ((side + 4 * _PAD - 1) / steps) - second
    return row, half


def nearest(rows: Rows) -> Weights:
    """Each cell takes the pixel nearest to its point, with weight 1."""
    row, half = _points(rows)
    corner, weight = _triangle(rows, row, half)
    return Weights(np.arange(len(row)), _nearest(rows, corner, weight), np.ones(len(row)))


def bilinear(rows: Rows) -> Weights:
    """Interpolate between the three pixels around a point (barycentric weights in the Delaunay triangle).

    ``w_k = area of (point, the other two corners) / area of the triangle``. All weights are then multiplied by one
    factor, so that they sum to the number of pixels: the sum of an image is kept on average.
    """
    row, half = _points(rows)
    corner, weight = _triangle(rows, row, half)
    pixel = np.column_stack([_pixel(rows, *corner[:, k].T) for k in range(3)])
    cell = np.repeat(np.arange(len(row)), 3)
    weights = Weights(cell, pixel.ravel(), weight.ravel()).real()
    return Weights(weights.cell, weights.pixel, weights.weight * (len(rows.row) / weights.weight.sum()))


def bicubic(rows: Rows) -> Weights:
    """Interpolate between twelve pixels around a point.

    The mean of four linear interpolations, each between the outer corners of a triangle of four: the one that has the
    point's own triangle in its middle, and the three that have one of its neighbours there. (Called bicubic for its
    support; it reproduces planes, and no polynomials of higher degree.) One of the four is left out (counts as 0)
    where the triangle in its middle has no pixel at its corners.
    """
    row, half = _points(rows)
    q, r = (half - row - rows.offset) / 2.0, row
    q0, r0 = np.floor(q).astype(np.int64), np.floor(r).astype(np.int64)
    q, r = q - q0, r - r0
    over = q + r > 1.0  # the other kind of triangle: the same, turned by half a circle
    sign = np.where(over, -1, 1)
    q0, r0 = q0 + over, r0 + over
    q, r = np.where(over, 1.0 - q, q), np.where(over, 1.0 - r, r)
    parts = []
    for middle, corners in _TRIANGLES:
        inside = np.zeros(len(q), bool)
        for dq, dr in middle:
            inside |= _pixel(rows, q0 + sign * dq, r0 + sign * dr) >= 0
        weight = np.linalg.inv(np.vstack([np.array(corners).T, np.ones(3)])) @ np.vstack([q, r, np.ones(len(q))])
        for (dq, dr), share in zip(corners, weight, strict=True):
            pixel = _pixel(rows, q0 + sign * dq, r0 + sign * dr)
            parts.append(Weights(np.arange(len(q)), pixel, np.where(inside, share / 4.0, 0.0)))
    return _joined(parts)


def rebinning(rows: Rows) -> Weights:
    """Each cell takes of each pixel the share that the pixel's hexagon has of the cell.

    Measured with `SUBPOINTS` x `SUBPOINTS` points a cell, each of which belongs to its nearest pixel: the mean
    amplitude over the cell.
    """
    row, half = _points(rows, SUBPOINTS)
    corner, weight = _triangle(rows, row, half)
    pixel = _nearest(rows, corner, weight)
    side = side_of(rows)
    index = np.arange(SUBPOINTS * side) // SUBPOINTS
    cell = (index[:, None] * side + index).ravel()
    stride = len(rows.row) + 1
    key, count = np.unique(cell * stride + pixel + 1, return_counts=True)
    return Weights(key // stride, key % stride - 1, count / SUBPOINTS**2)


def oversampling(rows: Rows) -> tuple[Weights, int, int]:
    """Split each pixel into 2 x 2 cells that hold a quarter of it each.

    Pixel (row, half) fills rows ``2 row`` and ``2 row + 1``, columns ``half`` and ``half + 1``. Every other row of
    pixels is moved by one cell, as in the camera; the picture is stretched along the rows.

    Returns
    -------
    weights : Weights
    rows, cols : int
        Shape of the grid, before it is turned for a camera that is not upright.
    """
    n_rows, n_cols = 2 * rows.n_rows, rows.n_halves + 1
    parts = []
    for i in (0, 1):
        for j in (0, 1):
            cell = (2 * rows.row + i) * n_cols + rows.half + j
            parts.append(Weights(cell, np.arange(len(cell)), np.full(len(cell), 0.25)))
    return _joined(parts), n_rows, n_cols


def _points(rows: Rows, points: int = 1) -> tuple[Floats, Floats]:
    row, half = axes_of(rows, points)
    return np.repeat(row, len(half)), np.tile(half, len(row))


def _triangle(rows: Rows, row: Floats, half: Floats) -> tuple[Ints, Floats]:
    """Return the lattice triangle around each point: corners (axial q, r), shape (n, 3, 2), and weights (n, 3)."""
    q, r = (half - row - rows.offset) / 2.0, row
    q0, r0 = np.floor(q).astype(np.int64), np.floor(r).astype(np.int64)
    q, r = q - q0, r - r0
    over = q + r > 1.0
    q_a, r_a = q0 + over, r0 + over
    corners = np.stack([np.stack([q_a, r_a], -1), np.stack([q0 + 1, r0], -1), np.stack([q0, r0 + 1], -1)], axis=1)
    weights = np.stack([np.abs(1.0 - q - r), np.where(over, 1.0 - r, q), np.where(over, 1.0 - q, r)], axis=-1)
    return corners, weights


def _nearest(rows: Rows, corner: Ints, weight: Floats) -> Ints:
    """Return the pixel nearest to each point: in an equilateral triangle the corner with the largest weight."""
    best = np.argmax(weight, axis=1)
    return _pixel(rows, *corner[np.arange(len(best)), best].T)


def _pixel(rows: Rows, q: Ints, r: Ints) -> Ints:
    """Return the pixel at axial coordinates of the rows' lattice, -1 where there is none."""
    board = rows.board(1)
    half = np.clip(2 * q + r + rows.offset + 1, 0, board.shape[1] - 1)
    return np.asarray(board[np.clip(r + 1, 0, board.shape[0] - 1), half])


def _joined(parts: list[Weights]) -> Weights:
    return Weights(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("cell", "pixel", "weight")))

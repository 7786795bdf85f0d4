"""Lattices on which the pixels of a camera lie: found from positions; neighbours by lattice coordinates.

Hexagonal pixels have axial coordinates (q, r) and six neighbours, square ones a column q and a row r and four
neighbours, those with which they share a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from apbatch.errors import FormatError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Lattice = Literal["hexagonal", "square"]

#: Steps (dq, dr) to the neighbours of a pixel.
DIRECTIONS: dict[Lattice, tuple[tuple[int, int], ...]] = {
    "hexagonal": ((1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1)),
    "square": ((1, 0), (0, 1), (-1, 0), (0, -1)),
}
#: How far a pixel may lie from its lattice point, in pitches, before the camera is refused.
_TOLERANCE = 0.3
#: Square pixels are neighbours up to this distance, in pitches: modules have gaps between them (ctapipe's rule).
_WIDEST_GAP = 1.5
#: Within this many pitches lie the first neighbours, and no second ones.
_FIRST_RING = 1.2
#: More points in a cell of the search grid, whose cells hold about four, mean that points coincide.
_CROWD = 256
#: Longer than this many times its width is no camera.
_LONGEST = 1000.0


@dataclass(frozen=True, eq=False)
class Placement:
    """A lattice found in the positions of pixels.

    Attributes
    ----------
    lattice : str
    q, r : ndarray of shape (n_pixels,)
        Lattice coordinates, smallest 0.
    pitch : float
        Distance of neighbouring pixels, in the unit of the positions.
    """

    lattice: Lattice
    q: Ints
    r: Ints
    pitch: float


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs of different points that lie near each other, each in both orders."""

    first: Ints
    dx: Floats
    dy: Floats

    @property
    def distance(self) -> Floats:
        return np.hypot(self.dx, self.dy)


def find_lattice(x: Floats, y: Floats, name: str = "camera", lattice: Lattice | None = None) -> Placement:
    """Find the lattice on which points lie.

    Parameters
    ----------
    x, y : ndarray of shape (n_pixels,)
        Finite positions.
    name : str
        For messages.
    lattice : str, optional
        ``hexagonal`` or ``square``; by default the one that fits the directions to the nearest points.

    Raises
    ------
    FormatError
        If the points do not lie on one, or two lie on the same place.
    """
    pairs = _pairs(x, y, name)
    nearest = np.full(len(x), np.inf)
    np.minimum.at(nearest, pairs.first, pairs.distance)
    pitch = float(np.median(nearest))
    if not 0 < pitch < np.inf:
        raise FormatError("two pixels lie on the same place, or most stand alone", where=name)
    near = pairs.distance < _FIRST_RING * pitch
    angles = np.arctan2(pairs.dy[near], pairs.dx[near])
    if lattice is None:
        six, four = (abs(np.exp(1j * fold * angles).mean()) for fold in (6, 4))
        lattice = "hexagonal" if six >= four else "square"
    find = _hexagonal if lattice == "hexagonal" else _square
    placement = find(x, y, pitch, angles, name)
    if len(np.unique(np.column_stack([placement.q, placement.r]), axis=0)) < len(x):
        raise FormatError("two pixels lie on the same place", where=name)
    return placement


def _pairs(x: Floats, y: Floats, name: str) -> _Pairs:
    """Find the pairs of points within about two pitches, by a grid of cells: the camera may have 10,000 pixels."""
    wide, high = float(np.ptp(x)), float(np.ptp(y))
    if not min(wide, high) * _LONGEST > max(wide, high):
        raise FormatError("the pixels lie on one line", where=name)
    reach = 2.0 * float(np.sqrt(wide / len(x) * high))
    column, row = ((axis - axis.min()) // reach for axis in (x, y))
    rows = int(row.max()) + 3
    cell = (column.astype(np.int64) + 1) * rows + row.astype(np.int64) + 1
    order = np.argsort(cell, kind="stable")
    ordered = cell[order]
    first, second = [], []
    for step in (a * rows + b for a in (-1, 0, 1) for b in (-1, 0, 1)):
        begin = np.searchsorted(ordered, cell + step)
        count = np.searchsorted(ordered, cell + step, side="right") - begin
        if count.max() > _CROWD:
            raise FormatError("two pixels lie on the same place", where=name)
        first.append(np.repeat(np.arange(len(x)), count))
        within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        second.append(order[np.repeat(begin, count) + within])
    one, other = np.concatenate(first), np.concatenate(second)
    different = one != other
    one, other = one[different], other[different]
    return _Pairs(one, x[other] - x[one], y[other] - y[one])


def _hexagonal(x: Floats, y: Floats, pitch: float, angles: Floats, name: str) -> Placement:
    """Axial coordinates: ``position = origin + q a + r b``.

    `a` is the lattice vector nearest above -15 degrees from the x axis, `b` 60 degrees further.
    """
    # Directions to neighbours repeat every 60 degrees: average them as angles of a sixfold figure.
    direction = float(np.angle(np.exp(6j * angles).mean())) / 6
    if direction < np.radians(-15):
        direction += np.pi / 3
    basis = pitch * np.array(
        [[np.cos(direction), np.sin(direction)], [np.cos(direction + np.pi / 3), np.sin(direction + np.pi / 3)]]
    )
    positions = np.column_stack([x, y])
    first = int(np.argmin(np.hypot(x - x.mean(), y - y.mean())))  # from the centre: errors grow with distance
    origin = positions[first]
    axial = np.zeros_like(positions)
    for _ in range(3):  # an error of the pitch adds up over the camera: fit the lattice, and round again
        axial = np.rint((positions - origin) @ np.linalg.inv(basis))
        design = np.column_stack([axial, np.ones(len(x))])
        solution, _, rank, _ = np.linalg.lstsq(design, positions, rcond=None)
        if rank < 3:
            raise FormatError("the pixels lie on one line", where=name)
        basis, origin = solution[:2], solution[2]
    off = np.hypot(*(positions - np.column_stack([axial, np.ones(len(x))]) @ solution).T)
    lengths = np.hypot(basis[:, 0], basis[:, 1])
    skew = float(basis[0] @ basis[1] / lengths.prod())
    worst = int(np.argmax(off))
    if off[worst] > _TOLERANCE * pitch or abs(skew - 0.5) > 0.05 or abs(lengths[0] / lengths[1] - 1) > 0.05:
        raise _no_lattice("hexagonal", worst, off[worst] / pitch, name)
    q, r = (axial - axial.min(axis=0)).astype(np.int64).T
    return Placement("hexagonal", q.copy(), r.copy(), float(lengths.mean()))


def _square(x: Floats, y: Floats, pitch: float, angles: Floats, name: str) -> Placement:
    """Columns and rows: places along the two axes that are shared up to a tolerance, whatever the gaps between."""
    direction = float(np.angle(np.exp(4j * angles).mean())) / 4
    cosine, sine = np.cos(direction), np.sin(direction)
    return Placement(
        "square",
        _places(cosine * x + sine * y, pitch, name),
        _places(cosine * y - sine * x, pitch, name),
        pitch,
    )


def _places(along: Floats, pitch: float, name: str) -> Ints:
    """Number the columns: where sorted positions jump by half a pitch, the next one begins."""
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    begins = steps > 0.5 * pitch
    column = np.concatenate([[0], np.cumsum(begins)])
    middle = np.bincount(column, along[order]) / np.bincount(column)
    off = np.abs(along[order] - middle[column])
    worst = int(np.argmax(off))
    if off[worst] > _TOLERANCE * pitch:
        raise _no_lattice("square", int(order[worst]), off[worst] / pitch, name)
    # A gap between modules is less than half a pitch wide; a wider one stands for missing columns.
    jumps = np.maximum(np.ceil(np.diff(middle) / pitch - (_WIDEST_GAP - 1)), 1)
    number = np.concatenate([[0], np.cumsum(jumps)]).astype(np.int64)
    out = np.empty(len(along), np.int64)
    out[order] = number[column]
    return out


def _no_lattice(lattice: Lattice, pixel: int, off: float, name: str) -> FormatError:
    return FormatError(
        f"the pixels are not on one {lattice} lattice (pixel {pixel} is {off:.2f} pitches off)",
        where=name,
        remedy="only cameras whose pixels are hexagons or squares of one size can be used",
    )


def neighbours_of(q: Ints, r: Ints, lattice: Lattice = "hexagonal") -> Ints:
    """Return the neighbours of pixels by their lattice coordinates.

    Parameters
    ----------
    q, r : ndarray of int64, shape (n_pixels,)
        Lattice coordinates, smallest 0.
    lattice : str
        ``hexagonal`` or ``square``.

    Returns
    -------
    ndarray of shape (n_pixels, 6 or 4)
        Indices, ascending, padded with -1.
    """
    board = np.full((int(q.max()) + 3, int(r.max()) + 3), -1, np.int64)
    board[q + 1, r + 1] = np.arange(len(q))
    neighbours = np.column_stack([board[q + 1 + dq, r + 1 + dr] for dq, dr in DIRECTIONS[lattice]])
    neighbours[neighbours < 0] = len(q)  # sorts behind every index
    neighbours.sort(axis=1)
    neighbours[neighbours == len(q)] = -1
    return np.ascontiguousarray(neighbours)

"""The rows of a hexagonal camera, as methods that keep its picture upright see them.

The camera is thought turned by less than 15 degrees, so that one direction of the lattice lies on the x or on the y
axis of the sky, whichever is nearer. Pixels then lie in rows along that axis: `row` numbers the rows in the direction
of the other axis, `half` the steps of half a pixel along the rows. Neighbours are ``(row, half ± 2)`` and
``(row ± 1, half ± 1)``; rows are ``√3/2`` pitches apart, half steps ``1/2``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry, Ints
from apbatch.camera.lattice import DIRECTIONS


@dataclass(frozen=True, eq=False)
class Rows:
    """The pixels of a hexagonal camera in rows.

    Attributes
    ----------
    row, half : ndarray of int64, shape (n_pixels,)
        Smallest 0.
    upright : bool
        Whether rows lie along x (and are numbered upwards in y); otherwise along y (numbered rightwards in x).
    turn_deg : float
        By how much the camera is turned (counter-clockwise) to bring the lattice onto the axis.
    """

    row: Ints
    half: Ints
    upright: bool
    turn_deg: float

    @property
    def offset(self) -> int:
        """Half step of the lattice points of row 0 that are even, 0 or 1: ``half = 2 q + row + offset``."""
        return int(self.half[0] - self.row[0]) % 2

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.row.max()) + 1

    @property
    def n_halves(self) -> int:
        """Number of half steps from the first to the last pixel of any row, both counted."""
        return int(self.half.max()) + 1

    def board(self, margin: int) -> Ints:
        """Return the index of the pixel at each (row + margin, half + margin), -1 where there is none."""
        board = np.full((self.n_rows + 2 * margin, self.n_halves + 2 * margin), -1, np.int64)
        board[self.row + margin, self.half + margin] = np.arange(len(self.row))
        return board


def rows_of(camera: CameraGeometry) -> Rows:
    """Find the rows of a hexagonal camera."""
    axial = np.column_stack([camera.q, camera.r, np.ones(camera.n_pixels)]).astype(np.float64)
    basis = np.linalg.lstsq(axial, np.column_stack([camera.x, camera.y]), rcond=None)[0][:2]
    steps = np.array(DIRECTIONS["hexagonal"])
    sky = steps @ basis
    angle = np.degrees(np.arctan2(sky[:, 1], sky[:, 0]))
    off_x, off_y = _wrapped(angle), _wrapped(angle - 90.0)
    along_x, along_y = int(np.argmin(np.abs(off_x))), int(np.argmin(np.abs(off_y)))
    upright = bool(abs(off_x[along_x]) <= abs(off_y[along_y]) + 1e-6)
    along = along_x if upright else along_y
    # The rows go up by one with the direction 60 degrees from `along` that points up (or right).
    sides = [(along + 1) % 6, (along - 1) % 6]
    up = max(sides, key=lambda k: float(sky[k, 1 if upright else 0]))
    (n, row) = np.rint(np.linalg.solve(np.column_stack([steps[along], steps[up]]), [camera.q, camera.r])).astype(int)
    half = 2 * n + row
    turn = -float(off_x[along_x] if upright else off_y[along_y])
    return Rows((row - row.min()).astype(np.int64), (half - half.min()).astype(np.int64), upright, turn)


def _wrapped(angle: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray((angle + 180.0) % 360.0 - 180.0)

"""Camera geometry: pixel positions, neighbours, lattice coordinates of cameras of hexagonal or square pixels.

Positions are in degrees on the sky as seen in the camera (``cm x 0.1206`` for TAIGA, whose focal length is 4.75 m).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.camera.lattice import Floats, Ints, Lattice, find_lattice, neighbours_of
from apbatch.errors import FormatError

__all__ = [
    "CameraGeometry",
    "Floats",
    "Ints",
    "Lattice",
    "camera_from_positions",
    "neighbours_of",
]


@dataclass(frozen=True, eq=False)
class CameraGeometry:
    """A camera of hexagonal or square pixels.

    Attributes
    ----------
    name : str
        Name by which images refer to it.
    x, y : ndarray of shape (n_pixels,)
        Pixel centres, deg.
    pitch : float
        Distance of neighbouring pixel centres, deg.
    neighbours : ndarray of shape (n_pixels, 6), or (n_pixels, 4) for square pixels
        Indices of neighbouring pixels, ascending, padded with -1.
    q, r : ndarray of shape (n_pixels,)
        Axial coordinates of each pixel, of square pixels column and row; smallest 0.
    cluster : ndarray of shape (n_pixels,)
        Number of the read-out cluster, from 1; 0 where the camera has none.
    number : ndarray of shape (n_pixels,)
        Number of the pixel in its cluster (for TAIGA: the even, high-gain channel).
    lattice : str
        ``hexagonal`` or ``square``.
    focal_length : float, optional
        Of the telescope, m, by which positions were made angles.
    """

    name: str
    x: Floats
    y: Floats
    pitch: float
    neighbours: Ints
    q: Ints
    r: Ints
    cluster: Ints
    number: Ints
    lattice: Lattice = "hexagonal"
    focal_length: float | None = None

    def __post_init__(self) -> None:
        # Cameras are shared by name; nobody may change the one that others use.
        for array in (self.x, self.y, self.neighbours, self.q, self.r, self.cluster, self.number):
            array.setflags(write=False)

    @property
    def n_pixels(self) -> int:
        """Number of pixels."""
        return len(self.x)

    @property
    def edge(self) -> npt.NDArray[np.bool_]:
        """Pixels with fewer neighbours than the lattice gives."""
        return np.asarray((self.neighbours < 0).any(axis=1))

    def index(self, cluster: Ints, number: Ints) -> Ints:
        """Return the index of the pixels with these cluster and pixel numbers, -1 where there is none."""
        keys = self.cluster * _KEY_STRIDE + self.number
        order = np.argsort(keys)
        key = np.asarray(cluster, np.int64) * _KEY_STRIDE + np.asarray(number, np.int64)
        place = np.minimum(np.searchsorted(keys[order], key), len(keys) - 1)
        pixel = order[place]
        return np.where(keys[pixel] == key, pixel, -1)


#: More than any number of a pixel in its cluster.
_KEY_STRIDE = 1 << 20


def camera_from_positions(
    name: str,
    x: Floats,
    y: Floats,
    *,
    cluster: Ints | None = None,
    number: Ints | None = None,
    lattice: Lattice | None = None,
    focal_length: float | None = None,
) -> CameraGeometry:
    """Make a camera from the centres of its pixels: pitch, orientation, lattice coordinates and neighbours are found.

    Parameters
    ----------
    name : str
        Name of the camera.
    x, y : ndarray of shape (n_pixels,)
        Pixel centres, deg.
    cluster, number : ndarray of shape (n_pixels,), optional
        Numbers of clusters, and of pixels in their cluster (default: no clusters, index as number).
    lattice : str, optional
        ``hexagonal`` or ``square``; found if not given.
    focal_length : float, optional
        Of the telescope, m.

    Raises
    ------
    FormatError
        If the pixels do not lie on one such lattice, or two lie on the same place.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) < 3 or x.shape != y.shape or x.ndim != 1 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise FormatError("a camera needs three pixels or more with finite positions", where=name)
    fit = find_lattice(x, y, name, lattice)
    return CameraGeometry(
        name=name,
        x=x.copy(),
        y=y.copy(),
        pitch=fit.pitch,
        neighbours=neighbours_of(fit.q, fit.r, fit.lattice),
        q=fit.q,
        r=fit.r,
        cluster=np.zeros(len(x), np.int64) if cluster is None else np.asarray(cluster, np.int64).copy(),
        number=np.arange(len(x)) if number is None else np.asarray(number, np.int64).copy(),
        lattice=fit.lattice,
        focal_length=focal_length,
    )

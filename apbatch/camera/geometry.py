"""Camera geometry: pixel positions, neighbours, axial coordinates of a hexagonal camera.

Positions are in degrees on the sky as seen in the camera (``cm x 0.1206`` for TAIGA, whose focal length is 4.75 m).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CameraGeometry:
    """A camera of hexagonal pixels.

    Attributes
    ----------
    name : str
        Name by which images refer to it.
    x, y : ndarray of shape (n_pixels,)
        Pixel centres, deg.
    pitch : float
        Distance of neighbouring pixel centres, deg.
    neighbours : ndarray of shape (n_pixels, 6)
        Indices of neighbouring pixels, padded with -1.
    q, r : ndarray of shape (n_pixels,)
        Axial coordinates of each pixel, smallest 0.
    cluster : ndarray of shape (n_pixels,)
        Number of the read-out cluster, from 1; 0 where the camera has none.
    number : ndarray of shape (n_pixels,)
        Number of the pixel in its cluster (for TAIGA: the even, high-gain channel).
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

    @property
    def n_pixels(self) -> int:
        """Number of pixels."""
        return len(self.x)

    @property
    def edge(self) -> npt.NDArray[np.bool_]:
        """Pixels with fewer than six neighbours."""
        return np.asarray((self.neighbours < 0).any(axis=1))


_CAMERAS: dict[str, Callable[[], CameraGeometry]] = {}


def register_camera(name: str, make: Callable[[], CameraGeometry]) -> None:
    """Make a camera known by name."""
    _CAMERAS[name] = make


def camera_named(name: str) -> CameraGeometry:
    """Return the camera with this name.

    Raises
    ------
    NotFoundError
        With the nearest known name.
    """
    raise NotImplementedError

"""The neighbours of a camera's pixels as a table that kernels read."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.errors import UsageError

Numbers = npt.NDArray[np.uint32]

#: Pixels of a camera at most: the vector kernels hold their numbers in two bytes.
MOST_PIXELS = 1 << 16

_tables: WeakKeyDictionary[CameraGeometry, Numbers] = WeakKeyDictionary()


def refuse_large(camera: CameraGeometry) -> None:
    """Refuse a camera of more than `MOST_PIXELS`.

    Raises
    ------
    UsageError
        If it has more.
    """
    if camera.n_pixels > MOST_PIXELS:
        raise UsageError(
            f"{camera.name} has {camera.n_pixels:,} pixels", remedy=f"cameras may have up to {MOST_PIXELS:,}"
        )


def neighbour_table(camera: CameraGeometry) -> Numbers:
    """Return the neighbours of each pixel, shape (n_pixels, any), padded with `n_pixels`; it is made once.

    Raises
    ------
    UsageError
        If the camera has more than `MOST_PIXELS`.
    """
    refuse_large(camera)
    if camera not in _tables:
        neighbours = camera.neighbours
        _tables[camera] = np.where(neighbours < 0, camera.n_pixels, neighbours).astype(np.uint32, order="C")
    return _tables[camera]

"""Pixels that can't be trusted are mended from their neighbours; `apbatch.quality.monitor` finds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning import of_camera
from apbatch.camera.geometry import CameraGeometry, Ints
from apbatch.camera.kernels.decorators import kernel
from apbatch.errors import UsageError


@dataclass(frozen=True, eq=False)
class Repaired:
    """Images whose bad pixels were mended.

    Attributes
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
    repaired : ndarray of int64, shape (n_images,)
        Pixels that got the mean of their good neighbours.
    lost : ndarray of int64, shape (n_images,)
        Bad pixels without enough good neighbours, which are NaN now.
    """

    images: npt.NDArray[np.float32]
    repaired: Ints
    lost: Ints


def repair(
    images: npt.NDArray[np.float32],
    camera: CameraGeometry,
    bad: npt.NDArray[np.bool_],
    *,
    min_neighbours: int = 1,
) -> Repaired:
    """Replace bad pixels by the mean of their good neighbours.

    All neighbours of a pixel are equally far away, so all weights are equal: ``1 / number of good neighbours``. Good is
    a neighbour that is not bad and has a finite amplitude in that image; a mended pixel never serves to mend another.
    Pixels that are missing (NaN) and not called bad stay missing: a cluster without a record is no bad pixel.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
    camera : CameraGeometry
    bad : ndarray of bool, shape (n_pixels,) or (n_images, n_pixels)
    min_neighbours : int
        Good neighbours that a pixel must have; with fewer it becomes NaN.

    Returns
    -------
    Repaired
        With a new array of images.

    Raises
    ------
    UsageError
        If the arrays do not fit together, or the number of neighbours makes no sense.
    """
    images = of_camera(images, camera)
    if bad.shape not in ((camera.n_pixels,), images.shape):
        raise UsageError(f"bad pixels are of shape {bad.shape}, the images of shape {images.shape}")
    if not 1 <= min_neighbours <= camera.neighbours.shape[1]:
        raise UsageError(f"no pixel has {min_neighbours} neighbours", remedy=f"give 1 to {camera.neighbours.shape[1]}")
    flags = np.ascontiguousarray(bad, np.bool_).reshape(-1, camera.n_pixels)
    return Repaired(*_repair(images, camera.neighbours, flags, min_neighbours))


@kernel
def _repair(
    images: npt.NDArray[np.float32], neighbours: Ints, bad: npt.NDArray[np.bool_], least: int
) -> tuple[npt.NDArray[np.float32], Ints, Ints]:
    out = images.copy()
    repaired, lost = np.zeros(len(images), np.int64), np.zeros(len(images), np.int64)
    for i in range(len(images)):
        flags = bad[i if len(bad) > 1 else 0]
        for p in range(images.shape[1]):
            if not flags[p]:
                continue
            total, count = 0.0, 0
            for n in neighbours[p]:
                if n >= 0 and not flags[n] and np.isfinite(images[i, n]):
                    total += images[i, n]
                    count += 1
            if count >= least:
                out[i, p] = total / count
                repaired[i] += 1
            else:
                out[i, p] = np.nan
                lost[i] += 1
    return out, repaired, lost

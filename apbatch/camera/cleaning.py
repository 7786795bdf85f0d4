"""Cleaning: which pixels of an image have light of a shower and not only of the night sky.

All cleanings begin with two levels: keep bright pixels, and dimmer ones beside them. The levels are photo-electrons,
or multiples of each pixel's noise. Then pixels without a neighbour of the same time, and all but the largest island,
may be dropped. Rules are those of ctapipe (`tailcuts_clean`, `apply_time_delta_cleaning`, `largest_island`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning_rule import NONE, PRESETS, Cleaning, Method, cleaning_named
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.islands import keep_largest
from apbatch.camera.kernels import batch
from apbatch.camera.kernels.decorators import kernel
from apbatch.camera.kernels.interface import Images, Mask
from apbatch.camera.kernels.neighbours import Numbers, neighbour_table
from apbatch.errors import UsageError

__all__ = [
    "NONE", "PRESETS", "Cleaning", "Images", "Mask", "Method", "clean", "cleaning_named", "levels", "of_camera",
]  # fmt: skip


def clean(
    images: Images,
    camera: CameraGeometry,
    cleaning: Cleaning,
    *,
    peak_time: npt.NDArray[np.float32] | None = None,
    noise: npt.NDArray[np.floating[Any]] | None = None,
) -> Mask:
    """Tell which pixels of each image are kept.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        Photo-electrons; NaN is a pixel without a measurement, which is never kept.
    camera : CameraGeometry
    cleaning : Cleaning
    peak_time : ndarray of float32, shape (n_images, n_pixels), optional
        Time of each pixel's pulse, ns; NaN is near to no other. Needed for a cleaning with a time limit.
    noise : ndarray, shape (n_pixels,) or (n_images, n_pixels), optional
        Standard deviation of each pixel's noise, p.e.; needed for the method ``sigma``. A pixel whose noise is not
        above 0 is never kept.

    Returns
    -------
    ndarray of bool, shape (n_images, n_pixels)

    Raises
    ------
    UsageError
        If the images are not of this camera, or what the cleaning needs is missing.
    """
    images = of_camera(images, camera)
    picture, boundary = levels(cleaning, images, camera, noise)
    mask = np.empty(images.shape, np.bool_)
    batch.clean(images, picture, boundary, cleaning, camera, mask)
    if cleaning.time_limit is not None:
        if peak_time is None:
            raise UsageError(f"the cleaning {cleaning.name} needs the times of pulses", remedy="give peak_time")
        if peak_time.shape != images.shape:
            raise UsageError(f"times are of shape {peak_time.shape}, the images of shape {images.shape}")
        times = np.ascontiguousarray(peak_time, np.float32)
        neighbours = neighbour_table(camera)
        mask = _with_neighbours_in_time(mask, times, neighbours, cleaning.time_limit, cleaning.time_neighbours)
    if cleaning.largest_island:
        keep_largest(mask, neighbour_table(camera))
    return mask


def of_camera(images: Images, camera: CameraGeometry) -> Images:
    """Return images as kernels want them.

    Raises
    ------
    UsageError
        If they have not as many pixels as the camera.
    """
    if images.ndim != 2 or (len(images) and images.shape[1] != camera.n_pixels):
        raise UsageError(f"{camera.name} has {camera.n_pixels} pixels, the images are of shape {images.shape}")
    return np.ascontiguousarray(images.reshape(len(images), camera.n_pixels), np.float32)


def levels(
    cleaning: Cleaning, images: Images, camera: CameraGeometry, noise: npt.NDArray[np.floating[Any]] | None
) -> tuple[Images, Images]:
    """Return picture and boundary levels: one for all pixels, one for each, or one for each of every image.

    Parameters
    ----------
    cleaning : Cleaning
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    camera : CameraGeometry
    noise : ndarray of shape (n_pixels,) or (n_images, n_pixels), optional
        Standard deviation of each pixel without light, p.e.; cleanings by ``sigma`` need it.

    Returns
    -------
    picture, boundary : ndarray of float32, shape (1, 1), (1, n_pixels) or (n_images, n_pixels)
        p.e.; NaN where no amplitude is enough.

    Raises
    ------
    UsageError
        If noise is needed and missing, or not of this camera.
    """
    if cleaning.method != "sigma":
        return np.full((1, 1), cleaning.picture, np.float32), np.full((1, 1), cleaning.boundary, np.float32)
    if noise is None:
        raise UsageError(f"the cleaning {cleaning.name} needs the noise of pixels", remedy="give noise")
    unit = np.atleast_2d(noise)
    if unit.shape not in ((1, camera.n_pixels), images.shape):
        raise UsageError(f"{camera.name} has {camera.n_pixels} pixels, the noise is of shape {noise.shape}")
    unit = np.where(unit > 0, unit, np.nan)
    picture, boundary = cleaning.picture * unit, cleaning.boundary * unit
    return picture.astype(np.float32, copy=False), boundary.astype(np.float32, copy=False)


@kernel
def _with_neighbours_in_time(
    mask: Mask, times: npt.NDArray[np.float32], neighbours: Numbers, limit: float, least: int
) -> Mask:
    n_images, n_pixels = mask.shape
    out = np.zeros((n_images, n_pixels), np.bool_)
    near = np.float32(limit)
    for i in range(n_images):
        for p in range(n_pixels):
            if not mask[i, p]:
                continue
            number = 0
            for j in range(neighbours.shape[1]):
                n = neighbours[p, j]
                if n < n_pixels and mask[i, n] and abs(times[i, p] - times[i, n]) < near:
                    number += 1
            out[i, p] = number >= least
    return out

"""Hillas parameters: moments of the light in the camera, in degrees.

Signs and conventions of size, centre, length, width, psi, skewness and kurtosis are those of ctapipe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning import Cleaning, Images, Mask, clean, levels, of_camera
from apbatch.camera.geometry import CameraGeometry, Floats
from apbatch.camera.kernels import batch
from apbatch.camera.parameters import PARAMETERS
from apbatch.errors import UsageError

__all__ = ["PARAMETERS", "clean_and_parametrise", "hillas"]


def hillas(
    images: Images,
    camera: CameraGeometry,
    mask: Mask | None = None,
    *,
    source: tuple[float, float] = (0.0, 0.0),
) -> dict[str, Floats]:
    """Compute the image parameters of a batch.

    Pixels with light are those that the mask keeps and whose amplitude is above 0 and finite.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        Photo-electrons.
    camera : CameraGeometry
    mask : ndarray of bool, shape (n_images, n_pixels), optional
        Pixels that cleaning keeps; all by default.
    source : (float, float)
        Place of the source in the camera, deg.

    Returns
    -------
    dict of str to ndarray of float64, shape (n_images,)
        A column for each of `PARAMETERS`. Without light, size and counts are 0 and the rest is NaN; with one pixel
        length and width are 0 and the axis is undefined; pixels on a line have width 0.

    Raises
    ------
    UsageError
        If images, mask and camera do not fit together.
    """
    images = of_camera(images, camera)
    if mask is None:
        mask = np.ones((1, camera.n_pixels), np.bool_)
    elif mask.shape != images.shape:
        raise UsageError(f"the mask is of shape {mask.shape}, the images of shape {images.shape}")
    table = np.empty((len(PARAMETERS), len(images)))
    batch.parametrise(images, np.ascontiguousarray(mask, np.bool_), camera, source, table)
    return dict(zip(PARAMETERS, table, strict=True))


def clean_and_parametrise(
    images: Images,
    camera: CameraGeometry,
    cleaning: Cleaning,
    *,
    source: tuple[float, float] = (0.0, 0.0),
    peak_time: npt.NDArray[np.float32] | None = None,
    noise: npt.NDArray[np.floating[Any]] | None = None,
    out: Mask | None = None,
) -> tuple[Mask, dict[str, Floats]]:
    """Clean a batch and compute its image parameters, in one pass over the pixels where the cleaning allows it.

    Parameters are those of `apbatch.camera.cleaning.clean` and `hillas`, and so are the results: the mask, and a
    column for each of `PARAMETERS`. The mask is written into `out` if that is given: in a stream of batches of one
    shape the same memory serves all, since new memory from the system can cost more than the work.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.; NaN where a pixel was not measured.
    camera : CameraGeometry
    cleaning : Cleaning
    source : tuple of float
        Place that `miss`, `alpha` and the like refer to, deg in the camera.
    peak_time : ndarray of float32, shape (n_images, n_pixels), optional
        Time of each pixel's pulse, ns; a cleaning with a limit of times needs it.
    noise : ndarray of shape (n_pixels,) or (n_images, n_pixels), optional
        Noise of pixels, p.e.; a cleaning by ``sigma`` needs it.
    out : ndarray of bool, shape (n_images, n_pixels), optional
        Memory for the mask.

    Returns
    -------
    mask : ndarray of bool, shape (n_images, n_pixels)
    parameters : dict of str to ndarray of float64, shape (n_images,)

    Raises
    ------
    UsageError
        As they do.
    """
    if cleaning.time_limit is not None or cleaning.largest_island:
        mask = clean(images, camera, cleaning, peak_time=peak_time, noise=noise)
        if out is not None:
            out[:] = mask
            mask = out
        return mask, hillas(images, camera, mask, source=source)
    images = of_camera(images, camera)
    picture, boundary = levels(cleaning, images, camera, noise)
    mask = np.empty(images.shape, np.bool_) if out is None else out
    if mask.shape != images.shape or mask.dtype != np.bool_ or not mask.flags.c_contiguous:
        raise UsageError(f"out is not a contiguous array of booleans of shape {images.shape}")
    table = np.empty((len(PARAMETERS), len(images)))
    batch.clean_and_parametrise(images, picture, boundary, cleaning, camera, source, mask, table)
    return mask, dict(zip(PARAMETERS, table, strict=True))

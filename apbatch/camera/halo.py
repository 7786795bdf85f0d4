"""Halo parameters: what several cleanings keep of an image, and the light around it.

A gamma's image is an ellipse; a hadron's leaves light outside of it, single bright pixels and faint patches that a
cleaning removes. These columns keep it for whoever separates by them: the image parameters of four cleanings, and
sums and counts in five rings around the ellipse, each divided into a part along and a part across its axis.

The ellipse is that of the cleaning at `REFERENCE`; half a pitch is added to its length and width, so that images of a
few pixels have rings too. A pixel at the distances a along and t across the axis has ``u = a / (length + pitch / 2)``,
``v = t / (width + pitch / 2)`` and ``rho² = u² + v²``. Ring k, counted from 0, holds the pixels with
``RINGS[k] < rho <= RINGS[k + 1]``, the last one all the rest. Pixels of a ring with ``|u| > |v|`` are along the axis,
the others across.

References
----------
L. Olivera-Nieto et al., Using muons and light outside the main image as background rejection, Eur. Phys. J. C 82 (2022)
1118, arXiv:2211.13167.
"""

from __future__ import annotations

import numpy as np

from apbatch.camera.cleaning import Images, of_camera
from apbatch.camera.geometry import CameraGeometry, Floats
from apbatch.camera.halo_columns import CLEANINGS, HALO, LEVELS, REFERENCE, RINGS
from apbatch.camera.kernels import batch

__all__ = ["CLEANINGS", "HALO", "LEVELS", "REFERENCE", "RINGS", "halo"]


def halo(images: Images, camera: CameraGeometry, *, source: tuple[float, float] = (0.0, 0.0)) -> dict[str, Floats]:
    """Compute the halo parameters of a batch.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        Photo-electrons, not cleaned; NaN is a pixel without a measurement.
    camera : CameraGeometry
    source : (float, float)
        Place of the source in the camera, deg.

    Returns
    -------
    dict of str to ndarray of float64, shape (n_images,)
        A column for each of `HALO`. ``size_7`` and the like are the parameters of `apbatch.camera.hillas.hillas` after
        the cleaning of that picture level. Of each part of a ring: ``pixels`` that were measured, the sum of their
        ``light`` with that of negative ones, the ``brightest`` of those at or above the lowest of `LEVELS`, else 0, and
        how many are at or ``above`` each level. Rings are NaN where the ellipse has no axis.

    Raises
    ------
    UsageError
        If the images are not of this camera.
    """
    images = of_camera(images, camera)
    table = np.full((len(HALO), len(images)), np.nan)
    batch.halo(images, camera, source, table)
    return dict(zip(HALO, table, strict=True))

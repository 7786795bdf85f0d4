"""Planes that a network may see beside the image: arrival times, and the images of other telescopes of the shower.

Planes go telescope by telescope, the image's own first, then its partners from the nearest on; each telescope has its
image and, where times are asked for, its arrival times. A partner that is missing is dark.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning import PRESETS, clean
from apbatch.camera.geometry import CameraGeometry
from apbatch.dl.networks.treatment import TIME, Treatment

Pixels = npt.NDArray[np.float32]
#: Pixels below this, p.e., have no arrival time: theirs is that of the night sky.
_LEAST = 3.5
#: ns; brings times to the order of 1.
_SCALE, _MOST = 10.0, 5.0


def planes_of_a_telescope(treatment: Treatment) -> int:
    """Return how many planes each telescope has."""
    return 2 if TIME in treatment.planes else 1


def time_plane(images: Pixels, times: Pixels, camera: CameraGeometry) -> Pixels:
    """Return arrival times against the mean time of the softly cleaned image, in units of 10 ns, within -5…5.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    times : ndarray of float32, shape (n_images, n_pixels)
        When the light of each pixel arrived, ns.
    camera : CameraGeometry

    Returns
    -------
    ndarray of float32, shape (n_images, n_pixels)
        0 for pixels below 3.5 p.e., and for images of which cleaning leaves nothing.
    """
    there = np.isfinite(images) & np.isfinite(times)
    light = np.where(clean(images, camera, PRESETS["soft"]) & there, images, 0).astype(np.float64)
    total = light.sum(axis=1, keepdims=True)
    mean = (light * np.where(there, times, 0)).sum(axis=1, keepdims=True) / np.maximum(total, 1e-9)
    lit = there & (images >= _LEAST) & (total > 0)
    return np.where(lit, np.clip((times - mean) / _SCALE, -_MOST, _MOST), 0).astype(np.float32)

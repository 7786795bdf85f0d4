"""From photo-electrons to calibrated camera images: integration, night sky, electronics, trigger.

Images of all primaries pass through the same functions; none knows what made the light.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.sim.settings import DetectorModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Camera(NamedTuple):
    """A camera with its electronics: what the response needs beside the settings.

    Attributes
    ----------
    partners : ndarray of shape (n_pixels, 6)
        Neighbours in the same cluster, -1 where there is none.
    gains : ndarray of shape (n_pixels,)
        True gain over the gain that calibration assumes.
    """

    partners: npt.NDArray[np.int64]
    gains: Floats

    @classmethod
    def of(cls, geometry: CameraGeometry, detector: DetectorModel, seed: int) -> Camera:
        """Make the camera of a production: its gains are drawn once, from the production's seed."""
        neighbours = np.asarray(geometry.neighbours)
        same = geometry.cluster[neighbours] == geometry.cluster[:, None]
        rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
        gains = 1.0 + detector.gain_spread * np.clip(rng.standard_normal(geometry.n_pixels), -3.0, 3.0)
        return cls(np.where((neighbours >= 0) & same, neighbours, -1), gains)


def integrate(
    pixel: npt.NDArray[np.int32], time: npt.NDArray[np.float32], n_telescopes: int, n_pixels: int, window: float
) -> Ints:
    """Count the photo-electrons that arrive within a window around each telescope's median time.

    Parameters
    ----------
    pixel : ndarray of shape (n,)
        Telescope x n_pixels + pixel of each photo-electron.
    time : ndarray of shape (n,)
        Arrival, ns.
    n_telescopes, n_pixels : int
        Sizes.
    window : float
        Full width, ns.

    Returns
    -------
    ndarray of shape (n_telescopes, n_pixels)
    """
    telescope = pixel // n_pixels
    order = np.lexsort((time, telescope))
    bounds = np.searchsorted(telescope[order], np.arange(n_telescopes + 1))
    inside = np.zeros(len(pixel), bool)
    for first, last in pairwise(bounds):
        if last > first:
            rows = order[first:last]
            inside[rows] = np.abs(time[rows] - time[rows[(last - first) // 2]]) <= 0.5 * window
    counts = np.bincount(pixel[inside], minlength=n_telescopes * n_pixels)
    return counts.reshape(n_telescopes, n_pixels)


def digitise(signal: Ints, camera: Camera, detector: DetectorModel, rng: np.random.Generator) -> Floats:
    """Turn counted photo-electrons, shape (n, n_pixels), into calibrated amplitudes in p.e. with all noise."""
    total = signal + rng.poisson(detector.night_sky, signal.shape)
    charge = total + detector.single_pe_spread * np.sqrt(total) * rng.standard_normal(signal.shape)
    noise = detector.pedestal_noise * rng.standard_normal(signal.shape)
    # The pedestal is measured under the same night sky, so its mean is subtracted with the pedestal.
    return np.asarray((charge - detector.night_sky) * camera.gains + noise)


def triggered(images: Floats, camera: Camera, detector: DetectorModel) -> npt.NDArray[np.bool_]:
    """Return which images, shape (n, n_pixels), have a pixel and enough neighbours of its cluster over threshold."""
    above = images > detector.trigger_threshold
    padded = np.concatenate([above, np.zeros((len(above), 1), bool)], axis=1)
    partners = padded[:, camera.partners].sum(axis=2)  # index -1 is the padding
    return np.asarray((above & (partners >= detector.trigger_pixels - 1)).any(axis=1))

"""From photo-electrons to calibrated camera images: integration, night sky, electronics, trigger, arrival times.

Images of all primaries pass through the same functions; none knows what made the light.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.sim.noise import NoiseLibrary
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
    dead : ndarray of bool, shape (n_pixels,)
        Pixels without a measurement.
    noise : NoiseLibrary or None
        Measured noise in place of the night sky and the pedestal's spread.
    """

    partners: npt.NDArray[np.int64]
    gains: Floats
    dead: npt.NDArray[np.bool_]
    noise: NoiseLibrary | None = None

    @classmethod
    def of(cls, geometry: CameraGeometry, detector: DetectorModel, seed: int) -> Camera:
        """Make the camera of a production: gains and dead pixels are drawn once, from the production's seed."""
        neighbours = np.asarray(geometry.neighbours)
        same = geometry.cluster[neighbours] == geometry.cluster[:, None]
        rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
        gains = 1.0 + detector.gain_spread * np.clip(rng.standard_normal(geometry.n_pixels), -3.0, 3.0)
        dead = rng.random(geometry.n_pixels) < detector.dead_pixels
        noise = None
        if detector.noise_library is not None:
            noise = NoiseLibrary.load(
                detector.noise_library, detector.noise_factors, geometry, detector.trigger_threshold
            )
        return cls(np.where((neighbours >= 0) & same, neighbours, -1), gains, dead, noise)


@dataclass(frozen=True)
class Light:
    """Signal in the integration window.

    Attributes
    ----------
    count : ndarray of int64, shape (n_telescopes, n_pixels)
        Photo-electrons.
    time : ndarray of shape (n_telescopes, n_pixels)
        Sum of their arrival times, ns from the middle of the window.
    """

    count: Ints
    time: Floats


def integrate(
    pixel: npt.NDArray[np.int32], time: npt.NDArray[np.float32], n_telescopes: int, n_pixels: int, window: float
) -> Light:
    """Gather the photo-electrons that arrive within a window around each telescope's median time.

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
    """
    telescope = pixel // n_pixels
    order = np.lexsort((time, telescope))
    bounds = np.searchsorted(telescope[order], np.arange(n_telescopes + 1))
    inside = np.zeros(len(pixel), bool)
    after = np.zeros(len(pixel))
    for first, last in pairwise(bounds):
        if last > first:
            rows = order[first:last]
            after[rows] = time[rows] - time[rows[(last - first) // 2]]
            inside[rows] = np.abs(after[rows]) <= 0.5 * window
    size, shape = n_telescopes * n_pixels, (n_telescopes, n_pixels)
    count = np.bincount(pixel[inside], minlength=size)
    summed = np.bincount(pixel[inside], weights=after[inside], minlength=size).astype(np.float64)
    return Light(count.reshape(shape), summed.reshape(shape))


def digitise(light: Light, camera: Camera, detector: DetectorModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Turn counted photo-electrons into calibrated amplitudes with all noise, and arrival times.

    Returns
    -------
    amplitude : ndarray of shape (n_telescopes, n_pixels)
        p.e.; NaN in dead pixels.
    time : ndarray of shape (n_telescopes, n_pixels)
        Mean arrival time of a pixel's light, night sky included, ns from the middle of the integration window; NaN in
        dead pixels.
    """
    signal, shape = light.count, light.count.shape
    sky = rng.poisson(detector.night_sky, shape)
    total = signal + (0 if camera.noise else sky)
    charge = total + detector.single_pe_spread * np.sqrt(total) * rng.standard_normal(shape)
    if camera.noise is None:
        # The pedestal is measured under the same night sky, so its mean is subtracted with the pedestal.
        noise = detector.pedestal_noise * rng.standard_normal(shape)
        amplitude = (charge - detector.night_sky) * camera.gains + noise
    else:
        amplitude = charge * camera.gains + camera.noise.draw(shape[0], rng)
    # Photo-electrons of the sky come at any time of the window; where there are none, noise peaks anywhere.
    window = detector.integration_window
    beats = np.maximum(sky, np.where(signal + sky == 0, 1, 0))
    pixel = np.repeat(np.arange(beats.size), beats.ravel())
    uniform = (rng.random(len(pixel)) - 0.5) * window
    summed = light.time + np.bincount(pixel, weights=uniform, minlength=beats.size).reshape(shape)
    time = summed / np.maximum(signal + beats, 1) + detector.time_resolution * rng.standard_normal(shape)
    amplitude = saturated(amplitude, detector)
    amplitude[:, camera.dead] = np.nan
    time[:, camera.dead] = np.nan
    return np.asarray(amplitude), np.asarray(time)


def saturated(amplitude: Floats, detector: DetectorModel) -> Floats:
    """Return amplitudes as the two gains of a channel measure them.

    The high gain counts in steps of a quarter of an ADC code up to `high_gain_limit`; beyond, the low gain takes over,
    coarser by `gain_ratio`, up to its own end.
    """
    if detector.codes_per_pe == 0.0:
        return amplitude
    fine = 4.0 * detector.codes_per_pe
    coarse = fine / detector.gain_ratio
    high = np.round(amplitude * fine) / fine
    low = np.minimum(np.round(amplitude * coarse), 4.0 * detector.low_gain_end) / coarse
    return np.where(amplitude * detector.codes_per_pe > detector.high_gain_limit, low, high)


def triggered(images: Floats, camera: Camera, detector: DetectorModel) -> npt.NDArray[np.bool_]:
    """Return which images, shape (n, n_pixels), have a pixel and enough neighbours of its cluster over threshold."""
    above = images > detector.trigger_threshold
    padded = np.concatenate([above, np.zeros((len(above), 1), bool)], axis=1)
    partners = padded[:, camera.partners].sum(axis=2)  # index -1 is the padding
    return np.asarray((above & (partners >= detector.trigger_pixels - 1)).any(axis=1))

"""From photo-electrons to calibrated camera images: integration, night sky, electronics, trigger, arrival times.

Images of all primaries pass through the same functions; none knows what made the light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.sim.detector.noise import NoiseLibrary
from apbatch.sim.kernel import kernel
from apbatch.sim.settings import DetectorModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Times at or beyond this, ns, mean that a pixel did not fire (fast mathematics know no infinity).
_NEVER = 1e30


class Camera(NamedTuple):
    """The camera of each telescope with its electronics: what the response needs beside the settings.

    Attributes
    ----------
    partners : ndarray of shape (n_pixels, 6)
        Neighbours in the same cluster, -1 where there is none.
    gains : ndarray of shape (n_telescopes, n_pixels)
        True gain over the gain that calibration assumes.
    dead : ndarray of bool, shape (n_telescopes, n_pixels)
        Pixels without a measurement.
    noise : NoiseLibrary or None
        Measured noise in place of the night sky and the pedestal's spread.
    """

    partners: npt.NDArray[np.int64]
    gains: Floats
    dead: npt.NDArray[np.bool_]
    noise: NoiseLibrary | None = None

    @classmethod
    def of(cls, geometry: CameraGeometry, detector: DetectorModel, telescopes: int = 1) -> Camera:
        """Make the cameras of an array of telescopes.

        Gains and dead pixels are drawn from the camera's name and the telescope's number, not from a production's
        seed: productions of different primaries are seen by the same telescopes.

        Parameters
        ----------
        geometry : CameraGeometry
        detector : DetectorModel
        telescopes : int
            Telescopes of the array.
        """
        neighbours = np.asarray(geometry.neighbours)
        same = geometry.cluster[neighbours] == geometry.cluster[:, None]
        gains, dead = np.empty((telescopes, geometry.n_pixels)), np.empty((telescopes, geometry.n_pixels), bool)
        for telescope in range(telescopes):
            rng = np.random.default_rng(np.random.SeedSequence([*geometry.name.encode(), telescope + 1]))
            gains[telescope] = 1.0 + detector.gain_spread * np.clip(rng.standard_normal(geometry.n_pixels), -3.0, 3.0)
            dead[telescope] = rng.random(geometry.n_pixels) < detector.dead_pixels
        noise = None
        if detector.noise_library is not None:
            noise = NoiseLibrary.load(
                detector.noise_library, detector.noise_factors, geometry, detector.trigger_threshold
            )
        return cls(np.where((neighbours >= 0) & same, neighbours, -1), gains, dead, noise)


@dataclass(frozen=True)
class Light:
    """Photo-electrons of the shower in the integration window, pixel by pixel.

    Attributes
    ----------
    first : ndarray of int64, shape (n_telescopes x n_pixels + 1,)
        Where each pixel's photo-electrons begin in `time`, telescope by telescope.
    time : ndarray of shape (n,)
        Arrival, ns from the middle of the window; increasing within a pixel.
    shape : tuple of int
        Numbers of telescopes and of pixels.
    """

    first: Ints
    time: Floats
    shape: tuple[int, int]

    @property
    def count(self) -> Ints:
        """Photo-electrons, shape (n_telescopes, n_pixels)."""
        return np.diff(self.first).reshape(self.shape)

    @classmethod
    def of_counts(cls, counts: Ints) -> Light:
        """Return light that arrives at once, in the middle of the window, for counts of shape (n, n_pixels)."""
        first = np.concatenate([[0], np.cumsum(counts.ravel())]).astype(np.int64)
        return cls(first, np.zeros(int(first[-1])), (counts.shape[0], counts.shape[1]))


@dataclass(frozen=True)
class Signals:
    """What the electronics make of light; arrays of shape (n_telescopes, n_pixels), NaN in dead pixels.

    Attributes
    ----------
    amplitude : ndarray
        Calibrated, with all noise, p.e.
    time : ndarray
        Mean arrival time of a pixel's light, night sky included, ns from the middle of the integration window.
    fired_at : ndarray
        When the light within the trigger window first passed the threshold, ns from the middle of the integration
        window; 1e30 if it never did.
    """

    amplitude: Floats
    time: Floats
    fired_at: Floats


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
    order = np.argsort(time, kind="stable")
    order = order[np.argsort(pixel[order], kind="stable")]  # by pixel, and by time within it
    pixel, after = pixel[order], time[order].astype(np.float64)
    bounds = np.searchsorted(pixel, np.arange(n_telescopes + 1) * n_pixels)
    for first, last in pairwise(bounds):
        if last > first:
            row = after[first:last]
            row -= np.partition(row, (last - first) // 2)[(last - first) // 2]
    inside = np.abs(after) <= 0.5 * window
    first_of = np.searchsorted(pixel[inside], np.arange(n_telescopes * n_pixels + 1))
    return Light(first_of.astype(np.int64), after[inside], (n_telescopes, n_pixels))


def digitise(light: Light, camera: Camera, detector: DetectorModel, rng: np.random.Generator) -> Signals:
    """Turn photo-electrons into calibrated amplitudes with all noise, arrival times, and what the trigger sees.

    Each photo-electron of the shower and of the night sky has a charge of its own, which the integrated amplitude and
    the trigger share. The pedestal is measured under the same sky, so its mean is subtracted with the pedestal.

    Parameters
    ----------
    light : Light
        Rows are the telescopes of the array again and again, one use of the shower after another.
    camera, detector : Camera, DetectorModel
    rng : Generator
    """
    shape = light.shape
    telescope = np.arange(shape[0]) % len(camera.gains)
    charge, summed, count, fired_at = _collect(
        light.first, light.time, camera.gains.ravel(), detector.sky_charge, detector.integration_window,
        detector.single_pe_spread, detector.trigger_threshold, detector.trigger_window, camera.noise is None,
        int(rng.integers(1, 2**31)),
    )  # fmt: skip
    if camera.noise is None:
        noise = detector.pedestal_noise * rng.standard_normal(shape)
        amplitude = (charge.reshape(shape) - detector.sky_charge) * camera.gains[telescope] + noise
    else:
        amplitude = charge.reshape(shape) * camera.gains[telescope] + camera.noise.draw(shape[0], rng)
    # Where there are no photo-electrons at all, noise peaks anywhere in the window.
    nowhere = (rng.random(shape) - 0.5) * detector.integration_window
    time = np.where(count > 0, summed / np.maximum(count, 1), nowhere.ravel()).reshape(shape)
    time += detector.time_resolution * rng.standard_normal(shape)
    amplitude, fired_at = saturated(amplitude, detector), fired_at.reshape(shape)
    dead = camera.dead[telescope]
    amplitude[dead] = time[dead] = np.nan
    fired_at[dead] = _NEVER
    return Signals(amplitude, time, fired_at)


@kernel
def _collect(
    first: Ints, time: Floats, gains: Floats, sky: float, window: float, spread: float, threshold: float,
    trigger_window: float, sky_is_charge: bool, seed: int,
) -> tuple[Floats, Floats, Ints, Floats]:  # fmt: skip
    """Add the night sky to each pixel's light; return charge, sum of times, number, and when the pixel fired.

    If not `sky_is_charge`, the sky's photo-electrons take part in times and trigger only: measured noise has their
    charge already.
    """
    np.random.seed(seed)
    n = first.size - 1
    charge, summed = np.zeros(n), np.zeros(n)
    number, fired_at = np.zeros(n, np.int64), np.full(n, _NEVER)
    for pixel in range(n):
        start, end = first[pixel], first[pixel + 1]
        here = end - start
        beats = np.random.poisson(sky) if sky > 0.0 else 0
        total = here + beats
        number[pixel] = total
        if total < 0.5 * threshold:  # too few to fire, whatever their charges
            for index in range(total):
                when = time[start + index] if index < here else (np.random.random() - 0.5) * window
                summed[pixel] += when
            counted = total if sky_is_charge else here
            charge[pixel] = counted + spread * math.sqrt(counted) * np.random.normal()
            continue
        times, charges = np.empty(total), np.empty(total)
        for index in range(total):
            when = time[start + index] if index < here else (np.random.random() - 0.5) * window
            times[index], charges[index] = when, 1.0 + spread * np.random.normal()
            summed[pixel] += when
            if index < here or sky_is_charge:
                charge[pixel] += charges[index]
        order = np.argsort(times)
        within, oldest, gain = 0.0, 0, gains[pixel % gains.size]
        for index in order:
            within += charges[index]
            while times[index] - times[order[oldest]] > trigger_window:
                within -= charges[order[oldest]]
                oldest += 1
            if within * gain > threshold:
                fired_at[pixel] = times[index]
                break
    return charge, summed, number, fired_at


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


def triggered(fired_at: Floats, camera: Camera, detector: DetectorModel) -> npt.NDArray[np.bool_]:
    """Return in which images, shape (n, n_pixels), a pixel and enough neighbours of its cluster fired together.

    Parameters
    ----------
    fired_at : ndarray of shape (n, n_pixels)
        Of `Signals`. Together is within the trigger window.
    camera, detector : Camera, DetectorModel
    """
    fired = fired_at < _NEVER
    out = np.zeros(len(fired_at), bool)
    for image in np.flatnonzero(fired.any(axis=1)):
        pixels = np.flatnonzero(fired[image])
        around = camera.partners[pixels]
        when = np.where(around >= 0, fired_at[image][around], np.inf)
        near = np.abs(when - fired_at[image][pixels][:, None]) <= detector.trigger_window
        out[image] = (near.sum(axis=1) >= detector.trigger_pixels - 1).any()
    return out


def over_threshold(images: Floats, camera: Camera, detector: DetectorModel) -> npt.NDArray[np.bool_]:
    """Return which images, shape (n, n_pixels), have a pixel and enough neighbours of its cluster over threshold.

    For images alone, of which arrival times are not known any more: as `triggered`, on the integrated charge.

    Parameters
    ----------
    images : ndarray of float64, shape (n, n_pixels)
        p.e.
    camera : Camera
    detector : DetectorModel
    """
    return triggered(np.where(images > detector.trigger_threshold, 0.0, _NEVER), camera, detector)

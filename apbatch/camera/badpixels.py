"""Pixels that can't be trusted: found in the pedestals of a run, mended from their neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning import of_camera
from apbatch.camera.geometry import CameraGeometry, Floats, Ints
from apbatch.camera.kernel import kernel
from apbatch.camera.medians import Pedestals
from apbatch.errors import UsageError

#: What is wrong with a channel; more than one may be.
DEAD, HOT, UNSTABLE, UNCALIBRATED = 1, 2, 4, 8
REASONS = {DEAD: "dead", HOT: "hot", UNSTABLE: "unstable", UNCALIBRATED: "uncalibrated"}

#: A channel whose r.m.s. is below this share of the median one has no signal; one above `HOT_SHARE` times it is hot.
DEAD_SHARE, HOT_SHARE = 0.1, 5.0
#: By how many of its r.m.s. a pedestal may wander in a run.
WANDER = 1.0


def find_bad(
    pedestals: Pedestals,
    codes_per_pe: Floats | None = None,
    parts: Floats | None = None,
    *,
    dead_share: float = DEAD_SHARE,
    hot_share: float = HOT_SHARE,
    wander: float = WANDER,
) -> npt.NDArray[np.uint8]:
    """Say what is wrong with each channel and gain.

    * dead: ``rms <= dead_share * median of all rms`` of the gain, so also no variance at all, or no records;
    * hot: ``rms > hot_share * median of all rms`` of the gain;
    * unstable: the largest and the smallest pedestal of parts of the run differ by more than ``wander * rms``;
    * uncalibrated: the factor is not finite or not above 0.

    Parameters
    ----------
    pedestals : Pedestals
        Of the run.
    codes_per_pe : ndarray of float64, shape (n_channels, 2), optional
    parts : ndarray of float64, shape (n_parts, n_channels, 2), optional
        Pedestals (medians) of parts of the run, ADC codes. A part without records is NaN and does not count.
    dead_share, hot_share, wander : float

    Returns
    -------
    ndarray of uint8, shape (n_channels, 2)
        Sum of `DEAD`, `HOT`, `UNSTABLE` and `UNCALIBRATED`; 0 is a good channel.

    Raises
    ------
    UsageError
        If shapes do not fit, or limits make no sense.
    """
    shape = pedestals.rms.shape
    for name, array in (("factors", codes_per_pe), ("pedestals of parts", None if parts is None else parts[0])):
        if array is not None and array.shape != shape:
            raise UsageError(f"{name} are of shape {array.shape}, the pedestals of shape {shape}")
    if not (0 <= dead_share < hot_share and wander > 0):
        raise UsageError(
            f"limits {dead_share:g}, {hot_share:g} and {wander:g} make no sense",
            remedy="0 <= dead_share < hot_share, wander > 0",
        )
    flags = np.zeros(shape, np.uint8)
    alive = pedestals.rms > 0
    for gain in range(shape[1]):
        rms = pedestals.rms[:, gain]
        usual = float(np.median(rms[alive[:, gain]])) if alive[:, gain].any() else np.inf
        flags[~(rms > dead_share * usual), gain] |= DEAD  # so written, NaN is dead
        flags[rms > hot_share * usual, gain] |= HOT
    if parts is not None and len(parts):
        known = np.isfinite(parts)
        low = np.where(known, parts, np.inf).min(axis=0)
        high = np.where(known, parts, -np.inf).max(axis=0)
        moves = known.any(axis=0) & (high - low > wander * np.nan_to_num(pedestals.rms))
        flags[moves] |= UNSTABLE
    if codes_per_pe is not None:
        flags[~(np.isfinite(codes_per_pe) & (codes_per_pe > 0))] |= UNCALIBRATED
    return flags


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
    images: npt.NDArray[np.float32], neighbours: Ints, bad: npt.NDArray[np.bool_], wanted: int
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
            if count >= wanted:
                out[i, p] = total / count
                repaired[i] += 1
            else:
                out[i, p] = np.nan
                lost[i] += 1
    return out, repaired, lost

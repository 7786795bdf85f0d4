"""Pedestals: exact medians, means, r.m.s. of 16-bit amplitudes, of arrays or in one pass over files of any size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.camera.calibration import QUARTERS
from apbatch.camera.geometry import Floats
from apbatch.camera.kernel import kernel
from apbatch.errors import UsageError

_VALUES = 1 << 16
#: Channels that are put side by side in memory at a time.
_TILE = 32


@dataclass(frozen=True, eq=False)
class Pedestals:
    """What the amplitudes of a run say about each channel and gain, in ADC codes.

    Attributes
    ----------
    median, mean, rms : ndarray of float64, shape (n_channels, 2)
        `rms` is the standard deviation about the mean. NaN without records.
    records : int
    """

    median: Floats
    mean: Floats
    rms: Floats
    records: int


def pedestal_statistics(adc: npt.NDArray[np.uint16]) -> Pedestals:
    """Return median, mean and r.m.s. of each channel, of a cluster or of a whole camera.

    Sums are made of whole numbers, so that no order of the records changes a digit.

    Parameters
    ----------
    adc : ndarray of uint16, shape (n_records, n_channels, 2)
        Quarters of ADC codes, high and low gain.

    Raises
    ------
    UsageError
        If the array has another shape.
    """
    if adc.ndim != 3 or adc.shape[2] != 2:
        raise UsageError(f"amplitudes are of shape {adc.shape}, wanted are (records, channels, 2)")
    if not len(adc):
        nothing = np.full(adc.shape[1:], np.nan)
        return Pedestals(nothing, nothing.copy(), nothing.copy(), 0)
    found = _statistics(np.ascontiguousarray(adc, np.uint16).reshape(len(adc), -1)) / QUARTERS
    median, mean, rms = found.reshape(3, *adc.shape[1:])
    return Pedestals(median, mean, rms, len(adc))


class PedestalCounter:
    """Counts how often each channel has each amplitude; its medians are those of `pedestals` to the bit.

    Parameters
    ----------
    n_channels : int
        Of two gains each. Memory is 256 KiB for a channel and gain.
    """

    def __init__(self, n_channels: int = 32) -> None:
        self._counts = np.zeros((n_channels * 2, _VALUES), np.uint32)
        self.records = 0

    def add(self, adc: npt.NDArray[np.uint16]) -> None:
        """Count records, an array of shape (n_records, n_channels, 2)."""
        flat = np.ascontiguousarray(adc, np.uint16).reshape(len(adc), len(self._counts))
        _count(flat, self._counts)
        self.records += len(adc)

    def absorb(self, other: PedestalCounter) -> None:
        """Add what another one has counted."""
        self._counts += other._counts
        self.records += other.records

    def __getstate__(self) -> tuple[int, int, npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Return what goes from process to process: amplitudes that occurred, a few hundred of a channel's 65,536."""
        places = np.flatnonzero(self._counts)
        return self.records, len(self._counts), places, self._counts.reshape(-1)[places]

    def __setstate__(self, state: tuple[int, int, npt.NDArray[np.int64], npt.NDArray[np.uint32]]) -> None:
        self.records, rows, places, counts = state
        self._counts = np.zeros((rows, _VALUES), np.uint32)
        self._counts.reshape(-1)[places] = counts

    def statistics(self) -> Pedestals:
        """Return median, mean and r.m.s.: those of `pedestal_statistics`, to the bit."""
        if not self.records:
            return pedestal_statistics(np.empty((0, len(self._counts) // 2, 2), np.uint16))
        found = _of_counts(self._counts, self.records) / QUARTERS
        median, mean, rms = found.reshape(3, -1, 2)
        return Pedestals(median, mean, rms, self.records)

    def noise(self, hit_sigma: float) -> tuple[Floats, Floats]:
        """Return what light in a few records does not move: the median absolute deviation, and how many are far above.

        Parameters
        ----------
        hit_sigma : float
            How many median absolute deviations above the median a hit is.

        Returns
        -------
        spread : ndarray of float64, shape (n_channels, 2)
            Median absolute deviation, ADC codes; NaN without records.
        hits : ndarray of float64, shape (n_channels, 2)
            Records that are hits; 0 in a channel that does not move.
        """
        shape = (len(self._counts) // 2, 2)
        if not self.records:
            return np.full(shape, np.nan), np.zeros(shape)
        spread, hits = _noise_of_counts(self._counts, self.records, hit_sigma)
        return (spread / QUARTERS).reshape(shape), hits.reshape(shape)

    def result(self) -> Floats:
        """Return the median of each channel and gain in ADC codes, shape (n_channels, 2); NaN without records."""
        return self.statistics().median


@kernel
def _of_counts(counts: npt.NDArray[np.uint32], records: int) -> Floats:
    """Return median, mean and r.m.s. of each row of counts, shape (3, n_rows)."""
    out = np.empty((3, counts.shape[0]))
    for c in range(counts.shape[0]):
        out[0, c], out[1, c], out[2, c] = _of_one(counts[c], 0, counts.shape[1] - 1, records)
    return out


@kernel
def _noise_of_counts(counts: npt.NDArray[np.uint32], records: int, hit_sigma: float) -> tuple[Floats, Floats]:
    """Return median absolute deviation and number of hits of each row of counts."""
    n_rows, n_values = counts.shape
    spread, hits = np.empty(n_rows), np.zeros(n_rows)
    first, second = (records - 1) // 2, records // 2
    for c in range(n_rows):
        middle = _of_one(counts[c], 0, n_values - 1, records)[0]
        # Values by their distance from the middle: one step below or above at a time.
        below, above = int(math.floor(middle)), int(math.floor(middle)) + 1
        near, far, passed = -1.0, -1.0, 0
        while far < 0.0:
            if below >= 0 and (above >= n_values or middle - below <= above - middle):
                distance, number = middle - below, counts[c, below]
                below -= 1
            else:
                distance, number = above - middle, counts[c, above]
                above += 1
            passed += number
            if near < 0.0 and passed > first:
                near = distance
            if passed > second:
                far = distance
        spread[c] = (near + far) / 2.0
        if spread[c] > 0.0:
            limit = middle + hit_sigma * spread[c]
            for value in range(min(n_values, int(math.floor(limit)) + 1), n_values):
                hits[c] += counts[c, value]
    return spread, hits


@kernel
def _of_one(counts: npt.NDArray[np.uint32], lowest: int, highest: int, records: int) -> tuple[float, float, float]:
    """Return median, mean and r.m.s. of values counted between `lowest` and `highest`."""
    # The middle value, or the mean of the two in the middle.
    first, second = (records - 1) // 2, records // 2
    low, high, passed = -1, -1, 0
    total = np.int64(0)
    for value in range(lowest, highest + 1):
        passed += counts[value]
        total += value * np.int64(counts[value])
        if low < 0 and passed > first:
            low = value
        if high < 0 and passed > second:
            high = value
    mean = total / records
    squares = 0.0
    for value in range(lowest, highest + 1):
        if counts[value]:
            squares += counts[value] * (value - mean) ** 2
    return (low + high) / 2.0, float(mean), math.sqrt(squares / records)


@kernel
def _statistics(adc: npt.NDArray[np.uint16]) -> Floats:
    n_records, n_columns = adc.shape
    out = np.empty((3, n_columns))
    counts = np.zeros(_VALUES, np.uint32)
    tile = np.empty((_TILE, n_records), np.uint16)
    for c0 in range(0, n_columns, _TILE):
        width = min(_TILE, n_columns - c0)
        for i in range(n_records):
            for c in range(width):
                tile[c, i] = adc[i, c0 + c]
        for c in range(width):
            lowest, highest = _VALUES, 0
            for value in tile[c]:
                counts[value] += 1
                lowest, highest = min(lowest, value), max(highest, value)
            out[0, c0 + c], out[1, c0 + c], out[2, c0 + c] = _of_one(counts, lowest, highest, n_records)
            for value in range(lowest, highest + 1):
                counts[value] = 0
    return out


@kernel
def _count(adc: npt.NDArray[np.uint16], counts: npt.NDArray[np.uint32]) -> None:
    for i in range(adc.shape[0]):
        for c in range(adc.shape[1]):
            counts[c, adc[i, c]] += 1

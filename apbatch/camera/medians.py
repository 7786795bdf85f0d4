"""Pedestals in one pass over files of any size: exact medians, and spreads, of 16-bit amplitudes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from apbatch.camera.calibration import QUARTERS
from apbatch.camera.geometry import Floats
from apbatch.camera.kernels.decorators import kernel

_VALUES = 1 << 16


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
        if not self.records:
            return np.full((len(self._counts) // 2, 2), np.nan)
        return (_medians(self._counts, self.records) / QUARTERS).reshape(-1, 2)


@kernel
def _medians(counts: npt.NDArray[np.uint32], records: int) -> Floats:
    out = np.empty(len(counts))
    for c in range(len(counts)):
        out[c] = _median(counts[c], records)
    return out


@kernel
def _noise_of_counts(counts: npt.NDArray[np.uint32], records: int, hit_sigma: float) -> tuple[Floats, Floats]:
    """Return median absolute deviation and number of hits of each row of counts."""
    n_rows, n_values = counts.shape
    spread, hits = np.empty(n_rows), np.zeros(n_rows)
    first, second = (records - 1) // 2, records // 2
    for c in range(n_rows):
        middle = _median(counts[c], records)
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
def _median(counts: npt.NDArray[np.uint32], records: int) -> float:
    """Return the middle one of values that were counted, or the mean of the two in the middle."""
    first, second = (records - 1) // 2, records // 2
    low, passed = -1, 0
    for value in range(len(counts)):
        passed += counts[value]
        if low < 0 and passed > first:
            low = value
        if passed > second:
            return (low + value) / 2.0
    return np.nan


@kernel
def _count(adc: npt.NDArray[np.uint16], counts: npt.NDArray[np.uint32]) -> None:
    for i in range(adc.shape[0]):
        for c in range(adc.shape[1]):
            counts[c, adc[i, c]] += 1

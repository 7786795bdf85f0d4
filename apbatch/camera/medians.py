"""Exact medians of 16-bit amplitudes in one pass and constant memory: pedestals of files of any size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from apbatch.camera.calibration import QUARTERS
from apbatch.camera.geometry import Floats
from apbatch.camera.kernel import kernel

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
        flat = np.ascontiguousarray(adc, np.uint16).reshape(len(adc), -1)
        _count(flat, self._counts)
        self.records += len(adc)

    def result(self) -> Floats:
        """Return the median of each channel and gain in ADC codes, shape (n_channels, 2); NaN without records."""
        if not self.records:
            return np.full((len(self._counts) // 2, 2), np.nan)
        # The middle value, or the mean of the two in the middle; quarters of codes are exact in double precision.
        middle = [_at_rank(self._counts, rank) for rank in ((self.records - 1) // 2, self.records // 2)]
        return np.asarray((middle[0] + middle[1]) / 2 / QUARTERS).reshape(-1, 2)


@kernel
def _at_rank(counts: npt.NDArray[np.uint32], rank: int) -> Floats:
    values = np.empty(counts.shape[0], np.float64)
    for c in range(counts.shape[0]):
        passed = 0
        for value in range(counts.shape[1]):
            passed += counts[c, value]
            if passed > rank:
                values[c] = value
                break
    return values


@kernel
def _count(adc: npt.NDArray[np.uint16], counts: npt.NDArray[np.uint32]) -> None:
    for i in range(adc.shape[0]):
        for c in range(adc.shape[1]):
            counts[c, adc[i, c]] += 1

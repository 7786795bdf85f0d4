"""The compiled integration of sim_telarray's traces: samples to photo-electrons and times, one pass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from apbatch.camera.kernels.decorators import kernel

Samples = npt.NDArray[np.uint16]
Floats32 = npt.NDArray[np.float32]


@kernel
def integrate(
    samples: Samples,
    pedestal: Floats32,
    pe_per_code: Floats32,
    saturated: int,
    nanoseconds: float,
    image: Floats32,
    peak: Floats32,
) -> None:
    """Sum the traces of one camera over the whole read-out.

    Parameters
    ----------
    samples : ndarray of uint16, shape (n_gains, n_pixels, n_samples)
    pedestal : ndarray of float32, shape (n_gains, n_pixels)
        Codes of one sample.
    pe_per_code : ndarray of float32, shape (n_gains, n_pixels)
    saturated : int
        Above this code anywhere in the high gain, the low gain is taken.
    nanoseconds : float
        Of a sample.
    image, peak : ndarray of float32, shape (n_pixels,)
        Take photo-electrons, and the time of the largest sample, weighted with its two neighbours, from the start of
        the read-out. Pixels all of whose samples are 0 were not read out: NaN.
    """
    n_gains, n_pixels, n_samples = samples.shape
    for p in range(n_pixels):
        trace = samples[0, p]
        largest, at, total = int(trace[0]), 0, 0
        for k in range(n_samples):
            total += int(trace[k])
            if trace[k] > largest:
                largest, at = int(trace[k]), k
        gain = 0
        if n_gains > 1 and largest > saturated:
            gain, total = 1, 0
            trace = samples[1, p]
            largest, at = int(trace[0]), 0
            for k in range(n_samples):
                total += int(trace[k])
                if trace[k] > largest:
                    largest, at = int(trace[k]), k
        if largest == 0:
            image[p], peak[p] = np.nan, np.nan
            continue
        level = float(pedestal[gain, p])
        image[p] = (total - n_samples * level) * pe_per_code[gain, p]
        weights, moment = 0.0, 0.0
        for k in range(max(at - 1, 0), min(at + 2, n_samples)):
            weight = max(float(trace[k]) - level, 0.0)
            weights += weight
            moment += weight * k
        peak[p] = nanoseconds * moment / weights if weights > 0.0 else np.nan

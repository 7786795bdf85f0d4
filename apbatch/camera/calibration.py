"""From ADC codes to photo-electrons: pedestals, choice of gain, conversion factors.

``p.e. = (ADC / 4 - pedestal) / codes per photo-electron``, in the high gain of a channel, or in its low gain where
the high one is saturated. Amplitudes are in ADC codes; the files hold quarters of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry, Floats, Ints
from apbatch.camera.kernels.decorators import kernel
from apbatch.errors import UsageError

#: Quarters of an ADC code in one code.
QUARTERS = 4.0
#: High-gain amplitudes above the pedestal that are no longer proportional to the charge, in ADC codes. In data of
#: 2017 the ratio of high to low gain is constant (4.3) up to about 1,900 codes and drops beyond.
HIGH_GAIN_LIMIT = 1800.0
#: With fewer records the median of a run is no good pedestal.
FEWEST_RECORDS = 10
_HIGH, _LOW = 0, 1


def pedestals(adc: npt.NDArray[np.uint16]) -> Floats:
    """Find the pedestal of each channel and gain in a run that is mostly noise.

    The median: light is rare in a channel, so it does not move it. (A mean, even of what is near the median, lies
    0.2 p.e. higher in data of 2017, for the night sky's tail.)

    Parameters
    ----------
    adc : ndarray of uint16, shape (n_records, n_channels, 2)
        Quarters of ADC codes, high and low gain.

    Returns
    -------
    ndarray of float64, shape (n_channels, 2)
        ADC codes; NaN without records.
    """
    if not len(adc):
        return np.full(adc.shape[1:], np.nan)
    codes = adc.astype(np.float64) / QUARTERS
    return np.asarray(np.median(codes, axis=0), np.float64)


def photo_electrons(
    adc: npt.NDArray[np.uint16],
    pedestal: Floats,
    codes_per_pe: Floats,
    *,
    high_gain_limit: float = HIGH_GAIN_LIMIT,
) -> npt.NDArray[np.float32]:
    """Calibrate the records of one cluster, or of a whole camera (a channel is then a pixel).

    Parameters
    ----------
    adc : ndarray of uint16, shape (n_records, n_channels, 2)
        Quarters of ADC codes, high and low gain.
    pedestal : ndarray of float64, shape (n_channels, 2)
        ADC codes.
    codes_per_pe : ndarray of float64, shape (n_channels, 2)
        ADC codes of one photo-electron; NaN, infinite or not above 0 where a channel is not calibrated.
    high_gain_limit : float
        Amplitude above the pedestal from which the low gain is taken, ADC codes.

    Returns
    -------
    ndarray of float32, shape (n_records, n_channels)
        NaN for a channel that has no pedestal or no factor. A saturated channel whose low gain has none keeps its
        high gain: too small is less wrong than nothing.

    Raises
    ------
    UsageError
        If the shapes do not fit together.
    """
    if adc.ndim != 3 or adc.shape[2] != 2 or not adc.shape[1:] == pedestal.shape == codes_per_pe.shape:
        raise UsageError(
            f"amplitudes {adc.shape}, pedestals {pedestal.shape} and factors {codes_per_pe.shape} do not fit together"
        )
    usable = np.isfinite(pedestal) & np.isfinite(codes_per_pe) & (codes_per_pe > 0)
    return _photo_electrons(
        np.ascontiguousarray(adc, np.uint16),
        np.ascontiguousarray(pedestal, np.float64),
        np.where(usable, codes_per_pe, np.nan),
        float(high_gain_limit),
    )


@kernel
def _photo_electrons(
    adc: npt.NDArray[np.uint16], pedestal: Floats, codes_per_pe: Floats, limit: float
) -> npt.NDArray[np.float32]:
    n_records, n_channels = adc.shape[0], adc.shape[1]
    out = np.empty((n_records, n_channels), np.float32)
    for i in range(n_records):
        for c in range(n_channels):
            amplitude = adc[i, c, 0] / 4.0 - pedestal[c, 0]
            value = amplitude / codes_per_pe[c, 0]
            if amplitude > limit or np.isnan(value):  # saturated, or the high gain is not calibrated
                low = (adc[i, c, 1] / 4.0 - pedestal[c, 1]) / codes_per_pe[c, 1]
                if not np.isnan(low):
                    value = low
            out[i, c] = value
    return out


def factors_of_cluster(cluster: Ints, channel: Ints, codes_per_pe: Floats, number: int, n_channels: int = 32) -> Floats:
    """Arrange a table of factors as one cluster's array.

    Parameters
    ----------
    cluster, channel : ndarray of int64, shape (n_rows,)
        Of each row of the table; even channels are the high gain of channel/2, odd ones its low gain.
    codes_per_pe : ndarray of float64, shape (n_rows,)
    number : int
        Number of the cluster.
    n_channels : int
        Channels of a cluster, each with two gains.

    Returns
    -------
    ndarray of float64, shape (n_channels, 2)
        NaN where the table has no row.
    """
    out = np.full((n_channels, 2), np.nan)
    rows = np.flatnonzero((cluster == number) & (channel >= 0) & (channel < 2 * n_channels))
    out[channel[rows] // 2, channel[rows] % 2] = codes_per_pe[rows]
    return out


@dataclass(frozen=True, eq=False)
class Assembled:
    """Camera images made of the records of clusters.

    Attributes
    ----------
    images : ndarray of float32, shape (n_events, n_pixels)
        NaN in clusters that have no record of the event.
    event : ndarray of int64, shape (n_events,)
        Ascending.
    clusters : ndarray of int64, shape (n_events,)
        How many clusters each image has.
    first : ndarray of int64, shape (n_events,)
        Index of one record of each event: the first of the smallest cluster number.
    repeated : int
        Records left out because their cluster had the event already.
    """

    images: npt.NDArray[np.float32]
    event: Ints
    clusters: Ints
    first: Ints
    repeated: int


def assemble(event: Ints, cluster: Ints, pe: npt.NDArray[np.float32], camera: CameraGeometry) -> Assembled:
    """Put the records of clusters together into camera images, by event number.

    Not by time: the clusters' clocks differ.

    Parameters
    ----------
    event, cluster : ndarray of int64, shape (n_records,)
    pe : ndarray of float32, shape (n_records, n_channels)
        Photo-electrons by channel k, whose number in the camera is 2k.
    camera : CameraGeometry
    """
    order = np.lexsort((cluster, event))
    event_sorted, cluster_sorted = event[order], cluster[order]
    fresh = np.ones(len(order), bool)
    fresh[1:] = (event_sorted[1:] != event_sorted[:-1]) | (cluster_sorted[1:] != cluster_sorted[:-1])
    order = order[fresh]
    events, first, row, counts = np.unique(event[order], return_index=True, return_inverse=True, return_counts=True)
    images = np.full((len(events), camera.n_pixels), np.nan, np.float32)
    for one in np.unique(cluster[order]):
        pixels = np.flatnonzero(camera.cluster == one)
        mine = np.flatnonzero(cluster[order] == one)
        channels = camera.number[pixels] // 2
        images[row[mine][:, None], pixels] = pe[order[mine][:, None], channels]
    return Assembled(images, events.astype(np.int64), counts.astype(np.int64), order[first], int((~fresh).sum()))

"""What one file says of the quality of its run: monitored channels, times of its events, clusters that are there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry, Ints
from apbatch.formats.taiga.raw import DAY_NS
from apbatch.formats.taiga.raw_names import utc
from apbatch.quality.monitor import ChannelMonitor

_HOUR_NS = DAY_NS // 24
#: No time is known.
NO_TIME = -1
#: Experiment, run, telescope.
RunKey = tuple[str, int, int]


@dataclass
class FileQuality:
    """What was seen of a run in one file.

    Attributes
    ----------
    run : RunKey
    camera : CameraGeometry
    cluster : int
        Whose file it is; 0 for whole images.
    channels : ChannelMonitor
        Raw: high gain of 32 channels, then low gain, ADC codes. Images: pixels, p.e.
    event, time : ndarray of int64, shape (n_records,)
        Event number; nanoseconds since 1970 (of the day, if the date is not known), `NO_TIME` if it is not told.
    clusters : ndarray of int64, shape (n_records,)
        In how many clusters the event has light or noise: 1 in a raw file.
    by_cluster : dict
        Images that have each cluster of the camera.
    losses : Counter
        What was passed over, by reason.
    problems : list of str
    """

    run: RunKey
    camera: CameraGeometry
    cluster: int
    channels: ChannelMonitor
    event: Ints
    time: Ints
    clusters: Ints
    by_cluster: dict[int, int] = field(default_factory=dict)
    losses: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def clusters_there(pixels: npt.NDArray[np.float32], camera: CameraGeometry) -> npt.NDArray[np.bool_]:
    """Tell which clusters of the camera each image has: shape (n_images, n_clusters), clusters in order of number."""
    present = np.isfinite(pixels)
    return np.stack([present[:, camera.cluster == number].any(axis=1) for number in np.unique(camera.cluster)], axis=1)


def since_1970(of_day: Ints, night: date | None) -> Ints:
    """Return nanoseconds since 1970 of times of day (of the day itself, if the night is not known)."""
    if night is None:
        return np.asarray(of_day, np.int64)
    hours = np.maximum(of_day, 0) // _HOUR_NS
    starts = np.array([int(utc(night, hour * _HOUR_NS).timestamp()) * 1_000_000_000 for hour in range(24)])
    return np.where(of_day < 0, NO_TIME, starts[hours] + of_day - hours * _HOUR_NS)


def time_bins(time: Ints, bin_s: float) -> Ints:
    """Return the number of the time bin of each record, shape (n_records,); records without a time share the bin -1."""
    return np.where(time == NO_TIME, -1, time // int(bin_s * 1e9))

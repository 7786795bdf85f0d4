"""Monitoring of channels: level, spread, drift and hits over time, and which channels are not as the others.

Level and spread are the median and the median absolute deviation (as a standard deviation), which light in a few
records does not move. Sums of several files can be added.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry, Floats, Ints
from apbatch.errors import UsageError, nearest_word

#: With fewer records a bin of time tells no level.
FEWEST = 10
#: Standard deviations above the level from which an amplitude is a hit.
HIT_SIGMA = 6.0
#: A normal distribution's standard deviation by its median absolute deviation.
MAD = 1.4826
#: Spreads, as shares of the camera's median spread, below which a channel is dead and above which it is noisy.
DEAD, NOISY = 0.4, 2.0
#: A hot channel has so many times its group's median share of hits, at least one in a hundred records, and ten.
HOT, _HOT_SHARE = 5.0, 0.01
#: A channel is unsteady if its level moves by so many of its spreads, or if the levels of the bins are apart by more
#: than their errors: this chi square a degree of freedom.
MOVED, RESTLESS = 0.5, 5.0
#: Standard error of a median, in those of a mean.
_OF_MEDIAN = 1.2533


class Status(StrEnum):
    """What is wrong with a channel, the worst first."""

    ABSENT = "absent"
    DEAD = "dead"
    NOISY = "noisy"
    HOT = "hot"
    UNSTEADY = "unsteady"
    GOOD = "good"


@dataclass(frozen=True, eq=False)
class Channels:
    """What became of each channel; arrays of shape (n_channels,) unless said otherwise.

    Attributes
    ----------
    records : ndarray of int64
        Records with a value.
    level, spread : ndarray of float64
        Mean over time of the median, and root mean square of the spread; NaN without enough records.
    drift : ndarray of float64
        Change of the level from the first to the last bin: a straight line by least squares, weighted with the numbers
        of records.
    unrest : ndarray of float64
        Chi square a degree of freedom of the levels of the bins, if the level were constant.
    hits : ndarray of float64
        Share of records with an amplitude more than `HIT_SIGMA` spreads above the level.
    bins : ndarray of int64, shape (n_bins,)
    levels : ndarray of float64, shape (n_bins, n_channels)
    """

    records: Ints
    level: Floats
    spread: Floats
    drift: Floats
    unrest: Floats
    hits: Floats
    bins: Ints
    levels: Floats


class ChannelMonitor:
    """Sums over records of channels, by bins of time; memory grows with the number of bins only."""

    def __init__(self, n_channels: int) -> None:
        self.n_channels = n_channels
        #: By bin: seen, used for a level, sum of levels and of squared spreads by records used, hits.
        self._sums: dict[int, Floats] = {}

    def add(self, bins: Ints, values: npt.NDArray[np.float32] | Floats) -> None:
        """Take in records.

        Parameters
        ----------
        bins : ndarray of int64, shape (n_records,)
            Bin of time of each record.
        values : ndarray, shape (n_records, n_channels)
            Amplitudes; NaN where there is none.
        """
        order = np.argsort(bins, kind="stable")
        starts = np.flatnonzero(np.diff(bins[order], prepend=bins[order][:1] - 1))
        for rows in np.split(order, starts[1:]) if len(order) else []:
            sums = self._sums.setdefault(int(bins[rows[0]]), np.zeros((5, self.n_channels)))
            _add(sums, np.asarray(values[rows], np.float64))

    def add_counted(self, bin_number: int, records: int, level: Floats, spread: Floats, hits: Floats) -> None:
        """Take in records whose medians are already counted.

        Parameters
        ----------
        bin_number : int
            Number of the bin of time.
        records : int
            How many records these are.
        level : ndarray of float64, shape (n_channels,)
            Medians, in the unit of the amplitudes.
        spread : ndarray of float64, shape (n_channels,)
            Median absolute deviations, as they are.
        hits : ndarray of float64, shape (n_channels,)
            Records with a hit.
        """
        sums = self._sums.setdefault(bin_number, np.zeros((5, self.n_channels)))
        sums[0] += records
        if records >= FEWEST:
            square = (MAD * spread) ** 2
            sums[1:] += np.stack([np.full(self.n_channels, records), records * level, records * square, hits])

    @property
    def sums(self) -> dict[int, Floats]:
        """The sums of each bin, shape (5, n_channels): what `ChannelMonitor.of_sums` takes."""
        return self._sums

    @classmethod
    def of_sums(cls, sums: Mapping[int, Floats]) -> ChannelMonitor:
        """Return the monitor with these sums, of at least one bin."""
        monitor = cls(next(iter(sums.values())).shape[1])
        monitor._sums.update(sums)
        return monitor

    def merge(self, other: ChannelMonitor) -> None:
        """Add the sums of other records of the same channels."""
        for number, sums in other._sums.items():
            mine = self._sums.setdefault(number, np.zeros((5, self.n_channels)))
            mine += sums

    def result(self) -> Channels:
        """Return what the records say of each channel."""
        bins = np.array(sorted(self._sums), np.int64)
        sums = np.array([self._sums[number] for number in bins.tolist()]).reshape(len(bins), 5, self.n_channels)
        records, used, levels, squares, hits = sums.transpose(1, 0, 2)
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of channels without a level
            by_bin = levels / used
            total = used.sum(axis=0)
            level = levels.sum(axis=0) / total
            spread = np.sqrt(squares.sum(axis=0) / total)
            offset = bins[:, None] - (used * bins[:, None]).sum(axis=0) / total
            drift = (
                (offset * levels).sum(axis=0) / (used * offset**2).sum(axis=0) * np.ptp(bins) if len(bins) else level
            )
            off = np.nansum(used * (by_bin - level) ** 2, axis=0) / (_OF_MEDIAN * spread) ** 2
            unrest = off / ((used > 0).sum(axis=0) - 1)
            share = hits.sum(axis=0) / total
        seen_once = records.sum(axis=0).astype(np.int64)
        return Channels(seen_once, level, spread, _finite(drift), _finite(unrest), share, bins, by_bin)


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)


def _add(sums: Floats, values: Floats) -> None:
    there = np.isfinite(values)
    count = there.sum(axis=0)
    sums[0] += count
    enough = np.flatnonzero(count >= FEWEST)
    if not len(enough):
        return
    values = np.where(there[:, enough], values[:, enough], np.nan)
    complete = bool(there[:, enough].all())
    median = np.median if complete else np.nanmedian
    level = median(values, axis=0)
    spread = MAD * median(np.abs(values - level), axis=0)
    above = values > level + HIT_SIGMA * spread
    count = count[enough]
    sums[1, enough] += count
    sums[2, enough] += count * level
    sums[3, enough] += count * spread**2
    sums[4, enough] += np.where(spread > 0, above.sum(axis=0), 0)


#: Channels of a board of raw data, each with two gains.
BOARD = 32


def in_pixel_order(clusters: Mapping[int, Channels], camera: CameraGeometry) -> dict[str, Channels]:
    """Return high and low gain in the order of the camera's pixels.

    Parameters
    ----------
    clusters : mapping
        By number of the cluster, its channels: the high gain of `BOARD`, then their low gain.
    camera : CameraGeometry

    Returns
    -------
    dict
        ``high`` and ``low``; pixels of other clusters are NaN and were never seen.
    """
    bins = np.unique(np.concatenate([result.bins for result in clusters.values()]))
    gains = {}
    for place, gain in enumerate(("high", "low")):
        columns = {name: np.full(camera.n_pixels, np.nan) for name in ("level", "spread", "drift", "unrest", "hits")}
        records, levels = np.zeros(camera.n_pixels, np.int64), np.full((len(bins), camera.n_pixels), np.nan)
        for cluster, result in clusters.items():
            pixels = camera.index(np.full(BOARD, cluster), 2 * np.arange(BOARD))
            channels = np.flatnonzero(pixels >= 0)
            pixels, channels = pixels[channels], channels + place * BOARD
            for name, values in columns.items():
                values[pixels] = getattr(result, name)[channels]
            records[pixels] = result.records[channels]
            levels[np.ix_(np.searchsorted(bins, result.bins), pixels)] = result.levels[:, channels]
        gains[gain] = Channels(records=records, bins=bins, levels=levels, **columns)
    return gains


def status_of(channels: Channels, group: Ints | None = None) -> npt.NDArray[np.str_]:
    """Say of each channel whether it is as the others of its camera.

    Parameters
    ----------
    channels : Channels
    group : ndarray of int64, shape (n_channels,), optional
        Read-out cluster of each: where clusters trigger by themselves, those of few triggers see light more often, so
        shares of hits are compared within a cluster only.

    Returns
    -------
    ndarray of str, shape (n_channels,)
        Values of `Status`.
    """
    spread = channels.spread
    usual = float(np.nanmedian(spread)) if np.isfinite(spread).any() else np.nan
    hits = np.full(spread.shape, np.nan)
    for number in np.unique(group) if group is not None else [None]:
        mine = np.ones(spread.shape, bool) if group is None else group == number
        finite = mine & np.isfinite(channels.hits)
        if finite.any():
            hits[mine] = np.median(channels.hits[finite])
    status_of_pixel = np.full(spread.shape, Status.GOOD.value, "<U8")
    with np.errstate(invalid="ignore"):
        for status, there in (
            (Status.UNSTEADY, (np.abs(channels.drift) > MOVED * spread) | (channels.unrest > RESTLESS)),
            (
                Status.HOT,
                (channels.hits > np.maximum(HOT * hits, _HOT_SHARE)) & (channels.hits * channels.records >= FEWEST),
            ),
            (Status.NOISY, spread > NOISY * usual),
            (Status.DEAD, (spread < DEAD * usual) | (spread == 0)),
            (Status.ABSENT, channels.records == 0),
        ):
            status_of_pixel[there] = status.value
    return status_of_pixel


#: What may be done with bad pixels.
KEEP, MEND, MARK = "keep", "mend", "mark"
TREATMENTS = (KEEP, MEND, MARK)
#: Kinds of `Status` that may be called bad.
KINDS = (Status.DEAD.value, Status.HOT.value, Status.NOISY.value, Status.ABSENT.value)
#: Kinds that are bad unless others are named.
USUAL = (Status.DEAD.value, Status.HOT.value)


@dataclass(frozen=True)
class BadPixels:
    """What is done with pixels that are not as the others.

    Attributes
    ----------
    treatment : str
        ``keep`` them as they are, ``mend`` them by the mean of their good neighbours (missing without one), or
        ``mark`` them as missing.
    kinds : tuple of str
        Which are bad: ``dead``, ``hot``, ``noisy``, ``absent`` (never measured though their cluster was).

    Raises
    ------
    UsageError
        If there is no such treatment or kind, with the nearest.
    """

    treatment: str = KEEP
    kinds: tuple[str, ...] = USUAL

    def __post_init__(self) -> None:
        choices: list[tuple[str, tuple[str, ...], str]] = [("treatment of bad pixels", TREATMENTS, self.treatment)]
        choices += [("kind of bad pixels", KINDS, kind) for kind in self.kinds]
        for what, options, word in choices:
            if word not in options:
                raise UsageError(
                    f"unknown {what} '{word}'",
                    nearest=nearest_word(word, options),
                    remedy=f"known are {', '.join(options)}",
                )
        if not self.kinds:
            raise UsageError("no kind of bad pixels is named", remedy=f"known are {', '.join(KINDS)}")

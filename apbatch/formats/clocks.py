"""Times as instruments count them, turned into UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import numpy.typing as npt

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: TAI is so many seconds ahead of GPS, for ever; GPS began on 6 January 1980.
_TAI_MINUS_GPS_S = 19
_GPS_YEAR = 1980


def utc_from_gps(seconds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Convert seconds since 1970 by a clock of GPS, which knows no leap seconds, to seconds of UTC since 1970.

    Parameters
    ----------
    seconds : ndarray of int64
        As a receiver of GPS gives them where its date is read as if it were UTC; from 1980 on.

    Returns
    -------
    ndarray of int64, of the same shape
        18 less from 2017 on. Leap seconds are those that the installed IERS table (`erfa.leap_seconds`) has.

    Examples
    --------
    >>> utc_from_gps(np.array([1_500_000_000]))
    array([1499999982])
    """
    starts, leaps = _leap_seconds()
    # A leap second begins to count when UTC, not GPS, has reached its date.
    place = np.searchsorted(starts + leaps, seconds, side="right") - 1
    return np.asarray(seconds - np.where(place >= 0, leaps[np.maximum(place, 0)], 0), np.int64)


def time_of(nanoseconds: int) -> datetime:
    """Return the UTC of nanoseconds since 1970, to a microsecond.

    Examples
    --------
    >>> time_of(1_500_000_000_000_001_000).isoformat()
    '2017-07-14T02:40:00.000001+00:00'
    """
    return EPOCH + timedelta(microseconds=nanoseconds // 1000)


@cache
def _leap_seconds() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return from which second of UTC since 1970 on GPS is ahead, and by how many seconds."""
    import erfa  # type: ignore[import-untyped]

    table = [
        (int(datetime(int(row["year"]), int(row["month"]), 1, tzinfo=UTC).timestamp()), round(float(row["tai_utc"])))
        for row in erfa.leap_seconds.get()
        if row["year"] >= _GPS_YEAR
    ]
    starts, tai = np.array(table, np.int64).T
    return starts, tai - _TAI_MINUS_GPS_S

"""Clocks against astropy; angles at their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from apbatch.formats.angles import clamped, turned
from apbatch.formats.clocks import utc_from_gps

#: Seconds from 1970 to the start of GPS.
GPS_START = 315_964_800


def test_gps_becomes_utc_as_in_astropy() -> None:
    from astropy.time import Time

    seconds = np.random.default_rng(4).integers(GPS_START, 1_900_000_000, 500)
    # The first second after each leap second, and the last one before it.
    edges = np.array([1_341_100_800 + 16, 1_435_708_800 + 17, 1_483_228_800 + 18])
    seconds = np.concatenate([seconds, edges, edges - 2])
    expected = Time(seconds - GPS_START, format="gps").utc.to_value("ymdhms")
    found = [np.datetime64(int(one), "s").astype(object) for one in utc_from_gps(seconds)]
    for one, there in zip(found, expected, strict=True):
        assert (one.year, one.month, one.day, one.hour, one.minute) == tuple(
            int(there[name]) for name in ("year", "month", "day", "hour", "minute")
        )
        assert one.second == round(float(there["second"]))


@pytest.mark.parametrize(("utc", "ahead"), [(1_293_840_000, 15), (1_400_000_000, 16), (1_600_000_000, 18)])
def test_gps_is_ahead_by_the_leap_seconds_since_1980(utc: int, ahead: int) -> None:
    assert utc_from_gps(np.array([utc + ahead])).tolist() == [utc]


def test_angles_are_held_at_their_limits_within_rounding() -> None:
    zenith = 90 - math.degrees(float(np.float32(math.pi / 2)))
    assert zenith < 0
    assert clamped([zenith, 180.00001, 45.5], 0, 180).tolist() == [0.0, 180.0, 45.5]
    assert np.isnan(clamped([-0.001, 180.1, math.inf, math.nan], 0, 180)).all()


def test_azimuths_are_below_360_degrees() -> None:
    assert turned([-1e-17, 360.0, -90.0, 725.0]).tolist() == [0.0, 0.0, 270.0, 5.0]
    assert np.isnan(turned([math.inf, math.nan])).all()

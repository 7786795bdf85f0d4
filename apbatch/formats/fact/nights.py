"""Nights of FACT, as numbers ``YYYYMMDD`` of the evening; a night's runs are counted from 1, its events in the run."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import lru_cache

#: A run of an observation is counted within its night.
RUNS_A_NIGHT = 1000
_DAY_NS = 86_400 * 10**9
#: Years that can be of data taking.
FIRST_YEAR, LAST_YEAR = 2000, 2099


@lru_cache(maxsize=4096)
def night_of(number: int) -> date | None:
    """Return the date of a night; None if the number is none.

    Examples
    --------
    >>> night_of(20170119), night_of(20170132)
    (datetime.date(2017, 1, 19), None)
    """
    try:
        night = date(number // 10_000, number // 100 % 100, number % 100)
    except ValueError:
        return None
    return night if FIRST_YEAR <= night.year <= LAST_YEAR else None


@lru_cache(maxsize=4096)
def times_of(night: date) -> tuple[int, int]:
    """Return from when to when, nanoseconds since 1970 (UTC), events may be said to be of a night.

    A night lasts from noon to noon; a day before and after are granted to whoever counted otherwise.
    """
    noon = int(datetime(night.year, night.month, night.day, 12, tzinfo=UTC).timestamp()) * 10**9
    return noon - _DAY_NS, noon + 2 * _DAY_NS

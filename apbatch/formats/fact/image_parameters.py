"""Rows of FACT's tables of image parameters (HDF5, a group ``events`` with a data set a column), and their units.

An event of an observation is known by ``night``, ``run_id`` and ``event_num``; simulations, which have columns of
CORSIKA, have no night. The time is ``unix_time_utc``, seconds and microseconds (two numbers a row, or the columns
``unix_time_utc_0`` and ``unix_time_utc_1``), or ``timestamp``, a text as ISO 8601 has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.errors import FormatError
from apbatch.formats.angles import ROUNDING_DEG, clamped, turned
from apbatch.formats.clocks import EPOCH
from apbatch.formats.event_columns import whole_numbers
from apbatch.formats.fact.nights import FIRST_YEAR, LAST_YEAR, RUNS_A_NIGHT, night_of, times_of
from apbatch.formats.hdf5 import Column, Hdf5, columns_of, joined
from apbatch.formats.row_rules import RowRules, Rows

GROUP = "events"
#: Columns without which a table is no such table, and a row none of it.
NEEDED = ("size", "width", "length", "run_id")
RUN, EVENT, NIGHT = "run_id", "event_num", "night"
_PAIR, _SECONDS, _MICROSECONDS, _TEXT = "unix_time_utc", "unix_time_utc_0", "unix_time_utc_1", "timestamp"
#: Nanoseconds since 1970, -1 where there is no time: made of the columns above.
TIME = "time"
#: What stands for a time that can't be read.
_NO_TIME, _BAD_TIME = -1, -2
#: Characters of a time as text.
_LONGEST_TEXT = 64
_LAST_S = 2**32
#: Times of data whose night is not told.
_FIRST_NS, _LAST_NS = times_of(date(FIRST_YEAR, 1, 1))[0], times_of(date(LAST_YEAR, 12, 31))[1]
ENERGY, PARTICLE = "corsika_event_header_total_energy", "corsika_run_header_particle_id"
GEV_PER_TEV = 1000.0
#: FACT's focal length, m (`apbatch.camera.instruments.fact`).
_FOCUS_M = 4.889
_Values = npt.NDArray[np.float64]


def _plain(values: _Values) -> _Values:
    return values


def _sky(values: _Values) -> _Values:
    """Turn millimetres in FACT's camera into degrees in the sky."""
    degrees: _Values = np.degrees(values / 1000 / _FOCUS_M)
    return degrees


def _finite(values: _Values) -> _Values:
    """Return moments; those of an image without extent are not finite, and no value."""
    return np.where(np.isfinite(values), values, np.nan)


_ROUNDING_RAD = math.radians(ROUNDING_DEG)
_ZENITH_DEG, _ZENITH_RAD = (-ROUNDING_DEG, 180 + ROUNDING_DEG), (-_ROUNDING_RAD, math.pi + _ROUNDING_RAD)
#: Drives and simulations count azimuths beyond a turn, and from -180 degrees.
_AZIMUTH_DEG, _AZIMUTH_RAD = (-720.0, 720.0), (-4 * math.pi, 4 * math.pi)
#: The camera has a radius of 0.2 m.
_IN_CAMERA_MM = 500.0
_SHARE = (0.0, 1.0 + 1e-6)
_PIXELS = (0.0, 1440.0)
_CORE_CM = (-1e8, 1e8)
#: Columns of FACT's tables: name here, how values are converted, and between what they must lie as they are stored.
COLUMNS: dict[str, tuple[str, Callable[[_Values], _Values], tuple[float, float]]] = {
    "size": ("size", _plain, (0.0, 1e8)),
    "width": ("width", _sky, (0.0, _IN_CAMERA_MM)),
    "length": ("length", _sky, (0.0, _IN_CAMERA_MM)),
    "cog_x": ("cog_x", _sky, (-_IN_CAMERA_MM, _IN_CAMERA_MM)),
    "cog_y": ("cog_y", _sky, (-_IN_CAMERA_MM, _IN_CAMERA_MM)),
    "delta": ("psi", np.degrees, (-2 * math.pi, 2 * math.pi)),
    "skewness_long": ("skewness", _finite, (-math.inf, math.inf)),
    "kurtosis_long": ("kurtosis", _finite, (-math.inf, math.inf)),
    "leakage1": ("leakage", _plain, _SHARE),
    "concentration_one_pixel": ("con1", _plain, _SHARE),
    "concentration_two_pixel": ("con2", _plain, _SHARE),
    "num_islands": ("n_islands", _plain, _PIXELS),
    "num_pixel_in_shower": ("n_pixels", _plain, _PIXELS),
    "pointing_position_zd": ("pointing_altitude", lambda values: 90.0 - clamped(values, 0, 180), _ZENITH_DEG),
    "pointing_position_az": ("pointing_azimuth", turned, _AZIMUTH_DEG),
    ENERGY: ("energy", lambda values: values / GEV_PER_TEV, (1e-1, 1e9)),
    "corsika_event_header_zd": ("zenith", lambda values: clamped(np.degrees(values), 0, 180), _ZENITH_RAD),
    "corsika_event_header_az": ("azimuth", lambda values: turned(np.degrees(values)), _AZIMUTH_RAD),
    "corsika_event_header_x": ("core_x", lambda values: values / 100, _CORE_CM),
    "corsika_event_header_y": ("core_y", lambda values: values / 100, _CORE_CM),
    PARTICLE: ("primary", _plain, (1, 9999)),
}
_MOST_NUMBERED = 2**31


def _rules_for(stored: Collection[str]) -> RowRules:
    """Return what a row of a table with these columns must obey; NaN is no value, and allowed but in its numbers."""
    numbers = [name for name in (RUN, EVENT) if name in stored]
    stated = " and ".join(f"{name} is {{{name}:.16g}}" for name in numbers)
    rules = [(_numbered(numbers), f"{stated}: whole numbers from 0 to 2^31 are wanted")]
    for name, (_, _, (low, high)) in COLUMNS.items():
        if name in stored:
            rules.append((_within(name, low, high), f"{name} is {{{name}:g}}"))
    timely = "a time before 2000 or after 2099"
    if NIGHT in stored:
        rules.append((lambda rows: _windows(rows[NIGHT])[0] > 0, f"{{{NIGHT}:.0f}} is not a date of data taking"))
        rules.append((lambda rows: rows[RUN] < RUNS_A_NIGHT, f"a night has no run {{{RUN}:.0f}}"))
        timely = f"a time that is not of night {{{NIGHT}:.0f}}"
    if any(name in stored for name in (_PAIR, _SECONDS, _TEXT)):
        rules.append((_timely, timely))
    return RowRules(*rules)


def _timely(rows: Rows) -> npt.NDArray[np.bool_]:
    """Tell which rows have a time of their night, or none."""
    first, last = _windows(rows[NIGHT]) if NIGHT in rows else (_FIRST_NS, _LAST_NS)
    return np.asarray((rows[TIME] == _NO_TIME) | ((rows[TIME] >= first) & (rows[TIME] < last)), np.bool_)


def _windows(nights: _Values) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return from when to when events may be of nights, nanoseconds since 1970; 0 and 0 of what is no night."""
    different, places = np.unique(nights, return_inverse=True)
    dates = [night_of(int(one)) if 0 <= one < 1e8 and one % 1 == 0 else None for one in different.tolist()]
    windows = np.array([(0, 0) if night is None else times_of(night) for night in dates], np.int64)
    return windows[places, 0], windows[places, 1]


def _numbered(names: list[str]) -> Callable[[Rows], npt.NDArray[np.bool_]]:
    def fits(rows: Rows) -> npt.NDArray[np.bool_]:
        fit = [whole_numbers(rows[name]) & (rows[name] >= 0) & (rows[name] < _MOST_NUMBERED) for name in names]
        return np.asarray(np.logical_and.reduce(fit), np.bool_)

    return fits


def _within(name: str, low: float, high: float) -> Callable[[Rows], npt.NDArray[np.bool_]]:
    return lambda rows: ~((rows[name] < low) | (rows[name] > high) | ((name == PARTICLE) & (rows[name] % 1 > 0)))


def is_table(file: Any) -> bool:
    """Tell whether an open HDF5 file has the group with its columns."""
    import h5py

    if not isinstance(file.get(GROUP, getlink=True), h5py.HardLink):
        return False
    group = file.get(GROUP)
    return isinstance(group, h5py.Group) and all(name in group for name in NEEDED)


def rows_of(hdf5: Hdf5) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield the rows that are events, some at a time; others are noted.

    Parameters
    ----------
    hdf5 : Hdf5
        One that `is_table`.

    Returns
    -------
    iterator of dict
        Values by column, as they are stored, NaN where there is none. `EVENT` is the number of the row where the file
        has no such column; `RUN` is ``night x 1000 + run`` of observations that tell the `NIGHT`; `TIME` is made of
        the columns of times.

    Raises
    ------
    FormatError
        If one of the columns that are needed is no list of numbers.
    """
    columns = _columns(hdf5)
    rules = _rules_for(columns)
    for numbers, rows in joined(hdf5, columns):
        times = _times(rows)
        if times is not None:
            rows[TIME] = times
        broken = rules.broken(rows, len(numbers))
        for place, reason in rules.reasons(rows, broken):
            hdf5.problems.add(0, f"row {numbers[place]} of {GROUP}: {reason}")
        rows.setdefault(EVENT, numbers.astype(np.float64))
        if NIGHT in rows:
            rows[RUN] = rows[NIGHT] * RUNS_A_NIGHT + rows[RUN]
        if (broken < 0).any():
            yield {name: values[broken < 0] for name, values in rows.items()}


def _columns(hdf5: Hdf5) -> dict[str, Column]:
    """Return the columns that are read."""
    import h5py

    group = hdf5.file[GROUP]
    stored, pairs = columns_of(group), columns_of(group, 2)
    if missing := [name for name in NEEDED if name not in stored]:
        raise FormatError(f"column '{missing[0]}' is not a list of numbers", where=hdf5.name)
    simulated = any(name.startswith("corsika_") for name in stored)
    keys = (RUN, EVENT) if simulated else (RUN, EVENT, NIGHT)
    columns = {
        name: Column(f"{GROUP}/{name}", stored[name], np.dtype(np.float64), needed=name in (*NEEDED, *keys))
        for name in dict.fromkeys((*keys, *COLUMNS))
        if name in stored
    }
    if simulated:  # the clock of its computer
        return columns
    if _PAIR in pairs and pairs[_PAIR].shape[1] == 2:
        columns[_PAIR] = Column(f"{GROUP}/{_PAIR}", pairs[_PAIR], np.dtype((np.float64, (2,))))
    elif _SECONDS in stored and _MICROSECONDS in stored:
        for name in (_SECONDS, _MICROSECONDS):
            columns[name] = Column(f"{GROUP}/{name}", stored[name], np.dtype(np.float64))
    elif _TEXT in stored:
        kind = stored[_TEXT].get_type()
        text = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
        if text and kind.get_size() <= _LONGEST_TEXT:
            columns[_TEXT] = Column(f"{GROUP}/{_TEXT}", stored[_TEXT], np.dtype(f"S{kind.get_size()}"))
        else:
            hdf5.problems.add(0, f"{GROUP}/{_TEXT} is not read: only texts of one length, of a time, are")
    return columns


def _times(rows: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.int64] | None:
    """Take the columns of times out of rows, and return the times; None if there are none."""
    if _TEXT in rows:
        return np.array([_moment(text) for text in rows.pop(_TEXT).tolist()], np.int64)
    if _PAIR in rows:
        seconds, microseconds = rows.pop(_PAIR).T
    elif _SECONDS in rows:
        seconds, microseconds = rows.pop(_SECONDS), rows.pop(_MICROSECONDS)
    else:
        return None
    none = np.isnan(seconds) | np.isnan(microseconds)
    fits = whole_numbers(seconds) & whole_numbers(microseconds)
    fits &= (seconds >= 0) & (seconds < _LAST_S) & (microseconds >= 0) & (microseconds < 1e6)
    whole = [np.where(fits, values, 0).astype(np.int64) for values in (seconds, microseconds)]
    return np.where(fits, whole[0] * 10**9 + whole[1] * 1000, np.where(none, _NO_TIME, _BAD_TIME))


def _moment(text: bytes) -> int:
    """Return the time that a text tells, in UTC unless it says otherwise."""
    try:
        moment = datetime.fromisoformat(text.decode("ascii").strip())
    except ValueError:
        return _BAD_TIME if text else _NO_TIME
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    nanoseconds = (moment - EPOCH) // timedelta(microseconds=1) * 1000
    return nanoseconds if 0 <= nanoseconds < _LAST_NS else _BAD_TIME

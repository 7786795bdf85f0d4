"""Rows of FACT's tables of image parameters (HDF5, a group ``events`` with a data set a column), and their units."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.errors import FormatError
from apbatch.formats.angles import ROUNDING_DEG, clamped, turned
from apbatch.formats.event_columns import whole_numbers
from apbatch.formats.hdf5 import Column, Hdf5, columns_of, joined
from apbatch.formats.row_rules import RowRules, Rows

GROUP = "events"
#: Columns without which a table is no such table, and a row none of it.
NEEDED = ("size", "width", "length", "run_id")
RUN, EVENT = "run_id", "event_num"
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
    return RowRules(*rules)


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


def rows_of(hdf5: Hdf5) -> Iterator[dict[str, npt.NDArray[np.float64]]]:
    """Yield the rows that are events, some at a time; others are noted.

    Parameters
    ----------
    hdf5 : Hdf5
        One that `is_table`.

    Returns
    -------
    iterator of dict
        Values by column, as they are stored, NaN where there is none. The number of the row is `EVENT` where the
        file has no such column.

    Raises
    ------
    FormatError
        If one of the columns that are needed is no list of numbers.
    """
    stored = columns_of(hdf5.file[GROUP])
    if missing := [name for name in NEEDED if name not in stored]:
        raise FormatError(f"column '{missing[0]}' is not a list of numbers", where=hdf5.name)
    columns = {
        name: Column(f"{GROUP}/{name}", stored[name], np.dtype(np.float64), needed=name in (*NEEDED, EVENT))
        for name in dict.fromkeys((RUN, EVENT, *COLUMNS))
        if name in stored
    }
    rules = _rules_for(columns)
    for numbers, rows in joined(hdf5, columns):
        broken = rules.broken(rows, len(numbers))
        for place, reason in rules.reasons(rows, broken):
            hdf5.problems.add(0, f"row {numbers[place]} of {GROUP}: {reason}")
        rows.setdefault(EVENT, numbers.astype(np.float64))
        if (broken < 0).any():
            yield {name: values[broken < 0] for name, values in rows.items()}

"""Rows of FACT's tables of image parameters (HDF5, a group ``events`` with a data set a column), and their units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.errors import FormatError
from apbatch.formats.event_columns import whole_numbers
from apbatch.formats.hdf5 import Column, Hdf5, columns_of, joined

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


#: Columns of FACT's tables: name here, and how values are converted.
COLUMNS: dict[str, tuple[str, Any]] = {
    "size": ("size", _plain),
    "width": ("width", _sky),
    "length": ("length", _sky),
    "cog_x": ("cog_x", _sky),
    "cog_y": ("cog_y", _sky),
    "delta": ("psi", np.degrees),
    "skewness_long": ("skewness", _plain),
    "kurtosis_long": ("kurtosis", _plain),
    "leakage1": ("leakage", _plain),
    "concentration_one_pixel": ("con1", _plain),
    "concentration_two_pixel": ("con2", _plain),
    "num_islands": ("n_islands", _plain),
    "num_pixel_in_shower": ("n_pixels", _plain),
    "pointing_position_zd": ("pointing_altitude", lambda values: 90.0 - values),
    "pointing_position_az": ("pointing_azimuth", lambda values: values % 360.0),
    ENERGY: ("energy", lambda values: values / GEV_PER_TEV),
    "corsika_event_header_zd": ("zenith", np.degrees),
    "corsika_event_header_az": ("azimuth", lambda values: np.degrees(values) % 360.0),
    "corsika_event_header_x": ("core_x", lambda values: values / 100),
    "corsika_event_header_y": ("core_y", lambda values: values / 100),
    PARTICLE: ("primary", _plain),
}


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
    for numbers, rows in joined(hdf5, columns):
        rows.setdefault(EVENT, numbers.astype(np.float64))
        fine = whole_numbers(rows[RUN]) & whole_numbers(rows[EVENT])
        if not fine.all():
            hdf5.problems.add(0, f"{int((~fine).sum())} rows without a number of run and event")
        if fine.any():
            yield {name: values[fine] for name, values in rows.items()}

"""Columns of events that several formats have, declared once, and batches of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from blake3 import blake3

from apbatch.formats.reader import Attribute

#: Rows of a batch.
BATCH = 65_536

ENERGY = Attribute("energy", "number", "Energy of the primary, estimated or simulated.", "TeV")
ZENITH = Attribute("zenith", "number", "Zenith angle of the shower.", "deg")
AZIMUTH = Attribute("azimuth", "number", "Azimuth of the shower, as the experiment counts it.", "deg")
CORE_X = Attribute("core_x", "number", "Place of the shower's core, x as the experiment counts it.", "m")
CORE_Y = Attribute("core_y", "number", "Place of the shower's core, y as the experiment counts it.", "m")
ELECTRONS = Attribute("electrons", "number", "Number of electrons of the shower at the ground.")
MUONS = Attribute("muons", "number", "Number of muons of the shower at the ground.")
FIRST_INTERACTION = Attribute("first_interaction", "number", "Height of the first interaction.", "m")
EVENT_CLUSTER = Attribute("cluster", "integer", "Number of the read-out cluster.")


def event_batch(
    run: npt.ArrayLike,
    event: npt.ArrayLike,
    columns: Mapping[str, Any],
    *,
    telescope: npt.ArrayLike = 0,
    cleaning: str = "none",
    time_ns: npt.NDArray[np.int64] | None = None,
) -> pa.RecordBatch:
    """Return events as a reader yields them; the experiment is the site's.

    Parameters
    ----------
    run, event, telescope : array_like of int, shape (n,) or ()
        What tells events apart in an experiment; telescope 0 is a whole array.
    columns : Mapping
        Arrays of shape (n,) by name; NaN is no value.
    cleaning : str
        How images were cleaned, or which of several descriptions of one event this is.
    time_ns : ndarray of int64, shape (n,), optional
        Nanoseconds since 1970, UTC; negative where there is none.
    """
    numbers = np.asarray(event, np.int64)
    rows = len(numbers)
    arrays: dict[str, Any] = {
        "run": np.broadcast_to(np.asarray(run, np.int64), rows),
        "event": numbers,
        "telescope": np.broadcast_to(np.asarray(telescope, np.int32), rows),
        "cleaning": pa.array([cleaning] * rows, pa.string()),
    }
    if time_ns is not None:
        arrays["time"] = pa.array(time_ns, pa.int64(), mask=time_ns < 0).cast(pa.timestamp("ns", "UTC"))
    return pa.RecordBatch.from_pydict({**arrays, **columns})


def run_of_name(name: str) -> int:
    """Return a number that stands for a file whose format knows no runs: 40 bits of the BLAKE3 of its name."""
    return int(blake3(PurePosixPath(name).name.encode("utf-8", "surrogateescape")).hexdigest()[:10], 16)


def station_of(path: str) -> int:
    """Return the number of the station that the path of a table names, 0 if it names none."""
    match = re.search(r"(?:^|/)s(?:tation_)?(\d{1,9})(?:/|$)", path)
    return int(match[1]) if match else 0


def whole_numbers(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell which values are whole numbers that int64 holds exactly."""
    with np.errstate(invalid="ignore"):
        return np.asarray((values == np.floor(values)) & (np.abs(values) < 2**53), np.bool_)

"""Events of a HiSPARC station, a PyTables table.

Sums: ``pulseheights``, of the four detectors of all events, in codes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from apbatch.formats.tables import HisparcReader
from apbatch.sample.contents import Contents
from apbatch.sample.hdf5 import write_table
from apbatch.sample.showers import generator

FOLDER = "hisparc"
STATION, EVENTS = 501, 200
#: 2011-07-21 00:00 as GPS counts it, s since 1970.
START_S = 1_311_206_400


def write(folder: Path, seed: int) -> list[Contents]:
    """Write the file into `folder` / ``hisparc``; return what it holds."""
    random = generator(seed, FOLDER)
    (folder / FOLDER).mkdir()
    second = START_S + np.cumsum(random.integers(1, 5, EVENTS))
    nanosecond = random.integers(0, 10**9, EVENTS)
    heights = random.integers(0, 2000, (EVENTS, 4)).astype("<i2")
    columns = {
        "event_id": np.arange(EVENTS, dtype="<u4"), "timestamp": second.astype("<i4"),
        "nanoseconds": nanosecond.astype("<u4"), "ext_timestamp": (second * 10**9 + nanosecond).astype("<u8"),
        "data_reduction": np.zeros(EVENTS, "u1"), "trigger_pattern": np.full(EVENTS, 10, "<u4"),
        "baseline": np.full((EVENTS, 4), 200, "<i2"), "std_dev": np.full((EVENTS, 4), 500, "<i2"),
        "n_peaks": (heights > 100).astype("<i2"), "pulseheights": heights,
        "integrals": 12 * heights.astype("<i4"), "traces": np.full((EVENTS, 4), -1, "<i4"),
        "event_rate": np.full(EVENTS, 0.4, "<f4"),
    }  # fmt: skip
    path = f"{FOLDER}/station_{STATION}.h5"
    write_table(folder / path, f"s{STATION}/events", columns)
    sums = {"pulseheights": float(heights.sum(dtype=np.int64))}
    return [Contents(path, HisparcReader.name, EVENTS, telescope=STATION, sums=sums)]

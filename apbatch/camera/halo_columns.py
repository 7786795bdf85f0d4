"""Halo parameters: the cleanings, rings and levels that define them, and their columns; nothing is computed here."""

from __future__ import annotations

from apbatch.camera.cleaning_rule import Cleaning
from apbatch.camera.parameters import PARAMETERS, UNITS

#: The cleanings, dim to bright; the boundary level is half the picture level.
CLEANINGS = tuple(Cleaning("tailcuts", picture, picture / 2) for picture in (5.0, 7.0, 10.0, 14.0))
#: Which of them gives the ellipse of the rings.
REFERENCE = 1
#: Where rings begin, in units of the enlarged ellipse; the last has no end.
RINGS = (1.5, 2.5, 3.5, 5.0, 8.0)
#: Pixels of a ring at or above each of these are counted, p.e.
LEVELS = (2.5, 3.5, 5.0, 7.0)
#: Parts of a ring, in order.
PARTS = ("along", "across")
#: What is summed up in each part of a ring, in order, and its unit.
SUMS = {"pixels": "", "light": "pe", "brightest": "pe", **{f"above_{level:g}": "" for level in LEVELS}}
#: Places in `SUMS`; the counts of `LEVELS` begin at `ABOVE`.
PIXELS, LIGHT, BRIGHTEST, ABOVE = range(4)

#: Columns of the result, in order, and their units; empty for plain numbers. NaN marks what an image does not define.
HALO: dict[str, str] = {
    **{f"{name}_{rule.picture:g}": UNITS[name] for rule in CLEANINGS for name in PARAMETERS},
    **{
        f"ring_{ring}_{part}_{name}": unit
        for ring in range(1, len(RINGS) + 1)
        for part in PARTS
        for name, unit in SUMS.items()
    },
}
#: Number of the first column of a ring.
FIRST_RING = len(CLEANINGS) * len(PARAMETERS)

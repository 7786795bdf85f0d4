"""Units of image parameters, by name: what the catalogue's queries convert to."""

from __future__ import annotations

#: Of every column of `apbatch.camera.hillas.PARAMETERS`; empty for plain numbers.
UNITS: dict[str, str] = {
    "size": "pe",
    "cog_x": "deg",
    "cog_y": "deg",
    "length": "deg",
    "width": "deg",
    "distance": "deg",
    "psi": "deg",
    "miss": "deg",
    "alpha": "deg",
    "azwidth": "deg",
    "con1": "",
    "con2": "",
    "skewness": "",
    "kurtosis": "",
    "n_pixels": "",
    "edge": "",
    "leakage": "",
    "n_islands": "",
}

"""Image parameters: their names, in order, and their units; nothing is computed here."""

from __future__ import annotations

#: Every image parameter and its unit, which the catalogue's queries convert to; empty for plain numbers.
UNITS: dict[str, str] = {
    "size": "pe",
    "cog_x": "deg",  # centre of gravity
    "cog_y": "deg",
    "length": "deg",  # r.m.s. along the axis
    "width": "deg",  # r.m.s. across it
    "distance": "deg",  # of the centre of gravity from the source
    "psi": "deg",  # axis against x, in (-90, 90]
    "miss": "deg",  # of the axis from the source
    "alpha": "deg",  # between axis and the line from source to centre of gravity, in [0, 90]
    "azwidth": "deg",  # r.m.s. across the line from source to centre of gravity
    "con1": "",  # share of the brightest pixel
    "con2": "",  # share of the two brightest
    "skewness": "",  # along the axis
    "kurtosis": "",
    "n_pixels": "",  # with light
    "edge": "",  # 1 if a pixel with light is at the edge of the camera
    "leakage": "",  # share of the light in edge pixels
    "n_islands": "",  # groups of neighbouring pixels with light
}
#: Columns of the result, in order. NaN marks what an image does not define.
PARAMETERS = tuple(UNITS)

#: Variances below this share of the pitch squared are zero: rounding of collinear pixels.
FLAT = 1e-10

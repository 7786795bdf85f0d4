"""The atmosphere: five layers of thickness by height, refraction, and what light survives.

Depth X is vertical thickness above a height, g/cm2; heights are metres above sea level. The atmosphere is flat,
which is good to zenith angles of about 40 deg.

References
----------
US standard: J. Linsley's five layers and their constants are those printed in the CORSIKA manual (D. Heck et al., FZKA
6019, appendix on atmospheric models).
Winter at Tunka: five layers fitted to NRLMSISE-00 (J. M. Picone et al., J. Geophys. Res. 107 (2002) 1468) at 51.8 N,
103.1 E, 15 January, 18 h UTC, F10.7 = 80, Ap = 7. Depths agree with it to 0.2 % and densities to 2 % below 20 km.
Ozone: cross-sections of A. G. Hearn, Proc. Phys. Soc. 78 (1961) 932 (below 350 nm) and of S. M. Anderson and
K. Mauersberger, Geophys. Res. Lett. 19 (1992) 933 (visible); vertical distribution of A. E. S. Green, Appl. Opt. 3
(1964) 203.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from apbatch.sim.kernel import inner
from apbatch.sim.settings import DetectorModel, SiteModel

Floats = npt.NDArray[np.float64]

# Heights where layers end, m; a, b, g/cm2; c, m. X(h) = a + b exp(-h/c) in four layers, a - b h/c in the last.
_LAYERS = {
    "us-standard": (
        (4.0e3, 10.0e3, 40.0e3, 100.0e3),
        (-186.555305, -94.919, 0.61289, 0.0, 0.01128292),
        (1222.6562, 1144.9069, 1305.5948, 540.1778, 1.0),
        (9941.8638, 8781.5355, 6361.4304, 7721.7016, 1.0e7),
    ),
    "tunka-winter": (
        (7383.8, 12750.0, 46971.2, 100.0e3),
        (-143.674515, -13.3173450, 0.440286044, 9.09369829e-4, 0.01128292),
        (1178.15237466, 1166.12090033, 1198.95035674, 1476.24553214, 1.0),
        (9006.30530563, 6719.6146778, 6352.32951255, 6583.40174331, 1.0e7),
    ),
}
#: Columns of the layers of an atmosphere: height and depth at the layer's top, and its constants.
_TOP, _TOP_DEPTH, _A, _B, _C = range(5)
_LAST = 4

#: Height at which the atmosphere ends, m: there X = 0.
TOP = 112829.2
#: Refractivity n - 1 per density, cm3/g: 2.83e-4 at sea level, in proportion to the density.
REFRACTIVITY = 2.83e-4 / 1.225e-3
#: Radiation length of air, g/cm2.
RADIATION_LENGTH = 36.66
#: Rayleigh scattering's mean free path at 400 nm, g/cm2.
RAYLEIGH_LENGTH = 2974.0

#: Ozone's absorption: wavelength, nm, and cross-section, cm2.
_OZONE = (
    (253.65, 1.147e-17), (289.36, 1.48e-18), (296.73, 6.02e-19), (302.15, 2.92e-19), (310.0, 1.03e-19),
    (320.0, 2.9e-20), (334.15, 4.3e-21), (350.0, 3.5e-22), (370.0, 3.0e-23), (420.0, 3.0e-23), (450.0, 1.7e-22),
    (500.0, 1.2e-21), (543.667, 3.14e-21), (594.096, 4.68e-21), (604.613, 5.18e-21), (611.97, 4.64e-21),
    (632.816, 3.36e-21), (700.0, 8.7e-22), (800.0, 1.0e-22), (900.0, 1.0e-23),
)  # fmt: skip
#: Molecules in a column of one Dobson unit, 1/cm2.
_DOBSON = 2.687e16


def atmosphere_named(name: str) -> Floats:
    """Return the layers of an atmosphere as the kernels need them.

    Parameters
    ----------
    name : str
        One of `apbatch.sim.settings.Atmosphere`.

    Returns
    -------
    ndarray of shape (5, 5)
        A row a layer: height (m) and depth (g/cm2) of its top, constants a, b (g/cm2) and c (m).
    """
    tops, a, b, c = _LAYERS[name]
    layers = np.array([[*tops, TOP], np.zeros(5), a, b, c]).T
    for lower, upper in pairwise(range(5)):
        row, height = layers[upper], tops[lower]
        last = upper == _LAST
        layers[lower, _TOP_DEPTH] = row[_A] + (
            -row[_B] * height / row[_C] if last else row[_B] * math.exp(-height / row[_C])
        )
    return np.ascontiguousarray(layers)


@inner
def depth(height: float, air: Floats) -> float:
    """Return the vertical depth, g/cm2, at a height, m, in an atmosphere of `atmosphere_named`."""
    layer = 0
    while layer < _LAST and height >= air[layer, _TOP]:
        layer += 1
    if layer < _LAST:
        return float(air[layer, _A] + air[layer, _B] * math.exp(-height / air[layer, _C]))
    return max(0.0, float(air[layer, _A] - air[layer, _B] * height / air[layer, _C]))


@inner
def height_at(x: float, air: Floats) -> float:
    """Return the height, m, at which the vertical depth is `x`, g/cm2."""
    layer = 0
    while layer < _LAST and x <= air[layer, _TOP_DEPTH]:
        layer += 1
    if layer < _LAST:
        return float(-air[layer, _C] * math.log((x - air[layer, _A]) / air[layer, _B]))
    return float((air[layer, _A] - max(x, 0.0)) * air[layer, _C] / air[layer, _B])


@inner
def density(x: float, air: Floats) -> float:
    """Return the density, g/cm3, at the depth `x`, g/cm2: the slope of the layer, (X - a)/c."""
    layer = 0
    while layer < _LAST and x <= air[layer, _TOP_DEPTH]:
        layer += 1
    if layer < _LAST:
        return float((x - air[layer, _A]) / (100.0 * air[layer, _C]))
    return float(air[layer, _B] / (100.0 * air[layer, _C]))


def ozone_below(site: SiteModel, heights: Floats) -> Floats:
    """Return the ozone between the site and heights (m), as a share of the whole column."""

    def above(height: Floats) -> Floats:
        peak, width = site.ozone_height, site.ozone_width
        return np.asarray((1.0 + math.exp(-peak / width)) / (1.0 + np.exp((height - peak) / width)))

    return np.asarray(above(np.array(site.altitude)) - above(heights))


def light_yield(site: SiteModel, detector: DetectorModel, step: float = 100.0) -> Floats:
    """Return detected photo-electrons per metre of track and per sin2 of the Cherenkov angle, by height of emission.

    Frank and Tamm's spectrum, folded with extinction from the height down to the telescope along the pointing
    direction (Rayleigh; ozone; aerosol with an exponential profile), with the mirror and with the photo-cathode.

    Parameters
    ----------
    site, detector : models
        Where and what the telescope is.
    step : float
        Spacing of heights, m, from 0 to the top of the atmosphere.

    Returns
    -------
    ndarray of shape (n_heights,)
        Photo-electrons per metre; 0 below the telescope.
    """
    air = atmosphere_named(site.atmosphere)
    heights = np.arange(0.0, TOP + step, step)
    depths = np.array([depth(float(height), air) for height in heights])
    wavelength = np.linspace(detector.wavelengths[0], detector.wavelengths[-1], 241)  # nm
    cathode = np.interp(wavelength, detector.wavelengths, detector.quantum_efficiency)
    airmass = 1.0 / math.cos(math.radians(site.zenith))
    below = depth(site.altitude, air) - depths
    rayleigh = below[:, None] / RAYLEIGH_LENGTH * (400.0 / wavelength) ** 4
    haze = 1.0 - np.exp(-(heights - site.altitude) / site.aerosol_height)
    aerosol = site.aerosol_depth * haze[:, None] * (400.0 / wavelength) ** site.aerosol_exponent
    points, sections = np.array(_OZONE).T
    section = np.exp(np.interp(wavelength, points, np.log(sections)))
    ozone = site.ozone_column * _DOBSON * ozone_below(site, heights)[:, None] * section
    response = np.exp(-airmass * (rayleigh + aerosol + ozone)) * cathode * detector.efficiency
    spectrum = 2.0 * math.pi / 137.036 / (wavelength * 1e-9) ** 2  # photons per m of track and m of wavelength
    # The sensitivity vanishes at both ends of the range, so the plain sum is the trapezoidal rule.
    photons = (response * spectrum).sum(axis=1) * (wavelength[1] - wavelength[0]) * 1e-9
    return np.asarray(np.where(heights < site.altitude - step, 0.0, photons))

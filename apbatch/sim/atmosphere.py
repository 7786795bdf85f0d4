"""The atmosphere: Linsley's parametrisation of the US standard atmosphere, refraction, and what light survives.

Depth X is vertical thickness above a height, g/cm2; heights are metres above sea level. The atmosphere is flat,
which is good to zenith angles of about 40 deg.

References
----------
J. Linsley's five layers and their constants are those printed in the CORSIKA manual (D. Heck et al., FZKA 6019,
appendix on atmospheric models, US standard atmosphere).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from apbatch.sim.kernel import kernel
from apbatch.sim.settings import DetectorModel, SiteModel

Floats = npt.NDArray[np.float64]

# X(h) = a + b exp(-h/c) in four layers, X(h) = a - b h/c in the last; a, b in g/cm2, c here in m.
_A = (-186.555305, -94.919, 0.61289, 0.0, 0.01128292)
_B = (1222.6562, 1144.9069, 1305.5948, 540.1778, 1.0)
_C = (9941.8638, 8781.5355, 6361.4304, 7721.7016, 1.0e7)
_TOPS = (4.0e3, 10.0e3, 40.0e3, 100.0e3)

#: Height at which the atmosphere ends, m: there X = 0.
TOP = 112829.2
#: Refractivity n - 1 per density, cm3/g: 2.83e-4 at sea level, in proportion to the density.
REFRACTIVITY = 2.83e-4 / 1.225e-3
#: Radiation length of air, g/cm2.
RADIATION_LENGTH = 36.66
#: Rayleigh scattering's mean free path at 400 nm, g/cm2.
RAYLEIGH_LENGTH = 2974.0

_DEPTHS = tuple(
    _A[layer + 1] + _B[layer + 1] * math.exp(-_TOPS[layer] / _C[layer + 1])
    if layer < 3
    else _A[4] - _B[4] * _TOPS[3] / _C[4]
    for layer in range(4)
)


@kernel
def depth(height: float) -> float:
    """Return the vertical depth, g/cm2, at a height, m."""
    if height < _TOPS[0]:
        return _A[0] + _B[0] * math.exp(-height / _C[0])
    if height < _TOPS[1]:
        return _A[1] + _B[1] * math.exp(-height / _C[1])
    if height < _TOPS[2]:
        return _A[2] + _B[2] * math.exp(-height / _C[2])
    if height < _TOPS[3]:
        return _A[3] + _B[3] * math.exp(-height / _C[3])
    return max(0.0, _A[4] - _B[4] * height / _C[4])


@kernel
def height_at(x: float) -> float:
    """Return the height, m, at which the vertical depth is `x`, g/cm2."""
    if x > _DEPTHS[0]:
        return -_C[0] * math.log((x - _A[0]) / _B[0])
    if x > _DEPTHS[1]:
        return -_C[1] * math.log((x - _A[1]) / _B[1])
    if x > _DEPTHS[2]:
        return -_C[2] * math.log((x - _A[2]) / _B[2])
    if x > _DEPTHS[3]:
        return -_C[3] * math.log((x - _A[3]) / _B[3])
    return (_A[4] - max(x, 0.0)) * _C[4] / _B[4]


@kernel
def density(x: float) -> float:
    """Return the density, g/cm3, at the depth `x`, g/cm2: the slope of the layer, (X - a)/c."""
    if x > _DEPTHS[0]:
        return (x - _A[0]) / (100.0 * _C[0])
    if x > _DEPTHS[1]:
        return (x - _A[1]) / (100.0 * _C[1])
    if x > _DEPTHS[2]:
        return (x - _A[2]) / (100.0 * _C[2])
    if x > _DEPTHS[3]:
        return (x - _A[3]) / (100.0 * _C[3])
    return _B[4] / (100.0 * _C[4])


def light_yield(site: SiteModel, detector: DetectorModel, step: float = 100.0) -> Floats:
    """Return detected photo-electrons per metre of track and per sin2 of the Cherenkov angle, by height of emission.

    Frank and Tamm's spectrum, folded with extinction from the height down to the telescope along the pointing
    direction (Rayleigh; aerosol with an exponential profile), with the mirror and with the photo-cathode.

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
    heights = np.arange(0.0, TOP + step, step)
    depths = np.array([depth(float(height)) for height in heights])
    wavelength = np.linspace(detector.wavelengths[0], detector.wavelengths[-1], 241)  # nm
    cathode = np.interp(wavelength, detector.wavelengths, detector.quantum_efficiency)
    airmass = 1.0 / math.cos(math.radians(site.zenith))
    below = depth(site.altitude) - depths
    rayleigh = below[:, None] / RAYLEIGH_LENGTH * (400.0 / wavelength) ** 4
    haze = 1.0 - np.exp(-(heights - site.altitude) / site.aerosol_height)
    aerosol = site.aerosol_depth * haze[:, None] * (400.0 / wavelength) ** site.aerosol_exponent
    seen = np.exp(-airmass * (rayleigh + aerosol)) * cathode * detector.efficiency
    spectrum = 2.0 * math.pi / 137.036 / (wavelength * 1e-9) ** 2  # photons per m of track and m of wavelength
    # The sensitivity vanishes at both ends of the range, so the plain sum is the trapezoidal rule.
    photons = (seen * spectrum).sum(axis=1) * (wavelength[1] - wavelength[0]) * 1e-9
    return np.asarray(np.where(heights < site.altitude - step, 0.0, photons))

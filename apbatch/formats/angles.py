"""Angles of directions, held within their physical limits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Degrees by which float32 and a conversion from radians move an angle of 180 degrees: no more is forgiven.
ROUNDING_DEG = 2e-5


def clamped(degrees: npt.ArrayLike, low: float, high: float) -> npt.NDArray[np.float64]:
    """Return angles that rounding carried past a limit as the limit, and those beyond as NaN.

    Parameters
    ----------
    degrees : array_like of float
    low, high : float
        Limits, deg: 0 and 180 of a zenith angle, -90 and 90 of an altitude.

    Returns
    -------
    ndarray of float64, of the same shape

    Examples
    --------
    >>> clamped([180.00001, 181.0], 0.0, 180.0)
    array([180.,  nan])
    """
    angles = np.asarray(degrees, np.float64)
    with np.errstate(invalid="ignore"):
        fits = (angles >= low - ROUNDING_DEG) & (angles <= high + ROUNDING_DEG)
    return np.where(fits, np.clip(angles, low, high), np.nan)


def turned(degrees: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return azimuths in degrees from 0, included, to 360, excluded; what is not finite is NaN.

    Examples
    --------
    >>> turned([-90.0, 360.0])
    array([270.,   0.])
    """
    angles = np.asarray(degrees, np.float64)
    angles = np.where(np.isfinite(angles), angles, np.nan) % 360.0
    return np.where(angles >= 360.0, 0.0, angles)  # a small negative angle is rounded up to 360

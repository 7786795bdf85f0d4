"""Where in the sky a file's telescope pointed: one direction, if it followed one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Degrees from their mean within which all directions of a file are one: a telescope that follows its target stays
#: within some hundredths, and targets of one night are further apart than their wobble positions.
_SPREAD_DEG = 0.2
#: Events whose direction is computed, at most, spread evenly over the file.
_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a telescope stands.

    Attributes
    ----------
    longitude, latitude : float
        WGS 84, deg; east and north are positive.
    height : float
        Above the ellipsoid, m.
    """

    longitude: float
    latitude: float
    height: float


def pointing_of(right_ascension: npt.ArrayLike, declination: npt.ArrayLike) -> dict[str, float]:
    """Return the attributes `pointing_ra` and `pointing_dec` of a file; none if its events have several directions.

    Parameters
    ----------
    right_ascension, declination : array_like of float, shape (n,)
        Of the events, deg; what is not finite or no direction is passed over.

    Returns
    -------
    dict of str to float
        Degrees, the right ascension from 0, included, to 360, excluded.

    Examples
    --------
    >>> pointing_of([359.9, 0.1], [0.0, 0.0])
    {'pointing_ra': 0.0, 'pointing_dec': 0.0}
    >>> pointing_of([83.6, 166.1], [22.0, 38.2])
    {}
    """
    longitude, latitude = (np.asarray(values, np.float64) for values in (right_ascension, declination))
    fine = np.isfinite(longitude) & (np.abs(latitude) <= 90)
    longitude, latitude = np.radians(longitude[fine]), np.radians(latitude[fine])
    if not len(longitude):
        return {}
    across = np.cos(latitude)
    directions = np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)])
    x, y, z = (float(value) for value in directions.mean(axis=1))
    length = math.hypot(x, y, z)
    chord = np.linalg.norm(directions - np.array([[x], [y], [z]]) / max(length, 1e-300), axis=0)
    if length < 0.5 or 2 * np.degrees(np.arcsin(np.minimum(chord.max() / 2, 1.0))) > _SPREAD_DEG:
        return {}
    ra = round(math.degrees(math.atan2(y, x)) % 360.0, 6) % 360.0
    return {"pointing_ra": ra, "pointing_dec": round(math.degrees(math.atan2(z, math.hypot(x, y))), 6)}


def pointing_from_horizon(
    zenith: npt.ArrayLike, azimuth: npt.ArrayLike, time_ns: npt.ArrayLike, place: Place
) -> dict[str, float]:
    """Return the attributes of `pointing_of` for a telescope whose events tell zenith angle, azimuth and time.

    Precession, nutation, aberration and the rotation of the earth are those of ERFA; refraction is left out, since
    drives are told directions without it. The table of the earth's rotation is the installed one (IERS B and the
    predictions shipped with astropy); nothing is fetched.

    Parameters
    ----------
    zenith, azimuth : array_like of float, shape (n,)
        Deg; azimuth from north over east.
    time_ns : array_like of int, shape (n,)
        UTC, ns since 1970.
    place : Place

    Returns
    -------
    dict of str to float
    """
    zenith, azimuth = (np.asarray(values, np.float64) for values in (zenith, azimuth))
    times = np.asarray(time_ns, np.int64)
    fine = np.flatnonzero(np.isfinite(zenith) & np.isfinite(azimuth) & (times > 0))
    if not len(fine):
        return {}
    some = fine[np.unique(np.linspace(0, len(fine) - 1, min(len(fine), _EVENTS)).astype(int))]
    import astropy.units as u
    from astropy.coordinates import AltAz, EarthLocation, SkyCoord
    from astropy.time import Time
    from astropy.utils import iers

    location = EarthLocation.from_geodetic(place.longitude * u.deg, place.latitude * u.deg, place.height * u.m)
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        moments = Time(times[some] // 10**9, times[some] % 10**9 / 1e9, format="unix", scale="utc")
        frame = AltAz(obstime=moments, location=location)
        sky = SkyCoord(az=azimuth[some] * u.deg, alt=(90.0 - zenith[some]) * u.deg, frame=frame).icrs
    return pointing_of(sky.ra.deg, sky.dec.deg)

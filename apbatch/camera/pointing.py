"""Where in the sky a place in the camera is, and back; on whole arrays.

Altitude and azimuth in degrees; azimuth from north to east. Two kinds of coordinates about the direction of pointing:

* camera coordinates (x, y), those of `CameraGeometry`: the plane of the camera over the focal length, ``x = X / f`` as
  an angle, so that a direction at the angle t from the axis lies at ``tan t`` (gnomonic projection: straight lines are
  great circles);
* offsets (longitude, latitude): spherical coordinates whose origin is the direction of pointing (the "nominal" frame of
  Cherenkov astronomy, ctapipe's TelescopeFrame, astropy's SkyOffsetFrame). Longitude grows with azimuth, latitude with
  altitude. Within 2.5 degrees of the axis the two differ by less than 0.002 degrees.

How a camera is mounted is told by its axes: ``horizontal`` (x to larger azimuth, y to the zenith) or ``vertical`` (x to
the zenith, y to larger azimuth: sim_telarray, ctapipe).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import Floats
from apbatch.errors import UsageError, nearest_word

Axes = Literal["horizontal", "vertical"]
AXES: tuple[Axes, ...] = ("horizontal", "vertical")
#: Anything that numpy makes an array of degrees.
Angles = npt.ArrayLike


def camera_to_sky(
    x: Angles, y: Angles, altitude: Angles, azimuth: Angles, *, axes: Axes = "horizontal"
) -> tuple[Floats, Floats]:
    """Return altitude and azimuth of places in a camera (inverse gnomonic projection).

    Parameters
    ----------
    x, y : array_like
        Camera coordinates, deg.
    altitude, azimuth : array_like
        Where the telescope points, deg. All four are broadcast against each other.
    axes : str

    Returns
    -------
    altitude, azimuth : ndarray of float64
        deg; azimuth in [0, 360). NaN where an input is not finite.

    Raises
    ------
    UsageError
        If there are no such axes.
    """
    return to_angles(camera_vectors(x, y, altitude, azimuth, axes=axes))


def sky_to_camera(
    altitude: Angles,
    azimuth: Angles,
    pointing_altitude: Angles,
    pointing_azimuth: Angles,
    *,
    axes: Axes = "horizontal",
) -> tuple[Floats, Floats]:
    """Return camera coordinates of directions (gnomonic projection).

    Parameters
    ----------
    altitude, azimuth : array_like
        Directions, deg.
    pointing_altitude, pointing_azimuth : array_like
        Where the telescope points, deg. All four are broadcast against each other.
    axes : str
        How the camera is mounted: ``horizontal`` or ``vertical``.

    Returns
    -------
    x, y : ndarray of float64
        deg; NaN for directions 90 degrees or more from the axis, which no plane shows.

    Raises
    ------
    UsageError
        If there are no such axes.
    """
    vectors, pointing = to_vectors(altitude, azimuth), to_vectors(pointing_altitude, pointing_azimuth)
    right, up = _tangents(pointing_altitude, pointing_azimuth)
    with np.errstate(invalid="ignore", divide="ignore"):
        depth = _dot(vectors, pointing)
        depth = np.where(depth > 1e-12, depth, np.nan)
        horizontal, vertical = np.degrees(_dot(vectors, right) / depth), np.degrees(_dot(vectors, up) / depth)
    return (horizontal, vertical) if _checked(axes) == "horizontal" else (vertical, horizontal)


def offsets(
    altitude: Angles, azimuth: Angles, pointing_altitude: Angles, pointing_azimuth: Angles
) -> tuple[Floats, Floats]:
    """Return longitude and latitude of directions about the direction of pointing.

    Parameters
    ----------
    altitude, azimuth : array_like
        Directions, deg.
    pointing_altitude, pointing_azimuth : array_like
        Where the telescope points, deg.

    Returns
    -------
    longitude, latitude : ndarray of float64
        deg, longitude in (-180, 180].
    """
    vectors, pointing = to_vectors(altitude, azimuth), to_vectors(pointing_altitude, pointing_azimuth)
    right, up = _tangents(pointing_altitude, pointing_azimuth)
    longitude = np.degrees(np.arctan2(_dot(vectors, right), _dot(vectors, pointing)))
    return longitude, np.degrees(np.arcsin(np.clip(_dot(vectors, up), -1.0, 1.0)))


def offsets_to_sky(
    longitude: Angles, latitude: Angles, pointing_altitude: Angles, pointing_azimuth: Angles
) -> tuple[Floats, Floats]:
    """Return altitude and azimuth (deg, azimuth in [0, 360)) of offsets; the way back of `offsets`.

    Parameters
    ----------
    longitude, latitude : array_like
        Offsets, deg, as `offsets` returns them.
    pointing_altitude, pointing_azimuth : array_like
        Where the telescope points, deg.
    """
    return to_angles(offset_vectors(longitude, latitude, pointing_altitude, pointing_azimuth))


def separation(altitude: Angles, azimuth: Angles, other_altitude: Angles, other_azimuth: Angles) -> Floats:
    """Return the angle between directions, deg; exact also for tiny ones.

    Parameters
    ----------
    altitude, azimuth : array_like
        One direction or many, deg.
    other_altitude, other_azimuth : array_like
        The others, deg.

    Examples
    --------
    >>> separation(90.0, 0.0, 60.0, 120.0).round(6).item()
    30.0
    """
    one, other = np.broadcast_arrays(to_vectors(altitude, azimuth), to_vectors(other_altitude, other_azimuth))
    across = np.cross(one, other)
    return np.asarray(np.degrees(np.arctan2(np.sqrt(_dot(across, across)), _dot(one, other))))


def camera_vectors(x: Angles, y: Angles, altitude: Angles, azimuth: Angles, *, axes: Axes = "horizontal") -> Floats:
    """Return unit vectors (north, west, up), shape (..., 3), of places in a camera; see `camera_to_sky`.

    Parameters
    ----------
    x, y : array_like
        Camera coordinates, deg.
    altitude, azimuth : array_like
        Where the telescope points, deg.
    axes : str
        How the camera is mounted: ``horizontal`` or ``vertical``.
    """
    horizontal, vertical = (x, y) if _checked(axes) == "horizontal" else (y, x)
    right, up = _tangents(altitude, azimuth)
    vectors = (
        to_vectors(altitude, azimuth)
        + np.radians(np.asarray(horizontal, np.float64))[..., None] * right
        + np.radians(np.asarray(vertical, np.float64))[..., None] * up
    )
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def offset_vectors(longitude: Angles, latitude: Angles, altitude: Angles, azimuth: Angles) -> Floats:
    """Return unit vectors (north, west, up), shape (..., 3), of offsets from the direction of pointing.

    Parameters
    ----------
    longitude, latitude : array_like
        Offsets, deg.
    altitude, azimuth : array_like
        Where the telescope points, deg.
    """
    right, up = _tangents(altitude, azimuth)
    lon, lat = (np.radians(np.asarray(angle, np.float64))[..., None] for angle in (longitude, latitude))
    return np.asarray(
        np.cos(lat) * np.cos(lon) * to_vectors(altitude, azimuth) + np.cos(lat) * np.sin(lon) * right + np.sin(lat) * up
    )


def to_vectors(altitude: Angles, azimuth: Angles) -> Floats:
    """Return unit vectors (north, west, up), shape (..., 3)."""
    alt, az = (np.radians(np.asarray(angle, np.float64)) for angle in (altitude, azimuth))
    return _stacked(np.cos(alt) * np.cos(az), -np.cos(alt) * np.sin(az), np.sin(alt))


def to_angles(vectors: Floats) -> tuple[Floats, Floats]:
    """Return altitude and azimuth (deg, azimuth in [0, 360)) of vectors (north, west, up) of any length."""
    north, west, up = np.moveaxis(np.asarray(vectors, np.float64), -1, 0)
    altitude = np.degrees(np.arctan2(up, np.hypot(north, west)))
    azimuth = np.degrees(np.arctan2(-west, north)) % 360.0
    return altitude, np.where(azimuth >= 360.0, 0.0, azimuth)


def _tangents(altitude: Angles, azimuth: Angles) -> tuple[Floats, Floats]:
    """Return unit vectors to larger azimuth and to the zenith, at right angles to the direction of pointing."""
    alt, az = (np.radians(np.asarray(angle, np.float64)) for angle in (altitude, azimuth))
    right = _stacked(-np.sin(az), -np.cos(az), np.zeros_like(az))
    up = _stacked(-np.sin(alt) * np.cos(az), np.sin(alt) * np.sin(az), np.cos(alt))
    return right, up


def _stacked(*parts: Any) -> Floats:
    return np.stack(np.broadcast_arrays(*parts), axis=-1)


def _dot(one: Floats, other: Floats) -> Floats:
    return np.asarray((one * other).sum(axis=-1))


def _checked(axes: Axes) -> Axes:
    if axes not in AXES:
        raise UsageError(
            f"there are no camera axes '{axes}'",
            nearest=nearest_word(axes, AXES),
            remedy=f"axes are {', '.join(AXES)}",
        )
    return axes

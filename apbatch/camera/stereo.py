"""Showers seen by several telescopes: direction, core on the ground, height of the maximum; whole batches of events.

The axis of an image and its telescope span a plane that contains the shower. Two planes cross in its direction.

* Direction: the mean of all crossings ``n_a x n_b`` of unit normals, weighted by ``w_a w_b`` with
  ``w = size * length / width`` [1]_; that the crossings are not normalised weights them by the sine of the angle
  between the planes as well. Its uncertainty is the mean angle between it and the crossings.
* Core: of all points at height 0 the one with the smallest sum of squared distances from the planes.
* Height of the maximum: of the point with the smallest sum of squared distances from the lines from each telescope
  towards the centre of gravity of its image.

As ctapipe's HillasReconstructor, but for three things. There the core is found in a plane at right angles to the
pointing and followed to the ground along the pointing, not along the shower: metres off for a shower a degree off. Its
normals are as long as the camera's radius, which weights telescopes of different kinds. And an event with one useless
image is lost there.

References
----------
.. [1] W. Hofmann et al., "Comparison of techniques to reconstruct VHE gamma-ray showers from multiple stereoscopic
   Cherenkov images", Astropart. Phys. 12 (1999) 135, doi:10.1016/S0927-6505(99)00084-5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from apbatch.camera.geometry import Floats, Ints
from apbatch.camera.kernels.decorators import kernel
from apbatch.camera.pointing import Axes, camera_vectors, offset_vectors, to_angles
from apbatch.errors import UsageError

#: Why an event has no direction.
FOUND, NO_LIGHT, ONE_IMAGE, PARALLEL = 0, 1, 2, 3
REASONS = {
    FOUND: "found",
    NO_LIGHT: "no image with an axis",
    ONE_IMAGE: "only one image with an axis",
    PARALLEL: "all axes parallel",
}

#: Planes whose normals enclose a smaller angle (rad), or lines of sight nearly so parallel, have no crossing.
_FLAT = 1e-6
#: How far along the axis of an image its second point is taken, deg.
_STEP = 0.1


@dataclass(frozen=True, eq=False)
class Images:
    """One row an image; arrays of shape (n_images,), in any order.

    Attributes
    ----------
    event : ndarray of int64
        Images with the same number belong together.
    cog_x, cog_y, psi, size, length, width
        As of `apbatch.camera.hillas`: deg and p.e.
    altitude, azimuth
        Where the telescope points, deg.
    telescope_x, telescope_y, telescope_z
        Where it stands: to the north, to the west, up, m.
    """

    event: Ints
    cog_x: Floats
    cog_y: Floats
    psi: Floats
    size: Floats
    length: Floats
    width: Floats
    altitude: Floats
    azimuth: Floats
    telescope_x: Floats
    telescope_y: Floats
    telescope_z: Floats


@dataclass(frozen=True, eq=False)
class Showers:
    """One row an event, ascending by event; arrays of shape (n_events,). NaN where something is not defined.

    Attributes
    ----------
    event : ndarray of int64
    altitude, azimuth : ndarray of float64
        Direction from which the shower came, deg.
    uncertainty : ndarray of float64
        Of the direction, deg; 0 with two images, which cross once.
    core_x, core_y : ndarray of float64
        To the north and to the west at height 0, m.
    h_max : ndarray of float64
        Height of the maximum above height 0 of the telescopes' positions, m.
    n_images : ndarray of int64
        Images that were used.
    reason : ndarray of int64
        `FOUND`, or why there is no direction (`REASONS`).
    """

    event: Ints
    altitude: Floats
    azimuth: Floats
    uncertainty: Floats
    core_x: Floats
    core_y: Floats
    h_max: Floats
    n_images: Ints
    reason: Ints


def reconstruct(
    images: Images,
    *,
    axes: Axes = "horizontal",
    projection: Literal["gnomonic", "offsets"] = "gnomonic",
) -> Showers:
    """Reconstruct a batch of events.

    Images without light, without an axis (one pixel, round), of no width (an axis of infinite weight), or whose
    telescope is not known to point or stand anywhere do not count.

    Parameters
    ----------
    images : Images
    axes : str
        How the cameras are mounted (`apbatch.camera.pointing`).
    projection : str
        What `cog_x`, `cog_y` are: ``gnomonic``, the plane of the camera, or ``offsets``, spherical coordinates about
        the direction of pointing (ctapipe takes the one for the other).

    Raises
    ------
    UsageError
        If arrays differ in length, or there are no such axes or projection.
    """
    columns = {name.name: np.asarray(getattr(images, name.name)) for name in fields(images)}
    shape = columns["event"].shape
    for name, column in columns.items():
        if column.ndim != 1 or column.shape != shape:
            raise UsageError(f"'{name}' is of shape {column.shape}, 'event' of shape {shape}")
    if projection not in ("gnomonic", "offsets"):
        raise UsageError(f"there is no projection '{projection}'", remedy="projections are gnomonic, offsets")
    numbers = {name: column.astype(np.float64) for name, column in columns.items() if name != "event"}
    events, row = np.unique(columns["event"].astype(np.int64), return_inverse=True)
    usable = np.isfinite(np.column_stack(list(numbers.values()))).all(axis=1)
    usable &= (numbers["size"] > 0) & (numbers["length"] > 0) & (numbers["width"] > 0)
    order = np.argsort(row, kind="stable")
    order = order[usable[order]]
    start = np.searchsorted(row[order], np.arange(len(events) + 1))
    used = {name: column[order] for name, column in numbers.items()}

    def vectors(x: Floats, y: Floats) -> Floats:
        if projection == "gnomonic":
            return camera_vectors(x, y, used["altitude"], used["azimuth"], axes=axes)
        longitude, latitude = (x, y) if axes == "horizontal" else (y, x)
        return offset_vectors(longitude, latitude, used["altitude"], used["azimuth"])

    psi = np.radians(used["psi"])
    sight = vectors(used["cog_x"], used["cog_y"])
    along = vectors(used["cog_x"] + _STEP * np.cos(psi), used["cog_y"] + _STEP * np.sin(psi))
    normal = np.cross(sight, along)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    values, reason = _reconstruct(
        start.astype(np.int64),
        sight,
        np.ascontiguousarray(normal / np.where(length > 0, length, 1.0)),
        used["size"] * used["length"] / used["width"],
        np.ascontiguousarray(np.column_stack([used[f"telescope_{axis}"] for axis in "xyz"])),
    )
    altitude, azimuth = to_angles(values[:, :3])
    lost = reason != FOUND
    altitude[lost], azimuth[lost] = np.nan, np.nan
    uncertainty, core_x, core_y, h_max = (np.ascontiguousarray(column) for column in values[:, 3:].T)
    return Showers(events, altitude, azimuth, uncertainty, core_x, core_y, h_max, np.diff(start), reason)


@kernel
def _reconstruct(start: Ints, sight: Floats, normal: Floats, weight: Floats, place: Floats) -> tuple[Floats, Ints]:
    n_events = len(start) - 1
    out = np.full((n_events, 7), np.nan)
    reason = np.zeros(n_events, np.int64)
    cross = np.empty(3)
    for e in range(n_events):
        first, last = start[e], start[e + 1]
        if last - first < 2:
            reason[e] = ONE_IMAGE if last > first else NO_LIGHT
            continue
        direction = np.zeros(3)
        for a in range(first, last):
            for b in range(a + 1, last):
                _crossing(normal[a], normal[b], cross)
                for k in range(3):
                    direction[k] += weight[a] * weight[b] * cross[k]
        widest = 0.0
        for a in range(first, last):
            for b in range(a + 1, last):
                widest = max(widest, _crossing(normal[a], normal[b], cross))
        size = math.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
        if widest < _FLAT or size <= 0.0:
            reason[e] = PARALLEL
            continue
        angles, pairs = 0.0, 0
        for a in range(first, last):
            for b in range(a + 1, last):
                sine = _crossing(normal[a], normal[b], cross)
                if sine < _FLAT:
                    continue  # two parallel planes cross nowhere
                angles += _angle(cross, direction)
                pairs += 1
        for k in range(3):
            out[e, k] = direction[k] / size
        out[e, 3] = math.degrees(angles / pairs)
        _core(normal[first:last], place[first:last], out[e])
        out[e, 6] = _height(sight[first:last], place[first:last])
    return out, reason


@kernel
def _crossing(one: Floats, other: Floats, cross: Floats) -> float:
    """Write the cross product, turned upwards, to `cross`; return its length."""
    cross[0] = one[1] * other[2] - one[2] * other[1]
    cross[1] = one[2] * other[0] - one[0] * other[2]
    cross[2] = one[0] * other[1] - one[1] * other[0]
    if cross[2] < 0.0:
        for k in range(3):
            cross[k] = -cross[k]
    return math.sqrt(cross[0] ** 2 + cross[1] ** 2 + cross[2] ** 2)


@kernel
def _angle(one: Floats, other: Floats) -> float:
    """Return the angle between two vectors, exact also where it is small."""
    x = one[1] * other[2] - one[2] * other[1]
    y = one[2] * other[0] - one[0] * other[2]
    z = one[0] * other[1] - one[1] * other[0]
    return math.atan2(math.sqrt(x * x + y * y + z * z), one[0] * other[0] + one[1] * other[1] + one[2] * other[2])


@kernel
def _core(normal: Floats, place: Floats, out: Floats) -> None:
    """Write x and y of the point at height 0 nearest to all planes to ``out[4:6]``; not where there is none."""
    xx, yy, xy, x, y = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(normal)):
        distance = normal[i, 0] * place[i, 0] + normal[i, 1] * place[i, 1] + normal[i, 2] * place[i, 2]
        xx += normal[i, 0] * normal[i, 0]
        yy += normal[i, 1] * normal[i, 1]
        xy += normal[i, 0] * normal[i, 1]
        x += normal[i, 0] * distance
        y += normal[i, 1] * distance
    determinant = xx * yy - xy * xy
    if determinant > _FLAT * _FLAT:
        out[4], out[5] = (yy * x - xy * y) / determinant, (xx * y - xy * x) / determinant


@kernel
def _height(sight: Floats, place: Floats) -> float:
    """Return the height of the point nearest to all lines of sight; NaN if they are parallel."""
    matrix, vector = np.zeros((3, 3)), np.zeros(3)
    for i in range(len(sight)):
        for j in range(3):
            for k in range(3):
                part = (1.0 if j == k else 0.0) - sight[i, j] * sight[i, k]
                matrix[j, k] += part
                vector[j] += part * place[i, k]
    # Cramer's rule for the third unknown: three equations, and the matrix is near singular only for parallel lines.
    determinant = _determinant(matrix)
    if determinant <= _FLAT * _FLAT:
        return math.nan
    matrix[:, 2] = vector
    return _determinant(matrix) / determinant


@kernel
def _determinant(m: Floats) -> float:
    return float(
        m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
        - m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
        + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
    )

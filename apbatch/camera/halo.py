"""Halo parameters: what several cleanings keep of an image, and the light around it.

A gamma's image is an ellipse; a hadron's leaves light outside of it, single bright pixels and faint patches that a
cleaning removes. These columns keep it for whoever separates by them: the image parameters of four cleanings, and
sums and counts in five rings around the ellipse, each divided into a part along and a part across its axis.

The ellipse is that of the cleaning at `REFERENCE`; half a pitch is added to its length and width, so that images of a
few pixels have rings too. A pixel at the distances a along and t across the axis has ``u = a / (length + pitch / 2)``,
``v = t / (width + pitch / 2)`` and ``rho² = u² + v²``. Ring k, counted from 0, holds the pixels with
``RINGS[k] < rho <= RINGS[k + 1]``, the last one all the rest. Pixels of a ring with ``|u| > |v|`` are along the axis,
the others across.

References
----------
L. Olivera-Nieto et al., Using muons and light outside the main image as background rejection, Eur. Phys. J. C 82 (2022)
1118, arXiv:2211.13167.
"""

from __future__ import annotations

import numpy as np

from apbatch.camera.cleaning import Cleaning, Images, levels, of_camera
from apbatch.camera.geometry import CameraGeometry, Floats
from apbatch.camera.hillas import put_columns
from apbatch.camera.kernels.decorators import inner, kernel
from apbatch.camera.kernels.light import BLOCK, Number, Tables, Workspace, clean_block, tables_of, workspace
from apbatch.camera.kernels.moments import AXIS_X, AXIS_Y, FLAT, PARAMETERS, ROWS, parametrise_block
from apbatch.camera.kernels.vector import LANES, choose, lanes, magnitude, one_by_one, put_lanes, spread
from apbatch.camera.parameters import UNITS

__all__ = ["CLEANINGS", "HALO", "LEVELS", "REFERENCE", "RINGS", "halo"]

#: The cleanings, dim to bright; the boundary level is half the picture level.
CLEANINGS = tuple(Cleaning("tailcuts", picture, picture / 2) for picture in (5.0, 7.0, 10.0, 14.0))
#: Which of them gives the ellipse of the rings.
REFERENCE = 1
#: Where rings begin, in units of the enlarged ellipse; the last has no end.
RINGS = (1.5, 2.5, 3.5, 5.0, 8.0)
#: Pixels of a ring at or above each of these are counted, p.e.
LEVELS = (2.5, 3.5, 5.0, 7.0)
_PARTS = ("along", "across")
#: Of each part of a ring, and their units.
_SUMS = {"pixels": "", "light": "pe", "brightest": "pe", **{f"above_{level:g}": "" for level in LEVELS}}
_PIXELS, _LIGHT, _BRIGHTEST, _ABOVE = range(4)

#: Columns of the result, in order, and their units; empty for plain numbers. NaN marks what an image does not define.
HALO: dict[str, str] = {
    **{f"{name}_{rule.picture:g}": UNITS[name] for rule in CLEANINGS for name in PARAMETERS},
    **{
        f"ring_{ring}_{part}_{name}": unit
        for ring in range(1, len(RINGS) + 1)
        for part in _PARTS
        for name, unit in _SUMS.items()
    },
}

_SQUARED = tuple(edge * edge for edge in RINGS)
_PARTS_OF_IMAGE = 2 * (1 + len(RINGS))
#: Sums that are kept side by side and added up at the end.
_BANKS = 4
#: A number above it is infinite.
_LARGEST = float(np.finfo(np.float64).max)
_COG_X, _COG_Y, _LENGTH, _WIDTH, _PSI = (
    PARAMETERS.index(name) for name in ("cog_x", "cog_y", "length", "width", "psi")
)
_N, _WIDE = len(PARAMETERS), len(_SUMS)
_FIRST_RING = len(CLEANINGS) * _N


def halo(images: Images, camera: CameraGeometry, *, source: tuple[float, float] = (0.0, 0.0)) -> dict[str, Floats]:
    """Compute the halo parameters of a batch.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        Photo-electrons, not cleaned; NaN is a pixel without a measurement.
    camera : CameraGeometry
    source : (float, float)
        Place of the source in the camera, deg.

    Returns
    -------
    dict of str to ndarray of float64, shape (n_images,)
        A column for each of `HALO`. ``size_7`` and the like are the parameters of `apbatch.camera.hillas.hillas` after
        the cleaning of that picture level. Of each part of a ring: ``pixels`` that were measured, the sum of their
        ``light`` with that of negative ones, the ``brightest`` of those at or above the lowest of `LEVELS`, else 0, and
        how many are at or ``above`` each level. Rings are NaN where the ellipse has no axis.

    Raises
    ------
    UsageError
        If the images are not of this camera.
    """
    images = of_camera(images, camera)
    pairs = [levels(rule, images, camera, None) for rule in CLEANINGS]
    out = np.full((len(HALO), len(images)), np.nan)
    rest = -camera.n_pixels % LANES
    _halo_batch(
        images,
        np.concatenate([picture for picture, _ in pairs]),
        np.concatenate([boundary for _, boundary in pairs]),
        tables_of(camera),
        np.pad(camera.x, (0, rest), constant_values=np.nan),
        np.pad(camera.y, (0, rest), constant_values=np.nan),
        float(camera.pitch),
        float(source[0]),
        float(source[1]),
        out,
        workspace(camera),
    )
    return dict(zip(HALO, out, strict=True))


@kernel
def _halo_batch(
    images: Images,
    picture: Images,
    boundary: Images,
    tables: Tables,
    x: Floats,
    y: Floats,
    pitch: float,
    source_x: float,
    source_y: float,
    out: Floats,
    space: Workspace,
) -> None:
    n_images, n_pixels = images.shape
    mask = np.empty((BLOCK, n_pixels), np.bool_)
    table, ellipse = np.zeros((ROWS, BLOCK)), np.zeros((ROWS, BLOCK))
    values, parts = np.zeros(len(x)), np.zeros(len(x))
    sums = np.zeros(_BANKS * _PARTS_OF_IMAGE * _WIDE)
    flat = FLAT * pitch * pitch
    for first in range(0, n_images, BLOCK):
        last = min(first + BLOCK, n_images)
        block = images[first:last]
        # The dimmest comes last: its list of bright pixels is then there for the rings.
        for rule in range(len(picture) - 1, -1, -1):
            upper, lower = picture[rule : rule + 1], boundary[rule : rule + 1]
            clean_block(block, 0, last - first, upper, lower, 0, False, tables, mask, space)
            parametrise_block(space.lists, last - first, flat, source_x, source_y, table)
            put_columns(table, out[rule * _N : (rule + 1) * _N], first, last)
            if rule == REFERENCE:
                ellipse[:] = table
        for i in range(last - first):
            if not ellipse[_PSI, i] <= 90.0:  # NaN: no axis
                continue
            for p in range(n_pixels):
                values[p] = block[i, p]
            _divide(values, x, y, ellipse, i, pitch, parts)
            sums[:] = 0.0
            _add_up(values, parts, sums)
            _count_bright(values, parts, space, i, sums)
            _put_rings(sums, out, first + i)


@inner
def _divide(values: Floats, x: Floats, y: Floats, ellipse: Floats, i: int, pitch: float, parts: Floats) -> None:
    """Number the part of an image that each pixel lies in: 2 * ring along the axis, one more across it.

    Ring 0 is the ellipse; pixels that were not measured are put there, with an amplitude of 0.
    """
    cog_x, cog_y, axis_x, axis_y = ellipse[_COG_X, i], ellipse[_COG_Y, i], ellipse[AXIS_X, i], ellipse[AXIS_Y, i]
    length, width = 1.0 / (ellipse[_LENGTH, i] + 0.5 * pitch), 1.0 / (ellipse[_WIDTH, i] + 0.5 * pitch)
    zero, one, two = spread(0.0), spread(1.0), spread(2.0)
    for p in range(0, len(values), LANES):
        dx, dy, value = lanes(x, p) - cog_x, lanes(y, p) - cog_y, lanes(values, p)
        along, across = (dx * axis_x + dy * axis_y) * length, (dy * axis_x - dx * axis_y) * width
        along, across = along * along, across * across
        distance, part = along + across, choose(along > across, zero, one)
        for edge in _SQUARED:
            part = part + choose(distance > edge, two, zero)
        measured = magnitude(value) <= _LARGEST
        put_lanes(parts, p, choose(measured, part, zero))
        put_lanes(values, p, choose(measured, value, zero))


@inner
def _add_up(values: Floats, parts: Floats, sums: Floats) -> None:
    """Add up the pixels and the light of each part; neighbours in memory go to different banks, so that none waits."""
    for p in range(np.uint64(len(values))):
        one_by_one()
        bank: Number = p & np.uint64(_BANKS - 1)
        place = (bank * np.uint64(_PARTS_OF_IMAGE) + np.uint64(np.uint32(parts[p]))) * np.uint64(_WIDE)
        sums[place + np.uint64(_PIXELS)] += 1.0
        sums[place + np.uint64(_LIGHT)] += values[p]


@inner
def _count_bright(values: Floats, parts: Floats, space: Workspace, i: int, sums: Floats) -> None:
    """Count the bright pixels of each part, in the first bank: they are few, and the cleaning listed them."""
    for k in range(np.uint64(space.begin[i]), np.uint64(space.begin[i + 1])):
        one_by_one()
        p = np.uint64(space.pixels[k])
        value, place = values[p], np.uint64(np.uint32(parts[p])) * np.uint64(_WIDE)
        sums[place + np.uint64(_BRIGHTEST)] = max(sums[place + np.uint64(_BRIGHTEST)], value)
        for level in range(len(LEVELS)):
            sums[place + np.uint64(_ABOVE + level)] += np.float64(value >= LEVELS[level])


@inner
def _put_rings(sums: Floats, out: Floats, column: int) -> None:
    """Write the sums of an image's rings where they belong."""
    for k in range((_PARTS_OF_IMAGE - 2) * _WIDE):
        value = 0.0
        for bank in range(_BANKS):
            value += sums[bank * _PARTS_OF_IMAGE * _WIDE + 2 * _WIDE + k]
        out[_FIRST_RING + k, column] = value

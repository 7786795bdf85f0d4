"""The halo: parameters after several cleanings, and the light in rings around the ellipse of one of them.

An image is divided into parts eight pixels at a time, then each pixel's light is added to its part; the definitions
are in `apbatch.camera.halo`.
"""

from __future__ import annotations

import numpy as np

from apbatch.camera.geometry import Floats
from apbatch.camera.halo_columns import (
    ABOVE,
    BRIGHTEST,
    FIRST_RING,
    LEVELS,
    LIGHT,
    PARTS,
    PIXELS,
    REFERENCE,
    RINGS,
    SUMS,
)
from apbatch.camera.kernels.decorators import inner, kernel
from apbatch.camera.kernels.interface import Images
from apbatch.camera.kernels.light import BLOCK, Number, Tables, Workspace, clean_block
from apbatch.camera.kernels.moments import AXIS_X, AXIS_Y, ROWS, parametrise_block, put_columns
from apbatch.camera.kernels.vector import LANES, choose, lanes, magnitude, one_by_one, put_lanes, spread
from apbatch.camera.parameters import FLAT, PARAMETERS

_SQUARED = tuple(edge * edge for edge in RINGS)
_N_PARTS = len(PARTS) * (1 + len(RINGS))
#: Sums that are kept side by side and added up at the end.
_BANKS = 4
#: A number above it is infinite.
_LARGEST = float(np.finfo(np.float64).max)
_COG_X, _COG_Y, _LENGTH, _WIDTH, _PSI = (
    PARAMETERS.index(name) for name in ("cog_x", "cog_y", "length", "width", "psi")
)
_N, _WIDE = len(PARAMETERS), len(SUMS)


@kernel
def halo_batch(
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
    """Compute the halo parameters of a batch.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.
    picture, boundary : ndarray of float32, shape (n_cleanings, PIXELS)
        Levels of `CLEANINGS`, p.e.; all of a row are the same.
    tables : Tables
        Of the camera.
    x, y : ndarray of float64
        Places of pixels, deg, lengthened by NaN to a multiple of `LANES`.
    pitch : float
        deg.
    source_x, source_y : float
        Place of the source, deg.
    out : ndarray of float64, shape (n_columns, n_images)
        Gets a row for each of `HALO`; rings stay as they are where the ellipse has no axis.
    space : Workspace
    """
    n_images, n_pixels = images.shape
    mask = np.empty((BLOCK, n_pixels), np.bool_)
    table, ellipse = np.zeros((ROWS, BLOCK)), np.zeros((ROWS, BLOCK))
    values, parts = np.zeros(len(x)), np.zeros(len(x))
    sums = np.zeros(_BANKS * _N_PARTS * _WIDE)
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
        place = (bank * np.uint64(_N_PARTS) + np.uint64(np.uint32(parts[p]))) * np.uint64(_WIDE)
        sums[place + np.uint64(PIXELS)] += 1.0
        sums[place + np.uint64(LIGHT)] += values[p]


@inner
def _count_bright(values: Floats, parts: Floats, space: Workspace, i: int, sums: Floats) -> None:
    """Count the bright pixels of each part, in the first bank: they are few, and the cleaning listed them."""
    for k in range(np.uint64(space.begin[i]), np.uint64(space.begin[i + 1])):
        one_by_one()
        p = np.uint64(space.pixels[k])
        value, place = values[p], np.uint64(np.uint32(parts[p])) * np.uint64(_WIDE)
        sums[place + np.uint64(BRIGHTEST)] = max(sums[place + np.uint64(BRIGHTEST)], value)
        for level in range(len(LEVELS)):
            sums[place + np.uint64(ABOVE + level)] += np.float64(value >= LEVELS[level])


@inner
def _put_rings(sums: Floats, out: Floats, column: int) -> None:
    """Write the sums of an image's rings where they belong."""
    for k in range((_N_PARTS - 2) * _WIDE):
        value = 0.0
        for bank in range(_BANKS):
            value += sums[bank * _N_PARTS * _WIDE + 2 * _WIDE + k]
        out[FIRST_RING + k, column] = value

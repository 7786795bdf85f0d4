"""Moments of lists of pixels with light, and the image parameters that follow from them.

A block of images is taken through in stages: sums over the pixels of each image, then arithmetic on eight images at a
time. Sums are made in double precision over coordinates relative to the centre of gravity, so that a narrow image
far from the camera's centre loses no digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from apbatch.camera.geometry import Floats
from apbatch.camera.kernels.decorators import inner
from apbatch.camera.kernels.light import BLOCK, Lists
from apbatch.camera.kernels.vector import (
    LANES,
    choose,
    lanes,
    larger,
    magnitude,
    put_lanes,
    root,
    signed,
    smaller,
    spread,
    total,
    two_largest,
)
from apbatch.camera.parameters import PARAMETERS

#: Rows of a block's table that are no parameters: direction of the axis, variance along it.
AXIS_X, AXIS_Y, LARGE = (len(PARAMETERS) + row for row in range(3))
ROWS = len(PARAMETERS) + 3

(_SIZE, _COG_X, _COG_Y, _LENGTH, _WIDTH, _DISTANCE, _PSI, _MISS, _ALPHA, _AZWIDTH, _CON1, _CON2, _SKEWNESS, _KURTOSIS,
 _N_PIXELS, _EDGE, _LEAKAGE, _N_ISLANDS) = range(len(PARAMETERS))  # fmt: skip


@inner
def parametrise_block(
    lists: Lists, n_images: int, flat: float, source_x: float, source_y: float, table: Floats
) -> None:
    """Compute the parameters of a block of images.

    Parameters
    ----------
    lists : Lists
    n_images : int
        Up to `BLOCK`.
    flat : float
        Variances up to this one count as zero, deg².
    source_x, source_y : float
        Place of the source, deg.
    table : ndarray of shape (ROWS, BLOCK)
        Where they go.
    """
    _first_and_second(lists, n_images, table)
    _shape(flat, source_x, source_y, table.reshape(-1))
    _third_and_fourth(lists, n_images, table)
    _higher(flat, table.reshape(-1))


@inner
def _first_and_second(lists: Lists, n_images: int, table: Floats) -> None:
    """Sum amplitudes, find the two brightest pixels, sum second moments about the centre of gravity."""
    for i in range(n_images):
        size, x, y, at_edge = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
        first, second = spread(0.0), spread(0.0)
        begin, end = lists.start[i], lists.start[i + 1]
        for k in range(begin, end, LANES):
            weight = lanes(lists.weight, k)
            size = size + weight
            x = x + weight * lanes(lists.x, k)
            y = y + weight * lanes(lists.y, k)
            at_edge = at_edge + weight * lanes(lists.edge, k)
            second = larger(second, smaller(first, weight))
            first = larger(first, weight)
        amount = total(size)
        cog_x, cog_y = total(x) / amount, total(y) / amount
        table[_SIZE, i], table[_COG_X, i], table[_COG_Y, i] = amount, cog_x, cog_y
        table[_CON1, i], table[_CON2, i] = two_largest(first, second)
        xx, yy, xy = spread(0.0), spread(0.0), spread(0.0)
        for k in range(begin, end, LANES):
            weight, dx, dy = lanes(lists.weight, k), lanes(lists.x, k) - cog_x, lanes(lists.y, k) - cog_y
            along = weight * dx
            xx = xx + along * dx
            xy = xy + along * dy
            yy = yy + weight * dy * dy
        table[_LENGTH, i], table[_WIDTH, i], table[LARGE, i] = total(xx), total(yy), total(xy)
        table[_N_PIXELS, i], table[_N_ISLANDS, i] = lists.pixels[i], lists.islands[i]
        table[_LEAKAGE, i] = total(at_edge)


@inner
def _shape(flat: float, source_x: float, source_y: float, table: Floats) -> None:
    """Turn sums into shape and orientation, eight images at a time."""
    nothing = spread(np.nan)
    zero = spread(0.0)
    for i in range(0, BLOCK, LANES):
        size = lanes(table, _SIZE * BLOCK + i)
        lit = size > 0.0
        con1 = lanes(table, _CON1 * BLOCK + i) / size
        put_lanes(table, _CON1 * BLOCK + i, con1)
        put_lanes(table, _CON2 * BLOCK + i, con1 + lanes(table, _CON2 * BLOCK + i) / size)
        at_edge = lanes(table, _LEAKAGE * BLOCK + i)
        put_lanes(table, _EDGE * BLOCK + i, choose(at_edge > 0.0, spread(1.0), zero))
        put_lanes(table, _LEAKAGE * BLOCK + i, at_edge / size)

        # Eigenvalues of the covariance; the smaller one as determinant / larger one keeps its digits.
        xx, yy = lanes(table, _LENGTH * BLOCK + i) / size, lanes(table, _WIDTH * BLOCK + i) / size
        xy = lanes(table, LARGE * BLOCK + i) / size
        difference = (xx - yy) * 0.5
        span = root(difference * difference + xy * xy)
        large = (xx + yy) * 0.5 + span
        extended = large > flat
        small = (xx * yy - xy * xy) / large
        small = choose(small > flat, small, zero)
        put_lanes(table, LARGE * BLOCK + i, large)
        put_lanes(table, _LENGTH * BLOCK + i, choose(lit, choose(extended, root(large), zero), nothing))
        put_lanes(table, _WIDTH * BLOCK + i, choose(lit, choose(extended, root(small), zero), nothing))

        from_x = lanes(table, _COG_X * BLOCK + i) - source_x
        from_y = lanes(table, _COG_Y * BLOCK + i) - source_y
        squared = from_x * from_x + from_y * from_y
        distance = root(squared)
        put_lanes(table, _DISTANCE * BLOCK + i, distance)
        across = (xx * from_y * from_y - 2.0 * xy * from_x * from_y + yy * from_x * from_x) / squared
        across = choose(distance > 0.0, root(larger(across, zero)), nothing)
        put_lanes(table, _AZWIDTH * BLOCK + i, choose(lit, choose(extended, across, zero), nothing))

        # The axis without an angle: of the two forms of its direction the one that loses no digits.
        flatter = difference > 0.0
        axis_x = choose(flatter, difference + span, magnitude(xy))
        axis_y = choose(flatter, xy, signed(span - difference, xy))
        norm = root(axis_x * axis_x + axis_y * axis_y)
        axis_x, axis_y = axis_x / norm, axis_y / norm
        put_lanes(table, AXIS_X * BLOCK + i, axis_x)
        put_lanes(table, AXIS_Y * BLOCK + i, axis_y)
        has_axis = large - small > flat
        psi = choose(axis_x > 0.0, _angle(axis_y, axis_x), spread(90.0))
        put_lanes(table, _PSI * BLOCK + i, choose(has_axis, psi, nothing))
        miss = magnitude(axis_x * from_y - axis_y * from_x)
        put_lanes(table, _MISS * BLOCK + i, choose(has_axis, miss, nothing))
        alpha = choose(distance > 0.0, _angle(miss, magnitude(axis_x * from_x + axis_y * from_y)), nothing)
        put_lanes(table, _ALPHA * BLOCK + i, choose(has_axis, alpha, nothing))


#: arctan(t) / t = 1 + t² P(t²) for t up to tan 22.5 deg, interpolated at Chebyshev nodes: error below 1e-17.
_ARCTAN = (
    -0.01917540471110497, 0.03923044778479318, -0.0508540783458949, 0.058581409048663304, -0.06664510525508936,
    0.07692183125376892, -0.0909090457530649, 0.11111111015187018, -0.14285714284665682, 0.19999999999995516,
    -0.3333333333333333,
)  # fmt: skip


@inner
def _angle(y: Any, x: Any) -> Any:
    """Return ``arctan2(y, x)`` in degrees for x >= 0, in [-90, 90]; lanes in, lanes out."""
    up = magnitude(y)
    ratio = smaller(up, x) / larger(up, x)
    steep = ratio > 0.41421356237309503  # beyond tan 22.5 deg count from 45 deg
    ratio = choose(steep, (ratio - 1.0) / (ratio + 1.0), ratio)
    squared = ratio * ratio
    polynomial = spread(0.0)
    for coefficient in _ARCTAN:
        polynomial = polynomial * squared + coefficient
    degrees = (ratio + ratio * squared * polynomial) * 57.29577951308232
    degrees = choose(steep, degrees + 45.0, degrees)
    return signed(choose(up > x, 90.0 - degrees, degrees), y)


@inner
def _third_and_fourth(lists: Lists, n_images: int, table: Floats) -> None:
    """Sum third and fourth moments along the axis."""
    for i in range(n_images):
        cog_x, cog_y, axis_x, axis_y = table[_COG_X, i], table[_COG_Y, i], table[AXIS_X, i], table[AXIS_Y, i]
        third, fourth = spread(0.0), spread(0.0)
        for k in range(lists.start[i], lists.start[i + 1], LANES):
            along = (lanes(lists.x, k) - cog_x) * axis_x + (lanes(lists.y, k) - cog_y) * axis_y
            squared = along * along
            weight = lanes(lists.weight, k) * squared
            third = third + weight * along
            fourth = fourth + weight * squared
        table[_SKEWNESS, i], table[_KURTOSIS, i] = total(third), total(fourth)


@inner
def _higher(flat: float, table: Floats) -> None:
    """Turn the sums along the axis into skewness and kurtosis; without an axis there are none."""
    nothing = spread(np.nan)
    for i in range(0, BLOCK, LANES):
        size, large = lanes(table, _SIZE * BLOCK + i), lanes(table, LARGE * BLOCK + i)
        length, psi = lanes(table, _LENGTH * BLOCK + i), lanes(table, _PSI * BLOCK + i)
        has_axis = psi <= 90.0  # not NaN
        third = lanes(table, _SKEWNESS * BLOCK + i) / (size * length * large)
        fourth = lanes(table, _KURTOSIS * BLOCK + i) / (size * large * large)
        put_lanes(table, _SKEWNESS * BLOCK + i, choose(has_axis, third, nothing))
        put_lanes(table, _KURTOSIS * BLOCK + i, choose(has_axis, fourth, nothing))


@inner
def put_columns(table: Floats, out: Floats, first: int, last: int) -> None:
    """Copy the parameters of a block of images to their places in the whole table, eight images at a time.

    Parameters
    ----------
    table : ndarray of float64, shape (n_parameters, BLOCK)
        Parameters of the block.
    out : ndarray of float64, shape (n_parameters, n_images)
        The whole table.
    first, last : int
        Images of the block.
    """
    block, columns = table.reshape(-1), out.reshape(-1)
    whole = (last - first) // LANES * LANES
    for row in range(out.shape[0]):
        start, place = row * BLOCK, row * out.shape[1] + first
        for i in range(0, whole, LANES):
            put_lanes(columns, place + i, lanes(block, start + i))
        for i in range(whole, last - first):
            columns[place + i] = block[start + i]

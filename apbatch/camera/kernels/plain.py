"""The kernels in plain numpy: they say what is computed, and no more of how.

The tests and the self-check of a process compare the vector kernels with these; where the vector kernels cannot be
used, these take their place. Masks and grids are the same bit for bit, parameters but for the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning_rule import Cleaning
from apbatch.camera.geometry import CameraGeometry, Floats, Ints
from apbatch.camera.halo_columns import (
    ABOVE,
    BRIGHTEST,
    CLEANINGS,
    FIRST_RING,
    LEVELS,
    LIGHT,
    PARTS,
    PIXELS,
    REFERENCE,
    RINGS,
    SUMS,
)
from apbatch.camera.kernels.interface import Images, Mask
from apbatch.camera.parameters import FLAT, PARAMETERS

#: Images at a time, so that what is computed on the way stays small.
_BLOCK = 256


def _blocks(n_images: int) -> Iterator[slice]:
    return (slice(first, first + _BLOCK) for first in range(0, n_images, _BLOCK))


def clean(
    images: Images, picture: Images, boundary: Images, cleaning: Cleaning, camera: CameraGeometry, mask: Mask
) -> None:
    """Tell which pixels the rule of two levels keeps; see `Kernels.clean`."""
    reach, core = images >= boundary, images >= picture
    if not cleaning.keep_isolated:
        core &= _neighbours_among(core, camera) >= cleaning.min_neighbours
    beside_core = reach & (_neighbours_among(core, camera) > 0)
    if not cleaning.keep_isolated:
        core &= _neighbours_among(reach, camera) > 0
    np.logical_or(core, beside_core, out=mask)


def _neighbours_among(pixels: Mask, camera: CameraGeometry) -> npt.NDArray[np.uint8]:
    """Count the neighbours of each pixel that are among some."""
    padded = np.pad(pixels, ((0, 0), (0, 1))).astype(np.uint8)  # -1, no neighbour, is the last column
    count = np.zeros(pixels.shape, np.uint8)
    for neighbour in camera.neighbours.T:
        count += padded[:, neighbour]
    return count


def parametrise(images: Images, mask: Mask, camera: CameraGeometry, source: tuple[float, float], table: Floats) -> None:
    """Compute the image parameters of the pixels with light; see `Kernels.parametrise`."""
    for block in _blocks(len(images)):
        with np.errstate(all="ignore"):  # what an image does not define is NaN
            columns = _parameters(images[block], mask[block] if len(mask) > 1 else mask, camera, source)
        table[:, block] = [columns[name] for name in PARAMETERS]


def _parameters(images: Images, mask: Mask, camera: CameraGeometry, source: tuple[float, float]) -> dict[str, Floats]:
    n_images = len(images)
    image, pixel = np.nonzero(mask & (images > 0) & (images < np.inf))
    weight = images[image, pixel].astype(np.float64)

    def total(values: Floats) -> Floats:
        """Return the sum of each image over its pixels with light."""
        return np.bincount(image, weights=values, minlength=n_images).astype(np.float64, copy=False)

    size, n_pixels = total(weight), np.bincount(image, minlength=n_images)
    lit = n_pixels > 0
    cog_x, cog_y = total(weight * camera.x[pixel]) / size, total(weight * camera.y[pixel]) / size
    dx, dy = camera.x[pixel] - cog_x[image], camera.y[pixel] - cog_y[image]
    xx, yy, xy = total(weight * dx * dx) / size, total(weight * dy * dy) / size, total(weight * dx * dy) / size

    # Eigenvalues of the covariance; the smaller one as determinant / larger one keeps its digits.
    flat = FLAT * camera.pitch**2
    span = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    large = (xx + yy) / 2 + span
    small = (xx * yy - xy**2) / large
    small = np.where(small > flat, small, 0.0)
    extended, has_axis = large > flat, large - small > flat
    length = np.where(extended, np.sqrt(large), 0.0)
    width = np.where(extended, np.sqrt(small), 0.0)

    psi = np.arctan2(2 * xy, xx - yy) / 2
    psi = np.where(psi <= -np.pi / 2, np.pi / 2, psi)
    axis_x, axis_y = np.cos(psi), np.sin(psi)
    along = dx * axis_x[image] + dy * axis_y[image]

    from_x, from_y = cog_x - source[0], cog_y - source[1]
    distance = np.sqrt(from_x**2 + from_y**2)
    across = (dy * from_x[image] - dx * from_y[image]) / distance[image]
    azwidth = np.where(distance > 0, np.sqrt(total(weight * across**2) / size), np.nan)
    miss = np.abs(axis_x * from_y - axis_y * from_x)
    alpha = np.degrees(np.arctan2(miss, np.abs(axis_x * from_x + axis_y * from_y)))

    brightest, second = _two_brightest(image, weight, n_pixels)
    at_edge = total(weight * camera.edge[pixel])
    return {
        "size": size,
        "cog_x": cog_x,
        "cog_y": cog_y,
        "length": np.where(lit, length, np.nan),
        "width": np.where(lit, width, np.nan),
        "distance": distance,
        "psi": np.where(has_axis, np.degrees(psi), np.nan),
        "miss": np.where(has_axis, miss, np.nan),
        "alpha": np.where(has_axis & (distance > 0), alpha, np.nan),
        "azwidth": np.where(lit, np.where(extended, azwidth, 0.0), np.nan),
        "con1": brightest / size,
        "con2": (brightest + second) / size,
        "skewness": np.where(has_axis, total(weight * along**3) / (size * length**3), np.nan),
        "kurtosis": np.where(has_axis, total(weight * along**4) / (size * length**4), np.nan),
        "n_pixels": n_pixels.astype(np.float64),
        "edge": (at_edge > 0).astype(np.float64),
        "leakage": at_edge / size,
        "n_islands": _islands(image, pixel, n_images, camera).astype(np.float64),
    }


def _two_brightest(image: Ints, weight: Floats, n_pixels: Ints) -> tuple[Floats, Floats]:
    """Return the amplitudes of each image's brightest pixel with light and of the next, 0 where there is none."""
    ordered = np.append(weight[np.lexsort((-weight, image))], (0.0, 0.0))
    start = np.cumsum(n_pixels) - n_pixels
    return np.where(n_pixels > 0, ordered[start], 0.0), np.where(n_pixels > 1, ordered[start + 1], 0.0)


def _islands(image: Ints, pixel: Ints, n_images: int, camera: CameraGeometry) -> Ints:
    """Count the groups of neighbouring pixels with light of each image.

    Every pixel takes the lowest number among its own and its neighbours' until nothing changes; then each island has
    one number, that of its first pixel.
    """
    first = np.arange(len(pixel))
    place = np.full((n_images, camera.n_pixels + 1), -1)
    place[image, pixel] = first
    beside = place[image[:, None], camera.neighbours[pixel]]  # -1, no neighbour, is the last column
    beside = np.where(beside < 0, first[:, None], beside)
    number = first
    while True:
        lowest = np.minimum(number, number[beside].min(axis=1))
        lowest = lowest[lowest]
        if np.array_equal(lowest, number):
            return np.bincount(image[number == first], minlength=n_images)
        number = lowest


def clean_and_parametrise(
    images: Images,
    picture: Images,
    boundary: Images,
    cleaning: Cleaning,
    camera: CameraGeometry,
    source: tuple[float, float],
    mask: Mask,
    table: Floats,
) -> None:
    """Clean, then compute the parameters; see `Kernels.clean` and see `Kernels.parametrise`."""
    clean(images, picture, boundary, cleaning, camera, mask)
    parametrise(images, mask, camera, source, table)


def apply_map(
    images: Images,
    mask: Mask | None,
    start: Ints,
    pixel: Ints,
    weight: npt.NDArray[np.float32],
    grids: npt.NDArray[np.float32],
) -> None:
    """Apply a sparse map from pixels to cells; see `Kernels.apply_map`."""
    entries = np.diff(start)
    grids[:] = 0
    for block in _blocks(len(images)):
        present = ~np.isnan(images[block]) if mask is None else mask[block] & ~np.isnan(images[block])
        amplitudes = np.where(present, images[block], np.float32(0))
        for k in range(int(entries.max(initial=0))):  # the k-th term of every cell that has so many
            cells = np.flatnonzero(entries > k)
            entry = start[cells] + k
            with np.errstate(all="ignore"):  # an infinite amplitude stays one, or becomes NaN
                grids[block, cells] += weight[entry] * amplitudes[:, pixel[entry]]


def halo(images: Images, camera: CameraGeometry, source: tuple[float, float], table: Floats) -> None:
    """Compute the halo parameters; see `Kernels.halo`."""
    mask = np.empty(images.shape, np.bool_)
    ellipses: dict[str, Floats] = {}
    for number, cleaning in enumerate(CLEANINGS):
        picture, boundary = (np.full((1, 1), level, np.float32) for level in (cleaning.picture, cleaning.boundary))
        rows = table[number * len(PARAMETERS) : (number + 1) * len(PARAMETERS)]
        clean_and_parametrise(images, picture, boundary, cleaning, camera, source, mask, rows)
        if number == REFERENCE:
            ellipses = dict(zip(PARAMETERS, rows, strict=True))
    for block in _blocks(len(images)):
        ellipse = {name: column[block, None] for name, column in ellipses.items()}
        table[FIRST_RING:, block] = _rings(images[block], ellipse, camera)


def _rings(images: Images, ellipse: dict[str, Floats], camera: CameraGeometry) -> Floats:
    """Return the sums of each part of each ring, shape (n_columns, n_images)."""
    n_images, n_parts = len(images), len(PARTS) * (len(RINGS) + 1)  # the ellipse itself counts as a ring here
    psi = np.radians(ellipse["psi"])
    dx, dy = camera.x - ellipse["cog_x"], camera.y - ellipse["cog_y"]
    u = (dx * np.cos(psi) + dy * np.sin(psi)) / (ellipse["length"] + camera.pitch / 2)
    v = (dy * np.cos(psi) - dx * np.sin(psi)) / (ellipse["width"] + camera.pitch / 2)
    ring = np.searchsorted(RINGS, np.hypot(u, v), side="left")
    part = len(PARTS) * ring + (np.abs(u) <= np.abs(v)) + n_parts * np.arange(n_images)[:, None]
    measured = np.isfinite(images) & np.isfinite(psi)
    part, amplitude = part[measured], images[measured].astype(np.float64)

    sums = np.zeros((n_images * n_parts, len(SUMS)))
    sums[:, PIXELS] = np.bincount(part, minlength=len(sums))
    sums[:, LIGHT] = np.bincount(part, weights=amplitude, minlength=len(sums))
    bright = amplitude >= LEVELS[0]
    np.maximum.at(sums[:, BRIGHTEST], part[bright], amplitude[bright])
    for number, level in enumerate(LEVELS):
        sums[:, ABOVE + number] = np.bincount(part[amplitude >= level], minlength=len(sums))
    sums = sums.reshape(n_images, n_parts, len(SUMS))[:, len(PARTS) :].reshape(n_images, -1)
    return np.where(np.isfinite(psi), sums, np.nan).T

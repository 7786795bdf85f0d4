"""Hillas parameters: moments of the light in the camera, in degrees.

Sums are made in double precision over coordinates relative to the centre of gravity, so that a narrow image far
from the camera's centre loses no digits. Signs and conventions of size, centre, length, width, psi, skewness and
kurtosis are those of ctapipe.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning import of_camera
from apbatch.camera.geometry import CameraGeometry, Floats, Ints
from apbatch.camera.kernel import kernel
from apbatch.errors import UsageError

#: Columns of the result, in order. NaN marks what an image does not define.
PARAMETERS = (
    "size",  # p.e.
    "cog_x", "cog_y",  # deg, centre of gravity
    "length", "width",  # deg, r.m.s. along and across the axis
    "distance",  # deg, of the centre of gravity from the source
    "psi",  # deg, axis against x, in (-90, 90]
    "miss",  # deg, of the axis from the source
    "alpha",  # deg, between axis and the line from source to centre of gravity, in [0, 90]
    "azwidth",  # deg, r.m.s. across the line from source to centre of gravity
    "con1", "con2",  # share of the brightest pixel, of the two brightest
    "skewness", "kurtosis",  # along the axis
    "n_pixels",  # with light
    "edge",  # 1 if a pixel with light is at the edge of the camera
    "leakage",  # share of the light in edge pixels
    "n_islands",  # groups of neighbouring pixels with light
)  # fmt: skip

#: Variances below this share of the pitch squared are zero: rounding of collinear pixels.
_FLAT = 1e-10


def hillas(
    images: npt.NDArray[np.float32],
    camera: CameraGeometry,
    mask: npt.NDArray[np.bool_] | None = None,
    *,
    source: tuple[float, float] = (0.0, 0.0),
) -> dict[str, Floats]:
    """Compute the image parameters of a batch.

    Pixels with light are those that the mask keeps and whose amplitude is above 0; NaN pixels have none.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        Photo-electrons.
    camera : CameraGeometry
    mask : ndarray of bool, shape (n_images, n_pixels), optional
        Pixels that cleaning keeps; all by default.
    source : (float, float)
        Place of the source in the camera, deg.

    Returns
    -------
    dict of str to ndarray of float64, shape (n_images,)
        A column for each of `PARAMETERS`. Without light, size and counts are 0 and the rest is NaN; with one pixel
        length and width are 0 and the axis is undefined; pixels on a line have width 0.

    Raises
    ------
    UsageError
        If images, mask and camera do not fit together.
    """
    images = of_camera(images, camera)
    if mask is None:
        mask = np.ones(images.shape, np.bool_)
    if mask.shape != images.shape:
        raise UsageError(f"the mask is of shape {mask.shape}, the images of shape {images.shape}")
    out = _hillas(
        images,
        np.ascontiguousarray(mask, np.bool_),
        camera.x,
        camera.y,
        camera.neighbours,
        float(camera.pitch),
        float(source[0]),
        float(source[1]),
    )
    return {name: np.ascontiguousarray(out[:, column]) for column, name in enumerate(PARAMETERS)}


@kernel
def _hillas(
    images: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    x: Floats,
    y: Floats,
    neighbours: Ints,
    pitch: float,
    source_x: float,
    source_y: float,
) -> Floats:
    n_images, n_pixels = images.shape
    out = np.full((n_images, 18), np.nan)
    lit = np.empty(n_pixels, np.int64)
    todo = np.empty(n_pixels, np.int64)
    state = np.zeros(n_pixels, np.int8)  # 1: with light, not yet in an island
    for i in range(n_images):
        size, first, second, at_edge = 0.0, 0.0, 0.0, 0.0
        cog_x, cog_y = 0.0, 0.0
        count, edge = 0, False
        for p in range(n_pixels):
            value = float(images[i, p])
            if not (mask[i, p] and value > 0.0 and value < np.inf):
                continue
            lit[count] = p
            count += 1
            size += value
            cog_x += value * x[p]
            cog_y += value * y[p]
            if value > first:
                first, second = value, first
            elif value > second:
                second = value
            if neighbours[p, 5] < 0:  # padding is at the end
                edge = True
                at_edge += value
        out[i, 0] = size
        out[i, 14] = count
        out[i, 15] = 1.0 if edge else 0.0
        out[i, 17] = _islands(lit, count, neighbours, state, todo)
        if count == 0:
            continue
        cog_x /= size
        cog_y /= size
        xx, yy, xy = 0.0, 0.0, 0.0
        for k in range(count):
            p = lit[k]
            weight = float(images[i, p])
            dx, dy = x[p] - cog_x, y[p] - cog_y
            xx += weight * dx * dx
            yy += weight * dy * dy
            xy += weight * dx * dy
        xx, yy, xy = xx / size, yy / size, xy / size
        from_x, from_y = cog_x - source_x, cog_y - source_y
        distance = math.hypot(from_x, from_y)
        out[i, 1], out[i, 2], out[i, 5] = cog_x, cog_y, distance
        out[i, 10], out[i, 11] = first / size, (first + second) / size
        out[i, 16] = at_edge / size
        # Eigenvalues of the covariance; the smaller one as determinant / larger one keeps its digits.
        half, difference = (xx + yy) / 2, (xx - yy) / 2
        large = half + math.hypot(difference, xy)
        flat = _FLAT * pitch * pitch
        if large <= flat:
            out[i, 3], out[i, 4] = 0.0, 0.0
            out[i, 9] = 0.0
            continue
        small = (xx * yy - xy * xy) / large
        if small <= flat:
            small = 0.0
        length, width = math.sqrt(large), math.sqrt(small)
        out[i, 3], out[i, 4] = length, width
        if distance > 0.0:
            across = (xx * from_y * from_y - 2.0 * xy * from_x * from_y + yy * from_x * from_x) / (distance * distance)
            out[i, 9] = math.sqrt(max(across, 0.0))
        if large - small <= flat:
            continue  # round: no axis
        psi = 0.5 * math.atan2(2.0 * xy, xx - yy)
        if psi <= -math.pi / 2:
            psi += math.pi
        cosine, sine = math.cos(psi), math.sin(psi)
        miss = abs(cosine * from_y - sine * from_x)
        out[i, 6], out[i, 7] = math.degrees(psi), miss
        if distance > 0.0:
            out[i, 8] = math.degrees(math.asin(min(miss / distance, 1.0)))
        third, fourth = 0.0, 0.0
        for k in range(count):
            p = lit[k]
            along = (x[p] - cog_x) * cosine + (y[p] - cog_y) * sine
            cube = float(images[i, p]) * along * along * along
            third += cube
            fourth += cube * along
        out[i, 12] = third / size / (length * large)
        out[i, 13] = fourth / size / (large * large)
    return out


@kernel
def _islands(lit: Ints, count: int, neighbours: Ints, state: npt.NDArray[np.int8], todo: Ints) -> int:
    """Count groups of neighbouring pixels among the first `count` of `lit`; leaves `state` all 0."""
    for k in range(count):
        state[lit[k]] = 1
    islands = 0
    for k in range(count):
        if state[lit[k]] == 0:
            continue
        islands += 1
        state[lit[k]] = 0
        todo[0] = lit[k]
        waiting = 1
        while waiting > 0:
            waiting -= 1
            pixel = todo[waiting]
            for n in neighbours[pixel]:
                if n >= 0 and state[n] == 1:
                    state[n] = 0
                    todo[waiting] = n
                    waiting += 1
    return islands

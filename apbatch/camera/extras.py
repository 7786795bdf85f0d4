"""Parameters that few analyses need, computed only when they are asked for: they cost more than all others together.

Definitions are those of ctapipe: `hillas_parameters` (uncertainties), `leakage_parameters`,
`concentration_parameters`, `morphology_parameters`. The time gradient is a plain least-squares line; ctapipe's is a
robust fit of the same line.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning import Images, Mask, of_camera
from apbatch.camera.geometry import CameraGeometry, Floats
from apbatch.camera.hillas import hillas
from apbatch.camera.islands import label_islands
from apbatch.camera.kernels.decorators import kernel
from apbatch.errors import UsageError

#: Columns of the result, in order, and their units; empty for plain numbers. NaN marks what an image does not define.
EXTRAS = {
    "length_uncertainty": "deg",
    "width_uncertainty": "deg",
    "psi_uncertainty": "deg",
    "transverse_cog_uncertainty": "deg",  # of the centre of gravity across the axis
    "leakage_pixels_1": "",  # share of the lit pixels in the outer row of the camera
    "leakage_pixels_2": "",  # in the outer two
    "leakage_1": "",  # share of the light there
    "leakage_2": "",
    "concentration_cog": "",  # share of the light within one pitch of the centre of gravity
    "concentration_core": "",  # share of the light in the ellipse of length and width
    "concentration_pixel": "",  # share of the brightest pixel
    "n_small_islands": "",  # of up to 2 pixels
    "n_medium_islands": "",  # of 3 to 50
    "n_large_islands": "",  # of more
    "time_slope": "ns/deg",  # of a line through time against place along the axis
    "time_intercept": "ns",
    "time_deviation": "ns",  # r.m.s. about that line
}

# Rows of the kernel's result, in the order of `EXTRAS`.
(
    _LENGTH_ERROR, _WIDTH_ERROR, _PSI_ERROR, _TRANSVERSE_ERROR, _LEAKAGE_PIXELS_1, _LEAKAGE_PIXELS_2, _LEAKAGE_1,
    _LEAKAGE_2, _COG, _CORE, _BRIGHTEST, _SMALL, _MEDIUM, _LARGE, _SLOPE, _INTERCEPT, _DEVIATION,
) = range(17)  # fmt: skip


def extras(
    images: Images,
    camera: CameraGeometry,
    mask: Mask | None = None,
    *,
    peak_time: npt.NDArray[np.float32] | None = None,
) -> dict[str, Floats]:
    """Compute the parameters of `EXTRAS` of a batch.

    Parameters
    ----------
    images, camera, mask
        As of `apbatch.camera.hillas.hillas`; the same pixels have light.
    peak_time : ndarray of float32, shape (n_images, n_pixels), optional
        Time of each pixel's pulse, ns; without it, or with fewer than two pixels of known time, there is no line.

    Returns
    -------
    dict of str to ndarray of float64, shape (n_images,)

    Raises
    ------
    UsageError
        If images, mask, times and camera do not fit together.
    """
    images = of_camera(images, camera)
    moments = hillas(images, camera, mask)
    if peak_time is not None and peak_time.shape != images.shape:
        raise UsageError(f"times are of shape {peak_time.shape}, the images of shape {images.shape}")
    lit = (images > 0) & np.isfinite(images)
    if mask is not None:
        lit &= mask
    second = camera.edge.copy()
    neighbours = camera.neighbours
    second |= ((neighbours >= 0) & camera.edge[neighbours]).any(axis=1)
    table = np.full((len(EXTRAS), len(images)), np.nan)
    _extras_batch(
        images,
        lit,
        np.full((1, 1), np.nan, np.float32) if peak_time is None else np.ascontiguousarray(peak_time, np.float32),
        label_islands(lit, camera),
        np.ascontiguousarray(camera.x),
        np.ascontiguousarray(camera.y),
        camera.edge,
        second,
        float(camera.pitch),
        (math.sqrt(0.75) if camera.lattice == "hexagonal" else 1.0) * float(camera.pitch) ** 2,
        moments["size"],
        moments["cog_x"],
        moments["cog_y"],
        moments["length"],
        moments["width"],
        moments["psi"],
        table,
    )
    return dict(zip(EXTRAS, table, strict=True))


@kernel
def _extras_batch(
    images: Images,
    lit: Mask,
    times: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    x: Floats,
    y: Floats,
    edge: npt.NDArray[np.bool_],
    second: npt.NDArray[np.bool_],
    pitch: float,
    area: float,
    sizes: Floats,
    cogs_x: Floats,
    cogs_y: Floats,
    lengths: Floats,
    widths: Floats,
    psis: Floats,
    out: Floats,
) -> None:
    n_images, n_pixels = images.shape
    island = np.zeros(n_pixels + 1, np.int64)
    for i in range(n_images):
        island[:] = 0
        for p in range(n_pixels):
            island[labels[i, p]] += 1
        small, medium, large = 0, 0, 0
        for k in range(1, n_pixels + 1):
            if island[k] == 0:
                break
            if island[k] <= 2:
                small += 1
            elif island[k] <= 50:
                medium += 1
            else:
                large += 1
        out[_SMALL, i], out[_MEDIUM, i], out[_LARGE, i] = small, medium, large
        size, cog_x, cog_y, length, width = sizes[i], cogs_x[i], cogs_y[i], lengths[i], widths[i]
        if not size > 0.0:
            continue
        psi = math.radians(psis[i])
        cosine, sine = math.cos(psi), math.sin(psi)
        xx, yy, xy, brightest = 0.0, 0.0, 0.0, 0.0
        count, outer, outer_two = 0, 0, 0
        light_outer, light_two, light_cog, light_core = 0.0, 0.0, 0.0, 0.0
        ll, lt, timed, sum_t, sum_l, sum_tl, sum_ll = 0.0, 0.0, 0, 0.0, 0.0, 0.0, 0.0
        for p in range(n_pixels):
            if not lit[i, p]:
                continue
            value = float(images[i, p])
            count += 1
            brightest = max(brightest, value)
            if edge[p]:
                outer += 1
                light_outer += value
            if second[p]:
                outer_two += 1
                light_two += value
            dx, dy = x[p] - cog_x, y[p] - cog_y
            xx += value * dx * dx
            yy += value * dy * dy
            xy += value * dx * dy
            if dx * dx + dy * dy < pitch * pitch:
                light_cog += value
            along, across = dx * cosine + dy * sine, dy * cosine - dx * sine
            ll += value * along * along
            lt += value * along * across
            if width > 0.0 and (along / length) ** 2 + (across / width) ** 2 <= 1.0:
                light_core += value
            if times.shape[0] == n_images and times.shape[1] == n_pixels and math.isfinite(times[i, p]):
                time = float(times[i, p])
                timed += 1
                sum_t += time
                sum_l += along
                sum_tl += time * along
                sum_ll += along * along
        out[_LEAKAGE_PIXELS_1, i], out[_LEAKAGE_PIXELS_2, i] = outer / count, outer_two / count
        out[_LEAKAGE_1, i], out[_LEAKAGE_2, i] = light_outer / size, light_two / size
        out[_COG, i], out[_CORE, i], out[_BRIGHTEST, i] = light_cog / size, light_core / size, brightest / size
        if not math.isfinite(psi):
            continue  # without an axis none of the rest is defined
        xx, yy, xy = xx / size, yy / size, xy / size
        one, two, three = cosine * cosine, sine * sine, 2.0 * sine * cosine
        long_sum, wide_sum = 0.0, 0.0
        for p in range(n_pixels):
            if lit[i, p]:
                value = float(images[i, p])
                dx, dy = x[p] - cog_x, y[p] - cog_y
                a, b, c = (dx * dx - xx) / size, (dy * dy - yy) / size, (dx * dy - xy) / size
                long_sum += value * (one * a + two * b + three * c) ** 2
                wide_sum += value * (two * a + one * b - three * c) ** 2
        out[_LENGTH_ERROR, i] = math.sqrt(long_sum) / (2.0 * length)
        if width > 0.0:
            out[_WIDTH_ERROR, i] = math.sqrt(wide_sum) / (2.0 * width)
        # A line through the pixels along the axis, weighted by light: about the centre of gravity its sums decouple.
        tilt = lt / ll
        out[_PSI_ERROR, i] = math.degrees(
            math.sqrt(area / ll + tilt * tilt) * (1.0 + math.tan(width / length * math.pi / 2.0) ** 2)
        )
        out[_TRANSVERSE_ERROR, i] = math.sqrt(area / size * (1.0 + math.sin(tilt) ** 2))
        spread = timed * sum_ll - sum_l * sum_l
        if timed < 2 or not spread > 0.0:
            continue
        slope = (timed * sum_tl - sum_t * sum_l) / spread
        intercept = (sum_t - slope * sum_l) / timed
        square = 0.0
        for p in range(n_pixels):
            if lit[i, p] and math.isfinite(times[i, p]):
                along = (x[p] - cog_x) * cosine + (y[p] - cog_y) * sine
                square += (float(times[i, p]) - slope * along - intercept) ** 2
        out[_SLOPE, i], out[_INTERCEPT, i], out[_DEVIATION, i] = slope, intercept, math.sqrt(square / timed)

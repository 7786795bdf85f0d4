"""Cleaning: which pixels of an image have light of a shower and not only of the night sky.

All cleanings begin with two levels: keep bright pixels, and dimmer ones beside them. The levels are photo-electrons,
or multiples of each pixel's noise. Then pixels without a neighbour of the same time, and all but the largest island,
may be dropped. Rules are those of ctapipe (`tailcuts_clean`, `apply_time_delta_cleaning`, `largest_island`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.islands import keep_largest
from apbatch.camera.kernel import kernel
from apbatch.camera.light import BLOCK, Numbers, Tables, Workspace, clean_block, tables_of, workspace
from apbatch.camera.vector import PIXELS
from apbatch.errors import NotFoundError, UsageError, nearest_word

Images = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Method = Literal["tailcuts", "time-neighbours", "sigma"]

#: Name of the cleaning that keeps every pixel with light.
NONE = "none"


@dataclass(frozen=True)
class Cleaning:
    """How images are cleaned.

    A pixel at or above `picture` is in the picture if enough of its neighbours are as bright; it is kept if one of
    its neighbours is at or above `boundary`. A pixel at or above `boundary` is kept if a neighbour is in the picture.

    Attributes
    ----------
    method : str
        ``tailcuts``: levels in photo-electrons. ``sigma``: levels in standard deviations of each pixel's noise, so
        that they follow the night sky. ``time-neighbours``: levels in photo-electrons, and `time_limit`.
    picture, boundary : float
        Levels, p.e. or standard deviations; they are compared in the precision of the images (float32).
    min_neighbours : int
        How many neighbours of a pixel of the picture must reach `picture` as well, unless isolated pixels are kept.
    keep_isolated : bool
        Keep pixels of the picture that stand alone.
    time_limit : float, optional
        Drop kept pixels with fewer than `time_neighbours` kept neighbours whose time differs by less, ns.
    time_neighbours : int
        See `time_limit`.
    largest_island : bool
        At last keep only the island of most pixels, the one with the lowest pixel number if there are several.

    Raises
    ------
    UsageError
        If this makes no sense.
    """

    method: Method
    picture: float
    boundary: float
    min_neighbours: int = 0
    keep_isolated: bool = False
    time_limit: float | None = None
    time_neighbours: int = 1
    largest_island: bool = False

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UsageError(
                f"unknown method of cleaning '{self.method}'",
                nearest=nearest_word(str(self.method), get_args(Method)),
                remedy=f"known are {', '.join(get_args(Method))}",
            )
        unit = "sigma" if self.method == "sigma" else "p.e."
        if not (np.isfinite(self.picture) and np.isfinite(self.boundary)) or not 0 < self.boundary <= self.picture:
            raise UsageError(
                f"picture {self.picture:g} {unit} and boundary {self.boundary:g} {unit} are no two levels",
                remedy="0 < boundary <= picture, such as 14 and 7 p.e., or 3 and 1.5 sigma",
            )
        for number in (self.min_neighbours, self.time_neighbours):
            if not 0 <= number <= 6:
                raise UsageError(f"a pixel can't have {number} neighbours", remedy="give a number from 0 to 6")
        if self.method == "time-neighbours" and self.time_limit is None:
            raise UsageError("a cleaning by time needs a limit", remedy="time_limit in ns, such as 2")
        if self.method == "tailcuts" and self.time_limit is not None:
            raise UsageError("tailcuts know no time", remedy="method 'time-neighbours'")
        if self.time_limit is not None and not 0 < self.time_limit < np.inf:
            raise UsageError(f"{self.time_limit:g} ns is no time limit", remedy="give more than 0 ns")

    @property
    def name(self) -> str:
        """Name in tables of image parameters, such as ``tailcuts-14-7``; what is at its default is not in it."""
        parts = [f"{self.method}-{self.picture:g}-{self.boundary:g}"]
        if self.min_neighbours:
            parts.append(f"n{self.min_neighbours}")
        if self.keep_isolated:
            parts.append("isolated")
        if self.time_limit is not None:
            parts.append(f"t{self.time_limit:g}" + (f"x{self.time_neighbours}" if self.time_neighbours != 1 else ""))
        if self.largest_island:
            parts.append("largest")
        return "-".join(parts)


#: Cleanings with a name of their own: the thresholds of the TAIGA collaboration, and half of them.
PRESETS = {"standard": Cleaning("tailcuts", 14, 7), "soft": Cleaning("tailcuts", 7, 3.5)}
_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_NAME = re.compile(
    rf"(?P<method>tailcuts|sigma|time-neighbours)-(?P<picture>{_NUMBER})-(?P<boundary>{_NUMBER})"
    rf"(?:-n(?P<least>\d))?(?P<isolated>-isolated)?(?:-t(?P<limit>{_NUMBER})(?:x(?P<times>\d))?)?(?P<largest>-largest)?"
)


def cleaning_named(name: str) -> Cleaning:
    """Return a cleaning by its name: one of `PRESETS`, or what `Cleaning.name` gives.

    Raises
    ------
    NotFoundError
        If it is no name of a cleaning.
    UsageError
        If the cleaning makes no sense.
    """
    if name in PRESETS:
        return PRESETS[name]
    found = _NAME.fullmatch(name)
    if found is None:
        raise NotFoundError(
            f"there is no cleaning '{name}'",
            nearest=nearest_word(name, [*PRESETS, "tailcuts-14-7", "sigma-3-1.5", "time-neighbours-14-7-t2"]),
            remedy=f"known are {', '.join(PRESETS)}, and names such as tailcuts-14-7 and sigma-3-1.5",
        )
    method: Method = found["method"]  # type: ignore[assignment]  # the pattern has no others
    return Cleaning(
        method,
        float(found["picture"]),
        float(found["boundary"]),
        int(found["least"] or 0),
        found["isolated"] is not None,
        float(found["limit"]) if found["limit"] else None,
        int(found["times"] or 1),
        found["largest"] is not None,
    )


def clean(
    images: Images,
    camera: CameraGeometry,
    cleaning: Cleaning,
    *,
    peak_time: npt.NDArray[np.float32] | None = None,
    noise: npt.NDArray[np.floating[Any]] | None = None,
) -> Mask:
    """Tell which pixels of each image are kept.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        Photo-electrons; NaN is a pixel without a measurement, which is never kept.
    camera : CameraGeometry
    cleaning : Cleaning
    peak_time : ndarray of float32, shape (n_images, n_pixels), optional
        Time of each pixel's pulse, ns; NaN is near to no other. Needed for a cleaning with a time limit.
    noise : ndarray, shape (n_pixels,) or (n_images, n_pixels), optional
        Standard deviation of each pixel's noise, p.e.; needed for the method ``sigma``. A pixel whose noise is not
        above 0 is never kept.

    Returns
    -------
    ndarray of bool, shape (n_images, n_pixels)

    Raises
    ------
    UsageError
        If the images are not of this camera, or what the cleaning needs is missing.
    """
    images = of_camera(images, camera)
    picture, boundary = levels(cleaning, images, camera, noise)
    tables = tables_of(camera)
    mask = np.empty(images.shape, np.bool_)
    space = workspace(camera.n_pixels)
    _clean_batch(images, picture, boundary, cleaning.min_neighbours, cleaning.keep_isolated, tables, mask, space)
    if cleaning.time_limit is not None:
        if peak_time is None:
            raise UsageError(f"the cleaning {cleaning.name} needs the times of pulses", remedy="give peak_time")
        if peak_time.shape != images.shape:
            raise UsageError(f"times are of shape {peak_time.shape}, the images of shape {images.shape}")
        times = np.ascontiguousarray(peak_time, np.float32)
        mask = _with_neighbours_in_time(mask, times, tables.neighbours, cleaning.time_limit, cleaning.time_neighbours)
    if cleaning.largest_island:
        keep_largest(mask, tables.neighbours)
    return mask


def of_camera(images: Images, camera: CameraGeometry) -> Images:
    """Return images as kernels want them.

    Raises
    ------
    UsageError
        If they have not as many pixels as the camera.
    """
    if images.ndim != 2 or (len(images) and images.shape[1] != camera.n_pixels):
        raise UsageError(f"{camera.name} has {camera.n_pixels} pixels, the images are of shape {images.shape}")
    return np.ascontiguousarray(images.reshape(len(images), camera.n_pixels), np.float32)


def levels(
    cleaning: Cleaning, images: Images, camera: CameraGeometry, noise: npt.NDArray[np.floating[Any]] | None
) -> tuple[Images, Images]:
    """Return picture and boundary levels as kernels want them: one row, or one an image, with some pixels more.

    Raises
    ------
    UsageError
        If noise is needed and missing, or not of this camera.
    """
    shape = (1, camera.n_pixels)
    unit: npt.NDArray[np.floating[Any]] = np.ones(shape)
    if cleaning.method == "sigma":
        if noise is None:
            raise UsageError(f"the cleaning {cleaning.name} needs the noise of pixels", remedy="give noise")
        unit = np.atleast_2d(noise)
        if unit.shape not in (shape, images.shape):
            raise UsageError(f"{camera.name} has {camera.n_pixels} pixels, the noise is of shape {noise.shape}")
        unit = np.where(unit > 0, unit, np.nan)
    made = []
    for level in (cleaning.picture, cleaning.boundary):
        row = np.full((len(unit), camera.n_pixels + PIXELS), np.nan, np.float32)
        row[:, : camera.n_pixels] = level * unit
        made.append(row)
    return made[0], made[1]


@kernel
def _clean_batch(
    images: Images,
    picture: Images,
    boundary: Images,
    min_neighbours: int,
    keep_isolated: bool,
    tables: Tables,
    mask: Mask,
    space: Workspace,
) -> None:
    lists, scratch = space.lists, space.scratch
    for first in range(0, len(images), BLOCK):
        last = min(first + BLOCK, len(images))
        clean_block(images, first, last, picture, boundary, min_neighbours, keep_isolated, tables, mask, lists, scratch)


@kernel
def _with_neighbours_in_time(
    mask: Mask, times: npt.NDArray[np.float32], neighbours: Numbers, limit: float, least: int
) -> Mask:
    n_images, n_pixels = mask.shape
    kept = np.zeros((n_images, n_pixels), np.bool_)
    near = np.float32(limit)
    for i in range(n_images):
        for p in range(n_pixels):
            if not mask[i, p]:
                continue
            number = 0
            for j in range(neighbours.shape[1]):
                n = neighbours[p, j]
                if n < n_pixels and mask[i, n] and abs(times[i, p] - times[i, n]) < near:
                    number += 1
            kept[i, p] = number >= least
    return kept

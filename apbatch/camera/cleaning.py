"""Two-level tail-cut cleaning: keep bright pixels, and dimmer ones beside them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry, Ints
from apbatch.camera.kernel import kernel
from apbatch.errors import UsageError

#: Name of the cleaning that keeps every pixel with light.
NONE = "none"


def tailcuts_name(picture: float, boundary: float) -> str:
    """Return the name of a cleaning in tables of image parameters, such as ``tailcuts-14-7``."""
    return f"tailcuts-{picture:g}-{boundary:g}"


def tailcuts(
    images: npt.NDArray[np.float32],
    camera: CameraGeometry,
    *,
    picture: float,
    boundary: float,
    keep_isolated: bool = False,
    min_neighbours: int = 0,
) -> npt.NDArray[np.bool_]:
    """Tell which pixels of each image are kept.

    A pixel at or above `picture` is in the picture if enough of its neighbours are as bright; it is kept if one
    of its neighbours is at or above `boundary`. A pixel at or above `boundary` is kept if a neighbour is in the
    picture.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        Photo-electrons; NaN is a pixel without a measurement, which is never kept.
    camera : CameraGeometry
    picture, boundary : float
        Thresholds, p.e.
    keep_isolated : bool
        Keep pixels of the picture that stand alone.
    min_neighbours : int
        How many neighbours must reach `picture` as well, unless isolated pixels are kept.

    Returns
    -------
    ndarray of bool, shape (n_images, n_pixels)

    Raises
    ------
    UsageError
        If the thresholds make no sense or the images are not of this camera.
    """
    check_thresholds(picture, boundary, min_neighbours)
    return _tailcuts(
        of_camera(images, camera), camera.neighbours, picture, boundary, keep_isolated, int(min_neighbours)
    )


def check_thresholds(picture: float, boundary: float, min_neighbours: int = 0) -> None:
    """Refuse senseless thresholds before any work is done.

    Raises
    ------
    UsageError
    """
    if not (np.isfinite(picture) and np.isfinite(boundary)) or not 0 < boundary <= picture:
        raise UsageError(
            f"picture {picture:g} p.e. and boundary {boundary:g} p.e. are no two levels",
            remedy="0 < boundary <= picture, such as 14 and 7",
        )
    if not 0 <= min_neighbours <= 6:
        raise UsageError(f"a pixel can't have {min_neighbours} neighbours", remedy="give a number from 0 to 6")


def of_camera(images: npt.NDArray[np.float32], camera: CameraGeometry) -> npt.NDArray[np.float32]:
    """Return images as kernels want them.

    Raises
    ------
    UsageError
        If they have not as many pixels as the camera.
    """
    if images.ndim != 2 or (len(images) and images.shape[1] != camera.n_pixels):
        raise UsageError(f"{camera.name} has {camera.n_pixels} pixels, the images are of shape {images.shape}")
    return np.ascontiguousarray(images.reshape(len(images), camera.n_pixels), np.float32)


@kernel
def _tailcuts(
    images: npt.NDArray[np.float32],
    neighbours: Ints,
    picture: float,
    boundary: float,
    keep_isolated: bool,
    min_neighbours: int,
) -> npt.NDArray[np.bool_]:
    n_images, n_pixels = images.shape
    kept = np.zeros((n_images, n_pixels), np.bool_)
    core = np.empty(n_pixels, np.bool_)
    for i in range(n_images):
        image = images[i]
        # Comparisons with NaN are false: a pixel without a measurement is in neither set.
        for p in range(n_pixels):
            core[p] = image[p] >= picture
            if core[p] and min_neighbours > 0 and not keep_isolated:
                bright = 0
                for n in neighbours[p]:
                    if n >= 0 and image[n] >= picture:
                        bright += 1
                core[p] = bright >= min_neighbours
        for p in range(n_pixels):
            if core[p] and keep_isolated:
                kept[i, p] = True
                continue
            reaches = image[p] >= boundary
            if not (reaches or core[p]):
                continue
            for n in neighbours[p]:
                if n < 0:
                    continue
                if (reaches and core[n]) or (core[p] and image[n] >= boundary):
                    kept[i, p] = True
                    break
    return kept

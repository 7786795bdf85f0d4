"""Islands: groups of neighbouring pixels that a cleaning kept."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.kernels.decorators import kernel
from apbatch.camera.kernels.neighbours import Numbers, neighbour_table
from apbatch.errors import UsageError

Mask = npt.NDArray[np.bool_]


def label_islands(mask: Mask, camera: CameraGeometry) -> npt.NDArray[np.int32]:
    """Number the islands of each image.

    Parameters
    ----------
    mask : ndarray of bool, shape (n_images, n_pixels)
        Pixels that are kept.
    camera : CameraGeometry

    Returns
    -------
    ndarray of int32, shape (n_images, n_pixels)
        0 where no pixel is kept; islands from 1 on, in the order of their lowest pixel numbers.

    Raises
    ------
    UsageError
        If the mask is not of this camera.
    """
    if mask.ndim != 2 or mask.shape[1] != camera.n_pixels:
        raise UsageError(f"{camera.name} has {camera.n_pixels} pixels, the mask is of shape {mask.shape}")
    return _label_batch(np.ascontiguousarray(mask, np.bool_), neighbour_table(camera))


@kernel
def _label_batch(mask: Mask, neighbours: Numbers) -> npt.NDArray[np.int32]:
    labels = np.zeros(mask.shape, np.int32)
    todo = np.empty(mask.shape[1] + 1, np.uint32)
    for i in range(len(mask)):
        _label(mask[i], neighbours, labels[i], todo)
    return labels


@kernel
def _label(mask: Mask, neighbours: Numbers, labels: npt.NDArray[np.int32], todo: Numbers) -> int:
    """Label one image, 0 before; return the number of islands."""
    n_pixels = len(mask)
    islands = 0
    for p in range(n_pixels):
        if not mask[p] or labels[p] != 0:
            continue
        islands += 1
        labels[p] = islands
        todo[0] = p
        waiting = 1
        while waiting > 0:
            waiting -= 1
            pixel = todo[waiting]
            for j in range(neighbours.shape[1]):
                n = neighbours[pixel, j]
                if n < n_pixels and mask[n] and labels[n] == 0:
                    labels[n] = islands
                    todo[waiting] = n
                    waiting += 1
    return islands


@kernel
def keep_largest(mask: Mask, neighbours: Numbers) -> None:
    """Drop in place all pixels but those of the largest island of each image; of equal ones the first stays."""
    n_images, n_pixels = mask.shape
    labels = np.zeros(n_pixels, np.int32)
    sizes = np.zeros(n_pixels + 1, np.int64)
    todo = np.empty(n_pixels + 1, np.uint32)
    for i in range(n_images):
        labels[:] = 0
        islands = _label(mask[i], neighbours, labels, todo)
        if islands < 2:
            continue
        sizes[: islands + 1] = 0
        for p in range(n_pixels):
            sizes[labels[p]] += 1
        largest = 1
        for island in range(2, islands + 1):
            if sizes[island] > sizes[largest]:
                largest = island
        for p in range(n_pixels):
            mask[i, p] = labels[p] == largest

"""Layers of the halo network: the mask of a cleaning, and what trees are given of the halo, inside a network.

A saved network needs nothing but the image then. The numbers are those of `apbatch.camera.halo`, on the axial grid.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from apbatch.camera.halo import CLEANINGS, LEVELS, REFERENCE, RINGS
from apbatch.dl.networks.layers import ImageMoments, describe, measure, places

#: Axial steps (row, column) to the six neighbours of a pixel.
_NEIGHBOURS = ((0, 1), (1, 0), (1, -1), (0, -1), (-1, 0), (-1, 1))
#: Half a pitch, which makes the ellipse of the rings larger (`apbatch.camera.halo`).
_MARGIN = 0.5
_PARTS = 2 * len(RINGS)


@keras.saving.register_keras_serializable(package="apbatch")
class TailCuts(layers.Layer):  # type: ignore[misc]
    """The mask of a cleaning by two levels, of axial grids: `apbatch.camera.cleaning.clean` inside a network.

    Parameters
    ----------
    picture, boundary : float
        Levels, p.e.
    """

    def __init__(self, picture: float, boundary: float, **options: Any) -> None:
        super().__init__(**{**options, "dtype": "float32", "trainable": False})
        self.picture, self.boundary = float(picture), float(boundary)

    def get_config(self) -> dict[str, Any]:
        """Return what makes the layer again."""
        return {**super().get_config(), "picture": self.picture, "boundary": self.boundary}

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the shape of the grids."""
        return tuple(input_shape)

    def call(self, inputs: Any) -> Any:
        """Return 1 for pixels that are kept, else 0, shape (n, rows, cols), of grids in p.e. of that shape."""
        return tail_cuts(ops.cast(inputs, "float32"), self.picture, self.boundary)


def tail_cuts(pixels: Any, picture: float, boundary: float) -> Any:
    """Return which cells of axial grids, shape (n, rows, cols), a cleaning keeps, 1 or 0.

    Parameters
    ----------
    pixels : tensor, shape (n, rows, cols)
        p.e. on axial grids.
    picture, boundary : float
        Levels, p.e.
    """
    core, reach = (ops.cast(pixels >= level, "float32") for level in (picture, boundary))
    return ops.maximum(core * _beside(reach), reach * _beside(core))


def _beside(flags: Any) -> Any:
    """Return 1 for cells that have a neighbour of 1."""
    rows, cols = flags.shape[1:]
    around = ops.pad(flags, [[0, 0], [1, 1], [1, 1]])
    shifted = [around[:, 1 + r : 1 + r + rows, 1 + q : 1 + q + cols] for r, q in _NEIGHBOURS]
    most = shifted[0]
    for other in shifted[1:]:
        most = ops.maximum(most, other)
    return most


@keras.saving.register_keras_serializable(package="apbatch")
class HaloMoments(layers.Layer):  # type: ignore[misc]
    """Halo parameters of axial grids, computed inside a network, each brought to the order of 1.

    For each of `apbatch.camera.halo.CLEANINGS` the parameters of `ImageMoments`; then of each part of each ring around
    the ellipse the light, its brightest pixel, and the pixels at or above each of `apbatch.camera.halo.LEVELS`. Rings
    are those of `apbatch.camera.halo`. An image without light in the ellipse has zeros.
    """

    #: Numbers of each part of a ring.
    RING_FEATURES = 2 + len(LEVELS)

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "dtype": "float32", "trainable": False})

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return (n, numbers)."""
        return (input_shape[0], len(CLEANINGS) * ImageMoments.FEATURES + _PARTS * self.RING_FEATURES)

    def call(self, inputs: Any) -> Any:
        """Return parameters, shape (n, numbers), of grids in p.e., shape (n, rows, cols)."""
        rows, cols = inputs.shape[1:]
        x, y = places(rows, cols)
        grids = ops.cast(inputs, "float32")
        pixels = ops.reshape(grids, (-1, rows * cols))
        numbers = []
        for number, rule in enumerate(CLEANINGS):
            mask = ops.reshape(tail_cuts(grids, rule.picture, rule.boundary), (-1, rows * cols))
            shape = measure(pixels * mask, mask, x, y)
            numbers.append(describe(shape, rows / 2))
            if number == REFERENCE:
                rings = _rings(pixels, shape, x, y)
        return ops.concatenate([*numbers, rings], axis=1)


def _rings(pixels: Any, shape: Any, x: Any, y: Any) -> Any:
    """Return the numbers of all rings, shape (n, parts * features)."""
    dx, dy = x - shape.cog_x, y - shape.cog_y
    along = ((dx * shape.cosine + dy * shape.sine) / (shape.length + _MARGIN)) ** 2
    across = ((dy * shape.cosine - dx * shape.sine) / (shape.width + _MARGIN)) ** 2
    rho = along + across
    values = ops.stack([pixels, *(ops.cast(pixels >= level, "float32") for level in LEVELS)], axis=2)
    bright = pixels * ops.cast(pixels >= LEVELS[0], "float32")
    there = ops.cast(shape.number > 0, "float32")
    numbers = []
    for begin, end in zip(RINGS, (*RINGS[1:], np.inf), strict=True):
        inside = rho > begin**2
        ring = inside if end == np.inf else ops.logical_and(inside, rho <= end**2)
        for part in (along > across, along <= across):
            here = ops.cast(ops.logical_and(ring, part), "float32")
            sums = ops.sum(values * here[:, :, None], axis=1)
            light, counts = sums[:, :1], sums[:, 1:]
            numbers += [
                ops.sign(light) * ops.log(ops.abs(light) / 5 + 1) / 2,
                ops.log(ops.max(bright * here, axis=1, keepdims=True) + 1) / 2,
                ops.log(counts + 1) / 2,
            ]
    return ops.clip(ops.concatenate(numbers, axis=1), -5, 5) * there

"""Layers that Keras lacks. They are registered with Keras, so that a saved network can be loaded after this import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops


@keras.saving.register_keras_serializable(package="apbatch")
class HexConv2D(layers.Conv2D):  # type: ignore[misc]
    """A convolution over a pixel and its six neighbours, on the axial grid.

    With rows along r and columns along q the neighbours of a pixel lie at (±1, 0), (0, ±1), (+1, -1), (-1, +1): a
    3 x 3 window without the corners (-1, -1) and (+1, +1), which are two pitches away. Those two weights are held at 0.
    A stride of 2 keeps every second pixel along both axes, which is again a hexagonal lattice.

    References
    ----------
    E. Hoogeboom et al., HexaConv, arXiv:1803.02108; axial coordinates as in `apbatch.camera.grid`.
    """

    def __init__(self, filters: int, **options: Any) -> None:
        options.pop("kernel_size", None)
        super().__init__(filters, 3, **options)

    def call(self, inputs: Any) -> Any:
        """Convolve with the masked kernel."""
        mask = np.ones((3, 3, 1, 1), np.float32)
        mask[0, 0] = mask[2, 2] = 0
        kernel = self.kernel * ops.cast(mask, self.kernel.dtype)
        outputs = ops.conv(inputs, kernel, strides=list(self.strides), padding=self.padding)
        if self.use_bias:
            outputs = outputs + self.bias
        return self.activation(outputs) if self.activation is not None else outputs


@keras.saving.register_keras_serializable(package="apbatch")
class ImageMoments(layers.Layer):  # type: ignore[misc]
    """Image parameters of axial grids, computed inside a network: what trees are given, without a second input.

    Of the pixels above each of some levels: their number and sum, the first four moments (distance of the centre of
    gravity, width, length, skewness and kurtosis along the long axis), how dense and how concentrated the light is.
    Each is brought to the order of 1. An image without a pixel above a level has zeros there.

    Parameters
    ----------
    levels : sequence of float
        p.e.; every pixel above it counts with all its light.

    References
    ----------
    A. M. Hillas, 19th ICRC (1985) 3, 445; axial coordinates as in `apbatch.camera.grid`.
    """

    #: Numbers for each level.
    FEATURES = 12

    def __init__(self, levels: Sequence[float] = (0.0, 7.0, 14.0), **options: Any) -> None:
        super().__init__(**{**options, "dtype": "float32", "trainable": False})
        self.levels = tuple(float(level) for level in levels)

    def get_config(self) -> dict[str, Any]:
        """Return what makes the layer again."""
        return {**super().get_config(), "levels": list(self.levels)}

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return (n, levels x features)."""
        return (input_shape[0], len(self.levels) * self.FEATURES)

    def call(self, inputs: Any) -> Any:
        """Return parameters, shape (n, levels x features), of grids in p.e., shape (n, rows, cols)."""
        rows, cols = inputs.shape[1:]
        x, y = places(rows, cols)
        pixels = ops.reshape(ops.cast(inputs, "float32"), (-1, rows * cols))
        numbers = []
        for level in self.levels:
            lit = ops.cast(pixels > level, "float32")
            numbers.append(describe(measure(pixels * lit, lit, x, y), rows / 2))
        return ops.concatenate(numbers, axis=1)


def places(rows: int, cols: int) -> tuple[Any, Any]:
    """Return where the cells of an axial grid lie, in pitches from its middle, each of shape (rows * cols,)."""
    r, q = np.mgrid[:rows, :cols].reshape(2, -1).astype(np.float32) - [[(rows - 1) / 2], [(cols - 1) / 2]]
    return np.asarray(q + r / 2, np.float32), np.asarray(r * np.sqrt(0.75), np.float32)


class Shape(NamedTuple):
    """Moments of the light of images, in pitches; tensors of shape (n, 1), `share`, `dx` and `dy` (n, cells).

    Attributes
    ----------
    number : tensor
        Pixels with light.
    cosine, sine : tensor
        Direction of the long axis.
    share : tensor
        Of the light, in each cell.
    dx, dy : tensor
        From the centre of gravity to each cell.
    """

    size: Any
    number: Any
    cog_x: Any
    cog_y: Any
    length: Any
    width: Any
    cosine: Any
    sine: Any
    share: Any
    dx: Any
    dy: Any


def measure(light: Any, lit: Any, x: Any, y: Any) -> Shape:
    """Return the moments of images.

    Parameters
    ----------
    light : tensor of shape (n, cells)
        p.e., 0 where a cell is not lit.
    lit : tensor of shape (n, cells)
        1 or 0.
    x, y : ndarray of shape (cells,)
        See `places`.
    """
    size, number = ops.sum(light, axis=1, keepdims=True), ops.sum(lit, axis=1, keepdims=True)
    share = light / ops.maximum(size, _LEAST)

    def mean(values: Any) -> Any:
        return ops.sum(share * values, axis=1, keepdims=True)

    cog_x, cog_y = mean(x), mean(y)
    dx, dy = x - cog_x, y - cog_y
    xx, yy, xy = mean(dx * dx), mean(dy * dy), mean(dx * dy)
    root = ops.sqrt((xx - yy) ** 2 + 4 * xy**2 + _LEAST)
    length = ops.sqrt((xx + yy + root) / 2 + _LEAST)
    width = ops.sqrt(ops.relu((xx + yy - root) / 2) + _LEAST)
    # Half angles, without an arc tangent: it has no counterpart in every format that networks are written to.
    cosine = ops.sqrt(ops.relu(1 + (xx - yy) / root) / 2)
    sine = ops.where(xy < 0, -1.0, 1.0) * ops.sqrt(ops.relu(1 - (xx - yy) / root) / 2)
    return Shape(size, number, cog_x, cog_y, length, width, cosine, sine, share, dx, dy)


def describe(shape: Shape, radius: float) -> Any:
    """Return the parameters of images, shape (n, `ImageMoments.FEATURES`); the camera's `radius` is in pitches."""
    size, number, width, length, share = shape.size, shape.number, shape.width, shape.length, shape.share

    def mean(values: Any) -> Any:
        return ops.sum(share * values, axis=1, keepdims=True)

    along = (shape.dx * shape.cosine + shape.dy * shape.sine) / ops.maximum(length, 0.3)
    # The long axis has no head: the camera's centre gives it one.
    outwards = ops.tanh(shape.cog_x * shape.cosine + shape.cog_y * shape.sine)
    skewness, kurtosis = mean(along**3), mean(along**4)
    brightest = ops.top_k(share, 2)[0]
    features = [
        ops.log(size + 1) / 2 - 2.5,
        ops.log(number + 1) - 2,
        ops.sqrt(shape.cog_x**2 + shape.cog_y**2 + _LEAST) / radius,
        width,
        length / 2,
        width / (length + 0.1) - 0.5,
        ops.log(size / (width * length + 0.1) + 1) / 2 - 2,
        brightest[:, :1],
        ops.sum(brightest, axis=1, keepdims=True),
        ops.abs(skewness),
        skewness * outwards,
        kurtosis / 3 - 1,
    ]
    return ops.clip(ops.concatenate(features, axis=1), -5, 5) * ops.cast(number > 0, "float32")


#: Under roots and fractions: an image may be one pixel, or none.
_LEAST = 1e-6

"""Layers that Keras lacks. They are registered with Keras, so that a saved network can be loaded after this import."""

from __future__ import annotations

from typing import Any

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

"""Networks by name. The scale of the input is part of the network, so a saved one needs nothing beside it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from apbatch.errors import UsageError, nearest_word

#: (shape of the grid, mean and spread of log(1 + p.e.), number of outputs, options by name) to a Keras model.
Builder = Callable[..., Any]
_MODELS: dict[str, Builder] = {}
#: Networks that know where a pixel's neighbours lie on the axial grid.
_AXIAL = ("hillas-cnn", "hex-cnn")


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Make a builder known by name; its keyword arguments after `outputs` are the options of a specification."""

    def keep(builder: Builder) -> Builder:
        _MODELS[name] = builder
        return builder

    return keep


def check_model(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Raise a UsageError with the nearest known name if there is no such model, or no such option of it."""
    if name not in _MODELS:
        raise UsageError(
            f"unknown model '{name}'", nearest=nearest_word(name, _MODELS), remedy=f"models are {', '.join(_MODELS)}"
        )
    known = list(inspect.signature(_MODELS[name]).parameters)[4:]
    for option, value in (options or {}).items():
        if option not in known:
            raise UsageError(
                f"model '{name}' has no option '{option}'",
                nearest=nearest_word(option, known),
                remedy=f"options are {', '.join(known)}",
            )
        if not isinstance(value, int | float) or value < 0:
            raise UsageError(f"option '{option}' of model '{name}' is no number from 0 on: {value!r}")


def check_grid(name: str, grid: str) -> None:
    """Raise a UsageError if a model can't work on images of this grid."""
    if name in _AXIAL and grid != "axial":
        raise UsageError(
            f"model '{name}' knows the axial grid only, not '{grid}'", remedy="talk-cnn or resnet take any grid"
        )


def build(
    name: str,
    shape: tuple[int, int],
    mean: float,
    spread: float,
    outputs: int = 1,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Build a Keras model from grids in p.e., shape (n, rows, cols), to numbers, shape (n, outputs).

    Parameters
    ----------
    name : str
        A registered model.
    shape : (int, int)
        Rows and columns of a grid.
    mean, spread : float
        Of log(1 + p.e.) over the training images.
    outputs : int
        1 for the logit of a gamma; more for parameters of the shower.
    options : mapping, optional
        Of this model, such as ``filters``.
    """
    check_model(name, options)
    return _MODELS[name](shape, mean, spread, outputs, **(options or {}))


def _scaled(grid: Any, shape: tuple[int, int], mean: float, spread: float) -> Any:
    """Negative pixels are noise around the pedestal; the logarithm tames the few bright ones."""
    from keras import layers, ops

    return layers.Reshape((*shape, 1))((ops.log(ops.relu(grid) + 1) - mean) / spread)


@register_model("talk-cnn")
def talk_cnn(
    shape: tuple[int, int],
    mean: float,
    spread: float,
    outputs: int = 1,
    filters: int = 16,
    convolutions: int = 3,
    hidden: int = 48,
) -> Any:
    """The talk's: two or three convolutions of 3 x 3 on the square grid, each halving it, and one hidden layer.

    Axial neighbours of a hexagon all lie in a 3 x 3 window, so a convolution sees whole hexagons. Nothing in it
    depends on the rest of the batch, so that the batch may be split over ranks without changing the result.
    """
    import keras
    from keras import layers

    grid = keras.Input(shape)
    x = _convolved(_scaled(grid, shape, mean, spread), filters, convolutions)
    x = layers.Dense(hidden, activation="relu")(x)
    return keras.Model(grid, _head(x, outputs), name="talk_cnn")


def _convolved(x: Any, filters: int, convolutions: int) -> Any:
    from keras import layers

    for number in range(convolutions):
        x = layers.Conv2D(filters * (number + 1), 3, activation="relu", padding="same")(x)
        x = layers.MaxPooling2D(2, padding="same")(x)
    return layers.Flatten()(x)


@register_model("hillas-cnn")
def hillas_cnn(
    shape: tuple[int, int],
    mean: float,
    spread: float,
    outputs: int = 1,
    filters: int = 16,
    convolutions: int = 3,
    hidden: int = 96,
    dropout: float = 0.3,
) -> Any:
    """The talk's convolutions beside the image's parameters, which the network computes itself; for the axial grid.

    On cleaned images a dozen numbers hold most of what there is to know; a small network finds them late or never.
    """
    import keras
    from keras import layers

    from apbatch.dl.layers import ImageMoments

    grid = keras.Input(shape)
    seen = _convolved(_scaled(grid, shape, mean, spread), filters, convolutions)
    seen = layers.Dense(hidden, activation="relu")(layers.Dropout(dropout)(seen))
    known = layers.Dense(hidden, activation="relu")(ImageMoments()(grid))
    known = layers.Dense(hidden, activation="relu")(known)
    x = layers.Dense(hidden, activation="relu")(layers.Concatenate()([seen, known]))
    return keras.Model(grid, _head(x, outputs), name="hillas_cnn")


@register_model("resnet")
def resnet(
    shape: tuple[int, int],
    mean: float,
    spread: float,
    outputs: int = 1,
    filters: int = 16,
    blocks: int = 1,
    hidden: int = 64,
    dropout: float = 0.2,
) -> Any:
    """A residual network on the square grid: three stages of blocks with a path around them, each halving the grid."""
    return _residual("resnet", False, shape, mean, spread, outputs, filters, blocks, hidden, dropout)


@register_model("hex-cnn")
def hex_cnn(
    shape: tuple[int, int],
    mean: float,
    spread: float,
    outputs: int = 1,
    filters: int = 16,
    blocks: int = 1,
    hidden: int = 64,
    dropout: float = 0.2,
) -> Any:
    """The residual network with convolutions over hexagons; for the axial grid only."""
    return _residual("hex_cnn", True, shape, mean, spread, outputs, filters, blocks, hidden, dropout)


def _residual(
    name: str,
    hexagonal: bool,
    shape: tuple[int, int],
    mean: float,
    spread: float,
    outputs: int,
    filters: int,
    blocks: int,
    hidden: int,
    dropout: float,
) -> Any:
    """No normalisation over the batch, which would tie images to their batch: the second half of a block starts at 0
    instead, so that a new network is shallow and deepens as it learns (SkipInit, arXiv:2002.10444)."""
    import keras
    from keras import layers

    from apbatch.dl.layers import HexConv2D

    def convolution(width: int, **more: Any) -> Any:
        known = {"padding": "same", "kernel_initializer": "he_normal", **more}
        return HexConv2D(width, **known) if hexagonal else layers.Conv2D(width, 3, **known)

    grid = keras.Input(shape)
    x = convolution(filters, activation="relu")(_scaled(grid, shape, mean, spread))
    for stage in range(3):
        width = filters * 2**stage
        # The brightest of four goes on: with strides a single bright pixel is lost in the noise of a new network.
        x = convolution(width, activation="relu")(layers.MaxPooling2D(2, padding="same")(x))
        for _ in range(blocks):
            inner = convolution(width, activation="relu")(x)
            inner = convolution(width, kernel_initializer="zeros")(inner)
            x = layers.ReLU()(layers.Add()([x, inner]))
    # The map is kept, not averaged: how far from the camera's centre the light lies tells the distance of the shower.
    x = layers.Dropout(dropout)(layers.Flatten()(x))
    x = layers.Dense(hidden, activation="relu")(x)
    return keras.Model(grid, _head(x, outputs), name=name)


def _head(x: Any, outputs: int) -> Any:
    """Numbers come out in full precision, also where the rest of the network computes in half of it."""
    from keras import layers

    return layers.Dense(outputs, dtype="float32")(x)

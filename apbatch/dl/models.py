"""Networks by name. The scale of the input is part of the network, so a saved one needs nothing beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apbatch.errors import UsageError, nearest_word

Builder = Callable[[tuple[int, int], float, float], Any]
_MODELS: dict[str, Builder] = {}


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Make a builder known by name: (shape of the grid, mean and spread of log(1 + p.e.)) to a Keras model."""

    def keep(builder: Builder) -> Builder:
        _MODELS[name] = builder
        return builder

    return keep


def check_model(name: str) -> None:
    """Raise a UsageError with the nearest known name if there is no such model."""
    if name not in _MODELS:
        raise UsageError(
            f"unknown model '{name}'", nearest=nearest_word(name, _MODELS), remedy=f"models are {', '.join(_MODELS)}"
        )


def build(name: str, shape: tuple[int, int], mean: float, spread: float) -> Any:
    """Build a Keras model from grids in p.e., shape (n, rows, cols), to one logit each, shape (n, 1).

    Parameters
    ----------
    name : str
        A registered model.
    shape : (int, int)
        Rows and columns of a grid.
    mean, spread : float
        Of log(1 + p.e.) over the training images.
    """
    check_model(name)
    return _MODELS[name](shape, mean, spread)


@register_model("talk-cnn")
def talk_cnn(shape: tuple[int, int], mean: float, spread: float) -> Any:
    """Three convolutions of 3 x 3 on the square grid, each halving it, and one hidden layer.

    Axial neighbours of a hexagon all lie in a 3 x 3 window, so a convolution sees whole hexagons. Nothing in it
    depends on the rest of the batch, so that the batch may be split over ranks without changing the result.
    """
    import keras
    from keras import layers, ops

    grid = keras.Input(shape)
    # Negative pixels are noise around the pedestal; the logarithm tames the few bright ones.
    x = (ops.log1p(ops.relu(grid)) - mean) / spread
    x = layers.Reshape((*shape, 1))(x)
    for filters in (16, 32, 48):
        x = layers.Conv2D(filters, 3, activation="relu", padding="same")(x)
        x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Dense(48, activation="relu")(layers.Flatten()(x))
    return keras.Model(grid, layers.Dense(1)(x), name="talk_cnn")

"""Networks by name. The scale of the input is part of the network, so a saved one needs nothing beside it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning_rule import NONE
from apbatch.errors import UsageError, nearest_word

#: (grids in p.e., the same scaled and with a channel, options by name) to features, shape (n, n_features).
Builder = Callable[..., Any]
_MODELS: dict[str, Builder] = {}
#: Networks that know where a pixel's neighbours lie on the axial grid.
_AXIAL: set[str] = set()
#: Networks that clean images themselves.
_UNCLEANED: set[str] = set()
#: The layer whose numbers are asked for.
_NUMBERS = "numbers"


def register_model(name: str, *, axial: bool = False, uncleaned: bool = False) -> Callable[[Builder], Builder]:
    """Make a builder known by name; its arguments after the images are the options of a specification.

    Parameters
    ----------
    name : str
    axial : bool
        Whether it works on the axial grid only.
    uncleaned : bool
        Whether it cleans images itself, so that cleaned ones hold nothing for it.
    """

    def keep(builder: Builder) -> Builder:
        _MODELS[name] = builder
        if axial:
            _AXIAL.add(name)
        if uncleaned:
            _UNCLEANED.add(name)
        return builder

    return keep


def check_model(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Raise a UsageError with the nearest known name if there is no such model, or no such option of it."""
    if name not in _MODELS:
        raise UsageError(
            f"unknown model '{name}'", nearest=nearest_word(name, _MODELS), remedy=f"models are {', '.join(_MODELS)}"
        )
    names = list(inspect.signature(_MODELS[name]).parameters)[2:]
    for option, value in (options or {}).items():
        if option not in names:
            raise UsageError(
                f"model '{name}' has no option '{option}'",
                nearest=nearest_word(option, names),
                remedy=f"options are {', '.join(names)}",
            )
        if not isinstance(value, int | float) or value < 0:
            raise UsageError(f"option '{option}' of model '{name}' is not a number from 0 on: {value!r}")


def takes(name: str, cleaning: str) -> bool:
    """Return whether a model is meant for images of a cleaning."""
    return name not in _UNCLEANED or cleaning == NONE


def check_grid(name: str, grid: str) -> None:
    """Raise a UsageError if a model can't work on images of this grid."""
    if name in _AXIAL and grid != "axial":
        raise UsageError(
            f"model '{name}' knows the axial grid only, not '{grid}'", remedy="talk-cnn or resnet take any grid"
        )


def build(
    name: str,
    shape: tuple[int, ...],
    mean: float,
    spread: float,
    outputs: int = 1,
    options: Mapping[str, Any] | None = None,
    auxiliary: int = 0,
    telescopes: int = 1,
) -> Any:
    """Build a Keras model from grids in p.e., shape (n, rows, cols), to numbers, shape (n, outputs).

    With planes beside the image the grids have shape (n, rows, cols, planes). Each telescope's planes go through the
    same network, with the same weights; what it makes of all of them is put together by one more layer.

    Parameters
    ----------
    name : str
        A registered model.
    shape : tuple of int
        Rows and columns of a grid, and planes if there are any beside the image.
    mean, spread : float
        Of log(1 + p.e.) over the training images.
    outputs : int
        1 for the logit of a gamma; more for parameters of the shower.
    options : mapping, optional
        Of this model, such as ``filters``.
    auxiliary : int
        Further numbers behind them, which only training knows: `without_auxiliary` takes them away.
    telescopes : int
        That the planes belong to, in equal parts, image first (`apbatch.dl.networks.planes`).
    """
    import keras

    check_model(name, options)
    grid = keras.Input(shape)
    if len(shape) == 2:
        features = _MODELS[name](grid, _scaled(grid, shape, mean, spread), **(options or {}))
    else:
        features = _of_telescopes(grid, partial(_MODELS[name], **(options or {})), mean, spread, telescopes)
    # Numbers come out in full precision, also where the rest of the network computes in half of it.
    numbers = keras.layers.Dense(outputs, dtype="float32", name=_NUMBERS)(features)
    if auxiliary:
        more = keras.layers.Dense(auxiliary, dtype="float32", name="auxiliary")(features)
        numbers = keras.layers.Concatenate(dtype="float32")([numbers, more])
    return keras.Model(grid, numbers, name=name.replace("-", "_"))


def _of_telescopes(planes: Any, builder: Builder, mean: float, spread: float, telescopes: int) -> Any:
    """Return features of grids with planes, shape (n, rows, cols, planes): one network for every telescope."""
    import keras
    from keras import layers

    rows, cols, n_planes = planes.shape[1:]
    each = n_planes // telescopes
    view = keras.Input((rows, cols, each))
    scaled = _scaled(view[..., 0], (rows, cols), mean, spread)
    channels = scaled if each == 1 else layers.Concatenate()([scaled, view[..., 1:]])
    network = keras.Model(view, builder(view[..., 0], channels), name="telescope")
    if telescopes == 1:
        return network(planes)
    together = [network(planes[..., number * each : (number + 1) * each]) for number in range(telescopes)]
    return layers.Dense(together[0].shape[-1], activation="relu")(layers.Concatenate()(together))


def without_auxiliary(model: Any) -> Any:
    """Return a network that `build` made, without its auxiliary numbers; its weights are shared."""
    import keras

    return keras.Model(model.input, model.get_layer(_NUMBERS).output, name=model.name)


def symmetrised(model: Any, tables: npt.NDArray[np.int64]) -> Any:
    """Build the network that is the mean of another over the symmetries of the camera: turned images score alike.

    Most score better so than by one look, for the time of as many looks (docs/gamma_hadron.md).

    Parameters
    ----------
    model : keras.Model
        As `build` makes it; its weights are shared.
    tables : ndarray of int64, shape (n_symmetries, rows * cols)
        See `apbatch.dl.training.data.symmetries`.
    """
    import keras
    from keras import ops

    rows, cols, *planes = model.input_shape[1:]
    grid = keras.Input((rows, cols, *planes))
    # One more cell, of nothing, for those whose content would come from beyond the camera.
    none = [[0, 0]] * len(planes)
    flat = ops.pad(ops.reshape(grid, (-1, rows * cols, *planes)), [[0, 0], [0, 1], *none])
    forms = ops.reshape(ops.take(flat, tables.ravel(), axis=1), (-1, rows, cols, *planes))
    numbers = ops.reshape(model(forms), (-1, len(tables), model.output_shape[1]))
    return keras.Model(grid, ops.mean(numbers, axis=1), name=f"symmetric_{model.name}")


def _scaled(grid: Any, shape: tuple[int, int], mean: float, spread: float) -> Any:
    """Negative pixels are noise around the pedestal; the logarithm tames the few bright ones."""
    from keras import layers, ops

    return layers.Reshape((*shape, 1))((ops.log(ops.relu(grid) + 1) - mean) / spread)


@register_model("talk-cnn")
def talk_cnn(grid: Any, x: Any, filters: int = 16, convolutions: int = 3, hidden: int = 48) -> Any:
    """Build the talk's network: convolutions of 3 x 3 on the square grid, each halving it, and one hidden layer.

    Axial neighbours of a hexagon all lie in a 3 x 3 window, so a convolution sees whole hexagons. Nothing in it
    depends on the rest of the batch, so that the batch may be split over ranks without changing the result.

    Parameters
    ----------
    grid, x : Keras tensors
        The grid in p.e., and the same scaled, with channels.
    filters : int
        Of the first convolution, doubled by each further one.
    convolutions : int
        Two or three in the talk.
    hidden : int
        Units of the hidden layer.
    """
    from keras import layers

    return layers.Dense(hidden, activation="relu")(_convolved(x, filters, convolutions))


def _convolved(x: Any, filters: int, convolutions: int) -> Any:
    from keras import layers

    for number in range(convolutions):
        x = layers.Conv2D(filters * (number + 1), 3, activation="relu", padding="same")(x)
        x = layers.MaxPooling2D(2, padding="same")(x)
    return layers.Flatten()(x)


@register_model("hillas-cnn", axial=True)
def hillas_cnn(
    grid: Any, x: Any, filters: int = 16, convolutions: int = 3, hidden: int = 96, dropout: float = 0.3
) -> Any:
    """Build the talk's convolutions beside the image's parameters, which the network computes itself.

    On cleaned images a dozen numbers hold most of what there is to know; a small network finds them late or never.

    Parameters
    ----------
    grid, x : Keras tensors
        The grid in p.e., and the same scaled, with channels.
    filters : int
        Of the first convolution.
    convolutions : int
    hidden : int
        Units of the hidden layers.
    dropout : float
        Share of features left out in training.
    """
    from keras import layers

    from apbatch.dl.networks.layers import ImageMoments

    features = layers.Dropout(dropout)(_convolved(x, filters, convolutions))
    features = layers.Dense(hidden, activation="relu")(features)
    shape = layers.Dense(hidden, activation="relu")(ImageMoments()(grid))
    shape = layers.Dense(hidden, activation="relu")(shape)
    return layers.Dense(hidden, activation="relu")(layers.Concatenate()([features, shape]))


@register_model("resnet")
def resnet(grid: Any, x: Any, filters: int = 16, blocks: int = 1, hidden: int = 64, dropout: float = 0.2) -> Any:
    """Build a residual network on the square grid: three stages of blocks with a path around them, each halving it.

    Parameters
    ----------
    grid, x : Keras tensors
        The grid in p.e., and the same scaled, with channels.
    filters : int
        Of the first stage.
    blocks : int
        Blocks of a stage.
    hidden : int
        Units of the hidden layer.
    dropout : float
        Share of features left out in training.
    """
    from keras import layers

    return _residual(partial(layers.Conv2D, kernel_size=3), x, filters, blocks, hidden, dropout)


@register_model("hex-cnn", axial=True)
def hex_cnn(grid: Any, x: Any, filters: int = 16, blocks: int = 1, hidden: int = 64, dropout: float = 0.2) -> Any:
    """Build the residual network with convolutions over hexagons.

    Parameters
    ----------
    grid, x : Keras tensors
        The grid in p.e., and the same scaled, with channels.
    filters : int
        Of the first stage.
    blocks : int
        Blocks of a stage.
    hidden : int
        Units of the hidden layer.
    dropout : float
        Share of features left out in training.
    """
    return hexagonal_features(x, filters, blocks, hidden, dropout)


def hexagonal_features(x: Any, filters: int, blocks: int, hidden: int, dropout: float) -> Any:
    """Return what a residual network over hexagons makes of scaled images with channels, shape (n, hidden).

    Parameters
    ----------
    x : Keras tensor
        Scaled images with channels.
    filters : int
        Of the first stage.
    blocks : int
        Blocks of a stage.
    hidden : int
        Units of the hidden layer.
    dropout : float
        Share of features left out in training.
    """
    from apbatch.dl.networks.layers import HexConv2D

    return _residual(HexConv2D, x, filters, blocks, hidden, dropout)


#: Levels whose pixels the halo network measures without asking for neighbours, p.e.
HALO_LEVELS = (2.5, 3.5, 5.0, 7.0, 14.0)


@register_model("halo-net", axial=True, uncleaned=True)
def halo_net(
    grid: Any, x: Any, filters: int = 12, blocks: int = 1, hidden: int = 64, moments: int = 128, dropout: float = 0.3
) -> Any:
    """Build convolutions over the uncleaned image and the mask of soft cleaning, beside the halo parameters of trees.

    Light outside the main image tells hadrons (Olivera-Nieto et al., arXiv:2211.13167); it wants uncleaned images.

    Parameters
    ----------
    grid, x : Keras tensors
        The grid in p.e., and the same scaled, with channels.
    filters : int
        Of the first stage.
    blocks : int
        Blocks of a stage.
    hidden : int
        Units of the hidden layer.
    moments : int
        Units of the layers on halo parameters.
    dropout : float
        Share of features left out in training.
    """
    from keras import layers

    from apbatch.camera.cleaning_rule import PRESETS
    from apbatch.dl.networks.halo_layers import HaloMoments, TailCuts
    from apbatch.dl.networks.layers import ImageMoments

    soft = PRESETS["soft"]
    cleaned = layers.Reshape((*grid.shape[1:], 1))(TailCuts(soft.picture, soft.boundary)(grid))
    features = hexagonal_features(layers.Concatenate()([x, cleaned]), filters, blocks, hidden, dropout)
    shape = layers.Concatenate()([ImageMoments(HALO_LEVELS)(grid), HaloMoments()(grid)])
    shape = layers.Dropout(dropout)(layers.Dense(moments, activation="relu")(shape))
    shape = layers.Dense(moments, activation="relu")(shape)
    return layers.Dense(hidden, activation="relu")(layers.Concatenate()([features, shape]))


def _residual(convolve: Callable[..., Any], x: Any, filters: int, blocks: int, hidden: int, dropout: float) -> Any:
    """Return the features of a residual network without normalisation over the batch, which would tie images to it.

    Instead the second half of a block starts at 0, so that a new network is shallow and deepens as it learns (SkipInit,
    arXiv:2002.10444).
    """
    from keras import layers

    def convolution(width: int, **more: Any) -> Any:
        return convolve(width, **{"padding": "same", "kernel_initializer": "he_normal", **more})

    x = convolution(filters, activation="relu")(x)
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
    return layers.Dense(hidden, activation="relu")(x)

"""A trained network that scores images of a camera: the same function in the study, in Spark and at a prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.files import read_json
from apbatch.dl.networks.treatment import Treatment, check_images_alone, grids, treatment_named
from apbatch.errors import FormatError, MissingSoftwareError, NotFoundError, UsageError

Pixels = npt.NDArray[np.float32]
_BATCH = 256


class Network:
    """A Keras model with the treatment of images that it was trained on.

    Parameters
    ----------
    model : pathlib.Path
        ``model.keras``.
    treatment : str
        Name of the treatment (`apbatch.dl.networks.treatment`).
    camera : CameraGeometry or str
        Of the images it was trained on.

    Raises
    ------
    NotFoundError, FormatError
        If there is no model, or it is damaged or for grids of another shape.
    MissingSoftwareError
        If Keras is not installed.
    """

    def __init__(self, model: Path, treatment: str, camera: CameraGeometry | str) -> None:
        self.treatment: Treatment = treatment_named(treatment)
        self.camera = camera_named(camera) if isinstance(camera, str) else camera
        check_images_alone(self.treatment, str(model))
        self.place = model
        self._model = load_model(model)
        shape = tuple(self._model.input_shape[1:])
        probe = self.grids(np.zeros((1, self.camera.n_pixels), np.float32))
        if shape != probe.shape[1:]:
            raise FormatError(
                f"the network takes grids of {shape[0]} x {shape[1]}, {self.camera.name} on the grid "
                f"'{self.treatment.grid}' gives {probe.shape[1]} x {probe.shape[2]}",
                where=str(model),
                remedy="name the camera and the treatment that it was trained on",
            )

    @classmethod
    def of_training(cls, training: Path, treatment: str | None = None) -> Network:
        """Open a network of a training; `treatment` may be left out if there is only one.

        Raises
        ------
        UsageError
            If it has several treatments and none is named.
        """
        record = read_json(training / "trained.json")
        treatments = list(record["treatments"])
        if treatment is None and len(treatments) != 1:
            raise UsageError(f"there are networks for {', '.join(treatments)}", where=str(training), remedy="name one")
        name = treatment or treatments[0]
        if name not in treatments:
            raise UsageError(f"there is no network for '{name}', only for {', '.join(treatments)}", where=str(training))
        return cls(training / name / "model.keras", name, record["camera"])

    def grids(self, images: Pixels) -> Pixels:
        """Return what the network sees of images."""
        return grids(np.ascontiguousarray(images, np.float32), self.camera, self.treatment)

    def outputs(self, images: Pixels) -> npt.NDArray[np.float64]:
        """Return the network's numbers, shape (n_images, n_outputs)."""
        return self.outputs_of_grids(self.grids(images))

    def outputs_of_grids(self, prepared: Pixels) -> npt.NDArray[np.float64]:
        """Return the network's numbers for grids, shape (n_images, n_outputs)."""
        return np.asarray(self._model.predict(prepared, batch_size=_BATCH, verbose=0), np.float64)

    def scores(self, images: Pixels) -> npt.NDArray[np.float64]:
        """Return scores in 0…1, shape (n_images,), the higher the more like a gamma."""
        if not len(images):
            return np.empty(0)
        return np.asarray(1 / (1 + np.exp(-np.clip(self.outputs(images)[:, 0], -60, 60))))


@dataclass(frozen=True)
class PackedNetwork:
    """A network that can be sent to a worker: the bytes of its Keras file and how its images are prepared.

    Attributes
    ----------
    model : bytes
        Content of ``model.keras``.
    treatment, camera : str
        As of `Network`.
    """

    model: bytes = field(repr=False)
    treatment: str
    camera: str

    @classmethod
    def of(cls, network: Network) -> PackedNetwork:
        """Pack an open network."""
        return cls(network.place.read_bytes(), network.treatment.name, network.camera.name)

    def scores(self, images: Pixels) -> npt.NDArray[np.float64]:
        """Return scores in 0…1, shape (n_images,), as `Network.scores`; a process loads the network once."""
        return _unpacked(self).scores(images)


@cache
def _unpacked(packed: PackedNetwork) -> Network:
    with TemporaryDirectory() as folder:
        place = Path(folder) / "model.keras"
        place.write_bytes(packed.model)
        return Network(place, packed.treatment, packed.camera)


def load_model(place: Path) -> Any:
    """Load a Keras model, with the layers of this package known.

    Raises
    ------
    NotFoundError, FormatError, MissingSoftwareError
    """
    if not place.is_file():
        raise NotFoundError("there is no such network", where=str(place))
    try:
        import keras

        import apbatch.dl.networks.halo_layers
        import apbatch.dl.networks.layers  # noqa: F401
    except ImportError as error:
        raise MissingSoftwareError("Keras is not installed", remedy="pip install 'apbatch[dl]'") from error
    try:
        return keras.saving.load_model(place, compile=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"not a readable Keras model: {str(error)[:200]}", where=str(place)) from error

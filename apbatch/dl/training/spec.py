"""What is to be trained, as a file that every rank reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from apbatch.dl.files import read_json
from apbatch.dl.networks.models import check_grid, check_model
from apbatch.dl.networks.treatment import treatment_named
from apbatch.dl.training.device import Device
from apbatch.dl.training.hyperparameters import Hyperparameters
from apbatch.errors import UsageError
from apbatch.provenance import digest

#: Numbers of a network of showers: log10 of the energy in TeV, direction in the camera in deg.
SHOWER_OUTPUTS = ("log_energy", "source_x", "source_y")


class TrainSpec(Hyperparameters):
    """A training run.

    Attributes
    ----------
    data : pathlib.Path
        The folder ``set`` of a blind analysis.
    output : pathlib.Path
        Folder of checkpoints, models, curves and predictions.
    task : str
        ``separation`` of gammas from hadrons, or ``showers``: energy and direction of gammas, on gammas alone.
    backend : str
        Of Keras: ``tensorflow``, or ``torch`` in one process.
    device : str
        ``cpu``, ``gpu``, or ``auto``: a graphics processor where the back-end finds one. Results differ in rounding.
    mixed_precision : bool
        Compute in bfloat16 and keep weights in float32: for devices that gain by it; slower on most processors.
    stream : bool
        Read training images from disk while the network works (`training.shards`), for sets larger than memory;
        an epoch then goes through the set once.
    treatments : tuple of str
        Treatments of the images (`apbatch.dl.networks.treatment`), each with a network of its own.
    model : str
        Name of a network, see `apbatch.dl.networks.models`.
    options : dict
        Of that network, such as ``filters``.
    auxiliary : dict
        Loss weights of further outputs of a separation, which are trained and then taken away: ``energy`` (log10 of
        TeV) and ``impact`` (100 m), of gammas and hadrons alike. To estimate them a network must measure the shower.
    """

    data: Path
    output: Path
    task: Literal["separation", "showers"] = "separation"
    backend: Literal["tensorflow", "torch"] = "tensorflow"
    device: Device = "auto"
    mixed_precision: bool = False
    stream: bool = False
    treatments: tuple[str, ...] = Field(default=("none", "standard"), min_length=1)
    model: str = "talk-cnn"
    options: dict[str, int | float] = Field(default_factory=dict)
    auxiliary: dict[Literal["energy", "impact"], float] = Field(default_factory=dict)
    seed: int = Field(default=1, ge=0, lt=2**31)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the network's numbers are called in tables of predictions."""
        return ("score",) if self.task == "separation" else SHOWER_OUTPUTS

    def check(self) -> None:
        """Raise a UsageError for an unknown model, option or treatment, or a grid that the model can't use."""
        check_model(self.model, self.options)
        if self.symmetric and self.task != "separation":
            raise UsageError("a direction turns with its image: only networks of the task 'separation' are symmetric")
        if self.auxiliary and self.task != "separation":
            raise UsageError("auxiliary outputs belong to a separation", remedy="leave out auxiliary")
        for name, weight in self.auxiliary.items():
            if not 0 < weight < float("inf"):
                raise UsageError(
                    f"the loss weight of '{name}' is {weight}", remedy="give a number above 0, such as 0.3"
                )
        if self.symmetric and not self.augment:
            raise UsageError("a symmetric network is trained on turned images", remedy="augment: true")
        for treatment in self.treatments:
            check_grid(self.model, treatment_named(treatment).grid)


def identity_of(spec: TrainSpec, manifest: dict[str, Any]) -> str:
    """Return the hash of all that shapes the result: settings and data, not where they lie or what computes."""
    settings = spec.model_dump(mode="json", exclude={"data", "output", "treatments", "device"})
    return digest({"settings": settings, "files": manifest["files"]})


def read_spec(path: Path) -> TrainSpec:
    """Read a specification.

    Raises
    ------
    NotFoundError, FormatError, UsageError
    """
    try:
        return TrainSpec.model_validate(read_json(path))
    except ValidationError as error:
        raise UsageError(f"not a training specification: {error}", where=str(path)) from error

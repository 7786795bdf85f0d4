"""What a study compares, and by which rule its scores are judged; each default is here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from apbatch.camera.cleaning_rule import NONE
from apbatch.dl.judging.observation import Observation
from apbatch.dl.study.methods import BOX, can_be_a_method, training_name
from apbatch.dl.training.hyperparameters import Hyperparameters
from apbatch.errors import UsageError, nearest_word
from apbatch.units import PhotoElectrons

if TYPE_CHECKING:
    from apbatch.dl.training.spec import TrainSpec


class StudySettings(Hyperparameters):
    """What is compared, beside the hyperparameters of all networks.

    Attributes
    ----------
    cleanings : tuple of str
        See `apbatch.dl.networks.treatment`.
    models : dict
        Networks by name, with their options.
    grids : tuple of str
        Further grids on which `grid_model` is trained, with the first of the cleanings.
    skies : tuple of float
        Further levels of the night sky, p.e. added to each pixel: every method of uncleaned images is trained anew and
        judged at each, so that results are a band (`apbatch.dl.networks.night_sky`).
    planes : tuple of str
        Planes beside the image with which `plane_model` is trained as well, such as ``time``, ``partners`` and
        ``time+partners`` (`apbatch.dl.networks.planes`); the set must hold them. With ``partners`` alone halo trees are
        fitted as well; means take their other members from the images alone.
    plane_model : str
    rivals : tuple of str
        See `apbatch.dl.judging.rivals`.
    means : dict
        Methods that are the mean of others' scores of uncleaned images, such as ``{halo: [halo-net, halo-trees]}``;
        how it weighs them, the validation set decides (`apbatch.dl.judging.score_means`).
    auxiliary : dict
        By network, the loss weights of its auxiliary outputs (`apbatch.dl.training.spec.TrainSpec`).
    seeds : int
        Trainings of each network and each tree; they differ in their random start and the order of the images.
    """

    cleanings: tuple[str, ...] = Field(default=("none", "soft", "standard"), min_length=1)
    models: dict[str, dict[str, int | float]] = Field(
        default={"talk-cnn": {}, "resnet": {}, "hex-cnn": {}}, min_length=1
    )
    grids: tuple[str, ...] = ()
    grid_model: str = "talk-cnn"
    skies: tuple[PhotoElectrons, ...] = ()
    planes: tuple[str, ...] = ()
    plane_model: str = "halo-net"
    rivals: tuple[str, ...] = ("trees", "forest", "halo-trees")
    means: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    auxiliary: dict[str, dict[Literal["energy", "impact"], float]] = Field(default_factory=dict)
    seeds: int = Field(default=3, ge=1, le=20)

    def check(self) -> None:
        """Raise a UsageError for anything unknown, before anything is trained."""
        from apbatch.dl.judging import rivals
        from apbatch.dl.networks.models import check_grid, check_model, takes
        from apbatch.dl.networks.treatment import treatment_named

        for kind in ("cleanings", "grids", "skies", "planes", "rivals"):
            values = getattr(self, kind)
            if twice := next((value for value in values if values.count(value) > 1), None):
                raise UsageError(f"'{twice}' stands twice among the {kind}")
        for name, options in self.models.items():
            check_model(name, options)
            if not any(takes(name, cleaning) for cleaning in self.cleanings):
                raise UsageError(f"'{name}' takes uncleaned images only", remedy="have 'none' among the cleanings")
        check_model(self.grid_model)
        if self.grids and self.grid_model not in self.models:
            raise UsageError(f"the model of the grids, '{self.grid_model}', is not among the models")
        for grid in self.grids:
            check_grid(self.grid_model, grid)
        for name in self.rivals:
            rivals.check_method(name)
        for name in self.auxiliary:
            if name not in self.models:
                raise UsageError(f"auxiliary outputs of '{name}', which is not among the models")
        for name, members in self.means.items():
            if not can_be_a_method(name) or name in (BOX, *self.models, *self.rivals):
                raise UsageError(f"{name!r} can't be the name of a mean", remedy="a word of its own, without # and +")
            for member in members:
                if member not in (*self.models, *self.rivals):
                    names = ", ".join((*self.models, *self.rivals))
                    raise UsageError(
                        f"the mean '{name}' is of '{member}', which is not compared", remedy=f"compared are {names}"
                    )
            if len(set(members)) < max(2, len(members)) or NONE not in self.cleanings:
                raise UsageError(f"the mean '{name}' is to be of two methods and more, on uncleaned images")
            if not set(members) & set(self.models):
                raise UsageError(f"the mean '{name}' is of rivals alone", remedy="have a network among its members")
        if self.planes and self.plane_model not in self.models:
            raise UsageError(f"the model of the planes, '{self.plane_model}', is not among the models")
        if (self.skies or self.planes) and NONE not in self.cleanings:
            raise UsageError("a band over the sky and further planes need uncleaned images among the cleanings")
        for name in (*self.cleanings, *self.sky_treatments, *(f"{self.cleanings[0]}:{grid}" for grid in self.grids)):
            treatment_named(name)
        for name in self.plane_treatments:
            treatment_named(name)

    def check_goals(self, goals: Sequence[Goal]) -> None:
        """Raise a UsageError for goals that nothing of the study can be judged by."""
        methods = (BOX, *self.rivals, *self.models, *self.means)
        for goal in goals:
            for kind, name, names in (("method", goal.over, methods), ("cleaning", goal.cleaning, self.cleanings)):
                if name is not None and name not in names:
                    raise UsageError(
                        f"a goal names the {kind} '{name}', which is not compared", nearest=nearest_word(name, names)
                    )

    @property
    def sky_treatments(self) -> tuple[str, ...]:
        """Uncleaned images under each of the brighter skies."""
        return tuple(f"{NONE}@{level:g}" for level in self.skies)

    @property
    def plane_treatments(self) -> tuple[str, ...]:
        """Uncleaned images with each of the further planes beside them."""
        return tuple(f"{NONE}+{planes}" for planes in self.planes)

    def trainings(self, files: Path, output: Path, computing: dict[str, Any]) -> Iterator[tuple[str, TrainSpec]]:
        """Yield the name of each training in tables of scores, and its specification.

        Parameters
        ----------
        files : pathlib.Path
            The folder ``set`` of a blind analysis.
        output : pathlib.Path
            Folder in which each training has its own.
        computing : dict
            What computes: ``backend``, ``device``, ``mixed_precision``.
        """
        from apbatch.dl.networks.models import takes
        from apbatch.dl.training.spec import TrainSpec

        for seed in range(1, self.seeds + 1):
            for name, options in self.models.items():
                more = self.sky_treatments
                more += tuple(f"{self.cleanings[0]}:{grid}" for grid in self.grids if name == self.grid_model)
                more += self.plane_treatments if name == self.plane_model else ()
                yield (
                    training_name(name, seed),
                    TrainSpec(
                        data=files,
                        output=output / f"{name}-{seed}",
                        treatments=tuple(cleaning for cleaning in self.cleanings if takes(name, cleaning)) + more,
                        model=name,
                        options=options,
                        auxiliary=self.auxiliary.get(name, {}),
                        seed=seed,
                        **computing,
                        **self.model_dump(include=set(Hyperparameters.model_fields)),
                    ),
                )


class Goal(BaseModel):
    """A ratio of Q that the best network is to have over a rival.

    One rule decides: *reached* if the interval of 95 % of the ratio lies above the goal, *missed* if it lies below,
    else *undecided*.

    Attributes
    ----------
    over : str
        Method of the rival; of several rows the one with the highest validation Q.
    ratio : float
    cleaning : str, optional
        Only for images with this cleaning; by default for each cleaning, and for the best of all.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    over: str = BOX
    ratio: float = Field(default=1.0, gt=0)
    cleaning: str | None = None


class JudgingSettings(BaseModel):
    """How scores are judged.

    Attributes
    ----------
    observation : Observation
        For which the cut is chosen.
    hadrons_min : int
        Hadrons that must be left of the test set after a cut; Q of a cut that leaves fewer is not quoted.
    efficiency_min : float
        Smallest share of the gammas that a cut may keep.
    resamples : int
        Of the paired bootstrap.
    bins : int
        Bins of energy, size and zenith, of equal numbers of test gammas.
    goals : tuple of Goal
        Verdicts that the report gives.
    bootstrap_seed : int
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    observation: Observation = Observation()
    hadrons_min: int = Field(default=200, ge=1)
    efficiency_min: float = Field(default=0.1, ge=0, lt=1)
    resamples: int = Field(default=1000, ge=100, le=20000)
    bins: int = Field(default=4, ge=1, le=20)
    goals: tuple[Goal, ...] = ()
    bootstrap_seed: int = Field(default=0, ge=0)

    def rule(self) -> dict[str, Any]:
        """Return what decides cuts and verdicts, plain JSON: frozen with the scores, before anybody sees a label."""
        return self.model_dump(mode="json", include={"observation", "hadrons_min", "efficiency_min", "goals"})


class ShowersSettings(Hyperparameters):
    """A network of energy and direction of gammas.

    Attributes
    ----------
    model, options
        As in `apbatch.dl.training.spec.TrainSpec`.
    cleanings : tuple of str
        A network for each.
    energy_bins : int
        Bins of true energy, of equal numbers of gammas.
    """

    model: str = "resnet"
    options: dict[str, int | float] = Field(default_factory=dict)
    cleanings: tuple[str, ...] = Field(default=("soft",), min_length=1)
    seed: int = Field(default=1, ge=0, lt=2**31)
    energy_bins: int = Field(default=5, ge=1, le=20)

"""Steps of an analysis of gammas and hadrons: a blind set, trainings and rivals on it, what they are worth, a report.

A step that runs something with settings is those settings: their fields are its keys, with their only defaults.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.study.settings import JudgingSettings, ShowersSettings, StudySettings
from apbatch.errors import UsageError
from apbatch.workflow.step import Context, Products, Step


@contextmanager
def _as_a_fault() -> Iterator[None]:
    """Turn what is wrong with settings into a fault of the job's file, told with its line before anything starts."""
    try:
        yield
    except UsageError as error:
        raise ValueError(str(error)) from None


class Blind(BlindSettings, Step):
    """Cut off a test set of random, sealed proportion; the rest is for training and validation."""

    kind: ClassVar[str] = "blind"
    needs: ClassVar[tuple[str, ...]] = ("images", "parameters", "truth")
    makes: ClassVar[tuple[str, ...]] = ("blind",)

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        with _as_a_fault():
            self.check()
        return self

    def run(self, context: Context, key: str) -> Products:
        """Make the set and seal its labels."""
        from apbatch.dl.blind import blind_set as blind

        arguments = {name: context.products[name] for name in (*self.needs, *self._more(context))}
        return {"blind": str(blind.make(**arguments, folder=context.folder / f"blind-{key}", settings=self).folder)}

    def inputs(self, context: Context) -> Any:
        """Return the datasets; the place of the source where the world asks for it."""
        return {**super().inputs(context), **{name: context.products[name] for name in self._more(context)}}

    def _more(self, context: Context) -> tuple[str, ...]:
        return ("sources",) if self.world != "all" and "sources" in context.products else ()

    def intact(self, products: Products) -> bool:
        """The set's manifest must be there."""
        return (Path(products["blind"]) / "set" / "manifest.json").exists()


class Study(StudySettings, JudgingSettings, Step):
    """Train every network, several times, with every cleaning; score, freeze, open the labels, and compare."""

    kind: ClassVar[str] = "study"
    needs: ClassVar[tuple[str, ...]] = ("blind",)
    makes: ClassVar[tuple[str, ...]] = ("study",)

    workers: int | None = Field(default=None, ge=1, description="ranks; those of the settings by default")

    @model_validator(mode="after")
    def _can_be_compared(self) -> Self:
        with _as_a_fault():
            self.check()
            self.check_goals(self.goals)
        return self

    def inputs(self, context: Context) -> Any:
        """Return the set, and what computes."""
        return {**super().inputs(context), **context.settings.training.inputs(self._ranks(context))}

    def _ranks(self, context: Context) -> int:
        return self.workers or context.settings.training.ranks

    def run(self, context: Context, key: str) -> Products:
        """Go on with the first training that is not finished; then judge."""
        from apbatch.dl.study import evaluation, trainings

        folder, output = Path(context.products["blind"]), context.folder / f"study-{key}"
        trainings.run(folder, output, self, self.rule(), context.settings.training, self._ranks(context))
        evaluation.evaluate(folder, output, self)
        return {"study": str(output)}

    def intact(self, products: Products) -> bool:
        """The numbers must be there."""
        return (Path(products["study"]) / "study.json").exists()


class Robustness(Step):
    """Disturb the test images: night sky, dead pixels, gains, light, a turned camera; and see what networks look at."""

    kind: ClassVar[str] = "robustness"
    needs: ClassVar[tuple[str, ...]] = ("blind", "study")
    makes: ClassVar[tuple[str, ...]] = ("robustness", "saliency")

    images: int = Field(default=20_000, ge=1, description="test images at most")

    def run(self, context: Context, key: str) -> Products:
        """Score what was disturbed with the cuts of what was not."""
        from apbatch.dl.study import examination

        folder, study = Path(context.products["blind"]), Path(context.products["study"])
        output = context.folder / f"robustness-{key}"
        maps = examination.saliency(folder, study, output / "saliency.json")
        disturbed = examination.robustness(folder, study, output / "robustness.json", most=self.images)
        return {"robustness": str(disturbed), "saliency": str(maps)}

    def intact(self, products: Products) -> bool:
        """Both files must be there."""
        return all(Path(products[name]).exists() for name in self.makes)


class Showers(ShowersSettings, Step):
    """Train a network on energy and direction of gammas, and judge it on the opened test gammas."""

    kind: ClassVar[str] = "showers"
    needs: ClassVar[tuple[str, ...]] = ("blind", "study")
    makes: ClassVar[tuple[str, ...]] = ("showers",)

    def inputs(self, context: Context) -> Any:
        """Return the set, and what computes."""
        training = context.settings.training
        return {**super().inputs(context), **training.inputs(training.ranks)}

    def run(self, context: Context, key: str) -> Products:
        """Train, or go on; then judge."""
        from apbatch.dl.study import showers

        output = context.folder / f"showers-{key}"
        return {
            "showers": str(showers.estimate(Path(context.products["blind"]), output, self, context.settings.training))
        }

    def intact(self, products: Products) -> bool:
        """The numbers must be there."""
        return Path(products["showers"]).exists()


class Application(Step):
    """Score other images with the study's networks: real events, other Monte Carlo, other cameras."""

    kind: ClassVar[str] = "application"
    needs: ClassVar[tuple[str, ...]] = ("blind", "study")
    makes: ClassVar[tuple[str, ...]] = ("application",)

    files: dict[str, str] = Field(
        description="by a name for people, folders or files, relative to the job, or URLs; $NAME is a variable"
    )
    cameras: dict[str, str] = Field(default_factory=dict, description="cameras of those whose files do not tell")
    factors: dict[str, str] = Field(default_factory=dict, description="conversion factors of raw files, likewise")

    def inputs(self, context: Context) -> Any:
        """Return the study and where the files are: a folder that was missing and now is there is scored."""
        places = {name: self._place(context.base, place) for name, place in self.files.items()}
        return {
            **super().inputs(context),
            "places": {name: place for name, (place, missing) in places.items() if not missing},
        }

    @staticmethod
    def _place(base: Path, place: str) -> tuple[str, str]:
        """Return a URL or an absolute path, variables of the environment put in, and why there is nothing, if so."""
        try:
            named = Template(place).substitute(os.environ)
        except (KeyError, ValueError) as error:
            return place, f"the variable {error} is not set" if isinstance(error, KeyError) else str(error)
        if "://" in named:
            return named, ""
        path = (base / named).resolve()
        return str(path), "" if path.exists() else f"there is no {path}"

    def run(self, context: Context, key: str) -> Products:
        """Read, calibrate and clean what is there; a folder that is missing is named and left out."""
        from apbatch.camera.cleaning import PRESETS
        from apbatch.datasets import dataset
        from apbatch.dl.study import application
        from apbatch.progress import say
        from apbatch.spark import pipeline
        from apbatch.spark.inputs.sources import RawOptions, sources_at

        datasets: dict[str, str] = {}
        for name, place in self.files.items():
            where, missing = self._place(context.base, place)
            if missing:
                say(f"application: {name} is left out: {missing}")
                continue
            factors = self.factors.get(name)
            sources = sources_at(
                [where if "://" in where else Path(where).as_uri()],
                RawOptions(self.cameras.get(name), self._place(context.base, factors)[0] if factors else None),
            )
            output = context.dataset(self.kind, f"{key}-{len(datasets)}")
            if not dataset.is_complete(output):
                pipeline.clean(context.spark(), sources, output, PRESETS["standard"])
            datasets[name] = output
        result = application.apply(
            Path(context.products["blind"]),
            Path(context.products["study"]),
            datasets,
            context.folder / f"application-{key}" / "application.json",
        )
        return {"application": str(result)}

    def intact(self, products: Products) -> bool:
        """The numbers must be there."""
        return Path(products["application"]).exists()


class Report(Step):
    """One HTML page and one JSON with all numbers of the study."""

    kind: ClassVar[str] = "report"
    needs: ClassVar[tuple[str, ...]] = ("study",)
    makes: ClassVar[tuple[str, ...]] = ("report", "table")

    def inputs(self, context: Context) -> Any:
        """Return the study and the parts that other steps added."""
        from apbatch.dl.study.report import PARTS

        return {name: context.products[name] for name in ("study", *PARTS) if name in context.products}

    def run(self, context: Context, key: str) -> Products:
        """Write the report."""
        from apbatch.dl.study.report import PARTS, render_table, write_report

        study = json.loads((Path(context.products["study"]) / "study.json").read_bytes())
        parts = {
            name: json.loads(Path(context.products[name]).read_bytes()) for name in PARTS if name in context.products
        }
        page = write_report(study, parts, context.folder / f"report-{key}")
        return {"report": str(page), "table": render_table(study)}

    def intact(self, products: Products) -> bool:
        """The page must be there."""
        return Path(products["report"]).exists()

"""Steps of the study: many trainings on one blind set, what they are worth, and what disturbs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from apbatch.workflow.step import Context, Products, Step


class Study(Step):
    """Train every network, several times, with every cleaning; score, freeze, open the labels, and compare."""

    kind: ClassVar[str] = "study"
    needs: ClassVar[tuple[str, ...]] = ("blind",)
    makes: ClassVar[tuple[str, ...]] = ("study",)

    cleanings: tuple[str, ...] = ("none", "soft", "standard")
    models: dict[str, dict[str, int | float]] = Field(
        default={"talk-cnn": {}, "resnet": {}, "hex-cnn": {}}, description="networks with their options"
    )
    grids: tuple[str, ...] = Field(default=(), description="further grids, for `grid_model`")
    grid_model: str = "talk-cnn"
    rivals: tuple[str, ...] = ("trees", "forest")
    seeds: int = Field(default=3, ge=1, le=20, description="trainings of each network")
    epochs: int = Field(default=12, ge=1)
    batch_size: int = Field(default=64, ge=1)
    epoch_min: int = Field(default=6000, ge=0)
    learning_rate: float = Field(default=2e-3, gt=0)
    patience: int | None = Field(default=None, ge=1)
    symmetric: bool = Field(default=False, description="networks score by the mean over the camera's symmetries")
    workers: int | None = Field(default=None, ge=1, description="ranks; those of the settings by default")
    hours: float = Field(default=20.0, gt=0, description="of the observation for which cuts are chosen")
    background_rate: float = Field(default=500.0, gt=0, description="its hadron images an hour before a cut")
    signal_to_background: float = Field(default=0.01, gt=0)
    alpha: float = Field(default=0.2, gt=0)
    hadrons_min: int = Field(default=200, ge=1, description="left of the test set, or a cut is not quoted")
    efficiency_min: float = Field(default=0.1, ge=0, lt=1)
    resamples: int = Field(default=1000, ge=100, le=20000)
    bins: int = Field(default=4, ge=1, le=20)
    goals: tuple[dict[str, str | float], ...] = Field(default=(), description="over, ratio, cleaning: verdicts")

    def inputs(self, context: Context) -> Any:
        """Return the set, and what computes."""
        return {**super().inputs(context), **context.settings.training.inputs(self._ranks(context))}

    def _ranks(self, context: Context) -> int:
        return self.workers or context.settings.training.ranks

    def run(self, context: Context, key: str) -> Products:
        """Go on with the first training that is not finished; then judge."""
        from apbatch.dl.judging.observation import Observation
        from apbatch.dl.study import evaluation as study_evaluation
        from apbatch.dl.study import trainings as study

        folder, output = Path(context.products["blind"]), context.folder / f"study-{key}"
        given = {**self.model_dump(), **context.settings.training.network()}
        settings = study.StudySettings(**{name: given[name] for name in study.StudySettings.model_fields})
        observation = Observation(**{name: given[name] for name in Observation.model_fields})
        named = {name: given[name] for name in ("hadrons_min", "efficiency_min", "resamples", "bins", "goals")}
        judging = study_evaluation.StudyEvaluationSettings(observation=observation, **named)
        rule = study_evaluation.rule_of(judging)
        study.run(folder, output, settings, rule, context.settings.training.collective, self._ranks(context))
        study_evaluation.evaluate(folder, output, judging)
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
        shown = examination.saliency(folder, study, output / "saliency.json")
        disturbed = examination.robustness(folder, study, output / "robustness.json", most=self.images)
        return {"robustness": str(disturbed), "saliency": str(shown)}

    def intact(self, products: Products) -> bool:
        """Both files must be there."""
        return all(Path(products[name]).exists() for name in self.makes)


class Showers(Step):
    """Train a network on energy and direction of gammas, and judge it on the opened test gammas."""

    kind: ClassVar[str] = "showers"
    needs: ClassVar[tuple[str, ...]] = ("blind", "study")
    makes: ClassVar[tuple[str, ...]] = ("showers",)

    model: str = "resnet"
    options: dict[str, int | float] = Field(default_factory=dict)
    cleanings: tuple[str, ...] = ("soft",)
    epochs: int = Field(default=12, ge=1)
    batch_size: int = Field(default=64, ge=1)
    epoch_min: int = Field(default=6000, ge=0)
    learning_rate: float = Field(default=1.5e-3, gt=0)
    seed: int = Field(default=1, ge=0, lt=2**31)
    bins: int = Field(default=5, ge=1, le=20)

    def inputs(self, context: Context) -> Any:
        """Return the set, and what computes."""
        training = context.settings.training
        return {**super().inputs(context), **training.inputs(training.ranks)}

    def run(self, context: Context, key: str) -> Products:
        """Train, or go on; then judge."""
        from apbatch.dl.study import showers
        from apbatch.dl.training.spec import TrainSpec

        folder, output = Path(context.products["blind"]), context.folder / f"showers-{key}"
        spec = TrainSpec(
            data=folder / "set",
            output=output / "training",
            task="showers",
            variants=self.cleanings,
            **self.model_dump(exclude={"cleanings", "bins"}),
            **context.settings.training.network(),
        )
        training = context.settings.training
        found = showers.estimate(folder, output / "showers.json", spec, self.bins, training.collective, training.ranks)
        return {"showers": str(found)}

    def intact(self, products: Products) -> bool:
        """The numbers must be there."""
        return Path(products["showers"]).exists()


class Application(Step):
    """Score other images with the study's networks: real events, other Monte Carlo, other cameras."""

    kind: ClassVar[str] = "application"
    needs: ClassVar[tuple[str, ...]] = ("blind", "study")
    makes: ClassVar[tuple[str, ...]] = ("application",)

    files: dict[str, str] = Field(description="by a name for people, folders or files, relative to the job, or URLs")
    cameras: dict[str, str] = Field(default_factory=dict, description="cameras of those whose files do not tell")
    factors: dict[str, str] = Field(default_factory=dict, description="conversion factors of raw files, likewise")

    def run(self, context: Context, key: str) -> Products:
        """Read, calibrate and clean what is there; a folder that is missing is named and left out."""
        from apbatch.camera.cleaning import PRESETS
        from apbatch.datasets import dataset
        from apbatch.dl.study import application
        from apbatch.progress import say
        from apbatch.spark import pipeline
        from apbatch.spark.inputs.sources import sources_at

        datasets: dict[str, str] = {}
        for name, place in self.files.items():
            local = "://" not in place
            path = (context.base / place).resolve()
            if local and not path.exists():
                say(f"application: {name} is left out: there is no {path}")
                continue
            factors = self.factors.get(name)
            sources = sources_at(
                [path.as_uri() if local else place],
                camera=self.cameras.get(name),
                factors=str((context.base / factors).resolve()) if factors else None,
            )
            output = context.dataset(self.kind, f"{key}-{len(datasets)}")
            if not dataset.is_complete(output):
                pipeline.clean(context.spark(), sources, output, PRESETS["standard"])
            datasets[name] = output
        found = application.apply(
            Path(context.products["blind"]),
            Path(context.products["study"]),
            datasets,
            context.folder / f"application-{key}" / "application.json",
        )
        return {"application": str(found)}

    def intact(self, products: Products) -> bool:
        """The numbers must be there."""
        return Path(products["application"]).exists()


class StudyReport(Step):
    """One HTML page and one JSON with all numbers of the study."""

    kind: ClassVar[str] = "study-report"
    needs: ClassVar[tuple[str, ...]] = ("study",)
    makes: ClassVar[tuple[str, ...]] = ("report", "table")

    def inputs(self, context: Context) -> Any:
        """Return the study and the parts that other steps added."""
        from apbatch.dl.study.report import PARTS

        return {name: context.products[name] for name in ("study", *PARTS) if name in context.products}

    def run(self, context: Context, key: str) -> Products:
        """Write the report."""
        from apbatch.dl.study.report import PARTS, render_study_table, write_study_report

        study = json.loads((Path(context.products["study"]) / "study.json").read_bytes())
        parts = {
            name: json.loads(Path(context.products[name]).read_bytes()) for name in PARTS if name in context.products
        }
        page = write_study_report(study, parts, context.folder / f"study-report-{key}")
        return {"report": str(page), "table": render_study_table(study)}

    def intact(self, products: Products) -> bool:
        """The page must be there."""
        return Path(products["report"]).exists()

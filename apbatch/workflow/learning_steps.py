"""Steps from grids to a quality factor: blind, train, evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from apbatch.units import PhotoElectrons
from apbatch.workflow.step import Context, Products, Step


class Blind(Step):
    """Cut off a test set of random, sealed proportion; the rest is for training and validation."""

    kind: ClassVar[str] = "blind"
    needs: ClassVar[tuple[str, ...]] = ("grids", "parameters", "truth")
    makes: ClassVar[tuple[str, ...]] = ("blind",)

    size_min: PhotoElectrons = Field(default=60.0, ge=0)
    pixels_min: int = Field(default=4, ge=3)
    leakage_max: float = Field(default=1.0, ge=0, le=1)
    test_fraction: float = Field(default=0.3, gt=0, lt=1)
    validation_fraction: float = Field(default=0.2, gt=0, lt=1)
    gamma_fraction_min: float = Field(default=0.25, gt=0, lt=1)
    gamma_fraction_max: float = Field(default=0.6, gt=0, lt=1)
    open: bool = Field(default=False, description="for practice: labels may be known to others")
    seed: int | None = Field(default=None, ge=0, description="makes an open set repeatable")
    custodian: str | None = Field(default=None, description="public key of somebody who must sign every act")
    #: The product whose pixels the set holds.
    pixels: ClassVar[str] = "grids"

    def run(self, context: Context, key: str) -> Products:
        """Make the set and seal its labels."""
        from apbatch.dl.blind import blind_set as blind

        folder = context.folder / f"blind-{key}"
        settings = blind.BlindSettings(**self.model_dump())
        made = blind.make(
            context.products[self.pixels], context.products["parameters"], context.products["truth"], folder, settings
        )
        return {"blind": str(made.folder)}

    def intact(self, products: Products) -> bool:
        """The set's manifest must be there."""
        return (Path(products["blind"]) / "set" / "manifest.json").exists()


class BlindImages(Blind):
    """A blind set that keeps the camera's pixels, so that every cleaning and grid is made from the same events."""

    kind: ClassVar[str] = "blind-images"
    needs: ClassVar[tuple[str, ...]] = ("images", "parameters", "truth")
    pixels: ClassVar[str] = "images"


class Train(Step):
    """Train a CNN for each treatment of the images, by Horovod where it is built."""

    kind: ClassVar[str] = "train"
    needs: ClassVar[tuple[str, ...]] = ("blind",)
    makes: ClassVar[tuple[str, ...]] = ("trained",)

    model: str = Field(default="talk-cnn", description="talk-cnn, hillas-cnn, resnet or hex-cnn")
    options: dict[str, int | float] = Field(default_factory=dict, description="of the model, such as filters")
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=64, ge=1)
    epoch_min: int = Field(default=6000, ge=0, description="images in an epoch at least")
    learning_rate: float = Field(default=2e-3, gt=0)
    seed: int = Field(default=1, ge=0, lt=2**31)
    augment: bool = True
    symmetric: bool = Field(default=False, description="score by the mean over the camera's symmetries")
    patience: int | None = Field(default=None, ge=1)
    workers: int | None = Field(default=None, ge=1, description="ranks; those of the settings by default")

    def inputs(self, context: Context) -> Any:
        """Return the set, and what computes."""
        return {**super().inputs(context), **context.settings.training.inputs(self._ranks(context))}

    def _ranks(self, context: Context) -> int:
        return self.workers or context.settings.training.ranks

    def run(self, context: Context, key: str) -> Products:
        """Train, going on from the last checkpoint of a killed run."""
        from apbatch.dl.training import launch
        from apbatch.dl.training.spec import TrainSpec

        spec = TrainSpec(
            data=Path(context.products["blind"]) / "set",
            output=context.folder / f"train-{key}",
            **self.model_dump(exclude={"workers"}),
            **context.settings.training.network(),
        )
        output = launch.train(spec, context.settings.training.collective, self._ranks(context))
        return {"trained": str(output)}

    def intact(self, products: Products) -> bool:
        """The record of the training must be there."""
        return (Path(products["trained"]) / "trained.json").exists()


class Evaluate(Step):
    """Score the test set, freeze the scores, open the labels, and compare."""

    kind: ClassVar[str] = "evaluate"
    needs: ClassVar[tuple[str, ...]] = ("blind", "trained")
    makes: ClassVar[tuple[str, ...]] = ("evaluation",)

    hadrons_min: int = Field(default=30, ge=1)
    efficiency_min: float = Field(default=0.1, ge=0, lt=1)
    resamples: int = Field(default=400, ge=50, le=20000)
    seed: int = Field(default=0, ge=0)

    def run(self, context: Context, key: str) -> Products:
        """Freeze, unseal, judge."""
        from apbatch.dl.blind import blind_set as blind
        from apbatch.dl.blind import protocol
        from apbatch.dl.judging import evaluation
        from apbatch.dl.judging.score_table import score

        folder, trained = Path(context.products["blind"]), Path(context.products["trained"])
        output = context.folder / f"evaluate-{key}"
        # An open set is for practice: it may be scored again, and says so.
        again = blind.open_set(folder).open
        protocol.submit(folder, score(folder / "set", trained, output), again=again)
        protocol.unseal(folder)
        settings = evaluation.EvaluationSettings(**self.model_dump())
        evaluation.evaluate(folder, trained, settings, output)
        return {"evaluation": str(output / "evaluation.json")}

    def intact(self, products: Products) -> bool:
        """The evaluation must be there."""
        return Path(products["evaluation"]).exists()


class Report(Step):
    """One HTML page and one JSON with all numbers."""

    kind: ClassVar[str] = "report"
    needs: ClassVar[tuple[str, ...]] = ("evaluation",)
    makes: ClassVar[tuple[str, ...]] = ("report", "table")

    def run(self, context: Context, key: str) -> Products:
        """Write the report."""
        from apbatch.dl.judging.evaluation import Evaluation
        from apbatch.dl.judging.report import render_table, write_report

        evaluation = Evaluation.model_validate_json(Path(context.products["evaluation"]).read_text())
        page = write_report(evaluation, context.folder / f"report-{key}")
        return {"report": str(page), "table": render_table(evaluation)}

    def intact(self, products: Products) -> bool:
        """The page must be there."""
        return Path(products["report"]).exists()

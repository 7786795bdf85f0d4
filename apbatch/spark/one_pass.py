"""One pass over pixels: all splits are worked on, and the datasets of images, parameters and grids are made of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apbatch.camera.grid import grid_of
from apbatch.camera.parameters import UNITS
from apbatch.chain.recipe import Recipe
from apbatch.chain.steps import FAMILIES
from apbatch.datasets.commit import DatasetCommit, Loss
from apbatch.errors import FormatError, UsageError, nearest_word
from apbatch.provenance import provenance
from apbatch.spark.bulk import AnySplit, Work, largest_first, run_splits
from apbatch.spark.inputs.events import Factors
from apbatch.spark.inputs.places import with_hosts
from apbatch.spark.jobs import Meter, tally
from apbatch.spark.summary import StepSummary, summed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Plan:
    """What is read, and what belongs into the sidecars."""

    recipe: Recipe
    contents: dict[str, dict[str, Any]]
    step: str
    inputs: list[str]
    settings: dict[str, Any]


def make_datasets(
    spark: SparkSession,
    job: DatasetCommit,
    splits: Sequence[AnySplit],
    lost: Sequence[Loss],
    plan: Plan,
    factors: Factors,
    meter: Meter,
    started: float,
) -> StepSummary:
    """Work on all splits and make the datasets.

    Parameters
    ----------
    spark : SparkSession
    job : DatasetCommit
        Under whose lock the datasets are made.
    splits : sequence of split
    lost : sequence of Loss
        What was passed over before.
    plan : Plan
    factors : Factors
        Of calibration, by run.
    meter : Meter
        Counts tasks and bytes.
    started : float
        When the step began, as `time.monotonic` counts.

    Raises
    ------
    FormatError
        If not one image could be read.
    ServerError
    """
    work = Work(job.staging, plan.recipe, factors)
    start = time.monotonic()
    records = run_splits(spark, largest_first(with_hosts(splits)), work, job, plan.step, meter)
    seconds = time.monotonic() - start
    counted, problems = tally([*lost, *(loss for record in records for loss in record.losses)])
    count = sum(record.images for record in records)
    if not count:
        job.discard()
        reason = f": {problems[0]}" if problems else ""
        raise FormatError(f"not one image could be read{reason}", where=next(iter(job.outputs.values())))
    origin = provenance(plan.step, plan.inputs, plan.settings)
    changed: Counter[str] = Counter()
    for record in records:
        changed.update(record.pixels)
    common = {"images": count, "losses": counted, "provenance": origin}
    common |= plan.recipe.preparation.sidecar()
    common |= {"pixels": dict(changed)} if changed else {}
    job.commit(records, {role: {**content, **common} for role, content in plan.contents.items()})
    return summed(records, meter, started, seconds, counted, problems, dict(changed))


def sidecars(recipe: Recipe, images_url: str | None) -> dict[str, dict[str, Any]]:
    """Return what the sidecars say of the datasets' content."""
    common: dict[str, Any] = {"camera": recipe.camera.name, "cleaning": recipe.cleaning}
    by_role: dict[str, dict[str, Any]] = {}
    if "images" in recipe.roles:
        by_role["images"] = {"kind": "images", **common}
    if "parameters" in recipe.roles:
        units = dict(UNITS)
        for family in recipe.more:
            units |= FAMILIES[family]
        by_role["parameters"] = {"kind": "parameters", **common, "images_url": images_url, "units": units}
    if "grids" in recipe.roles:
        shape = grid_of(recipe.camera, recipe.method)
        by_role["grids"] = {
            "kind": "grids",
            **common,
            "images_url": images_url,
            "method": recipe.method,
            "grid_shape": [shape.rows, shape.cols],
            "rows": shape.rows,
            "cols": shape.cols,
        }
    return by_role


def check_roles(outputs: Mapping[str, str]) -> None:
    """Refuse outputs that no pass makes, and none at all.

    Raises
    ------
    UsageError
    """
    choices = ("images", "parameters", "grids")
    for role in outputs:
        if role not in choices:
            raise UsageError(
                f"unknown dataset '{role}'", nearest=nearest_word(role, choices), remedy=f"{', '.join(choices)}"
            )
    if not outputs:
        raise UsageError("there is nothing to write", remedy=f"name one of {', '.join(choices)}")

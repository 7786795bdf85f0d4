"""The steps on Spark: clean, parameters, grid, alone or in one pass over the pixels.

Each writes datasets by the bulk path (`apbatch.spark.bulk`). A job that was killed leaves nothing that looks complete,
and the same call again goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from apbatch.camera.cleaning import Cleaning
from apbatch.camera.grid import grid_of
from apbatch.errors import FormatError, UsageError, nearest_word
from apbatch.formats import dataset
from apbatch.provenance import digest, provenance, versions
from apbatch.spark.bulk import AnySplit, Recipe, Work, largest_first, run_splits, run_surveys
from apbatch.spark.committer import Job, Loss, SplitRecord
from apbatch.spark.events import Factors, Survey
from apbatch.spark.jobs import Meter, tally
from apbatch.spark.places import with_hosts
from apbatch.spark.plan import camera_of_sources, dataset_of_images, factor_key, factors_of_sources, splits_of
from apbatch.spark.sources import Source
from apbatch.spark.splits import BLOCK_BYTES, DATASET, bytes_of, dataset_files, file_splits, files_of, split_bytes

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["Source", "StepSummary", "clean", "grid", "images", "parameters", "skim"]


@dataclass(frozen=True)
class StepSummary:
    """What a step did.

    Attributes
    ----------
    images : int
        Images in the output.
    seconds : float
    losses : dict
        What was passed over, by reason: files, records or images.
    problems : list of str
        Some of it in words, with file and place.
    images_a_second : float
        Of those that this call worked on; what an earlier run had finished does not count.
    bytes_read, bytes_written : int
        Input and output of all splits.
    tasks : int
        Tasks of Spark in this call.
    retries : int
        Attempts that failed and were repeated.
    resumed : int
        Splits that an earlier run had finished.
    peak_mb : int
        Most memory of one of Spark's Python workers, 10⁶ bytes.
    """

    images: int
    seconds: float
    losses: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    images_a_second: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    tasks: int = 0
    retries: int = 0
    resumed: int = 0
    peak_mb: int = 0


@dataclass(frozen=True)
class _Plan:
    """What is read, and what belongs into the sidecars."""

    recipe: Recipe
    contents: dict[str, dict[str, Any]]
    step: str
    inputs: list[str]
    settings: dict[str, Any]


def clean(
    spark: SparkSession,
    sources: Sequence[Source],
    output_url: str,
    *,
    picture: float,
    boundary: float,
    min_neighbours: int = 0,
) -> StepSummary:
    """Read, calibrate and clean images: a dataset of images with the mask of a tail-cut cleaning.

    Parameters
    ----------
    spark : SparkSession
    sources : sequence of Source
        Files, all of the same camera.
    output_url : str
        Where the dataset goes; one that is there is replaced.
    picture, boundary : float
        Thresholds, p.e.
    min_neighbours : int
        How many neighbours of a picture pixel must be in the picture.

    Returns
    -------
    StepSummary

    Raises
    ------
    UsageError
        Without sources, with senseless thresholds, if the sources do not fit together, or if another program is
        writing the same dataset.
    FormatError
        If not one image could be read.
    ServerError
        If Spark or a store fails; the same call goes on with what is not finished.
    """
    outputs = {"images": output_url}
    return images(
        spark, sources, outputs, picture=picture, boundary=boundary, min_neighbours=min_neighbours, step="clean"
    )


def images(
    spark: SparkSession,
    sources: Sequence[Source],
    outputs: Mapping[str, str],
    *,
    picture: float,
    boundary: float,
    min_neighbours: int = 0,
    method: str = "axial",
    step: str = "images",
) -> StepSummary:
    """Read, calibrate, clean, parametrise and map images in one pass.

    Parameters
    ----------
    outputs : mapping
        URLs of the datasets to write: ``images``, ``parameters``, ``grids`` or some of them.
    method : str
        Of the grid.

    Raises
    ------
    UsageError, FormatError, ServerError
        As `clean`.
    """
    started = time.monotonic()
    rule = Cleaning("tailcuts", picture, boundary, min_neighbours)
    _check_roles(outputs)
    camera, telescopes = camera_of_sources(sources)
    recipe = Recipe(camera, tuple(outputs), rule.name, rule, method, telescopes)
    settings: dict[str, Any] = {"picture": picture, "boundary": boundary, "min_neighbours": min_neighbours}
    if "grids" in outputs:
        settings["method"] = method
    plan = _Plan(recipe, _contents(recipe, outputs.get("images")), step, [source.url for source in sources], settings)
    factors = factors_of_sources(sources)
    sizes = files_of(sources)
    key = digest([versions(), step, settings, sources, camera.name, sizes, sorted(outputs), factor_key(factors)])
    cores = spark.sparkContext.defaultParallelism
    target = split_bytes(sum(size for size, _ in sizes.values()), cores, BLOCK_BYTES)
    meter = Meter()
    with Job(dict(outputs), key, {"target": target}) as job:

        def surveyed(urls: Sequence[str]) -> dict[str, Survey]:
            return run_surveys(spark, urls, job, meter)

        target = int(job.plan["target"])
        splits, lost = splits_of(sources, camera, factors, sizes, target, surveyed)
        return _run(spark, job, splits, lost, plan, factors, meter, started)


def parameters(spark: SparkSession, images_url: str, output_url: str) -> StepSummary:
    """Compute image parameters: two rows an image, without cleaning and with it.

    Raises
    ------
    NotFoundError
        If there is no complete dataset of images.
    UsageError, FormatError, ServerError
        As `clean`.
    """
    return _from_dataset(spark, images_url, {"parameters": output_url}, "parameters", "axial")


def grid(spark: SparkSession, images_url: str, output_url: str, method: str = "axial") -> StepSummary:
    """Map images onto a square grid, whole and cleaned.

    Raises
    ------
    NotFoundError
        If there is no complete dataset of images.
    UsageError, FormatError, ServerError
        As `clean`.
    """
    return _from_dataset(spark, images_url, {"grids": output_url}, "grid", method)


def skim(
    spark: SparkSession, sources: Sequence[Source], outputs: Mapping[str, str], method: str = "axial"
) -> StepSummary:
    """Make datasets of selected events, with the masks that their images have; nothing else is read.

    Parameters
    ----------
    sources : sequence of Source
        Of events, as `apbatch.spark.selection.event_sources` returns them; of one camera and one cleaning.
    outputs : mapping
        URLs of the datasets to write: ``images``, ``parameters``, ``grids`` or some of them.
    method : str
        Of the grid.

    Raises
    ------
    UsageError
        If images have no masks, or several kinds of them.
    FormatError, ServerError
        As `clean`.
    """
    started = time.monotonic()
    _check_roles(outputs)
    for source in sources:
        if not source.rows or not dataset.is_complete(source.url.rpartition("/")[0]):
            raise UsageError("these images were not cleaned", where=source.url, remedy="clean them: jobs/clean.py")
    folders = sorted({source.url.rpartition("/")[0] for source in sources})
    kinds = {(str(known["cleaning"]), str(known["camera"])) for known in map(dataset.info, folders)}
    if len(kinds) != 1:
        named = "; ".join(f"{cleaning} of {camera}" for cleaning, camera in sorted(kinds))
        raise UsageError(
            f"the selected images are of several kinds: {named or 'none'}",
            remedy="name one cleaning = '…' in the query",
        )
    if {folder.rstrip("/") for folder in folders} & {url.rstrip("/") for url in outputs.values()}:
        raise UsageError("input and output are the same dataset", where=folders[0])
    known, camera, telescopes = dataset_of_images(folders[0])
    masked = [replace(source, format=DATASET) for source in sources]
    recipe = Recipe(camera, tuple(outputs), str(known["cleaning"]), None, method, telescopes)
    settings = {"method": method} if "grids" in outputs else {}
    plan = _Plan(recipe, _contents(recipe, outputs.get("images")), "skim", folders, settings)
    sizes = files_of(masked)
    key = digest([versions(), "skim", settings, masked, sizes, sorted(outputs)])
    target = split_bytes(sum(map(bytes_of, masked)), spark.sparkContext.defaultParallelism, BLOCK_BYTES)
    with Job(dict(outputs), key, {"target": target}) as job:
        splits: list[AnySplit] = list(file_splits(masked, sizes, int(job.plan["target"])))
        return _run(spark, job, splits, [], plan, {}, Meter(), started)


def _from_dataset(spark: SparkSession, images_url: str, outputs: dict[str, str], step: str, method: str) -> StepSummary:
    started = time.monotonic()
    if images_url.rstrip("/") in [url.rstrip("/") for url in outputs.values()]:
        raise UsageError("input and output are the same dataset", where=images_url)
    known, camera, telescopes = dataset_of_images(images_url)
    recipe = Recipe(camera, tuple(outputs), str(known["cleaning"]), None, method, telescopes)
    settings = {"method": method} if "grids" in outputs else {}
    plan = _Plan(recipe, _contents(recipe, images_url), step, [images_url], settings)
    sources, sizes = dataset_files(images_url)
    key = digest([versions(), step, settings, sources, camera.name, sizes, sorted(outputs)])
    cores = spark.sparkContext.defaultParallelism
    target = split_bytes(sum(size for size, _ in sizes.values()), cores, BLOCK_BYTES)
    with Job(outputs, key, {"target": target}) as job:
        splits: list[AnySplit] = list(file_splits(sources, sizes, int(job.plan["target"])))
        return _run(spark, job, splits, [], plan, {}, Meter(), started)


def _run(
    spark: SparkSession,
    job: Job,
    splits: Sequence[AnySplit],
    lost: Sequence[Loss],
    plan: _Plan,
    factors: Factors,
    meter: Meter,
    started: float,
) -> StepSummary:
    """Work on all splits and make the datasets."""
    work = Work(job.staging, plan.recipe, factors)
    begun = time.monotonic()
    records = run_splits(spark, largest_first(with_hosts(splits)), work, job, plan.step, meter)
    seconds = time.monotonic() - begun
    counted, problems = tally([*lost, *(loss for record in records for loss in record.losses)])
    count = sum(record.images for record in records)
    if not count:
        job.discard()
        reason = f": {problems[0]}" if problems else ""
        raise FormatError(f"not one image could be read{reason}", where=next(iter(job.outputs.values())))
    made = provenance(plan.step, plan.inputs, plan.settings)
    common = {"images": count, "losses": counted, "provenance": made}
    job.commit(records, {role: {**content, **common} for role, content in plan.contents.items()})
    new = sum(meter.counters[-1].value[:1]) if meter.counters else 0
    return StepSummary(
        count,
        time.monotonic() - started,
        counted,
        problems,
        images_a_second=round(new / max(seconds, 1e-6), 1),
        bytes_read=sum(record.bytes_read for record in records),
        bytes_written=_written(records),
        tasks=meter.tasks,
        retries=meter.retries,
        resumed=meter.resumed,
        peak_mb=max(record.peak_bytes for record in records) // 10**6,
    )


def _written(records: Iterable[SplitRecord]) -> int:
    return sum(part.bytes for record in records for part in record.parts.values())


def _contents(recipe: Recipe, images_url: str | None) -> dict[str, dict[str, Any]]:
    """Return what the sidecars say of the datasets' content."""
    common: dict[str, Any] = {"camera": recipe.camera.name, "cleaning": recipe.cleaning}
    found: dict[str, dict[str, Any]] = {}
    if "images" in recipe.roles:
        found["images"] = {"kind": "images", **common}
    if "parameters" in recipe.roles:
        found["parameters"] = {"kind": "parameters", **common, "images_url": images_url}
    if "grids" in recipe.roles:
        shape = grid_of(recipe.camera, recipe.method)
        found["grids"] = {
            "kind": "grids",
            **common,
            "images_url": images_url,
            "method": recipe.method,
            "grid_shape": [shape.rows, shape.cols],
            "rows": shape.rows,
            "cols": shape.cols,
        }
    return found


def _check_roles(outputs: Mapping[str, str]) -> None:
    known = ("images", "parameters", "grids")
    for role in outputs:
        if role not in known:
            raise UsageError(
                f"'{role}' is no dataset of images", nearest=nearest_word(role, known), remedy=f"{', '.join(known)}"
            )
    if not outputs:
        raise UsageError("there is nothing to write", remedy=f"name one of {', '.join(known)}")

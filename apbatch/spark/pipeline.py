"""The steps on Spark: clean, parameters, grid, alone or in one pass over the pixels.

Each writes datasets by the bulk path (`apbatch.spark.bulk`). A job that was killed leaves nothing that looks complete,
and the same call again goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from apbatch.camera.cleaning import Cleaning
from apbatch.camera.cleaning_words import words_of
from apbatch.chain.pixel_states import PixelState, Preparation, RunKey
from apbatch.chain.recipe import Recipe
from apbatch.datasets import dataset
from apbatch.datasets.commit import DatasetCommit
from apbatch.errors import UsageError
from apbatch.provenance import digest, versions
from apbatch.quality.monitor import KEEP, BadPixels
from apbatch.spark.bulk import AnySplit, run_surveys
from apbatch.spark.inputs.plan import (
    camera_of_sources,
    dataset_of_images,
    factor_key,
    factors_of_sources,
    need_times,
    splits_of,
)
from apbatch.spark.inputs.sources import Source
from apbatch.spark.inputs.splits import (
    BLOCK_BYTES,
    DATASET,
    bytes_of,
    dataset_files,
    file_splits,
    files_of,
    split_bytes,
)
from apbatch.spark.inputs.surveys import Survey
from apbatch.spark.jobs import Meter
from apbatch.spark.one_pass import Plan, check_roles, make_datasets, sidecars
from apbatch.spark.pixel_watch import watch_pixels
from apbatch.spark.summary import StepSummary

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["BadPixels", "Source", "clean", "derived", "grid", "images", "parameters", "skim"]


def clean(
    spark: SparkSession,
    sources: Sequence[Source],
    output_url: str,
    cleaning: Cleaning,
    *,
    bad_pixels: BadPixels = BadPixels(),
) -> StepSummary:
    """Read, calibrate and clean images: a dataset of images with the mask of a cleaning.

    Parameters
    ----------
    spark : SparkSession
    sources : sequence of Source
        Files, all of the same camera.
    output_url : str
        Where the dataset goes; one that is there is replaced.
    cleaning : Cleaning
        As `apbatch.camera.cleaning_words.cleaning_of` makes of words.
    bad_pixels : BadPixels
        What is done with pixels whose noise is not as that of the others, before cleaning.

    Returns
    -------
    StepSummary

    Raises
    ------
    UsageError
        Without sources, if the sources do not fit together or have not what the cleaning needs, or if another program
        is writing the same dataset.
    FormatError
        If not one image could be read.
    ServerError
        If Spark or a store fails; the same call goes on with what is not finished.
    """
    return images(spark, sources, {"images": output_url}, cleaning, bad_pixels=bad_pixels, step="clean")


def images(
    spark: SparkSession,
    sources: Sequence[Source],
    outputs: Mapping[str, str],
    cleaning: Cleaning,
    *,
    bad_pixels: BadPixels = BadPixels(),
    method: str = "axial",
    more: tuple[str, ...] = (),
    step: str = "images",
) -> StepSummary:
    """Read, calibrate, clean, parametrise and map images in one pass.

    Parameters
    ----------
    spark : SparkSession
    sources : sequence of Source
        Files of images, of one camera.
    outputs : mapping
        URLs of the datasets to write: ``images``, ``parameters``, ``grids`` or some of them.
    cleaning, bad_pixels
        As of `clean`.
    method : str
        Of the grid.
    more : tuple of str
        Which families of further parameters (`apbatch.chain.steps.FAMILIES`) are computed too.
    step : str
        Name of the step in the record of origin.

    Raises
    ------
    UsageError, FormatError, ServerError
        As `clean`.
    """
    started = time.monotonic()
    check_roles(outputs)
    camera, telescopes = camera_of_sources(sources)
    need_times(cleaning, sources, camera)
    recipe = Recipe(
        camera, tuple(outputs), cleaning.name, cleaning, method, telescopes, more if "parameters" in outputs else ()
    )
    settings = _settings(recipe, bad_pixels)
    plan = Plan(recipe, sidecars(recipe, outputs.get("images")), step, [source.url for source in sources], settings)
    factors = factors_of_sources(sources)
    sizes = files_of(sources)
    key = digest([versions(), step, settings, sources, camera.name, sizes, sorted(outputs), factor_key(factors)])
    cores = spark.sparkContext.defaultParallelism
    target = split_bytes(sum(size for size, _ in sizes.values()), cores, BLOCK_BYTES)
    meter = Meter()
    with DatasetCommit(dict(outputs), key, {"target": target}) as job:
        surveys: dict[str, Survey] = {}

        def surveyed(urls: Sequence[str]) -> dict[str, Survey]:
            surveys.update(run_surveys(spark, urls, job, meter))
            return surveys

        target = int(job.plan["target"])
        splits, lost = splits_of(sources, camera, factors, sizes, target, surveyed)

        def watched() -> dict[RunKey, PixelState]:
            return watch_pixels(spark, job, splits, sources, surveys, camera, factors, meter)

        plan = _prepared(plan, cleaning, bad_pixels, watched)
        return make_datasets(spark, job, splits, lost, plan, factors, meter, started)


def _prepared(
    plan: Plan, cleaning: Cleaning, bad_pixels: BadPixels, watched: Callable[[], dict[RunKey, PixelState]]
) -> Plan:
    """Add to a plan what is done before cleaning; the first pass over the pixels is made only where it is needed."""
    with_noise = cleaning.method == "sigma"
    states = watched() if with_noise or bad_pixels.treatment != KEEP else {}
    preparation = Preparation(bad_pixels, states, cleaning.time_limit is not None, with_noise)
    return replace(plan, recipe=replace(plan.recipe, preparation=preparation))


def _settings(recipe: Recipe, bad_pixels: BadPixels) -> dict[str, Any]:
    """Return what determines the output, besides the input, in the words of users."""
    words: dict[str, Any] = {} if recipe.rule is None else words_of(recipe.rule)
    if "grids" in recipe.roles:
        words["method"] = recipe.method
    words |= dict.fromkeys(recipe.more, True)
    if bad_pixels.treatment != KEEP:
        words |= {"bad_pixels": bad_pixels.treatment, "bad_kinds": list(bad_pixels.kinds)}
    return words


def parameters(
    spark: SparkSession,
    images_url: str,
    output_url: str,
    *,
    cleaning: Cleaning | None = None,
    more: tuple[str, ...] = (),
) -> StepSummary:
    """Compute image parameters: two rows an image, without cleaning and with it.

    Parameters
    ----------
    spark : SparkSession
    images_url, output_url : str
        Datasets of images, and of parameters to write.
    cleaning : Cleaning, optional
        Another one than that which made the masks of the images.
    more : tuple of str
        Which families of further parameters (`apbatch.chain.steps.FAMILIES`) are computed too.

    Raises
    ------
    NotFoundError
        If there is no complete dataset of images.
    UsageError, FormatError, ServerError
        As `clean`.
    """
    return derived(spark, images_url, {"parameters": output_url}, cleaning=cleaning, more=more, step="parameters")


def grid(
    spark: SparkSession, images_url: str, output_url: str, method: str = "axial", *, cleaning: Cleaning | None = None
) -> StepSummary:
    """Map images onto a square grid, whole and cleaned.

    Parameters
    ----------
    spark : SparkSession
    images_url, output_url : str
        Datasets of images, and of grids to write.
    method : str
        One of `apbatch.camera.grid.METHODS`.
    cleaning : Cleaning, optional
        Another one than that which made the masks of the images.

    Raises
    ------
    NotFoundError
        If there is no complete dataset of images.
    UsageError, FormatError, ServerError
        As `clean`.
    """
    return derived(spark, images_url, {"grids": output_url}, method=method, cleaning=cleaning, step="grid")


def skim(
    spark: SparkSession,
    sources: Sequence[Source],
    outputs: Mapping[str, str],
    method: str = "axial",
    *,
    more: tuple[str, ...] = (),
) -> StepSummary:
    """Make datasets of selected events, with the masks that their images have; nothing else is read.

    Parameters
    ----------
    spark : SparkSession
    sources : sequence of Source
        Of events, as `apbatch.spark.inputs.selection.event_sources` returns them; of one camera and one cleaning.
    outputs : mapping
        URLs of the datasets to write: ``images``, ``parameters``, ``grids`` or some of them.
    method, more
        As of `images`.

    Raises
    ------
    UsageError
        If images have no masks, or several kinds of them.
    FormatError, ServerError
        As `clean`.
    """
    started = time.monotonic()
    check_roles(outputs)
    for source in sources:
        if not source.rows or not dataset.is_complete(source.url.rpartition("/")[0]):
            raise UsageError("these images were not cleaned", where=source.url, remedy="clean them: apbatch clean")
    folders = sorted({source.url.rpartition("/")[0] for source in sources})
    kinds = {(str(sidecar["cleaning"]), str(sidecar["camera"])) for sidecar in map(dataset.info, folders)}
    if len(kinds) != 1:
        named = "; ".join(f"{cleaning} of {camera}" for cleaning, camera in sorted(kinds))
        raise UsageError(
            f"the selected images are of several kinds: {named or 'none'}",
            remedy="name one cleaning = '…' in the query",
        )
    if {folder.rstrip("/") for folder in folders} & {url.rstrip("/") for url in outputs.values()}:
        raise UsageError("input and output are the same dataset", where=folders[0])
    sidecar, camera, telescopes = dataset_of_images(folders[0])
    masked = [replace(source, format=DATASET) for source in sources]
    families = more if "parameters" in outputs else ()
    recipe = Recipe(camera, tuple(outputs), str(sidecar["cleaning"]), None, method, telescopes, families)
    settings = _settings(recipe, BadPixels())
    plan = Plan(recipe, sidecars(recipe, outputs.get("images")), "skim", folders, settings)
    sizes = files_of(masked)
    key = digest([versions(), "skim", settings, masked, sizes, sorted(outputs)])
    target = split_bytes(sum(map(bytes_of, masked)), spark.sparkContext.defaultParallelism, BLOCK_BYTES)
    with DatasetCommit(dict(outputs), key, {"target": target}) as job:
        splits: list[AnySplit] = list(file_splits(masked, sizes, int(job.plan["target"])))
        return make_datasets(spark, job, splits, [], plan, {}, Meter(), started)


def derived(
    spark: SparkSession,
    images_url: str,
    outputs: Mapping[str, str],
    *,
    method: str = "axial",
    cleaning: Cleaning | None = None,
    more: tuple[str, ...] = (),
    step: str = "images",
) -> StepSummary:
    """Make image parameters, grids or both of a dataset of cleaned images, in one pass.

    Parameters
    ----------
    spark : SparkSession
    images_url : str
        Dataset of images.
    outputs : mapping
        URLs of the datasets to write: ``parameters``, ``grids`` or both.
    method, more
        As of `images`.
    cleaning : Cleaning, optional
        Another one than that which made the masks of the images.
    step : str
        Name of the step in the record of origin.

    Raises
    ------
    NotFoundError
        If there is no complete dataset of images.
    UsageError, FormatError, ServerError
        As `clean`.
    """
    started = time.monotonic()
    check_roles(outputs)
    if images_url.rstrip("/") in [url.rstrip("/") for url in outputs.values()]:
        raise UsageError("input and output are the same dataset", where=images_url)
    sidecar, camera, telescopes = dataset_of_images(images_url)
    sources, sizes = dataset_files(images_url)
    if cleaning is not None:
        need_times(cleaning, sources, camera)
    name = cleaning.name if cleaning is not None else str(sidecar["cleaning"])
    recipe = Recipe(camera, tuple(outputs), name, cleaning, method, telescopes, more if "parameters" in outputs else ())
    settings = _settings(recipe, BadPixels())
    plan = Plan(recipe, sidecars(recipe, images_url), step, [images_url], settings)
    key = digest([versions(), step, settings, sources, camera.name, sizes, sorted(outputs)])
    cores = spark.sparkContext.defaultParallelism
    target = split_bytes(sum(size for size, _ in sizes.values()), cores, BLOCK_BYTES)
    meter = Meter()
    with DatasetCommit(dict(outputs), key, {"target": target}) as job:
        splits: list[AnySplit] = list(file_splits(sources, sizes, int(job.plan["target"])))

        def watched() -> dict[RunKey, PixelState]:
            return watch_pixels(spark, job, splits, sources, {}, camera, {}, meter)

        if cleaning is not None:
            plan = _prepared(plan, cleaning, BadPixels(), watched)
        return make_datasets(spark, job, splits, [], plan, {}, meter, started)

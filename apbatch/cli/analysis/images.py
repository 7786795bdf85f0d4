"""`apbatch clean`, `skim`, `parameters`, `grid`, `stereo`, `quality`: images and their parameters, on Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from apbatch.cli.analysis import on_spark
from apbatch.cli.analysis.cleaning_options import CleaningOptions, takes_cleaning
from apbatch.cli.analysis.on_spark import (
    CatalogueOption,
    ConfigOption,
    DebugOption,
    EventsOption,
    ExtrasOption,
    HaloOption,
    InputOption,
    OutputOption,
    SeveralValues,
    need_one,
    one_of,
    run_on_spark,
)
from apbatch.cli.output import note
from apbatch.errors import UsageError
from apbatch.storage.places import url_of_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession

    from apbatch.config import Settings
    from apbatch.spark.inputs.sources import Source
    from apbatch.spark.summary import StepSummary

_FilesOption = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="PLACE ...", help="Files or folders, registered or not: paths or URLs."),
]
_SelectOption = Annotated[
    str | None,
    typer.Option(
        "--select", metavar="QUERY", help="Instead of --input: registered files, as \"format = 'taiga-raw'\"."
    ),
]
_CameraOption = Annotated[
    str | None, typer.Option("--camera", metavar="NAME", help="Of raw files, if not their site's.")
]
_MethodOption = Annotated[
    str, typer.Option("--method", help="Of the grid: axial, shifting, nearest, … (docs/images.md).", metavar="NAME")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (clean, skim, parameters, grid, stereo, quality):
        app.command(command.__name__, cls=SeveralValues)(command)


@takes_cleaning
def clean(
    output: OutputOption,
    select: Annotated[
        str | None, typer.Option("--select", metavar="QUERY", help="Instead of --input: registered files, or events.")
    ] = None,
    input: _FilesOption = None,
    prefer: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="PLACE",
            help="Where selected files are read: site; auto, a mirror in the settings' store where there is one; "
            "mirror, only there; hdfs, webhdfs, afs, local or a store: only replicas there.",
        ),
    ] = "auto",
    camera: _CameraOption = None,
    factors: Annotated[
        str | None,
        typer.Option("--factors", metavar="FILE", help="Of raw files: conversion factors, if not their site's."),
    ] = None,
    rule: CleaningOptions = None,
    bad_pixels: Annotated[
        str, typer.Option("--bad-pixels", metavar="TREATMENT", help="keep, mend by their neighbours, mark as missing.")
    ] = "",
    bad_kinds: Annotated[
        list[str] | None, typer.Option("--bad-kinds", metavar="KIND ...", help="Which: dead, hot, noisy, absent.")
    ] = None,
    parameters: Annotated[
        str | None,
        typer.Option("--parameters", parser=url_of_place, metavar="PLACE", help="Parameters in the same pass."),
    ] = None,
    extras: ExtrasOption = False,
    halo: HaloOption = False,
    grids: Annotated[
        str | None, typer.Option("--grids", parser=url_of_place, metavar="PLACE", help="Grids in the same pass.")
    ] = None,
    method: _MethodOption = "axial",
    catalogue: CatalogueOption = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Read, calibrate and clean camera images with Spark.

    Example: apbatch clean --select "format = 'taiga-raw'" --picture '14 pe' --boundary '7 pe' --output images
    """
    from apbatch.camera.cleaning_words import cleaning_of
    from apbatch.camera.grid import METHODS
    from apbatch.quality.monitor import KEEP, USUAL, BadPixels
    from apbatch.spark import pipeline
    from apbatch.spark.inputs.plan import check_sources
    from apbatch.spark.inputs.sources import RawOptions, sources_at

    need_one(select=select, input=input)
    rule = rule or cleaning_of()  # refuses what makes no sense before any work
    treatment = BadPixels(bad_pixels or KEEP, tuple(bad_kinds or USUAL))
    method = one_of("--method", method, METHODS)
    more = _families(extras=extras, halo=halo)
    if more and not parameters:
        raise UsageError(f"--{more[0]} are image parameters", remedy="give --parameters PLACE")
    outputs = {"images": output, "parameters": parameters, "grids": grids}

    raw = RawOptions(camera, factors)

    def work(spark: Callable[[], SparkSession], settings: Settings) -> StepSummary:
        if select is not None:
            files = on_spark.selected_images(settings, select, prefer, raw)
        else:
            files = sources_at(map(url_of_place, input or []), raw)
        check_sources(rule, files)
        urls = {role: url for role, url in outputs.items() if url is not None}
        return pipeline.images(spark(), files, urls, rule, bad_pixels=treatment, method=method, more=more)

    run_on_spark("clean", config, output, work)


def _families(**flags: bool) -> tuple[str, ...]:
    return tuple(family for family, is_on in flags.items() if is_on)


def skim(
    output: OutputOption,
    select: Annotated[str, typer.Option("--select", metavar="QUERY", help="Events by their image parameters.")],
    catalogue: CatalogueOption = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Make a dataset of the images of selected events, with the masks that they have.

    Example: apbatch skim --select "cleaning = 'tailcuts-14-7' and size > 200 pe" --output images
    """
    from apbatch.spark import pipeline

    def work(spark: Callable[[], SparkSession], settings: Settings) -> StepSummary:
        sources = on_spark.selected_events(select, settings)
        return pipeline.skim(spark(), sources, {"images": output})

    run_on_spark("skim", config, output, work)


@takes_cleaning
def parameters(
    output: OutputOption,
    input: InputOption = None,
    select: EventsOption = None,
    rule: CleaningOptions = None,
    extras: ExtrasOption = False,
    halo: HaloOption = False,
    add: Annotated[bool, typer.Option("--register", help="Write the parameters into the store of events.")] = False,
    catalogue: CatalogueOption = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Compute image parameters of cleaned images with Spark.

    Example: apbatch parameters --input images --output parameters --register
    """
    from apbatch.index.events.upgrade import events_of
    from apbatch.spark import pipeline
    from apbatch.spark.inputs.plan import check_dataset
    from apbatch.spark.registration import register_events

    need_one(input=input, select=select)
    if select and add:
        raise UsageError(
            "parameters of selected events are in the store of events already", remedy="leave out --register"
        )
    more = _families(extras=extras, halo=halo)

    def work(spark: Callable[[], SparkSession], settings: Settings) -> StepSummary:
        if select:
            on_spark.need_their_masks(rule)
            sources = on_spark.selected_events(select, settings)
            return pipeline.skim(spark(), sources, {"parameters": output}, more=more)
        assert input is not None
        check_dataset(rule, input)  # says what is wrong before Spark starts
        if add:
            on_spark.check_registering(settings)
        summary = pipeline.parameters(spark(), input, output, cleaning=rule, more=more)
        if add:
            with events_of(settings) as events:
                note(f"{register_events(events, output)} events written")
        return summary

    run_on_spark("parameters", config, output, work)


@takes_cleaning
def grid(
    output: OutputOption,
    input: InputOption = None,
    select: EventsOption = None,
    rule: CleaningOptions = None,
    method: _MethodOption = "axial",
    catalogue: CatalogueOption = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Map hexagonal camera images onto square grids with Spark.

    Example: apbatch grid --input images --output grids --method axial
    """
    from apbatch.camera.grid import METHODS
    from apbatch.spark import pipeline
    from apbatch.spark.inputs.plan import check_dataset

    need_one(input=input, select=select)
    method = one_of("--method", method, METHODS)

    def work(spark: Callable[[], SparkSession], settings: Settings) -> StepSummary:
        if select:
            on_spark.need_their_masks(rule)
            return pipeline.skim(spark(), on_spark.selected_events(select, settings), {"grids": output}, method)
        assert input is not None
        check_dataset(rule, input)  # says what is wrong before Spark starts
        return pipeline.grid(spark(), input, output, method, cleaning=rule)

    run_on_spark("grid", config, output, work)


def stereo(
    output: OutputOption,
    input: Annotated[
        list[str],
        typer.Option("--input", metavar="PLACE ...", help="Datasets of image parameters, one for each camera."),
    ],
    axes: Annotated[
        str,
        typer.Option(
            "--axes",
            help="Of the cameras: vertical, x to the zenith, as in sim_telarray; horizontal, x to larger azimuth.",
        ),
    ] = "vertical",
    size_min: Annotated[str, typer.Option("--size-min", help="Images with less light do not count.")] = "0 pe",
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Reconstruct showers from the image parameters of several telescopes with Spark.

    Example: apbatch stereo --input lst/parameters nectar/parameters --output showers
    """
    from apbatch.camera.pointing import AXES
    from apbatch.datasets import dataset
    from apbatch.spark.stereo import stereo as reconstruct
    from apbatch.units import parse_quantity

    axes = one_of("--axes", axes, AXES)
    light = parse_quantity(size_min, "pe")
    urls = [url_of_place(place) for place in input]
    for url in urls:
        dataset.info(url)  # says what is wrong before Spark starts
    run_on_spark(
        "stereo",
        config,
        output,
        lambda spark, _: reconstruct(spark(), urls, output, size_min=light, axes=axes),  # type: ignore[arg-type]
    )


def quality(
    output: OutputOption,
    select: _SelectOption = None,
    input: _FilesOption = None,
    camera: _CameraOption = None,
    bin: Annotated[str, typer.Option("--bin", help="Width of a bin of time.")] = "10 s",
    catalogue: CatalogueOption = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Show rates, pedestals, dead and noisy pixels and missing clusters of runs, with plots: a folder with a page.

    Example: apbatch quality --select "format = 'taiga-raw' and night = 2017-10-28" --output quality
    """
    from apbatch.datasets import dataset
    from apbatch.spark.inputs.sources import RawOptions, sources_at
    from apbatch.spark.quality import check_quality, image_sources
    from apbatch.units import parse_quantity

    need_one(select=select, input=input)
    bin_s = parse_quantity(bin, "s")
    urls = [url_of_place(place) for place in input or []]
    raw = RawOptions(camera, calibrated=False)

    def sources(settings: Settings) -> list[Source]:
        if len(urls) == 1 and dataset.is_complete(urls[0]):
            return image_sources(urls[0])
        if urls:
            return sources_at(urls, raw)
        return on_spark.selected_images(settings, select or "", raw=raw)

    run_on_spark(
        "quality", config, output, lambda spark, settings: check_quality(spark(), sources(settings), output, bin_s)[1]
    )

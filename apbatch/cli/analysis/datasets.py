"""`apbatch compact`, `score`, `simulate`: datasets made of others, and of nothing, on Spark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apbatch.cli.analysis.on_spark import (
    ConfigOption,
    DebugOption,
    InputOption,
    OutputOption,
    check_registering,
    run_on_spark,
)
from apbatch.cli.output import note
from apbatch.errors import UsageError
from apbatch.storage.backends import local_path
from apbatch.storage.places import url_of_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession

    from apbatch.config import Settings
    from apbatch.spark.summary import StepSummary


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (compact, score, simulate):
        app.command(command.__name__)(command)


def compact(
    output: OutputOption,
    input: InputOption = None,
    size: Annotated[str, typer.Option("--size", help="Of a part file.")] = "128 Mbyte",
    renew: Annotated[bool, typer.Option("--register", help="Renew the pointers of events to its images.")] = False,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Make few part files of the many of a dataset, in place without --input; the same rows in the same order.

    Example: apbatch compact --output hdfs://HOST:PORT/datasets/images --register
    """
    from apbatch.datasets import dataset
    from apbatch.index.events.upgrade import events_of
    from apbatch.spark import compact as compaction
    from apbatch.spark.registration import point_again
    from apbatch.units import parse_quantity

    url, bytes_ = input or output, int(parse_quantity(size, "byte"))
    compaction.check_size(bytes_)  # says what is wrong before Spark starts
    if dataset.info(url).get("kind") != "images" and renew:
        raise UsageError("not a dataset of images: no event points to it", where=url)

    def work(spark: Callable[[], SparkSession], settings: Settings) -> StepSummary:
        if renew:
            check_registering(settings)
        summary = compaction.compact(spark(), url, output, bytes_)
        if renew:
            with events_of(settings) as events:
                note(f"{point_again(events, output)} pointers renewed")
        return summary

    run_on_spark("compact", config, output, work)


def score(
    output: OutputOption,
    input: Annotated[
        str, typer.Option("--input", parser=url_of_place, metavar="PLACE", help="Dataset of cleaned images.")
    ],
    training: Annotated[
        Path | None,
        typer.Option("--training", parser=local_path, metavar="FOLDER", help="Output of a training: one network."),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option("--study", parser=local_path, metavar="FOLDER", help="Output of a study: any of its methods."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="NAME", help="Network, trees or mean; default: the study's only mean."),
    ] = None,
    treatment: Annotated[
        str | None, typer.Option("--treatment", metavar="NAME", help="Treatment, if there are several.")
    ] = None,
    add: Annotated[bool, typer.Option("--register", help="Write the scores into the store of events.")] = False,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Score images on Spark with a trained network, or with a method of a study, such as a mean of network and trees.

    Example: apbatch score --input images --training trained --output scores --register

    Example: apbatch score --input images --study study --method halo --output scores
    """
    from apbatch.datasets import dataset
    from apbatch.dl import spark_scoring
    from apbatch.dl.study.study_method import StudyMethod
    from apbatch.index.events.upgrade import events_of
    from apbatch.spark.summary import StepSummary

    # All of this says what is wrong before Spark starts.
    source: spark_scoring.ScoreSource
    if (training is None) == (study is None):
        raise UsageError("scores come from a training or from a study", remedy="give --training or --study")
    dataset.info(input)
    if study is not None:
        source = StudyMethod(study, method, treatment)
    elif training is not None and method is None:
        source = spark_scoring.TrainedNetwork(training, treatment)
    else:
        raise UsageError("a training is of one network, not of methods", remedy="give --method with --study")

    def work(spark: Callable[[], SparkSession], settings: Settings) -> StepSummary:
        if add:
            check_registering(settings)
        done = spark_scoring.score_dataset(spark(), input, source, output)
        if add:
            with events_of(settings) as events:
                note(f"{spark_scoring.register_scores(events, output)} events written")
        losses = {"images without a measured pixel": done["without_pixels"]} if done["without_pixels"] else {}
        return StepSummary(images=done["images"], seconds=done["seconds"], losses=losses)

    run_on_spark("score", config, output, work)


def _number(name: str, of: str) -> Any:
    return typer.Option(f"--{name}", min=0, metavar="N", help=f"{of}; default: the settings'.")


def simulate(
    output: Annotated[
        Path, typer.Option("--output", parser=local_path, metavar="FOLDER", help="Seen by all workers; it is made.")
    ],
    gammas: Annotated[int | None, _number("gammas", "Gamma showers")] = None,
    point_gammas: Annotated[int | None, _number("point-gammas", "Gamma showers of a point source")] = None,
    protons: Annotated[int | None, _number("protons", "Proton showers")] = None,
    electrons: Annotated[int | None, _number("electrons", "Electron showers")] = None,
    helium: Annotated[int | None, _number("helium", "Helium showers")] = None,
    iron: Annotated[int | None, _number("iron", "Iron showers")] = None,
    seed: Annotated[int | None, _number("seed", "The same gives the same files")] = None,
    run: Annotated[int | None, _number("run", "Of the events")] = None,
    telescopes: Annotated[int | None, _number("telescopes", "Around each shower")] = None,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", parser=local_path, metavar="FILE", help="YAML with any parameter.")
    ] = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Simulate air showers and images of telescopes with Spark; `apbatch sim` does it on this machine alone.

    Example: apbatch simulate --gammas 1000 --protons 2000 --output /shared/production
    """
    from apbatch.sim.settings import load_production
    from apbatch.spark.simulation import simulate_on

    named = {
        "gammas": gammas, "point_gammas": point_gammas, "run": run,
        "protons": protons, "electrons": electrons, "helium_nuclei": helium, "iron_nuclei": iron,
        "seed": seed, "telescopes": telescopes,
    }  # fmt: skip
    production = load_production(settings_file, named)
    run_on_spark("simulate", config, str(output), lambda spark, _: simulate_on(spark(), production, output)[1])

"""Camera images on square grids: ``spark-submit jobs/grid.py --input URL --output URL --method axial``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from apbatch.camera.grid import METHODS
from apbatch.config import Settings
from apbatch.spark import pipeline, submit
from apbatch.spark.inputs.plan import check_dataset

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def options() -> argparse.ArgumentParser:
    """Return the options of the program."""
    found = submit.parser("grid", "Map hexagonal camera images onto square grids with Spark.")
    inputs = found.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--input", metavar="URL", help="dataset of images that clean.py made")
    inputs.add_argument("--select", metavar="QUERY", help=submit.EVENTS)
    submit.add_cleaning(found)
    found.add_argument("--method", default=METHODS[0], choices=METHODS, help="default: axial")
    return found


def work(spark: Callable[[], SparkSession], arguments: argparse.Namespace, settings: Settings) -> pipeline.StepSummary:
    """Run the step."""
    cleaning = submit.cleaning_in(arguments)
    if arguments.select:
        submit.need_their_masks(cleaning)
        sources = submit.selected_events(arguments.select, settings)
        return pipeline.skim(spark(), sources, {"grids": arguments.output}, arguments.method)
    check_dataset(cleaning, arguments.input)  # says what is wrong before Spark starts
    return pipeline.grid(spark(), arguments.input, arguments.output, arguments.method, cleaning=cleaning)


if __name__ == "__main__":
    submit.main(options(), work)

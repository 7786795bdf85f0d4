"""Quality of runs: ``spark-submit jobs/quality.py --select QUERY --output URL``, a folder with tables and a page."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from apbatch.config import Settings
from apbatch.datasets import dataset
from apbatch.index.backends import open_catalogue
from apbatch.index.events.upgrade import events_of
from apbatch.spark import submit
from apbatch.spark.inputs.selection import parse_select, selected_sources
from apbatch.spark.inputs.sources import Source, sources_at
from apbatch.spark.pipeline import StepSummary
from apbatch.spark.quality import check_quality, image_sources
from apbatch.units import parse_quantity

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def options() -> argparse.ArgumentParser:
    """Return the options of the program."""
    found = submit.parser("quality", "Rates, pedestals, dead and noisy pixels, missing clusters of runs, with plots.")
    inputs = found.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--select", metavar="QUERY", help="registered files, such as \"format = 'taiga-raw'\"")
    inputs.add_argument("--input", nargs="+", metavar="URL", help="files, folders, or a dataset of images")
    found.add_argument("--camera", help="with --input: camera of raw files")
    found.add_argument("--bin", default="10 s", help="width of a bin of time (default: 10 s)")
    return found


def sources(arguments: argparse.Namespace, settings: Settings) -> list[Source]:
    """Return the files to look at."""
    if arguments.input:
        if len(arguments.input) == 1 and dataset.is_complete(arguments.input[0]):
            return image_sources(arguments.input[0])
        return sources_at(arguments.input, camera=arguments.camera, calibrated=False)
    with open_catalogue(settings.catalogue) as catalogue, events_of(settings) as events:
        return selected_sources(catalogue, events, parse_select(catalogue, events, arguments.select))


def work(spark: Callable[[], SparkSession], arguments: argparse.Namespace, settings: Settings) -> StepSummary:
    """Run the step."""
    bin_s = parse_quantity(arguments.bin, "s")
    return check_quality(spark(), sources(arguments, settings), arguments.output, bin_s)[1]


if __name__ == "__main__":
    submit.main(options(), work)

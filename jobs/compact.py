"""Few part files of many, the same rows in the same order: ``spark-submit jobs/compact.py --output URL``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from apbatch.config import Settings
from apbatch.datasets import dataset
from apbatch.errors import UsageError
from apbatch.index.events.upgrade import events_of
from apbatch.progress import say
from apbatch.spark import submit
from apbatch.spark.compact import check_size, compact
from apbatch.spark.pipeline import StepSummary
from apbatch.spark.registration import point_again
from apbatch.units import parse_quantity

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def options() -> argparse.ArgumentParser:
    """Return the options of the program."""
    found = submit.parser("compact", "Make few part files of the many of a dataset.")
    found.add_argument(
        "--input", metavar="URL", help="dataset to read (default: the one at --output, which is replaced)"
    )
    found.add_argument("--size", default="128 Mbyte", help="of a part file (default: 128 Mbyte)")
    found.add_argument("--register", action="store_true", help="renew the pointers of events to its images")
    return found


def work(spark: Callable[[], SparkSession], arguments: argparse.Namespace, settings: Settings) -> StepSummary:
    """Run the step."""
    url, size = arguments.input or arguments.output, int(parse_quantity(arguments.size, "byte"))
    check_size(size)  # says what is wrong before Spark starts
    if dataset.info(url).get("kind") != "images" and arguments.register:
        raise UsageError("not a dataset of images: no event points to it", where=url)
    summary = compact(spark(), url, arguments.output, size)
    if arguments.register:
        with events_of(settings) as events:
            say(f"{point_again(events, arguments.output)} pointers renewed")
    return summary


if __name__ == "__main__":
    submit.main(options(), work)

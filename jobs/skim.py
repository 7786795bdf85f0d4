"""The images of selected events as a dataset: ``spark-submit jobs/skim.py --select QUERY --output URL``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from apbatch.config import Settings
from apbatch.spark import pipeline, submit

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def options() -> argparse.ArgumentParser:
    """Return the options of the program."""
    found = submit.parser("skim", "Make a dataset of the images of selected events, with the masks that they have.")
    found.add_argument("--select", required=True, metavar="QUERY", help=submit.EVENTS)
    return found


def work(spark: Callable[[], SparkSession], arguments: argparse.Namespace, settings: Settings) -> pipeline.StepSummary:
    """Run the step."""
    sources = submit.selected_events(arguments.select, settings)
    return pipeline.skim(spark(), sources, {"images": arguments.output})


if __name__ == "__main__":
    submit.main(options(), work)

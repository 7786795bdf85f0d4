"""Image parameters, optionally into the store of events: ``jobs/parameters.py --input URL --output URL``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from apbatch.config import Settings
from apbatch.errors import UsageError
from apbatch.index.events.upgrade import events_of
from apbatch.progress import say
from apbatch.spark import pipeline, submit
from apbatch.spark.inputs.plan import check_dataset
from apbatch.spark.registration import register_events

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def options() -> argparse.ArgumentParser:
    """Return the options of the program."""
    found = submit.parser("parameters", "Compute image parameters of cleaned images with Spark.")
    inputs = found.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--input", metavar="URL", help="dataset of images that clean.py made")
    inputs.add_argument("--select", metavar="QUERY", help=submit.EVENTS)
    submit.add_cleaning(found)
    submit.add_families(found)
    found.add_argument("--register", action="store_true", help="write the parameters into the store of events")
    return found


def work(spark: Callable[[], SparkSession], arguments: argparse.Namespace, settings: Settings) -> pipeline.StepSummary:
    """Run the step."""
    if arguments.select and arguments.register:
        raise UsageError(
            "parameters of selected events are in the store of events already", remedy="leave out --register"
        )
    cleaning, more = submit.cleaning_in(arguments), submit.families_in(arguments)
    if arguments.select:
        submit.need_their_masks(cleaning)
        sources = submit.selected_events(arguments.select, settings)
        return pipeline.skim(spark(), sources, {"parameters": arguments.output}, more=more)
    check_dataset(cleaning, arguments.input)  # says what is wrong before Spark starts
    summary = pipeline.parameters(spark(), arguments.input, arguments.output, cleaning=cleaning, more=more)
    if arguments.register:
        with events_of(settings) as events:
            say(f"{register_events(events, arguments.output)} events written")
    return summary


if __name__ == "__main__":
    submit.main(options(), work)

"""Scores of a trained network: ``spark-submit jobs/score.py --input URL --training FOLDER --output URL``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from apbatch.config import Settings
from apbatch.datasets import dataset
from apbatch.dl import spark_scoring
from apbatch.index.events.upgrade import events_of
from apbatch.progress import say
from apbatch.spark import submit
from apbatch.spark.pipeline import StepSummary

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def options() -> argparse.ArgumentParser:
    """Return the options of the program."""
    found = submit.parser("score", "Score images with a trained network on Spark.")
    found.add_argument("--input", required=True, metavar="URL", help="dataset of images that clean.py made")
    found.add_argument("--training", required=True, type=Path, help="output folder of a training on images")
    found.add_argument("--treatment", help="treatment, if the training has several")
    found.add_argument("--register", action="store_true", help="write the scores into the store of events")
    return found


def work(spark: Callable[[], SparkSession], arguments: argparse.Namespace, settings: Settings) -> StepSummary:
    """Run the step."""
    dataset.info(arguments.input)  # says what is wrong before Spark starts
    done = spark_scoring.score_dataset(
        spark(), arguments.input, arguments.training, arguments.output, arguments.treatment
    )
    if arguments.register:
        with events_of(settings) as events:
            say(f"{spark_scoring.register_scores(events, arguments.output)} events written")
    losses = {"images without a measured pixel": done["without_pixels"]} if done["without_pixels"] else {}
    return StepSummary(images=done["images"], seconds=done["seconds"], losses=losses)


if __name__ == "__main__":
    submit.main(options(), work)

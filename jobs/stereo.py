"""Showers seen by several telescopes: ``spark-submit jobs/stereo.py --input URL … --output URL``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from apbatch.camera.pointing import AXES
from apbatch.config import Settings
from apbatch.datasets import dataset
from apbatch.spark import submit
from apbatch.spark.pipeline import StepSummary
from apbatch.spark.stereo import stereo
from apbatch.units import parse_quantity

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def options() -> argparse.ArgumentParser:
    """Return the options of the program."""
    found = submit.parser("stereo", "Reconstruct showers from the image parameters of several telescopes with Spark.")
    found.add_argument(
        "--input", nargs="+", required=True, metavar="URL", help="datasets of image parameters, one for each camera"
    )
    found.add_argument(
        "--axes",
        choices=AXES,
        default="vertical",
        help="of the cameras: vertical, x to the zenith, as in sim_telarray (default); horizontal, x to larger azimuth",
    )
    found.add_argument("--size-min", default="0 pe", help="images with less light do not count (default: 0 pe)")
    return found


def work(spark: Callable[[], SparkSession], arguments: argparse.Namespace, settings: Settings) -> StepSummary:
    """Run the step."""
    size_min = parse_quantity(arguments.size_min, "pe")
    for url in arguments.input:
        dataset.info(url)  # says what is wrong before Spark starts
    return stereo(spark(), arguments.input, arguments.output, size_min=size_min, axes=arguments.axes)


if __name__ == "__main__":
    submit.main(options(), work)

"""Simulate showers and images: ``spark-submit jobs/simulate.py --gammas 1000 --protons 2000 --output file:///…``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from apbatch.config import Settings
from apbatch.sim.settings import load_production
from apbatch.spark import submit
from apbatch.spark.pipeline import StepSummary
from apbatch.spark.simulation import simulate_on
from apbatch.storage.backends import local_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_NUMBERS = {
    "gammas": "gammas", "point-gammas": "point_gammas", "protons": "protons", "electrons": "electrons",
    "helium": "helium_nuclei",
    "iron": "iron_nuclei", "seed": "seed", "run": "run", "telescopes": "telescopes",
}  # fmt: skip


def options() -> argparse.ArgumentParser:
    """Return the options of the program."""
    found = submit.parser("simulate", "Simulate air showers and images of telescopes with Spark.")
    found.add_argument("--settings", type=Path, metavar="FILE", help="YAML with any parameter of the production")
    for name in _NUMBERS:
        found.add_argument(f"--{name}", type=int, metavar="N", help="as of apbatch sim; default: the settings'")
    return found


def work(spark: Callable[[], SparkSession], arguments: argparse.Namespace, settings: Settings) -> StepSummary:
    """Run the production; its folder must be seen by all workers. `apbatch mirror` copies it into a store."""
    output = local_path(arguments.output)
    named = {field: getattr(arguments, name.replace("-", "_")) for name, field in _NUMBERS.items()}
    production = load_production(arguments.settings, named)
    return simulate_on(spark(), production, output)[1]


if __name__ == "__main__":
    submit.main(options(), work)

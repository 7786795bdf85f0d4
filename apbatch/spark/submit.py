"""What the programs under `jobs/` share: options, settings, session, one message for an error, a summary on the output.

They run as ``spark-submit jobs/clean.py …`` and as ``python jobs/clean.py …``. (spark-submit itself sends what a
program writes to standard error to its standard output.)
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from apbatch.camera.cleaning import Cleaning
from apbatch.camera.cleaning_words import WORDS, cleaning_of
from apbatch.config import Settings, load_settings
from apbatch.errors import ApbatchError, UsageError
from apbatch.index.backends import open_catalogue
from apbatch.index.events.upgrade import events_of
from apbatch.spark.connect.session import close, session
from apbatch.spark.inputs.selection import parse_select, selected_sources
from apbatch.spark.inputs.sources import Source
from apbatch.spark.pipeline import StepSummary

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Problems that are printed; all are counted.
_SHOWN = 10

#: What `--select` takes where masks are needed.
EVENTS = "events, such as \"experiment = 'TAIGA' and cleaning = 'tailcuts-14-7' and width < 0.2 deg\""

#: Families of further parameters, and what each holds.
FAMILIES = {
    "extras": "more parameters: uncertainties, leakage, concentrations, sizes of islands, the gradient of times",
    "halo": "parameters after four cleanings, and of the light in rings around the image",
}

#: Takes a function that starts Spark, to be called when what the user wants has been checked.
Work = Callable[[Callable[[], "SparkSession"], argparse.Namespace, Settings], StepSummary]


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all these programs have."""
    options = argparse.ArgumentParser(prog=name, description=description)
    options.add_argument("--config", type=Path, help="settings, such as conf/cluster.yaml (default: embedded)")
    options.add_argument("--output", required=True, metavar="URL", help="dataset to write, file:///… or hdfs://…")
    options.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return options


def add_cleaning(options: argparse.ArgumentParser) -> None:
    """Add the words that describe a cleaning (`apbatch.camera.cleaning_words`)."""
    for word, meaning in WORDS.items():
        option = f"--{word.replace('_', '-')}"
        if word in ("keep_isolated", "largest_island"):
            options.add_argument(option, action="store_const", const=True, help=meaning)
        elif word in ("min_neighbours", "time_neighbours"):
            options.add_argument(option, type=int, metavar="N", help=meaning)
        else:
            options.add_argument(option, metavar="NAME" if word == "cleaning" else "LEVEL", help=meaning)


def add_families(options: argparse.ArgumentParser) -> None:
    """Add the options of further image parameters."""
    for family, meaning in FAMILIES.items():
        options.add_argument(f"--{family}", action="store_true", help=meaning)


def families_in(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the families of further parameters that are asked for."""
    return tuple(family for family in FAMILIES if getattr(arguments, family))


def cleaning_in(arguments: argparse.Namespace) -> Cleaning | None:
    """Return the cleaning that the options describe; None without any of them.

    Raises
    ------
    NotFoundError, UsageError
        As `cleaning_of`.
    """
    words = {word: getattr(arguments, word) for word in WORDS if getattr(arguments, word) is not None}
    return cleaning_of(**words) if words else None


def need_their_masks(cleaning: Cleaning | None) -> None:
    """Refuse another cleaning of selected events, whose rows among the events are of the masks that they have.

    Raises
    ------
    UsageError
    """
    if cleaning is not None:
        raise UsageError(
            "selected events keep the masks that they have", remedy="jobs/clean.py --select cleans them again"
        )


def selected_events(query: str, settings: Settings) -> list[Source]:
    """Return the sources of the images of events.

    Raises
    ------
    UsageError
        If the query picks files, or nothing.
    """
    with open_catalogue(settings.catalogue) as catalogue, events_of(settings) as events:
        selection = parse_select(catalogue, events, query)
        if not selection.of_events:
            raise UsageError("the query picks files, not events", remedy="ask for cleaning = '…' and image parameters")
        return selected_sources(catalogue, events, selection)


def main(options: argparse.ArgumentParser, work: Work) -> None:
    """Run a program and exit: 0, 2 for a user's error, 1 for any other failure; JSON of the summary on the output."""
    sys.exit(_status(options, work))


def _status(options: argparse.ArgumentParser, work: Work) -> int:
    arguments = options.parse_args()
    try:
        settings = load_settings(arguments.config)
        with ExitStack() as stack:

            def spark() -> SparkSession:
                started = session(settings.spark, options.prog)
                stack.callback(close, started)
                return started

            summary = work(spark, arguments, settings)
    except ApbatchError as error:
        if arguments.debug:
            raise
        print(f"{options.prog}: {error}", file=sys.stderr)
        return error.status
    except Exception as error:
        if arguments.debug or os.environ.get("APBATCH_DEBUG"):
            raise
        print(f"{options.prog}: unexpected {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        return 1
    for problem in summary.problems[:_SHOWN]:
        print(f"{options.prog}: passed over: {problem}", file=sys.stderr)
    if len(summary.problems) > _SHOWN:
        print(f"{options.prog}: {len(summary.problems) - _SHOWN} more problems", file=sys.stderr)
    content = {**asdict(summary), "seconds": round(summary.seconds, 3), "output": arguments.output}
    del content["problems"]
    print(json.dumps(content))
    return 0

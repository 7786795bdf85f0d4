"""What the commands that work on Spark share: options, session, a summary as one line of JSON on the output.

``apbatch clean …``, ``spark-submit jobs/clean.py …`` and ``python jobs/clean.py …`` are the same command.
(spark-submit itself sends what a program writes to standard error to its standard output.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from apbatch.cli.output import note, show_line
from apbatch.errors import UsageError, nearest_word
from apbatch.storage.places import url_of_place

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from apbatch.camera.cleaning_rule import Cleaning
    from apbatch.config import Settings
    from apbatch.spark.inputs.sources import Source
    from apbatch.spark.pipeline import StepSummary

#: Problems that are printed; all are counted.
_SHOWN = 10
_EVENTS = "events, such as \"experiment = 'TAIGA' and cleaning = 'tailcuts-14-7' and width < 0.2 deg\""

#: Takes a function that starts Spark, to be called when what the user wants has been checked.
Work = Callable[[Callable[[], "SparkSession"], "Settings"], "StepSummary"]


def _debug(wanted: bool) -> None:
    if wanted:
        os.environ["APBATCH_DEBUG"] = "1"


ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings, such as conf/cluster.yaml.")]
DebugOption = Annotated[
    bool, typer.Option("--debug", callback=_debug, is_eager=True, help="Show the traceback of an error.")
]
OutputOption = Annotated[
    str, typer.Option("--output", parser=url_of_place, metavar="PLACE", help="Dataset to write: a path or a URL.")
]
InputOption = Annotated[
    str | None, typer.Option("--input", parser=url_of_place, metavar="PLACE", help="Dataset to read: a path or a URL.")
]
EventsOption = Annotated[str | None, typer.Option("--select", metavar="QUERY", help=f"Instead of --input: {_EVENTS}.")]

# The words of a cleaning; what they mean exactly: `apbatch.camera.cleaning_words`.
CleaningOption = Annotated[
    str | None, typer.Option("--cleaning", metavar="NAME", help="A preset, a name as tailcuts-14-7, or a method.")
]
PictureOption = Annotated[
    str | None, typer.Option("--picture", metavar="LEVEL", help="Of pixels of the picture: '14 pe', '4 sigma'.")
]
BoundaryOption = Annotated[
    str | None, typer.Option("--boundary", metavar="LEVEL", help="Of pixels beside them: '7 pe', '2 sigma'.")
]
MinNeighboursOption = Annotated[
    int | None, typer.Option("--min-neighbours", help="Neighbours of a picture pixel in the picture.")
]
KeepIsolatedOption = Annotated[bool, typer.Option("--keep-isolated", help="Keep picture pixels that stand alone.")]
TimeLimitOption = Annotated[
    str | None, typer.Option("--time-limit", metavar="TIME", help="To a kept neighbour, such as '5 ns'.")
]
TimeNeighboursOption = Annotated[
    int | None, typer.Option("--time-neighbours", help="Such neighbours that a pixel needs; else 1.")
]
LargestIslandOption = Annotated[bool, typer.Option("--largest-island", help="Keep the largest island only.")]

# Families of further image parameters.
ExtrasOption = Annotated[
    bool,
    typer.Option("--extras", help="Also uncertainties, leakage, concentrations, islands, the gradient of times."),
]
HaloOption = Annotated[bool, typer.Option("--halo", help="Also parameters after four cleanings, and of rings.")]


def cleaning_in(**words: Any) -> Cleaning | None:
    """Return the cleaning that the options describe; None without any of them.

    Raises
    ------
    NotFoundError, UsageError
        As `apbatch.camera.cleaning_words.cleaning_of`.
    """
    from apbatch.camera.cleaning_words import cleaning_of

    given = {word: value for word, value in words.items() if value not in (None, False)}
    return cleaning_of(**given) if given else None


def one_of(name: str, value: str, choices: Iterable[str]) -> str:
    """Return a value that must be one of few.

    Raises
    ------
    UsageError
        If it is none of them; it names the nearest.
    """
    choices = list(choices)
    if value not in choices:
        raise UsageError(
            f"'{value}' is not possible",
            where=name,
            nearest=nearest_word(value, choices),
            remedy=f"there are {', '.join(choices)}",
        )
    return value


def need_one(**options: object) -> None:
    """Refuse none, or several, of the options of which one is needed.

    Raises
    ------
    UsageError
    """
    given = [name for name, value in options.items() if value]
    if len(given) != 1:
        names = " or ".join(f"--{name}" for name in options)
        raise UsageError(f"{'both were given' if given else 'nothing to read'}: give {names}")


def need_their_masks(cleaning: Cleaning | None) -> None:
    """Refuse another cleaning of selected events, whose rows among the events are of the masks that they have.

    Raises
    ------
    UsageError
    """
    if cleaning is not None:
        raise UsageError("selected events keep the masks that they have", remedy="apbatch clean --select cleans anew")


def selected_events(query: str, settings: Settings) -> list[Source]:
    """Return the sources of the images of events.

    Raises
    ------
    UsageError
        If the query picks files, or nothing.
    """
    from apbatch.index.backends import open_catalogue
    from apbatch.index.events.upgrade import events_of
    from apbatch.spark.inputs.selection import parse_select, selected_sources

    with open_catalogue(settings.catalogue) as catalogue, events_of(settings) as events:
        selection = parse_select(catalogue, events, query)
        if not selection.of_events:
            raise UsageError("the query picks files, not events", remedy="ask for cleaning = '…' and image parameters")
        return selected_sources(catalogue, events, selection)


def run_on_spark(name: str, config: Path | None, output: str, work: Work) -> None:
    """Do the work of a command with the settings, and with Spark once it asks for it; print a summary.

    Raises
    ------
    ApbatchError
        From the work.
    """
    from apbatch.config import load_settings
    from apbatch.spark.connect.session import close, session

    settings = load_settings(config)
    with ExitStack() as stack:

        def spark() -> SparkSession:
            started = session(settings.spark, name)
            stack.callback(close, started)
            return started

        summary = work(spark, settings)
    for problem in summary.problems[:_SHOWN]:
        note(f"passed over: {problem}")
    if len(summary.problems) > _SHOWN:
        note(f"{len(summary.problems) - _SHOWN} more problems")
    content = {**asdict(summary), "seconds": round(summary.seconds, 3), "output": output}
    del content["problems"]
    show_line(content)


class SeveralValues(TyperCommand):
    """A command whose repeatable options also take several values in a row, such as ``--input A B``."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        """Write ``--input A B`` as ``--input A --input B``, then go on as usual."""
        repeatable = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        written: list[str] = []
        current = ""
        for position, argument in enumerate(arguments):
            before = arguments[position - 1] if position else ""
            if argument.startswith("-"):
                current = argument if argument in repeatable else ""
            elif current and before != current:
                written.append(current)
            written.append(argument)
        return super().parse_args(context, written)

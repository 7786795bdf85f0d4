"""What the commands that work on Spark share: options, session, a summary as one line of JSON on the output.

``apbatch clean …``, ``spark-submit jobs/clean.py …`` and ``python jobs/clean.py …`` are the same command.
(spark-submit itself sends what a program writes to standard error to its standard output.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
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
    from apbatch.spark.summary import StepSummary

#: Problems that are printed; all are counted.
_SHOWN = 10
_EVENTS = "events, such as \"experiment = 'TAIGA' and cleaning = 'tailcuts-14-7' and width < 0.2 deg\""

#: Takes a function that starts Spark, to be called when what the user wants has been checked.
Work = Callable[[Callable[[], "SparkSession"], "Settings"], "StepSummary"]


def _debug(debug: bool) -> None:
    if debug:
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

# Families of further image parameters.
ExtrasOption = Annotated[
    bool,
    typer.Option("--extras", help="Also uncertainties, leakage, concentrations, islands, the gradient of times."),
]
HaloOption = Annotated[bool, typer.Option("--halo", help="Also parameters after four cleanings, and of rings.")]


def one_of(name: str, value: str, choices: Iterable[str]) -> str:
    """Return a value that must be one of few.

    Parameters
    ----------
    name : str
        Of the option.
    value : str
        As given.
    choices : iterable of str

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
    sources = [name for name, value in options.items() if value]
    if len(sources) != 1:
        names = " or ".join(f"--{name}" for name in options)
        raise UsageError(f"{'both were given' if sources else 'nothing to read'}: give {names}")


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


@contextmanager
def spark_session(name: str, settings: Settings) -> Iterator[SparkSession]:
    """Run Spark for a command with the settings, and stop it in the end."""
    from apbatch.spark.connect.session import close, session

    started = session(settings.spark, name)
    try:
        yield started
    finally:
        close(started)


def run_on_spark(name: str, config: Path | None, output: str, work: Work) -> None:
    """Do the work of a command with the settings, and with Spark once it asks for it; print a summary.

    Parameters
    ----------
    name : str
        Of the command, shown by Spark.
    config : Path, optional
        File of settings.
    output : str
        Where the result lies, for the summary.
    work : callable
        Is given a function that starts Spark, and the settings; returns the summary of its step.

    Raises
    ------
    ApbatchError
        From the work.
    """
    from apbatch.config import load_settings

    settings = load_settings(config)
    with ExitStack() as stack:
        summary = work(lambda: stack.enter_context(spark_session(name, settings)), settings)
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

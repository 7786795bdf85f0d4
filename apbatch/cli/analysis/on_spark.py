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
from apbatch.config import CATALOGUE_VARIABLE
from apbatch.errors import UsageError, nearest_word
from apbatch.storage.places import url_of_place

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from apbatch.camera.cleaning_rule import Cleaning
    from apbatch.config import Settings
    from apbatch.spark.inputs.sources import RawOptions, Source
    from apbatch.spark.summary import StepSummary

#: Problems that are printed; all are counted.
_SHOWN = 10
_STORES = ("hdfs", "webhdfs", "afs", "local")
_EVENTS = "events, such as \"experiment = 'TAIGA' and cleaning = 'tailcuts-14-7' and width < 0.2 deg\""

#: Takes a function that starts Spark, to be called when what the user wants has been checked.
Work = Callable[[Callable[[], "SparkSession"], "Settings"], "StepSummary"]


def _debug(debug: bool) -> None:
    if debug:
        os.environ["APBATCH_DEBUG"] = "1"


def _catalogue(url: str | None) -> None:
    if url is not None:
        os.environ[CATALOGUE_VARIABLE] = url


ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings, such as conf/cluster.yaml.")]
DebugOption = Annotated[
    bool, typer.Option("--debug", callback=_debug, is_eager=True, help="Show the traceback of an error.")
]
CatalogueOption = Annotated[
    str | None,
    typer.Option(
        "--catalogue",
        callback=_catalogue,
        help="With --select: of a catalogue or a server, instead of the settings'.",
    ),
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
        If the query picks files, or nothing; or if a server is asked, which does not tell where cleaned images are.
    """
    from apbatch.client.transport import is_server
    from apbatch.spark.inputs.selection import parse_select, registered, selected_sources

    if is_server(settings.catalogue):
        raise UsageError(
            "a server does not tell where cleaned images are",
            where=settings.catalogue,
            remedy="apbatch clean --select QUERY cleans them anew; the result goes on with --input",
        )
    with registered(settings) as (catalogue, events):
        selection = parse_select(catalogue, events, query)
        if not selection.of_events:
            raise UsageError("the query picks files, not events", remedy="ask for cleaning = '…' and image parameters")
        return selected_sources(catalogue, events, selection)


def selected_images(
    settings: Settings, query: str, prefer: str = "site", raw: RawOptions | None = None
) -> list[Source]:
    """Return the sources of the images of registered files, or of events.

    Parameters
    ----------
    settings : Settings
        Name a catalogue, or a server, which gives the bytes as well.
    query : str
    prefer : str
        Where the files are read; see ``apbatch clean --from``.
    raw : RawOptions, optional
        Of raw files, where sites do not say it.

    Raises
    ------
    UsageError
        If nothing is picked.
    """
    from apbatch.spark.inputs.selection import parse_select, registered, selected_sources
    from apbatch.spark.inputs.sources import RawOptions

    preferred = _preferred(prefer, settings)
    with registered(settings) as (catalogue, events):
        return selected_sources(
            catalogue,
            events,
            parse_select(catalogue, events, query),
            prefer=preferred,
            only_preferred=prefer not in ("auto", "site"),
            raw=raw or RawOptions(),
        )


def _preferred(place: str, settings: Settings) -> str | None:
    from apbatch.client.transport import is_server
    from apbatch.storage.backends import split_url

    if is_server(settings.catalogue):
        from apbatch.client.served import KIND

        if place not in ("auto", "site"):
            raise UsageError(
                f"'--from {place}' is of no use: the server of the catalogue gives the bytes",
                remedy="leave it out; where the stores are reached, name the catalogue itself",
            )
        return KIND
    if place == "site":
        return None
    if place in ("auto", "mirror"):
        # Any folder of the store's file system will do: `apbatch mirror` may have been given another one.
        return split_url(settings.store)[0]
    if place in _STORES:
        return place
    if "/" not in place:
        words = ("auto", "site", "mirror", *_STORES)
        raise UsageError(
            f"'--from {place}' is not a place",
            nearest=nearest_word(place, words),
            remedy=f"{', '.join(words)}, or the path or URL of a store",
        )
    return url_of_place(place)


def check_registering(settings: Settings) -> None:
    """Refuse to write into the store of events of a catalogue behind a server, before any work.

    Raises
    ------
    UsageError
    """
    from apbatch.client.transport import is_server

    if is_server(settings.catalogue):
        raise UsageError(
            "a server takes no events",
            where=settings.catalogue,
            remedy="leave out --register, or give it where the catalogue itself is reached",
        )


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

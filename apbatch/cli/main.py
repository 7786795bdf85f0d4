"""The `apbatch` command: finds the command groups and turns every error into one message and a status."""

from __future__ import annotations

import codecs
import importlib
import locale
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import Abort, TyperException

import apbatch
from apbatch.cli.output import finish, report, show_text
from apbatch.config import CATALOGUE_VARIABLE
from apbatch.errors import UsageError
from apbatch.messages import ERRORS_VARIABLE

#: Modules of `apbatch.cli`, each with a function ``register(app)``.
GROUPS = (
    *("doctor", "cluster", "site", "find", "index", "events", "mirror", "mount"),
    *("analysis.images", "analysis.datasets", "sample", "policy", "secret", "export", "gateway", "service"),
    *("analysis.sim", "analysis.train", "analysis.run", "analysis.blind", "analysis.bench"),
    *("cvmfs", "serve", "harvest"),
)
_DEBUG = "APBATCH_DEBUG"


class ErrorFormat(StrEnum):
    """How messages on standard error look."""

    TEXT = "text"
    JSON = "json"


def _version(value: bool) -> None:
    if value:
        show_text(f"apbatch {apbatch.__version__}")
        raise typer.Exit


def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file; default $APBATCH_CONFIG or embedded.")
    ] = None,
    catalogue: Annotated[
        str | None,
        typer.Option("--catalogue", help="URL of a catalogue or of a server (https://…), instead of the settings'."),
    ] = None,
    errors: Annotated[
        ErrorFormat | None,
        typer.Option("--errors", help="Messages on standard error; default text, and json with --format json."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Data of several experiments in place, one searchable tree, telescope images to gamma-ray candidates."""
    if debug:
        os.environ[_DEBUG] = "1"
    if config is not None:
        os.environ["APBATCH_CONFIG"] = str(config.absolute())
    if catalogue is not None:
        os.environ[CATALOGUE_VARIABLE] = catalogue
    if errors is not None:
        os.environ[ERRORS_VARIABLE] = errors.value


def application() -> Any:
    """Return the command with all its groups."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})(_options)
    for name in GROUPS:
        importlib.import_module(f"apbatch.cli.{name}").register(app)
    command = typer.main.get_command(app)
    _name_no_type_of_flags(command)
    return command


def _name_no_type_of_flags(command: Any, above: Any = None) -> None:
    """Leave ``<bool>`` out of the help: a flag takes no value."""
    context = typer.Context(command, parent=above, **command.context_settings)
    help_option = command.get_help_option(context)
    for parameter in (*command.params, *([help_option] if help_option is not None else [])):
        if getattr(parameter, "is_bool_flag", False):
            parameter.metavar = ""
    for below in getattr(command, "commands", {}).values():
        _name_no_type_of_flags(below, context)


def run_command(command: Any, program: str = "apbatch", arguments: list[str] | None = None) -> int:
    """Run a command of typer; return the exit status: 0, 2 for a user's error, 1 for any other failure.

    Parameters
    ----------
    command : click.Command
        What typer made of the functions.
    program : str
        Its name in messages.
    arguments : list of str, optional
        By default those of this process.
    """
    with _environment_kept(ERRORS_VARIABLE), _environment_kept(CATALOGUE_VARIABLE):
        return _run(command, program, arguments)


@contextmanager
def _environment_kept(name: str) -> Iterator[None]:
    before = os.environ.get(name)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def _run(command: Any, program: str, arguments: list[str] | None) -> int:
    try:
        status = command(args=arguments, prog_name=program, standalone_mode=False)
        finish()
        return status if isinstance(status, int) else 0
    except TyperException as error:  # typer brings a click of its own
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        if message:
            message = message.replace("Value error, ", "")
            report(UsageError(message, remedy=f"{program} --help shows what is possible"), program)
        return 2
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):  # rich, whose reader went away
            return 0
        raise
    except (KeyboardInterrupt, Abort):
        return max(report(UsageError("interrupted"), program), 130)
    except Exception as error:  # the last line of defence: a message, never a traceback, unless asked for
        if os.environ.get(_DEBUG):
            raise
        return report(error, program)


def main(*command: str) -> None:
    """Run the command line and exit; with `command`, a program that is one command, such as ``jobs/clean.py``."""
    _use_utf8()
    sys.exit(run_command(application(), arguments=[*command, *sys.argv[1:]]))


def _use_utf8() -> None:
    """Start anew in Python's UTF-8 mode where the locale has another encoding.

    Names of files, state files and output would else depend on the locale of whoever writes and reads them.
    """
    if sys.flags.utf8_mode or codecs.lookup(locale.getpreferredencoding(False)).name == "utf-8":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])

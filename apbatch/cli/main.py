"""The `apbatch` command: finds the command groups and turns every error into one message and a status."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

import apbatch
from apbatch.errors import ApbatchError

#: Modules of `apbatch.cli`, each with a function ``register(app)``.
GROUPS = ("doctor", "cluster", "site", "find", "events", "mirror", "sim", "run", "blind", "bench")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"apbatch {apbatch.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    config: Annotated[str, typer.Option("--config", help="Settings file; default $APBATCH_CONFIG or embedded.")] = "",
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Data of several experiments in place, one searchable tree, telescope images to gamma-ray candidates."""
    if debug:
        os.environ["APBATCH_DEBUG"] = "1"
    if config:
        os.environ["APBATCH_CONFIG"] = config


def main() -> None:
    """Run the command line; exit status 0, 2 for a user's error, 1 for any other failure."""
    for name in GROUPS:
        importlib.import_module(f"apbatch.cli.{name}").register(app)
    try:
        status = app(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except ApbatchError as error:
        if os.environ.get("APBATCH_DEBUG"):
            raise
        print(f"apbatch: {error}", file=sys.stderr)
        sys.exit(error.status)
    except TyperException as error:  # typer brings a click of its own
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        if message:
            print(f"apbatch: {message} (--help shows what is possible)", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, Abort):
        print("apbatch: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # the last line of defence: a message, never a traceback, unless asked for
        if os.environ.get("APBATCH_DEBUG"):
            raise
        print(f"apbatch: unexpected {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        sys.exit(1)

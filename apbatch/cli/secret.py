"""`apbatch secret`: the secrets that sign the URLs of blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apbatch.cli.output import note

_HELP = "Secrets of a site's agent or a gateway, which sign the URLs of blocks."
secret_app = typer.Typer(no_args_is_help=True, help=_HELP)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(secret_app, name="secret")
    secret_app.callback(help=_HELP)(_group)


def _group() -> None:
    """Keep `new` a command of its own: a group of one would lose its name."""


@secret_app.command("new")
def new(
    file: Annotated[
        Path, typer.Argument(help="File of secrets, readable by its owner alone; made if it is not there.")
    ],
    keep: Annotated[int, typer.Option("--keep", min=0, max=9, help="Old secrets that stay good; 0 revokes all.")] = 1,
) -> None:
    """Put a new secret in front of a file's secrets; a running agent follows within seconds."""
    from apbatch.access.agents.capability import rotate_secret

    number = rotate_secret(file, keep)
    note(f"{file} holds {number} secret{'' if number == 1 else 's'}; the newest signs")

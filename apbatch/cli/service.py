"""`apbatch service`: units of systemd for what runs all the time or now and then."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from apbatch.cli.output import note, show_text


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("service")(service)


def service(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="serve, agent, gateway, watch, mirror, verify.")
    ],
    site: Annotated[str, typer.Option("--site", help="Of an agent, or to be watched.")] = "",
    agent: Annotated[
        list[str] | None, typer.Option("--agent", help="Of a gateway: a site and its agent, SITE=http://HOST:PORT.")
    ] = None,
    user: Annotated[str, typer.Option("--user", help="Account under which it runs.")] = "apbatch",
    folder: Annotated[
        str, typer.Option("--folder", help="Of apbatch.yaml, replicas.yaml, secrets and agent-token.")
    ] = "/etc/apbatch",
    program: Annotated[str, typer.Option("--program", help="Path of apbatch; default: this one.")] = "",
    to: Annotated[Path | None, typer.Option("--to", help="Write the units into this folder; default: print.")] = None,
) -> None:
    """Print units of systemd. They hold no secret, and give a service no right that it does not need."""
    from apbatch.cluster.units import Place, units
    from apbatch.localfiles import write_whole

    path = program or str(Path(sys.executable).with_name("apbatch"))
    place = Place(path, user, folder.rstrip("/"), site, tuple(agent or ()))
    written = units(names, place)
    if to is None:
        show_text("\n".join(f"# {name}\n{text}" for name, text in written.items()).rstrip("\n"))
        return
    for name, text in written.items():
        write_whole(to / name, text)
        note(f"{to / name} is written")

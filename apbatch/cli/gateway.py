"""`apbatch gateway`: merges sites that agents serve, and serves the merged tree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apbatch.cli.output import note


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("gateway")(gateway)


def gateway(
    agent: Annotated[
        list[str] | None, typer.Option("--agent", help="A site and its agent, SITE=http://HOST:PORT.")
    ] = None,
    select: Annotated[str, typer.Option("--select", help="Serve only the files that match this query.")] = "",
    below: Annotated[str, typer.Option("--below", help="Serve only this folder of the merged tree.")] = "",
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 0,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Policy file; default: of the settings, or of the catalogue.")
    ] = None,
    secrets: Annotated[Path | None, typer.Option("--secrets", help="Secrets; default: the environment's.")] = None,
    certfile: Annotated[Path | None, typer.Option("--certfile", help="Certificate for TLS.")] = None,
    keyfile: Annotated[Path | None, typer.Option("--keyfile", help="Its key.")] = None,
) -> None:
    """Follow agents' feeds into this catalogue, and serve blocks and files of all that it holds, or of a part.

    Metadata come at once, bytes when they are asked for. Tokens of this home and of the provider that the settings name
    say who asks. Several copies may stand beside each other with the same
    catalogue, policy and secrets.
    """
    from apbatch.errors import MissingSoftwareError, UsageError

    try:
        from apbatch.access.agents.agent import serve_gateway
        from apbatch.access.serving.draining import Tls
        from apbatch.api.identity import identity_of
    except ImportError as error:
        raise MissingSoftwareError(
            f"a package for the gateway is missing: {error}", remedy="pip install 'apbatch[api]'"
        ) from error
    from apbatch.access.view import View
    from apbatch.config import load_settings

    agents = {}
    for text in agent or ():
        site, _, url = text.partition("=")
        if not site or not url.startswith(("http://", "https://")):
            raise UsageError(f"'{text}' is not a site and its agent", remedy="--agent taiga=http://HOST:PORT")
        agents[site] = url
    serve_gateway(
        agents, host, port, view=View(select, below), policy=policy, secrets=secrets, announce=note,
        identify=identity_of(load_settings().service).principal, tls=Tls.of(certfile, keyfile),
    )  # fmt: skip

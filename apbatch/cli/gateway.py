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
    agent: Annotated[list[str], typer.Option("--agent", help="A site and its agent, SITE=http://HOST:PORT.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 0,
    policy: Annotated[Path | None, typer.Option("--policy", help="Policy file; default: what is shared.")] = None,
    secrets: Annotated[Path | None, typer.Option("--secrets", help="Secrets; default: the environment's.")] = None,
) -> None:
    """Follow agents' feeds into this catalogue, and serve blocks and files of all of them.

    Metadata come at once, bytes when they are asked for. Several copies may stand beside each other with the same
    catalogue, policy and secrets.
    """
    from apbatch.access.agents.agent import serve_gateway
    from apbatch.errors import UsageError

    agents = {}
    for text in agent:
        site, _, url = text.partition("=")
        if not site or not url.startswith(("http://", "https://")):
            raise UsageError(f"'{text}' is not a site and its agent", remedy="--agent taiga=http://HOST:PORT")
        agents[site] = url
    serve_gateway(agents, host, port, policy=policy, secrets=secrets, announce=note)

"""`apbatch serve` and `apbatch token`: the catalogue for people and programs."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from apbatch.cli.output import Format, FormatOption, note, show

_FACE = ("id", "name", "state", "groups", "roles", "created", "expires")

token_app = typer.Typer(no_args_is_help=True, help="Tokens with which people and programs show who they are.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("serve")(serve)
    app.add_typer(token_app, name="token")


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8765,
    auth: Annotated[
        bool,
        typer.Option(
            "--auth",
            help="Without a token nobody is the owner; needed beyond the loopback address; always so with --site.",
        ),
    ] = False,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Policy file; default: of the settings, or of the catalogue.")
    ] = None,
    certfile: Annotated[Path | None, typer.Option("--certfile", help="Certificate for TLS.")] = None,
    keyfile: Annotated[Path | None, typer.Option("--keyfile", help="Its key.")] = None,
    site: Annotated[str, typer.Option("--site", help="Serve one site's files to aggregators, and nothing else.")] = "",
) -> None:
    """Serve the catalogue: web page, REST, GraphQL, TAP and OAI-PMH.

    On the loopback address, without --auth, whoever reaches the port is the owner: on a machine that others use as
    well, give --auth.
    """
    from apbatch.errors import MissingSoftwareError

    try:
        from apbatch.access.serving.draining import Tls

        tls = Tls.of(certfile, keyfile)
        if site:
            from apbatch.access.agents.agent import serve_site
            from apbatch.api.identity import identity_of
            from apbatch.config import load_settings

            identity = identity_of(load_settings().service)
            serve_site(site, host, port, policy=policy, announce=note, identify=identity.principal, tls=tls)
            return
        from apbatch.api.run import run
    except ImportError as error:
        raise MissingSoftwareError(
            f"a package for the service is missing: {error}", remedy="pip install 'apbatch[api]'"
        ) from error
    from apbatch.access.policy import Policy
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.index.events.upgrade import events_of

    settings = load_settings()
    with ExitStack() as stack:
        catalogue = stack.enter_context(open_catalogue(settings.catalogue))
        events = stack.enter_context(events_of(settings))
        rules = Policy.in_force(catalogue, policy)
        run(
            catalogue, events, rules, settings.service, host=host, port=port, auth=auth, tls=tls, say=note,
        )  # fmt: skip


@token_app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who will use it, as the policy names people.")],
    group: Annotated[list[str] | None, typer.Option("--group", help="A group; may be given several times.")] = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="A role, such as operator.")] = None,
    days: Annotated[float | None, typer.Option("--days", help="How long it is valid; default: until revoked.")] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Make a token. It is shown once: only its hash is kept."""
    from apbatch.api.tokens import TokenFile

    token = TokenFile().create(name, tuple(group or ()), tuple(role or ()), days)
    show([{"name": name, "token": token}], format, ("name", "token"))


@token_app.command("list")
def list_tokens(format: FormatOption = Format.TABLE) -> None:
    """List tokens by their public part; the tokens themselves are not kept."""
    from apbatch.api.tokens import TokenFile

    show(TokenFile().list(), format, _FACE)


@token_app.command("revoke")
def revoke(
    identifier: Annotated[str, typer.Argument(help="Public part of the token, as the list shows it.")] = "",
    user: Annotated[str, typer.Option("--user", help="Refuse everything of this user, of whatever issuer.")] = "",
    allow: Annotated[bool, typer.Option("--allow", help="With --user: no longer refuse.")] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Revoke a token, or refuse a user; a running service follows at once."""
    from apbatch.api.tokens import TokenFile
    from apbatch.errors import UsageError

    if bool(identifier) == bool(user):
        raise UsageError("name a token or a user", remedy="apbatch token revoke ID, or --user NAME")
    if user:
        TokenFile().block(user, not allow)
        show([{"user": user, "outcome": "allowed" if allow else "refused"}], format)
        return
    token = TokenFile().revoke(identifier)
    show([{"id": token.id, "name": token.name, "outcome": "revoked"}], format)

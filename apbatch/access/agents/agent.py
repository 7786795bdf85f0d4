"""Runs an agent beside a site, or a gateway, until a signal ends it: first what is under way is finished."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from apbatch.access.agents.capability import Secrets
from apbatch.access.agents.followers import Followers
from apbatch.access.agents.gateway import Gateway
from apbatch.access.agents.server import Identify, Server, nobody
from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import OWNER
from apbatch.access.reader import Reader
from apbatch.access.serving.draining import Tls, address_of, listen, serve
from apbatch.access.sources import Opener, at_agents, at_site
from apbatch.access.view import WHOLE, View
from apbatch.config import home, load_settings
from apbatch.index.catalogue import Catalogue
from apbatch.ingest.remote.client import Agent
from apbatch.ingest.remote.feed import Follower
from apbatch.progress import say


def gateway_over(
    catalogue: Catalogue,
    policy: Policy,
    secrets: Secrets,
    site: str | None,
    openers: Sequence[Opener],
    view: View = WHOLE,
) -> Gateway:
    """Return a gateway with a reader of its own.

    Parameters
    ----------
    view : View
        The part of the tree that is served.
    catalogue : Catalogue
    policy : Policy
        Who may see and read what.
    secrets : Secrets
        By which capabilities are signed.
    site : str, optional
        Only this one's files.
    openers : sequence of Opener
        How holdings are reached.
    """
    reader = Reader(Guard(catalogue, None, policy, OWNER), openers=openers)
    return Gateway(catalogue, policy, secrets, reader, site, view)


def serve_site(
    name: str,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    policy: Path | None = None,
    secrets: Path | None = None,
    identify: Identify = nobody,
    tls: Tls | None = None,
    announce: Callable[[str], None] = say,
) -> None:
    """Serve the files of a site, in place, until SIGTERM or SIGINT.

    Parameters
    ----------
    name : str
        Of the site.
    host, port : str, int
        Where to listen; port 0 takes a free one.
    policy : pathlib.Path, optional
        Policy file; by default the one that the settings name, or the catalogue holds. Without any, nothing is served
        to anybody.
    secrets : pathlib.Path, optional
        File of the site's secrets; see `Secrets`.
    identify : callable
        Says who sends a request.
    tls : Tls, optional
    announce : callable
        Is told the address.

    Raises
    ------
    NotFoundError, UsageError
        If there is no such site or no secret.
    ServerError
        If the port is taken.
    """
    from apbatch.index.backends import open_catalogue
    from apbatch.ingest.sites import load_site

    settings = load_settings()
    site = load_site(name)
    with ExitStack() as stack:
        catalogue = stack.enter_context(open_catalogue(settings.catalogue))
        rules = Policy.in_force(catalogue, policy)
        if not rules.exists:
            announce("there is no policy: nothing is served to anybody (apbatch policy share FILE)")
        gateway = gateway_over(catalogue, rules, Secrets(secrets), site.name, (at_site,))
        stack.callback(gateway.close)
        run(Server(gateway, identify), host, port, announce, f"site {site.name}", tls)


def serve_gateway(
    agents: Mapping[str, str],
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    view: View = WHOLE,
    policy: Path | None = None,
    secrets: Path | None = None,
    identify: Identify = nobody,
    tls: Tls | None = None,
    announce: Callable[[str], None] = say,
) -> None:
    """Follow agents' feeds into the catalogue and serve what it holds, until SIGTERM or SIGINT.

    Parameters
    ----------
    agents : Mapping
        Address of the agent by name of the site.
    view : View
        The part of the tree that is served.
    host, port, policy, secrets, identify, tls, announce
        As `serve_site` takes them; the secrets are the gateway's own, the same for all its copies.

    Raises
    ------
    NotFoundError, UsageError
        If there is no secret, or the policy is wrong.
    ServerError
        If the port is taken.
    """
    from apbatch.index.backends import open_catalogue

    clients = {site: Agent(url) for site, url in agents.items()}
    ended = threading.Event()
    with ExitStack() as stack:
        catalogue = stack.enter_context(open_catalogue(load_settings().catalogue))
        rules = Policy.in_force(catalogue, policy)
        if not rules.exists:
            announce("there is no policy: nothing is served to anybody (apbatch policy share FILE)")
        openers = (at_site, at_agents(clients))
        gateway = gateway_over(catalogue, rules, Secrets(secrets), None, openers, view)
        stack.callback(gateway.close)
        followers = [Follower(client, catalogue, site, home() / "agents") for site, client in clients.items()]
        server = Server(gateway, identify)
        server.operations.registry.register(Followers(followers))
        for one in followers:
            thread = threading.Thread(target=one.follow, args=(ended,), name=f"follow {one.site}", daemon=True)
            thread.start()
            stack.callback(thread.join, 60)
        stack.callback(ended.set)
        run(server, host, port, announce, "the merged tree", tls)


def run(
    server: Server, host: str, port: int, announce: Callable[[str], None], what: str, tls: Tls | None = None
) -> None:
    """Serve until a signal ends it; connections that are open may finish.

    Parameters
    ----------
    server : Server
    host : str
        Address to listen at.
    port : int
        0 for any that is free.
    announce : callable
        Is given the line that says where it listens.
    what : str
        What is served, for that line.
    tls : Tls, optional

    Raises
    ------
    ServerError
        If the port is taken.
    """
    listener = listen(host, port)
    announce(f"{what} is served at {address_of(listener, host, tls)}")
    serve(server, listener, server.draining, tls)

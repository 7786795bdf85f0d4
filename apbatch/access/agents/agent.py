"""Runs an agent beside a site, or a gateway, until a signal ends it: first what is under way is finished."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import uvicorn

from apbatch.access.agents.aggregate import Follower
from apbatch.access.agents.capability import Secrets
from apbatch.access.agents.client import Agent, at_agents
from apbatch.access.agents.gateway import Gateway
from apbatch.access.agents.server import Identify, Server, nobody
from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import OWNER
from apbatch.access.reader import Reader
from apbatch.access.sources import Opener, at_local_site
from apbatch.config import home, load_settings
from apbatch.errors import ServerError
from apbatch.index.catalogue import Catalogue
from apbatch.progress import say

#: Seconds for which what is under way may go on after the signal.
_DRAIN_S = 20
_CONNECTIONS = 1000


def gateway_over(
    catalogue: Catalogue, policy: Policy, secrets: Secrets, site: str | None, openers: Sequence[Opener]
) -> Gateway:
    """Return a gateway whose reader reaches holdings by `openers`."""
    reader = Reader(Guard(catalogue, None, policy, OWNER), openers=openers)
    return Gateway(catalogue, policy, secrets, reader, site)


def serve_site(
    name: str,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    policy: Path | None = None,
    secrets: Path | None = None,
    identify: Identify = nobody,
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
        Policy file; by default the one that the catalogue holds. Without any, nothing is served to anybody.
    secrets : pathlib.Path, optional
        File of the site's secrets; see `Secrets`.
    identify : callable
        Says who sends a request.
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
        rules = Policy.load(policy, catalogue)
        if not rules.exists:
            announce("there is no policy: nothing is served to anybody (apbatch policy share FILE)")
        gateway = gateway_over(catalogue, rules, Secrets(secrets), site.name, (at_local_site,))
        stack.callback(gateway.close)
        run(Server(gateway, identify), host, port, announce, f"site {site.name}")


def serve_gateway(
    agents: Mapping[str, str],
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    policy: Path | None = None,
    secrets: Path | None = None,
    identify: Identify = nobody,
    announce: Callable[[str], None] = say,
) -> None:
    """Follow agents' feeds into the catalogue and serve all that it holds, until SIGTERM or SIGINT.

    Parameters
    ----------
    agents : Mapping
        Address of the agent by name of the site.
    host, port, policy, secrets, identify, announce
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
        rules = Policy.load(policy, catalogue)
        if not rules.exists:
            announce("there is no policy: nothing is served to anybody (apbatch policy share FILE)")
        gateway = gateway_over(catalogue, rules, Secrets(secrets), None, (at_local_site, at_agents(clients)))
        stack.callback(gateway.close)
        for site, client in clients.items():
            follower = Follower(client, catalogue, site, home() / "agents")
            thread = threading.Thread(target=follower.follow, args=(ended,), name=f"follow {site}", daemon=True)
            thread.start()
            stack.callback(thread.join, 60)
        stack.callback(ended.set)
        run(Server(gateway, identify), host, port, announce, "the merged tree")


def run(server: Server, host: str, port: int, announce: Callable[[str], None], what: str) -> None:
    """Serve until a signal ends it; connections that are open may finish.

    Raises
    ------
    ServerError
        If the port is taken.
    """
    listener = _listener(host, port)
    config = uvicorn.Config(
        server, log_level="warning", access_log=False, server_header=False, timeout_keep_alive=30,
        limit_concurrency=_CONNECTIONS, h11_max_incomplete_event_size=65_536, proxy_headers=False,
        timeout_graceful_shutdown=_DRAIN_S,
    )  # fmt: skip
    name = f"[{host}]" if ":" in host else host
    announce(f"{what} is served at http://{name}:{listener.getsockname()[1]}")
    _Draining(config, server).run(sockets=[listener])


class _Draining(uvicorn.Server):
    """A server that tells its streams of changes to end when a signal comes."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._server = server

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal."""
        self._server.draining.set()
        super().handle_exit(sig, frame)


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        where, remedy = f"{host}:{port}", "choose another --port, or 0 for a free one"
        raise ServerError(f"can't listen: {error.strerror}", where=where, remedy=remedy) from None
    return listener

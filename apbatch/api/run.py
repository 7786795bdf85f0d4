"""Runs the service in this process until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from apbatch.access.cache import BlockCache
from apbatch.access.opening import Opening
from apbatch.access.policy import Policy
from apbatch.api.app import build
from apbatch.api.gate import is_loopback
from apbatch.api.identity import Identity, Provider
from apbatch.api.service import Service
from apbatch.api.tokens import TokenFile
from apbatch.config import ServiceSettings, cache, home
from apbatch.errors import NotFoundError, ServerError, UsageError
from apbatch.index.catalogue import Catalogue
from apbatch.index.events.store import EventStore

#: Connections that are served at once; more wait to be accepted.
_CONNECTIONS = 1000


def service_for(
    catalogue: Catalogue, events: EventStore | None, policy: Policy, settings: ServiceSettings, *, auth: bool
) -> Service:
    """Return a service of this home; without `auth` everybody who reaches it is the owner."""
    identity = Identity(None)
    if auth:
        identity = Identity(TokenFile(), Provider(settings.oidc) if settings.oidc else None)
    return Service(catalogue, events, policy, identity, home(), settings, Opening(BlockCache(cache() / "blocks")))


def run(
    catalogue: Catalogue,
    events: EventStore | None,
    policy: Policy,
    settings: ServiceSettings,
    *,
    host: str,
    port: int,
    auth: bool,
    certfile: Path | None,
    keyfile: Path | None,
    say: Callable[[str], None],
) -> None:
    """Serve until a signal ends it.

    Raises
    ------
    UsageError
        If the address is not the loopback interface's and there is no authentication, or TLS lacks a file.
    ServerError
        If the port is taken.
    """
    if not auth and not is_loopback(host):
        raise UsageError(
            f"'{host}' is not the loopback address", remedy="add --auth, and make tokens: apbatch token create"
        )
    if (certfile is None) != (keyfile is None):
        raise UsageError("TLS needs a certificate and its key", remedy="--certfile FILE --keyfile FILE")
    for file in (certfile, keyfile):
        if file is not None and not file.is_file():
            raise NotFoundError("no such file", where=str(file))
    service = service_for(catalogue, events, policy, settings, auth=auth)
    config = uvicorn.Config(
        build(service), log_level="warning", access_log=False, server_header=False, timeout_keep_alive=30,
        limit_concurrency=_CONNECTIONS, h11_max_incomplete_event_size=65_536, proxy_headers=False,
        timeout_graceful_shutdown=5, ssl_certfile=certfile, ssl_keyfile=keyfile,
    )  # fmt: skip
    listener = _listener(host, port)
    scheme = "https" if certfile else "http"
    name = f"[{host}]" if ":" in host else host
    to = "whom the policy allows" if auth else "its owner"
    say(f"serving on {scheme}://{name}:{listener.getsockname()[1]} to {to}")
    uvicorn.Server(config).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ServerError(
            f"can't listen: {error.strerror}",
            where=f"{host}:{port}",
            remedy="choose another --port, or 0 for a free one",
        ) from None
    return listener

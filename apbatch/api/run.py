"""Runs the service in this process until it is told to stop."""

from __future__ import annotations

from collections.abc import Callable

from apbatch.access.cache import BlockCache
from apbatch.access.opening import Opening
from apbatch.access.policy import Policy
from apbatch.access.serving.draining import Tls, address_of, listen, serve
from apbatch.api.app import build
from apbatch.api.gate import is_loopback
from apbatch.api.identity import Identity, identity_of
from apbatch.api.service import Service
from apbatch.config import ServiceSettings, cache, home
from apbatch.errors import UsageError
from apbatch.index.catalogue import Catalogue
from apbatch.index.events.store import EventStore


def service_for(
    catalogue: Catalogue, events: EventStore | None, policy: Policy, settings: ServiceSettings, *, auth: bool
) -> Service:
    """Return a service of this home.

    Parameters
    ----------
    catalogue : Catalogue
    events : EventStore, optional
    policy : Policy
        Who may see and read what.
    settings : ServiceSettings
    auth : bool
        Ask who is there; else everybody who reaches the service is the owner.
    """
    identity = identity_of(settings) if auth else Identity(None)
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
    tls: Tls | None,
    say: Callable[[str], None],
) -> None:
    """Serve until a signal ends it.

    Parameters
    ----------
    catalogue : Catalogue
    events : EventStore, optional
    policy : Policy
        Who may see and read what.
    settings : ServiceSettings
    host : str
        Address to listen at.
    port : int
        0 for any that is free.
    auth : bool
        Ask who is there; needed beyond the loopback interface.
    tls : Tls, optional
    say : callable
        Is given the line that says where the service listens.

    Raises
    ------
    UsageError
        If the address is not the loopback interface's and there is no authentication.
    ServerError
        If the port is taken.
    """
    if not auth and not is_loopback(host):
        raise UsageError(
            f"'{host}' is not the loopback address", remedy="add --auth, and make tokens: apbatch token create"
        )
    service = service_for(catalogue, events, policy, settings, auth=auth)
    listener = listen(host, port)
    to = "whom the policy allows" if auth else "its owner"
    say(f"serving on {address_of(listener, host, tls)} to {to}")
    serve(build(service), listener, service.draining, tls)

"""The development servers of a run: those that are up are used, the others started if wanted, and stopped after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from apbatch.bench.suites import SUITES
from apbatch.cluster import registry
from apbatch.cluster.server import Server
from apbatch.config import endpoints
from apbatch.errors import ApbatchError, ServerError
from apbatch.progress import say


class DevelopmentServers:
    """Servers of `apbatch cluster`, and why one can't be had."""

    def __init__(self) -> None:
        self.started: list[Server] = []
        self.failed: dict[str, ApbatchError] = {}

    def endpoint(self, server: str, name: str) -> str:
        """Return the address `name` of a server.

        Raises
        ------
        ApbatchError
            If it can't be had.
        """
        if server in self.failed:
            raise self.failed[server]
        addresses = endpoints()
        if name not in addresses:
            raise ServerError(f"the server '{server}' is not up", remedy=f"apbatch cluster up {server}")
        return addresses[name]

    def start(self, names: Sequence[str]) -> None:
        """Start those that do not run, all at the same time; a failure of one leaves the others."""
        with registry.exclusively():
            starting = []
            for server in registry.named(names):
                if server.name in endpoints() and server.running():
                    continue
                say(f"bench: starting {server.name}")
                if self._tried(server, server.start):
                    starting.append(server)
            for server in starting:
                if self._tried(server, server.finish_start):
                    self.started.append(server)

    def _tried(self, server: Server, call: Callable[[], None]) -> bool:
        try:
            call()
        except ApbatchError as error:
            self.failed[server.name] = error
            server.down()
            return False
        return True

    def stop(self) -> None:
        """Stop what was started here."""
        with registry.exclusively():
            for server in reversed(self.started):
                say(f"bench: stopping {server.name}")
                server.down()


@contextmanager
def development_servers(suites: Sequence[str], start: bool) -> Iterator[DevelopmentServers]:
    """Give the servers of some suites; unless `start`, only those that are up."""
    servers = DevelopmentServers()
    try:
        if start:
            servers.start([name for suite in dict.fromkeys(suites) for name in SUITES[suite].servers])
        yield servers
    finally:
        servers.stop()

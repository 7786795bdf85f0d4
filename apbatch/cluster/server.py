"""What a development server is: prepared once, started, awaited until healthy, stopped; its data stay."""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from apbatch.cluster.ports import require_free
from apbatch.cluster.process import Daemon
from apbatch.config import endpoints, endpoints_file, home
from apbatch.errors import ServerError
from apbatch.progress import say

_HEALTHY_WITHIN_S = 180.0
_POLL_S = 0.2


@dataclass(frozen=True)
class ProcessStatus:
    """One row of ``apbatch cluster status``."""

    server: str
    process: str
    state: str
    pid: int | None
    memory_mb: int | None
    address: str
    log: str


class Server(ABC):
    """A real server on loopback, for development and tests."""

    name: ClassVar[str]

    @property
    def folder(self) -> Path:
        """Where its configuration, data and logs lie."""
        return home() / "cluster" / self.name

    @abstractmethod
    def prepare(self) -> None:
        """Fetch programs, write configuration, format; what is there already stays."""

    @abstractmethod
    def daemons(self) -> list[Daemon]:
        """Return its processes, in the order of their start."""

    @abstractmethod
    def unhealthy(self) -> str | None:
        """Return what it still lacks, or None when it serves."""

    @abstractmethod
    def addresses(self) -> dict[str, str]:
        """Return the URLs under which it is reached, by the names that settings use."""

    def start(self) -> None:
        """Prepare it and start what does not run."""
        if self.running():
            return
        self.prepare()
        for daemon in self.daemons():
            if daemon.process() is None:
                for number in daemon.ports:
                    require_free(number, f"{self.name} ({daemon.name})")
        for daemon in self.daemons():
            daemon.start()

    def finish_start(self) -> None:
        """Wait until it is healthy and make its addresses known."""
        self._await_health()
        publish(self.addresses())

    def running(self) -> bool:
        """Tell whether every process runs."""
        return all(daemon.process() is not None for daemon in self.daemons())

    def _await_health(self) -> None:
        deadline = time.monotonic() + _HEALTHY_WITHIN_S
        while (lacks := self.unhealthy()) is not None:
            for daemon in self.daemons():
                if daemon.process() is None:
                    raise ServerError(
                        f"{self.name}: {daemon.name} ended at its start:\n{daemon.last_lines()}", where=str(daemon.log)
                    )
            if time.monotonic() > deadline:
                daemon = self.daemons()[-1]
                raise ServerError(
                    f"{self.name} is not healthy after {_HEALTHY_WITHIN_S:.0f} s: {lacks}\n{daemon.last_lines()}",
                    where=str(daemon.log),
                )
            time.sleep(_POLL_S)

    def down(self) -> None:
        """Stop what `up` started; the data stay."""
        withdraw(self.addresses())
        daemons = self.daemons()[::-1]
        for daemon in daemons:
            daemon.signal_end()
        for daemon in daemons:
            daemon.await_end()

    def status(self) -> list[ProcessStatus]:
        """Return one row a process."""
        address = ", ".join(self.addresses().values())
        rows = []
        for daemon in self.daemons():
            process = daemon.process()
            rows.append(
                ProcessStatus(
                    self.name,
                    daemon.name,
                    "up" if process else "down",
                    process.pid if process else None,
                    process.memory_info().rss >> 20 if process else None,
                    address if process else "",
                    str(daemon.log),
                )
            )
        return rows


def publish(addresses: dict[str, str]) -> None:
    """Add addresses to the file of endpoints."""
    _write({**endpoints(), **addresses})


def withdraw(addresses: dict[str, str]) -> None:
    """Take addresses out of the file of endpoints."""
    _write({name: url for name, url in endpoints().items() if name not in addresses})


def _write(content: dict[str, str]) -> None:
    file = endpoints_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1))
    part.replace(file)


def up(servers: list[Server]) -> None:
    """Bring servers up, all at the same time."""
    started = time.monotonic()
    for server in servers:
        server.start()
    for server in servers:
        server.finish_start()
        say(f"{server.name}: up after {time.monotonic() - started:.1f} s, {', '.join(server.addresses().values())}")

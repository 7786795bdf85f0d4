"""What a development server is: prepared once, started, awaited until healthy, stopped; its data stay."""

from __future__ import annotations

import json
import os
import re
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil

from apbatch.cluster import ports
from apbatch.cluster.process import Daemon
from apbatch.config import endpoints, endpoints_file, home
from apbatch.errors import ApbatchError, ServerError
from apbatch.progress import say

_POLL_S = 0.2
_PLAIN_PATH = re.compile(r"[\w/.+=@~-]+", re.ASCII)


@dataclass(frozen=True)
class ProcessStatus:
    """One row of ``apbatch cluster status``."""

    server: str
    process: str
    state: str
    pid: int | None
    memory_mb: int | None
    health: str
    address: str
    log: str


class Server(ABC):
    """A real server on loopback, for development and tests."""

    name: ClassVar[str]
    #: How long it may take to serve, seconds; a busy machine takes minutes.
    healthy_within_s: ClassVar[float] = 600.0

    @property
    def folder(self) -> Path:
        """Where its configuration, data and logs lie."""
        return home() / "cluster" / self.name

    def port(self, offset: int) -> int:
        """Return the port at `offset` from the base with which the server was started last."""
        try:
            return int(self._base.read_text()) + offset
        except (FileNotFoundError, ValueError):
            return ports.base() + offset

    @property
    def _base(self) -> Path:
        return self.folder / "ports"

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
        if not _PLAIN_PATH.fullmatch(str(self.folder)):
            # a DataNode, for one, dies of what a URI must escape, and a colon ends an entry of Java's class path
            raise ServerError(
                "servers can't live in a folder with blanks or special characters in its path",
                where=str(self.folder),
                remedy="choose another APBATCH_HOME: English letters, digits and / . _ - + = @ ~",
            )
        # the ports may change only while nothing of it runs
        if all(daemon.process() is None for daemon in self.daemons()):
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_text(self._base, f"{ports.base()}\n")
        for daemon in self.daemons():
            if daemon.process() is None:
                for number in daemon.ports:
                    ports.require_free(number, f"{self.name} ({daemon.name})")
        self.prepare()
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
        deadline = time.monotonic() + self.healthy_within_s
        while (lacks := self.unhealthy()) is not None:
            for daemon in self.daemons():
                if daemon.process() is None:
                    raise ServerError(
                        f"{self.name}: {daemon.name} ended at its start:\n{daemon.last_lines()}",
                        where=str(daemon.log),
                        remedy="the log has the whole reason",
                    )
            if time.monotonic() > deadline:
                daemon = self.daemons()[-1]
                raise ServerError(
                    f"{self.name} is not healthy after {self.healthy_within_s:.0f} s: {lacks}\n{daemon.last_lines()}",
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
        alive = any(daemon.process() for daemon in self.daemons())
        health = (self.unhealthy() or "healthy") if alive else ""
        rows = []
        for daemon in self.daemons():
            process = daemon.process()
            rows.append(
                ProcessStatus(
                    self.name,
                    daemon.name,
                    "up" if process else "down",
                    process.pid if process else None,
                    memory_mb(process) if process else None,
                    health if process else "",
                    address if process else "",
                    str(daemon.log),
                )
            )
        return rows


def memory_mb(process: psutil.Process) -> int | None:
    """Return the resident memory of a process, or None if it has just ended."""
    try:
        return int(process.memory_info().rss) >> 20
    except psutil.NoSuchProcess:
        return None


def publish(addresses: dict[str, str]) -> None:
    """Add addresses to the file of endpoints."""
    _write({**endpoints(), **addresses})


def withdraw(addresses: dict[str, str]) -> None:
    """Take addresses out of the file of endpoints."""
    _write({name: url for name, url in endpoints().items() if name not in addresses})


def _write(content: dict[str, str]) -> None:
    file = endpoints_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, json.dumps(content, indent=1))


def replace_text(file: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(text)
    part.replace(file)


def up(servers: list[Server]) -> None:
    """Bring servers up, all at the same time; one that fails does not hold up the others.

    Raises
    ------
    ApbatchError
        The failure, when one server failed; when several did, one error with all their messages.
    """
    started = time.monotonic()
    starting, failures = [], []
    for server in servers:
        try:
            server.start()
            starting.append(server)
        except ApbatchError as error:
            failures.append(error)
    for server in starting:
        try:
            server.finish_start()
        except ApbatchError as error:
            failures.append(error)
            continue
        say(f"{server.name}: up after {time.monotonic() - started:.1f} s, {', '.join(server.addresses().values())}")
    if len(failures) > 1:
        raise ServerError("\n".join(map(str, failures)))
    if failures:
        raise failures[0]

"""Real servers for tests: each started once by the project's own commands, and stopped at the end whatever happens."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.waits import PATIENCE_S

_COMMAND = str(Path(sys.executable).with_name("apbatch"))
#: Waits until the tests have ended, by whatever signal; stops what they no longer can, and removes the folder.
_CARETAKER = """
import shutil, subprocess, sys
sys.stdin.buffer.read()
subprocess.run([sys.argv[1], "cluster", "down"], stdin=subprocess.DEVNULL)
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""


def free_base() -> tuple[int, IO[str]]:
    """A base whose ports nobody holds, and the lock that keeps it from other test sessions while it is open."""
    bases = range(20_800, 32_600, 200)  # below the ports that the kernel gives to clients
    first = os.getpid() % len(bases)
    for base in (*bases[first:], *bases[:first]):
        lock = Path(tempfile.gettempdir(), f"apbatch-ports-{base}.lock").open("w")  # noqa: SIM115 - held until the session ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for offset in (
                20,
                24,
                25,
                30,
                31,
                *range(32, 36),
                40,
                41,
                *range(44, 48),
                *range(50, 55),
                60,
                70,
                *range(110, 134),
                *range(150, 163),
            ):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", base + offset))
        except OSError:
            lock.close()
            continue
        return base, lock
    raise RuntimeError("no free ports")


class Servers:
    """Development servers in a state folder of their own, on ports that no other test session uses."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.base, self._lock = free_base()
        self.environment = {**os.environ, "APBATCH_HOME": str(home), "APBATCH_PORT_BASE": str(self.base)}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_COMMAND, "cluster", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def url(self, server: str, name: str | None = None) -> str:
        done = self.command("up", server)
        if done.returncode:
            message = f"the server '{server}' can't be had: {done.stderr.strip()}"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        endpoints: dict[str, str] = json.loads((self.home / "cluster" / "endpoints.json").read_text())
        return endpoints[name or server]


@pytest.fixture
def port_base() -> Iterator[Callable[[], int]]:
    """A source of bases of ports that nobody else holds, each another."""
    locks = []

    def next_base() -> int:
        base, lock = free_base()
        locks.append(lock)
        return base

    yield next_base
    for lock in locks:
        lock.close()


@contextmanager
def serving() -> Iterator[Servers]:
    """Servers in a folder of their own, which end with this process even if it is killed."""
    folder = Path(tempfile.mkdtemp(prefix="apbatch-servers-"))
    folder.chmod(0o711)  # PostgreSQL, which refuses root, must be able to pass; pytest's own folders are closed
    servers = Servers(folder)
    caretaker = subprocess.Popen(
        [sys.executable, "-c", _CARETAKER, _COMMAND, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=servers.environment,
        start_new_session=True,
    )
    try:
        yield servers
        done = servers.command("down")
        assert done.returncode == 0, done.stderr
    finally:
        assert caretaker.stdin is not None
        caretaker.stdin.close()  # the folder's removal takes a minute, for which nobody need wait


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def hdfs(servers: Servers) -> str:
    return servers.url("hdfs")


@pytest.fixture(scope="session")
def webhdfs(servers: Servers) -> str:
    return servers.url("hdfs", "webhdfs")


@pytest.fixture(scope="session")
def cassandra(servers: Servers) -> str:
    return servers.url("cassandra")


@pytest.fixture(scope="session")
def postgres(servers: Servers) -> str:
    return servers.url("postgres")


@pytest.fixture(scope="session")
def squid(servers: Servers) -> str:
    """The near one of two caches in a chain, as ``http_proxy`` takes it."""
    return servers.url("squid")


@pytest.fixture(scope="session")
def spark_master(servers: Servers) -> str:
    return servers.url("spark")


@pytest.fixture(scope="session")
def yarn(servers: Servers) -> str:
    """The folder of the clients' configuration."""
    return servers.url("yarn")


@pytest.fixture(scope="session")
def history(servers: Servers) -> str:
    return servers.url("history")


@pytest.fixture(scope="session")
def afs(servers: Servers) -> str:
    return servers.url("afs")


@pytest.fixture
def on_servers(home: Path, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make named servers known to the test's own state folder; returns that folder."""

    def known(*names: str) -> Path:
        for name in names:
            servers.url(name)
        monkeypatch.setenv("APBATCH_PORT_BASE", servers.environment["APBATCH_PORT_BASE"])
        target = home / "cluster" / "endpoints.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((servers.home / "cluster" / "endpoints.json").read_bytes())
        return home

    return known


@pytest.fixture(scope="session")
def cqlsh(cassandra: str) -> Callable[[str], str]:
    """Run statements in the real cqlsh; return what it prints."""
    host, port = cassandra.removeprefix("cassandra://").split(":")

    def run(statements: str) -> str:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("cqlsh")), host, port],
            input=statements.rstrip().rstrip(";") + ";\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

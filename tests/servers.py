"""Real servers for tests: each started once by the project's own commands, and stopped at the end whatever happens."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_COMMAND = str(Path(sys.executable).with_name("apbatch"))


def _free_base() -> int:
    """A base whose first ports nobody holds; another one for every process."""
    for base in range(20_800 + os.getpid() % 40 * 200, 60_000, 400):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", base + 20)) and probe.connect_ex(("127.0.0.1", base + 30)):
                return base
    raise RuntimeError("no free ports")


class Servers:
    """The development servers of a test session, in a state folder of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "APBATCH_HOME": str(home), "APBATCH_PORT_BASE": str(_free_base())}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_COMMAND, "cluster", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
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


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("servers"))
    yield servers
    done = servers.command("down")
    assert done.returncode == 0, done.stderr


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
def spark_master(servers: Servers) -> str:
    return servers.url("spark")


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
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

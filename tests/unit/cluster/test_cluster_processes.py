"""Daemons, ports and the life of a server, with small processes in the place of the real ones."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from apbatch.cluster import ports, process, registry
from apbatch.cluster.process import Daemon
from apbatch.cluster.server import Server, up
from apbatch.config import endpoints
from apbatch.errors import ServerError, UsageError
from tests.waits import until

Starter = Callable[..., Daemon]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Starter]:
    started = []

    def make(*command: str, name: str = "worker") -> Daemon:
        made = Daemon(name, command or ("sleep", "60"), tmp_path / "state")
        made.start()
        started.append(made)
        return made

    yield make
    for made in started:
        if (running := made.process()) is not None:
            running.kill()


def test_a_daemon_is_known_again_by_another_command(daemon: Starter) -> None:
    started = daemon()
    again = Daemon(started.name, (), started.folder).process()
    assert again is not None and again == started.process()


def test_a_daemon_that_runs_is_not_started_twice(daemon: Starter) -> None:
    started = daemon()
    before = started.process()
    started.start()
    assert started.process() == before


def test_a_killed_daemon_is_not_there(daemon: Starter) -> None:
    started = daemon()
    running = started.process()
    assert running is not None
    running.kill()
    until(lambda: started.process() is None)


def test_a_pid_that_another_process_has_now_is_never_signalled(daemon: Starter) -> None:
    started = daemon()
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (started.folder / "other.pid").write_text(str(stranger.pid))
        other = Daemon("other", (), started.folder)
        other.signal_end()
        other.await_end()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_child_of_a_daemon_is_not_taken_for_it(daemon: Starter) -> None:
    started = daemon("sh", "-c", "sleep 60 & wait")
    running = started.process()
    assert running is not None
    until(lambda: [child.name() for child in running.children()] == ["sleep"])
    (child,) = running.children()
    (started.folder / "worker.pid").write_text(str(child.pid))
    try:
        assert started.process() == running
        running.kill()
        until(lambda: started.process() is None)
    finally:
        child.kill()


def test_a_daemon_deaf_to_the_request_is_killed(daemon: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_TERM_S", 0.2)
    started = daemon("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    until(lambda: started.has_logged("ready"))
    started.signal_end()
    started.await_end()
    assert started.process() is None


def test_a_daemon_is_known_though_its_starter_was_killed_at_once(tmp_path: Path) -> None:
    program = f"""
import os, signal, subprocess
from pathlib import Path
from apbatch.cluster.process import Daemon
really = subprocess.Popen
def killed(*arguments, **options):
    really(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
subprocess.Popen = killed
Daemon("worker", ("sleep", "60"), Path({str(tmp_path)!r})).start()
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    started = Daemon("worker", (), tmp_path)
    until(started.process)
    running = started.process()
    assert running is not None
    until(lambda: running.name() == "sleep")
    running.kill()


def test_what_a_log_tells_last_is_its_faults(tmp_path: Path) -> None:
    quiet = Daemon("quiet", (), tmp_path)
    quiet.log.write_text("one\ntwo\nthree\n")
    assert quiet.last_lines(2) == "two\nthree"
    loud = Daemon("loud", (), tmp_path)
    loud.log.write_text("java.net.BindException: in use\n" + "INFO shut down\n" * 9)
    assert loud.last_lines() == "java.net.BindException: in use"


def test_a_base_that_is_no_port_is_a_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("many", "80", "65500", "-1"):
        monkeypatch.setenv("APBATCH_PORT_BASE", text)
        with pytest.raises(UsageError, match="APBATCH_PORT_BASE"):
            ports.base()


def test_who_holds_a_port_is_told() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        number = holder.getsockname()[1]
        with pytest.raises(ServerError, match=rf"port {number} for spark is taken by process {os.getpid()} \("):
            ports.require_free(number, "spark")


class Small(Server):
    """A server of one process that is healthy at once."""

    name: ClassVar[str] = "small"
    command: ClassVar[tuple[str, ...]] = ("sleep", "60")
    starts: ClassVar[list[int]] = []

    def prepare(self) -> None:
        self.starts.append(1)

    def daemons(self) -> list[Daemon]:
        return [Daemon("only", self.command, self.folder, ports=[self.port(0)])]

    def unhealthy(self) -> str | None:
        return None if self.running() else "it does not run"

    def addresses(self) -> dict[str, str]:
        return {self.name: f"{self.name}://127.0.0.1:{self.port(0)}"}


class Broken(Small):
    """A server whose process ends at once."""

    name: ClassVar[str] = "broken"
    command: ClassVar[tuple[str, ...]] = ("sh", "-c", "echo ERROR no room; sleep 0.1; exit 3")

    def unhealthy(self) -> str | None:
        return "it never is"


@pytest.fixture
def first_base(port_base: Callable[[], int]) -> int:
    return port_base()


@pytest.fixture
def small(home: Path, monkeypatch: pytest.MonkeyPatch, first_base: int) -> Iterator[Small]:
    monkeypatch.setenv("APBATCH_PORT_BASE", str(first_base))
    Small.starts.clear()
    server = Small()
    yield server
    server.down()


def test_a_server_keeps_its_ports_while_it_runs(
    small: Small, first_base: int, port_base: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    up([small])
    monkeypatch.setenv("APBATCH_PORT_BASE", str(port_base()))
    up([small])
    assert endpoints() == {"small": f"small://127.0.0.1:{first_base}"}
    assert small.status()[0].address == f"small://127.0.0.1:{first_base}"


def test_a_server_that_is_down_starts_on_the_ports_asked_for(
    small: Small, first_base: int, port_base: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    up([small])
    small.down()
    assert endpoints() == {}
    other_base = port_base()
    assert other_base != first_base
    monkeypatch.setenv("APBATCH_PORT_BASE", str(other_base))
    up([small])
    assert endpoints() == {"small": f"small://127.0.0.1:{other_base}"}


def test_one_server_that_fails_does_not_hold_up_another(small: Small) -> None:
    broken = Broken()
    with pytest.raises(ServerError, match="broken: only ended at its start:\nERROR no room") as raised:
        up([broken, small])
    assert raised.value.where == str(broken.folder / "only.log")
    assert raised.value.remedy == "the log has the whole reason"  # not that the state folder can't be written
    assert set(endpoints()) == {"small"}


def test_two_commands_at_once_start_a_server_once(small: Small) -> None:
    def command() -> None:
        with registry.exclusively():
            up([Small()])

    both = [threading.Thread(target=command) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(Small.starts) == 1 and json.loads((small.folder.parent / "endpoints.json").read_text())


def test_a_path_that_java_can_not_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a blank", "a:colon", "é", "per%cent"):
        monkeypatch.setenv("APBATCH_HOME", str(tmp_path / name))
        with pytest.raises(ServerError, match="special characters in its path"):
            up([Small()])


def test_an_unknown_server_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError) as raised:
        registry.named(["hdsf"])
    assert raised.value.nearest == "hdfs"

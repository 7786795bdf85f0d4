"""Services as the processes that they are: started, read through, told to end; and the units that start them."""

from __future__ import annotations

import getpass
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apbatch.access.agents.capability import rotate_secret
from apbatch.access.serving.draining import DRAIN_S
from apbatch.api.tokens import TokenFile
from apbatch.cli.main import application, run_command
from apbatch.cluster.units import KINDS, Place, units
from apbatch.errors import UsageError
from tests.agents import Site, site
from tests.waits import PATIENCE_S, until

COMMAND = str(Path(sys.executable).with_name("apbatch"))
#: More than the buffers of two sockets hold, so that a reader who pauses keeps the answer under way.
DATA = random.Random(3).randbytes(24 << 20)


class Started:
    """A command that serves.

    Attributes
    ----------
    url : str
    process : subprocess.Popen
    states : list of str
        What it told the service manager.
    """

    def __init__(self, process: subprocess.Popen[str], states: list[str]) -> None:
        self.process, self.states = process, states
        self.lines: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            self.lines.append(line)
            if address := re.search(r"https?://127\.0\.0\.1:\d+", line):
                self.url = address[0]
                break
        assert hasattr(self, "url"), "".join(self.lines)
        threading.Thread(target=lambda: self.lines.extend(process.stderr or ()), daemon=True).start()

    def connect(self) -> HTTPConnection:
        parts = urlsplit(self.url)
        return HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        connection = self.connect()
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def metrics(self, **headers: str) -> dict[str, float]:
        """Ask for metrics and read them as Prometheus does; sums over labels."""
        status, body = self.get("/metrics", **headers)
        assert status == 200
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(body.decode()):
            assert family.documentation and family.type != "unknown", family.name
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums


@contextmanager
def started(tmp_path: Path, *arguments: str, **environment: str) -> Iterator[Started]:
    """Start a command and wait until it serves; it ends by itself or is ended."""
    states: list[str] = []
    address = f"/tmp/apbatch-{os.getpid()}-{random.SystemRandom().getrandbits(48):x}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)

        def listen() -> None:
            while (state := manager.recv(100).decode()) != "end":
                states.append(state)

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        process = subprocess.Popen(
            [COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "NOTIFY_SOCKET": address, **environment},
        )  # fmt: skip
        try:
            yield Started(process, states)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.sendto(b"end", address)
            listener.join()
            Path(address).unlink()


@pytest.fixture
def taiga(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with one large file, its catalogue where the commands of its home look for it."""
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("APBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("APBATCH_CATALOGUE", f"sqlite:///{tmp_path}/catalogue.sqlite")
    with site(tmp_path) as one:
        monkeypatch.setenv("APBATCH_SITE_SECRET_FILE", str(one.secrets))
        yield one


def assert_drains(service: Started, path: str, **headers: str) -> None:
    """Tell a service to end while somebody reads: the reader gets it all, nobody new gets in, the status is 0."""
    reading, silent = service.connect(), service.connect()
    silent.connect()
    reading.request("GET", path, headers=headers)
    answer: HTTPResponse = reading.getresponse()
    first = answer.read(1 << 16)
    begun = time.monotonic()
    service.process.send_signal(signal.SIGTERM)

    def refused() -> bool:
        try:
            socket.create_connection(urlsplit(service.url).netloc.split(":"), timeout=PATIENCE_S).close()  # type: ignore[arg-type]
        except ConnectionRefusedError:
            return True
        return False

    until(refused, "new connections are still taken")
    assert service.process.poll() is None, "it did not wait for who was reading"
    assert first + answer.read() == DATA
    reading.close()
    assert service.process.wait(PATIENCE_S) == 0
    assert time.monotonic() - begun < DRAIN_S + 10 or os.getloadavg()[0] > 4
    assert service.states == ["READY=1", "STOPPING=1"]
    assert "Traceback" not in "".join(service.lines)
    silent.close()


def test_an_agent_serves_its_site_and_drains(taiga: Site, tmp_path: Path) -> None:
    record = taiga.add("f", DATA)
    with started(tmp_path, "serve", "--site", "taiga", "--port", "0", "--policy", str(taiga.policy)) as agent:
        assert agent.get("/healthz")[0] == 200
        assert json.loads(agent.get("/readyz")[1])["status"] == "ok"
        assert agent.get("/f/taiga/taiga/f", Range="bytes=5-9") == (206, DATA[5:10])
        numbers = agent.metrics()
        assert numbers["apbatch_file_bytes_total"] >= 5 and numbers["apbatch_requests_total"] == 1
        assert numbers["process_resident_memory_bytes"] > 0 and numbers["apbatch_draining"] == 0
        assert_drains(agent, f"/f{record.path}")


def test_a_gateway_serves_what_an_agent_has_and_drains(taiga: Site, tmp_path: Path) -> None:
    record = taiga.add("f", DATA)
    rotate_secret(tmp_path / "other secrets")
    with started(tmp_path, "serve", "--site", "taiga", "--port", "0", "--policy", str(taiga.policy)) as agent:
        with started(
            tmp_path, "gateway", "--agent", f"taiga={agent.url}", "--policy", str(taiga.policy),
            "--secrets", str(tmp_path / "other secrets"), APBATCH_HOME=str(tmp_path / "other home"),
            APBATCH_CATALOGUE=f"sqlite:///{tmp_path}/other.sqlite",
        ) as gateway:  # fmt: skip
            until(lambda: gateway.get("/f/taiga/taiga/f", Range="bytes=5-9") == (206, DATA[5:10]))
            numbers = gateway.metrics()
            assert numbers["apbatch_feed_changes_total"] == 1 and numbers["apbatch_feed_failures_total"] == 0
            assert numbers["apbatch_feed_success_time_seconds"] > 1e9
            assert_drains(gateway, f"/f{record.path}")
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(PATIENCE_S) == 0


def test_the_service_serves_the_catalogue_and_drains(taiga: Site, tmp_path: Path) -> None:
    record = taiga.add("f", DATA)
    token = TokenFile().create("ann", (), ("operator",), None)
    with started(tmp_path, "serve", "--port", "0", "--auth", "--policy", str(taiga.policy)) as service:
        assert service.get("/healthz")[0] == service.get("/readyz")[0] == 200
        assert service.get("/metrics")[0] == service.get("/metrics", Authorization="Bearer wrong")[0] == 401
        assert service.metrics(Authorization=f"Bearer {token}")["apbatch_draining"] == 0
        assert_drains(service, f"/api/v1/content?path={record.path}")


def test_a_server_of_repositories_drains(taiga: Site, tmp_path: Path) -> None:
    taiga.add("f", b"data")
    folder = tmp_path / "repository"
    words = ["export", "/taiga", "--as", "cvmfs", "--to", str(folder), "--name", "t.example.org", "--policy"]
    assert run_command(application(), arguments=[*words, str(taiga.policy)]) == 0
    with started(tmp_path, "cvmfs", "serve", str(folder), "--port", "0", "--policy", str(taiga.policy)) as server:
        assert server.get("/cvmfs/t.example.org/.cvmfspublished")[1].startswith(b"C")
        assert server.metrics()["apbatch_requests_total"] == 1 and server.get("/readyz")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0 and server.states == ["READY=1", "STOPPING=1"]


def test_a_catalogue_that_fails_makes_a_service_unready_but_not_dead(
    taiga: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apbatch.errors import ServerError
    from tests.agents import served
    from tests.components.access.test_agent import ask

    with served(taiga.gateway()) as (url, _):

        def gone() -> int:
            raise ServerError("the database is away")

        assert ask(url, "/readyz").status == 200
        monkeypatch.setattr(taiga.catalogue, "revision", gone)
        answer = ask(url, "/readyz")
        assert (answer.status, answer.json()["status"]) == (503, "the database is away")
        assert ask(url, "/healthz").status == 200


# units

EVERY = Place("/bin/true", getpass.getuser(), site="taiga", agents=("fact=http://h:1", "x=https://h/100%25"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: jobs/setup.sh system")
def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    written = units(list(KINDS), EVERY)
    for name, text in written.items():
        (tmp_path / name).write_text(text)

    def complaints() -> list[str]:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in written)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = [line for line in done.stderr.splitlines() if "apbatch-" in line]
        assert done.returncode == 0 or lines, done.stderr
        return lines

    assert len(written) == 8 and complaints() == []
    wrong = tmp_path / "apbatch-serve.service"
    wrong.write_text(wrong.read_text().replace("ProtectSystem=strict", "ProtectSystem=stirct\nNoSuchThing=1"))
    assert len(complaints()) == 2, "systemd-analyze would accept anything"


def test_a_unit_says_what_the_program_takes_and_holds_no_secret(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("a-secret-that-nobody-may-see\n")
    for text in units(list(KINDS), Place("/bin/apbatch", folder=str(tmp_path), site="s", agents=EVERY.agents)).values():
        assert "a-secret" not in text
        for line in text.splitlines():
            name, _, value = line.partition("=")
            if name == "ExecStart":
                words = [word.replace("%%", "%").strip('"') for word in value.split(" ")[3:]]
                application().commands[words[0]].make_context(words[0], words[1:])
    for names, place in ((["sevre"], EVERY), (["agent"], Place("a")), (["gateway"], Place("a"))):
        with pytest.raises(UsageError):
            units(names, place)
    with pytest.raises(UsageError, match="control character"):
        units(["serve"], Place("/bin/a\nb"))


def test_units_are_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(application(), arguments=["service", "agent", "--site", "taiga"]) == 0
    assert "# apbatch-agent-taiga.service\n[Unit]" in capsys.readouterr().out
    assert run_command(application(), arguments=["service", "mirror", "--to", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"apbatch-mirror.service", "apbatch-mirror.timer"}
    assert run_command(application(), arguments=["service", "mirorr"]) == 2
    assert "did you mean 'mirror'" in capsys.readouterr().err

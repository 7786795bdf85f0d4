"""`apbatch serve --certfile`, of all or of one site: reached by https with a trusted certificate, by nobody by http."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3

from apbatch.cli.main import application, run_command
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.ingest.remote.client import Agent
from tests.agents import site
from tests.components.access.test_services import started
from tests.service import fill
from tests.waits import PATIENCE_S, until

COMMAND = str(Path(sys.executable).with_name("apbatch"))


@dataclass
class Encrypted:
    """A service with TLS that runs."""

    url: str
    certificate: Path
    key: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key, log = folder / "cert.pem", folder / "key.pem", folder / "log"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    with SqliteCatalogue(f"sqlite:///{folder}/catalogue.sqlite") as catalogue:
        fill(catalogue, 20)
    environment = {**os.environ, "APBATCH_HOME": str(folder)}
    environment.pop("APBATCH_CONFIG", None)
    with log.open("w") as stream:
        server = subprocess.Popen(
            [COMMAND, "serve", "--port", "0", "--certfile", certificate, "--keyfile", key],
            env=environment, stderr=stream,
        )  # fmt: skip
    try:
        address = re.compile(r"serving on (https://\S+)")
        until(lambda: address.search(log.read_text()) or server.poll() is not None, "it does not listen")
        listening = address.search(log.read_text())
        assert listening, log.read_text()
        yield Encrypted(listening[1], certificate, key, environment)
    finally:
        server.terminate()
        assert server.wait(PATIENCE_S) == 0


def test_a_command_counts_behind_https(encrypted: Encrypted) -> None:
    def count(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, "--catalogue", encrypted.url, "count", "--format", "json"],
            env={**encrypted.environment, **more}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    trusted = count(SSL_CERT_FILE=str(encrypted.certificate))
    assert (trusted.returncode, json.loads(trusted.stdout)) == (0, [{"files": 25}]), trusted.stderr
    refused = count()
    assert refused.returncode == 1 and "CERTIFICATE_VERIFY_FAILED" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_nobody_is_answered_without_encryption(encrypted: Encrypted) -> None:
    plain = encrypted.url.replace("https://", "http://")
    with pytest.raises(urllib3.exceptions.HTTPError):
        urllib3.request("GET", f"{plain}/api/v1", retries=False, timeout=PATIENCE_S)


@pytest.mark.parametrize("command", [["serve", "--site", "taiga"], ["gateway"]], ids=["agent", "gateway"])
def test_an_agent_and_a_gateway_are_reached_by_https_alone(
    encrypted: Encrypted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    with site(tmp_path) as taiga:
        taiga.add("f", b"0123456789")
        with started(
            tmp_path, *command, "--port", "0", "--policy", str(taiga.policy),
            "--certfile", str(encrypted.certificate), "--keyfile", str(encrypted.key),
            APBATCH_HOME=str(tmp_path / "home"), APBATCH_CATALOGUE=f"sqlite:///{tmp_path}/catalogue.sqlite",
            APBATCH_SITE_SECRET_FILE=str(taiga.secrets),
        ) as agent:  # fmt: skip
            assert agent.url.startswith("https://")
            with pytest.raises(urllib3.exceptions.HTTPError):
                urllib3.request("GET", agent.url.replace("https://", "http://"), retries=False, timeout=PATIENCE_S)
            monkeypatch.setenv("SSL_CERT_FILE", str(encrypted.certificate))
            assert Agent(agent.url).block("/taiga/taiga/f", 0, 10) == b"0123456789"


@pytest.mark.parametrize("command", [["serve"], ["serve", "--site", "taiga"], ["gateway"]])
def test_a_certificate_without_its_key_is_refused(
    encrypted: Encrypted, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*command, "--port", "0", "--certfile", str(encrypted.certificate)]
    assert run_command(application(), arguments=arguments) == 2
    assert "TLS needs a certificate and its key" in capsys.readouterr().err

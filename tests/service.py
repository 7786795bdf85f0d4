"""The service in a thread of the test, over a small catalogue; asked through real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
import uvicorn

from apbatch.access.policy import Policy
from apbatch.api.app import build
from apbatch.api.identity import Identity, Provider
from apbatch.api.service import Service
from apbatch.api.tokens import TokenFile
from apbatch.config import OidcSettings, ServiceSettings
from apbatch.formats.reader import Attribute
from apbatch.index.catalogue import Catalogue
from apbatch.index.events.store import EventStore
from apbatch.index.files import FileRecord
from tests.waits import PATIENCE_S

#: Everybody sees names below /taiga; ann reads what is small.
RULES = """
rules:
  - {name: names, who: anyone, may: metadata, below: /taiga}
  - {name: small, who: {users: ann}, may: data, query: "size < 1000"}
"""


def record(number: int, experiment: str = "taiga", **changes: object) -> FileRecord:
    """Return a file of a small catalogue."""
    base = FileRecord(
        path=f"/{experiment}/site/run{number:04d}.dat", site="site", source=f"run{number:04d}.dat",
        size=10 * number + 1,
        mtime_ns=1_500_000_000_000_000_000 + number, checksum=f"{number:064x}", adler32="0", format="x",
        experiment=experiment.upper(), run=number, night=date(2017, 10, 1 + number % 20), events=number,
        time_start=datetime(2017, 10, 1, 20, number % 60, tzinfo=UTC), attributes={"zenith": number / 7},
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def fill(catalogue: Catalogue, files: int = 120) -> None:
    """Put files of two experiments into a catalogue."""
    catalogue.declare([Attribute("zenith", "number", "zenith angle", "deg")])
    catalogue.upsert([record(number) for number in range(files)])
    catalogue.upsert([record(number, "secret") for number in range(5)])


@dataclass
class Running:
    """A service that runs.

    Attributes
    ----------
    url : str
    log : list of str
        Lines of its access log.
    """

    url: str
    service: Service
    tokens: TokenFile
    log: list[str] = field(default_factory=list)
    given: dict[str, str] = field(default_factory=dict)
    pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False))

    def get(self, path: str, method: str = "GET", **headers: str) -> urllib3.BaseHTTPResponse:
        """Ask; names of headers are written with ``_`` for ``-``."""
        shown = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.pool.request(method, self.url + path, headers=shown, redirect=False)

    def json(self, path: str, **headers: str) -> Any:
        """Ask for JSON and expect it."""
        answer = self.get(path, **headers)
        assert answer.status == 200, (path, answer.status, answer.data[:500])
        return json.loads(answer.data)


@contextmanager
def serving(
    home: Path, catalogue: Catalogue, events: EventStore | None = None, *, auth: bool = False,
    rules: str | None = RULES, settings: ServiceSettings | None = None, oidc: OidcSettings | None = None,
    files: Any = None,
) -> Iterator[Running]:  # fmt: skip
    """Serve a catalogue until the block ends."""
    tokens = TokenFile(home / "api" / "tokens.json")
    identity = Identity(tokens if auth else None, Provider(oidc) if oidc else None)
    policy = Policy(lambda: (rules, Path("policy.yaml")), catalogue)
    settings = settings or ServiceSettings(requests_per_second=0)
    service = Service(catalogue, events, policy, identity, home, settings, files)
    running = Running("", service, tokens)
    app = build(service, running.log.append)
    config = uvicorn.Config(app, log_level="warning", server_header=False, lifespan="off")
    server = uvicorn.Server(config)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    running.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        listener.listen(128)  # who connects waits in the queue until the server accepts
        yield running
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        running.pool.clear()
        assert not thread.is_alive()


def connected(running: Running, request: str) -> socket.socket:
    """Send a request as it is; of the answer the system takes little before it is read."""
    address = urlsplit(running.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # what is not read must not lie here
    client.connect((address.hostname, address.port))
    client.sendall(request.encode())
    return client

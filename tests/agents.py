"""An agent for tests: a site on disk, its catalogue with hashes, and the server in a thread on loopback."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from blake3 import blake3

from apbatch.access.agents.agent import gateway_over
from apbatch.access.agents.capability import Secrets, rotate_secret
from apbatch.access.agents.gateway import Gateway
from apbatch.access.agents.server import Identify, Server, nobody
from apbatch.access.policy import Policy
from apbatch.access.sources import at_site
from apbatch.index.catalogue import Catalogue
from apbatch.index.contents import BLOCK, Content
from apbatch.index.files import FileRecord
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.waits import until

ALL_OPEN = "rules: [{name: all, who: anyone, may: data}]"


def content_of(data: bytes) -> Content:
    """The hashes of a content, by other means than the product's."""
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
    large = [data[start : start + 12 * BLOCK] for start in range(0, len(data), 12 * BLOCK)]
    return Content(
        blake3(data).hexdigest(), len(data), f"{zlib.adler32(data):08x}",
        b"".join(blake3(block).digest() for block in blocks),
        b"".join(hashlib.sha1(block).digest() for block in blocks),
        b"".join(hashlib.sha1(block).digest() for block in large),
    )  # fmt: skip


class Site:
    """A site in a folder, with a home and a catalogue of its own.

    Attributes
    ----------
    catalogue : Catalogue
    root : pathlib.Path
    policy : pathlib.Path
        File of the policy; everything is open at first.
    secrets : pathlib.Path
    """

    def __init__(self, folder: Path, catalogue: Catalogue, name: str = "taiga") -> None:
        self.name, self.root, self.catalogue = name, folder / "data", catalogue
        self.policy, self.secrets = folder / "policy.yaml", folder / "secrets"
        self.root.mkdir(parents=True)
        sites = folder / "home" / "sites"
        sites.mkdir(parents=True)
        (sites / f"{name}.yaml").write_text(f"name: {name}\nexperiment: TAIGA\nroot: {self.root}\n")
        self.policy.write_text(ALL_OPEN)
        rotate_secret(self.secrets)

    def add(self, source: str, data: bytes, place: str = "") -> FileRecord:
        """Write a file and register it with its hashes."""
        path = self.root / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        content = content_of(data)
        record = FileRecord(
            path=f"/taiga/{self.name}/{source}", site=self.name, source=source, size=len(data),
            mtime_ns=path.stat().st_mtime_ns, checksum=content.checksum, adler32=content.adler32, format="x",
            experiment="TAIGA", place=place,
        )  # fmt: skip
        self.catalogue.put_contents([content])
        self.catalogue.upsert([record])
        return record

    def gateway(self, **more: object) -> Gateway:
        """A gateway over the site alone."""
        policy = Policy.load(self.policy, self.catalogue)
        return gateway_over(self.catalogue, policy, Secrets(self.secrets, **more), self.name, (at_site,))  # type: ignore[arg-type]


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Give a site; the caller sets APBATCH_HOME to ``folder / "home"``."""
    with SqliteCatalogue(f"sqlite:///{folder}/catalogue.sqlite") as catalogue:
        yield Site(folder, catalogue)


@contextmanager
def served(gateway: Gateway, identify: Identify = nobody) -> Iterator[tuple[str, Server]]:
    """Serve a gateway from a thread; give its URL and the server, whose counts are those of the origin."""
    server = Server(gateway, identify)
    config = uvicorn.Config(server, host="127.0.0.1", port=0, log_level="warning", access_log=False)
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    try:
        until(lambda: runner.started)
        port = runner.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.draining.set()
        runner.should_exit = True
        thread.join(60)
        gateway.close()

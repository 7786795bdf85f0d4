"""Gateway cases: 64 clients that fetch blocks from one gateway, and its memory meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from apbatch.access.agents.capability import Secrets, rotate_secret
from apbatch.bench.cases.api.service import ServiceProcess
from apbatch.bench.cases.clients import CLIENTS, Question, many_clients
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.index.backends import open_catalogue
from apbatch.index.contents import BLOCK, LARGE_PIECE, SMALL_PIECE, Content
from apbatch.index.files import FileRecord

#: Files of the site and bytes of each: twice what the gateway keeps in memory.
_FILES, _BYTES = 4, 32_000_000
_SEED = 20_181_005


def gateway_groups(setting: Setting) -> Iterator[Group]:
    """Yield the groups of many clients at one gateway.

    Parameters
    ----------
    setting : Setting
    """
    folder = setting.scratch.absolute() / "gateway"
    site, home = folder / "site", folder / "home"
    for one in (site, home / "sites"):
        one.mkdir(parents=True)
    (home / "sites" / "bench.yaml").write_text(f"name: bench\nexperiment: BENCH\nroot: {site}\n")
    (folder / "policy.yaml").write_text("rules: [{name: all, who: anyone, may: data}]")
    secrets = folder / "secrets"
    rotate_secret(secrets)
    files = [_File(site / f"{number:05}", _BYTES) for number in range(_FILES)]
    url = f"sqlite:///{folder}/catalogue.sqlite"
    draw = random.Random(_SEED)
    with open_catalogue(url) as catalogue:
        for file in files:
            content, record = file.write(draw)
            catalogue.put_contents([content])
            catalogue.upsert([record])
    command = ("gateway", "--policy", str(folder / "policy.yaml"), "--secrets", str(secrets))
    gateway = ServiceProcess(url, folder, command)
    setting.at_end.callback(gateway.stop)
    gateway.wait_until_up()

    def ask() -> list[Question]:
        capabilities = Secrets(secrets)
        some = [
            Question(f"/b/{capabilities.capability(file.checksum).text}/{block}", data)
            for file in files
            for block, data in enumerate(file.blocks())
        ]
        draw.shuffle(some)
        return some

    yield from many_clients("access", f"{CLIENTS} clients of a gateway", "gateway", setting.size, ask, gateway)


@dataclass
class _File:
    """A file of the site.

    Attributes
    ----------
    path : pathlib.Path
    size : int
        Bytes.
    checksum : str
        BLAKE3, once it is written.
    """

    path: Path
    size: int
    checksum: str = ""

    def write(self, draw: random.Random) -> tuple[Content, FileRecord]:
        """Write it, and return what is registered of it."""
        data = draw.randbytes(self.size)
        self.path.write_bytes(data)
        self.checksum = blake3(data).hexdigest()
        pieces = (bytes(20 * -(-self.size // length)) for length in (SMALL_PIECE, LARGE_PIECE))
        hashes = b"".join(blake3(block).digest() for block in self.blocks())
        record = FileRecord(
            path=f"/bench/bench/{self.path.name}", site="bench", source=self.path.name, size=self.size,
            mtime_ns=self.path.stat().st_mtime_ns, checksum=self.checksum, adler32="", format="none",
            experiment="BENCH",
        )  # fmt: skip
        return Content(self.checksum, self.size, "", hashes, *pieces), record

    def blocks(self) -> Iterator[bytes]:
        """Yield its blocks."""
        with self.path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block

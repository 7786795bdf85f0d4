"""A small merged tree for tests: sites that are folders, and a catalogue that knows their files and contents."""

from __future__ import annotations

import os
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha1
from pathlib import Path
from typing import Any

from blake3 import blake3

from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import OWNER
from apbatch.index.backends import open_catalogue
from apbatch.index.contents import BLOCK, LARGE_PIECE, Content
from apbatch.index.files import FileRecord, Replica, State
from apbatch.ingest.patterns import encode_path
from apbatch.ingest.sites import add_site
from apbatch.storage.backends import open_store


def content_of(data: bytes) -> Content:
    """The hashes of a content, as an ingest keeps them."""
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
    large = [data[start : start + LARGE_PIECE] for start in range(0, len(data), LARGE_PIECE)]
    return Content(
        blake3(data).hexdigest(),
        len(data),
        f"{zlib.adler32(data):08x}",
        b"".join(blake3(block).digest() for block in blocks),
        b"".join(sha1(block).digest() for block in blocks),
        b"".join(sha1(piece).digest() for piece in large),
    )


class Merged:
    """Sites below a folder, and the catalogue in `home`."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        home.mkdir(parents=True, exist_ok=True)
        self.catalogue = open_catalogue(f"sqlite:///{home}/catalogue.sqlite")
        self.guard = Guard(self.catalogue, None, Policy.load(None), OWNER)

    def site(self, name: str = "one", experiment: str = "TAIGA") -> Path:
        """Return a site's root; it is made when it is asked for first."""
        root = self.folder / name
        if not root.is_dir():
            root.mkdir(parents=True)
            file = self.folder / f"{name}.yaml"
            file.write_text(f"name: {name}\nexperiment: {experiment}\nroot: {root}\n")
            add_site(file)
        return root

    def add(
        self,
        source: str | bytes,
        data: bytes,
        site: str = "one",
        *,
        state: State = State.REGISTERED,
        blocks: bool = True,
        **fields: Any,
    ) -> FileRecord:
        """Put a file at a site and register it; a record of the catalogue as an ingest would write it."""
        file = os.fsencode(self.site(site)) + b"/" + os.fsencode(source)
        os.makedirs(os.path.dirname(file), exist_ok=True)  # noqa: PTH103, PTH120
        with open(file, "wb") as stream:  # noqa: PTH123
            stream.write(data)
        status = os.stat(file)  # noqa: PTH116
        text, content = encode_path(os.fsencode(source)), content_of(data)
        record = FileRecord(
            path=f"/taiga/{site}/{text}", site=site, source=text, size=len(data), mtime_ns=status.st_mtime_ns,
            checksum=content.checksum, adler32=content.adler32, format="taiga-raw", experiment="TAIGA",
            state=state,
        )  # fmt: skip
        if state is State.LISTED:
            record = replace(record, checksum="", adler32="")
        record = replace(record, **fields)
        if blocks and state is State.REGISTERED:
            self.catalogue.put_contents([content])
        report = self.catalogue.upsert([record])
        assert not report.refusals, report.refusals
        return record

    def replica(self, record: FileRecord, url: str, data: bytes, path: str = "copy") -> Replica:
        """Put a copy into a store and record it; `url` is where it is read, `path` where it lies below `folder`."""
        with open_store(f"file://{self.folder}").publish(path) as publication:
            publication.write(data)
        replica = Replica(record.path, url, "local", record.checksum, datetime.now(UTC))
        self.catalogue.add_replicas([replica])
        return replica

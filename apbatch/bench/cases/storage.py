"""Storage cases: one large file, many small ones, a listing; on every store and, as the limit, the bare disk."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from apbatch.bench.case import Case, Operation
from apbatch.bench.runner import Group
from apbatch.bench.sizes import Size
from apbatch.errors import ApbatchError, VerificationError
from apbatch.storage.hashing import READ_BYTES, hash_blocks
from apbatch.storage.store import Store

#: The peer without any store: what the file system of the machine gives.
BARE_DISK = "bare disk"


def storage_groups(size: Size, stores: Mapping[str, Store], scratch: Path) -> Iterator[Group]:
    """Yield the groups of the storage suite.

    Parameters
    ----------
    size : Size
    stores : Mapping
        Peers by the name that the report gives them.
    scratch : pathlib.Path
        Folder for the bare disk; it must be on the disk that the servers use, or the ratios mean nothing.
    """
    large = os.urandom(size.large_mb * 1_000_000)
    small = [os.urandom(size.small_kb * 1000) for _ in range(size.small_files)]
    folder = f"bench-{secrets.token_hex(4)}"
    peers: dict[str, _Place] = {BARE_DISK: _BareDisk(scratch / folder)}
    peers.update({name: _StorePlace(store, folder) for name, store in stores.items()})

    megabytes, many = float(size.large_mb), float(size.small_files)
    write = Operation(
        "storage",
        "write a large file",
        f"{size.large_mb} MB in blocks of 4 MiB. Stores: published, that is hashed, verified as the back-end needs and "
        "renamed into place. Bare disk: write, fsync, rename, no hash.",
        "MB/s",
        megabytes,
        BARE_DISK,
    )
    read = Operation(
        "storage",
        "read a large file",
        f"{size.large_mb} MB in blocks of 4 MiB, just written, so that it is in the page cache of the machine.",
        "MB/s",
        megabytes,
        BARE_DISK,
    )
    write_small = Operation(
        "storage",
        "write small files",
        f"{size.small_files} files of {size.small_kb} kB one after the other, each published (bare disk: write, fsync, "
        "rename).",
        "files/s",
        many,
        BARE_DISK,
    )
    read_small = Operation(
        "storage",
        "read small files",
        f"The same {size.small_files} files one after the other, from the page cache.",
        "files/s",
        many,
        BARE_DISK,
    )
    listing = Operation(
        "storage",
        "list a folder",
        f"Names and sizes of the {size.small_files} small files in one folder.",
        "ms",
        1.0,
        BARE_DISK,
    )
    try:
        yield Group(write, [_Write(write, peer, place, [large], "large") for peer, place in peers.items()])
        yield Group(read, [_Read(read, peer, place, [large], "large") for peer, place in peers.items()])
        yield Group(write_small, [_Write(write_small, peer, place, small, "small") for peer, place in peers.items()])
        yield Group(read_small, [_Read(read_small, peer, place, small, "small") for peer, place in peers.items()])
        yield Group(listing, [_List(listing, peer, place, small, "small") for peer, place in peers.items()])
    finally:
        for place in peers.values():
            place.remove()


class _Place:
    """Where a peer keeps its files."""

    def write(self, name: str, content: bytes) -> None:
        raise NotImplementedError

    def read(self, name: str) -> list[bytes]:
        raise NotImplementedError

    def sizes(self, folder: str) -> dict[str, int]:
        raise NotImplementedError

    def remove(self, name: str = "") -> None:
        raise NotImplementedError


class _StorePlace(_Place):
    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder

    def write(self, name: str, content: bytes) -> None:
        with self._store.publish(f"{self._folder}/{name}") as publication:
            publication.write(content)

    def read(self, name: str) -> list[bytes]:
        with self._store.open(f"{self._folder}/{name}") as stream:
            return list(iter(lambda: stream.read(READ_BYTES), b""))

    def sizes(self, folder: str) -> dict[str, int]:
        entries = self._store.entries(f"{self._folder}/{folder}")
        return {entry.path.rsplit("/", 1)[1]: entry.size for entry in entries}

    def remove(self, name: str = "") -> None:
        self._store.remove(f"{self._folder}/{name}")


class _BareDisk(_Place):
    """The file system without more: what any store on this disk can at best reach."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, name: str, content: bytes) -> None:
        file = self._root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.part")
        with part.open("wb", buffering=0) as stream:
            view = memoryview(content)
            for start in range(0, len(view), READ_BYTES):
                stream.write(view[start : start + READ_BYTES])
            os.fsync(stream.fileno())
        part.replace(file)

    def read(self, name: str) -> list[bytes]:
        with (self._root / name).open("rb", buffering=0) as stream:
            return list(iter(lambda: stream.read(READ_BYTES), b""))

    def sizes(self, folder: str) -> dict[str, int]:
        with os.scandir(self._root / folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}

    def remove(self, name: str = "") -> None:
        shutil.rmtree(self._root / name, ignore_errors=True)


class _StorageCase(Case):
    def __init__(self, operation: Operation, peer: str, place: _Place, contents: Sequence[bytes], folder: str) -> None:
        super().__init__(operation, peer, sum(len(content) for content in contents))
        self._place, self._folder = place, folder
        self._files = {f"{folder}/{number:05}": content for number, content in enumerate(contents)}

    def _write_all(self) -> None:
        for name, content in self._files.items():
            self._place.write(name, content)

    def _write_missing(self) -> None:
        """Write what an earlier group did not leave."""
        try:
            there = self._place.sizes(self._folder)
        except (ApbatchError, OSError):
            there = {}
        if {f"{self._folder}/{name}" for name in there} != set(self._files):
            self._write_all()

    def _compare(self, name: str, blocks: Sequence[bytes]) -> None:
        if hash_blocks(blocks) != hash_blocks([self._files[name]]):
            raise VerificationError("the bytes read are not those written", where=name)


class _Write(_StorageCase):
    """Write all files anew; proof: each is read back and compared."""

    def prepare(self) -> None:
        self._place.remove(self._folder)

    def run(self) -> None:
        self._write_all()

    def check(self) -> None:
        for name in self._files:
            self._compare(name, self._place.read(name))


class _Read(_StorageCase):
    """Read all files; proof: what came is hashed and compared."""

    _blocks: dict[str, list[bytes]]

    def set_up(self) -> None:
        self._write_missing()

    def run(self) -> None:
        self._blocks = {name: self._place.read(name) for name in self._files}

    def check(self) -> None:
        for name, blocks in self._blocks.items():
            self._compare(name, blocks)
        self._blocks = {}


class _List(_StorageCase):
    """List the folder; proof: names and sizes are right."""

    _result: dict[str, int]

    def set_up(self) -> None:
        self._write_missing()

    def run(self) -> None:
        self._result = self._place.sizes(self._folder)

    def check(self) -> None:
        expected = {name.rsplit("/", 1)[1]: len(content) for name, content in self._files.items()}
        if self._result != expected:
            raise VerificationError(f"{len(self._result)} entries listed, {len(expected)} are there")

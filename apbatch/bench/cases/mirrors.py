"""Mirror cases: copies that are hashed, compared and recorded, against what a client writes with no such care."""

from __future__ import annotations

import os
import random
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from blake3 import blake3

from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.peers import HDFS, LOCAL
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.errors import VerificationError
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord
from apbatch.index.query import Everything
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.ingest.opening import open_source
from apbatch.ingest.replicas.mirror import FILES, mirror
from apbatch.ingest.replicas.outcomes import Outcome
from apbatch.ingest.site import Site
from apbatch.storage.hashing import READ_BYTES, Hasher
from apbatch.storage.store import Store

MIRROR, BARE = "apbatch mirror", f"bare writes, {FILES} threads"
_SEED = 20_181_004


def mirror_groups(setting: Setting, stores: Mapping[str, Store]) -> Iterator[Group]:
    """Yield the groups of mirrors into the stores that have a bare client to compare with.

    Parameters
    ----------
    setting : Setting
    stores : Mapping
        By the name that the report gives them.
    """
    size, folder = setting.size, f"bench-mirror-{secrets.token_hex(4)}"
    draw = random.Random(_SEED)
    large, small = setting.scratch / "mirror-large", setting.scratch / "mirror-small"
    # One draw of more than 268 MB is refused.
    _write(large, [b"".join(draw.randbytes(1_000_000) for _ in range(size.large_mb))])
    _write(small, [draw.randbytes(size.small_kb * 1000) for _ in range(size.small_files)])
    for peer, label in ((LOCAL, "a local folder"), (HDFS, "HDFS")):
        if peer not in stores:
            continue
        store = stores[peer]
        bare: _Bare = _BareHdfs(store, folder) if peer == HDFS else _BareFolder(setting.scratch / folder)
        one = Operation(
            "storage",
            f"mirror a large file into {label}",
            f"{size.large_mb} MB of a site: hashed, compared, published, recorded; against one client that writes it.",
            "MB/s",
            float(size.large_mb),
            baseline=BARE,
        )
        many = Operation(
            "storage",
            f"mirror small files into {label}",
            f"{size.small_files} files of {size.small_kb} kB; against {FILES} threads that write one after the other.",
            "files/s",
            float(size.small_files),
            baseline=BARE,
        )
        for operation, source in ((one, large), (many, small)):
            yield Group(operation, [_Mirror(operation, store, folder, source, setting.scratch),
                                    _BareWrites(operation, bare, source)])  # fmt: skip
        store.remove(folder)
    shutil.rmtree(large)
    shutil.rmtree(small)


def _write(folder: Path, contents: list[bytes]) -> None:
    folder.mkdir(parents=True)
    for number, content in enumerate(contents):
        (folder / f"{number:05}").write_bytes(content)


class _Mirror(Case):
    """A mirror with a catalogue that knows no replica; proof: all are recorded, and what one holds."""

    def __init__(self, operation: Operation, store: Store, folder: str, source: Path, scratch: Path) -> None:
        self._files = sorted(source.iterdir())
        super().__init__(operation, MIRROR, sum(file.stat().st_size for file in self._files))
        self._store, self._folder, self._scratch = store, folder, scratch
        self._site = Site(name="bench", experiment="BENCH", root=str(source))
        self._records = [_record(file) for file in self._files]
        self._catalogue: Catalogue | None = None
        self._outcomes: dict[Outcome, int] = {}

    def prepare(self) -> None:
        self.tear_down()
        self._catalogue = SqliteCatalogue(f"sqlite:///{self._scratch}/mirror-{secrets.token_hex(4)}.sqlite")
        self._catalogue.upsert(self._records)

    def run(self) -> None:
        assert self._catalogue is not None
        opened = partial(open_source, site=self._site)
        summary = mirror(self._catalogue, Everything(), self._store, under=self._folder, open_source=opened)
        self._outcomes = dict(summary.counts)

    def check(self) -> None:
        assert self._catalogue is not None
        if self._outcomes != {Outcome.COPIED: len(self._records)}:
            raise VerificationError(f"not all were copied: {self._outcomes}")
        record = random.Random(_SEED).choice(self._records)
        (replica,) = self._catalogue.replicas([record.path])[record.path]
        if self._store.checksums(self._store.path_of(replica.url)).blake3 != record.checksum:
            raise VerificationError("the replica is not the file", where=replica.url)

    def tear_down(self) -> None:
        self._store.remove(self._folder)
        if self._catalogue is not None:
            self._catalogue.close()
            for file in self._scratch.glob("mirror-*.sqlite*"):
                file.unlink()
            self._catalogue = None


def _record(file: Path) -> FileRecord:
    content, status = file.read_bytes(), file.stat()
    hasher = Hasher()
    hasher.update(content)
    sums = hasher.result()
    return FileRecord(
        path=f"/bench/{file.parent.name}/{file.name}", site="bench", source=file.name, size=status.st_size,
        mtime_ns=status.st_mtime_ns, checksum=sums.blake3, adler32=sums.adler32, format="none", experiment="BENCH",
    )  # fmt: skip


class _Bare(ABC):
    """A client that writes files and does nothing else."""

    @abstractmethod
    def write(self, source: Path) -> None:
        """Write a file under its name."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Read a file."""

    @abstractmethod
    def clear(self) -> None:
        """Leave the empty folder."""


class _BareFolder(_Bare):
    """Written beside the name, forced to the disk, renamed, as every careful program does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, source: Path) -> None:
        part = self._folder / f".{source.name}"
        with source.open("rb", buffering=0) as file, part.open("wb", buffering=0) as target:
            while block := file.read(READ_BYTES):
                target.write(block)
            os.fsync(target.fileno())
        part.replace(self._folder / source.name)

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()


class _BareHdfs(_Bare):
    """hdfs-native alone."""

    def __init__(self, store: Store, folder: str) -> None:
        import hdfs_native

        parts = urlsplit(store.url)
        self._client = hdfs_native.Client(f"hdfs://{parts.netloc}")
        self._folder, self._options = f"{parts.path}/{folder}-bare", hdfs_native.WriteOptions(overwrite=True)

    def write(self, source: Path) -> None:
        with source.open("rb", buffering=0) as file:
            target = self._client.create(f"{self._folder}/{source.name}", self._options)
            while block := file.read(READ_BYTES):
                target.write(block)
            target.close()

    def read(self, name: str) -> bytes:
        reader = self._client.read(f"{self._folder}/{name}")
        return b"".join(reader.read_range_stream(0, len(reader)))

    def clear(self) -> None:
        with suppress(FileNotFoundError):
            self._client.delete(self._folder, True)
        self._client.mkdirs(self._folder, 0o755, True)


class _BareWrites(Case):
    """As many threads as the mirror has; proof: what one file holds."""

    def __init__(self, operation: Operation, bare: _Bare, source: Path) -> None:
        self._files, self._bare = sorted(source.iterdir()), bare
        super().__init__(operation, BARE, sum(file.stat().st_size for file in self._files))

    def prepare(self) -> None:
        self._bare.clear()

    def run(self) -> None:
        with ThreadPoolExecutor(FILES) as pool:
            list(pool.map(self._bare.write, self._files))

    def check(self) -> None:
        file = random.Random(_SEED).choice(self._files)
        if blake3(self._bare.read(file.name)).digest() != blake3(file.read_bytes()).digest():
            raise VerificationError("the file is not what was written", where=file.name)

    def tear_down(self) -> None:
        self._bare.clear()

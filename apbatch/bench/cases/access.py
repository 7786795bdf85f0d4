"""Access cases: the mounted tree against a bare pass-through of the same library, and against plain HTTP."""

from __future__ import annotations

import importlib.util
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
from blake3 import blake3

from apbatch.access.mount import mounting
from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.gateway import gateway_groups
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.errors import ServerError, VerificationError
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.contents import BLOCK, Content
from apbatch.index.files import FileRecord, Replica
from apbatch.storage.hashing import READ_BYTES

PASSTHROUGH, MOUNT, HTTP = "pyfuse3 pass-through", "apbatch mount", "HTTP"
_ENTRIES = 10_000
_START_S = 600.0
#: Bytes in a second of a network of 1 Gbit/s, and what is sent at once.
_LINK, _FRAME = 118_000_000, 256 << 10
#: Of the sparse file, which has 1 GiB; what is read of it, and what may move for that, bytes.
_SPARSE_BLOCKS, _MIDDLE, _MOST_MOVED = 512, 1_000_000, 4 << 20
_SITE = "name: bench\nexperiment: BENCH\nroot: {root}\n"


def access_groups(setting: Setting) -> Iterator[Group]:
    """Yield the groups of the access suite; none, with the reason, where nothing can be mounted."""
    if importlib.util.find_spec("pyfuse3") is None or not Path("/dev/fuse").exists():
        setting.left_out[MOUNT] = "pyfuse3 or /dev/fuse is missing"
        return
    size, megabytes = setting.size, float(setting.size.large_mb)
    fresh = setting.size.repeats + 1
    tree = _BenchTree(setting.scratch / "access", size.large_mb * 1_000_000, fresh)
    setting.at_end.callback(tree.close)
    tree.start()
    kept = Operation(
        "access",
        "read a mounted file again",
        f"{size.large_mb} MB in blocks of 4 MiB through the mount; the kernel has its pages.",
        "MB/s",
        megabytes,
        baseline=PASSTHROUGH,
    )
    blocks = Operation(
        "access",
        "read a mounted file from blocks",
        f"The same {size.large_mb} MB after the kernel was told to drop the pages: each request reaches the program, "
        "which has the blocks in its cache, verified (pass-through: the file in the page cache).",
        "MB/s",
        megabytes,
        baseline=PASSTHROUGH,
    )
    listing = Operation(
        "access",
        "list a mounted folder",
        f"ls -l of {_ENTRIES} entries, which the kernel may know already.",
        "ms",
        1.0,
        baseline=PASSTHROUGH,
    )
    cold = Operation(
        "access",
        "read a file for the first time",
        f"{size.large_mb} MB that are in no cache: from a web server through the mount, with verification and caching; "
        "against one plain request to the same server.",
        "MB/s",
        megabytes,
        baseline=HTTP,
    )
    network = Operation(
        "access",
        "read a file for the first time over 1 Gbit/s",
        f"{size.large_mb} MB that are in no cache, from a web server that sends {_LINK / 1e6:.0f} MB in a second "
        "on all connections together; against one plain request.",
        "MB/s",
        megabytes,
        baseline=HTTP,
    )
    middle = Operation(
        "access",
        "read 1 MB from the middle of 1 GB",
        "1 MB of a sparse file that is in no cache, from the web server; at most 4 MB may move. HTTP: one range.",
        "ms",
        1.0,
        baseline=HTTP,
    )
    yield Group(kept, [_Read(kept, peer, tree) for peer in tree.mounts])
    yield Group(blocks, [_Read(blocks, peer, tree, drop=True) for peer in tree.mounts])
    yield Group(listing, [_Listing(listing, peer, tree, folder) for peer, folder in tree.mounts.items()])
    yield Group(cold, [_ColdRead(cold, MOUNT, tree), _PlainHttp(cold, HTTP, tree)])
    yield Group(network, [_ColdRead(network, MOUNT, tree, _LINK), _PlainHttp(network, HTTP, tree, _LINK)])
    yield Group(middle, [_Middle(middle, MOUNT, tree), _HttpMiddle(middle, HTTP, tree)])
    yield from gateway_groups(setting)


class _BenchTree:
    """A site, its catalogue, a web server with copies, and the two mounts."""

    def __init__(self, folder: Path, size: int, fresh: int) -> None:
        self.folder, self.size, self.fresh = folder, size, fresh
        self.mounts = {PASSTHROUGH: folder / "through", MOUNT: folder / "mount"}
        self._processes: list[subprocess.Popen[bytes]] = []
        self.web: ThreadingHTTPServer | None = None
        self.checksums: dict[str, str] = {}
        self.sparse_bytes = 0

    def start(self) -> None:
        """Write the files, register them, and mount."""
        site, copies, home = (self.folder / name for name in ("site", "copies", "home"))
        for folder in (site / "many", copies, home / "sites", *self.mounts.values()):
            folder.mkdir(parents=True, exist_ok=True)
        self.web = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_RangeHandler,), {"folder": copies}))
        threading.Thread(target=self.web.serve_forever, daemon=True).start()
        (home / "sites" / "bench.yaml").write_text(_SITE.format(root=site))
        for number in range(_ENTRIES):
            (site / "many" / f"{number:05}").touch()
        draw = random.Random(1)
        with open_catalogue(f"sqlite:///{home}/catalogue.sqlite") as catalogue:
            data = self._content_bytes(draw)
            (site / "large").write_bytes(data)
            catalogue.put_contents([self._content("large", data)])
            large = self._record(site, "large", self.checksums["large"])
            empty = blake3(b"").hexdigest()
            many = [self._record(site, f"many/{number:05}", empty) for number in range(_ENTRIES)]
            catalogue.upsert([large, *many])
            for name in [f"{kind}{number}" for number in range(self.fresh) for kind in ("fresh", "far")]:
                data = self._content_bytes(draw)
                (copies / name).write_bytes(data)
                catalogue.put_contents([self._content(name, data)])
                record = replace(
                    large,
                    path=f"/bench/elsewhere/{name}",
                    place=f"/bench/elsewhere/{name}",
                    site="elsewhere",
                    source=name,
                    checksum=self.checksums[name],
                )
                catalogue.upsert([record])
                replica = Replica(record.path, self.url(name), "http", record.checksum, datetime.now(UTC))
                catalogue.add_replicas([replica])
            self._add_sparse(catalogue, copies, large)
        environment = {**os.environ, "APBATCH_HOME": str(home), "APBATCH_CACHE": str(self.folder / "cache")}
        environment.pop("APBATCH_CONFIG", None)
        passthrough = ["-m", "apbatch.bench.cases.passthrough", str(site), str(self.mounts[PASSTHROUGH])]
        program = "from apbatch.cli.main import main; main()"
        mount = ["-c", program, "mount", "--foreground", str(self.mounts[MOUNT])]
        for command in (passthrough, mount):
            self._processes.append(subprocess.Popen([sys.executable, *command], env=environment))
        limit = time.monotonic() + _START_S
        while not all(mounting.is_mounted(folder) for folder in self.mounts.values()):
            if time.monotonic() > limit or any(process.poll() is not None for process in self._processes):
                raise ServerError("a file system could not be mounted", where=str(self.folder))
            time.sleep(0.05)

    def _content_bytes(self, draw: random.Random) -> bytes:
        """Return the bytes of a file; one draw of more than 268 MB is refused."""
        return b"".join(draw.randbytes(1_000_000) for _ in range(self.size // 1_000_000))

    def _add_sparse(self, catalogue: Catalogue, copies: Path, like: FileRecord) -> None:
        """Register a large file of zeros, which takes no room on disk."""
        self.sparse_bytes = size = _SPARSE_BLOCKS * BLOCK
        with (copies / "sparse").open("wb") as file:
            file.truncate(size)
        digest, zeros = blake3(), bytes(BLOCK)
        for _ in range(_SPARSE_BLOCKS):
            digest.update(zeros)
        pieces = bytes(20 * _SPARSE_BLOCKS), bytes(20 * -(-size // (24 << 20)))
        content = Content(digest.hexdigest(), size, "", blake3(zeros).digest() * _SPARSE_BLOCKS, *pieces)
        catalogue.put_contents([content])
        record = replace(like, path="/bench/elsewhere/sparse", place="/bench/elsewhere/sparse", site="elsewhere",
                         source="sparse", size=size, checksum=content.checksum)  # fmt: skip
        catalogue.upsert([record])
        catalogue.add_replicas([Replica(record.path, self.url("sparse"), "http", record.checksum, datetime.now(UTC))])

    def url(self, name: str) -> str:
        """Return where the web server has a file."""
        assert self.web is not None
        return f"http://127.0.0.1:{self.web.server_address[1]}/{name}"

    def cpu_times(self, peer: str) -> tuple[float, float]:
        """Return the CPU time of this process, which reads and serves, and of a mount, s: user, system."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        user, system = used.ru_utime, used.ru_stime
        for process in self._processes[list(self.mounts).index(peer) :][:1] if peer in self.mounts else []:
            first = psutil.Process(process.pid)
            for one in (first, *first.children(recursive=True)):
                times = one.cpu_times()
                user, system = user + times.user, system + times.system
        return user, system

    def file(self, peer: str, name: str) -> Path:
        """Return where a mount shows a file."""
        return self.mounts[peer] / (name if peer == PASSTHROUGH else f"bench/bench/{name}")

    def close(self) -> None:
        """Unmount and stop."""
        for folder in self.mounts.values():
            if mounting.is_mounted(folder):
                mounting.detach(folder)
        for process in self._processes:
            process.terminate()
            process.wait()
        if self.web is not None:
            self.web.shutdown()
            self.web.server_close()

    def _content(self, name: str, data: bytes) -> Content:
        blocks = [blake3(data[start : start + BLOCK]).digest() for start in range(0, len(data), BLOCK)]
        self.checksums[name] = blake3(data).hexdigest()
        pieces = bytes(20 * len(blocks)), bytes(20 * -(-len(data) // (24 << 20)))
        return Content(self.checksums[name], len(data), "", b"".join(blocks), *pieces)

    @staticmethod
    def _record(site: Path, source: str, checksum: str) -> FileRecord:
        status = (site / source).stat()
        return FileRecord(
            path=f"/bench/bench/{source}", site="bench", source=source, size=status.st_size,
            mtime_ns=status.st_mtime_ns, checksum=checksum, adler32="", format="none", experiment="BENCH",
        )  # fmt: skip


class _AccessCase(Case):
    """Reads one file; proof: its hash."""

    _digest = ""
    _expected = ""

    def _read(self, file: Path) -> list[bytes]:
        with file.open("rb", buffering=0) as stream:
            return list(iter(lambda: stream.read(READ_BYTES), b""))

    def check(self) -> None:
        digest = blake3()
        for block in self._blocks:
            digest.update(block)
        self._blocks = []
        if digest.hexdigest() != self._expected:
            raise VerificationError("the bytes read are not those written", where=self.peer)

    _blocks: list[bytes]


class _Read(_AccessCase):
    def __init__(self, operation: Operation, peer: str, tree: _BenchTree, *, drop: bool = False) -> None:
        super().__init__(operation, peer, tree.size)
        self._tree, self._drop = tree, drop
        self._file, self._expected = tree.file(peer, "large"), tree.checksums["large"]

    def prepare(self) -> None:
        with self._file.open("rb") as stream:
            if self._drop:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def run(self) -> None:
        self._blocks = self._read(self._file)

    def cpu_times(self) -> tuple[float, float]:
        return self._tree.cpu_times(self.peer)


class _Listing(Case):
    """List a folder with all attributes; proof: the number of lines."""

    def __init__(self, operation: Operation, peer: str, tree: _BenchTree, folder: Path) -> None:
        super().__init__(operation, peer)
        self._tree = tree
        self._folder = folder / ("many" if peer == PASSTHROUGH else "bench/bench/many")
        self._lines = 0

    def run(self) -> None:
        done = subprocess.run(["ls", "-l", str(self._folder)], capture_output=True, check=True)
        self._lines = done.stdout.count(b"\n") - 1

    def cpu_times(self) -> tuple[float, float]:
        return self._tree.cpu_times(self.peer)

    def check(self) -> None:
        if self._lines != _ENTRIES:
            raise VerificationError(f"{self._lines} entries listed, {_ENTRIES} are there", where=self.peer)


class _Fresh(_AccessCase):
    """Another file in each round, from a server that sends no faster than `rate`, bytes/s; 0: as fast as it can."""

    def __init__(self, operation: Operation, peer: str, tree: _BenchTree, rate: int = 0) -> None:
        super().__init__(operation, peer, tree.size)
        self._tree, self._rate, self._number = tree, rate, -1

    @property
    def _name(self) -> str:
        return f"{'far' if self._rate else 'fresh'}{self._number}"

    def prepare(self) -> None:
        self._number += 1
        self._expected = self._tree.checksums[self._name]
        _RangeHandler.rate = self._rate

    def check(self) -> None:
        _RangeHandler.rate = 0
        super().check()

    def cpu_times(self) -> tuple[float, float]:
        return self._tree.cpu_times(self.peer)


class _ColdRead(_Fresh):
    def run(self) -> None:
        self._blocks = self._read(self._tree.mounts[MOUNT] / f"bench/elsewhere/{self._name}")


class _PlainHttp(_Fresh):
    def run(self) -> None:
        import urllib3

        with urllib3.PoolManager() as client:
            answer = client.request("GET", self._tree.url(self._name), preload_content=False)
            self._blocks = list(iter(lambda: answer.read(READ_BYTES), b""))


class _Middle(Case):
    """Other blocks in each round; proof: the bytes, and how many the web server sent for them."""

    def __init__(self, operation: Operation, peer: str, tree: _BenchTree) -> None:
        super().__init__(operation, peer, _MIDDLE)
        self._tree, self._number, self._data = tree, -1, b""

    @property
    def _offset(self) -> int:
        return self._tree.sparse_bytes // 2 - _MIDDLE // 2 + 4 * BLOCK * self._number

    def prepare(self) -> None:
        self._number += 1
        _RangeHandler.sent = 0

    def run(self) -> None:
        with (self._tree.mounts[MOUNT] / "bench/elsewhere/sparse").open("rb", buffering=0) as file:
            file.seek(self._offset)
            parts: list[bytes] = []
            while (left := _MIDDLE - sum(len(part) for part in parts)) > 0:
                parts.append(file.read(left))
            self._data = b"".join(parts)

    def check(self) -> None:
        if self._data != bytes(_MIDDLE):
            raise VerificationError("the bytes read are not those written", where=self.peer)
        if _RangeHandler.sent > _MOST_MOVED:
            raise VerificationError(f"{_RangeHandler.sent} bytes moved for {_MIDDLE}", where=self.peer)

    def cpu_times(self) -> tuple[float, float]:
        return self._tree.cpu_times(self.peer)


class _HttpMiddle(_Middle):
    def run(self) -> None:
        import urllib3

        span = f"bytes={self._offset}-{self._offset + _MIDDLE - 1}"
        with urllib3.PoolManager() as client:
            self._data = client.request("GET", self._tree.url("sparse"), headers={"Range": span}).data


class _RangeHandler(BaseHTTPRequestHandler):
    """Files of a folder, whole or by ranges, sent by the kernel."""

    protocol_version = "HTTP/1.1"
    folder: Path
    #: Bytes of bodies, of all servers of this process; and those that may be sent in a second, 0 for any number.
    sent, rate = 0, 0
    _clock = threading.Lock()
    _free_s = 0.0  # when the line is free again

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._answer(lambda file, first, count: None)

    def do_GET(self) -> None:
        """Answer with the body."""

        def send(file: int, first: int, count: int) -> None:
            while count:
                length = min(count, _FRAME)
                self._wait_for_line(length)
                with self._clock:  # counted before a client can have them, so that no count comes late
                    _RangeHandler.sent += length
                sent = os.sendfile(self.connection.fileno(), file, first, length)
                first, count = first + sent, count - sent

        self._answer(send)

    @classmethod
    def _wait_for_line(cls, length: int) -> None:
        if not _RangeHandler.rate:
            return
        with cls._clock:
            now = time.monotonic()
            start = max(now, _RangeHandler._free_s)
            _RangeHandler._free_s = start + length / _RangeHandler.rate
        if start > now:
            time.sleep(start - now)

    def _answer(self, send: Callable[[int, int, int], None]) -> None:
        with (self.folder / self.path.strip("/")).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            requested = self.headers.get("Range")
            first, last = 0, size - 1
            if requested:
                begin, _, end = requested.removeprefix("bytes=").partition("-")
                first, last = int(begin), min(int(end or size - 1), size - 1)
            self.send_response(206 if requested else 200)
            if requested:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            self.wfile.flush()
            send(file.fileno(), first, last - first + 1)

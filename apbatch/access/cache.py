"""Verified blocks on the local disk, shared by all processes of one user.

A block is a file of its own, named by content and number, written beside and renamed, so that a process that is killed
leaves a whole block or none. What is read is compared with its digest: a block that the disk damaged is dropped and
fetched again. Nothing here can fail a reader: a full or broken disk only means that blocks are not kept.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from apbatch.access.blocks import Digests
from apbatch.errors import VerificationError
from apbatch.progress import say

#: Bytes that a cache holds unless told otherwise.
LIMIT = 10 << 30
_NAME = re.compile(r"^[0-9a-f]{64}\.\d+$")
#: Fill down to this part of the limit when it is reached.
_AFTER_TRIM = 0.9
#: What other processes write is seen when this part of the limit was written here.
_LOOK_AFTER = 1 / 16
_USED_EVERY_S, _PAUSE_AFTER_ERROR_S, _LEFT_BEHIND_S = 60.0, 30.0, 3600.0
#: Longer than a source may take for a block.
_LOCK_S = 60.0


class BlockCache:
    """Blocks by content and number in a folder; the ones used longest ago go first.

    Parameters
    ----------
    folder : pathlib.Path
    limit : int
        Bytes; several processes that write at the same time may be above it by a sixteenth each.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self._lock = threading.Lock()
        self._stored: int | None = None  # bytes at the last look
        self._written = 0  # since then
        self._rest_until = 0.0

    def get(self, digests: Digests, block: int) -> bytes | None:
        """Return a block, or None if it is not here, or not as it must be."""
        path = self._path(digests.checksum, block)
        try:
            with path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                data = file.read(status.st_size)
        except OSError:
            return None
        try:
            digests.check(block, data)
        except VerificationError:
            with suppress(OSError):
                path.unlink()
            return None
        if time.time() - status.st_mtime > _USED_EVERY_S:
            with suppress(OSError):
                os.utime(path)
        return data

    def put(self, digests: Digests, block: int, data: bytes) -> None:
        """Keep a verified block, if the disk takes it.

        Parameters
        ----------
        digests : Digests
            Of the content.
        block : int
            Its number.
        data : bytes
            Compared with its digest before.
        """
        if time.monotonic() < self._rest_until:
            return
        path = self._path(digests.checksum, block)
        part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with part.open("xb", buffering=0) as file:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            self._rest(error)
            return
        with self._lock:
            self._written += len(data)
            is_due = self._stored is None or self._written > self.limit * _LOOK_AFTER
            is_due = is_due or (self._stored or 0) + self._written > self.limit
        if is_due:
            self.trim()

    @contextmanager
    def fetching(self, digests: Digests, block: int) -> Iterator[None]:
        """Be the one process that fetches a block; who comes later waits, for a limited time, and finds it here."""
        path = self.folder / "locks" / f"{digests.checksum}.{block}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # then blocks are fetched twice at worst
            yield
            return
        try:
            limit, pause = time.monotonic() + _LOCK_S, 0.002
            while time.monotonic() < limit:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    time.sleep(pause)
                    pause = min(2 * pause, 0.05)
            yield
        finally:
            with suppress(OSError):
                path.unlink()
            os.close(lock)

    def usage(self) -> int:
        """Return the bytes of all blocks that are kept."""
        return sum(size for _, size, _ in self._blocks())

    def trim(self, to: int | None = None) -> None:
        """Remove the blocks used longest ago, and what killed processes left.

        Parameters
        ----------
        to : int, optional
            Bytes that may stay; by default nine tenths of the limit, where that is reached.
        """
        blocks = sorted(self._blocks())
        stored = sum(size for _, size, _ in blocks)
        if to is None:
            to = int(self.limit * _AFTER_TRIM) if stored > self.limit else stored
        for _, size, path in blocks:
            if stored <= to:
                break
            with suppress(OSError):
                path.unlink()
            stored -= size
        with self._lock:
            self._stored, self._written = stored, 0

    def _path(self, checksum: str, block: int) -> Path:
        return self.folder / checksum[:2] / f"{checksum}.{block}"

    def _blocks(self) -> Iterator[tuple[float, int, Path]]:
        """Yield time of use, size and path of each block; remove what was left behind."""
        old = time.time() - _LEFT_BEHIND_S
        try:
            folders = list(os.scandir(self.folder))
        except OSError:
            return
        for folder in folders:
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(OSError):
                        status = entry.stat()
                        if folder.name != "locks" and _NAME.match(entry.name):
                            yield status.st_mtime, status.st_size, Path(entry.path)
                        elif status.st_mtime < old and (folder.name == "locks" or entry.name.endswith(".part")):
                            Path(entry.path).unlink()

    def _rest(self, error: OSError) -> None:
        """Make room and leave the disk alone for a while."""
        if self._rest_until == 0.0:
            say(f"{self.folder}: blocks are not kept for now: {error.strerror}")
        self._rest_until = time.monotonic() + _PAUSE_AFTER_ERROR_S
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.trim(self.usage() // 2)

"""A folder in AFS as a store: an ordinary path, but neither its writes nor its answers can be trusted blindly.

Measured with the FUSE client: fsync does nothing, errors at close are lost (20 MB written over a quota of 5 MB
"succeeded" and left 0 bytes), and a call hangs for a minute when the file server is gone. So what was written is
read back through a path opened anew, and every call has a time limit. Files are only renamed within their folder,
as AFS can't do more in one step.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar, cast

from apbatch.storage.deadline import LIMIT_S, Heart, TimedReader, watched, within
from apbatch.storage.hashing import READ_BYTES, hash_blocks
from apbatch.storage.local import LocalStore, translated
from apbatch.storage.publishing import Draft
from apbatch.storage.store import Checksums

Result = TypeVar("Result")


class AfsStore(LocalStore):
    """Files under a folder of a mounted AFS cell."""

    kind: ClassVar[str] = "afs"

    def __init__(self, url: str, root: Path, limit_s: float = LIMIT_S) -> None:
        super().__init__(url, root, read_back=True)
        self._limit_s = limit_s

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.url, self.root, self._limit_s)

    def _call(self, where: str, call: Callable[..., Result], *arguments: Any) -> Result:
        with translated(where):
            return within(self._limit_s, where, call, *arguments)

    def _open(self, path: str) -> BinaryIO:
        where = self.url_of(path)
        file = self._call(where, io.open, self._file(path), "rb", 0)
        return cast(BinaryIO, io.BufferedReader(TimedReader(cast(BinaryIO, file), self._limit_s, where), READ_BYTES))

    def _hash(self, path: str) -> Checksums:
        where = self.url_of(path)
        with translated(where):
            return watched(lambda heart: self._hash_file(self._file(path), heart), self._limit_s, where)

    @staticmethod
    def _hash_file(file: str, heart: Heart) -> Checksums:
        with Path(file).open("rb", buffering=0) as stream:

            def block() -> bytes:
                heart.beat()
                return stream.read(READ_BYTES)

            return hash_blocks(iter(block, b""))

    def _verify(self, part: str, draft: Draft, written: Checksums) -> None:
        # The client may still hold the file's pages: drop them where it honours that, so that the server answers.
        self._call(self.url_of(part), self._forget_pages, self._file(part))
        super()._verify(part, draft, written)

    @staticmethod
    def _forget_pages(file: str) -> None:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)

    def settle(self, paths: Iterable[str]) -> None:
        """Do nothing: names are the file server's, and fsync does nothing here."""

"""Every hash of a content that is ever needed, from one reading: of the whole, of its blocks, of its pieces."""

from __future__ import annotations

import hashlib
import queue
import threading
from typing import Any

from blake3 import blake3

from apbatch.index.contents import BLOCK, LARGE_PIECE, SMALL_PIECE, Content
from apbatch.storage.hashing import Hasher

#: What is longer has its SHA-1 taken in a thread of its own; for less, to start one costs more than it saves.
_INLINE_BYTES = 8 << 20
#: Stretches that wait for that thread at most, so that memory stays bounded.
_WAITING = 4


class _Digests:
    """Digests of consecutive stretches of equal length."""

    def __init__(self, new: Any, length: int) -> None:
        self._new, self._length = new, length
        self._hash, self._filled = new(), 0
        self._done: list[bytes] = []

    def update(self, view: memoryview) -> None:
        while view:
            part = view[: self._length - self._filled]
            self._hash.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == self._length:
                self._close()

    def _close(self) -> None:
        self._done.append(self._hash.digest())
        self._hash, self._filled = self._new(), 0

    def result(self) -> bytes:
        if self._filled:
            self._close()
        return b"".join(self._done)


class ContentHasher:
    """All hashes of the bytes given so far; SHA-1 of what is long is taken in a thread of its own.

    To be closed, which ends the thread; `result` does it too.
    """

    def __init__(self) -> None:
        self._whole = Hasher()
        self._blocks = _Digests(blake3, BLOCK)
        self._small = _Digests(_sha1, SMALL_PIECE)
        self._large = _Digests(_sha1, LARGE_PIECE)
        self._size = 0
        self._waiting: queue.Queue[bytes | None] | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def update(self, view: bytes | memoryview) -> None:
        """Add some bytes."""
        view = memoryview(view)
        self._size += len(view)
        if self._thread is None and self._size > _INLINE_BYTES:
            self._waiting = queue.Queue(_WAITING)
            self._thread = threading.Thread(target=self._take, name="sha1", daemon=True)
            self._thread.start()
        if self._waiting is not None:
            self._waiting.put(bytes(view))  # the reader fills its buffer anew
        else:
            self._pieces(view)
        self._whole.update(view)
        self._blocks.update(view)

    def _take(self) -> None:
        assert self._waiting is not None
        while (part := self._waiting.get()) is not None:
            try:
                if self._failure is None:
                    self._pieces(memoryview(part))
            except BaseException as error:
                self._failure = error

    def _pieces(self, view: memoryview) -> None:
        self._small.update(view)
        self._large.update(view)

    def close(self) -> None:
        """End the thread after what it was given."""
        if self._thread is not None and self._waiting is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = self._waiting = None

    def result(self) -> Content:
        """Return the hashes of everything that was given."""
        self.close()
        if self._failure is not None:
            raise self._failure
        whole = self._whole.result()
        return Content(
            whole.blake3, whole.size, whole.adler32, self._blocks.result(), self._small.result(), self._large.result()
        )


def _sha1() -> Any:
    return hashlib.sha1(usedforsecurity=False)

"""Blocks that were fetched, on their way to the disk: they wait until readers pause.

A write costs about as much of a core as all the rest of a block's way to its reader, who would wait for it on a machine
of few cores. So blocks are written when nobody has asked for a while, when many wait, or when one has waited long. What
is not written when the process is killed is fetched again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import ExitStack

from apbatch.access.blocks import Digests
from apbatch.access.cache import BlockCache

#: Blocks that may wait, and from how many on they are written whatever readers do.
MOST_WAITING, MANY = 32, 16
#: Readers pause if none asks for so long; and a block waits no longer than the second, s.
_PAUSE_S, _LONGEST_S = 0.03, 1.0

_Block = tuple[float, Digests, int, bytes, ExitStack]


class Keeper:
    """Writes blocks into a cache, from a thread of its own.

    Parameters
    ----------
    cache : BlockCache
    """

    def __init__(self, cache: BlockCache) -> None:
        self._cache = cache
        self._change = threading.Condition()
        self._waiting: deque[_Block] = deque()
        self._thread: threading.Thread | None = None
        self._last_asked, self._closed = 0.0, False

    def note_reader(self) -> None:
        """Note that a reader is at work."""
        self._last_asked = time.monotonic()

    def keep(self, digests: Digests, block: int, data: bytes, lock: ExitStack) -> None:
        """Have a block written, after which its lock is released; at once if too many wait.

        Parameters
        ----------
        digests : Digests
            Of the content.
        block : int
        data : bytes
            Compared with its digest before.
        lock : contextlib.ExitStack
            Keeps other processes from fetching the same block.
        """
        with self._change:
            if waits := not self._closed and len(self._waiting) < MOST_WAITING:
                self._waiting.append((time.monotonic(), digests, block, data, lock))
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, daemon=True, name="keep-blocks")
                    self._thread.start()
                self._change.notify()
        if not waits:
            self._write(digests, block, data, lock)

    def close(self) -> None:
        """Write all that waits; what comes later is written by who brings it."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._change:
                while not (self._waiting or self._closed):
                    self._change.wait()
                while (pause_s := self._pause_s()) > 0:
                    self._change.wait(pause_s)
                if not self._waiting:
                    return
                _, digests, block, data, lock = self._waiting.popleft()
            self._write(digests, block, data, lock)
            del data, lock

    def _pause_s(self) -> float:
        """Return how long the first block should still wait."""
        if self._closed or not self._waiting or len(self._waiting) > MANY:
            return 0.0
        now = time.monotonic()
        return min(self._last_asked + _PAUSE_S - now, self._waiting[0][0] + _LONGEST_S - now)

    def _write(self, digests: Digests, block: int, data: bytes, lock: ExitStack) -> None:
        with lock:
            self._cache.put(digests, block, data)

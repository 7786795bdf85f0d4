"""Opens entries for several people in one process: each has a reader behind a door of their own, all share a cache."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from apbatch.access.cache import BlockCache
from apbatch.access.guard import Guard
from apbatch.access.principals import Principal
from apbatch.access.reader import OpenFile, Reader

#: Opens an entry of the merged tree for somebody.
Files = Callable[[Guard, str], OpenFile]
#: Readers that are kept; one that nobody asked for longest goes.
_READERS = 32
#: Blocks that one reader keeps in memory, bytes.
_MEMORY = 16 << 20


class Opening:
    """Opens an entry of the merged tree for somebody.

    Parameters
    ----------
    cache : BlockCache, optional
        Blocks on disk, which are verified again when they are read: what one person may not read, no other's block
        gives away, since a door is asked first.
    """

    def __init__(self, cache: BlockCache | None = None) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._readers: OrderedDict[Principal, Reader] = OrderedDict()

    def __call__(self, door: Guard, path: str) -> OpenFile:
        """Open the file at a path of the merged tree.

        Raises
        ------
        NotFoundError
            If there is none, or its bytes may not be read.
        """
        with self._lock:
            reader = self._readers.pop(door.who, None) or Reader(door, self._cache, memory=_MEMORY)
            self._readers[door.who] = reader
            gone = [self._readers.popitem(last=False)[1]] if len(self._readers) > _READERS else []
        for one in gone:
            one.close()
        return reader.open(path)

    def close(self) -> None:
        """End the readers' threads."""
        with self._lock:
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()

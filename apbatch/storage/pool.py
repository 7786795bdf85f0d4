"""Stores by root, each opened once in a process: connections, and what a client knows of its server, are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from apbatch.storage.store import ReadableStore

#: Roots that are kept; the one that was used longest ago goes first.
_MOST = 64


class StorePool:
    """Stores by root; several threads may ask.

    Parameters
    ----------
    open_store : callable
        Opens the store at a root.
    """

    def __init__(self, open_store: Callable[[str], ReadableStore]) -> None:
        self._open, self._lock = open_store, threading.Lock()
        self._stores: OrderedDict[str, ReadableStore] = OrderedDict()

    def at(self, root: str) -> ReadableStore:
        """Return the store at a root.

        Raises
        ------
        UsageError, MissingSoftwareError
            As the opening of that store raises them.
        """
        with self._lock:
            store = self._stores.get(root)
            if store is None:
                store = self._stores[root] = self._open(root)
            self._stores.move_to_end(root)
            while len(self._stores) > _MOST:
                self._stores.popitem(last=False)
        return store

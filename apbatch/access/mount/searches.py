"""Folders of searches: ``.find/QUERY/`` holds the files that match.

A query is the name of a folder, so a ``/`` in it is written ``%2F``, and a ``%`` that two hexadecimal digits follow
``%25``. Files of one name are told apart by ``~2``, ``~3`` behind it, in the order of the search.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import unquote

from apbatch.access.mount.door import Door
from apbatch.access.mount.nodes import Node, listed_version, shown_name
from apbatch.errors import UsageError
from apbatch.index.files import VISIBLE
from apbatch.index.parser import parse_search
from apbatch.progress import say

#: Files of one search that are shown.
MOST = 100_000
_KEPT, _FRESH_S = 8, 1.0
_COLUMNS = ("path", "place", "site", "size", "mtime_ns", "checksum", "state")

#: The folder of searches; the root does not list it, so that programs which walk the tree don't meet files twice.
SEARCHES = Node("", "searches", b".find")


@dataclass(frozen=True, slots=True)
class _Results:
    nodes: dict[bytes, Node]
    revision: int
    checked: float


class Searches:
    """Results of searches by the names of their folders; kept until the catalogue changes.

    Parameters
    ----------
    guard : Door
        Whatever it does not show is in no result.
    """

    def __init__(self, guard: Door) -> None:
        self._guard, self._lock = guard, threading.Lock()
        self._results: OrderedDict[str, _Results] = OrderedDict()
        self._check("size > 1 MB")  # grammar and units are loaded now, not while a shell waits for its first search

    def folder(self, name: bytes) -> Node:
        """Return the folder of a search.

        Raises
        ------
        UsageError
            If the name is no query.
        """
        text = name.decode("utf-8", "surrogateescape")
        self._check(text)
        return Node("", "search", name, version=text)

    def folders(self) -> list[Node]:
        """Return the folders of the searches that were used last."""
        with self._lock:
            names = list(self._results)
        return [Node("", "search", name.encode("utf-8", "surrogateescape"), version=name) for name in names]

    def nodes(self, folder: Node) -> dict[bytes, Node]:
        """Return the files of a search by their names.

        Raises
        ------
        UsageError
        """
        with self._lock:
            result = self._results.get(folder.version)
        if result is not None and time.monotonic() - result.checked < _FRESH_S:
            return result.nodes
        revision = self._guard.revision()
        nodes = result.nodes if result is not None and result.revision == revision else self._search(folder.version)
        with self._lock:
            self._results[folder.version] = _Results(nodes, revision, time.monotonic())
            self._results.move_to_end(folder.version)
            while len(self._results) > _KEPT:
                self._results.popitem(last=False)
        return nodes

    def _check(self, name: str) -> None:
        parse_search(_query_of(name), self._guard.attributes())

    def _search(self, name: str) -> dict[bytes, Node]:
        nodes: dict[bytes, Node] = {}
        numbers: dict[bytes, int] = {}
        for row in self._guard.rows(_query_of(name), _COLUMNS):
            if row["state"] not in VISIBLE:
                continue
            plain = shown_name(row["place"].rpartition("/")[2])
            free, number = plain, numbers.get(plain, 1)
            while free in nodes:
                number += 1
                free = b"%s~%d" % (plain, number)
            numbers[plain] = number
            version = row["checksum"] or listed_version(row["size"], row["mtime_ns"])
            nodes[free] = Node(row["place"], "file", free, row["size"], row["mtime_ns"], version, row["site"])
            if len(nodes) >= MOST:
                say(f".find/{name}: only the first {MOST} files are shown")
                break
        return nodes


def _query_of(name: str) -> str:
    try:
        return unquote(name, errors="surrogateescape")
    except UnicodeError as error:
        raise UsageError("a query is text in UTF-8", where=ascii(name)) from error

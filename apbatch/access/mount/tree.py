"""The merged tree as a file system shows it: folders, files in one version each, their attributes, searches."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from datetime import date

from apbatch.access.mount.door import Door
from apbatch.access.mount.nodes import Node, listed_version, shown_name, texts_of, version_of
from apbatch.access.mount.searches import SEARCHES, Searches
from apbatch.access.reader import OpenFile, Reader
from apbatch.errors import NotFoundError, UsageError
from apbatch.index.files import Entry, FileRecord
from apbatch.index.places import names_at
from apbatch.progress import say

#: Entries that are asked for at once.
PAGE = 10_000
#: Before the name of each extended attribute.
PREFIX = "user.apbatch."
_UNSHOWN = ("path", "place", "source", "size", "mtime_ns", "site", "revision", "reason")
_LONGEST_VALUE = 60_000  # the kernel takes 64 KiB


class StaleNodeError(NotFoundError):
    """The file under this name is another one by now."""


class Tree:
    """Looks up and lists what the guard shows.

    Parameters
    ----------
    guard : Door
    reader : Reader
    folder : str
        Of the merged tree, which is the root of what is shown; the empty text is the whole tree.

    Raises
    ------
    NotFoundError
        If there is no such folder.
    """

    def __init__(self, guard: Door, reader: Reader, folder: str = "") -> None:
        entry = guard.entry(folder)
        if entry is None or entry.kind != "folder":
            raise NotFoundError("no such folder in the merged tree", where=folder)
        self._guard, self._reader, self._searches = guard, reader, Searches(guard)
        self.root = Node(folder, "folder")

    def child(self, folder: Node, name: bytes) -> Node | None:
        """Return what a folder has under a name, or None.

        Raises
        ------
        UsageError
            For the name of a search that is no query.
        """
        if folder.kind == "search":
            return self._searches.nodes(folder).get(name)
        if folder.kind == "searches":
            return self._searches.folder(name)
        if folder == self.root and name == SEARCHES.name:
            return SEARCHES
        for text in texts_of(name):
            entry = self._guard.entry(f"{folder.path}/{text}")
            if entry is not None and shown_name(text) == name:
                return _node(folder.path, entry, text)
        return None

    def children(self, folder: Node) -> Iterator[list[Node]]:
        """Yield the nodes of a folder, page by page."""
        if folder.kind == "search":
            yield list(self._searches.nodes(folder).values())
            return
        if folder.kind == "searches":
            yield self._searches.folders()
            return
        cursor: str | None = None
        while True:
            page = self._guard.entries(folder.path, cursor, PAGE)
            yield [_node(folder.path, entry, entry.name) for entry in page.entries]
            if (cursor := page.cursor) is None:
                return

    def open(self, node: Node) -> OpenFile:
        """Open the very file that a node stands for.

        Raises
        ------
        StaleNodeError
            If another file has its name by now.
        NotFoundError
            If it is gone, or may not be read.
        """
        path, _ = self._holdings(node)
        file = self._reader.open(path)
        if version_of(file.record) != node.version:
            file.close()
            raise StaleNodeError("this is another file by now", where=path)
        return file

    def attributes(self, node: Node) -> dict[str, bytes]:
        """Return the extended attributes of a file by their full names: what the catalogue holds of it.

        Raises
        ------
        NotFoundError
        """
        if node.kind != "file":
            return {}
        _, records = self._holdings(node)
        record = records[0]
        values: dict[str, object] = {
            **{name: value for name, value in record.flat().items() if name not in _UNSHOWN},
            "verified": self._reader.digests(record) is not None,
            "sites": " ".join(dict.fromkeys(one.site for one in records)),
        }
        return {f"{PREFIX}{name}": text for name, value in values.items() if (text := _text(value)) is not None}

    def _holdings(self, node: Node) -> tuple[str, list[FileRecord]]:
        """Return the path of a node in the merged tree and the files behind it.

        A search gives the place that a holding wants; where places are in conflict, its entry is named after its site.
        """
        stale = False
        for path in names_at(node.path, node.site):
            records = self._guard.sources(path)
            if records and version_of(records[0]) == node.version:
                return path, records
            stale = stale or bool(records)
        if stale:
            raise StaleNodeError("this is another file by now", where=node.path)
        raise NotFoundError("no such file", where=node.path)


def _node(folder: str, entry: Entry, text: str) -> Node:
    path = f"{folder}/{text}"
    if entry.kind == "folder":
        return Node(path, "folder", shown_name(text))
    version = entry.checksum or listed_version(entry.size, entry.mtime_ns)
    return Node(path, "file", shown_name(text), entry.size, entry.mtime_ns, version)


def _text(value: object) -> bytes | None:
    """Return a value as an extended attribute holds it; None for one that is not there."""
    match value:
        case None | "":
            return None
        case bool():
            return b"yes" if value else b"no"
        case date():
            return value.isoformat().encode()
        case float():
            return repr(value).encode()
    return str(value).encode("utf-8", "surrogateescape")[:_LONGEST_VALUE]


def error_number(error: Exception) -> int:
    """Return the number by which a file system tells an error; what the caller did not cause is printed."""
    if isinstance(error, StaleNodeError):
        return errno.ESTALE
    if isinstance(error, NotFoundError):
        return errno.ENOENT
    say(str(error))
    return errno.EINVAL if isinstance(error, UsageError) else errno.EIO

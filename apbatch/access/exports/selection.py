"""What an export holds: a folder or file of the merged tree, or the files that match a query; only what may be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from apbatch.access.reader import Readable
from apbatch.errors import NotFoundError, UsageError
from apbatch.index.catalogue import PAGE
from apbatch.index.files import Entry, EntryPage, FileRecord
from apbatch.index.places import names_at


@dataclass(frozen=True, slots=True)
class Item:
    """One file of an export.

    Attributes
    ----------
    name : str
        Path within the export, as the catalogue writes names; without a slash at its beginning.
    path : str
        Path in the merged tree.
    sources : list of FileRecord
        The files behind it that may be read, the one that queries see first.
    """

    name: str
    path: str
    sources: list[FileRecord]

    @property
    def record(self) -> FileRecord:
        """The file that stands for the others."""
        return self.sources[0]


class Selectable(Readable, Protocol):
    """The methods of `Guard` that a selection needs, with the same meaning."""

    def entry(self, path: str) -> Entry | None:
        """Return what is seen under a path of the merged tree, or None."""

    def entries(self, folder: str, cursor: str | None = None, limit: int = PAGE) -> EntryPage:
        """Return some entries of a folder; see `Catalogue.entries`."""

    def sources(self, path: str) -> list[FileRecord]:
        """Return the files behind an entry that are seen."""

    def matching(self, query: str) -> Iterator[FileRecord]:
        """Yield the files that match a query, given as text."""


#: Gives the URLs at which an item's bytes can be had, the best first.
Urls = Callable[[Item], list[str]]


def select(door: Selectable, selection: str) -> Iterator[Item]:
    """Yield the files of a selection, in order of their names within a folder, or of their paths.

    Parameters
    ----------
    door : Selectable
        The guard of whoever the export is for, or the door of a server.
    selection : str
        A path of the merged tree, which begins with ``/``, or a query.

    Raises
    ------
    NotFoundError
        If there is nothing under the path that is seen.
    UsageError
        If the query is wrong.
    """
    if selection.startswith("/"):
        path = "/" + selection.strip("/") if selection.strip("/") else ""
        entry = door.entry(path)
        if entry is None:
            raise NotFoundError("no such file or folder in the merged tree", where=selection)
        if entry.kind == "file":
            yield from _items(door, path, path.rpartition("/")[2])
        else:
            yield from _below(door, path, "")
        return
    for record in door.matching(selection):
        path = _name_of(door, record)
        yield from _items(door, path, path.strip("/"))


def _name_of(door: Selectable, record: FileRecord) -> str:
    """Return the name of a file in the merged tree."""
    for path in names_at(record.place, record.site):
        if any(one.path == record.path for one in door.sources(path)):
            return path
    # The name may be that of another site with the same content, which is not seen.
    folder, _, name = record.place.rpartition("/")
    for entry in _entries(door, folder):
        path = f"{folder}/{entry.name}"
        if entry.name.startswith(f"{name}@") and any(one.path == record.path for one in door.sources(path)):
            return path
    return record.place  # it went meanwhile


def _below(door: Selectable, folder: str, prefix: str) -> Iterator[Item]:
    for entry in _entries(door, folder):
        name = f"{prefix}{entry.name}"
        if entry.kind == "folder":
            yield from _below(door, f"{folder}/{entry.name}", f"{name}/")
        else:
            yield from _items(door, f"{folder}/{entry.name}", name)


def _entries(door: Selectable, folder: str) -> Iterator[Entry]:
    cursor: str | None = None
    while True:
        page = door.entries(folder, cursor)
        yield from page.entries
        if (cursor := page.cursor) is None:
            return


def _items(door: Selectable, path: str, name: str) -> Iterator[Item]:
    try:
        readable = door.readable(path)
    except NotFoundError:
        return
    yield Item(name, path, readable)


def served_at(base: str) -> Urls:
    """Return what gives the URL of an item at an agent or a gateway.

    Parameters
    ----------
    base : str
        Its address, such as ``https://data.example.org``.

    Raises
    ------
    UsageError
        If it is no address.
    """
    if not base.startswith(("http://", "https://")):
        raise UsageError("the address of an agent or a gateway begins with http:// or https://", where=base)
    return lambda item: [f"{base.rstrip('/')}/f{quote(item.path)}"]

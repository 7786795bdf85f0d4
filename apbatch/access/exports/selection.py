"""What an export holds: a folder or file of the merged tree, or the files that match a query; only what may be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from apbatch.access.guard import Guard
from apbatch.errors import NotFoundError, UsageError
from apbatch.index.files import FileRecord
from apbatch.index.parser import parse


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


#: Gives the URLs at which an item's bytes can be had, the best first.
Urls = Callable[[Item], list[str]]


def select(guard: Guard, selection: str) -> Iterator[Item]:
    """Yield the files of a selection, in order of their names within a folder, or of their paths.

    Parameters
    ----------
    guard : Guard
        Of whoever the export is for.
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
        entry = guard.entry(path)
        if entry is None:
            raise NotFoundError("no such file or folder in the merged tree", where=selection)
        if entry.kind == "file":
            yield from _items(guard, path, path.rpartition("/")[2])
        else:
            yield from _below(guard, path, "")
        return
    names: set[str] = set()
    for record in guard.select(parse(selection, guard.attributes())):
        if guard.may_read(record):
            name, number = record.place.strip("/"), 1
            while name in names:  # sites hold different content at one place
                name = f"{record.place.strip('/')}@{record.site}" + (f"~{number}" if number > 1 else "")
                number += 1
            names.add(name)
            yield Item(name, record.place, [record])


def _below(guard: Guard, folder: str, prefix: str) -> Iterator[Item]:
    cursor: str | None = None
    while True:
        page = guard.entries(folder, cursor)
        for entry in page.entries:
            name = f"{prefix}{entry.name}"
            if entry.kind == "folder":
                yield from _below(guard, f"{folder}/{entry.name}", f"{name}/")
            else:
                yield from _items(guard, f"{folder}/{entry.name}", name)
        if (cursor := page.cursor) is None:
            return


def _items(guard: Guard, path: str, name: str) -> Iterator[Item]:
    readable = [record for record in guard.sources(path) if guard.may_read(record)]
    if readable:
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

"""Which files an export has, in the order of folders, and why some are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Protocol

from apbatch.access.exports.cvmfs.tree import File
from apbatch.errors import NotFoundError, UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.contents import Content
from apbatch.index.files import Conflict, Entry, EntryPage, State
from apbatch.index.pages import Page
from apbatch.index.parser import parse_search
from apbatch.index.query import Allowed, And, Compare, In, Order, Query, Search, names
from apbatch.ingest.patterns import decode_path, encode_path

#: Longest name, bytes: that of Linux.
LONGEST_NAME = 255
_NO_NAMES = (b".", b"..")
_PAGE = 10_000
_PAGE_OF_SEARCH = 50_000
_COLUMNS = ("path", "place", "size", "mtime_ns", "checksum", "state")


class Reason(StrEnum):
    """Why a file is not in the repository."""

    LISTED = "it is only listed; its content was not read yet"
    NO_PIECES = "the catalogue has no hashes of its pieces"
    OTHER_SIZE = "the hashes of its pieces are not those of its size"
    BAD_NAME = f"its name, or a folder's, is not a name of at most {LONGEST_NAME} bytes"
    SAME_NAME = "another file or folder, or the marker of a catalog, has this name"


REMEDIES = {
    Reason.LISTED: "apbatch ingest SITE reads it",
    Reason.NO_PIECES: "apbatch ingest SITE --again reads it once more",
    Reason.OTHER_SIZE: "apbatch ingest SITE --again reads it once more",
    Reason.BAD_NAME: "give it another place (tree: in the site's YAML file)",
    Reason.SAME_NAME: "give it another place (tree: in the site's YAML file)",
}

#: Called with a path in the merged tree and the reason for each file that is left out.
Refuse = Callable[[str, Reason], None]


class Tree(Protocol):
    """What an export asks: `apbatch.access.guard.Guard`."""

    def data_rule(self) -> Query | None:
        """Return the condition on files whose bytes may be read; None if all."""

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query may name."""

    def entry(self, path: str) -> Entry | None:
        """Return what the merged tree has under a path."""

    def entries(self, folder: str, cursor: str | None = None, limit: int = ...) -> EntryPage:
        """Return some entries of a folder; see `Catalogue.entries`."""

    def conflicts(self, cursor: str | None = None, limit: int = ...) -> tuple[list[Conflict], str | None]:
        """Return some places at which sites hold different content."""

    def select_batch(self, search: Search, columns: Sequence[str], cursor: str | None = None, size: int = ...) -> Page:
        """Return some files that match; see `Catalogue.select_batch`."""

    def contents(self, checksums: Iterable[str]) -> dict[str, Content]:
        """Return the hashes of contents by BLAKE3."""


def files_of(tree: Tree, selection: str, refuse: Refuse) -> Iterator[tuple[bytes, File]]:
    """Return the files of an export, folder by folder: the path of the folder in the repository, and the file.

    Parameters
    ----------
    tree : Tree
    selection : str
        A folder of the merged tree, which begins with ``/`` and becomes the root of the repository; or a query, whose
        files keep their paths in the merged tree.
    refuse : callable

    Raises
    ------
    NotFoundError, UsageError
        If there is no such folder, or the query is wrong.
    """
    if selection.startswith("/"):
        top = f"/{selection.strip('/')}".rstrip("/")
        entry = tree.entry(top) if top else None
        if top and entry is None:
            raise NotFoundError("the merged tree has no such folder", where=selection)
        if entry is not None and entry.kind == "file":
            raise UsageError("a file, not a folder", where=selection, remedy=f"export a query: place = '{selection}'")
        if tree.data_rule() is None:
            return _below(tree, top, refuse)
        return _matching(tree, Search(_inside(top)), len(_path_of(top) or b""), refuse)
    return _matching(tree, parse_search(selection, tree.attributes()), 0, refuse)


def _below(tree: Tree, top: str, refuse: Refuse) -> Iterator[tuple[bytes, File]]:
    todo: list[tuple[str, bytes | None]] = [(top, b"")]
    while todo:
        folder, path = todo.pop()
        below: list[tuple[str, bytes | None]] = []
        cursor: str | None = None
        while True:
            page = tree.entries(folder, cursor, _PAGE)
            for entry in page.entries:
                name = name_of(entry.name) if path is not None else None
                whole = f"{folder}/{entry.name}"
                if entry.kind == "folder":
                    below.append((whole, None if path is None or name is None else path + b"/" + name))
                elif path is None or name is None:
                    refuse(whole, Reason.BAD_NAME)
                elif entry.state is not State.REGISTERED or not entry.checksum:
                    refuse(whole, Reason.LISTED)
                else:
                    yield path, File(name, whole, entry.size, entry.mtime_ns, entry.checksum)
            if (cursor := page.cursor) is None:
                break
        todo += reversed(below)


def _matching(tree: Tree, search: Search, above_root: int, refuse: Refuse) -> Iterator[tuple[bytes, File]]:
    where = search.where
    if "state" not in names(where):  # else what is listed only would be left out without a word
        where = And((where, In("state", (State.REGISTERED.value, State.LISTED.value))))
    rule = tree.data_rule()
    search = Search(where if rule is None else Allowed(where, rule), (Order("place"),), search.limit)
    entries = {path: entry for conflict in _conflicts(tree) for path, entry in conflict.entries.items()}
    folder = ""
    path: bytes | None = b""
    cursor: str | None = None
    while True:
        page = tree.select_batch(search, _COLUMNS, cursor, _PAGE_OF_SEARCH)
        for key, place, size, mtime_ns, checksum, state in zip(
            *(column.to_pylist() for column in page.batch.columns), strict=True
        ):
            whole = entries.get(key, place)
            above, _, last = whole.rpartition("/")
            if above != folder:
                folder, path = above, _path_of(above)
            name = name_of(last)
            if path is None or name is None:
                refuse(whole, Reason.BAD_NAME)
            elif state != State.REGISTERED or not checksum:
                refuse(whole, Reason.LISTED)
            else:
                yield path[above_root:], File(name, whole, size, mtime_ns, checksum)
        if (cursor := page.cursor) is None:
            return


def _conflicts(tree: Tree) -> Iterator[Conflict]:
    cursor: str | None = None
    while True:
        conflicts, cursor = tree.conflicts(cursor)
        yield from conflicts
        if cursor is None:
            return


def name_of(text: str) -> bytes | None:
    """Return the name that the catalogue holds as `text`, or None if it can't be one of a file."""
    name = decode_path(text) if "%" in text else text.encode()
    if not 0 < len(name) <= LONGEST_NAME or name in _NO_NAMES or b"/" in name or b"\0" in name:
        return None
    if "%" in text and name != text.encode() and encode_path(name) != text:
        return None  # another text is this name's
    return name


def _path_of(folder: str) -> bytes | None:
    parts = [name_of(part) for part in folder.split("/")[1:]]
    return None if None in parts else b"".join(b"/" + part for part in parts if part is not None)


def _inside(folder: str) -> Query:
    """Return the condition that a place is below a folder."""
    return And((Compare("place", ">=", f"{folder}/"), Compare("place", "<", f"{folder}0")))  # 0 follows / in ASCII

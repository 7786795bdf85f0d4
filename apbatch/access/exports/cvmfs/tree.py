"""The tree that is exported, cut into catalogs while it is read: folders are closed one by one, and none is held long.

A folder whose catalog would hold more than `FULL` rows gives those of its folders that have at least `CRUMB` rows
catalogs of their own. Whether a folder gets one depends on numbers of rows alone, so one changed file moves no border.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

#: Rows of a catalog above which its larger folders get catalogs of their own.
FULL = 5000
#: A folder of fewer rows never gets one.
CRUMB = 100
_NEVER = -(1 << 63)


class File(NamedTuple):
    """One file to export.

    Attributes
    ----------
    name : bytes
        Last component in the repository.
    path : str
        In the merged tree.
    size : int
        Bytes.
    mtime_ns : int
        Time of last change since 1970, ns.
    checksum : str
        BLAKE3 of the content, hexadecimal.
    """

    name: bytes
    path: str
    size: int
    mtime_ns: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Nested:
    """A catalog that is stored, as its parent names it.

    Attributes
    ----------
    hash : str
        SHA-1 of the object, hexadecimal.
    size : int
        Bytes of the database, not compressed.
    counters : dict of str to int
        Its own counters and those of all catalogs below it.
    """

    hash: str
    size: int
    counters: dict[str, int]


class Folder:
    """One folder of the exported tree, with what belongs to the same catalog.

    Attributes
    ----------
    path : bytes
        In the repository, without a slash at the end; empty for the root.
    files : list of File
    folders : list of Folder
    subfolders : int
        Number of folders directly below.
    newest_ns : int
        Newest time of change of a file below: a folder of a merged tree has no time of its own.
    weight : int
        Rows of what belongs to the same catalog.
    overfull : bool
        Whether its larger folders get catalogs of their own.
    catalog : Nested, optional
        The folder's own catalog; files and folders are in it, and no longer here.
    """

    __slots__ = ("catalog", "files", "folders", "newest_ns", "overfull", "path", "subfolders", "weight")

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.files: list[File] = []
        self.folders: list[Folder] = []
        self.newest_ns = _NEVER
        self.subfolders = 0
        self.weight = 1
        self.overfull = False
        self.catalog: Nested | None = None

    @property
    def name(self) -> bytes:
        """The last component of the path."""
        return self.path.rpartition(b"/")[2]


def same_catalog(root: Folder) -> Iterator[Folder]:
    """Yield a folder and all below that belong to the same catalog, those with a catalog of their own as its border."""
    todo = [root]
    while todo:  # no recursion: a path has up to 2,048 components
        folder = todo.pop()
        yield folder
        todo += reversed(folder.folders)


class Cutter:
    """Takes the files of a tree and has a catalog written for each folder that is to have one.

    Parameters
    ----------
    piece : int
        Length of the pieces, bytes: each piece of a longer file is a row, too.
    write : callable
        Stores the catalog of a folder.
    full, crumb : int
        See the module.
    """

    def __init__(self, piece: int, write: Callable[[Folder], Nested], *, full: int = FULL, crumb: int = CRUMB) -> None:
        self._piece, self._write, self._full, self._crumb = piece, write, full, crumb
        self._open = [Folder(b"")]

    def cut(self, files: Iterable[tuple[bytes, File]]) -> Folder:
        """Return the root, with what belongs into its catalog.

        Parameters
        ----------
        files : iterable of (bytes, File)
            Path of the folder, and the file; all that lies below a folder comes together.
        """
        folder = self._open[-1]
        for path, file in files:
            if path != folder.path:
                folder = self._enter(path)
            folder.files.append(file)
            pieces = -(-file.size // self._piece)
            folder.weight += 1 if pieces <= 1 else 1 + pieces
            folder.newest_ns = max(folder.newest_ns, file.mtime_ns)
            if folder.weight > self._full and not folder.overfull:
                self._relieve(folder)
        while len(self._open) > 1:
            self._leave()
        root = self._open[0]
        if not root.files and not root.folders:
            root.newest_ns = 0
        return root

    def _enter(self, path: bytes) -> Folder:
        while not _holds(self._open[-1].path, path):
            self._leave()
        above = self._open[-1].path
        for component in path[len(above) + 1 :].split(b"/") if path != above else ():
            above = above + b"/" + component
            self._open.append(Folder(above))
        return self._open[-1]

    def _leave(self) -> None:
        folder = self._open.pop()
        parent = self._open[-1]
        parent.newest_ns = max(parent.newest_ns, folder.newest_ns)
        parent.folders.append(folder)
        parent.subfolders += 1
        parent.weight += folder.weight
        if parent.overfull:
            self._nest(parent, folder)
        elif parent.weight > self._full:
            self._relieve(parent)

    def _relieve(self, folder: Folder) -> None:
        folder.overfull = True
        for below in folder.folders:
            self._nest(folder, below)

    def _nest(self, parent: Folder, folder: Folder) -> None:
        if folder.catalog is None and folder.weight >= self._crumb:
            folder.catalog = self._write(folder)
            folder.files, folder.folders = [], []
            parent.weight -= folder.weight - 1
            folder.weight = 1


def _holds(folder: bytes, path: bytes) -> bool:
    return path == folder or path.startswith(folder + b"/")

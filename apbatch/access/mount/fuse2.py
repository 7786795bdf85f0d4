"""The merged tree as a file system of this machine, by mfusepy: for machines on which pyfuse3 can't be built.

Listing takes longer, since each entry is asked for again, and files are read anew each time they are opened.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import mfusepy

from apbatch.access.mount.follow import Follower
from apbatch.access.mount.nodes import Node
from apbatch.access.mount.tree import PREFIX, StaleNodeError, Tree, error_number
from apbatch.access.reader import OpenFile
from apbatch.errors import ApbatchError, UsageError
from apbatch.storage.deadline import within

Result = TypeVar("Result")

#: How long names are believed; the feed is not needed for that.
BELIEVED_S = 1.0
#: No call waits longer: then it is an error (EIO).
LIMIT_S = 60.0
_MOST = 20_000


class Operations(mfusepy.Operations):  # type: ignore[misc]  # no types there
    """Answers the kernel, by paths."""

    use_ns = True

    def __init__(self, tree: Tree) -> None:
        self._tree, self._lock = tree, threading.Lock()
        self._nodes: OrderedDict[str, tuple[Node, float]] = OrderedDict()
        self._files: dict[int, OpenFile] = {}
        self._handles = itertools.count(1)
        self._began_ns = time.time_ns()

    def _call(self, call: Callable[..., Result], *arguments: Any) -> Result:
        try:
            return within(LIMIT_S, "mount", call, *arguments)
        except (ApbatchError, OSError, ValueError) as error:
            raise mfusepy.FuseOSError(error_number(error)) from None

    def _remember(self, path: str, node: Node) -> Node:
        with self._lock:
            self._nodes[path] = (node, time.monotonic() + BELIEVED_S)
            while len(self._nodes) > _MOST:
                self._nodes.popitem(last=False)
        return node

    def _node(self, path: str) -> Node:
        path = path.rstrip("/")
        if not path:
            return self._tree.root
        with self._lock:
            node, end = self._nodes.get(path, (None, 0.0))
        if node is not None and time.monotonic() < end:
            return node
        folder, _, name = path.rpartition("/")
        parent = self._node(folder)
        if parent.kind == "file":
            raise mfusepy.FuseOSError(errno.ENOTDIR)
        node = self._call(self._tree.child, parent, os.fsencode(name))
        if node is None:
            raise mfusepy.FuseOSError(errno.ENOENT)
        return self._remember(path, node)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """Return size, times and kind."""
        node = self._node(path)
        is_file = node.kind == "file"
        time_ns = max(0, node.mtime_ns) if is_file else self._began_ns
        return {
            "st_mode": stat.S_IFREG | 0o444 if is_file else stat.S_IFDIR | 0o555,
            "st_nlink": 1, "st_uid": os.getuid(), "st_gid": os.getgid(), "st_size": node.size,
            "st_blocks": -(-node.size // 512), "st_atime": time_ns, "st_mtime": time_ns, "st_ctime": time_ns,
        }  # fmt: skip

    def readdir(self, path: str, fh: int) -> Iterator[str]:
        """Yield the names in a folder."""
        pages = self._tree.children(self._node(path))
        above = path.rstrip("/")
        while page := self._call(next, pages, None):
            for node in page:
                name = os.fsdecode(node.name)
                self._remember(f"{above}/{name}", node)
                yield name

    def open(self, path: str, flags: int) -> int:
        """Open a file for reading."""
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND):
            raise mfusepy.FuseOSError(errno.EROFS)
        node = self._node(path)
        if node.kind != "file":
            raise mfusepy.FuseOSError(errno.EISDIR)
        file = self._call(self._open, path, node)
        handle = next(self._handles)
        self._files[handle] = file
        return handle

    def _open(self, path: str, node: Node) -> OpenFile:
        try:
            return self._tree.open(node)
        except StaleNodeError:
            with self._lock:
                self._nodes.pop(path, None)
            return self._tree.open(self._node(path))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Return bytes of an open file."""
        file = self._files[fh]
        data = file.at_hand(offset, size)
        return self._call(file.read, offset, size) if data is None else bytes(data)

    def release(self, path: str, fh: int) -> int:
        """Close a file."""
        file = self._files.pop(fh, None)
        if file is not None:
            file.close()
        return 0

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """Return one extended attribute."""
        if not name.startswith("user."):  # else ls asks for its ACL and its label with every file
            raise mfusepy.FuseOSError(errno.EOPNOTSUPP)
        attributes = self._call(self._tree.attributes, self._node(path)) if name.startswith(PREFIX) else {}
        if name not in attributes:
            raise mfusepy.FuseOSError(errno.ENODATA)
        return attributes[name]

    def listxattr(self, path: str) -> list[str]:
        """Return the names of the extended attributes."""
        return list(self._call(self._tree.attributes, self._node(path)))

    def statfs(self, path: str) -> dict[str, int]:
        """Return sizes of the file system: nothing can be written; the watchdog asks this to see that all is well."""
        return {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255}


def serve(tree: Tree, follower: Follower, folder: Path, *, allow_other: bool = False) -> None:
    """Mount a tree and answer until it is unmounted, or the process gets SIGTERM or SIGINT.

    Parameters
    ----------
    tree : Tree
    follower : Follower
        Says what changed.
    folder : Path
        Where to mount.
    allow_other : bool
        Other users may look into it.

    Raises
    ------
    UsageError
        If the system does not let it be mounted there.
    """
    options: dict[str, Any] = {"fsname": "apbatch", "subtype": "apbatch", "ro": True, "default_permissions": True}
    if allow_other:
        options["allow_other"] = True
    try:
        mfusepy.FUSE(Operations(tree), str(folder), foreground=True, **options)
    except RuntimeError as error:
        raise UsageError(
            f"can't be mounted: {error}", where=str(folder), remedy="is it a folder of yours, and is fuse installed?"
        ) from error

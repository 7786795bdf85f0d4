"""A file system of pyfuse3 that only hands on what a folder has: the limit for every mount that is written in Python.

Run as a program: ``python -m apbatch.bench.cases.passthrough FOLDER MOUNT``.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import pyfuse3
import trio

_BELIEVED_S = 30.0


class Passthrough(pyfuse3.Operations):  # type: ignore[misc]  # no types there
    """Files and folders below a folder, read-only; an inode is known by its path."""

    enable_writeback_cache = False

    def __init__(self, root: str) -> None:
        super().__init__()
        self._paths = {pyfuse3.ROOT_INODE: os.fsencode(root)}
        self._inodes = {os.fsencode(root): pyfuse3.ROOT_INODE}
        self._listings: dict[int, list[os.DirEntry[bytes]]] = {}

    def _entry(self, path: bytes, status: os.stat_result) -> Any:
        inode = self._inodes.setdefault(path, len(self._inodes) + 1)
        self._paths[inode] = path
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_atime_ns", "st_mtime_ns", "st_ctime_ns"):
            setattr(entry, name, getattr(status, name))
        entry.entry_timeout = entry.attr_timeout = _BELIEVED_S
        return entry

    async def lookup(self, parent_inode: int, name: bytes, ctx: Any = None) -> Any:
        """Find a name."""
        path = self._paths[parent_inode] + b"/" + name
        try:
            return self._entry(path, os.lstat(path))
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from None

    async def getattr(self, inode: int, ctx: Any = None) -> Any:
        """Return the status."""
        return self._entry(self._paths[inode], os.lstat(self._paths[inode]))

    async def opendir(self, inode: int, ctx: Any = None) -> int:
        """Read a folder."""
        with os.scandir(self._paths[inode]) as entries:
            self._listings[inode] = list(entries)
        return inode

    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        """Give entries with their status."""
        for number, entry in enumerate(self._listings[fh][start_id:], start_id + 1):
            attributes = self._entry(entry.path, entry.stat(follow_symlinks=False))
            if not pyfuse3.readdir_reply(token, entry.name, attributes, number):
                return

    async def open(self, inode: int, flags: int, ctx: Any = None) -> Any:
        """Open a file; the kernel may keep its pages."""
        return pyfuse3.FileInfo(fh=os.open(self._paths[inode], os.O_RDONLY), keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read."""
        return os.pread(fh, size, off)

    async def release(self, fh: int) -> None:
        """Close."""
        os.close(fh)


def main(root: str, folder: str) -> None:
    """Serve until it is unmounted."""
    pyfuse3.init(Passthrough(root), folder, {*pyfuse3.default_options, "ro", "fsname=passthrough", "subtype=apbatch"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

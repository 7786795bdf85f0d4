"""The merged tree as a file system of this machine, by libfuse3 (pyfuse3): read-only, answered from blocks and feed.

A version of a file has an inode of its own, so that the kernel may keep its pages for ever: what changed is another
inode, and no page of the one is ever shown for the other.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyfuse3
import trio

from apbatch.access.mount.follow import Follower
from apbatch.access.mount.mounting import device_of
from apbatch.access.mount.nodes import Node
from apbatch.access.mount.tree import PREFIX, Tree, error_number
from apbatch.access.reader import OpenFile
from apbatch.errors import ApbatchError, UsageError
from apbatch.progress import say

Result = TypeVar("Result")

#: How long the kernel believes names and attributes that no change was told of.
BELIEVED_S = 30.0
#: No call waits longer: then it is an error (EIO).
LIMIT_S = 60.0
_FOLLOW_EVERY_S = 1.0
#: What the kernel asks for at once for a sequential reader. With more, one who wants 1 MB would move a third block.
_READ_AHEAD_KB = 512
#: Entries of a folder whose listing is kept.
_LARGEST_LISTING = 200_000
_BLOCK = 512
_FILE_MODE, _FOLDER_MODE = stat.S_IFREG | 0o444, stat.S_IFDIR | 0o555


@dataclass(slots=True, eq=False)
class _Inode:
    """What an inode stands for, what the kernel is told of it, and how often it was told."""

    number: int
    node: Node
    entry: Any
    lookups: int = 0


@dataclass(slots=True, eq=False)
class _Listing:
    """A folder as far as it was read; if all of it was, it serves who opens the folder next."""

    pages: Iterator[list[Node]]
    end: float  # until when it is believed
    entries: list[tuple[bytes, _Inode]] = field(default_factory=list)
    complete: bool = False


class Operations(pyfuse3.Operations):  # type: ignore[misc]  # no types there
    """Answers the kernel.

    Parameters
    ----------
    tree : Tree
    follower : Follower
        Tells which names changed.
    """

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, tree: Tree, follower: Follower) -> None:
        super().__init__()
        self._tree, self._follower = tree, follower
        self._began_ns = time.time_ns()
        self._owner = os.getuid(), os.getgid()
        root = _Inode(pyfuse3.ROOT_INODE, tree.root, self._attributes(pyfuse3.ROOT_INODE, tree.root), 1)
        self._inodes: dict[int, _Inode] = {root.number: root}
        self._by_key: dict[tuple[str, str, str], _Inode] = {tree.root.key: root}
        self._next = pyfuse3.ROOT_INODE + 1
        self._files: dict[int, OpenFile] = {}
        self._open_folders: dict[int, _Listing] = {}
        self._listings: dict[int, _Listing] = {}  # by the folder's inode
        self._next_handle = 1
        self._threads = trio.CapacityLimiter(64)

    async def _call(self, call: Callable[..., Result], *arguments: Any) -> Result:
        """Run what may wait in a thread, for a limited time; turn errors into numbers."""
        try:
            with trio.fail_after(LIMIT_S):
                result: Result = await trio.to_thread.run_sync(
                    call, *arguments, abandon_on_cancel=True, limiter=self._threads
                )
                return result
        except trio.TooSlowError:
            say(f"no answer within {LIMIT_S:g} s: {call.__name__}")
            raise pyfuse3.FUSEError(errno.EIO) from None
        except (ApbatchError, OSError, ValueError) as error:
            raise pyfuse3.FUSEError(error_number(error)) from None

    def _node(self, inode: int) -> Node:
        try:
            return self._inodes[inode].node
        except KeyError:
            raise pyfuse3.FUSEError(errno.ESTALE) from None

    def _inode(self, node: Node) -> _Inode:
        """Return the inode of a node; a new one is remembered once the kernel is told of it."""
        inode = self._by_key.get(node.key)
        if inode is None:
            inode = _Inode(self._next, node, self._attributes(self._next, node))
            self._next += 1
        return inode

    def _tell(self, inode: _Inode) -> _Inode:
        """Count that the kernel is told of an inode; return the one it must be told of."""
        if inode.lookups == 0:  # new, or forgotten since its folder was listed
            inode = self._by_key.setdefault(inode.node.key, inode)
            self._inodes[inode.number] = inode
        inode.lookups += 1
        return inode

    def _forget(self, number: int, lookups: int) -> None:
        inode = self._inodes.get(number)
        if inode is None or number == pyfuse3.ROOT_INODE:
            return
        inode.lookups -= lookups
        if inode.lookups <= 0:
            inode.lookups = 0
            del self._inodes[number]
            self._by_key.pop(inode.node.key, None)

    def _attributes(self, number: int, node: Node) -> Any:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = number
        is_file = node.kind == "file"
        entry.st_mode = _FILE_MODE if is_file else _FOLDER_MODE
        entry.st_nlink = 1
        entry.st_uid, entry.st_gid = self._owner
        entry.st_size = node.size
        entry.st_blksize = 128 << 10
        entry.st_blocks = -(-node.size // _BLOCK)
        time_ns = max(0, node.mtime_ns) if is_file else self._began_ns
        entry.st_atime_ns = entry.st_ctime_ns = entry.st_mtime_ns = time_ns
        entry.entry_timeout = entry.attr_timeout = BELIEVED_S if node.kind in ("file", "folder") else 1.0
        return entry

    async def lookup(self, parent_inode: int, name: bytes, ctx: Any = None) -> Any:
        """Find a name in a folder."""
        node = await self._call(self._tree.child, self._node(parent_inode), name)
        if node is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._tell(self._inode(node)).entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Drop what the kernel no longer holds."""
        for number, lookups in inode_list:
            self._forget(number, lookups)

    async def getattr(self, inode: int, ctx: Any = None) -> Any:
        """Return size, times and kind."""
        try:
            return self._inodes[inode].entry
        except KeyError:
            raise pyfuse3.FUSEError(errno.ESTALE) from None

    async def opendir(self, inode: int, ctx: Any = None) -> int:
        """Open a folder."""
        node, now = self._node(inode), time.monotonic()
        listing = self._listings.pop(inode, None)
        if listing is None or not listing.complete or now >= listing.end:
            believed = BELIEVED_S if node.kind == "folder" else 0.0
            listing = _Listing(self._tree.children(node), now + believed)
        self._listings[inode] = listing
        handle = self._handle()
        self._open_folders[handle] = listing
        return handle

    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        """Give entries with their attributes until the kernel's buffer is full."""
        listing = self._open_folders[fh]
        entries, position = listing.entries, start_id
        while True:
            while position >= len(entries) and not listing.complete:
                await self._read_page(listing)
            if position >= len(entries):
                return
            for name, inode in islice(entries, position, None):
                inode_state = self._tell(inode)
                position += 1
                if not pyfuse3.readdir_reply(token, name, inode_state.entry, position):
                    self._forget(inode_state.number, 1)
                    return

    async def _read_page(self, listing: _Listing) -> None:
        page = await self._call(next, listing.pages, None)
        listing.complete = page is None
        listing.entries += [(node.name, self._inode(node)) for node in page or ()]

    async def releasedir(self, fh: int) -> None:
        """Close a folder."""
        self._open_folders.pop(fh, None)

    async def open(self, inode: int, flags: int, ctx: Any = None) -> Any:
        """Open a file for reading."""
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND):
            raise pyfuse3.FUSEError(errno.EROFS)
        node = self._node(inode)
        if node.kind != "file":
            raise pyfuse3.FUSEError(errno.EISDIR)
        file = await self._call(self._tree.open, node)
        handle = self._handle()
        self._files[handle] = file
        return pyfuse3.FileInfo(fh=handle, keep_cache=file.verified)

    async def read(self, fh: int, off: int, size: int) -> bytes | memoryview:
        """Return bytes of an open file."""
        file = self._files[fh]
        data = file.at_hand(off, size)
        return await self._call(file.read, off, size) if data is None else data

    async def release(self, fh: int) -> None:
        """Close a file."""
        file = self._files.pop(fh, None)
        if file is not None:
            file.close()

    async def getxattr(self, inode: int, name: bytes, ctx: Any = None) -> bytes:
        """Return one extended attribute."""
        if not name.startswith(b"user."):  # else ls asks for its ACL and its label with every file
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
        if not name.startswith(PREFIX.encode()):
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        attributes = await self._call(self._tree.attributes, self._node(inode))
        try:
            return attributes[name.decode("utf-8", "surrogateescape")]
        except KeyError:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR) from None

    async def listxattr(self, inode: int, ctx: Any = None) -> list[bytes]:
        """Return the names of the extended attributes."""
        attributes = await self._call(self._tree.attributes, self._node(inode))
        return [name.encode("utf-8", "surrogateescape") for name in attributes]

    async def statfs(self, ctx: Any = None) -> Any:
        """Return sizes of the file system: nothing can be written; the watchdog asks this to see that all is well."""
        figures = pyfuse3.StatvfsData()
        figures.f_bsize = figures.f_frsize = 4096
        figures.f_blocks = figures.f_bfree = figures.f_bavail = 0
        figures.f_files = figures.f_ffree = figures.f_favail = 0
        figures.f_namemax = 255
        return figures

    def _handle(self) -> int:
        self._next_handle += 1
        return self._next_handle

    async def follow(self, folder: Path) -> None:
        """Have the kernel forget names as soon as the feed says that they changed."""
        await trio.sleep(_FOLLOW_EVERY_S)
        _larger_requests(folder)  # not before the kernel has set its own figure, with the mount's first request
        while True:
            await trio.sleep(_FOLLOW_EVERY_S)
            with suppress(pyfuse3.FUSEError):
                for path, name in await self._call(self._follower.changed):
                    inode = self._by_key.get((path, "folder", ""))
                    if inode is not None:
                        self._listings.pop(inode.number, None)
                        pyfuse3.invalidate_entry_async(inode.number, name, ignore_enoent=True)
            now = time.monotonic()
            self._listings = {
                number: listing
                for number, listing in self._listings.items()
                if now < listing.end and len(listing.entries) <= _LARGEST_LISTING
            }


def _larger_requests(folder: Path) -> None:
    """Let the kernel read ahead in larger requests; only root may, and without it all works as well."""
    with suppress(OSError, ValueError):
        Path(f"/sys/class/bdi/{device_of(folder)}/read_ahead_kb").write_text(f"{_READ_AHEAD_KB}")


def serve(tree: Tree, follower: Follower, folder: Path, *, allow_other: bool = False) -> None:
    """Mount a tree and answer until it is unmounted, or the process gets SIGTERM or SIGINT.

    Parameters
    ----------
    tree : Tree
    follower : Follower
    folder : pathlib.Path
    allow_other : bool
        Whether other users than the one who mounts may look into it; they all see what that one sees.

    Raises
    ------
    UsageError
        If the system does not let it be mounted there.
    """
    operations = Operations(tree, follower)
    options = {*pyfuse3.default_options, "ro", "fsname=apbatch", "subtype=apbatch"}
    if allow_other:
        options.add("allow_other")
    try:
        pyfuse3.init(operations, str(folder), options)
    except RuntimeError as error:
        raise UsageError(
            f"can't be mounted: {error}", where=str(folder), remedy="is it a folder of yours, and is fuse3 installed?"
        ) from error
    try:
        trio.run(_run, operations, folder)
    finally:
        pyfuse3.close(unmount=True)


async def _run(operations: Operations, folder: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal)
        nursery.start_soon(operations.follow, folder)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


async def _end_on_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            pyfuse3.terminate()
            return

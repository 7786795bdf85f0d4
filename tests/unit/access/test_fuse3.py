"""What a mount by libfuse3 keeps in memory for those who look into folders and files."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, cast

import pytest

from apbatch.access.mount.follow import Follower
from apbatch.access.mount.nodes import Node
from apbatch.access.mount.tree import Tree

pytestmark = pytest.mark.skipif(
    find_spec("pyfuse3") is None and not os.environ.get("CI"), reason="pyfuse3 is not installed: apbatch[mount]"
)

NAMES = [b"f%d" % number for number in range(50)]


class Folder:
    """Takes the place of a tree of one folder."""

    root = Node("", "folder")

    def children(self, folder: Node) -> Iterator[list[Node]]:
        for start in (0, 25):
            yield [Node(f"/{name.decode()}", "file", name, 1, 1, name.hex()) for name in NAMES[start : start + 25]]


def test_a_folder_is_forgotten_once_it_is_closed_and_its_listing_no_longer_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import trio

    from apbatch.access.mount import fuse3

    listed: list[bytes] = []

    def reply(token: Any, name: bytes, attributes: Any, position: int) -> bool:
        listed.append(name)
        return True

    async def look() -> None:
        operations = fuse3.Operations(cast(Tree, Folder()), cast(Follower, None))
        listings = []
        for _ in range(3):
            handle, second = [await operations.opendir(fuse3.pyfuse3.ROOT_INODE) for _ in range(2)]
            listings.append(weakref.ref(operations._open_folders[handle].pages))  # slots have no weak references
            await operations.releasedir(second)
            await operations.readdir(handle, 0, None)  # whoever still has it open can read it
            await operations.releasedir(handle)
            operations._listings.clear()  # as `follow` does after a change, or when its time is over
        gc.collect()
        assert [one() for one in listings] == [None] * 3

    monkeypatch.setattr(fuse3.pyfuse3, "readdir_reply", reply)
    trio.run(look)
    assert listed == NAMES * 3

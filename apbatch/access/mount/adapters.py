"""Mounting the merged tree, by the library that is here: pyfuse3 (libfuse3), or else mfusepy (libfuse2)."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from apbatch.access.mount.follow import Follower
from apbatch.access.mount.tree import Tree
from apbatch.errors import MissingSoftwareError, nearest_word

#: Names one of `ADAPTERS`, where another than the first that works is wanted.
VARIABLE = "APBATCH_FUSE"
ADAPTERS = {"pyfuse3": "apbatch.access.mount.fuse3", "mfusepy": "apbatch.access.mount.fuse2"}


def serve(tree: Tree, follower: Follower, folder: Path, *, allow_other: bool = False) -> None:
    """Mount a tree and answer until it is unmounted, or the process gets SIGTERM or SIGINT.

    Parameters
    ----------
    tree : Tree
    follower : Follower
        Tells which names changed.
    folder : pathlib.Path
    allow_other : bool
        Whether other users than the one who mounts may look into it; they all see what that one sees.

    Raises
    ------
    MissingSoftwareError
        If no library for FUSE works here.
    UsageError
        If the system does not let it be mounted there.
    """
    choice = os.environ.get(VARIABLE)
    reasons = []
    for name, module in ADAPTERS.items():
        if choice in (None, "", name):
            try:
                adapter = importlib.import_module(module)
            except (ImportError, OSError, AttributeError) as error:  # mfusepy: no libfuse, or one of another version
                reasons.append(f"{name}: {error}")
                continue
            adapter.serve(tree, follower, folder, allow_other=allow_other)
            return
    raise MissingSoftwareError(
        f"no library for FUSE works here ({'; '.join(reasons) or f'{VARIABLE} is {choice}'})",
        nearest=nearest_word(choice, ADAPTERS) if choice else None,
        remedy="apt-get install libfuse3-dev fuse3 pkg-config gcc; pip install 'apbatch[mount]'",
    )

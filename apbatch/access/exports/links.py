"""A plain tree of links: to a mount of the merged tree, or to the files in place at sites on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from apbatch.access.exports.selection import Item
from apbatch.access.exports.writing import whole
from apbatch.errors import UsageError
from apbatch.ingest.patterns import decode_path

#: Gives the absolute path that a link leads to; None where there is none on this machine.
Target = Callable[[Item], str | None]


def export_links(items: Iterable[Item], destination: Path, target: Target) -> tuple[int, list[str]]:
    """Write a folder of links.

    Parameters
    ----------
    items : iterable of Item
    destination : pathlib.Path
        The folder to make.
    target : callable
        Where the link of an item leads.

    Returns
    -------
    links : int
        How many links there are.
    left_out : list of str
        Paths in the merged tree of the files that have no place on this machine.

    Raises
    ------
    UsageError
        If the destination exists or can't be written.
    """
    links, left_out = 0, []
    with whole(destination, folder=True) as part:
        for item in items:
            place = target(item)
            if place is None:
                left_out.append(item.path)
                continue
            link = part / safe_name(item.name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(place)
            links += 1
    return links, left_out


def below_mount(mount: Path) -> Target:
    """Return where links lead if the merged tree is mounted at a folder."""
    return lambda item: os.fspath(mount.absolute() / _decoded(item.path.lstrip("/")))


def safe_name(name: str) -> str:
    """Return a name for the system that stays within the export.

    Raises
    ------
    UsageError
        If it would not.
    """
    decoded = _decoded(name)
    if any(part in ("", ".", "..") for part in decoded.split("/")) or "\0" in decoded:
        raise UsageError("a name can't be exported", where=ascii(name)[:200])
    return decoded


def _decoded(name: str) -> str:
    return os.fsdecode(decode_path(name))

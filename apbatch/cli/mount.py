"""`apbatch mount`, `apbatch umount`: the merged tree as a file system of this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apbatch.cli.output import note

if TYPE_CHECKING:
    from apbatch.access.cache import BlockCache
    from apbatch.access.mount.scope import MountScope

_SIZE = "10GB"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("mount")(mount)
    app.command("umount")(umount)


def mount(
    folder: Annotated[Path, typer.Argument(help="An empty folder.", metavar="DIR")],
    foreground: Annotated[bool, typer.Option("--foreground", "-f", help="Stay until it is unmounted.")] = False,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder for blocks; default in $APBATCH_CACHE.")] = None,
    cache_size: Annotated[str, typer.Option("--cache-size", help="Such as 20GB; 0: keep no blocks on disk.")] = _SIZE,
    allow_other: Annotated[
        bool, typer.Option("--allow-other", help="Other users may look into it; they see what you see.")
    ] = False,
    select: Annotated[str, typer.Option("--select", help="Show only the files that match this query.")] = "",
    below: Annotated[str, typer.Option("--below", help="Show only this folder of the merged tree.")] = "",
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Show what this policy lets --as (or anyone) see and read.")
    ] = None,
    user: Annotated[str, typer.Option("--as", help="Show what the policy lets this user see and read.")] = "",
    group: Annotated[list[str] | None, typer.Option("--group", help="A group of --as; several times for more.")] = None,
    catalogue: Annotated[
        str, typer.Option("--catalogue", help="URL of a catalogue, or of a server (https://…); default: the settings'.")
    ] = "",
) -> int:
    """Mount the merged tree or a part of it, read-only: of files only those blocks are moved that are read.

    DIR/.find/QUERY/ holds the files that match a query. Attributes are extended attributes (getfattr -d FILE).
    """
    from apbatch.access.mount import mounting
    from apbatch.access.mount.scope import MountScope
    from apbatch.access.view import View

    place = mounting.location(folder)
    mounting.check(place)
    blocks = block_cache(cache, cache_size)
    scope = MountScope(View(select, below), policy.absolute() if policy else None, user, tuple(group or ()), catalogue)
    if not foreground:
        options = ["--cache-size", cache_size, *(["--cache", str(cache.absolute())] if cache else [])]
        options += ["--allow-other"] if allow_other else []
        options += scope.options()
        program = "from apbatch.cli.main import main; main()"
        process = mounting.start(
            [sys.executable, "-c", program, "mount", "--foreground", *options, "--", str(place)], place
        )
        note(f"mounted at {place} by process {process}; apbatch umount {place} ends it")
        return 0
    return mounting.supervise(lambda: serve_tree(place, blocks, allow_other, scope), place)


def serve_tree(place: Path, blocks: BlockCache | None, allow_other: bool, scope: MountScope | None = None) -> None:
    """Mount and answer; runs in a process of its own.

    Parameters
    ----------
    place : Path
        Folder to mount at.
    blocks : BlockCache, optional
        Keeps blocks on disk.
    allow_other : bool
        Other users may look into it.
    scope : MountScope, optional
        What is shown, and for whom; by default everything, for the owner.
    """
    from apbatch.access.mount.adapters import serve
    from apbatch.access.mount.follow import Follower
    from apbatch.access.mount.scope import MountScope
    from apbatch.access.mount.tree import Tree
    from apbatch.access.reader import Reader
    from apbatch.client.transport import is_server
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue

    scope = scope or MountScope()
    url = scope.catalogue or load_settings().catalogue
    if is_server(url):
        from apbatch.client.door import ServerDoor
        from apbatch.client.remote import RemoteTransport

        scope.check_server()
        door = ServerDoor(RemoteTransport(url))
        with Reader(door, blocks, openers=(door.source,)) as reader:
            serve(Tree(door, reader, scope.view.folder), Follower(door), place, allow_other=allow_other)
        return
    with open_catalogue(url) as catalogue:
        guard, feed = scope.doors(catalogue)
        with Reader(guard, blocks) as reader:
            serve(Tree(guard, reader, scope.view.folder), Follower(feed), place, allow_other=allow_other)


def block_cache(folder: Path | None, size: str) -> BlockCache | None:
    """Return the cache of blocks in a folder, or at its usual place; None for a size of 0."""
    from apbatch.access.cache import BlockCache
    from apbatch.config import cache
    from apbatch.units import parse_quantity

    limit = int(parse_quantity(size, "byte"))
    if limit == 0:
        return None
    return BlockCache(folder.absolute() if folder else cache() / "blocks", limit)


def umount(
    folder: Annotated[Path, typer.Argument(help="Where it is mounted.", metavar="DIR")],
    lazy: Annotated[bool, typer.Option("--lazy", help="Even if files in it are open.")] = False,
) -> None:
    """Unmount the merged tree; a mount that does not answer any more is taken away."""
    from apbatch.access.mount import mounting

    mounting.unmount(mounting.location(folder), lazy=lazy)

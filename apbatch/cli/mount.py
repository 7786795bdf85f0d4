"""`apbatch mount`, `apbatch umount`: the merged tree as a file system of this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apbatch.cli.output import note

if TYPE_CHECKING:
    from apbatch.access.cache import BlockCache

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
) -> int:
    """Mount the merged tree, read-only: files are read from their sites, only those blocks that are asked for.

    DIR/.find/QUERY/ holds the files that match a query. Attributes are extended attributes (getfattr -d FILE).
    """
    from apbatch.access.mount import mounting

    place = mounting.location(folder)
    mounting.check(place)
    blocks = block_cache(cache, cache_size)
    if not foreground:
        options = ["--cache-size", cache_size, *(["--cache", str(cache.absolute())] if cache else [])]
        options += ["--allow-other"] if allow_other else []
        program = "from apbatch.cli.main import main; main()"
        process = mounting.start(
            [sys.executable, "-c", program, "mount", "--foreground", *options, "--", str(place)], place
        )
        note(f"mounted at {place} by process {process}; apbatch umount {place} ends it")
        return 0
    return mounting.supervise(lambda: serve_tree(place, blocks, allow_other), place)


def serve_tree(place: Path, blocks: BlockCache | None, allow_other: bool) -> None:
    """Mount and answer; runs in a process of its own."""
    from apbatch.access.guard import Guard
    from apbatch.access.mount.adapters import serve
    from apbatch.access.mount.follow import Follower
    from apbatch.access.mount.tree import Tree
    from apbatch.access.policy import Policy
    from apbatch.access.principals import OWNER
    from apbatch.access.reader import Reader
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue

    with open_catalogue(load_settings().catalogue) as catalogue:
        guard = Guard(catalogue, None, Policy.load(None, catalogue), OWNER)
        with Reader(guard, blocks) as reader:
            serve(Tree(guard, reader), Follower(guard), place, allow_other=allow_other)


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

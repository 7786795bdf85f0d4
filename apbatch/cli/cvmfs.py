"""`apbatch cvmfs`: CernVM-FS repositories of a part of the merged tree: published, renewed, served."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apbatch.cli.output import Format, FormatOption, note, show

if TYPE_CHECKING:
    from apbatch.access.guard import Guard
    from apbatch.index.catalogue import Catalogue


cvmfs_app = typer.Typer(no_args_is_help=True, help="CernVM-FS repositories of a part of the merged tree.")


class Piece(StrEnum):
    """Length of the pieces of a CernVM-FS repository."""

    SMALL = "2MiB"
    LARGE = "24MiB"


_COLUMNS = ("repository", "revision", "new", "files", "folders", "bytes", "left_out", "whitelist_expires")
_KEYS = Annotated[Path | None, typer.Option("--keys", help="Folder of the keys; default $APBATCH_HOME/cvmfs.")]
_POLICY = Annotated[
    Path | None, typer.Option("--policy", help="Policy file; default: of the settings, or of the catalogue.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(cvmfs_app, name="cvmfs")


@cvmfs_app.command("publish")
def publish_repository(
    selection: Annotated[
        str, typer.Argument(help="A folder of the merged tree, which begins with '/', or a query.", metavar="WHAT")
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder of the repository.", metavar="DIR")],
    name: Annotated[str, typer.Option("--name", help="Of a new repository, such as taiga.example.org.")] = "",
    piece: Annotated[Piece, typer.Option("--piece", help="24MiB where caches take such objects.")] = Piece.SMALL,
    ttl: Annotated[int, typer.Option("--ttl", min=10, help="Clients look for news after so many seconds.")] = 240,
    new_key: Annotated[bool, typer.Option("--new-key", help="Sign with a new repository key from now on.")] = False,
    keys: _KEYS = None,
    policy: _POLICY = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Publish WHAT as a CernVM-FS repository; contents stay at the sites, and `apbatch cvmfs serve` cuts them there.

    Where there is a policy, what anyone may read is published; else everything. Again, later: only what changed is
    written.
    """
    try:
        from apbatch.access.exports.cvmfs.publish import PIECES, publish
        from apbatch.access.exports.cvmfs.repository import Repository
    except ImportError as error:
        raise _missing(error) from error
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue

    repository = Repository(to, name, keys)
    with open_catalogue(load_settings().catalogue) as catalogue:
        guard = _guard(catalogue, policy)
        report = publish(guard, selection, repository, piece=PIECES[piece.value], ttl_s=ttl, new_key=new_key)
    for one in report.left_out:
        examples = ", ".join(one.examples) + (", …" if one.files > len(one.examples) else "")
        note(f"{one.files} left out: {one.reason} ({one.remedy}): {examples}")
    row = {
        "repository": report.name, "revision": report.revision, "new": report.is_new, "files": report.files,
        "folders": report.folders, "bytes": report.bytes, "catalogs": report.catalogs,
        "catalogs_written": report.catalogs_written, "left_out": sum(one.files for one in report.left_out),
        "whitelist_expires": report.whitelist_expires, "public_key": str(report.public_key),
    }  # fmt: skip
    show([row], format, list(row), few=_COLUMNS)


@cvmfs_app.command("renew")
def renew_whitelist(
    folder: Annotated[Path, typer.Argument(help="Folder of the repository.", metavar="DIR")],
    keys: _KEYS = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Sign the whitelist of a repository again, for 30 days from now; only this needs the master key."""
    try:
        from apbatch.access.exports.cvmfs.repository import renew
    except ImportError as error:
        raise _missing(error) from error

    show([{"repository": str(folder), "whitelist_expires": renew(folder, keys=keys)}], format)


@cvmfs_app.command("serve")
def serve_repositories(
    folders: Annotated[list[Path], typer.Argument(help="Folders of repositories.", metavar="DIR…")],
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8000,
    policy: _POLICY = None,
) -> None:
    """Serve CernVM-FS repositories at /cvmfs/NAME: catalogs from DIR, contents cut out of files at their sites."""
    try:
        from apbatch.access.exports.cvmfs.repository import Repository
        from apbatch.access.exports.cvmfs.serving import Pieces, application
        from apbatch.access.serving.draining import address_of, listen, serve
        from apbatch.access.serving.operations import Operations
    except ImportError as error:
        raise _missing(error) from error
    from apbatch.access.reader import Reader
    from apbatch.config import load_settings
    from apbatch.errors import NotFoundError
    from apbatch.index.backends import open_catalogue

    repositories = [Repository(folder) for folder in folders]
    for one in repositories:
        if one.manifest is None:
            raise NotFoundError("no repository", where=str(one.folder), remedy="apbatch cvmfs publish makes one")
    with open_catalogue(load_settings().catalogue) as catalogue:
        guard = _guard(catalogue, policy)
        with Reader(guard) as reader:
            served = {one.name: (one.folder, Pieces(one.folder, guard, reader)) for one in repositories}
            operations = Operations(
                application(served),
                lambda: (None, {"revision": catalogue.revision()}),
                [f"/cvmfs/{one.name}" for one in repositories],
            )
            listener = listen(host, port)
            for one in repositories:
                note(f"{address_of(listener, host)}/cvmfs/{one.name}")
            serve(operations, listener, operations.draining)


def _guard(catalogue: Catalogue, policy: Path | None) -> Guard:
    """Return the guard of whoever reads a repository: anyone; without a policy the owner has decided."""
    from apbatch.access.guard import Guard
    from apbatch.access.policy import Policy
    from apbatch.access.principals import ANYONE, OWNER

    rules = Policy.in_force(catalogue, policy)
    return Guard(catalogue, None, rules, ANYONE if rules.exists else OWNER)


def _missing(error: ImportError) -> Exception:
    from apbatch.errors import MissingSoftwareError

    return MissingSoftwareError(f"a package is missing: {error}", remedy="pip install 'apbatch[cvmfs]'")

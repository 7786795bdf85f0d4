"""`apbatch export`: a part of the merged tree for elsewhere."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apbatch.cli.output import Format, FormatOption, note, show

if TYPE_CHECKING:
    from apbatch.access.exports.selection import Item
    from apbatch.access.guard import Guard


class Form(StrEnum):
    """What an export is."""

    LINKS = "links"
    TAR = "tar"
    MANIFEST = "manifest"
    BAGIT = "bagit"
    ROCRATE = "rocrate"
    CVMFS = "cvmfs"


#: Options that mean something for some forms alone.
_FORMS_OF = {
    "--url": (Form.MANIFEST, Form.BAGIT, Form.ROCRATE),
    "--mount": (Form.LINKS,),
    "--name": (Form.ROCRATE, Form.CVMFS),
    "--license": (Form.ROCRATE,),
}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export")(export)


def export(
    selection: Annotated[str, typer.Argument(help="Path of the merged tree, or a query.", metavar="PATH|QUERY")],
    form: Annotated[Form, typer.Option("--as", help="What to write.")],
    to: Annotated[str, typer.Option("--to", help="Folder or file to make; '-': a tar stream to standard output.")],
    url: Annotated[str, typer.Option("--url", help="Address of the agent or gateway that serves the files.")] = "",
    mount: Annotated[Path | None, typer.Option("--mount", help="Links lead into this mount of the tree.")] = None,
    user: Annotated[str, typer.Option("--user", help="Only what this user may read; default: the owner.")] = "",
    group: Annotated[list[str] | None, typer.Option("--group", help="A group of the user.")] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Policy file; default: of the settings, or of the catalogue.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Of a crate's dataset, or of a new repository.")] = "",
    license: Annotated[str, typer.Option("--license", help="URL of a crate's licence.")] = "",
    format: FormatOption = Format.TABLE,
) -> None:
    """Export what may be read of a part of the merged tree. It is there whole or not at all."""
    from apbatch.errors import UsageError

    if group and not user:
        raise UsageError("'--group' goes with '--user NAME'")
    for option, value in {"--url": url, "--mount": mount, "--name": name, "--license": license}.items():
        if value and form not in _FORMS_OF[option]:
            raise UsageError(f"'{option}' means nothing for '--as {form}'", remedy=f"leave {option} out")
    if form is Form.CVMFS:
        from apbatch.cli.cvmfs import publish_repository

        if user or to == "-":
            raise UsageError("a repository is a folder, for anyone who reaches its server", remedy="leave --user out")
        publish_repository(selection, Path(to), name, policy=policy, format=format)
        return
    from apbatch.access.exports.bag import export_bag
    from apbatch.access.exports.crate import export_crate
    from apbatch.access.exports.links import below_mount, export_links
    from apbatch.access.exports.manifest import export_manifest
    from apbatch.access.exports.selection import Selectable, Urls, select, served_at
    from apbatch.access.exports.tarball import export_tar
    from apbatch.access.guard import Guard
    from apbatch.access.policy import Policy
    from apbatch.access.principals import OWNER, Principal
    from apbatch.access.reader import Reader
    from apbatch.client.door import ServerDoor
    from apbatch.client.remote import RemoteTransport
    from apbatch.client.transport import is_server
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue

    if to == "-" and form is not Form.TAR:
        raise UsageError("only a tar stream goes to standard output", remedy="name a place: --to FOLDER")
    if form is Form.ROCRATE and not license:
        raise UsageError("a crate says under which licence its data may be used", remedy="--license URL")
    who = Principal(user, frozenset(group or ())) if user else OWNER
    place = Path(to)
    catalogue_url = load_settings().catalogue
    with ExitStack() as stack:
        door: Selectable
        if is_server(catalogue_url):
            if user or policy is not None:
                raise UsageError("a server decides itself what it shows", remedy="leave --user and --policy out")
            door = server = ServerDoor(RemoteTransport(catalogue_url))
            reader = stack.enter_context(Reader(door, openers=(server.source,)))
            urls: Urls = partial(_served_urls, catalogue_url.rstrip("/"))
        else:
            catalogue = stack.enter_context(open_catalogue(catalogue_url))
            door = Guard(catalogue, None, Policy.in_force(catalogue, policy), who)
            reader = stack.enter_context(Reader(door))
            urls = partial(_own_urls, door)
        if url:
            urls = served_at(url)
        items = select(door, selection)
        row: dict[str, object] = {"export": to, "as": form.value}
        match form:
            case Form.LINKS:
                row["files"], left_out = export_links(items, place, below_mount(mount) if mount else _local_path)
                for path in left_out[:20]:
                    note(f"{path} has no place on this machine and is left out")
                if len(left_out) > 20:
                    note(f"and {len(left_out) - 20} more")
            case Form.TAR:
                row["files"] = export_tar(items, None if to == "-" else place, reader)
            case Form.MANIFEST:
                row["files"] = export_manifest(items, place, urls)
            case Form.BAGIT:
                row["files"], row["bytes read"] = export_bag(items, place, urls, door, reader)
            case Form.ROCRATE:
                about = f"Files of {selection}, selected from a merged tree of several experiments"
                title = name or selection
                row["files"] = export_crate(items, place, urls, name=title, description=about, license=license)
    if to != "-":
        show([row], format)


def _local_path(item: Item) -> str | None:
    """Return the path of a file at a site that is a folder of this machine."""
    import os

    from apbatch.errors import NotFoundError
    from apbatch.ingest.opening import site_of

    for record in item.sources:
        with suppress(NotFoundError):
            site = site_of(record)
            if not site.is_remote:
                return os.fsdecode(site.local_path(record.source))
    return None


def _agents_urls(item: Item) -> list[str]:
    """Return the URLs of a file at sites that agents serve."""
    from urllib.parse import quote

    from apbatch.errors import NotFoundError
    from apbatch.ingest.opening import site_of

    urls = []
    for record in item.sources:
        with suppress(NotFoundError):
            site = site_of(record)
            if site.is_remote:
                urls.append(f"{site.root}/f{quote(record.place)}")
    return urls


def _served_urls(server: str, item: Item) -> list[str]:
    """Return the URL at which the server of the catalogue gives a file."""
    from apbatch.client.served import content_url

    return [content_url(server, item.path)]


def _own_urls(guard: Guard, item: Item) -> list[str]:
    """Return URLs of a file: of its place on this machine, at agents, and of its replicas."""
    from urllib.parse import quote

    path = _local_path(item)
    replicas = guard.replicas([record.path for record in item.sources])
    places = [] if path is None else [f"file://{quote(path)}"]
    return (
        places
        + _agents_urls(item)
        + [quote(one.url, safe=":/?=&@%") for many in replicas.values() for one in many if one.url]
    )

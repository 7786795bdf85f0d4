"""`apbatch site` and `apbatch ingest`: describe sites, and register their files in place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apbatch.cli.output import ColumnsOption, Format, FormatOption, note, report, show

if TYPE_CHECKING:
    from apbatch.index.catalogue import Catalogue
    from apbatch.ingest.sites import Site

#: So many files of a kind are named one by one; the rest is counted.
_SHOWN = 20

site_app = typer.Typer(no_args_is_help=True, help="Sites: folders of an experiment's files, only ever read.")

_SITE = ("site", "experiment", "root")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(site_app, name="site")
    app.command("ingest")(ingest)


@site_app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="YAML file with at least name, experiment and root.")],
    format: FormatOption = Format.TABLE,
) -> None:
    """Make a site known, or take over its changed description."""
    from apbatch.ingest.sites import add_site

    site, outcome = add_site(file)
    show([{"site": site.name, "experiment": site.experiment, "root": site.root, "outcome": outcome}], format)


@site_app.command("list")
def list_sites(format: FormatOption = Format.TABLE) -> None:
    """List the known sites."""
    from apbatch.ingest.sites import sites

    show([{"site": site.name, "experiment": site.experiment, "root": site.root} for site in sites()], format, _SITE)


@site_app.command("show")
def show_site(name: str, format: FormatOption = Format.TABLE) -> None:
    """Show the description of a site."""
    from apbatch.ingest.sites import load_site

    content = load_site(name).model_dump(mode="json", exclude_none=True)
    if format is Format.JSON:
        show([content], format)
    else:
        show([{"key": key, "value": value} for key, value in content.items()], format, ("key", "value"))


@site_app.command("remove")
def remove(
    name: str,
    forget: Annotated[bool, typer.Option("--forget", help="Forget what is registered of its files, too.")] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Remove a site. Its files stay as they are; what is registered of them stays unless --forget is given."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.ingest.site_records import forget_site
    from apbatch.ingest.sites import load_site, remove_site

    site, files = load_site(name), 0
    with open_catalogue(load_settings().catalogue) as catalogue:
        if forget:
            files = forget_site(catalogue, site)
        else:
            left = sum(1 for _ in catalogue.of_site(name))
            if left:
                note(f"{left} files of site '{name}' stay registered: apbatch site remove --forget forgets them")
    remove_site(name)
    show([{"site": site.name, "experiment": site.experiment, "outcome": "removed", "files forgotten": files}], format)


@site_app.command("rename")
def rename(name: str, to: str, format: FormatOption = Format.TABLE) -> None:
    """Give a site another name. What is registered of its files follows, with its replicas; no file is touched."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.ingest.site_records import rename_site

    with open_catalogue(load_settings().catalogue) as catalogue:
        site, files = rename_site(catalogue, name, to)
    show([{"site": site.name, "experiment": site.experiment, "outcome": "renamed", "files": files}], format)


def ingest(
    sites: Annotated[list[str] | None, typer.Argument(help="Names of sites, or YAML files of sites to add.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All known sites.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Read every file, also unchanged ones.")] = False,
    accept_empty: Annotated[
        bool, typer.Option("--accept-empty", help="Believe an empty site, whose files are all gone.")
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Load the events of the files as well, as `events: true` of a site says.")
    ] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, max=64, help="Files at the same time.")] = 2,
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
) -> int:
    """Register what is new, changed or gone at SITES. Nothing at a site is changed; a broken file stops no other.

    Ends with status 0 also if files are in quarantine; which and why is told on standard error, and of all of them
    in the output as JSON.
    """
    from apbatch.config import load_settings
    from apbatch.errors import ApbatchError, UsageError
    from apbatch.index.backends import open_catalogue
    from apbatch.ingest.scan import IngestSummary
    from apbatch.ingest.scan import ingest as run
    from apbatch.ingest.sites import resolve_site
    from apbatch.ingest.sites import sites as known_sites

    if bool(sites) == every:
        raise UsageError("name sites, or give --all", remedy="apbatch ingest SITE, or apbatch ingest --all")
    wanted = known_sites() if every else [resolve_site(name) for name in sites or []]
    if not wanted:
        raise UsageError("no site is known", remedy="apbatch site add FILE.yaml")
    summaries: list[IngestSummary] = []
    loaded: dict[str, int] = {}
    status = 0
    with open_catalogue(load_settings().catalogue) as catalogue:
        for site in wanted:
            try:
                summary = run(site, catalogue, threads=threads, again=again, accept_empty=accept_empty)
            except ApbatchError as error:
                if len(wanted) == 1:
                    raise
                report(error)  # one site that is away does not keep the others from being registered
                status = max(status, error.status)
                continue
            for title, names in (
                ("in quarantine", [_with_reason(*item) for item in summary.quarantined.items()]),
                ("folder can't be listed", [f"{source}: {reason}" for source, reason in summary.unreadable.items()]),
                ("changes while it is read", summary.busy),
                ("of no known format", summary.unrecognised),
            ):
                for name in names[:_SHOWN]:
                    note(f"{site.name}: {title}: {name}")
                if len(names) > _SHOWN:
                    note(f"{site.name}: {title}: {len(names) - _SHOWN} more")
            summaries.append(summary)
            if events or site.events:
                loaded[site.name] = _load_events(site, catalogue, again)
    every_column = [*IngestSummary("").record(), *(["events_loaded"] if loaded else [])]
    few = ("site", "registered", "changed", "missing", "quarantined", "unrecognised")
    whole = format is Format.JSON and not columns
    rows = (
        summary.record()
        | ({"events_loaded": loaded.get(summary.site)} if loaded else {})
        | (summary.lists() if whole else {})
        for summary in summaries
    )
    show(rows, format, every_column, few=(*few, "events_loaded") if loaded else few, wanted=columns)
    return status


def _load_events(site: Site, catalogue: Catalogue, again: bool) -> int:
    """Load the events of a site's files, tell what could not be read, and return how many events were loaded."""
    from apbatch.config import load_settings
    from apbatch.index.events.upgrade import events_of
    from apbatch.ingest.events import load_events

    with events_of(load_settings()) as store:
        done = load_events(site, catalogue, store, again=again)
    told = [*(f"events not loaded: {source}: {reason}" for source, reason in done.failed.items()), *done.notes]
    for line in told[:_SHOWN]:
        note(f"{site.name}: {line}")
    if len(told) > _SHOWN:
        note(f"{site.name}: {len(told) - _SHOWN} more notes on events")
    return done.events


def _with_reason(source: str, reason: str) -> str:
    """Return a file with its reason, which often begins with the name of the file."""
    rest = reason.removeprefix(source)
    return f"{source}{rest}" if rest.startswith((":", " at byte")) else f"{source}: {rest.strip()}"

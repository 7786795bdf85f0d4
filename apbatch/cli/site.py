"""`apbatch site` and `apbatch ingest`: describe sites, and register their files in place."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apbatch.cli.output import ColumnsOption, Format, FormatOption, note, report, show

if TYPE_CHECKING:
    from apbatch.index.catalogue import Catalogue
    from apbatch.ingest.site import Site
    from apbatch.ingest.summary import IngestSummary

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
    """Make a site known to all hosts of the catalogue, or take over its changed description."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.ingest.sites import add_site, publish_site, share_sites

    settings = load_settings()
    site, outcome = add_site(file)
    with open_catalogue(settings.catalogue) as catalogue:
        publish_site(catalogue, site)
        share_sites(catalogue, settings.catalogue)
    show([{"site": site.name, "experiment": site.experiment, "root": site.root, "outcome": outcome}], format)


@site_app.command("list")
def list_sites(format: FormatOption = Format.TABLE) -> None:
    """List the known sites."""
    from apbatch.ingest.sites import sites

    _share()
    show([{"site": site.name, "experiment": site.experiment, "root": site.root} for site in sites()], format, _SITE)


@site_app.command("show")
def show_site(name: str, format: FormatOption = Format.TABLE) -> None:
    """Show the description of a site."""
    from apbatch.ingest.sites import load_site

    _share()
    content = load_site(name).model_dump(mode="json", exclude_none=True)
    if format is Format.JSON:
        show([content], format)
    else:
        show([{"key": key, "value": value} for key, value in content.items()], format, ("key", "value"))


@site_app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Of the site.")],
    forget: Annotated[bool, typer.Option("--forget", help="Forget what is registered of its files, too.")] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Remove a site. Its files stay as they are; what is registered of them stays unless --forget is given."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.ingest.site_records import forget_site
    from apbatch.ingest.sites import load_site, remove_site

    _share()
    site, files = load_site(name), 0
    with open_catalogue(load_settings().catalogue) as catalogue:
        if forget:
            files = forget_site(catalogue, site)
        else:
            left = sum(1 for _ in catalogue.of_site(name))
            if left:
                note(f"{left} files of site '{name}' stay registered: apbatch site remove --forget forgets them")
        remove_site(catalogue, name)
    show([{"site": site.name, "experiment": site.experiment, "outcome": "removed", "files forgotten": files}], format)


@site_app.command("rename")
def rename(
    name: Annotated[str, typer.Argument(help="Of the site until now.")],
    to: Annotated[str, typer.Argument(help="Its new name.")],
    format: FormatOption = Format.TABLE,
) -> None:
    """Give a site another name. What is registered of its files follows, with its replicas; no file is touched."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.ingest.site_records import rename_site

    _share()
    with open_catalogue(load_settings().catalogue) as catalogue:
        site, files = rename_site(catalogue, name, to)
    show([{"site": site.name, "experiment": site.experiment, "outcome": "renamed", "files": files}], format)


def ingest(
    sites: Annotated[list[str] | None, typer.Argument(help="Names of sites, or YAML files of sites to add.")] = None,
    all_sites: Annotated[bool, typer.Option("--all", help="All known sites.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Read every file, also unchanged ones.")] = False,
    list_only: Annotated[
        bool, typer.Option("--list-only", help="List names, sizes and times: the site is visible within minutes.")
    ] = False,
    complete: Annotated[
        str | None,
        typer.Option(
            "--complete",
            metavar="QUERY",
            help="List nothing; read the listed files of QUERY, and all without hashes.",
        ),
    ] = None,
    accept_empty: Annotated[
        bool, typer.Option("--accept-empty", help="Believe an empty site, whose files are all gone.")
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Load the events of the files as well, as `events: true` of a site says.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and take over changes as they happen, until stopped (one site).")
    ] = False,
    every: Annotated[
        float, typer.Option("--every", min=1.0, help="With --watch: seconds between whole listings.")
    ] = 600.0,
    threads: Annotated[int, typer.Option("--threads", min=1, max=64, help="Files at the same time.")] = 2,
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
) -> int:
    """Register what is new, changed or gone at SITES. Nothing at a site is changed; a broken file stops no other.

    Files are listed first and read then, newest nights first; killed at any time, the next ingest goes on. Ends with
    status 0 also if files are in quarantine; which and why is told on standard error, and in the output as JSON.
    """
    from apbatch.config import load_settings
    from apbatch.errors import ApbatchError, UsageError
    from apbatch.index.backends import open_catalogue
    from apbatch.index.parser import parse_search
    from apbatch.ingest.scan import ingest as run
    from apbatch.ingest.sites import resolve_site, share_sites
    from apbatch.ingest.sites import sites as known_sites

    if bool(sites) == all_sites:
        raise UsageError("name sites, or give --all", remedy="apbatch ingest SITE, or apbatch ingest --all")
    if watch and (again or complete is not None):
        raise UsageError("--watch goes neither with --again nor with --complete")
    if complete is not None and (list_only or again):
        raise UsageError("--complete reads what is listed: it goes neither with --list-only nor with --again")
    summaries: list[IngestSummary] = []
    loaded: dict[str, int] = {}
    status = 0
    settings = load_settings()
    with open_catalogue(settings.catalogue) as catalogue:
        share_sites(catalogue, settings.catalogue)
        targets = known_sites() if all_sites else [resolve_site(name) for name in sites or []]
        if not targets:
            raise UsageError("no site is known", remedy="apbatch site add FILE.yaml")
        if watch:
            return _watch(targets, catalogue, every, threads, list_only)
        search = parse_search(complete, catalogue.attributes()) if complete is not None else None
        for site in targets:
            try:
                summary = run(
                    site,
                    catalogue,
                    threads=threads,
                    again=again,
                    accept_empty=accept_empty,
                    list_only=list_only,
                    complete=search,
                )
            except ApbatchError as error:
                if len(targets) == 1:
                    raise
                report(error)  # one site that is away does not keep the others from being registered
                status = max(status, error.status)
                continue
            _tell(summary)
            summaries.append(summary)
            if (events or site.events) and not list_only:
                loaded[site.name] = _load_events(site, catalogue, again)
    every_column = [*(summaries[0].record() if summaries else []), *(["events_loaded"] if loaded else [])]
    few = ("site", "listed", "registered", "changed", "missing", "quarantined", "unrecognised")
    whole = format is Format.JSON and not columns
    rows = (
        summary.record()
        | ({"events_loaded": loaded.get(summary.site)} if loaded else {})
        | (summary.lists() if whole else {})
        for summary in summaries
    )
    show(rows, format, every_column, few=(*few, "events_loaded") if loaded else few, subset=columns)
    return status


def _watch(sites: list[Site], catalogue: Catalogue, every_s: float, threads: int, list_only: bool) -> int:
    """Keep the catalogue at what a site holds, until this process is told to end."""
    import signal
    import threading

    from apbatch.errors import UsageError
    from apbatch.ingest.watch import watch

    if len(sites) != 1:
        raise UsageError("one process watches one site", remedy="start one for each site")
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        watch(sites[0], catalogue, stop, every_s=every_s, threads=threads, list_only=list_only)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _tell(summary: IngestSummary) -> None:
    """Name the first files of which people should know something."""
    for title, noted in (
        ("in quarantine", summary.quarantined),
        ("read in part", summary.partial),
        ("folder can't be listed", summary.unreadable),
        ("changes while it is read", summary.busy),
        ("of no known format", summary.unrecognised),
    ):
        for source, reason in islice(noted.first.items(), _SHOWN):
            note(f"{summary.site}: {title}: {_with_reason(source, reason)}")
        if noted.count > _SHOWN:
            note(f"{summary.site}: {title}: {noted.count - _SHOWN} more")


def _share() -> None:
    """Bring this home's sites and the catalogue's to the same."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.ingest.sites import share_sites

    settings = load_settings()
    with open_catalogue(settings.catalogue) as catalogue:
        share_sites(catalogue, settings.catalogue)


def _load_events(site: Site, catalogue: Catalogue, again: bool) -> int:
    """Load the events of a site's files, tell what could not be read, and return how many events were loaded."""
    from apbatch.config import load_settings
    from apbatch.index.events.upgrade import events_of
    from apbatch.ingest.events import load_events

    with events_of(load_settings()) as store:
        done = load_events(site, catalogue, store, again=again)
    notes = [*(f"events not loaded: {source}: {reason}" for source, reason in done.failed.items()), *done.notes]
    for line in notes[:_SHOWN]:
        note(f"{site.name}: {line}")
    if len(notes) > _SHOWN:
        note(f"{site.name}: {len(notes) - _SHOWN} more notes on events")
    return done.events


def _with_reason(source: str, reason: str) -> str:
    """Return a file with its reason, which often begins with the name of the file."""
    if not reason:
        return source
    rest = reason.removeprefix(source)
    return f"{source}{rest}" if rest.startswith((":", " at byte")) else f"{source}: {rest.strip()}"

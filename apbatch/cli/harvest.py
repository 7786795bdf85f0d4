"""`apbatch harvest`: records of other archives become entries of the catalogue."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from apbatch.cli.output import Format, FormatOption, note, show

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("harvest")(harvest)


def harvest(
    sources: Annotated[
        list[str], typer.Argument(help="Base URL of an archive (OAI-PMH), or files and folders of XML.")
    ],
    name: Annotated[str, typer.Option("--name", help="Of the site that holds the records; default: the host.")] = "",
    experiment: Annotated[str, typer.Option("--experiment", help="Of the records; default: the name.")] = "",
    prefix: Annotated[str, typer.Option("--prefix", help="Metadata format: oai_dc or datacite.")] = "oai_dc",
    chosen_set: Annotated[str, typer.Option("--set", help="Only this set of the archive.")] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Ask for everything; what the archive no longer has is removed.")
    ] = False,
    most: Annotated[int, typer.Option("--most", min=1, help="Records that one harvest takes.")] = 1_000_000,
    format: FormatOption = Format.TABLE,
) -> None:
    """Fetch what is new, changed or deleted at an archive, and register it with title, DOI and licence.

    Killed at any time, the same command goes on where it stopped. Each record is kept as a file in
    $APBATCH_HOME/harvest/NAME, the root of a site that `apbatch ingest` and `apbatch site` know as well.
    """
    from apbatch.config import load_settings
    from apbatch.errors import UsageError
    from apbatch.index.backends import open_catalogue
    from apbatch.ingest.harvest.archive import Archive
    from apbatch.ingest.harvest.folder import HarvestFolder
    from apbatch.ingest.harvest.harvesting import HarvestSummary, harvest_archive, harvest_files, known_site, new_site
    from apbatch.ingest.harvest.harvesting import register as register_records
    from apbatch.ingest.site import SITE_NAME
    from apbatch.ingest.sites import share_sites

    urls = [source for source in sources if source.startswith(("http://", "https://"))]
    if urls and len(sources) > 1:
        raise UsageError("one archive at a time", remedy="harvest each under a name of its own")
    name = name or (urlsplit(urls[0]).hostname or "" if urls else "")
    if not SITE_NAME.match(name):
        raise UsageError("a name is missing, or none of a site", where=name or None, remedy="--name NAME")
    settings = load_settings()
    folder, summary = HarvestFolder(name), HarvestSummary(name)
    with folder.lock(), open_catalogue(settings.catalogue) as catalogue:
        share_sites(catalogue, settings.catalogue)
        site, registered = known_site(folder, name), None
        try:
            if urls:
                archive = Archive(urls[0])
                harvest_archive(folder, archive, summary, prefix=prefix, chosen_set=chosen_set, again=again, most=most)
                archive.close()
            else:
                harvest_files(folder, [Path(source) for source in sources], summary)
        finally:  # what came before a failure is registered, too
            if summary.records and site is None:
                site = new_site(folder, name, experiment or name, f"Records of {urls[0] if urls else 'an archive'}.")
            if site is not None:
                registered = register_records(catalogue, site)
    for where, reason in islice(summary.refused.first.items(), _SHOWN):
        note(f"{name}: passed over: {where}: {reason}")
    if summary.refused.count > _SHOWN:
        note(f"{name}: {summary.refused.count - _SHOWN} more were passed over")
    quarantined = registered.quarantined.count if registered is not None else 0
    show(
        [{"site": name, "new": summary.new, "changed": summary.changed, "unchanged": summary.unchanged,
          "deleted": summary.deleted, "refused": summary.refused.count, "quarantined": quarantined}],
        format,
    )  # fmt: skip

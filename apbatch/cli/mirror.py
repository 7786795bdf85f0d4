"""`apbatch mirror`: verified copies of selected files in a store."""

from __future__ import annotations

from typing import Annotated

import typer

from apbatch.cli.output import ColumnsOption, Format, FormatOption, show


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("mirror")(mirror)


def mirror(
    query: Annotated[str, typer.Argument(help="Which files, such as \"experiment = 'TAIGA' and night = 2017-10-28\".")],
    to: Annotated[str, typer.Option("--to", help="hdfs, webhdfs, afs, local, store, or a URL.")],
    under: Annotated[str, typer.Option("--under", help="Folder in the store.")] = "",
    verify: Annotated[bool, typer.Option("--verify", help="Read and compare what is there; mend it.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, max=64, help="Files at the same time.")] = 4,
    files: Annotated[bool, typer.Option("--files", help="Show every file, not only the sums.")] = False,
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
) -> int:
    """Copy the files of QUERY into a store, verify and record them. Go on with it after a break: nothing is done twice.

    Ends with status 1 if any file has no good copy.
    """
    from dataclasses import asdict, fields

    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.index.parser import parse
    from apbatch.ingest.mirror import MirroredFile, target_store
    from apbatch.ingest.mirror import mirror as run

    settings = load_settings()
    store = target_store(to, settings)
    with open_catalogue(settings.catalogue) as catalogue:
        selection = parse(query, catalogue.attributes())
        summary = run(catalogue, selection, store, under=under, verify=verify, threads=threads)
    if files:
        names = [field.name for field in fields(MirroredFile)]
        show(map(asdict, summary.files), format, names, few=("path", "outcome", "reason"), wanted=columns)
    else:
        show([summary.record()], format, list(summary.record()), wanted=columns)
    return 1 if summary.failures else 0

"""`apbatch bench`: measure back-ends and kernels, and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apbatch.cli.output import ColumnsOption, Format, FormatOption, note, show


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    group = typer.Typer(no_args_is_help=True, help="Measure back-ends and kernels, and report.")
    group.command("run")(run)
    group.command("report")(report)
    app.add_typer(group, name="bench")


def run(
    suites: Annotated[list[str], typer.Argument(help="Suites, such as storage and index.")],
    size: Annotated[str, typer.Option("--size", help="smoke, small, or one of --sizes.")] = "smoke",
    sizes: Annotated[Path | None, typer.Option("--sizes", help="File with more sizes, as conf/bench.yaml.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run; default $APBATCH_HOME/bench/TIME.")
    ] = None,
    start: Annotated[
        bool, typer.Option("--start/--no-start", help="Start servers that are not up, stop them after.")
    ] = True,
    data: Annotated[
        Path | None,
        typer.Option("--data", envvar="APBATCH_BENCH_DATA", help="Folder of real data, for suites that use some."),
    ] = None,
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
) -> int:
    """Measure; every sample is kept as it comes. Ends with status 1 if a peer failed in the middle."""
    from apbatch.bench import campaign
    from apbatch.bench.report import rows
    from apbatch.bench.samples import read_run
    from apbatch.bench.servers import development_servers
    from apbatch.bench.sizes import size_named
    from apbatch.bench.suites import require_suites

    amounts = size_named(size, sizes)
    require_suites(suites)
    folder = out or campaign.new_folder()
    with development_servers(suites, start) as servers:
        left_out = campaign.run(suites, size, amounts, servers, folder, data)
    for peer, reason in left_out.items():
        note(f"left out: {peer}: {reason}")
    failed = {(sample.peer, sample.error) for sample in read_run(folder).samples if sample.error}
    for failed_peer, error in sorted(failed):
        note(f"failed: {failed_peer}: {error}")
    few = ("operation", "peer", "median", "unit", "times")
    show(rows(folder), format, ("suite", *few, "lowest", "highest", "ratio to", "samples"), few=few, subset=columns)
    note(f"samples are in {folder}; the page: apbatch bench report {folder}")
    return 1 if failed else 0


def report(
    folder: Annotated[Path | None, typer.Argument(help="Folder of a run; default the latest.")] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Write report.html and report.json of a run (also of one that was broken off)."""
    from apbatch.bench.campaign import latest_folder
    from apbatch.bench.report import write_report

    page, data = write_report(folder or latest_folder())
    show([{"page": str(page), "data": str(data)}], format)

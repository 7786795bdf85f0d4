"""`apbatch sim`: gamma and proton images of one telescope from first principles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apbatch.cli.output import Format, show


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("sim")(_sim)


def _sim(
    output: Annotated[Path, typer.Option("--output", help="Folder of the production; it is made.")],
    gammas: Annotated[int, typer.Option("--gammas", min=0, help="Gamma showers to throw.")] = 500,
    protons: Annotated[int, typer.Option("--protons", min=0, help="Proton showers to throw.")] = 900,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same files.")] = 1,
    telescopes: Annotated[int, typer.Option("--telescopes", min=1, help="At random around each shower.")] = 16,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Processes that simulate.")] = 2,
    settings: Annotated[Path | None, typer.Option("--settings", help="YAML with any further parameter.")] = None,
    format: Annotated[Format, typer.Option("--format", help="Of the summary.")] = Format.TABLE,
) -> None:
    """Simulate air showers and the telescope's images: images/ and, apart from them, truth/ in the output folder.

    Killed at any time, the same command goes on. Numbers are showers thrown; each gives several images or none.
    Settings of the file and of the command line are merged; the latter win for what they name.
    """
    from apbatch.sim.production import simulate
    from apbatch.sim.settings import Production, load_production

    named = {"gammas": gammas, "protons": protons, "seed": seed, "telescopes": telescopes}
    production: Production = load_production(settings, named)
    summary = simulate(production, output, processes=processes)
    show(
        [
            {
                "primary": primary,
                "showers": summary.showers[primary],
                "triggered": summary.triggered[primary],
                "images": summary.images[primary],
            }
            for primary in summary.showers
        ],
        format,
    )

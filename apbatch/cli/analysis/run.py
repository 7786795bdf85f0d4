"""`apbatch run`: job descriptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from apbatch.cli.output import Format, FormatOption, show, show_text


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("run")(run)


def run(
    file: Annotated[Path, typer.Argument(help="Job description (YAML).")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="Settings, such as conf/cluster.yaml.")] = None,
    until: Annotated[str, typer.Option("--until", metavar="STEP", help="Stop after this step.")] = "",
    format: FormatOption = Format.TABLE,
) -> None:
    """Run a job; what is done already is not done again, and a killed run goes on where it stopped."""
    from apbatch.config import load_settings
    from apbatch.workflow import runner
    from apbatch.workflow.model import load_job

    job = load_job(file)
    if until:
        job = job.until(until)
    settings = load_settings(config)
    if dry_run:
        plan = runner.plan(job, settings)
        show(
            (
                {
                    "step": planned.step,
                    "state": planned.state,
                    "line": planned.line,
                    "parameters": planned.parameters if format is Format.JSON else json.dumps(planned.parameters),
                }
                for planned in plan
            ),
            format,
        )
        return
    outcome = runner.run(job, settings)
    for text in (outcome.products.get("table"), outcome.products.get("report")):
        if text:
            show_text(text)

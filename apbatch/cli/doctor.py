"""`apbatch doctor`: what is missing here, and the command that mends it."""

from __future__ import annotations

from typing import Annotated

import typer

from apbatch.cli.output import Format, FormatOption, show


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(
    install: Annotated[
        bool,
        typer.Option("--install", help="Install missing Debian packages (as root); for test, fetch the servers too."),
    ] = False,
    purpose: Annotated[str, typer.Option("--for", help="demo or test.")] = "demo",
    format: FormatOption = Format.TABLE,
) -> int:
    """Say what is missing on this machine and the command that mends it; status 1 if something needed is."""
    from apbatch.cluster import doctor as examiner

    wanted = examiner.purpose_named(purpose)
    findings = examiner.examine(wanted)
    if install:
        examiner.install(findings)
        if wanted == "test":
            examiner.fetch_jars()
        findings = examiner.examine(wanted)
    columns = ("what", "state", "found", "remedy")
    show(({name: getattr(finding, name) for name in columns} for finding in findings), format, columns)
    return 1 if any(finding.state == "missing" for finding in findings) else 0

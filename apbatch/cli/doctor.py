"""`apbatch doctor`: what is missing here, and the command that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from apbatch.cli.output import Format, FormatOption, show

if TYPE_CHECKING:
    from apbatch.cluster.doctor import Finding


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

    target = examiner.purpose_named(purpose)
    findings = examiner.examine(target)
    if install:
        examiner.install(findings)
        if target == "test":
            examiner.fetch_jars()
        findings = examiner.examine(target)
    findings.append(_kernels())
    columns = ("what", "state", "found", "remedy")
    show(({name: getattr(finding, name) for name in columns} for finding in findings), format, columns)
    return 1 if any(finding.state == "missing" for finding in findings) else 0


def _kernels() -> Finding:
    """Say which kernels compute images here; the first time, this compiles them."""
    from apbatch.cluster.doctor import Finding

    try:
        import apbatch.camera.cleaning  # noqa: F401 - its loops need numba, too
        from apbatch.camera.kernels import batch
    except ImportError as error:
        return Finding("kernels", "missing", str(error), "pip install 'apbatch[images]'")
    obstacle = batch.obstacle()
    if obstacle is None:
        return Finding("kernels", "ok", f"vector, verified; {batch.versions()}")
    remedy = f"unset {batch.VARIABLE}" if obstacle.startswith(batch.VARIABLE) else batch.REMEDY
    return Finding("kernels", "optional", f"plain, the same more slowly; vector: {obstacle}", remedy)

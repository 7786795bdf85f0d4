"""`apbatch events`: searching events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from apbatch.cli.output import Format, show

_USUAL = ("experiment", "run", "event", "telescope", "cleaning", "size", "length", "width", "alpha")
_FORMAT = Annotated[Format, typer.Option("--format", help="Format of the output.")]
_EVENTS = "Such as \"experiment = 'TAIGA' and cleaning = 'tailcuts-14-7' and size > 200 pe\"."


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("events")(events)
    app.command("check-events")(check_events)


def events(
    query: Annotated[str, typer.Argument(help=_EVENTS)] = "",
    format: _FORMAT = Format.TABLE,
    columns: Annotated[str, typer.Option(help="Attributes to show, separated by commas; JSON and CSV: all.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    by: Annotated[str, typer.Option(help="Count by the values of this attribute, such as night.")] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Say how the query would be answered.")] = False,
) -> None:
    """List events by their parameters, one row a cleaning."""
    from apbatch.config import load_settings
    from apbatch.index.attributes import known_attribute
    from apbatch.index.events.upgrade import events_of
    from apbatch.index.parser import parse

    with events_of(load_settings()) as store:
        known = store.attributes()
        where = parse(query, known)
        if explain:
            show([{"plan": line} for line in store.explain(where).splitlines()], format)
            return
        if by:
            show(({by: value, "events": number} for value, number in store.count(where, by).items()), format)
            return
        wanted = [known_attribute(name.strip(), known).name for name in columns.split(",") if name.strip()]

        def rows() -> Iterator[dict[str, Any]]:
            for batch in store.select(where, wanted or None, limit=limit):
                for row in batch.to_pylist():
                    yield {name: row.get(name) for name in wanted} if wanted else row

        shown = wanted or (list(_USUAL) if format is Format.TABLE else None)
        show(rows(), format, shown)


def check_events(
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Leave out parts that are gone or damaged, so that they can be loaded again."),
    ] = False,
    format: _FORMAT = Format.TABLE,
) -> int:
    """Compare all stored events with their checksums, and join small parts; status 1 if some parts are bad."""
    from apbatch.config import load_settings
    from apbatch.index.events.upgrade import events_of

    with events_of(load_settings()) as store:
        faults = store.check(forget=forget)
        if not faults:
            store.compact()
    show(({"part": fault.where, "fault": fault.what, "forgotten": forget} for fault in faults), format)
    return 1 if faults and not forget else 0

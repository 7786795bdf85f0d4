"""`apbatch find`, `count`, `changes`, `explain`, `attributes`: searching the catalogue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from apbatch.cli.output import (
    ColumnsOption,
    Format,
    FormatOption,
    column_named,
    note,
    or_reason,
    show,
    show_lines,
    show_text,
)

_QUERY = Annotated[str, typer.Argument(help="Such as \"experiment = 'TAIGA' and events > 1000\"; empty: all files.")]
#: What fits a terminal.
_ATTRIBUTE = ("name", "type", "unit", "description")
_COLUMNS = ("path", "size", "night", "run", "events")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("find")(find)
    app.command("count")(count)
    app.command("changes")(changes)
    app.command("conflicts")(conflicts)
    app.command("explain")(explain)
    app.command("attributes")(attributes)


def find(
    query: _QUERY = "",
    format: FormatOption = Format.TABLE,
    columns: ColumnsOption = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many files.")] = None,
) -> None:
    """List the files that match a query."""
    from apbatch.client.client import connect

    with connect() as catalogue:
        attributes = catalogue.attributes()
        if format is Format.TABLE and (reason := catalogue.slow_because(query, limit)):
            note(f"this search will take a while: {reason}")
        records = or_reason(catalogue.records(query, limit), format, lambda: catalogue.nothing_because(query))
        show(records, format, _file_columns(attributes), few=_COLUMNS, subset=columns)


def count(
    query: _QUERY = "",
    by: Annotated[str, typer.Option(help="Count by the values of this attribute, such as night.")] = "",
    format: FormatOption = Format.TABLE,
) -> None:
    """Count the files that match a query."""
    from apbatch.client.client import connect

    with connect() as catalogue:
        by = column_named(by, catalogue.attributes()) if by.strip() else ""
        counts = catalogue.count(query, by or None)
    if by:
        show(({by: key, "files": number} for key, number in counts.items()), format, (by, "files"))
    else:
        show([{"files": counts}], format, ("files",))


def changes(
    since: Annotated[int, typer.Option(min=0, help="Revision that is known already.")] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on as changes come, one line of JSON for each; --since goes on later.")
    ] = False,
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
) -> None:
    """List what changed after a revision, oldest change first."""
    from apbatch.client.client import connect

    with connect() as catalogue:
        if follow:
            show_lines(catalogue.follow(since))
            return
        names = list(dict.fromkeys(["revision", "change", "detail", *_file_columns(catalogue.attributes())]))
        few = ("revision", "change", "path", "size", "state")
        show(catalogue.changes(since), format, names, few=few, subset=columns)


def _file_columns(attributes: Iterable[str]) -> list[str]:
    from apbatch.index.files import COMMON_FIELDS

    return list(dict.fromkeys([*COMMON_FIELDS, *attributes]))


def conflicts(format: FormatOption = Format.TABLE) -> None:
    """List the places at which sites hold different content, and the names that their files have in the tree."""
    from apbatch.client.client import connect

    with connect() as catalogue:
        rows = (
            {"place": conflict.place, "path": path, "entry": entry}
            for conflict in catalogue.conflicts()
            for path, entry in conflict.entries.items()
        )
        show(rows, format, ("place", "path", "entry"))


def explain(query: _QUERY = "") -> None:
    """Say how the catalogue would answer a query."""
    from apbatch.client.client import connect

    with connect() as catalogue:
        show_text(catalogue.explain(query))


def attributes(
    format: FormatOption = Format.TABLE,
    events: Annotated[bool, typer.Option("--events", help="Those of events and images, not of files.")] = False,
) -> None:
    """List the attributes that a query may name."""
    from apbatch.client.client import connect

    with connect() as catalogue:
        attributes = catalogue.attributes(events=events)
    rows = ({name: getattr(attribute, name) for name in _ATTRIBUTE} for attribute in attributes.values())
    show(rows, format, _ATTRIBUTE)

"""`apbatch find`, `count`, `changes`, `explain`, `attributes`: searching the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apbatch.cli.output import Format, show

if TYPE_CHECKING:
    from apbatch.index.changes import Change

_QUERY = Annotated[str, typer.Argument(help="Such as \"experiment = 'TAIGA' and events > 1000\"; empty: all files.")]
_FORMAT = Annotated[Format, typer.Option("--format", help="Format of the output.")]
_COLUMNS = ("path", "site", "size", "night", "run", "events", "state")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("find")(find)
    app.command("count")(count)
    app.command("changes")(changes)
    app.command("explain")(explain)
    app.command("attributes")(attributes)


def find(
    query: _QUERY = "",
    format: _FORMAT = Format.TABLE,
    columns: Annotated[str, typer.Option(help="Attributes to show, separated by commas; JSON and CSV: all.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many files.")] = None,
) -> None:
    """List the files that match a query."""
    from apbatch.config import load_settings
    from apbatch.index.attributes import known_attribute
    from apbatch.index.backends import open_catalogue
    from apbatch.index.parser import parse

    with open_catalogue(load_settings().catalogue) as catalogue:
        known = catalogue.attributes()
        wanted = [known_attribute(name.strip(), known).name for name in columns.split(",") if name.strip()]
        records = (record.flat() for record in catalogue.select(parse(query, known), limit))
        _show(records, format, wanted)


def count(
    query: _QUERY = "",
    by: Annotated[str, typer.Option(help="Count by the values of this attribute, such as night.")] = "",
    format: _FORMAT = Format.TABLE,
) -> None:
    """Count the files that match a query."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.index.parser import parse

    with open_catalogue(load_settings().catalogue) as catalogue:
        known = catalogue.attributes()
        counts = catalogue.count(parse(query, known), by or None)
    if by:
        show(({by: key, "files": number} for key, number in counts.items()), format)
    else:
        show(({"files": number} for number in counts.values()), format)


def changes(
    since: Annotated[int, typer.Option(min=0, help="Revision that is known already.")] = 0,
    format: _FORMAT = Format.TABLE,
) -> None:
    """List what changed after a revision, oldest change first."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue

    with open_catalogue(load_settings().catalogue) as catalogue:
        rows = (
            {**_shown(change), **(change.record.flat() if change.record else {})}
            for change in catalogue.all_changes(since)
        )
        _show(rows, format, [], ("revision", "change", *_COLUMNS))


def _shown(change: Change) -> dict[str, Any]:
    of_file = change.record.flat() if change.record else {"path": change.key}
    return {"revision": change.revision, "change": change.kind.value, "detail": change.detail, **of_file}


def _show(
    records: Iterable[Mapping[str, Any]], format: Format, wanted: list[str], usual: tuple[str, ...] = _COLUMNS
) -> None:
    if wanted:
        records = ({name: record.get(name) for name in wanted} for record in records)
    elif format is Format.TABLE:
        wanted = list(usual)
    show(records, format, wanted or None)


def explain(query: _QUERY = "") -> None:
    """Say how the catalogue would answer a query."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.index.parser import parse

    with open_catalogue(load_settings().catalogue) as catalogue:
        print(catalogue.explain(parse(query, catalogue.attributes())))


def attributes(
    format: _FORMAT = Format.TABLE,
    events: Annotated[bool, typer.Option("--events", help="Those of events and images, not of files.")] = False,
) -> None:
    """List the attributes that a query may name."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.index.events.upgrade import events_of

    if events:
        with events_of(load_settings()) as store:
            known = store.attributes()
    else:
        with open_catalogue(load_settings().catalogue) as catalogue:
            known = catalogue.attributes()
    show(
        ({"name": a.name, "type": a.type, "unit": a.unit, "description": a.description} for a in known.values()), format
    )

"""`apbatch find`, `count`, `explain`, `attributes`: searching the catalogue."""

from __future__ import annotations

from typing import Annotated

import typer

from apbatch.cli.output import Format, show
from apbatch.errors import UsageError, nearest_word

_QUERY = Annotated[str, typer.Argument(help="Such as \"experiment = 'TAIGA' and events > 1000\"; empty: all files.")]
_FORMAT = Annotated[Format, typer.Option("--format", help="Format of the output.")]
_COLUMNS = ("path", "site", "size", "night", "run", "events", "state")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("find")(find)
    app.command("count")(count)
    app.command("explain")(explain)
    app.command("attributes")(attributes)


def find(
    query: _QUERY = "",
    format: _FORMAT = Format.TABLE,
    columns: Annotated[str, typer.Option(help="Columns of table and CSV, separated by commas.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many files.")] = None,
) -> None:
    """List the files that match a query."""
    from apbatch.config import load_settings
    from apbatch.index.catalogue import open_catalogue
    from apbatch.index.query import parse

    with open_catalogue(load_settings().catalogue) as catalogue:
        known = catalogue.attributes()
        wanted = [name.strip() for name in columns.split(",") if name.strip()]
        for name in wanted:
            if name not in known:
                raise UsageError(f"unknown attribute '{name}'", nearest=nearest_word(name, known))
        if not wanted and format is Format.TABLE:
            wanted = list(_COLUMNS)
        records = (record.flat() for record in catalogue.select(parse(query, known), limit))
        show(records, format, wanted or None)


def count(
    query: _QUERY = "",
    by: Annotated[str, typer.Option(help="Count by the values of this attribute, such as night.")] = "",
    format: _FORMAT = Format.TABLE,
) -> None:
    """Count the files that match a query."""
    from apbatch.config import load_settings
    from apbatch.index.catalogue import open_catalogue
    from apbatch.index.query import parse

    with open_catalogue(load_settings().catalogue) as catalogue:
        known = catalogue.attributes()
        if by and by not in known:
            raise UsageError(f"unknown attribute '{by}'", nearest=nearest_word(by, known))
        counts = catalogue.count(parse(query, known), by or None)
    if by:
        show(({by: key, "files": number} for key, number in counts.items()), format)
    else:
        show(({"files": number} for number in counts.values()), format)


def explain(query: _QUERY = "") -> None:
    """Say how the catalogue would answer a query."""
    from apbatch.config import load_settings
    from apbatch.index.catalogue import open_catalogue
    from apbatch.index.query import parse

    with open_catalogue(load_settings().catalogue) as catalogue:
        print(catalogue.explain(parse(query, catalogue.attributes())))


def attributes(format: _FORMAT = Format.TABLE) -> None:
    """List the attributes that a query may name."""
    from apbatch.config import load_settings
    from apbatch.index.catalogue import open_catalogue

    with open_catalogue(load_settings().catalogue) as catalogue:
        known = catalogue.attributes().values()
    show(({"name": a.name, "type": a.type, "unit": a.unit, "description": a.description} for a in known), format)

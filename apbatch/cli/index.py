"""`apbatch index`: the catalogue's own upkeep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apbatch.cli.output import Format, FormatOption, note, show

_FILE = Annotated[Path, typer.Argument(help="The copy.")]
_FOLDER = Annotated[Path, typer.Argument(help="The folder of Parquet files.")]


def register(app: typer.Typer) -> None:
    """Add the command group to the application."""
    group = typer.Typer(no_args_is_help=True, help="The catalogue: copies, moves to another back-end, checks.")
    group.command("upgrade")(upgrade)
    group.command("backup")(backup)
    group.command("restore")(restore)
    group.command("export")(export)
    group.command("import")(import_)
    group.command("check")(check)
    app.add_typer(group, name="index")


def upgrade() -> None:
    """Bring the catalogue to today's schema; any command that opens it does so too."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue

    with open_catalogue(load_settings().catalogue) as catalogue:
        note(f"the catalogue is up to date, revision {catalogue.revision()}")


def backup(file: _FILE) -> None:
    """Write an exact copy to a new file, while others go on; it serves the same back-end."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue

    with open_catalogue(load_settings().catalogue) as catalogue:
        catalogue.backup(file)


def restore(file: _FILE) -> None:
    """Put a copy that `backup` wrote into an empty catalogue."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue

    with open_catalogue(load_settings().catalogue) as catalogue:
        catalogue.restore(file)


def export(folder: _FOLDER, format: FormatOption = Format.TABLE) -> None:
    """Write the catalogue as Parquet files to a new folder, for any back-end."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.index.transfer import export_catalogue

    with open_catalogue(load_settings().catalogue) as catalogue:
        _show(export_catalogue(catalogue, folder), format)


def import_(folder: _FOLDER, format: FormatOption = Format.TABLE) -> None:
    """Read a folder that `export` wrote, and compare what came back; can be repeated."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.index.transfer import import_catalogue

    with open_catalogue(load_settings().catalogue) as catalogue:
        _show(import_catalogue(catalogue, folder), format)


def _show(rows: dict[str, int], format: Format) -> None:
    show(({"what": name, "rows": number} for name, number in rows.items()), format, ("what", "rows"))


def check(
    store: Annotated[str, typer.Option("--store", help="URL of a store; default: that of the settings.")] = "",
    read: Annotated[bool, typer.Option("--read", help="Read replicas and compare their checksums.")] = False,
    format: FormatOption = Format.TABLE,
) -> int:
    """Check the catalogue itself, and compare it with a store both ways; status 1 if something is wrong."""
    from apbatch.config import load_settings
    from apbatch.index.backends import open_catalogue
    from apbatch.index.inventory import check_catalogue, compare_with_store
    from apbatch.storage.backends import open_store

    settings = load_settings()
    with open_catalogue(settings.catalogue) as catalogue:
        faults = list(check_catalogue(catalogue))
        faults += compare_with_store(catalogue, open_store(store or settings.store), read=read)
    show(({"where": fault.where, "fault": fault.what} for fault in faults), format, ("where", "fault"))
    return 1 if faults else 0

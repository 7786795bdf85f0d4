"""How records reach the user: a table for people, JSON and CSV for programs. No command prints by itself."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


class Format(StrEnum):
    """Output formats of every command that lists something."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value


def show(records: Iterable[Mapping[str, Any]], format: Format, columns: Iterable[str] | None = None) -> None:
    """Print records in the wanted format to standard output.

    Parameters
    ----------
    records : iterable of mappings
        One a row; JSON shows every key, a table and CSV the `columns` (all keys that occur, if None).
    """
    rows = [{key: _plain(value) for key, value in record.items()} for record in records]
    if format is Format.JSON:
        json.dump(rows, sys.stdout, indent=1, default=str)
        sys.stdout.write("\n")
        return
    names = list(columns) if columns is not None else list(dict.fromkeys(key for row in rows for key in row))
    if format is Format.CSV:
        writer = csv.DictWriter(sys.stdout, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    table = Table(box=box.SIMPLE_HEAD)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("" if row.get(name) is None else str(row[name]) for name in names))
    console = Console()
    if not console.is_terminal:  # a pipe has no width: never cut a path
        console = Console(width=10_000)
    console.print(table)

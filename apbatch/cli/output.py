"""How everything reaches the user: tables for people, JSON and CSV for programs. No command prints by itself.

A table fits the terminal; a single record that is too wide becomes lines of name and value. In a pipe the same table
is values separated by tabs, without padding. JSON and CSV are UTF-8 in every locale.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from apbatch.config import home
from apbatch.errors import ApbatchError, ServerError, UsageError, nearest_word
from apbatch.messages import ERRORS_VARIABLE, error_line, message_line, visible

_NARROW = 20


class Format(StrEnum):
    """Output formats of every command that lists something."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def _remember(format: Format) -> Format:
    """Note that a program reads the output: it gets errors as JSON as well."""
    if format is Format.JSON and not sys.stderr.isatty():
        os.environ.setdefault(ERRORS_VARIABLE, "json")
    return format


FormatOption = Annotated[
    Format,
    typer.Option("--format", help="Of the output; json: of errors, too.", callback=_remember, is_eager=True),
]
ColumnsOption = Annotated[
    str, typer.Option("--columns", help="Columns to show, separated by commas; JSON and CSV: all.", metavar="NAMES")
]


def column_named(name: str, columns: Iterable[str]) -> str:
    """Return the column that a user means: capitals, ``-`` for ``_`` and blanks around do not matter.

    Raises
    ------
    UsageError
        If there is none; it names the nearest.
    """
    columns = list(columns)
    by_plain_name = {_plain_name(column): column for column in columns}
    if name in columns:
        return name
    if (plain := _plain_name(name)) in by_plain_name:
        return by_plain_name[plain]
    raise UsageError(
        f"unknown column '{name.strip()}'",
        nearest=nearest_word(plain, columns),
        remedy=f"there are {', '.join(columns)}" if len(columns) <= 12 else "apbatch attributes lists them",
    )


def columns_named(text: str, columns: Iterable[str]) -> list[str]:
    """Return the columns that a user lists, separated by commas, each once.

    Raises
    ------
    UsageError
        As `column_named`.
    """
    columns = list(columns)
    return list(dict.fromkeys(column_named(name, columns) for name in text.split(",") if name.strip()))


def _plain_name(name: str) -> str:
    return "_".join(name.strip().casefold().replace("-", " ").replace("_", " ").split())


def show(
    records: Iterable[Mapping[str, Any]],
    format: Format,
    columns: Sequence[str] = (),
    *,
    few: Sequence[str] = (),
    subset: str = "",
) -> None:
    """Print records in the wanted format to standard output.

    Parameters
    ----------
    records : iterable of mappings
        One a row. JSON shows every key.
    format : Format
    columns : sequence of str
        All columns; by default the keys that occur. They are the header of a CSV without rows.
    few : sequence of str
        Those that a table has, where all would be too wide.
    subset : str
        The columns that the user asked for, separated by commas.

    Raises
    ------
    UsageError
        If a wanted column does not exist.
    """
    names = columns_named(subset, columns)
    rows = ({key: _plain(value) for key, value in record.items()} for record in records)
    if names:
        rows = ({name: row.get(name) for name in names} for row in rows)
    if format is Format.JSON:
        _write(lambda stream: _write_json(rows, stream), for_program=True)
        return
    kept = list(rows)
    every = list(dict.fromkeys([*columns, *(key for row in kept for key in row)]))
    occurring = [name for name in every if any(name in row for row in kept)] or every
    if format is Format.CSV:
        _write(lambda stream: _write_csv(kept, names or occurring, stream), for_program=True)
        return
    if not sys.stdout.isatty():
        _write(lambda stream: _write_lines(kept, names or list(few) or occurring, stream))
    else:
        _write(lambda stream: _write_table(kept, names, few or occurring, occurring, stream))


def show_text(text: str) -> None:
    """Print text of several lines, such as an explanation, to standard output."""
    _write(lambda stream: print(visible(text, keep="\n\t"), file=stream))


def show_line(record: Mapping[str, Any]) -> None:
    """Print one record as one line of JSON: what a program that works for long says at its end."""
    _write(lambda stream: stream.write(json.dumps(_plain(record), default=str) + "\n"), for_program=True)


def or_reason(
    records: Iterable[Mapping[str, Any]], format: Format, reason: Callable[[], str | None]
) -> Iterator[Mapping[str, Any]]:
    """Yield records; where there are none, tell people why.

    Parameters
    ----------
    records : iterable of mappings
    format : Format
        People read tables.
    reason : callable
        Says why, or None.
    """
    empty = True
    for record in records:
        empty = False
        yield record
    if empty and format is Format.TABLE and (why := reason()):
        note(why)


def show_lines(records: Iterable[Mapping[str, Any] | None]) -> None:
    """Print records as lines of JSON as they come; at None, what was printed is sent on its way."""

    def write(stream: Any) -> None:
        for record in records:
            if record is None:
                stream.flush()
            else:
                stream.write(json.dumps(_plain(record), default=str, allow_nan=False) + "\n")

    _write(write, for_program=True)


def note(text: str) -> None:
    """Print a message about what goes on to standard error."""
    with suppress(OSError, ValueError):
        print(message_line(text), file=sys.stderr, flush=True)


def report(error: BaseException, program: str = "apbatch") -> int:
    """Print an error to standard error and return the exit status that goes with it."""
    failure = error if isinstance(error, ApbatchError) else _explained(error)
    of_state = f"{failure.where}/".startswith(f"{home()}/") and isinstance(error, OSError | ServerError)
    if failure.remedy is None and of_state and not os.access(f"{home()}/", os.W_OK):
        failure.remedy = f"set APBATCH_HOME to a folder that you may write; all state is in {home()}"
    with suppress(OSError, ValueError):  # nobody is left to be told
        print(error_line(failure, program), file=sys.stderr, flush=True)
    return failure.status


def _explained(error: BaseException) -> ApbatchError:
    """Return the project's error for one that came from elsewhere."""
    if isinstance(error, ValidationError):
        faults = (
            f"{'.'.join(str(part).replace('_', '-') for part in fault['loc']) or 'settings'}: "
            f"{fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
        return UsageError("\n".join(faults))
    if isinstance(error, OSError) and error.strerror:
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
        return ApbatchError(error.strerror, where=where)
    return ApbatchError(f"unexpected {type(error).__name__}: {error}", remedy="--debug shows where")


def finish() -> None:
    """Send what is printed on its way, as a last act.

    Raises
    ------
    ApbatchError
        If it can't be written.
    """
    _write(lambda stream: None)


def _write(write: Callable[[Any], None], *, for_program: bool = False) -> None:
    """Write to standard output; a reader that went away (``| head``) ends the printing, not the command."""
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        if for_program:
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
        else:
            stream.reconfigure(errors="backslashreplace")
    try:
        write(stream)
        stream.flush()
    except BrokenPipeError:
        _silence()
    except OSError as error:
        _silence()
        raise ApbatchError(f"the output can't be written: {error.strerror}", where="standard output") from error


def _silence() -> None:
    """Let everything that is still printed vanish, so that Python's own last flush does not fail."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold; infinities and NaN are none of them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _write_json(rows: Iterable[Mapping[str, Any]], stream: Any) -> None:
    """Write an array, record by record: a catalogue may be larger than the memory."""
    before = "[\n"
    for row in rows:
        stream.write(before + json.dumps(row, indent=1, default=str, allow_nan=False))
        before = ",\n"
    stream.write("\n]\n" if before == ",\n" else "[]\n")


def _write_csv(rows: Iterable[Mapping[str, Any]], names: Sequence[str], stream: Any) -> None:
    writer = csv.DictWriter(stream, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _cell(value: Any) -> str:
    return "" if value is None else visible(f"{value:.6g}" if isinstance(value, float) else str(value))


def _write_lines(rows: Sequence[Mapping[str, Any]], names: Sequence[str], stream: Any) -> None:
    stream.write("\t".join(names) + "\n")
    for row in rows:
        cells = ("" if row.get(name) is None else visible(str(row[name])) for name in names)
        stream.write("\t".join(cells) + "\n")


def _write_table(
    rows: Sequence[Mapping[str, Any]], names: list[str], few: Sequence[str], every: Sequence[str], stream: Any
) -> None:
    width = shutil.get_terminal_size().columns
    heads = names or list(few)
    cells = [[_cell(row.get(name)) for name in heads] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    if len(rows) == 1 and not names and sum(widths) + 2 * len(widths) > width:
        heads, cells = ["", ""], [[name, _cell(rows[0].get(name))] for name in every if rows[0].get(name) is not None]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    table = Table(box=box.SIMPLE_HEAD, show_header=any(heads))
    numbers = {name for name in heads if name and any(isinstance(row.get(name), int | float) for row in rows)}
    for name, size in zip(heads, widths, strict=True):
        table.add_column(
            Text(name), overflow="fold", no_wrap=size <= _NARROW, justify="right" if name in numbers else "left"
        )
    for line in cells:
        table.add_row(*map(Text, line))  # as text: nothing in it is markup
    console = Console(file=stream, width=width, highlight=False, emoji=False, markup=False)
    console.print(table)

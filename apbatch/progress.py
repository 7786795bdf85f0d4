"""Progress for the user: a rich bar in a terminal, plain lines in a log; always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

from apbatch.messages import errors_are_json, message_line, visible

_LINE_EVERY_S = 5.0


class Task(Protocol):
    """What the code that works sees of a progress display."""

    def advance(self, amount: float = 1) -> None:
        """Count `amount` more done."""
        ...

    def note(self, text: str) -> None:
        """Show what is at hand."""
        ...


class _Bar:
    def __init__(self, progress: Progress, title: str, total: float | None) -> None:
        self._progress = progress
        self._id = progress.add_task(visible(title), total=total, note="")

    def advance(self, amount: float = 1) -> None:
        self._progress.advance(self._id, amount)

    def note(self, text: str) -> None:
        self._progress.update(self._id, note=visible(text))


class _Lines:
    def __init__(self, title: str, total: float | None) -> None:
        self._title, self._total, self._done, self._text = title, total, 0.0, ""
        self._last = time.monotonic()

    def advance(self, amount: float = 1) -> None:
        self._done += amount
        if time.monotonic() - self._last >= _LINE_EVERY_S:
            self._last = time.monotonic()
            self.show()

    def note(self, text: str) -> None:
        self._text = text

    def show(self) -> None:
        of = f" of {self._total:g}" if self._total is not None else ""
        say(f"{self._title}: {self._done:g}{of} {visible(self._text)}".rstrip())


@contextmanager
def progress(title: str, total: float | None = None) -> Iterator[Task]:
    """Show the progress of one piece of work.

    Parameters
    ----------
    title : str
        What is being done.
    total : float, optional
        How much there is to do, if known.
    """
    if sys.stderr.isatty() and not errors_are_json():
        # The only one that gives way in a narrow terminal.
        narrow = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            TimeElapsedColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False, table_column=narrow),
        )
        with Progress(*columns, console=Console(stderr=True), expand=True) as display:
            yield _Bar(display, title, total)
    else:
        lines = _Lines(title, total)
        yield lines
        lines.show()


def say(text: str) -> None:
    """Print one line about what goes on, to standard error."""
    with suppress(OSError, ValueError):  # whoever read it has gone; the work goes on
        print(message_line(text), file=sys.stderr, flush=True)

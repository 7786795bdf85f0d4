"""Progress for the user: a rich bar in a terminal, plain lines in a log; always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
        self._id = progress.add_task(title, total=total, note="")

    def advance(self, amount: float = 1) -> None:
        self._progress.advance(self._id, amount)

    def note(self, text: str) -> None:
        self._progress.update(self._id, note=text)


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
        print(f"{self._title}: {self._done:g}{of} {self._text}".rstrip(), file=sys.stderr, flush=True)


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
    if sys.stderr.isatty():
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TimeElapsedColumn(),
            MofNCompleteColumn(),
            # The only one that gives way in a narrow terminal.
            TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        )
        with Progress(*columns, console=Console(stderr=True), expand=True) as display:
            yield _Bar(display, title, total)
    else:
        lines = _Lines(title, total)
        yield lines
        lines.show()


def say(text: str) -> None:
    """Print one line about what goes on, to standard error."""
    print(text, file=sys.stderr, flush=True)

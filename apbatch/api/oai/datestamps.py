"""When a revision of the catalogue was first seen by this service: the datestamps that harvesters select by.

The catalogue counts changes but does not say when they happened. Here is kept which revision was the last one at which
second. A record's datestamp is the first of these seconds at which its revision was there, so datestamps grow with
revisions, and whoever asks again from the time of an earlier answer misses nothing. If the file is lost, every record
counts as changed once.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from apbatch.errors import ServerError

#: Marks that are kept as they are; of more, the older half is thinned out, which makes their datestamps later.
_MARKS = 100_000
_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Now:
    """The state of the catalogue when a request came.

    Attributes
    ----------
    time : int
        Seconds since 1970: every change after `revision` will get this datestamp or a later one.
    revision : int
    """

    time: int
    revision: int


class Datestamps:
    """Marks of revisions in a file, shared by the processes of a home.

    Parameters
    ----------
    path : Path
    clock : callable
        Seconds since 1970.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock

    def read(self, revision: Callable[[], int]) -> Now:
        """Note the catalogue's revision, if it is a new one.

        Parameters
        ----------
        revision : callable
            Asks the catalogue.
        """
        now = int(self._clock())  # before the revision is read: a later change then never has an earlier datestamp
        with self._opened() as marks:
            if (row := marks.execute("SELECT max(revision) FROM mark").fetchone()) and row[0] == revision():
                return Now(now, row[0])
            marks.execute("BEGIN IMMEDIATE")
            current = revision()
            last_time, last = marks.execute("SELECT max(time), max(revision) FROM mark").fetchone()
            if last is not None and last > current:  # another catalogue took the place of the one that was marked
                marks.execute("DELETE FROM mark")
            now = max(int(self._clock()), last_time or 0)
            if last != current:
                marks.execute("INSERT OR REPLACE INTO mark (time, revision) VALUES (?, ?)", (now, current))
                self._thin(marks)
            marks.execute("COMMIT")
        return Now(now, current)

    def of(self, revisions: list[int]) -> list[int]:
        """Return the datestamps of revisions, s since 1970."""
        with self._opened() as marks:
            moments = [
                marks.execute("SELECT min(time) FROM mark WHERE revision >= ?", (one,)).fetchone()[0]
                for one in revisions
            ]
        return [int(self._clock()) if one is None else one for one in moments]

    def last_revision(self, until: int) -> int:
        """Return the last revision whose datestamp is not after a time (s since 1970); 0 if there is none."""
        with self._opened() as marks:
            return marks.execute("SELECT max(revision) FROM mark WHERE time <= ?", (until,)).fetchone()[0] or 0

    def earliest(self) -> int:
        """Return the datestamp before which there is none, s since 1970."""
        with self._opened() as marks:
            first = marks.execute("SELECT min(time) FROM mark").fetchone()[0]
        return int(self._clock()) if first is None else first

    def _thin(self, marks: sqlite3.Connection) -> None:
        if marks.execute("SELECT count(*) FROM mark").fetchone()[0] > _MARKS:
            marks.execute(
                "DELETE FROM mark WHERE time IN (SELECT time FROM (SELECT time, row_number() OVER (ORDER BY time) AS n "
                "FROM mark) WHERE n <= ? AND n % 2 = 1)",
                (_MARKS // 2,),
            )

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)) as marks:
                marks.execute("PRAGMA journal_mode=WAL")
                marks.execute(
                    "CREATE TABLE IF NOT EXISTS mark (time INTEGER PRIMARY KEY, revision INTEGER NOT NULL UNIQUE)"
                )
                yield marks
        except (sqlite3.Error, OSError) as error:
            raise ServerError(
                f"the datestamps of OAI-PMH can't be used: {error}",
                where=str(self._path),
                remedy="move the file away: all records then count as changed",
            ) from error

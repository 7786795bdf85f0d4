"""What a client needs of a catalogue, wherever it is: on this machine, or behind a server."""

from __future__ import annotations

import io
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from apbatch.formats.reader import Attribute
from apbatch.index.files import Conflict, Entry, EntryPage

if TYPE_CHECKING:
    from apbatch.access.event_image import EventImage

#: A catalogue here is asked for changes this often, s.
_FOLLOW_S = 0.5
#: Experiment, run, event and telescope.
EventKey = tuple[str, int, int, int]


def is_server(url: str) -> bool:
    """Tell whether the URL of a catalogue is that of a server in front of one."""
    return url.startswith(("http://", "https://"))


class Transport(ABC):
    """Answers of a catalogue. Queries are texts of the query language.

    Attributes
    ----------
    name : str
        What messages call it.
    """

    name: str

    @abstractmethod
    def attributes(self, of_events: bool) -> dict[str, Attribute]:
        """Return what queries may name."""

    @abstractmethod
    def records(self, query: str, limit: int | None) -> Iterator[dict[str, Any]]:
        """Yield the files that match with all their attributes."""

    @abstractmethod
    def batches(
        self, query: str, columns: list[str] | None, limit: int | None, of_events: bool
    ) -> Iterator[pa.RecordBatch]:
        """Yield what matches as batches, at least one; fields carry `unit` and `description`.

        Parameters
        ----------
        query : str
        columns : list of str, optional
            By default the usual ones.
        limit : int, optional
            Rows at most.
        of_events : bool
            Events, else files.
        """

    @abstractmethod
    def count(self, query: str, by: str | None, of_events: bool) -> dict[Any, int]:
        """Count what matches.

        Parameters
        ----------
        query : str
        by : str, optional
            Attribute by whose values to count; without it there is one number, under None.
        of_events : bool
            Events, else files.
        """

    @abstractmethod
    def explain(self, query: str, of_events: bool) -> str:
        """Return how a query would be answered."""

    @abstractmethod
    def rows_read(self, query: str, limit: int | None) -> int | None:
        """Return about how many rows a search of files looks at until the first ones come; None if nobody can tell."""

    @abstractmethod
    def entries(self, folder: str, cursor: str | None) -> EntryPage:
        """Return some entries of a folder."""

    @abstractmethod
    def entry(self, path: str) -> Entry | None:
        """Return what the merged tree has under a path."""

    @abstractmethod
    def conflicts(self, cursor: str | None) -> tuple[list[Conflict], str | None]:
        """Return some places at which sites hold different content, and the cursor of the next ones."""

    @abstractmethod
    def changes(self, since: int) -> Iterator[dict[str, Any]]:
        """Yield changes after a revision, with the fields of the file as it is now."""

    def follow(self, since: int) -> Iterator[dict[str, Any] | None]:
        """Yield changes as they come, without end; None when there are no more for now."""
        while True:
            for row in self.changes(since):
                yield row
                since = row["revision"]
            yield None
            time.sleep(_FOLLOW_S)

    @abstractmethod
    def open(self, path: str) -> io.BufferedReader:
        """Open an entry as a stream."""

    @abstractmethod
    def image(self, key: EventKey) -> EventImage:
        """Return the image of an event."""

    @abstractmethod
    def close(self) -> None:
        """Release connections."""

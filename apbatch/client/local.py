"""The catalogue that the settings name, on this machine, as its owner sees it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from apbatch.access.cache import BlockCache
from apbatch.access.described import event_batches, file_batches, limited
from apbatch.access.guard import Guard
from apbatch.access.opening import Opening
from apbatch.access.policy import Policy
from apbatch.access.principals import OWNER
from apbatch.client.transport import EventKey, Transport
from apbatch.config import Settings, cache
from apbatch.errors import NotFoundError
from apbatch.formats.reader import Attribute
from apbatch.index.attributes import known_attribute
from apbatch.index.backends import open_catalogue
from apbatch.index.events.columns import EVENT_KEYS
from apbatch.index.events.store import EventStore
from apbatch.index.events.upgrade import events_of
from apbatch.index.files import Conflict, Entry, EntryPage
from apbatch.index.parser import parse_search
from apbatch.index.query import And, Compare, Search

if TYPE_CHECKING:
    from apbatch.access.event_image import EventImage


class LocalTransport(Transport):
    """Opens catalogue and events of this home; the events when they are first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.catalogue
        self._settings = settings
        self._files = Opening(BlockCache(cache() / "blocks"))
        self._catalogue = open_catalogue(settings.catalogue)
        self._policy = Policy(lambda: (None, Path("no policy")))
        self._door = Guard(self._catalogue, None, self._policy, OWNER)
        self._events: EventStore | None = None

    def _with_events(self) -> Guard:
        if self._events is None:
            self._events = events_of(self._settings)
            self._door = Guard(self._catalogue, self._events, self._policy, OWNER)
        return self._door

    def attributes(self, of_events: bool) -> dict[str, Attribute]:
        """Return what queries may name."""
        return self._with_events().event_attributes() if of_events else self._door.attributes()

    def _search(self, query: str, limit: int | None, of_events: bool = False) -> Search:
        search = parse_search(query, self.attributes(of_events))
        return replace(search, limit=limited((search.limit, limit)))

    def records(self, query: str, limit: int | None) -> Iterator[dict[str, Any]]:
        """Yield the files that match with all their attributes."""
        for record in self._door.select(self._search(query, limit)):
            yield record.flat()

    def batches(
        self, query: str, columns: list[str] | None, limit: int | None, of_events: bool
    ) -> Iterator[pa.RecordBatch]:
        """Yield what matches as batches."""
        search = self._search(query, limit, of_events)
        if of_events:
            yield from event_batches(self._door, search, columns or (), inside=True)[1]
        else:
            yield from file_batches(self._door, search, columns or ())[1]

    def count(self, query: str, by: str | None, of_events: bool) -> dict[Any, int]:
        """Count what matches."""
        attributes = self.attributes(of_events)
        where = parse_search(query, attributes).where
        name = None if by is None else known_attribute(by, attributes).name
        return self._door.events_count(where, name) if of_events else self._door.count(where, name)

    def explain(self, query: str, of_events: bool) -> str:
        """Return how a query would be answered."""
        search = self._search(query, None, of_events)
        if of_events:
            assert self._events is not None
            return self._events.explain(search.where)
        return self._door.explain(search)

    def rows_read(self, query: str, limit: int | None) -> int | None:
        """Return about how many rows a search of files looks at until the first ones come."""
        return self._door.rows_read(self._search(query, limit))

    def entries(self, folder: str, cursor: str | None) -> EntryPage:
        """Return some entries of a folder."""
        return self._door.entries(folder, cursor)

    def entry(self, path: str) -> Entry | None:
        """Return what the merged tree has under a path."""
        return self._door.entry(path)

    def conflicts(self, cursor: str | None) -> tuple[list[Conflict], str | None]:
        """Return some places at which sites hold different content."""
        return self._door.conflicts(cursor)

    def changes(self, since: int) -> Iterator[dict[str, Any]]:
        """Yield changes after a revision."""
        from_start = since == 0
        while page := self._door.changes(since, from_start=from_start):
            for change in page:
                of_file = change.record.flat() if change.record else {"path": change.key}
                about = {"revision": change.revision, "change": change.kind.value, "detail": change.detail}
                yield about | of_file | {"revision": change.revision}
            since = page[-1].revision

    def open(self, path: str) -> io.BufferedReader:
        """Open an entry as a stream."""
        return self._files(self._door, path).stream()

    def image(self, key: EventKey) -> EventImage:
        """Return the image of an event."""
        from apbatch.access.event_image import image_of_event

        values: tuple[str | int, ...] = key
        where = And(tuple(Compare(name, "=", value) for name, value in zip(EVENT_KEYS[:4], values, strict=True)))
        rows = [row for batch in self._with_events().events_batches(where) for row in batch.to_pylist()]
        if not rows:
            raise NotFoundError("there is no such event", where=" ".join(map(str, key)))
        return image_of_event(self._door, self._files, key, rows)

    def close(self) -> None:
        """Release connections."""
        self._files.close()
        self._catalogue.close()
        if self._events is not None:
            self._events.close()

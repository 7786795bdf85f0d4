"""A catalogue behind a server, over HTTP."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import urllib3

from apbatch.client.connection import Connection, reason_of
from apbatch.client.feed import FollowedFeed, row_of
from apbatch.client.remote_ranges import RemoteRanges
from apbatch.client.transport import EventKey, Transport
from apbatch.errors import FormatError, NotFoundError, ServerError, UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.attributes import COMMON
from apbatch.index.files import COMMON_FIELDS, Conflict, Entry, EntryPage, FileRecord, State
from apbatch.index.records import from_plain
from apbatch.storage.range_stream import RangeStream

if TYPE_CHECKING:
    from apbatch.access.event_image import EventImage


class RemoteTransport(Connection, Transport):
    """A catalogue behind a server: its REST interface as answers of a catalogue. See `Connection` for parameters."""

    def __init__(self, url: str, token: str | None = None, *, patient: bool = False) -> None:
        super().__init__(url, token, patient=patient)
        self._attributes: dict[bool, dict[str, Attribute]] = {}

    def attributes(self, of_events: bool) -> dict[str, Attribute]:
        """Return what queries may name."""
        if of_events not in self._attributes:
            items = self.json("/attributes", of="events" if of_events else "files")["items"]
            self._attributes[of_events] = {item["name"]: Attribute(**item) for item in items}
        return self._attributes[of_events]

    def records(self, query: str, limit: int | None) -> Iterator[dict[str, Any]]:
        """Yield the files that match with all their attributes."""
        attributes = self.attributes(False)
        for item in self._items(query, limit):
            yield {name: _typed(attributes.get(name), value) for name, value in item.items()}

    def select(self, query: str) -> Iterator[FileRecord]:
        """Yield the files that match as the catalogue's own records."""
        return map(self.record, self._items(query, None))

    def record(self, item: Mapping[str, Any]) -> FileRecord:
        """Return a file as the catalogue has it, of what a server wrote.

        Raises
        ------
        FormatError
            If it is none.
        """
        attributes = {**COMMON, **self.attributes(False)}
        try:
            values = {name: from_plain(attributes.get(name), value) for name, value in item.items()}
            common = {name: values.pop(name) for name in COMMON_FIELDS}
            return FileRecord(**{**common, "state": State(common["state"])}, attributes=values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"not a file of the catalogue: {error}", where=self.name) from None

    def _items(self, query: str, limit: int | None) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = 1000 if left is None else min(left, 1000)
            page = self.json("/files", q=query, cursor=cursor, limit=size)
            yield from page["items"]
            left = None if left is None else left - len(page["items"])
            if (cursor := page["cursor"]) is None:
                return

    def batches(
        self, query: str, columns: list[str] | None, limit: int | None, of_events: bool
    ) -> Iterator[pa.RecordBatch]:
        """Yield what matches as batches, as they arrive."""
        answer = self.request(
            "/events" if of_events else "/files",
            {"q": query, "columns": ",".join(columns or ()), "limit": limit, "format": "arrow"},
            stream=True,
        )
        try:
            with pa.ipc.open_stream(pa.PythonFile(_Body(answer), mode="r")) as reader:
                yield from reader
        except (urllib3.exceptions.HTTPError, pa.ArrowInvalid, OSError) as error:
            raise ServerError(
                f"the answer broke off: {reason_of(error)}", where=self.name, remedy="ask again"
            ) from error
        finally:
            answer.close()  # of a stream that nobody reads to its end the server hears so

    def count(self, query: str, by: str | None, of_events: bool) -> dict[Any, int]:
        """Count what matches."""
        answer = self.json("/events/count" if of_events else "/files/count", q=query, by=by)
        if by is None:
            return {None: int(answer["count"])}
        attribute = self.attributes(of_events).get(by)
        return {_typed(attribute, one["value"]): one["count"] for one in answer["counts"]}

    def explain(self, query: str, of_events: bool) -> str:
        """Return how a query would be answered."""
        if of_events:
            raise UsageError(
                "a server does not explain queries of events", remedy="ask on the machine of the catalogue"
            )
        return str(self.json("/files/explain", q=query)["plan"])

    def rows_read(self, query: str, limit: int | None) -> int | None:
        """Return about how many rows a search of files looks at; None if the server does not tell us."""
        try:
            rows = self.json("/files/explain", q=query, limit=limit).get("rows_read")
        except NotFoundError:  # that is for its owner and operators
            return None
        return rows if isinstance(rows, int) else None

    def entries(self, folder: str, cursor: str | None) -> EntryPage:
        """Return some entries of a folder."""
        page = self.json("/entries", folder=folder, cursor=cursor)
        return EntryPage([entry_of(item) for item in page["items"]], page["cursor"])

    def entry(self, path: str) -> Entry | None:
        """Return what the merged tree has under a path."""
        try:
            return entry_of(self.json("/entry", path=path or "/"))
        except NotFoundError:
            return None

    def conflicts(self, cursor: str | None) -> tuple[list[Conflict], str | None]:
        """Return some places at which sites hold different content."""
        page = self.json("/conflicts", cursor=cursor)
        return [Conflict(item["place"], item["entries"]) for item in page["items"]], page["cursor"]

    def changes(self, since: int, *, from_start: bool = False) -> Iterator[dict[str, Any]]:
        """Yield changes after a revision; `from_start`: the reader began at 0, less than 30 days ago."""
        flag = "true" if from_start or since == 0 else None
        while True:
            page = self.json("/changes", since=since, limit=1000, from_start=flag)
            yield from map(row_of, page["items"])
            if page["since"] == since:
                return
            since = page["since"]

    def follow(self, since: int) -> Iterator[dict[str, Any] | None]:
        """Yield changes as the server sends them."""
        return FollowedFeed(self, since).rows()

    def open(self, path: str) -> io.BufferedReader:
        """Open an entry as a stream."""
        return io.BufferedReader(RangeStream(RemoteRanges(self, path)), 2**18)

    def image(self, key: EventKey) -> EventImage:
        """Return the image of an event."""
        from apbatch.access.event_image import EventImage
        from apbatch.camera.geometry import camera_from_positions

        names = ("experiment", "run", "event", "telescope")
        answer = self.json("/events/display", **dict(zip(names, key, strict=True)))
        image = answer["image"]
        if image is None:
            raise NotFoundError(str(answer.get("reason")), where=" ".join(map(str, key)))
        numbers = {name: np.array(image[name] or [], np.float64) for name in ("x", "y", "values", "times")}
        camera = camera_from_positions(image["camera"], numbers["x"], numbers["y"], lattice=image["lattice"])
        times = numbers["times"].astype(np.float32) if image["times"] else None
        return EventImage(camera, numbers["values"].astype(np.float32), times)


class _Body:
    """An answer's body as Arrow reads it."""

    closed = False

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer

    def read(self, length: int = -1) -> bytes:
        """Return some bytes."""
        return self._answer.read(None if length < 0 else length)

    def close(self) -> None:
        """Close."""
        self.closed = True


def entry_of(item: dict[str, Any]) -> Entry:
    """Return an entry of the merged tree as a server wrote it."""
    state = item.pop("state", None)
    return Entry(**item, state=None if state is None else State(state))


def _typed(attribute: Attribute | None, value: Any) -> Any:
    if value is None or attribute is None:
        return value
    if attribute.type == "date":
        return date.fromisoformat(value)
    return datetime.fromisoformat(value) if attribute.type == "time" else value

"""The class that people and the command line use: a catalogue on this machine or behind a server, the same way."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from apbatch.client.results import Result
from apbatch.client.transport import EventKey, Transport, is_server
from apbatch.config import load_settings
from apbatch.errors import NotFoundError, nearest_word
from apbatch.formats.reader import Attribute
from apbatch.index.files import Conflict, Entry
from apbatch.index.parser import parse_search
from apbatch.index.query import Query, normalise, values_of, written

if TYPE_CHECKING:
    from apbatch.client.images import Image
    from apbatch.index.events.coincidences import Window

#: Rows from which looking at them takes a second or more, on any back-end.
SLOW_ROWS = 200_000
#: Attributes whose values are few, and names that people type.
_NAMING = ("experiment", "site", "format", "cleaning")


class Client:
    """A catalogue: files, the merged tree, events, images. `connect` makes one.

    Examples
    --------
    ::

        cat = ap.connect()
        cat.find("experiment = 'TAIGA'").pandas()
        cat.images("cleaning = 'tailcuts-14-7' and size > 500 pe", limit=1)[0].plot()
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __repr__(self) -> str:
        return f"<catalogue {self._transport.name}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release connections."""
        self._transport.close()

    def attributes(self, *, events: bool = False) -> dict[str, Attribute]:
        """Return what queries may name, of files or of events."""
        return self._transport.attributes(events)

    def find(self, query: str = "", columns: list[str] | None = None, limit: int | None = None) -> Result:
        """Return the files that match a query.

        Parameters
        ----------
        query : str
            Such as ``experiment = 'TAIGA' and zenith < 30 deg order by night desc``; empty: all.
        columns : list of str, optional
            By default the common attributes and those that the query names; ``["*"]``: all.
        limit : int, optional
        """
        return Result(
            lambda: self._transport.batches(query, columns, limit, False),
            query or "all files",
            lambda: self.slow_because(query, limit),
        )

    def slow_because(self, query: str = "", limit: int | None = None) -> str | None:
        """Return why a search of files will take a while to begin; None if it won't, or if nobody can tell.

        Parameters
        ----------
        query : str
        limit : int, optional
        """
        rows = self._transport.rows_read(query, limit)
        if rows is None or rows < SLOW_ROWS:
            return None
        number = f"{rows:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
        return f"up to {number} rows are looked at until its first files come; explain shows the plan"

    def nothing_because(self, query: str, *, events: bool = False) -> str | None:
        """Return why nothing matches: a name that nothing has, with the nearest one; None if no name is wrong.

        Parameters
        ----------
        query : str
            That gave nothing.
        events : bool
            Of events.
        """
        attributes = self.attributes(events=events)
        where = normalise(parse_search(query, attributes).where)
        for name in _NAMING:
            values = values_of(where, name) if name in attributes else None
            if values is None:
                continue
            there = self.count("", name, events=events)
            if not set(values) & set(there):
                nearest = nearest_word(str(values[0]), map(str, there))
                hint = f"; did you mean '{nearest}'?" if nearest else ""
                return f"no {'event' if events else 'file'} has the {name} '{values[0]}'{hint}"
        return None

    def records(self, query: str = "", limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the files that match, each with all its attributes and no others, page by page."""
        return self._transport.records(query, limit)

    def events(self, query: str = "", columns: list[str] | None = None, limit: int | None = None) -> Result:
        """Return the events that match a query, one row an event and cleaning.

        Parameters
        ----------
        query : str
            Such as ``cleaning = 'tailcuts-14-7' and size > 200 pe``.
        columns : list of str, optional
            Besides those of the key; by default all.
        limit : int, optional
        """
        return Result(lambda: self._transport.batches(query, columns, limit, True), query or "all events")

    def count(self, query: str = "", by: str | None = None, *, events: bool = False) -> Any:
        """Return the number of files that match, or a dict of numbers by the values of an attribute.

        Parameters
        ----------
        query : str
        by : str, optional
            Attribute.
        events : bool
            Count events.
        """
        counts = self._transport.count(query, by, events)
        return counts if by else counts.get(None, 0)

    def explain(self, query: str = "", *, events: bool = False) -> str:
        """Return how a query would be answered, and what that costs."""
        return self._transport.explain(query, events)

    def entry(self, path: str) -> Entry | None:
        """Return what the merged tree has under a path; None if nothing."""
        return self._transport.entry(path.rstrip("/"))

    def tree(self, path: str = "") -> Iterator[Entry]:
        """Yield the entries of a folder of the merged tree, page by page.

        Raises
        ------
        NotFoundError
            If there is no such folder.
        """
        folder = path.rstrip("/")
        page = self._transport.entries(folder, None)
        if folder and not page.entries:
            entry = self.entry(folder)
            if entry is None or entry.kind != "folder":
                raise NotFoundError("there is no such folder", where=path)
        while True:
            yield from page.entries
            if page.cursor is None:
                return
            page = self._transport.entries(folder, page.cursor)

    def walk(self, path: str = "") -> Iterator[str]:
        """Yield the paths of all files in a folder, at any depth."""
        folder = path.rstrip("/")
        for entry in self.tree(path):
            below = f"{folder}/{entry.name}"
            if entry.kind == "folder":
                yield from self.walk(below)
            else:
                yield below

    def conflicts(self) -> Iterator[Conflict]:
        """Yield the places at which sites hold different content, with the names of their files in the tree."""
        cursor: str | None = None
        while True:
            page, cursor = self._transport.conflicts(cursor)
            yield from page
            if cursor is None:
                return

    def coincidences(self, first: str, second: str, window: Window) -> Result:
        """Return the events of two experiments that are together in time and direction, by the time of the first.

        Parameters
        ----------
        first, second : str
            Names of experiments, or queries of events.
        window : apbatch.index.events.coincidences.Window
            What counts as together.

        Raises
        ------
        UsageError, ServerError
            When the result is looked at.
        """
        from apbatch.index.events import coincidences

        def pairs() -> Iterator[pa.RecordBatch]:
            yield pa.RecordBatch.from_pylist([], coincidences.SCHEMA)
            for batch in coincidences.coincidences(_Events(self._transport), first, second, window):
                yield batch.cast(coincidences.SCHEMA)

        return Result(pairs, f"{first} with {second}")

    def changes(self, since: int = 0) -> Iterator[dict[str, Any]]:
        """Yield what changed after a revision, the oldest change first."""
        return self._transport.changes(since)

    def follow(self, since: int = 0) -> Iterator[dict[str, Any] | None]:
        """Yield what changes after a revision as it happens, without end; None when there is no more for now.

        A server sends its changes itself (server-sent events); where a proxy between cuts that off, they are asked for.

        Parameters
        ----------
        since : int
            The last revision that is held; that of the last change goes on where a program ended.
        """
        return self._transport.follow(since)

    def open(self, path: str) -> io.BufferedReader:
        """Open a file of the merged tree for reading; blocks are fetched when they are read, and kept.

        Raises
        ------
        NotFoundError
            If there is no such file, or it may not be read.
        """
        return self._transport.open(path)

    def image(self, experiment: str, run: int, event: int, telescope: int, cleaning: str = "standard") -> Image:
        """Return the image of one event.

        Parameters
        ----------
        experiment : str
        run, event, telescope : int
        cleaning : str
            Name of a cleaning, such as ``standard`` or ``tailcuts-10-5``.

        Raises
        ------
        NotFoundError
            If there is none, or it may not be read.
        """
        from apbatch.client.images import Image  # needs numba, which searching does not

        key = (experiment, run, event, telescope)
        return Image(key, self._transport.image(key), cleaning)

    def images(self, query: str = "", cleaning: str = "standard", limit: int = 10) -> list[Image]:
        """Return images of the first events that match, each event once; those without an image are left out.

        Parameters
        ----------
        query : str
        cleaning : str
            Name of a cleaning.
        limit : int
            Images at most.
        """
        from apbatch.client.images import Image

        images: list[Image] = []
        keys: set[EventKey] = set()
        for row in self.events(query, ["experiment"]):
            key = (row["experiment"], row["run"], row["event"], row["telescope"])
            if key in keys:
                continue
            keys.add(key)
            try:
                images.append(Image(key, self._transport.image(key), cleaning))
            except NotFoundError:
                continue
            if len(images) >= limit:
                break
        return images


class _Events:
    """The events of a catalogue, as a search of coincidences asks for them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def attributes(self) -> Mapping[str, Attribute]:
        return self._transport.attributes(True)

    def select(self, where: Query, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return (batch for batch in self._transport.batches(written(where), [*columns], None, True) if batch.num_rows)


def connect(url: str | None = None, token: str | None = None) -> Client:
    """Return a catalogue: the one that the settings name, or one behind a server.

    Parameters
    ----------
    url : str, optional
        ``https://…`` of a server, or the URL of a catalogue on this machine; by default what the settings say.
    token : str, optional
        For a server; by default what ``$APBATCH_TOKEN`` holds.

    Raises
    ------
    UsageError, ServerError
    """
    if url is None or not is_server(url):
        settings = load_settings()
        if url is not None:
            settings = settings.model_copy(update={"catalogue": url})
        url = settings.catalogue
        if not is_server(url):
            from apbatch.client.local import LocalTransport

            return Client(LocalTransport(settings))
    from apbatch.client.remote import RemoteTransport

    return Client(RemoteTransport(url, token))

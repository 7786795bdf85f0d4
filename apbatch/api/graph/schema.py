"""The schema: files, events, sites and attributes as connections; every value comes through the asker's door."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Generic, NewType, TypeVar

import strawberry
from strawberry.scalars import JSON
from strawberry.schema.config import StrawberryConfig

from apbatch.access.described import columns_of, events_page
from apbatch.access.guard import Guard
from apbatch.api.graph.measure import FEW
from apbatch.api.graph.paging import Start, page_of_names
from apbatch.api.streams import plain
from apbatch.errors import NotFoundError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.events.columns import EVENT_KEYS
from apbatch.index.files import FileRecord
from apbatch.index.parser import parse_search

Node = TypeVar("Node")
Long = NewType("Long", int)
#: Columns of an event that have fields of their own.
_EVENT_FIELDS = (*EVENT_KEYS, "night", "time", "file")

Condition = Annotated[str, strawberry.argument(description="Of the query language; empty for everything.")]
Columns = Annotated[list[str] | None, strawberry.argument(description="Attributes beside the keys; all by default.")]
First = Annotated[int, strawberry.argument(description="Nodes of the page at most.")]
After = Annotated[str | None, strawberry.argument(description="The cursor of the page before.")]
OfEvents = Annotated[bool, strawberry.argument(description="Attributes of events instead of files.")]


class Context:
    """One request: whose door it goes through, and what was read on the way.

    Parameters
    ----------
    door : Guard
    has_events : bool

    Attributes
    ----------
    missed : bool
        Whether a path was asked for at which nothing is seen.
    """

    def __init__(self, door: Guard, has_events: bool) -> None:
        self.door, self._has_events, self.missed = door, has_events, False
        self._files: dict[str, FileNode | None] = {}

    def events_door(self) -> Guard:
        """Return the door, where there are events.

        Raises
        ------
        NotFoundError
        """
        if not self._has_events:
            raise NotFoundError("this service has no events")
        return self.door

    def file(self, path: str) -> FileNode | None:
        """Return the file with a key, if it may be seen."""
        if path not in self._files:
            record = self.door.get(path)
            self._files[path] = None if record is None else file_nodes([record])[0]
        return self._files[path]


def _context(info: strawberry.Info[Context, None]) -> Context:
    return info.context


@strawberry.type(description="Where a connection goes on.")
class PageInfo:
    """Where a connection goes on."""

    has_next_page: bool
    end_cursor: str | None = strawberry.field(description="Give it back as `after`; null on the last page.")

    @classmethod
    def of(cls, cursor: str | None) -> PageInfo:
        """Return where a page with this cursor goes on."""
        return cls(has_next_page=cursor is not None, end_cursor=cursor)


@strawberry.type(description="A verified copy of a file.")
class Replica:
    """A verified copy of a file."""

    kind: str
    checksum: str = strawberry.field(description="BLAKE3 of the bytes that were verified.")
    verified: datetime
    url: str | None = strawberry.field(description="Null where the file may be seen, but not read.")


@strawberry.type(name="File", description="A file at a site, as the asker may see it.")
class FileNode:
    """A file."""

    path: str = strawberry.field(description="Its key: /experiment/site/source.")
    place: str = strawberry.field(description="Its path in the merged tree.")
    site: str
    source: str
    size: Long = strawberry.field(description="Bytes.")
    format: str
    experiment: str
    state: str
    checksum: str = strawberry.field(description="BLAKE3; empty for a file that is listed, but not read.")
    adler32: str
    run: Long | None
    night: date | None
    time_start: datetime | None
    time_end: datetime | None
    telescope: Long | None
    cluster: Long | None
    events: Long | None = strawberry.field(description="How many events it holds.")
    revision: Long = strawberry.field(description="Grows with every change of any file.")
    attributes: JSON = strawberry.field(description="All other attributes by name, in their declared units.")
    record: strawberry.Private[FileRecord]
    page: strawberry.Private[_FilePage]

    @strawberry.field(description="Verified copies.")
    def replicas(self, info: strawberry.Info[Context, None]) -> list[Replica]:
        """Return verified copies; of all files of a page at once."""
        door = _context(info).door
        return [
            Replica(kind=one.kind, checksum=one.checksum, verified=one.verified, url=one.url or None)
            for one in self.page.replicas(door)[self.path]
        ]

    @strawberry.field(description="Events that were read from it and match a query.")
    def events_read(
        self,
        info: strawberry.Info[Context, None],
        query: Condition = "",
        columns: Columns = None,
        first: First = FEW,
        after: After = None,
    ) -> EventConnection | None:
        """Return a page of its events."""
        return _events(_context(info), query, columns, first, after, q.Compare("file", "=", self.path))


class _FilePage:
    """Files that were read together, so that what belongs to each is asked for once."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._replicas: dict[str, list[Any]] | None = None

    def replicas(self, door: Guard) -> dict[str, list[Any]]:
        """Return the copies of all of them."""
        if self._replicas is None:
            self._replicas = dict(door.replicas(self._paths))
        return self._replicas


def file_nodes(records: Sequence[FileRecord]) -> list[FileNode]:
    """Return files that were read together."""
    page = _FilePage([record.path for record in records])
    return [
        FileNode(
            path=one.path, place=one.place, site=one.site, source=one.source, size=Long(one.size), format=one.format,
            experiment=one.experiment, state=one.state.value, checksum=one.checksum, adler32=one.adler32,
            run=_long(one.run), night=one.night, time_start=one.time_start, time_end=one.time_end,
            telescope=_long(one.telescope), cluster=_long(one.cluster), events=_long(one.events),
            revision=Long(one.revision), attributes=JSON(plain(dict(one.attributes))), record=one, page=page,
        )
        for one in records
    ]  # fmt: skip


def _long(value: int | None) -> Long | None:
    return None if value is None else Long(value)


@strawberry.type(name="Event", description="An event as one cleaning measured it.")
class EventNode:
    """An event."""

    experiment: str
    run: Long
    event: Long
    telescope: int
    cleaning: str
    night: date | None
    time: datetime | None
    values: JSON = strawberry.field(description="Image parameters and other columns by name, in their declared units.")
    path: strawberry.Private[str | None]

    @strawberry.field(description="The file that it was read from; null if that may not be seen.")
    def file(self, info: strawberry.Info[Context, None]) -> FileNode | None:
        """Return its file."""
        return _context(info).file(self.path) if self.path else None


@strawberry.type(name="Attribute", description="What a query may name.")
class AttributeNode:
    """What a query may name."""

    name: str
    type: str
    unit: str | None
    description: str


@strawberry.type(description="A node, and where a page begins that follows it.")
class Edge(Generic[Node]):
    """A node, and where a page begins that follows it."""

    node: Node
    cursor: str = strawberry.field(description="Give it back as `after`.")


@strawberry.type
class _Connection(Generic[Node]):
    """Some nodes, and where the next ones are."""

    nodes: list[Node]
    page_info: PageInfo
    start: strawberry.Private[Start]

    @strawberry.field(description="The nodes, each with a cursor of its own.")
    def edges(self) -> list[Edge[Node]]:
        """Return the nodes with their cursors."""
        cursors = [self.start.after(number) for number in range(1, len(self.nodes) + 1)]
        if cursors and self.page_info.end_cursor is not None:
            cursors[-1] = self.page_info.end_cursor
        return [Edge(node=node, cursor=cursor) for node, cursor in zip(self.nodes, cursors, strict=True)]


@strawberry.type(description="Some files.")
class FileConnection(_Connection[FileNode]):
    """Some files."""

    search: strawberry.Private[q.Search]

    @strawberry.field(description="How many match in all; counted only if it is asked for.")
    def total_count(self, info: strawberry.Info[Context, None]) -> Long:
        """Return how many match in all."""
        return _total(_context(info).door.count(self.search.where), self.search)


@strawberry.type(description="Some events.")
class EventConnection(_Connection[EventNode]):
    """Some events."""

    search: strawberry.Private[q.Search]

    @strawberry.field(description="How many match in all; counted only if it is asked for.")
    def total_count(self, info: strawberry.Info[Context, None]) -> Long:
        """Return how many match in all."""
        return _total(_context(info).events_door().events_count(self.search.where), self.search)


def _total(counts: dict[Any, int], search: q.Search) -> Long:
    number = counts.get(None, 0)
    return Long(number if search.limit is None else min(number, search.limit))


@strawberry.type(name="Site", description="A site with files that may be seen.")
class SiteNode:
    """A site."""

    name: str
    file_count: Long

    @strawberry.field(description="Its files that match a query.")
    def files(
        self, info: strawberry.Info[Context, None], query: Condition = "", first: First = FEW, after: After = None
    ) -> FileConnection | None:
        """Return a page of its files."""
        return _files(_context(info), query, first, after, q.Compare("site", "=", self.name))


@strawberry.type(description="Some sites.")
class SiteConnection(_Connection[SiteNode]):
    """Some sites."""

    total_count: Long


@strawberry.type(description="Some attributes.")
class AttributeConnection(_Connection[AttributeNode]):
    """Some attributes."""

    total_count: Long


@strawberry.type
class Query:
    """Where a request begins."""

    @strawberry.field(description="Files that match a query of the query language.")
    def files(
        self, info: strawberry.Info[Context, None], query: Condition = "", first: First = FEW, after: After = None
    ) -> FileConnection | None:
        """Return a page of files."""
        return _files(_context(info), query, first, after)

    @strawberry.field(description="The files behind a path of the merged tree; none if it may not be seen.")
    def file(self, info: strawberry.Info[Context, None], path: str) -> list[FileNode] | None:
        """Return the sources of an entry."""
        context = _context(info)
        sources = context.door.sources(path)
        context.missed |= not sources
        return file_nodes(sources)

    @strawberry.field(description="Events that match a query of the query language.")
    def events(
        self,
        info: strawberry.Info[Context, None],
        query: Condition = "",
        columns: Columns = None,
        first: First = FEW,
        after: After = None,
    ) -> EventConnection | None:
        """Return a page of events."""
        return _events(_context(info), query, columns, first, after)

    @strawberry.field(description="Sites whose files may be seen.")
    def sites(
        self, info: strawberry.Info[Context, None], first: First = FEW, after: After = None
    ) -> SiteConnection | None:
        """Return a page of sites."""
        counts, start = _context(info).door.count(q.Everything(), "site"), Start.of(after)
        names, cursor = page_of_names(sorted(map(str, counts)), "sites", first, start)
        nodes = [SiteNode(name=name, file_count=Long(counts[name])) for name in names]
        return SiteConnection(nodes=nodes, page_info=PageInfo.of(cursor), start=start, total_count=Long(len(counts)))

    @strawberry.field(description="Attributes that a query may name.")
    def attributes(
        self, info: strawberry.Info[Context, None], of_events: OfEvents = False, first: First = FEW, after: After = None
    ) -> AttributeConnection | None:
        """Return a page of attributes."""
        context = _context(info)
        attributes = context.events_door().event_attributes() if of_events else context.door.attributes()
        start = Start.of(after)
        names, cursor = page_of_names(sorted(attributes), f"attributes {of_events}", first, start)
        nodes, number = [_attribute(attributes[name]) for name in names], Long(len(attributes))
        return AttributeConnection(nodes=nodes, page_info=PageInfo.of(cursor), start=start, total_count=number)


def _attribute(one: Attribute) -> AttributeNode:
    return AttributeNode(name=one.name, type=one.type, unit=one.unit, description=one.description)


def _files(
    context: Context, query: str, first: int, after: str | None, within: q.Query | None = None
) -> FileConnection:
    door = context.door
    search = _search(query, door.attributes(), within)
    start = Start.of(after)
    page = door.select_records(search, start.cursor, start.nodes_read(first))
    nodes = file_nodes(page.records[start.passed :])
    return FileConnection(nodes=nodes, page_info=PageInfo.of(page.cursor), start=start, search=search)


def _events(
    context: Context,
    query: str,
    columns: Iterable[str] | None,
    first: int,
    after: str | None,
    within: q.Query | None = None,
) -> EventConnection:
    door = context.events_door()
    attributes = door.event_attributes()
    search = _search(query, attributes, within)
    fields = None if columns is None else [*columns_of(list(columns), attributes, ()), "night", "time", "file"]
    start = Start.of(after)
    events, cursor = events_page(door, search, fields, start.nodes_read(first), start.cursor)
    nodes = [_event(row) for row in events.slice(start.passed).to_pylist()]
    return EventConnection(nodes=nodes, page_info=PageInfo.of(cursor), start=start, search=search)


def _search(query: str, attributes: dict[str, Attribute], within: q.Query | None) -> q.Search:
    search = parse_search(query, attributes)
    return search if within is None else q.Search(q.And((within, search.where)), search.order, search.limit)


def _event(row: dict[str, Any]) -> EventNode:
    values = {name: plain(value) for name, value in row.items() if name not in _EVENT_FIELDS}
    return EventNode(
        experiment=row["experiment"],
        run=Long(row["run"]),
        event=Long(row["event"]),
        telescope=row["telescope"],
        cleaning=row["cleaning"],
        night=row.get("night"),
        time=row.get("time"),
        values=JSON(values),
        path=row.get("file"),
    )


def _as_long(value: int) -> int:
    return int(value)


class _Schema(strawberry.Schema):
    def process_errors(self, errors: Any, execution_context: Any = None) -> None:
        """Log nothing: what fails inside is logged under its number, what a client did wrong is the client's to see."""


SCHEMA = _Schema(
    Query,
    config=StrawberryConfig(
        disable_field_suggestions=True,  # they take a time that grows with the number of wrong names
        scalar_map={
            Long: strawberry.scalar(
                name="Long", description="A whole number of up to 64 bits.", serialize=_as_long, parse_value=_as_long
            )
        },
    ),
)

"""The one door: whatever lists, searches, reads, exports or serves the merged tree for somebody asks here.

It has the methods of the catalogue and of the store of events that read, with the same meaning, over what the policy
lets somebody see. What may not be seen is answered as what is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from apbatch.access.policy import Policy
from apbatch.access.principals import Principal
from apbatch.errors import NotFoundError, UsageError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.catalogue import PAGE, Catalogue
from apbatch.index.changes import Change, ChangeKind
from apbatch.index.contents import Content
from apbatch.index.events.store import EventStore, Order
from apbatch.index.events.store import Page as EventPage
from apbatch.index.files import VISIBLE, Conflict, Entry, EntryPage, FileRecord, Replica
from apbatch.index.pages import Page, RecordPage, write_cursor
from apbatch.index.parser import parse_search

_OF_REPLICAS = (ChangeKind.REPLICA_ADDED, ChangeKind.REPLICA_REMOVED)
_OF_FILES = (ChangeKind.NEW, ChangeKind.CHANGED, ChangeKind.GONE, *_OF_REPLICAS)
#: Values of one condition.
_MANY = 500


class Guard:
    """What one principal may see and read of a catalogue and a store of events. Threads may share it.

    Parameters
    ----------
    catalogue : Catalogue
    events : EventStore, optional
    policy : Policy
    who : Principal
    scope : Query, optional
        Condition on files besides the policy, also for the owner: a part of the tree that is served alone. Events are
        then not served at all.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        events: EventStore | None,
        policy: Policy,
        who: Principal,
        scope: q.Query | None = None,
    ) -> None:
        self._catalogue, self.policy, self.who = catalogue, policy, who
        self._events = events if scope is None else None
        self._scope = None if scope is None else q.normalise(scope)

    # the merged tree

    def entries(self, folder: str, cursor: str | None = None, limit: int = PAGE) -> EntryPage:
        """Return some entries of a folder: files that are seen, and folders that hold any; see `Catalogue.entries`."""
        rule = self._rule()
        if rule is None:
            return self._catalogue.entries(folder, cursor, limit)
        return self._catalogue.entries_seen(folder, rule, cursor, limit)

    def entry(self, path: str) -> Entry | None:
        """Return what is seen under a path of the merged tree, or None; see `Catalogue.entry`."""
        entry = self._catalogue.entry(path)
        rule = self._rule()
        if rule is None or entry is None or not path.strip("/"):  # the root is there for everybody
            return entry
        if entry.kind == "folder":
            return entry if self._catalogue.holds(path, rule) else None
        sources = self.sources(path)
        if not sources:
            return None
        first = sources[0]
        return replace(entry, size=first.size, mtime_ns=first.mtime_ns, state=first.state, checksum=first.checksum)

    def sources(self, path: str) -> list[FileRecord]:
        """Return the files behind an entry that are seen, the one that queries see first; see `Catalogue.sources`."""
        return self._only_seen(self._catalogue.sources(path), self._rule())

    def conflicts(self, cursor: str | None = None, limit: int = PAGE) -> tuple[list[Conflict], str | None]:
        """Return some places at which a file that is seen has a name of its own; pages are full.

        Whoever sees only one of the files finds it here if its name in the tree tells of the conflict anyway.
        """
        rule = self._rule()
        if rule is None:
            return self._catalogue.conflicts(cursor, limit)
        visible: list[Conflict] = []
        following = cursor
        while len(visible) <= limit:
            conflicts, following = self._catalogue.conflicts(following, limit)
            records = self._catalogue.get_many(path for one in conflicts for path in one.entries)
            paths = {record.path for record in self._only_seen(records.values(), rule)}
            for one in conflicts:
                entries = {path: name for path, name in one.entries.items() if path in paths}
                if any(name != one.place for name in entries.values()):
                    visible.append(replace(one, entries=entries))
            if following is None:
                return visible[:limit], write_cursor("conflicts", [visible[limit - 1].place]) if visible[
                    limit:
                ] else None
        return visible[:limit], write_cursor("conflicts", [visible[limit - 1].place])

    # files

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute that a query of files may name."""
        return self._catalogue.attributes()

    def get(self, path: str) -> FileRecord | None:
        """Return one file by its key, or None."""
        return self.get_many([path]).get(path)

    def get_many(self, paths: Iterable[str]) -> dict[str, FileRecord]:
        """Return files by path; those that are not seen are left out."""
        records = self._catalogue.get_many(paths)
        visible = {record.path for record in self._only_seen(records.values(), self._rule())}
        return {path: record for path, record in records.items() if path in visible}

    def select_records(self, search: q.Search, cursor: str | None = None, size: int = PAGE) -> RecordPage:
        """Return some files that match, as records; see `Catalogue.select_records`."""
        return self._catalogue.select_records(self._allowed(search), cursor, size)

    def select_batch(
        self, search: q.Search, columns: Sequence[str], cursor: str | None = None, size: int = 10_000
    ) -> Page:
        """Return some files that match, as a batch; see `Catalogue.select_batch`."""
        return self._catalogue.select_batch(self._allowed(search), columns, cursor, size)

    def select(self, search: q.Query | q.Search, limit: int | None = None) -> Iterator[FileRecord]:
        """Yield the files that match, page by page."""
        if not isinstance(search, q.Search):
            search = q.Search(search, limit=limit)
        yield from self._catalogue.select(self._allowed(search))

    def batches(
        self, search: q.Query | q.Search, columns: Sequence[str], size: int = 10_000
    ) -> Iterator[pa.RecordBatch]:
        """Yield the files that match as batches, page by page; see `Catalogue.batches`."""
        if not isinstance(search, q.Search):
            search = q.Search(search)
        yield from self._catalogue.batches(self._allowed(search), columns, size)

    def rows(self, query: str, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Yield attributes of the files that match a query, given as text."""
        for batch in self.batches(parse_search(query, self.attributes()), columns):
            yield from batch.to_pylist()

    def matching(self, query: str) -> Iterator[FileRecord]:
        """Yield the files that match a query, given as text."""
        return self.select(parse_search(query, self.attributes()))

    def count(self, query: q.Query, by: str | None = None) -> dict[Any, int]:
        """Count matching files, by the values of attribute `by`."""
        return self._catalogue.count(_within(query, self._rule()), by)

    def explain(self, search: q.Query | q.Search) -> str:
        """Return how the back-end would answer, for people; the plan shows the rule as well."""
        if not isinstance(search, q.Search):
            search = q.Search(search)
        return self._catalogue.explain(self._allowed(search))

    def rows_read(self, search: q.Search) -> int | None:
        """Estimate how many rows a search looks at, seen or not: for those who may know; see `Catalogue.rows_read`."""
        return self._catalogue.rows_read(self._allowed(search))

    # events

    def event_attributes(self) -> dict[str, Attribute]:
        """Return every attribute that a query of events may name."""
        return self._store().attributes()

    def events_batches(
        self,
        where: q.Query = q.Everything(),
        columns: Sequence[str] | None = None,
        *,
        order: Sequence[Order] = (),
        limit: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield events that match; see `EventStore.select`."""
        yield from self._store().select(self._of_events(where), columns, order=order, limit=limit)

    def events_page(
        self,
        where: q.Query = q.Everything(),
        columns: Sequence[str] | None = None,
        *,
        size: int = 1000,
        cursor: str | None = None,
        order: Sequence[Order] = (),
    ) -> EventPage:
        """Return some events that match; see `EventStore.page`."""
        return self._store().page(self._of_events(where), columns, size=size, cursor=cursor, order=order)

    def events_count(self, where: q.Query = q.Everything(), by: str | None = None) -> dict[Any, int]:
        """Count the events that match, by the values of attribute `by`."""
        return self._store().count(self._of_events(where), by)

    # the feed

    def revision(self) -> int:
        """Return the revision of the last change."""
        return self._catalogue.revision()

    def changes(self, since: int, limit: int = PAGE, *, from_start: bool = False) -> list[Change]:
        """Return the next changes that are seen; none only if there are no more; see `Catalogue.changes`.

        Of a file that was removed only its key is left: it is told to those for whom path and site decide. The URL of
        a replica is told to those who may read its file.
        What leaves somebody's sight, by its new attributes or a new policy, is not told: a follower looks again at what
        it holds when the policy changes.
        """
        while True:
            changes, last = self.changes_read(since, limit, from_start=from_start)
            if changes or last == since:
                return changes
            since = last

    def changes_read(self, since: int, limit: int = PAGE, *, from_start: bool = False) -> tuple[list[Change], int]:
        """Return those of the next changes that are seen, and the revision from which the next ones follow.

        It is that of the last change that was looked at, seen or not; `since` if there is none. For the parameters
        see `Catalogue.changes`.
        """
        changes = self._catalogue.changes(since, limit, from_start=from_start)
        if not changes:
            return [], since
        rule, data = self._rule(), self._scoped(self.policy.data(self.who))
        if rule is None and data is None:
            return changes, changes[-1].revision
        records = self._catalogue.get_many(change.key for change in changes if change.kind in _OF_REPLICAS)
        visible = []
        for change in changes:
            record = change.record or records.get(change.key)
            if _holds(rule, change, record):
                with_url = change.kind not in _OF_REPLICAS or _holds(data, change, record)
                visible.append(change if with_url else replace(change, detail=""))
        return visible, changes[-1].revision

    # copies and hashes

    def replicas(self, paths: Iterable[str]) -> dict[str, list[Replica]]:
        """Return the replicas of files that are seen, by path; every path that was asked for has a list.

        Those of a file whose bytes may not be read have no URL: it would name servers and folders.
        """
        keys = list(dict.fromkeys(paths))
        visible = self.get_many(keys)
        replicas = {**{path: [] for path in keys}, **self._catalogue.replicas(visible)}
        readable = {one.path for one in self._only_seen(visible.values(), self._scoped(self.policy.data(self.who)))}
        return {
            path: many if path in readable else [replace(one, url="") for one in many]
            for path, many in replicas.items()
        }

    def content(self, checksum: str) -> Content | None:
        """Return the hashes of a content of which some file is seen, by BLAKE3; None otherwise."""
        return self.contents([checksum]).get(checksum)

    def contents(self, checksums: Iterable[str]) -> dict[str, Content]:
        """Return the hashes of contents of which some file is seen, by BLAKE3; the others are left out."""
        keys = list(dict.fromkeys(checksums))
        if self._rule() is not None:
            visible = q.In("state", tuple(map(str, VISIBLE)))
            parts = (keys[start : start + _MANY] for start in range(0, len(keys), _MANY))
            conditions = (q.And((q.In("checksum", tuple(part)), visible)) for part in parts)
            in_sight = {
                row for one in conditions for batch in self.batches(one, ["checksum"]) for row in batch[0].to_pylist()
            }
            keys = [checksum for checksum in keys if checksum in in_sight]
        return self._catalogue.contents(keys)

    # data

    def data_rule(self) -> q.Query | None:
        """Return the condition on files whose bytes may be read; None if all of them."""
        return self.policy.data(self.who)

    def may_read(self, record: FileRecord) -> bool:
        """Tell whether the bytes of a file may be read."""
        rule = self._scoped(self.policy.data(self.who))
        return rule is None or q.matches(rule, record.flat())

    def may_read_all(self, where: q.Query) -> bool:
        """Tell whether there are files that match, and the bytes of each of them may be read: of hidden ones as well.

        Parameters
        ----------
        where : Query
            Of the files that something was made from.
        """
        rule = self._scoped(self.policy.data(self.who))
        number = self._catalogue.count(where).get(None, 0)
        return number > 0 and (rule is None or self._catalogue.count(_within(where, rule)).get(None, 0) == number)

    def readable(self, path: str) -> list[FileRecord]:
        """Return the files behind an entry of the merged tree whose bytes may be read, in the order of `sources`.

        Raises
        ------
        NotFoundError
            If there is none; the same whether it is not there, not seen or not to be read.
        """
        rule = self._scoped(self.policy.data(self.who))
        sources = self._only_seen(self._catalogue.sources(path), rule)
        if not sources:
            raise NotFoundError("no such file, or it may not be read", where=path)
        return sources

    # rules

    def _rule(self) -> q.Query | None:
        """Return the normalised condition on what is seen; None if everything."""
        return self._scoped(self.policy.metadata(self.who))

    def _scoped(self, rule: q.Query | None) -> q.Query | None:
        """Return a normalised condition of the policy within the scope; None if neither leaves anything out."""
        if rule is None:
            return self._scope
        rule = q.normalise(rule)
        return rule if self._scope is None else q.And((self._scope, rule))

    def _allowed(self, search: q.Search) -> q.Search:
        return replace(search, where=_within(search.where, self._rule()))

    def _of_events(self, where: q.Query) -> q.Query:
        rule = self.policy.events(self.who)
        return where if rule is None else q.And((where, rule))

    def _store(self) -> EventStore:
        if self._events is None:
            raise UsageError("there is no store of events here", remedy="name one by 'events:' in the settings")
        return self._events

    def _only_seen(self, records: Iterable[FileRecord], rule: q.Query | None) -> list[FileRecord]:
        holds = None if rule is None else q.predicate(rule)
        return [record for record in records if holds is None or holds(record.flat())]


def _within(query: q.Query, rule: q.Query | None) -> q.Query:
    return query if rule is None else q.Allowed(query, rule)


def _holds(rule: q.Query | None, change: Change, record: FileRecord | None) -> bool:
    """Tell whether a normalised condition lets somebody know of a change."""
    if rule is None or change.kind is ChangeKind.POLICY:
        return True
    if change.kind is ChangeKind.SITE:
        return False  # that a site is there is shown by the files of it that are seen
    if record is not None:
        return q.matches(rule, record.flat())
    return change.kind in _OF_FILES and q.matches(_by_path(rule), _values_of(change.key))


def _by_path(rule: q.Query) -> q.Query:
    """Return what is left of a normalised condition where only path and site are known: the rest never holds."""
    match rule:
        case q.And(parts):
            return q.And(tuple(map(_by_path, parts)))
        case q.Or(parts):
            return q.Or(tuple(map(_by_path, parts)))
        case q.Everything() | q.Not(q.Everything()):
            return rule
        case _:
            return rule if q.names(rule) <= {"path", "site"} else q.NOTHING


def _values_of(path: str) -> dict[str, str]:
    """Return what the key of a file, ``/experiment/site/source``, says of it."""
    parts = path.split("/", 3)
    return {"path": path, "site": parts[2] if len(parts) == 4 else ""}

"""The catalogue: one interface, several back-ends, one contract suite (`tests/contract`); see ``docs/catalogue.md``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.attributes import COMMON, known_attribute
from apbatch.index.changes import Change
from apbatch.index.contents import Content
from apbatch.index.descriptions import Description, DescriptionKind
from apbatch.index.digests import ListingDigest
from apbatch.index.files import Conflict, Entry, EntryPage, FileRecord, Replica, UpsertReport
from apbatch.index.leases import Lease
from apbatch.index.narrowing import narrowed
from apbatch.index.pages import Page, RecordPage, Stretch, folder_page, identity, read_cursor, to_batch, write_cursor
from apbatch.index.places import folder_of
from apbatch.index.query import NOTHING, Query, Search, normalise, written
from apbatch.index.records import is_text

#: Columns of `Catalogue.listing`: what a rescan compares.
LISTING = ("path", "source", "size", "mtime_ns", "state", "format", "checksum")
#: Rows of a page unless the caller says otherwise.
PAGE = 1000
#: What to do where a server of a catalogue does not answer.
LOST_SERVER = "is it up? Its log says why it ended, for which a full disk is reason enough"


def _own_tools() -> UsageError:
    return UsageError(
        "this back-end is backed up by its own tools (nodetool snapshot)",
        remedy="apbatch index export copies any catalogue",
    )


class Catalogue(ABC):
    """Files of all sites, the merged tree, copies, hashes, the feed of changes, leases, descriptions.

    Writes are idempotent (upsert by key) and whole: a killed writer leaves a record old or new, never half. Nothing
    that is asked by pages is held whole, neither here nor at the server. All texts sort by their bytes in UTF-8.
    """

    # attributes

    @abstractmethod
    def declare(self, attributes: Iterable[Attribute]) -> None:
        """Make attributes known for typing and units.

        Raises
        ------
        UsageError
            If a name is declared already with another type or unit.
        """

    @abstractmethod
    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query may name, common ones included."""

    # files

    @abstractmethod
    def upsert(self, records: Iterable[FileRecord]) -> UpsertReport:
        """Insert or replace files by path, in transactions of some hundred; of one path given twice, the last counts.

        A record that can't be stored stops nothing: it is reported, and the caller must look at the report.
        """

    @abstractmethod
    def remove(self, paths: Iterable[str]) -> int:
        """Forget files, their replicas, and folders left empty; return how many files there were."""

    @abstractmethod
    def get_many(self, paths: Iterable[str]) -> dict[str, FileRecord]:
        """Return files by path; those that are not there are left out."""

    def get(self, path: str) -> FileRecord | None:
        """Return one file, or None."""
        return self.get_many([path]).get(path)

    def listing(
        self,
        site: str,
        below: str = "",
        *,
        columns: Sequence[str] = LISTING,
        since: str = "",
        until: str | None = None,
        cursor: str | None = None,
        size: int = 10_000,
    ) -> Page:
        """Return some files of a site, in any state, ordered by the bytes of `source`.

        A walk that sorts the names of each folder, a folder's with a ``/`` at its end, meets the files in the same
        order: the two are compared side by side in constant memory.

        Parameters
        ----------
        site : str
        below : str
            Folder of the site; only files in it, at any depth. Empty: the whole site.
        columns : sequence of str
            Common attributes to return.
        since, until : str, optional
            Only files whose source is not before the first, and before the second.
        cursor : str, optional
            Of the page before.
        size : int
            Rows of a page.
        """
        names = [known_attribute(name, COMMON).name for name in columns]
        below = below.strip("/")
        question = identity("listing", site, below, since, until)
        after = None if cursor is None else read_cursor(cursor, question, ("string", "string")).after
        rows: Sequence[Sequence[Any]] = []
        if all(map(is_text, (site, below, since, until or ""))):
            rows = self._listed(Stretch(site, below, since, until, after), names, size + 1)
        following = write_cursor(question, rows[size - 1][-2:]) if len(rows) > size else None
        return Page(to_batch(rows[:size], names, COMMON), following)

    @abstractmethod
    def _listed(self, stretch: Stretch, names: Sequence[str], limit: int) -> Sequence[Sequence[Any]]:
        """Return the first files of a stretch: the named common attributes, then source and path.

        Parameters
        ----------
        stretch : Stretch
        names : sequence of str
        limit : int
            Files at most.
        """

    def digests(self, site: str, below: str = "") -> Iterator[ListingDigest]:
        """Yield stretches of a site's listing in its order, which together are all of it, each with its digest if kept.

        Parameters
        ----------
        site : str
        below : str
            Folder of the site; only files in it, at any depth. Empty: the whole site.
        """
        below = below.strip("/")
        yield ListingDigest(f"{below}/", f"{below}0") if below else ListingDigest()

    def of_site(self, site: str) -> Iterator[FileRecord]:
        """Yield every file of a site, in any state, by source."""
        cursor: str | None = None
        while True:
            page = self.listing(site, columns=("path",), cursor=cursor, size=PAGE)
            records = self.get_many(page.batch.column("path").to_pylist())
            yield from (records[path] for path in page.batch.column("path").to_pylist() if path in records)
            if (cursor := page.cursor) is None:
                return

    # the merged tree

    def entries(self, folder: str, cursor: str | None = None, limit: int = PAGE) -> EntryPage:
        """Return some entries of a folder of the merged tree, ordered by the bytes of their names.

        Files that are registered or listed, and folders that hold any file; an unknown folder has no entries.

        Parameters
        ----------
        folder : str
            Path in the merged tree; empty for the root.
        cursor : str, optional
            Of the page before.
        limit : int
            Entries at most.
        """
        folder = folder_of(folder)
        first = partial(self._entries, folder) if is_text(folder) else _no_entries
        return folder_page(identity("entries", folder), cursor, limit, first)

    @abstractmethod
    def _entries(self, folder: str, after: str, limit: int) -> list[Entry]:
        """Return the first entries of a folder, by name: as many as there are, or `limit` and perhaps more.

        Parameters
        ----------
        folder : str
            As `folder_of` returns it.
        after : str
            Name that they come after.
        limit : int
        """

    @abstractmethod
    def entry(self, path: str) -> Entry | None:
        """Return what the merged tree has under a path, or None; the root is a folder named with the empty text."""

    def entries_seen(self, folder: str, rule: Query, cursor: str | None = None, limit: int = PAGE) -> EntryPage:
        """Return what `entries` would if there were only the files that match a rule.

        A folder shows if it holds any, at any depth; a file shows as the first of its sources that matches. Names stay
        as they are: that one ends in ``@SITE`` says that another content lies there, seen or not.

        Parameters
        ----------
        folder : str
        rule : Query
        cursor : str, optional
            Of the page before, of the same folder and rule.
        limit : int
        """
        folder = folder_of(folder)
        left = narrowed(normalise(rule), folder)
        first = _no_entries if left == NOTHING or not is_text(folder) else partial(self._entries_seen, folder, left)
        return folder_page(identity("entries seen", folder, written(rule)), cursor, limit, first)

    @abstractmethod
    def _entries_seen(self, folder: str, rule: Query, after: str, limit: int) -> list[Entry]:
        """Return the first entries of a folder that are seen, as `_entries` does.

        Parameters
        ----------
        folder : str
        rule : Query
            Normalised, and narrowed to the folder.
        after : str
        limit : int
        """

    @abstractmethod
    def holds(self, folder: str, rule: Query) -> bool:
        """Tell whether any file below a folder of the merged tree is registered or listed, and matches a rule."""

    @abstractmethod
    def sources(self, path: str) -> list[FileRecord]:
        """Return the files behind an entry of the merged tree, all of one content, the one that queries see first."""

    @abstractmethod
    def conflicts(self, cursor: str | None = None, limit: int = PAGE) -> tuple[list[Conflict], str | None]:
        """Return some places at which sites hold different content, by place, and the cursor for the next ones."""

    # searching

    @abstractmethod
    def select_records(self, search: Search, cursor: str | None = None, size: int = PAGE) -> RecordPage:
        """Return some files that match, as records, in the order of `select_batch`.

        Parameters
        ----------
        search : Search
        cursor : str, optional
            Of the page before; it is good for the same search only.
        size : int
            Files at most.
        """

    @abstractmethod
    def select_batch(
        self, search: Search, columns: Sequence[str], cursor: str | None = None, size: int = 10_000
    ) -> Page:
        """Return some files that match, as a batch of the wanted attributes.

        A content that several sites hold at one place comes once: of the files that match, the first of its sources.
        Files that are not registered match only if the query names `state`. The order is that of the search, then
        by path; in an order a missing value comes first (last, if descending).

        Parameters
        ----------
        search : Search
        columns : sequence of str
            Attributes to return, common or declared.
        cursor : str, optional
            Of the page before, of the same search; opaque.
        size : int
            Rows of a page.

        Raises
        ------
        UsageError
            If an attribute is unknown, the cursor is of another search, or the back-end can't serve the query without
            reading every file; the message says why.
        """

    def select(self, search: Query | Search, limit: int | None = None) -> Iterator[FileRecord]:
        """Yield the files that match, page by page; see `select_batch`."""
        if not isinstance(search, Search):
            search = Search(search, limit=limit)
        cursor: str | None = None
        while True:
            page = self.select_records(search, cursor, PAGE)
            yield from page.records
            if (cursor := page.cursor) is None:
                return

    def batches(self, search: Query | Search, columns: Sequence[str], size: int = 10_000) -> Iterator[pa.RecordBatch]:
        """Yield the files that match as batches, page by page; at least one batch, which tells the types.

        Parameters
        ----------
        search : Query or Search
        columns : sequence of str
            Wanted attributes.
        size : int
            Rows of a batch at most.
        """
        if not isinstance(search, Search):
            search = Search(search)
        cursor: str | None = None
        while True:
            page = self.select_batch(search, columns, cursor, size)
            yield page.batch
            if (cursor := page.cursor) is None:
                return

    @abstractmethod
    def count(self, query: Query, by: str | None = None) -> dict[Any, int]:
        """Count matching files, by the values of attribute `by`; one entry under None without `by`.

        Contents are counted once, as `select_batch` returns them.
        """

    @abstractmethod
    def explain(self, search: Query | Search) -> str:
        """Return how the back-end would answer and what that costs, for people."""

    @abstractmethod
    def rows_read(self, search: Search) -> int | None:
        """Estimate from the plan how many rows are looked at until the first files come; None if it can't be told."""

    # the feed

    @abstractmethod
    def revision(self) -> int:
        """Return the revision of the last change."""

    @abstractmethod
    def changes(self, since: int, limit: int = PAGE, *, from_start: bool = False) -> list[Change]:
        """Return the next changes after revision `since`, in order; none only if there are no more.

        Of a file that changed several times, the last change comes. Every change becomes visible before those with a
        higher revision do, so that a follower who goes on from the last revision that it saw misses none.

        Parameters
        ----------
        since : int
            The last revision that the reader saw; 0 for one that begins.
        limit : int
            Changes at most.
        from_start : bool
            The reader began at 0, less than `KEEP_DAYS` days ago: it never saw what was removed before it began, so it
            may go on from a revision before the oldest removal that is remembered.

        Raises
        ------
        StaleReaderError
            If removals after `since` are no longer remembered and the reader did not begin at 0.
        """

    def all_changes(self, since: int) -> Iterator[Change]:
        """Yield the changes after revision `since`, page by page."""
        from_start = since == 0
        while page := self.changes(since, from_start=from_start):
            yield from page
            since = page[-1].revision

    # copies and hashes

    @abstractmethod
    def add_replicas(self, replicas: Iterable[Replica]) -> int:
        """Record (or renew) replicas by path and URL, but those of files that are not there; return how many."""

    @abstractmethod
    def replicas(self, paths: Iterable[str]) -> dict[str, list[Replica]]:
        """Return the replicas of files, by path, each list by URL; every path that was asked for has a list."""

    @abstractmethod
    def remove_replicas(self, replicas: Iterable[tuple[str, str]]) -> int:
        """Forget replicas by path and URL; return how many there were."""

    @abstractmethod
    def put_contents(self, contents: Iterable[Content]) -> None:
        """Keep hashes by content.

        Raises
        ------
        UsageError
            If digests don't fit the size.
        """

    @abstractmethod
    def contents(self, checksums: Iterable[str]) -> dict[str, Content]:
        """Return the hashes of contents by BLAKE3; those that are not there are left out."""

    @abstractmethod
    def has_contents(self, checksums: Iterable[str]) -> set[str]:
        """Return which contents have their hashes here."""

    # leases and descriptions

    @abstractmethod
    def acquire(self, name: str, holder: str, ttl_s: float) -> Lease:
        """Take a lease, if nobody holds it; time is told by the clock of the catalogue's server, never by a host's.

        Parameters
        ----------
        name : str
            Of what is done under the lease.
        holder : str
            Who asks, as `apbatch.index.leases.this_process` says it.
        ttl_s : float
            Seconds after which a silent holder loses it.

        Raises
        ------
        LeaseHeldError
            If another holds it; the message says who.
        """

    @abstractmethod
    def renew(self, lease: Lease) -> None:
        """Begin a lease's time anew.

        Raises
        ------
        LeaseLostError
            If it ended and somebody else took it.
        """

    @abstractmethod
    def release(self, lease: Lease) -> None:
        """Give a lease back; nothing happens if it ended already."""

    @abstractmethod
    def put_description(self, description: Description) -> None:
        """Insert or replace the description of a site, or a policy, by kind and name."""

    @abstractmethod
    def descriptions(self, kind: DescriptionKind) -> list[Description]:
        """Return all descriptions of a kind, by name."""

    @abstractmethod
    def remove_description(self, kind: DescriptionKind, name: str) -> None:
        """Forget a description; the files of a site stay."""

    # operations

    def damage(self) -> list[str]:
        """Return what the back-end finds damaged in its own files; a cluster of servers repairs its own."""
        return []

    def backup(self, path: Path) -> None:
        """Write an exact copy, revisions included, to a new file, while others go on; for this back-end alone.

        Raises
        ------
        UsageError
            If the file is there already, or this back-end has tools of its own.
        """
        raise _own_tools()

    def restore(self, path: Path) -> None:
        """Put a copy that `backup` wrote into an empty catalogue.

        Raises
        ------
        UsageError
            If the catalogue holds files, or this back-end has tools of its own.
        """
        raise _own_tools()

    @abstractmethod
    def close(self) -> None:
        """Release connections."""

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _no_entries(after: str, limit: int) -> list[Entry]:
    return []

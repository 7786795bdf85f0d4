"""Reading the merged tree: entries of folders, the files behind them, conflicts; and a site's own files."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice, takewhile
from operator import attrgetter, itemgetter
from typing import Any

from apbatch.index.cassandra.base import BATCH, CassandraBase, blocks, joined
from apbatch.index.cassandra.rows import split
from apbatch.index.cassandra.settling import SPREAD
from apbatch.index.catalogue import PAGE
from apbatch.index.files import STATES, Conflict, Entry, EntryTwin, FileRecord
from apbatch.index.pages import Stretch, read_cursor, write_cursor
from apbatch.index.records import is_text

_IN_LIST = {"path", "source", "size", "mtime_ns", "state", "format", "checksum", "site"}


class CassandraTree(CassandraBase):
    """The merged tree, and the lists of sites."""

    def _entries(self, folder: str, after: str, limit: int) -> list[Entry]:
        parent = folder or "/"
        folders = self._session.run("SELECT name FROM tree_directory WHERE parent = ? AND name > ?", parent, after)
        files = self._session.run("SELECT * FROM entry WHERE parent = ? AND name > ?", parent, after)
        first_files = (entry_of(next(rows)) for _, rows in groupby(files, key=itemgetter("name")))
        return first_entries(folders, first_files, limit)

    def entry(self, path: str) -> Entry | None:
        """Return what the merged tree has under a path; see `Catalogue.entry`."""
        path = "/" + path.strip("/")
        if path == "/":
            return Entry("", "folder")
        if not is_text(path):
            return None
        parent, name = split(path)
        rows = self._session.do("SELECT * FROM entry WHERE parent = ? AND name = ? LIMIT 1", parent, name)
        if rows:
            return entry_of(rows[0])
        return Entry(name, "folder") if self._folders_of_tree([path]) else None

    def sources(self, path: str) -> list[FileRecord]:
        """Return the files behind an entry; see `Catalogue.sources`."""
        path = "/" + path.strip("/")
        if not is_text(path):
            return []
        rows = self._session.do("SELECT path FROM entry WHERE parent = ? AND name = ?", *split(path))
        records = self.get_many(row["path"] for row in rows)
        return [records[row["path"]] for row in rows if row["path"] in records]

    def conflicts(self, cursor: str | None = None, limit: int = PAGE) -> tuple[list[Conflict], str | None]:
        """Return some places at which sites hold different content; see `Catalogue.conflicts`."""
        after = "" if cursor is None else read_cursor(cursor, "conflicts", ("string",)).after[0]
        cql = "SELECT place FROM conflict_place WHERE bucket = ? AND place > ?"
        lists = [self._session.run(cql, bucket, after) for bucket in range(SPREAD)]
        merged = heapq.merge(*(map(itemgetter("place"), rows) for rows in lists))
        places = list(islice(merged, limit + 1))
        holders = self._holders(places[:limit])
        paths = [path for many in holders.values() for path in many]
        rows = {row["path"]: row for row in self._look_up(paths, "path, site, place, tree_name")}
        conflicts = []
        for place in places[:limit]:
            records = [rows[path] for path in sorted(holders.get(place, ())) if path in rows]
            entries = {row["path"]: row["tree_name"] for row in records if row["tree_name"] and row["place"] == place}
            if any(name != place for name in entries.values()):
                conflicts.append(Conflict(place, entries))
        return conflicts, write_cursor("conflicts", [places[limit - 1]]) if len(places) > limit else None

    # one site's files

    def _listed(self, stretch: Stretch, names: Sequence[str], limit: int) -> list[list[Any]]:
        below, until = stretch.below, stretch.until
        after = (stretch.since, "") if stretch.after is None else (stretch.after[0], stretch.after[1])
        files = self._of_site(stretch.site, f"{below}/" if below else "", after)
        if until is not None:
            files = takewhile(lambda row: row["source"] < until, files)
        if set(names) - _IN_LIST:
            files = self._whole(files)
        return [[*(row[name] for name in names), row["source"], row["path"]] for row in islice(files, limit)]

    def _whole(self, files: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield all common attributes of files; those that were removed meanwhile are left out."""
        for part in blocks(files, BATCH):
            records = self.get_many(row["path"] for row in part)
            yield from (records[row["path"]].flat() for row in part if row["path"] in records)

    def _of_site(self, site: str, folder: str, after: tuple[str, str]) -> Iterator[dict[str, Any]]:
        """Yield what is listed of a site after a source and path, folder by folder: in the order of whole sources."""
        source = after[0]
        waiting = [(folder, self._of_folder(site, folder, source))]
        while waiting:
            folder, rows = waiting[-1]
            row = next(rows, None)
            if row is None:
                waiting.pop()
                continue
            whole = folder + row["name"]
            if row["path"] == "":
                if f"{whole}\U0010ffff" > source:
                    waiting.append((whole, self._of_folder(site, whole, source)))
            elif (whole, row["path"]) > after:
                yield {**row, "source": whole, "site": site}

    def _of_folder(self, site: str, folder: str, source: str) -> Iterator[dict[str, Any]]:
        """Return the rows of a site's folder, from the one on that leads to a source."""
        name = ""
        if source.startswith(folder):
            first, slash, _ = source[len(folder) :].partition("/")
            name = first + slash
        cql = (
            "SELECT name, path, size, mtime_ns, state, format, checksum FROM file_of_site "
            "WHERE site = ? AND folder = ? AND name >= ?"
        )
        return self._session.run(cql, site, folder, name)


def entry_of(row: dict[str, Any]) -> Entry:
    """Return the entry of a row of the table `entry`."""
    one = EntryTwin.__new__(EntryTwin)
    one.name, one.kind, one.size, one.mtime_ns = row["name"], "file", row["size"], row["mtime_ns"]
    one.state, one.checksum = STATES[row["state"]], row["checksum"] or ""
    one.conflict = joined(row["parent"], row["name"]) != row["place"]
    one.__class__ = Entry
    entry: Entry = one
    return entry


def first_entries(folders: Iterable[dict[str, Any]], files: Iterable[Entry], limit: int) -> list[Entry]:
    """Return the first folders and files of a folder, `limit` of each at most, by name.

    Until a new folder has displaced a file of its name, the folder shows.

    Parameters
    ----------
    folders : iterable of dict
        Rows with their names.
    files : iterable of Entry
    limit : int
    """
    entries = [Entry(row["name"], "folder") for row in islice(folders, limit)]
    names = {entry.name for entry in entries}
    entries += islice((entry for entry in files if entry.name not in names), limit)
    return sorted(entries, key=attrgetter("name"))

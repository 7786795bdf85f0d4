"""Reading the merged tree: entries of folders, the files behind them, conflicts; and a site's own files."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import groupby, islice, takewhile
from operator import itemgetter
from typing import Any

from apbatch.index.attributes import COMMON, known_attribute
from apbatch.index.cassandra.base import CassandraBase
from apbatch.index.cassandra.rows import split
from apbatch.index.cassandra.settling import SPREAD
from apbatch.index.catalogue import LISTING, PAGE
from apbatch.index.files import Conflict, Entry, EntryPage, FileRecord, State
from apbatch.index.pages import Page, identity, read_cursor, to_batch, write_cursor
from apbatch.index.records import is_text

_IN_LIST = {"path", "source", "size", "mtime_ns", "state", "format", "checksum", "site"}


class CassandraTree(CassandraBase):
    """The merged tree, and the lists of sites."""

    def entries(self, folder: str, cursor: str | None = None, limit: int = PAGE) -> EntryPage:
        """Return some entries of a folder; see `Catalogue.entries`."""
        folder = "/" + folder.strip("/")
        if not is_text(folder):
            return EntryPage([], None)
        question = identity("entries", folder)
        after = "" if cursor is None else read_cursor(cursor, question, ("string",)).after[0]
        folders = self._session.run("SELECT name FROM tree_directory WHERE parent = ? AND name > ?", folder, after)
        files = self._session.run("SELECT * FROM entry WHERE parent = ? AND name > ?", folder, after)
        first_files = (next(rows) for _, rows in groupby(files, key=lambda row: row["name"]))
        entries = [Entry(row["name"], "folder") for row in islice(folders, limit + 1)]
        names = {entry.name for entry in entries}
        # Until a new folder has displaced a file of its name, the folder shows.
        file_entries = (entry_of(row) for row in first_files if row["name"] not in names)
        entries = sorted([*entries, *islice(file_entries, limit + 1)], key=lambda entry: entry.name)
        if len(entries) <= limit:
            return EntryPage(entries, None)
        return EntryPage(entries[:limit], write_cursor(question, [entries[limit - 1].name]))

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
        """Return some files of a site by source; see `Catalogue.listing`."""
        names = [known_attribute(name, COMMON).name for name in columns]
        below = below.strip("/")
        question = identity("listing", site, below, since, until)
        after = (since, "") if cursor is None else read_cursor(cursor, question, ("string", "string")).after
        if not all(map(is_text, (site, below, since, until or ""))):
            return Page(to_batch([], names, COMMON), None)
        files = self._of_site(site, f"{below}/" if below else "", (after[0], after[1]))
        wanted_rows = files if until is None else takewhile(lambda row: row["source"] < until, files)
        rows = list(islice(wanted_rows, size + 1))
        more = len(rows) > size
        rows = rows[:size]
        following = write_cursor(question, [rows[-1]["source"], rows[-1]["path"]]) if more else None
        if set(names) - _IN_LIST:
            records = self.get_many(row["path"] for row in rows)
            rows = [records[row["path"]].flat() for row in rows if row["path"] in records]
        return Page(to_batch([[row[name] for name in names] for row in rows], names, COMMON), following)

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
    conflict = (row["parent"], row["name"]) != split(row["place"])
    return Entry(
        row["name"], "file", row["size"], row["mtime_ns"], State(row["state"]), row["checksum"] or "", conflict
    )

"""The merged tree as far as a condition lets it be seen: rows of a folder are tested as they come."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.cassandra.base import blocks, joined
from apbatch.index.cassandra.rows import columns_for, from_cells
from apbatch.index.cassandra.search import CassandraSearch
from apbatch.index.cassandra.tree import entry_of, first_entries
from apbatch.index.files import Entry
from apbatch.index.narrowing import narrowed
from apbatch.index.records import is_text

_NAMES_A_LOOK = 200


class CassandraSeen(CassandraSearch):
    """Entries under a condition."""

    def _entries_seen(self, folder: str, rule: q.Query, after: str, limit: int) -> list[Entry]:
        parent, declared = folder or "/", self.attributes()
        rows = self._session.run("SELECT name FROM tree_directory WHERE parent = ? AND name > ?", parent, after)
        folders = (row for row in rows if self._holds(joined(parent, row["name"]), rule, declared))
        return first_entries(folders, self._files_seen(parent, rule, after, declared), limit)

    def holds(self, folder: str, rule: q.Query) -> bool:
        """Tell whether a folder holds any file that matches; see `Catalogue.holds`."""
        folder = "/" + folder.strip("/")
        return is_text(folder) and self._holds(folder, q.normalise(rule), self.attributes())

    def _holds(self, folder: str, rule: q.Query, declared: dict[str, Attribute]) -> bool:
        """Look into a folder and all below it until a file matches: a folder that holds none is read whole."""
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            left = narrowed(rule, folder.rstrip("/"))
            if isinstance(left, q.Everything):
                return True
            if left == q.NOTHING:
                continue
            if next(self._files_seen(folder, left, "", declared), None) is not None:
                return True
            rows = self._session.run("SELECT name FROM tree_directory WHERE parent = ?", folder)
            waiting += [joined(folder, row["name"]) for row in rows]
        return False

    def _files_seen(self, folder: str, rule: q.Query, after: str, declared: dict[str, Attribute]) -> Iterator[Entry]:
        """Yield the files in a folder that are seen, each as the first of its sources that is."""
        rows = self._session.run("SELECT * FROM entry WHERE parent = ? AND name > ?", folder, after)
        columns = ", ".join(columns_for({"path"} | q.names(rule)))
        groups = ([*group] for _, group in groupby(rows, key=lambda row: row["name"]))
        for part in blocks(groups, _NAMES_A_LOOK):
            details = self._look_up((row["path"] for group in part for row in group), columns)
            visible = {row["path"] for row in details if q.matches(rule, from_cells(row, declared))}
            for group in part:
                first = next((row for row in group if row["path"] in visible), None)
                if first is not None:
                    yield entry_of(first)

"""The merged tree as far as a condition lets it be seen: one statement a page of files, one a folder in doubt."""

from __future__ import annotations

from operator import attrgetter

from apbatch.index import query as q
from apbatch.index.files import VISIBLE, Entry
from apbatch.index.narrowing import narrowed
from apbatch.index.places import folder_of
from apbatch.index.records import is_text
from apbatch.index.sql.conditions import Column, Condition, both, condition, where
from apbatch.index.sql.database import Row, Session
from apbatch.index.sql.listing import SqlListing
from apbatch.index.sql.search import SqlSearch
from apbatch.index.sql.tree import SqlTree, entries_of

_SHOWN = q.In("state", tuple(map(str, VISIBLE)))


class SqlSeen(SqlSearch, SqlListing, SqlTree):
    """Entries under a condition."""

    def _entries_seen(self, folder: str, rule: q.Query, after: str, limit: int) -> list[Entry]:
        start = len(folder) + 1
        after = f"{folder}/{after}"
        with self._db.read() as session:
            entries = [
                Entry(path[start:], "folder") for path in self._folders_seen(session, folder, rule, after, limit)
            ]
            entries += entries_of(self._files_seen(session, folder, rule, after, limit), start)
        return sorted(entries, key=attrgetter("name"))

    def holds(self, folder: str, rule: q.Query) -> bool:
        """Tell whether a folder holds any file that matches; see `Catalogue.holds`."""
        folder = folder_of(folder)
        if not is_text(folder):
            return False
        with self._db.read() as session:
            return self._holds(session, folder, narrowed(q.normalise(rule), folder))

    def _folders_seen(self, session: Session, folder: str, rule: q.Query, after: str, limit: int) -> list[str]:
        """Return the first folders in a folder that hold anything seen."""
        folders: list[str] = []
        while True:
            later, values = where(self._text("directory.path", ">", after))
            rows = session.rows(
                f"SELECT path FROM directory WHERE {self._is('parent')} AND {later} "
                f"ORDER BY {', '.join(self._keys(Column('path', 'string', True)))} LIMIT ?",
                [*self._bound(folder), *values, limit],
            )
            folders += [path for (path,) in rows if self._holds(session, path, narrowed(rule, path))]
            if len(rows) < limit or len(folders) >= limit:
                return folders[:limit]
            after = rows[-1][0]

    def _files_seen(self, session: Session, folder: str, rule: q.Query, after: str, limit: int) -> list[Row]:
        """Return the first files in a folder that are seen, each as the first of its sources that is."""
        rows: list[Row] = []
        place = both(self._text("f.parent", "=", folder), self._text("f.entry", ">", after))
        declarations, shared = self._standing(session)
        for branch in self._branches(declarations, q.Allowed(_SHOWN, rule), frozenset(), shared):
            sql, values = where(both(place, branch.condition))
            keys = ", ".join(self._keys(Column("f.entry", "string", True)))
            rows += session.rows(
                "SELECT f.entry, f.size, f.mtime_ns, f.state, f.checksum, f.place "
                f"FROM {branch.source} WHERE {sql} ORDER BY {keys} LIMIT {limit}",
                values,
            )
        return sorted(rows)[:limit]

    def _holds(self, session: Session, folder: str, rule: q.Query) -> bool:
        if isinstance(rule, q.Everything) or rule == q.NOTHING:
            return isinstance(rule, q.Everything)  # a folder is there only where it holds some file
        declarations = self._declared(session)
        below = both(self._text("f.parent", ">=", f"{folder}/"), self._text("f.parent", "<", f"{folder}0"))
        for place in (self._text("f.parent", "=", folder), below):
            for branch in self._branches(declarations, q.Allowed(_SHOWN, rule), frozenset(), None):
                sql, values = where(both(place, branch.condition))
                if session.rows(f"SELECT 1 FROM {branch.source} WHERE {sql} LIMIT 1", values):
                    return True
        return False

    def _text(self, column: str, operator: q.Operator, value: str) -> Condition:
        """Return the condition that a long text is, or comes before or after, a value, which its index serves."""
        return condition(q.Compare("path", operator, value), lambda _: Column(column, "string", True), self._db)

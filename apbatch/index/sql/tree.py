"""Reading the merged tree: entries of folders, the files behind them, conflicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from apbatch.index.catalogue import PAGE
from apbatch.index.files import STATES, Conflict, Entry, EntryTwin, FileRecord
from apbatch.index.pages import read_cursor, write_cursor
from apbatch.index.places import folder_of, parent_of
from apbatch.index.records import is_text
from apbatch.index.sql.base import SqlBase
from apbatch.index.sql.conditions import Column
from apbatch.index.sql.database import Row


class SqlTree(SqlBase):
    """The merged tree."""

    def _entries(self, folder: str, after: str, limit: int) -> list[Entry]:
        first = f"{folder}/{after}"  # no name is empty
        rows = self._first(folder, first, limit, self._db.narrow)
        if self._narrows and len(rows) >= limit:
            longest = max((row[0] for row in rows), key=len)
            if self._db.narrowed(longest) != longest:  # what the index holds does not tell which of them come first
                rows = self._first(folder, first, limit, self._in_order)
        start = len(folder) + 1
        files = [row for row in rows if row[3] is not None]
        entries = entries_of(files, start)
        if len(files) < len(rows):
            entries += [Entry(row[0][start:], "folder") for row in rows if row[3] is None]
        if self._narrows or len(files) < len(rows):
            entries.sort(key=attrgetter("name"))
        return entries

    def _first(self, folder: str, after: str, many: int, order: Callable[[str], str]) -> list[Row]:
        """Return the first folders and files of a folder: so many of each.

        Parameters
        ----------
        folder : str
        after : str
            The path that they come after.
        many : int
        order : callable
            Returns what they are sorted by, given the column of the name.
        """

        def later(column: str) -> str:
            narrow = self._db.narrow(column)
            return f"{column} > ?" if narrow == column else f"{narrow} >= ? AND {column} > ?"

        bound = [*self._bound(folder), *self._bound(after), many]
        integer, string = self._db.null("integer"), self._db.null("string")
        files = (
            f"SELECT entry, size, mtime_ns, state, checksum, place FROM file WHERE {self._is('parent')} "
            f"AND {later('entry')} AND copy = 0 ORDER BY {order('entry')} LIMIT ?"
        )
        folders = (
            f"SELECT path, {integer}, {integer}, {string}, {string}, {string} FROM directory "
            f"WHERE {self._is('parent')} AND {later('path')} ORDER BY {order('path')} LIMIT ?"
        )
        return self._db.ask_all([(files, bound), (folders, bound)])

    def _in_order(self, column: str) -> str:
        return ", ".join(self._keys(Column(column, "string", True)))

    def entry(self, path: str) -> Entry | None:
        """Return what the merged tree has under a path; see `Catalogue.entry`."""
        path = folder_of(path)
        if not path:
            return Entry("", "folder")
        if not is_text(path):
            return None
        start = len(parent_of(path)) + 1
        names = [*self._bound(parent_of(path)), *self._bound(path)]
        missing = f"{self._db.null('integer')}, {self._db.null('integer')}, " + ", ".join([self._db.null("string")] * 3)
        rows = self._db.ask(
            f"SELECT entry, size, mtime_ns, state, checksum, place FROM file WHERE {self._is('parent')} "
            f"AND {self._is('entry')} AND copy = 0 UNION ALL SELECT path, {missing} FROM directory "
            f"WHERE {self._is('path')}", [*names, *self._bound(path)],
        )  # fmt: skip
        files = [row for row in rows if row[3] is not None]
        if files:
            return entries_of(files, start)[0]
        return Entry(path[start:], "folder") if rows else None

    def sources(self, path: str) -> list[FileRecord]:
        """Return the files behind an entry; see `Catalogue.sources`."""
        path = folder_of(path)
        if not is_text(path):
            return []
        condition = f"WHERE {self._is('f.parent')} AND {self._is('f.entry')} ORDER BY f.copy"
        return self._whole("file f", condition, [*self._bound(parent_of(path)), *self._bound(path)])

    def conflicts(self, cursor: str | None = None, limit: int = PAGE) -> tuple[list[Conflict], str | None]:
        """Return some places at which sites hold different content; see `Catalogue.conflicts`."""
        after = "" if cursor is None else read_cursor(cursor, "conflicts", ("string",)).after[0]
        db = self._db
        narrow = db.narrow("place")
        order = "place" if narrow == "place" else f"{narrow}, place"
        later = "place > ?" if narrow == "place" else f"{narrow} >= ? AND place > ?"
        with db.read() as session:
            rows = session.rows(
                f"SELECT DISTINCT {order} FROM file WHERE (entry <> place OR copy > 0) AND entry <> place "
                f"AND {later} ORDER BY {order} LIMIT ?",
                [*self._bound(after), limit + 1],
            )
            places = [row[-1] for row in rows]
            by_place: dict[str, dict[str, str]] = {place: {} for place in places[:limit]}
            for place, path, entry in session.rows(
                f"SELECT f.place, f.path, f.entry FROM {db.texts} JOIN file f ON {db.same('f.place', 'item.value')} "
                "WHERE f.entry IS NOT NULL",
                [db.bound(places[:limit])],
            ):
                by_place[place][path] = entry
        conflicts = [Conflict(place, dict(sorted(entries.items()))) for place, entries in by_place.items()]
        return conflicts, write_cursor("conflicts", [places[limit - 1]]) if len(places) > limit else None


def entries_of(rows: Sequence[Row], start: int) -> list[Entry]:
    """Return the entries of files, from rows of entry, size, mtime_ns, state, checksum and place.

    Parameters
    ----------
    rows : sequence of tuple
    start : int
        Where the names begin.
    """
    entries: list[Entry] = []
    new = object.__new__
    for entry, size, mtime_ns, state, checksum, place in rows:
        one = new(EntryTwin)
        one.name, one.kind, one.size, one.mtime_ns = entry[start:], "file", size, mtime_ns
        one.state, one.checksum, one.conflict = STATES[state], checksum, entry != place
        one.__class__ = Entry
        entries.append(one)
    return entries

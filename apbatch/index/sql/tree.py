"""Reading the merged tree: entries of folders, the files behind them, conflicts."""

from __future__ import annotations

from operator import attrgetter

from apbatch.index.catalogue import PAGE
from apbatch.index.files import Conflict, Entry, EntryPage, FileRecord, stored_entry
from apbatch.index.pages import identity, read_cursor, write_cursor
from apbatch.index.places import parent_of
from apbatch.index.records import is_text
from apbatch.index.sql.base import STATES, SqlBase
from apbatch.index.sql.database import Row


class SqlTree(SqlBase):
    """The merged tree."""

    def entries(self, folder: str, cursor: str | None = None, limit: int = PAGE) -> EntryPage:
        """Return some entries of a folder; see `Catalogue.entries`."""
        folder = folder_of(folder)
        if not is_text(folder):
            return EntryPage([], None)
        question = identity("entries", folder)
        after = f"{folder}/"  # no name is empty
        if cursor is not None:
            after += read_cursor(cursor, question, ("string",)).after[0]
        db = self._db
        bound = [*self._bound(folder), *self._bound(after), limit + 1]

        def later(column: str) -> str:
            narrow = db.narrow(column)
            return f"{column} > ?" if narrow == column else f"{narrow} >= ? AND {column} > ?"

        def order(column: str) -> str:
            narrow = db.narrow(column)
            return column if narrow == column else f"{narrow}, {column}"

        integer, string = db.null("integer"), db.null("string")
        rows = db.ask(  # one statement: a transaction would cost two more answers of a server
            f"SELECT * FROM (SELECT path, {integer} AS size, {integer} AS mtime_ns, {string} AS state, "
            f"{string} AS checksum, {string} AS place FROM directory WHERE {self._is('parent')} AND {later('path')} "
            f"ORDER BY {order('path')} LIMIT ?) AS folders UNION ALL "
            f"SELECT * FROM (SELECT entry, size, mtime_ns, state, checksum, place FROM file "
            f"WHERE {self._is('parent')} AND {later('entry')} AND copy = 0 "
            f"ORDER BY {order('entry')} LIMIT ?) AS files", [*bound, *bound],
        )  # fmt: skip
        start = len(folder) + 1
        entries = [entry_of(row, start) if row[3] else Entry(row[0][start:], "folder") for row in rows]
        entries.sort(key=attrgetter("name"))
        if len(entries) <= limit:
            return EntryPage(entries, None)
        return EntryPage(entries[:limit], write_cursor(question, [entries[limit - 1].name]))

    def entry(self, path: str) -> Entry | None:
        """Return what the merged tree has under a path; see `Catalogue.entry`."""
        path = folder_of(path)
        if not path:
            return Entry("", "folder")
        if not is_text(path):
            return None
        start = len(parent_of(path)) + 1
        with self._db.read() as session:
            rows = session.rows(
                "SELECT entry, size, mtime_ns, state, checksum, place FROM file "
                f"WHERE {self._is('parent')} AND {self._is('entry')} AND copy = 0",
                [*self._bound(parent_of(path)), *self._bound(path)],
            )
            if rows:
                return entry_of(rows[0], start)
            if session.rows(f"SELECT 1 FROM directory WHERE {self._is('path')}", self._bound(path)):
                return Entry(path[start:], "folder")
        return None

    def sources(self, path: str) -> list[FileRecord]:
        """Return the files behind an entry; see `Catalogue.sources`."""
        path = folder_of(path)
        if not is_text(path):
            return []
        with self._db.read() as session:
            rows = session.rows(
                f"SELECT {self._columns}, {self._version} FROM file f WHERE {self._is('f.parent')} "
                f"AND {self._is('f.entry')} ORDER BY f.copy",
                [*self._bound(parent_of(path)), *self._bound(path)],
            )
            return self._records(session, rows)

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


def folder_of(path: str) -> str:
    """Return a path of the merged tree without a slash at its end; the root is the empty text."""
    path = path.strip("/")
    return f"/{path}" if path else ""


def entry_of(row: Row, start: int) -> Entry:
    """Return the entry of a row of entry, size, mtime_ns, state, checksum and place; its name begins at `start`."""
    entry, size, mtime_ns, state, checksum, place = row
    return stored_entry(entry[start:], "file", size, mtime_ns, STATES[state], checksum, entry != place)

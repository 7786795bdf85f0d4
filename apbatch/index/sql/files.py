"""Writing files: one short transaction a batch, in which the merged tree is settled too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import date
from operator import attrgetter
from typing import Any

from apbatch.errors import UsageError
from apbatch.formats.reader import Scalar
from apbatch.index.changes import ChangeKind
from apbatch.index.files import COMMON_FIELDS, VISIBLE, FileRecord, Refusal, State, UpsertReport
from apbatch.index.places import Holding, ancestors, parent_of, settle
from apbatch.index.records import admit, is_text
from apbatch.index.sql.base import BATCH, blocks
from apbatch.index.sql.database import ConnectionLostError, Session
from apbatch.index.sql.feed import SqlFeed
from apbatch.index.sql.schema import STAGED, side_table

_Admitted = tuple[FileRecord, dict[str, Scalar]]
_WRITTEN = STAGED[1:]
#: Columns of a file that an index holds; `revision` changes with every write.
_KEYED = ("parent", "entry", "place", "site", "source", "experiment", "night", "state", "run", "events", "format")
_UNKEYED = tuple(name for name in _WRITTEN if name not in (*_KEYED, "path"))
#: Whether a staged file has the keys that its row has.
_STAYS = " AND ".join(["f.copy = 0", *(f"f.{name} IS NOT DISTINCT FROM s.{name}" for name in _KEYED)])
_columns = attrgetter(*COMMON_FIELDS[1:-1])
_STATE, _NIGHT, _START, _END = (COMMON_FIELDS[1:-1].index(n) for n in ("state", "night", "time_start", "time_end"))


class SqlFiles(SqlFeed):
    """Upsert and removal of files."""

    def upsert(self, records: Iterable[FileRecord]) -> UpsertReport:
        """Insert or replace files by path; see `Catalogue.upsert`."""
        written = 0
        refusals: list[Refusal] = []
        declared = self.attributes()
        for block in blocks(records, BATCH):
            admitted, refused = admit(block, declared)
            refusals += refused
            try:
                self._write(admitted)
            except ConnectionLostError:
                self._write(admitted)  # written twice is written once
            except UsageError as error:  # a side table that can't be made: nothing of the block was written
                refusals += [Refusal(record, error.what) for record, attributes in admitted if attributes]
                admitted = [pair for pair in admitted if not pair[1]]
                self._write(admitted)
            written += len(admitted)
        return UpsertReport(written, tuple(refusals))

    def _write(self, admitted: Sequence[_Admitted]) -> None:
        if not admitted:
            return
        names: dict[str, set[str]] = {}
        for record, attributes in admitted:
            if attributes:
                names.setdefault(record.experiment, set()).update(attributes)
        declarations = self._provide(names)
        rows = [self._row(number, record) for number, (record, _) in enumerate(admitted, 1)]
        places = Counter(record.place for record, _ in admitted)
        folders = set(ancestors({parent_of(place) for place in places}))
        with self._db.write_staged(STAGED, rows) as session:
            old, moved, doubtful = self._meet(session, folders)
            doubtful.update(place for place, many in places.items() if many > 1 or place in folders)
            sources: dict[str, list[str]] = {}
            for record, _ in admitted:
                sources.setdefault(record.site, []).append(record.source)
            for _, _, _, site, source in old.values():
                sources.setdefault(site, []).append(source)
            self._drop_digests(session, sources)
            before = self._take(session, len(admitted))
            declarations = self._declared(session) if old else declarations
            if old:
                self._replace(session, before, old, moved)
            if len(old) < len(admitted):
                there = f"WHERE NOT EXISTS (SELECT 1 FROM file f WHERE {self._db.same('f.path', 's.path')})"
                session.run(
                    f"INSERT INTO file (id, copy, revision, {', '.join(_WRITTEN)}) "
                    f"SELECT s.n + {before}, 0, s.n + {before}, {', '.join(f's.{name}' for name in _WRITTEN)} "
                    f"FROM staged s {there if old else ''}"
                )
            values: dict[str, list[tuple[int, dict[str, Scalar]]]] = {}
            for number, (record, attributes) in enumerate(admitted, 1):
                if attributes:
                    id = old[record.path][0] if record.path in old else before + number
                    values.setdefault(record.experiment, []).append((id, attributes))
            for experiment, many in values.items():
                table = declarations.tables[experiment]
                plain = self._db.plain
                session.load(
                    side_table(table.number),
                    ["id", *table.names],
                    [
                        (id, *[plain(v) if isinstance(v, date) else v for v in map(row_values.get, table.names)])
                        for id, row_values in many
                    ],
                )
            self._enter(session, folders)
            if doubtful:
                self._settle_places(session, sorted(doubtful))

    def _meet(
        self, session: Session, folders: Collection[str]
    ) -> tuple[dict[str, tuple[Any, ...]], list[int], set[str]]:
        """Return what the staged rows meet, by one statement.

        Parameters
        ----------
        session : Session
        folders : collection of str
            Folders that they are in.

        Returns
        -------
        old : dict
            By path: id, place, experiment, site and source of files that are there already.
        moved : list of int
            Numbers of the staged rows of those whose keys change.
        doubtful : set of str
            Places that other files want too, that were settled before, or that are folders.
        """
        same = self._db.same
        old: dict[str, tuple[Any, ...]] = {}
        moved: list[int] = []
        doubtful: set[str] = set()
        for n, stays, path, place, id, settled, experiment, site, source in session.rows(
            f"SELECT s.n, CASE WHEN {_STAYS} THEN 1 ELSE 0 END, f.path, f.place, f.id, "
            "CASE WHEN f.copy > 0 OR f.entry <> f.place OR f.place <> s.place THEN 1 ELSE 0 END, f.experiment, f.site, "
            f"f.source FROM staged s JOIN file f ON {same('f.path', 's.path')} UNION ALL "
            f"SELECT 0, 0, '', f.place, 0, 1, '', '', '' FROM staged s JOIN file f ON {same('f.place', 's.place')} "
            "WHERE f.path <> s.path UNION ALL "
            f"SELECT 0, 0, '', d.path, 0, 1, '', '', '' FROM staged s JOIN directory d ON {same('d.path', 's.place')} "
            f"UNION ALL SELECT 0, 0, '', f.place, 0, 1, '', '', '' FROM {self._db.texts} "
            f"JOIN file f ON {same('f.place', 'item.value')}",
            [self._db.bound(list(folders))],
        ):
            if settled:
                doubtful.add(place)
            if path:
                old[path] = (id, place, experiment, site, source)
                if not stays:
                    moved.append(n)
        return old, moved, doubtful

    def _row(self, number: int, record: FileRecord) -> tuple[Any, ...]:
        values = list(_columns(record))
        plain = self._db.plain
        if record.night is not None:
            values[_NIGHT] = plain(record.night)
        if record.time_start is not None:
            values[_START] = plain(record.time_start)
        if record.time_end is not None:
            values[_END] = plain(record.time_end)
        state, place = record.state, record.place
        values[_STATE] = str(state)
        entry = place if state in VISIBLE else None
        return (number, record.path, place.rpartition("/")[0], entry, *values)

    def _replace(self, session: Session, before: int, old: dict[str, tuple[Any, ...]], moved: Sequence[int]) -> None:
        """Write the staged rows of files that are there already; their attributes are written anew.

        Of one that stays in its place the columns under an index are left alone, but for the revision: SQLite writes
        each index anew that a statement names, which is most of the work.
        """
        there = self._db.same("file.path", "s.path")
        of_moved = f"s.n IN (SELECT item.value FROM {self._db.numbers})"
        for names, which, copy in ((_UNKEYED, f"NOT {of_moved}", ""), (_WRITTEN[1:], of_moved, "copy = 0, ")):
            if len(moved) < len(old) if names is _UNKEYED else moved:
                changes = ", ".join(f"{name} = s.{name}" for name in names)
                session.run(
                    f"UPDATE file SET {copy}revision = {before} + s.n, {changes} FROM staged s "
                    f"WHERE {there} AND {which}",
                    [self._db.bound(moved)],
                )
        by_experiment: dict[str, list[int]] = {}
        for id, _, experiment, _, _ in old.values():
            by_experiment.setdefault(experiment, []).append(id)
        self._drop_attributes(session, by_experiment)

    def _drop_attributes(self, session: Session, by_experiment: dict[str, list[int]]) -> None:
        tables = self._declared(session).tables
        for experiment, ids in by_experiment.items():
            if experiment in tables:
                table = side_table(tables[experiment].number)
                session.run(
                    f"DELETE FROM {table} WHERE id IN (SELECT item.value FROM {self._db.numbers})",
                    [self._db.bound(ids)],
                )

    def remove(self, paths: Iterable[str]) -> int:
        """Forget files, their replicas, and folders left empty."""
        removed = 0
        for part in blocks(paths, BATCH):
            paths_here = [path for path in dict.fromkeys(part) if is_text(path)]
            with self._db.write() as session:
                removed += self._remove(session, paths_here)
        return removed

    def _remove(self, session: Session, paths: Sequence[str]) -> int:
        db = self._db
        rows = session.rows(
            f"SELECT f.id, f.path, f.place, f.parent, f.experiment, f.site, f.source FROM {db.texts} JOIN file f ON "
            f"{db.same('f.path', 'item.value')} ORDER BY f.id",
            [db.bound(paths)],
        )
        if not rows:
            return 0
        by_experiment: dict[str, list[int]] = {}
        sources: dict[str, list[str]] = {}
        for id, _, _, _, experiment, site, source in rows:
            by_experiment.setdefault(experiment, []).append(id)
            sources.setdefault(site, []).append(source)
        self._drop_digests(session, sources)
        self._drop_attributes(session, by_experiment)
        ids = [db.bound([row[0] for row in rows])]
        for table in ("replica", "file"):
            session.run(f"DELETE FROM {table} WHERE id IN (SELECT item.value FROM {db.numbers})", ids)
        self._note(session, ChangeKind.GONE, [(row[1], "") for row in rows])
        self._forget_removals(session)
        gone = self._leave(session, {row[3] for row in rows})
        self._settle(session, {row[2] for row in rows} | gone)
        return len(rows)

    # folders of the merged tree

    def _enter(self, session: Session, folders: Collection[str]) -> None:
        session.many(
            "INSERT INTO directory (path, parent) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(folder, parent_of(folder)) for folder in sorted(folders)],
        )

    def _leave(self, session: Session, folders: Iterable[str]) -> set[str]:
        """Remove folders that are empty now, and those above them; return which."""
        gone: set[str] = set()
        waiting = sorted(folders)
        while waiting:
            folder = waiting.pop()
            if not folder or folder in gone:
                continue
            bound = self._bound(folder)
            is_used = session.rows(
                f"SELECT 1 WHERE EXISTS (SELECT 1 FROM file WHERE {self._is('parent')}) "
                f"OR EXISTS (SELECT 1 FROM directory WHERE {self._is('parent')})",
                bound * 2,
            )
            if not is_used:
                session.run(f"DELETE FROM directory WHERE {self._is('path')}", bound)
                gone.add(folder)
                waiting.append(parent_of(folder))
        return gone

    # names in the merged tree

    def _settle(self, session: Session, places: Collection[str]) -> None:
        """Give the holdings of places their names, where more than one wants a place or a folder has the name."""
        db = self._db
        shared = session.rows(
            f"SELECT f.place FROM {db.texts} JOIN file f ON {db.same('f.place', 'item.value')} "
            "GROUP BY f.place HAVING COUNT(*) > 1 OR MAX(f.copy) > 0 "
            "OR SUM(CASE WHEN f.entry <> f.place THEN 1 ELSE 0 END) > 0",
            [db.bound(list(places))],
        )
        directories = session.rows(
            f"SELECT d.path FROM {db.texts} JOIN directory d ON {db.same('d.path', 'item.value')}",
            [db.bound(list(places))],
        )
        if doubtful := sorted({place for (place,) in (*shared, *directories)}):
            self._settle_places(session, doubtful)

    def _settle_all(self, session: Session) -> None:
        """Settle every place that several holdings share."""
        rows = session.rows("SELECT DISTINCT place FROM file WHERE entry <> place OR copy > 0")
        for part in blocks(sorted(place for (place,) in rows), BATCH):
            self._settle_places(session, part)

    def _settle_places(self, session: Session, places: Sequence[str]) -> None:
        db = self._db
        preferred = {
            name
            for (name,) in session.rows("SELECT name FROM description WHERE kind = 'site' AND preferred = ?", [True])
        }
        folders = {
            path
            for (path,) in session.rows(
                f"SELECT d.path FROM {db.texts} JOIN directory d ON {db.same('d.path', 'item.value')}",
                [db.bound(list(places))],
            )
        }
        holdings: dict[str, list[Holding]] = {}
        current: dict[str, tuple[int, str | None, int]] = {}
        for place, id, entry, copy, state, path, site, experiment, size, checksum in session.rows(
            "SELECT f.place, f.id, f.entry, f.copy, f.state, f.path, f.site, f.experiment, f.size, f.checksum "
            f"FROM {db.texts} JOIN file f ON {db.same('f.place', 'item.value')}",
            [db.bound(list(places))],
        ):
            holdings.setdefault(place, []).append(Holding(path, site, experiment, size, checksum, State(state)))
            current[path] = (id, entry, copy)
        changes = []
        for place, many in sorted(holdings.items()):
            for path, (name, number) in sorted(settle(place, many, preferred, place in folders).items()):
                if current[path][1:] != (name, number):
                    changes.append((name, number, current[path][0]))
        if changes:
            first = self._take(session, len(changes)) + 1
            session.many(
                "UPDATE file SET entry = ?, copy = ?, revision = ? WHERE id = ?",
                [(name, number, first + index, id) for index, (name, number, id) in enumerate(changes)],
            )

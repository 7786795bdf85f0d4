"""Writing files: a record by one logged batch to all its tables, then the merged tree is settled where it is in doubt.

A killed writer leaves a record old or new. Rows that an older version of it left under another night, run or place are
deleted in the same batch. Lists of partitions (folders, nights) are written before the rows that they lead to, so that
a killed writer leaves at most an empty partition. Two processes that write the same file at the same time are not kept
apart; an ingest holds a lease of its site.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from cassandra.query import UNSET_VALUE

from apbatch.formats.reader import Attribute
from apbatch.index.cassandra.base import BATCH, blocks
from apbatch.index.cassandra.batches import Write, insertion, write_whole
from apbatch.index.cassandra.counts import Night, note_changes
from apbatch.index.cassandra.rows import (
    attribute_names,
    column_type,
    night_partition,
    search_cells,
    split,
    to_cells,
)
from apbatch.index.cassandra.session import ALL
from apbatch.index.cassandra.settling import KEYS, CassandraSettling
from apbatch.index.changes import ChangeKind
from apbatch.index.files import VISIBLE, FileRecord, Refusal, UpsertReport
from apbatch.index.places import ancestors, parent_of
from apbatch.index.records import admit, is_text


class CassandraWriting(CassandraSettling):
    """Upsert and removal of files."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._entered: set[str] = set()
        self._last_held: dict[Night, str] = {}

    def upsert(self, records: Iterable[FileRecord]) -> UpsertReport:
        """Insert or replace files by path; see `Catalogue.upsert`."""
        declared = self.attributes()
        written = 0
        refusals: list[Refusal] = []
        for block in blocks(records, BATCH):
            admitted, refused = admit(block, declared)
            refusals += refused
            self._write([replace(record, attributes=attributes) for record, attributes in admitted], declared)
            written += len(admitted)
        return UpsertReport(written, tuple(refusals))

    def _write(self, records: Sequence[FileRecord], declared: dict[str, Attribute]) -> None:
        if not records:
            return
        old = self._old(record.path for record in records)
        if any(row["tree_number"] or row["tree_name"] not in (row["place"], None) for row in old.values()):
            with self._alone():  # or a name that another process gives meanwhile would stay beside ours
                self._write_block(records, declared, self._old(old))
        else:
            self._write_block(records, declared, old)

    def _old(self, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
        return {row["path"]: row for row in self._look_up(paths, KEYS)}

    def _write_block(
        self, records: Sequence[FileRecord], declared: dict[str, Attribute], old: dict[str, dict[str, Any]]
    ) -> None:
        self._enter_experiments(records)
        nights = {_night_of(record): None for record in records}
        left = {(row["experiment"], row["night"]) for row in old.values()}
        folders = set(ancestors({parent_of(record.place) for record in records}))
        enter_night = self._session.prepare("INSERT INTO night_of_experiment (experiment, night) VALUES (?, ?)")
        entering = [*((enter_night, night) for night in nights), *self._folders(records, folders)]
        self._session.write(entering)
        named = {record.path: _name_of(record, old.get(record.path)) for record in records}
        with self._revisions.block(len(records)) as first:
            self._session.write(note_changes(self._session, {*nights, *left}, first + len(records) - 1))
            write_whole(
                self._session,
                (
                    self._writes(record, first + number, old.get(record.path), declared, *named[record.path])
                    for number, record in enumerate(records)
                ),
            )
        self._session.write(entering)  # again, if another process has just found one empty and removed it
        places = {record.place for record in records} | {row["place"] for row in old.values() if row["place"]}
        self._settle(places, folders, named)
        self._leave_nights(left - nights.keys())

    def _enter_experiments(self, records: Sequence[FileRecord]) -> None:
        """Write down the experiments of records; each once a process, as they are never removed."""
        fresh = {record.experiment for record in records} - self._entered
        enter = self._session.prepare("INSERT INTO experiment (catalogue, experiment) VALUES (?, ?)")
        self._session.write([(enter, (ALL, experiment)) for experiment in sorted(fresh)])
        self._entered |= fresh

    def _leave_nights(self, nights: Iterable[Night]) -> None:
        """Take nights out of the list that files have left and that hold none now, such as those of unread files."""
        for night in sorted(nights):
            # The deletion counts as of before the look: a night that another process enters meanwhile stays.
            before = self._session.now_ms() * 1000
            if not self._holds_any(night):
                cql = "DELETE FROM night_of_experiment USING TIMESTAMP ? WHERE experiment = ? AND night = ?"
                self._session.do(cql, before, *night)

    def _holds_any(self, night: Night) -> bool:
        """Tell whether a night holds a file, beginning with the one seen last: before it may lie many removed ones."""
        last = self._last_held.pop(night, "")
        for test in ("path >= ?", "path < ?") if last else ("path >= ?",):
            cql = f"SELECT path FROM file_by_night WHERE experiment = ? AND night = ? AND {test} LIMIT 1"
            if rows := self._session.do(cql, *night, last):
                self._last_held[night] = rows[0]["path"]
                return True
        return False

    def _folders(self, records: Sequence[FileRecord], of_tree: Collection[str]) -> list[Write]:
        """Return the statements that write down the folders of records: of paths, of the merged tree, of sites."""
        of_paths = sorted(set(ancestors({parent_of(record.path) for record in records})))
        of_sites: set[tuple[str, str, str]] = set()
        for record in records:
            folder = parent_of(record.source)
            while folder and (key := (record.site, *_inside(folder, "/"))) not in of_sites:
                of_sites.add(key)
                folder = parent_of(folder)
        enter = self._session.prepare("INSERT INTO directory (parent, name) VALUES (?, ?)")
        enter_tree = self._session.prepare("INSERT INTO tree_directory (parent, name) VALUES (?, ?)")
        enter_site = self._session.prepare("INSERT INTO file_of_site (site, folder, name, path) VALUES (?, ?, ?, '')")
        return [
            *((enter, split(folder)) for folder in of_paths),
            *((enter_tree, split(folder)) for folder in sorted(of_tree)),
            *((enter_site, key) for key in sorted(of_sites)),
        ]

    def _writes(
        self,
        record: FileRecord,
        revision: int,
        old: dict[str, Any] | None,
        declared: dict[str, Attribute],
        tree_name: str | None,
        number: int,
    ) -> list[Write]:
        """Return what writes one record to all its tables; the one that ingest looks at comes last."""
        first = revision if old is None else old["first_revision"] or old["revision"]
        cells = {
            **to_cells(record),
            "revision": revision,
            "tree_name": tree_name,
            "tree_number": number,
            "first_revision": first,
        }
        row = dict(cells)
        search = search_cells(record.attributes, declared)
        if old is None:  # nothing to overwrite: an absent cell costs nothing, a null is a tombstone
            cells = {name: UNSET_VALUE if value is None or value == {} else value for name, value in cells.items()}
        else:
            gone = {name for name in attribute_names(old) if name in declared and column_type(declared[name])}
            search = {**dict.fromkeys(gone), **search}
        parent, name = split(record.path)

        def insert(table: str, values: dict[str, Any]) -> Write:
            return insertion(self._session, table, values)

        writes = [insert("file_by_night", {**cells, **search}), self._tell(revision, record.path)]
        if record.run is not None:
            keys = {"experiment": record.experiment, "run": record.run, "path": record.path}
            writes.append(insert("file_by_run", keys))
        place_parent, place_name = split(record.place)
        writes.append(insert("holding", {"parent": place_parent, "name": place_name, "path": record.path}))
        listed = {key: row[key] for key in ("site", "path", "size", "mtime_ns", "state", "format", "checksum")}
        folder, source_name = _inside(record.source)
        writes.append(insert("file_of_site", {**listed, "folder": folder, "name": source_name}))
        if tree_name is not None:
            writes.append(self._enter(row))
        writes.append(insert("file_by_directory", {**cells, "parent": parent, "name": name}))
        if old is not None:
            writes += self._remove_old(old, row)
        return writes

    def _remove_old(self, old: dict[str, Any], new: dict[str, Any] | None) -> list[Write]:
        """Return what deletes the rows of an older version of a record under other keys than the new one's, if any."""
        prepare, path, was = self._session.prepare, old["path"], old["experiment"]
        writes = [self._untell(old["revision"]), *self._drop_entry(old, new)]
        if new is None or (new["experiment"], new["night"]) != (was, old["night"]):
            cql = "DELETE FROM file_by_night WHERE experiment = ? AND night = ? AND path = ?"
            writes.append((prepare(cql), (was, old["night"], path)))
        if old["run"] is not None and (new is None or (new["experiment"], new["run"]) != (was, old["run"])):
            cql = "DELETE FROM file_by_run WHERE experiment = ? AND run = ? AND path = ?"
            writes.append((prepare(cql), (was, old["run"], path)))
        if old["place"] is not None and (new is None or new["place"] != old["place"]):
            cql = "DELETE FROM holding WHERE parent = ? AND name = ? AND path = ?"
            writes.append((prepare(cql), (*split(old["place"]), path)))
        if new is None or (new["site"], new["source"]) != (old["site"], old["source"]):
            cql = "DELETE FROM file_of_site WHERE site = ? AND folder = ? AND name = ? AND path = ?"
            writes.append((prepare(cql), (old["site"], *_inside(old["source"]), path)))
        return writes

    def remove(self, paths: Iterable[str]) -> int:
        """Forget files, their replicas, and folders left empty."""
        removed = 0
        for block in blocks(paths, BATCH):
            paths_here = [path for path in dict.fromkeys(block) if is_text(path)]
            with self._alone():  # or a name that another process gives meanwhile would stay
                old = self._old(paths_here)
                if old:
                    self._remove(old)
                removed += len(old)
        return removed

    def _remove(self, old: dict[str, dict[str, Any]]) -> None:
        prepare = self._session.prepare
        copies: dict[str, list[Write]] = {}
        for row in self._replica_rows(old):
            if row["revision"] is not None:
                copies.setdefault(row["path"], []).append(self._untell(row["revision"]))
        with self._revisions.block(len(old)) as first:
            self._date_removals(first + len(old) - 1)
            nights = {(row["experiment"], row["night"]) for row in old.values()}
            self._session.write(note_changes(self._session, nights, first + len(old) - 1))
            entries = self._tell_removals(first, [(path, ChangeKind.GONE, "") for path in old])
            groups = []
            for (path, row), tell in zip(old.items(), entries, strict=True):
                groups.append(
                    [
                        (prepare("DELETE FROM replica WHERE path = ?"), (path,)),
                        *copies.get(path, ()),
                        tell,
                        *self._remove_old(row, None),
                        (prepare("DELETE FROM file_by_directory WHERE parent = ? AND name = ?"), split(path)),
                    ]
                )
            write_whole(self._session, groups)
        places = {row["place"] for row in old.values() if row["place"]}
        self._leave({parent_of(path) for path in old}, "directory", "file_by_directory")
        gone = self._leave({parent_of(place) for place in places}, "tree_directory", "holding")
        self._settle(places | gone, (), {})
        self._leave_nights(nights)

    def _leave(self, folders: Iterable[str], directories: str, files: str) -> set[str]:
        """Remove folders that are empty now, and those above them; return which."""
        gone: set[str] = set()
        waiting = sorted(folders)
        while waiting:
            folder = waiting.pop()
            if not folder or folder in gone:
                continue
            # The deletion counts as of before the look: a folder that another process enters meanwhile stays.
            before = self._session.now_ms() * 1000
            is_used = any(
                self._session.do(f"SELECT name FROM {table} WHERE parent = ? LIMIT 1", folder)
                for table in (files, directories)
            )
            if not is_used:
                cql = f"DELETE FROM {directories} USING TIMESTAMP ? WHERE parent = ? AND name = ?"
                self._session.do(cql, before, *split(folder))
                gone.add(folder)
                waiting.append(parent_of(folder))
        return gone


def _name_of(record: FileRecord, old: dict[str, Any] | None) -> tuple[str | None, int]:
    """Return name and number of a record before it is settled: those that it has, else the plain name."""
    if record.state not in VISIBLE:
        return None, 0
    if old is not None and old["place"] == record.place and old["tree_name"] is not None:
        return old["tree_name"], old["tree_number"] or 0
    return record.place, 0


def _night_of(record: FileRecord) -> Night:
    return record.experiment, night_partition(record.night, record.path)


def _inside(source: str, end: str = "") -> tuple[str, str]:
    """Return folder and name of a path within a site; a folder's name is given a slash at its end."""
    folder, slash, name = source.rpartition("/")
    return folder + slash, name + end

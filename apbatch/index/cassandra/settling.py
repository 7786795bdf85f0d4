"""Names in the merged tree: holdings of one place get theirs, by one process at a time where several want it."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from zlib import crc32

from apbatch.errors import ServerError
from apbatch.index.cassandra.base import blocks
from apbatch.index.cassandra.batches import Write, insertion, write_whole
from apbatch.index.cassandra.counts import note_changes
from apbatch.index.cassandra.feed import CassandraFeed
from apbatch.index.cassandra.lock import Locks
from apbatch.index.cassandra.rows import split
from apbatch.index.files import State
from apbatch.index.leases import LeaseHeldError
from apbatch.index.places import Holding, settle

#: Partitions over which the lists of shared places are spread.
SPREAD = 16
#: What settling and removing need of a file's row.
KEYS = (
    "path, site, source, place, experiment, night, run, revision, first_revision, tree_name, tree_number, state, size, "
    "mtime_ns, checksum, numbers, integers, texts"
)
_LOCK = "names of the merged tree"
_LOCK_S, _PATIENCE_S = 60.0, 300.0
_PLACES_A_BLOCK = 200


def bucket_of(place: str) -> int:
    """Return the partition of the lists of shared places that a place is in."""
    return crc32(place.encode()) % SPREAD


class CassandraSettling(CassandraFeed):
    """Settles places; see `apbatch.index.places`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._turn = threading.local()

    def _settle(
        self, places: Collection[str], folders: Collection[str], named: Mapping[str, tuple[str | None, int]]
    ) -> None:
        """Give the holdings of places their names, where more than one wants a place or a folder has the name.

        Every writer looks after it has written: of two that write one place at once, the later one sees both files.

        Parameters
        ----------
        places : collection of str
            Places whose holdings changed.
        folders : collection of str
            Folders that may be new, whose names files may have.
        named : Mapping
            Name and number that were just written, by path.
        """
        holders = {}
        for part in blocks(sorted({*places, *folders}), _PLACES_A_BLOCK):
            holders.update(self._holders(part))
        directories = set()
        for part in blocks(sorted(holders), _PLACES_A_BLOCK):
            directories |= self._folders_of_tree(part)
        doubtful = [
            place
            for place, paths in sorted(holders.items())
            if len(paths) > 1 or place in directories or named.get(paths[0]) not in ((place, 0), (None, 0))
        ]
        if doubtful:
            self._settle_places(doubtful)

    def _settle_places(self, places: Sequence[str]) -> None:
        for part in blocks(places, _PLACES_A_BLOCK):
            with self._alone():
                self._settle_block(part)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time change names that are in doubt; a killed one's turn expires."""
        if getattr(self._turn, "is_ours", False):
            yield
            return
        locks = Locks(self._session)
        until = time.monotonic() + _PATIENCE_S
        holder = uuid.uuid4().hex
        while True:
            try:
                lease = locks.acquire(_LOCK, holder, _LOCK_S)
                break
            except LeaseHeldError:
                if time.monotonic() > until:
                    raise ServerError("others settle the merged tree without end", remedy="try again") from None
                time.sleep(random.uniform(0.01, 0.1))
        self._turn.is_ours = True
        try:
            yield
        finally:
            self._turn.is_ours = False
            locks.release(lease)

    def _settle_block(self, places: Sequence[str]) -> None:
        preferred = {
            row["name"]
            for row in self._session.run("SELECT name, preferred FROM description WHERE kind = ?", "site")
            if row["preferred"]
        }
        holders = self._holders(places)
        directories = self._folders_of_tree(places)
        rows = {row["path"]: row for row in self._look_up([p for many in holders.values() for p in many], KEYS)}
        renamed: list[tuple[dict[str, Any], str | None, int]] = []
        marks: list[Write] = []
        for place in places:
            many = [rows[p] for p in holders.get(place, ()) if p in rows and rows[p]["place"] == place]
            names = settle(place, map(_holding, many), preferred, place in directories)
            for row in sorted(many, key=lambda row: row["path"]):
                name, number = names[row["path"]]
                if (row["tree_name"], row["tree_number"] or 0) != (name, number):
                    renamed.append((row, name, number))
            marks += self._marks(place, [(row["tree_name"], row["tree_number"] or 0) for row in many], names.values())
        self._session.write(marks)
        if renamed:
            with self._revisions.block(len(renamed)) as first:
                nights = ((row["experiment"], row["night"]) for row, _, _ in renamed)
                self._session.write(note_changes(self._session, nights, first + len(renamed) - 1))
                write_whole(self._session, (self._rename(*one, first + n) for n, one in enumerate(renamed)))

    def _marks(
        self, place: str, old: Collection[tuple[str | None, int]], new: Collection[tuple[str | None, int]]
    ) -> list[Write]:
        """Return what enters a place into the lists of shared and of differing places, or takes it out."""
        marks: list[Write] = []
        for table, is_in in (("shared_place", _is_shared), ("conflict_place", _is_conflict)):
            if is_in(place, new):
                marks.append(insertion(self._session, table, {"bucket": bucket_of(place), "place": place}))
            elif is_in(place, old) or len(new) < 2:
                statement = self._session.prepare(f"DELETE FROM {table} WHERE bucket = ? AND place = ?")
                marks.append((statement, (bucket_of(place), place)))
        return marks

    def _rename(self, row: dict[str, Any], name: str | None, number: int, revision: int) -> list[Write]:
        """Return what gives a file another name."""
        prepare = self._session.prepare
        assignments = "SET tree_name = ?, tree_number = ?, revision = ?"
        values = (name, number, revision)
        renamed = {**row, "tree_name": name, "tree_number": number}
        writes: list[Write] = [
            (
                prepare(f"UPDATE file_by_night {assignments} WHERE experiment = ? AND night = ? AND path = ?"),
                (*values, row["experiment"], row["night"], row["path"]),
            ),
            (
                prepare(f"UPDATE file_by_directory {assignments} WHERE parent = ? AND name = ?"),
                (*values, *split(row["path"])),
            ),
            self._tell(revision, row["path"]),
            self._untell(row["revision"]),
            *self._drop_entry(row, renamed),
        ]
        return writes if name is None else [*writes, self._enter(renamed)]

    def _enter(self, row: Mapping[str, Any]) -> Write:
        """Return what shows a file in the merged tree under its name."""
        parent, name = split(row["tree_name"])
        cells = {key: row[key] for key in ("path", "place", "size", "mtime_ns", "state", "checksum")}
        return insertion(
            self._session, "entry", {**cells, "parent": parent, "name": name, "number": row["tree_number"]}
        )

    def _drop_entry(self, old: Mapping[str, Any], new: Mapping[str, Any] | None) -> list[Write]:
        """Return what takes a file's old name out of the merged tree, if it has another now."""
        if old["tree_name"] is None:
            return []
        if new is not None and (old["tree_name"], old["tree_number"]) == (new["tree_name"], new["tree_number"]):
            return []
        statement = self._session.prepare("DELETE FROM entry WHERE parent = ? AND name = ? AND number = ? AND path = ?")
        return [(statement, (*split(old["tree_name"]), old["tree_number"] or 0, old["path"]))]

    def _settle_all(self) -> None:
        """Settle every place that several holdings share."""
        for bucket in range(SPREAD):
            rows = self._session.run("SELECT place FROM shared_place WHERE bucket = ?", bucket)
            for part in blocks([row["place"] for row in rows], _PLACES_A_BLOCK):
                self._settle_places(part)


def _holding(row: Mapping[str, Any]) -> Holding:
    return Holding(row["path"], row["site"], row["experiment"], row["size"], row["checksum"], State(row["state"]))


def _is_conflict(place: str, names: Collection[tuple[str | None, int]]) -> bool:
    return any(name is not None and name != place for name, _ in names)


def _is_shared(place: str, names: Collection[tuple[str | None, int]]) -> bool:
    return _is_conflict(place, names) or any(number > 0 for _, number in names)

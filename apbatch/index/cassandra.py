"""The catalogue in Cassandra: tables for questions (`schema.cql`), plans from `plan`, what is left tested row by row.

A record is written by a logged batch to all its tables: a killed writer leaves it old or new. Rows that an older
version of the record left under another night or run are deleted in the same batch. Lists of partitions (folders,
nights) are written before the rows that they lead to, so that a killed writer leaves at most an empty partition.
Two processes that write the same file at the same time are not kept apart; an ingest locks its site.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from cassandra.query import UNSET_VALUE, BatchStatement, BatchType

from apbatch.formats.reader import Attribute
from apbatch.index import plan as p
from apbatch.index import query as q
from apbatch.index.attributes import COMMON, known_attribute, merge_declarations
from apbatch.index.cassandra_rows import (
    attribute_names,
    column_type,
    columns_for,
    from_cells,
    is_indexed,
    night_partition,
    search_cells,
    split,
    to_cells,
    to_record,
)
from apbatch.index.cassandra_session import ALL, CassandraSession
from apbatch.index.catalogue import PAGE, Catalogue
from apbatch.index.changes import Change, ChangeKind
from apbatch.index.files import VISIBLE, Entry, EntryPage, FileRecord, Refusal, Replica, State, UpsertReport
from apbatch.index.pages import identity, read_cursor, write_cursor
from apbatch.index.records import admit, from_plain, is_text, to_plain
from apbatch.index.revisions import BUCKET, Revisions

_RECORDS_A_BLOCK = 500
#: Each batch is noted in the cluster's log of batches first: some records share that cost.
_RECORDS_A_BATCH = 5
#: Cassandra refuses batches of 50 kB by default; this counts text alone.
_BATCH_BYTES = 20_000
_NAMES_A_READ = 50
_FILE = "SELECT {columns} FROM file_by_directory WHERE parent = ? AND name = ?"
#: A prepared statement and its values.
_Write = tuple[Any, Sequence[Any]]


class CassandraCatalogue(Catalogue):
    """A catalogue in one keyspace; see `CassandraSession` for the URL."""

    def __init__(self, url: str) -> None:
        self._session = CassandraSession(url)
        self._revisions = Revisions(self._session)
        self._entered: set[tuple[str, str]] = set()

    # attributes

    def declare(self, attributes: Iterable[Attribute]) -> None:
        """Make attributes known; each gets an indexed column in file_by_night before it can be named."""
        fresh = merge_declarations(self.attributes(), attributes).values()
        columns = [f'"{a.name}" {kind}' for a in fresh if (kind := column_type(a))]
        if columns:
            self._session.change_schema(f"ALTER TABLE file_by_night ADD IF NOT EXISTS ({', '.join(columns)})")
        for attribute in fresh:
            if is_indexed(attribute):
                self._session.change_schema(
                    f"CREATE INDEX IF NOT EXISTS file_attribute_{attribute.name} "
                    f"ON file_by_night (\"{attribute.name}\") USING 'sai'"
                )
        for a in fresh:
            self._session.do(
                "INSERT INTO attribute (catalogue, name, type, unit, description) VALUES (?, ?, ?, ?, ?)",
                ALL, a.name, a.type, a.unit, a.description,
            )  # fmt: skip

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query may name."""
        rows = self._session.run("SELECT * FROM attribute WHERE catalogue = ?", ALL)
        declared = {row["name"]: Attribute(row["name"], row["type"], row["description"], row["unit"]) for row in rows}
        return {**COMMON, **declared}

    # writing files

    def upsert(self, records: Iterable[FileRecord]) -> UpsertReport:
        """Insert or replace files by path; whole records in logged batches, some at the same time."""
        declared = self.attributes()
        iterator = iter(records)
        written = 0
        refusals: list[Refusal] = []
        while part := list(islice(iterator, _RECORDS_A_BLOCK)):
            admitted, refused = admit(part, declared)
            refusals += refused
            moved = [record for record, _ in admitted if record.place != record.path]
            refusals += [Refusal(record, "Cassandra can't hold places yet") for record in moved]
            unique = [replace(record, attributes=a) for record, a in admitted if record.place == record.path]
            old = self._old([record.path for record in unique])
            self._enter_partitions(unique)
            folders = self._folders(unique)
            self._session.write(folders)
            with self._revisions.block(len(unique)) as first:
                self._write_whole(
                    self._writes(record, first + number, old.get(record.path), declared)
                    for number, record in enumerate(unique)
                )
            self._session.write(folders)  # again, if another process has just found one empty and removed it
            written += len(unique)
        return UpsertReport(written, tuple(refusals))

    def _old(self, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
        columns = "path, experiment, night, run, revision, numbers, integers, texts"
        return {row["path"]: row for row in self._look_up(paths, columns)}

    def _enter_partitions(self, records: Sequence[FileRecord]) -> None:
        """Write down the experiments and nights of records; each once a process, as they are never removed."""
        wanted: dict[tuple[str, str], tuple[str, tuple[Any, ...]]] = {}
        for record in records:
            cql = "INSERT INTO experiment (catalogue, experiment) VALUES (?, ?)"
            wanted[record.experiment, ""] = (cql, (ALL, record.experiment))
            night = night_partition(record.night, record.path)
            cql = "INSERT INTO night_of_experiment (experiment, night) VALUES (?, ?)"
            wanted[record.experiment, night] = (cql, (record.experiment, night))
        fresh = {key: work for key, work in wanted.items() if key not in self._entered}
        self._session.write([(self._session.prepare(cql), values) for cql, values in fresh.values()])
        self._entered.update(fresh)

    def _folders(self, records: Sequence[FileRecord]) -> list[_Write]:
        """Return the statements that write down the folders of records."""
        folders: set[str] = set()
        sites: set[tuple[str, str]] = set()
        for record in records:
            folder = split(record.path)[0]
            sites.add((record.site, folder))
            while folder and folder != "/" and folder not in folders:
                folders.add(folder)
                folder = folder.rpartition("/")[0]
        enter = self._session.prepare("INSERT INTO directory (parent, name) VALUES (?, ?)")
        of_site = self._session.prepare("INSERT INTO directory_of_site (site, parent) VALUES (?, ?)")
        return [(enter, split(folder)) for folder in sorted(folders)] + [(of_site, key) for key in sorted(sites)]

    def _writes(
        self, record: FileRecord, revision: int, old: dict[str, Any] | None, declared: dict[str, Attribute]
    ) -> list[_Write]:
        """Return what writes one record to all its tables; the one that ingest looks at comes last."""
        cells = {**to_cells(record), "revision": revision}
        search = search_cells(record.attributes, declared)
        if old is None:  # nothing to overwrite: an absent cell costs nothing, a null is a tombstone
            cells = {name: UNSET_VALUE if value is None or value == {} else value for name, value in cells.items()}
        else:
            gone = {name for name in attribute_names(old) if name in declared and column_type(declared[name])}
            search = {**dict.fromkeys(gone), **search}
        parent, name = split(record.path)
        writes = [
            self._insert("file_by_night", {**cells, **search}),
            self._insert("change", {"bucket": revision // BUCKET, "revision": revision, "path": record.path}),
        ]
        if record.run is not None:
            keys = {"experiment": record.experiment, "run": record.run, "path": record.path}
            writes.append(self._insert("file_by_run", keys))
        writes.append(self._insert("file_by_directory", {**cells, "parent": parent, "name": name}))
        if old is not None:
            night = (record.experiment, cells["night"])
            writes += self._remove_old(old, night, (record.experiment, record.run))
        return writes

    def _write_whole(self, records: Iterable[list[_Write]]) -> None:
        """Write records, each in one logged batch with some others; one too large for a batch, row by row."""
        batches: list[list[_Write]] = []
        room = 0
        for writes in records:
            size = sum(map(_size, writes))
            if size > _BATCH_BYTES:
                for write in writes:
                    self._session.write([write])
                continue
            if not batches or size > room:
                batches.append([])
                room = _BATCH_BYTES
            batches[-1] += writes
            room -= max(size, _BATCH_BYTES // _RECORDS_A_BATCH)
        work: list[_Write] = []
        for writes in batches:
            batch = BatchStatement(BatchType.LOGGED)
            for statement, values in writes:
                batch.add(statement, values)
            work.append((batch, ()))
        self._session.write(work)

    def _insert(self, table: str, row: dict[str, Any]) -> _Write:
        names = sorted(row)
        quoted = ", ".join(f'"{name}"' for name in names)
        marks = ", ".join("?" * len(names))
        return self._session.prepare(f"INSERT INTO {table} ({quoted}) VALUES ({marks})"), [row[name] for name in names]

    def _remove_old(
        self, old: dict[str, Any], night: tuple[str, str] | None, run: tuple[str, Any] | None
    ) -> list[_Write]:
        """Return what deletes the rows of an older version of a record under other keys than the new one's, if any."""
        prepare, path, was = self._session.prepare, old["path"], old["experiment"]
        cql = "DELETE FROM change WHERE bucket = ? AND revision = ?"
        writes: list[_Write] = [(prepare(cql), (old["revision"] // BUCKET, old["revision"]))]
        if night != (was, old["night"]):
            cql = "DELETE FROM file_by_night WHERE experiment = ? AND night = ? AND path = ?"
            writes.append((prepare(cql), (was, old["night"], path)))
        if old["run"] is not None and run != (was, old["run"]):
            cql = "DELETE FROM file_by_run WHERE experiment = ? AND run = ? AND path = ?"
            writes.append((prepare(cql), (was, old["run"], path)))
        return writes

    def remove(self, paths: Iterable[str]) -> int:
        """Forget files, their replicas, and folders left empty."""
        iterator = iter(paths)
        removed = 0
        prepare = self._session.prepare
        while block := list(islice(iterator, _RECORDS_A_BLOCK)):
            part = [path for path in block if is_text(path)]
            old = self._old(part)
            removed += len(old)
            forget: list[list[_Write]] = []
            for path in dict.fromkeys(part):
                forget.append([(prepare("DELETE FROM replica WHERE path = ?"), (path,))])
                if path in old:
                    forget[-1] += self._remove_old(old[path], None, None)
                cql = "DELETE FROM file_by_directory WHERE parent = ? AND name = ?"
                forget[-1].append((prepare(cql), split(path)))
            self._write_whole(forget)
            for folder in sorted({split(path)[0] for path in part}, reverse=True):
                self._remove_empty(folder)
        return removed

    def _remove_empty(self, folder: str) -> None:
        while folder and folder != "/":
            # The deletion counts as of before the look: a folder that another process enters meanwhile stays.
            now = time.time_ns() // 1000
            files_in = self._session.run("SELECT name FROM file_by_directory WHERE parent = ? LIMIT 1", folder)
            folders_in = self._session.run("SELECT name FROM directory WHERE parent = ? LIMIT 1", folder)
            if next(files_in, None) or next(folders_in, None):
                return
            cql = "DELETE FROM directory USING TIMESTAMP ? WHERE parent = ? AND name = ?"
            self._session.do(cql, now, *split(folder))
            folder = folder.rpartition("/")[0]

    # reading files

    def get(self, path: str) -> FileRecord | None:
        """Return one file, or None."""
        if not is_text(path):
            return None
        row = next(self._session.run(_FILE.format(columns="*"), *split(path)), None)
        return None if row is None else to_record(row, self.attributes())

    def get_many(self, paths: Iterable[str]) -> dict[str, FileRecord]:
        """Return files by path."""
        declared = self.attributes()
        rows = self._look_up((path for path in paths if is_text(path)), "*")
        return {row["path"]: to_record(row, declared) for row in rows}

    def entries(self, folder: str, cursor: str | None = None, limit: int = PAGE) -> EntryPage:
        """Return some entries of a folder of the merged tree."""
        folder = "/" + folder.strip("/")
        if not is_text(folder):
            return EntryPage([], None)
        question = identity("entries", folder)
        after = "" if cursor is None else read_cursor(cursor, question, ("string",)).after[0]
        folders = self._session.run("SELECT name FROM directory WHERE parent = ? AND name > ?", folder, after)
        cql = "SELECT name, size, mtime_ns, state, checksum FROM file_by_directory WHERE parent = ? AND name > ?"
        found = [Entry(row["name"], "folder") for row in islice(folders, limit + 1)]
        visible = (row for row in self._session.run(cql, folder, after) if row["state"] in VISIBLE)
        found += [
            Entry(row["name"], "file", row["size"], row["mtime_ns"], State(row["state"]), row["checksum"])
            for row in islice(visible, limit + 1)
        ]
        found.sort(key=lambda entry: entry.name)
        more = len(found) > limit
        return EntryPage(found[:limit], write_cursor(question, [found[limit - 1].name]) if more else None)

    def of_site(self, site: str) -> Iterator[FileRecord]:
        """Yield every file of a site, in any state."""
        declared = self.attributes()
        for row in self._read(p.Site(site), "*"):
            if row["site"] == site:
                yield to_record(row, declared)

    def select(self, search: q.Query | q.Search, limit: int | None = None) -> Iterator[FileRecord]:
        """Yield the files that match, by path; with a limit, no more than that are held in memory."""
        query, limit = (search.where, search.limit) if isinstance(search, q.Search) else (search, limit)
        if isinstance(search, q.Search) and search.order:
            self._to_come()
        declared = self.attributes()
        found = (to_record(row, declared) for row, _ in self._matching(query, declared, None))
        if limit is None:
            yield from sorted(found, key=_path)
        else:
            yield from heapq.nsmallest(limit, found, key=_path)

    def _matching(
        self, query: q.Query, declared: dict[str, Attribute], wanted: set[str] | None
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield row and values of each file that matches; of the attributes `wanted`, or all."""
        whole = q.of_registered(query)
        accesses = p.plan(whole, declared)
        columns = "*" if wanted is None else ", ".join(columns_for(wanted | q.names(whole)))
        seen: set[str] = set()
        for access in accesses:
            for row in self._read(access, columns):
                values = from_cells(row, declared)
                if row["path"] in seen or not q.matches(whole, values):
                    continue
                if len(accesses) > 1:
                    seen.add(row["path"])
                yield row, values

    def _read(self, access: p.Access, columns: str) -> Iterator[dict[str, Any]]:
        match access:
            case p.Path(paths):
                yield from self._look_up(paths, columns)
            case p.Tree(folder, prefix):
                yield from self._below(folder, prefix, columns)
            case p.Site(site):
                cql = f"SELECT {columns} FROM file_by_directory WHERE parent = ?"
                for row in self._session.run("SELECT parent FROM directory_of_site WHERE site = ?", site):
                    yield from self._session.run(cql, row["parent"])
            case p.Run(experiment, run):
                rows = self._session.run(
                    "SELECT path FROM file_by_run WHERE experiment = ? AND run = ?", experiment, run
                )
                yield from self._look_up((row["path"] for row in rows), columns)
            case p.Nights():
                yield from self._of_nights(access, columns)
            case p.Index(conditions):
                tests = " AND ".join(f'"{name}" {operator} ?' for name, operator, _ in conditions)
                yield from self._session.run(
                    f"SELECT {columns} FROM file_by_night WHERE {tests}", *(value for _, _, value in conditions)
                )

    def _below(self, folder: str, prefix: str, columns: str) -> Iterator[dict[str, Any]]:
        folders = [folder]
        while folders:
            folder = folders.pop()
            for row in self._session.run(f"SELECT {columns} FROM file_by_directory WHERE parent = ?", folder):
                if row["path"].startswith(prefix):
                    yield row
            for row in self._session.run("SELECT name FROM directory WHERE parent = ?", folder):
                child = f"{folder}/{row['name']}"
                if f"{child}/".startswith(prefix) or prefix.startswith(f"{child}/"):
                    folders.append(child)

    def _look_up(self, paths: Iterable[str], columns: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of files by path, in no order; names in one folder are asked for together."""
        look = self._session.prepare(f"SELECT {columns} FROM file_by_directory WHERE parent = ? AND name IN ?")
        iterator = iter(paths)
        while part := list(islice(iterator, 1000)):
            folders: defaultdict[str, list[str]] = defaultdict(list)
            for parent, name in map(split, dict.fromkeys(part)):
                folders[parent].append(name)
            reads = [
                (look, (parent, names[start : start + _NAMES_A_READ]))
                for parent, names in folders.items()
                for start in range(0, len(names), _NAMES_A_READ)
            ]
            for rows in self._session.concurrently(reads):
                yield from rows

    def _of_nights(self, access: p.Nights, columns: str) -> Iterator[dict[str, Any]]:
        experiments = [access.experiment]
        if access.experiment is None:
            rows = self._session.run("SELECT experiment FROM experiment WHERE catalogue = ?", ALL)
            experiments = [row["experiment"] for row in rows]
        cql = f"SELECT {columns} FROM file_by_night WHERE experiment = ? AND night = ?"
        for experiment in experiments:
            rows = self._session.run("SELECT night FROM night_of_experiment WHERE experiment = ?", experiment)
            for night in [row["night"] for row in rows]:
                if access.holds(night):
                    yield from self._session.run(cql, experiment, night)

    def count(self, query: q.Query, by: str | None = None) -> dict[Any, int]:
        """Count matching files, by the values of attribute `by`; rows stream past, none is kept."""
        declared = self.attributes()
        if by is None:
            return {None: sum(1 for _ in self._matching(query, declared, set()))}
        known_attribute(by, declared)
        counts = Counter(values.get(by) for _, values in self._matching(query, declared, {by}))
        return dict(sorted(counts.items(), key=lambda item: (item[0] is not None, item[0])))

    def explain(self, search: q.Query | q.Search) -> str:
        """Return what is read and what is tested row by row."""
        query = search.where if isinstance(search, q.Search) else search
        whole = q.of_registered(query)
        accesses = p.plan(whole, self.attributes())
        return "\n".join([*map(p.describe, accesses), f"each row read is tested: {q.written(whole)}"])

    def changes(self, since: int, limit: int = PAGE) -> list[Change]:
        """Return the next changes of files after revision `since`, up to where no writer is under way."""
        records = islice(self._changed(since), limit)
        return [Change(record.revision, ChangeKind.CHANGED, record.path, record=record) for record in records]

    def _changed(self, since: int) -> Iterator[FileRecord]:
        end = self._revisions.settled()
        cql = "SELECT revision, path FROM change WHERE bucket = ? AND revision > ? AND revision < ?"
        declared = self.attributes()
        for bucket in range((since + 1) // BUCKET, (end - 1) // BUCKET + 1):
            rows = list(self._session.run(cql, bucket, since, end))
            current = self._look_up((row["path"] for row in rows), "*")
            revisions = {row["revision"] for row in rows}
            # What was changed again since comes later, under its new revision.
            records = [to_record(row, declared) for row in current if row["revision"] in revisions]
            yield from sorted(records, key=lambda record: record.revision)

    # replicas

    def add_replicas(self, replicas: Iterable[Replica]) -> int:
        """Record (or renew) replicas by path and URL."""
        added = 0
        for replica in replicas:
            self._session.do(
                "INSERT INTO replica (path, url, kind, checksum, verified) VALUES (?, ?, ?, ?, ?)",
                replica.path, replica.url, replica.kind, replica.checksum, to_plain(replica.verified),
            )  # fmt: skip
            added += 1
        return added

    def replicas(self, paths: Iterable[str]) -> dict[str, list[Replica]]:
        """Return the replicas of files, by path."""
        return {path: self._replicas(path) for path in paths}

    def _replicas(self, path: str) -> list[Replica]:
        time_type = COMMON["time_start"]
        return [
            Replica(row["path"], row["url"], row["kind"], row["checksum"], from_plain(time_type, row["verified"]))
            for row in self._session.run("SELECT * FROM replica WHERE path = ?", path)
        ]

    def remove_replicas(self, replicas: Iterable[tuple[str, str]]) -> int:
        """Forget replicas by path and URL."""
        keys = list(replicas)
        for path, url in keys:
            self._session.do("DELETE FROM replica WHERE path = ? AND url = ?", path, url)
        return len(keys)

    def _to_come(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("the catalogue in Cassandra can't do this yet")

    listing = entry = sources = conflicts = select_records = select_batch = revision = _to_come
    put_contents = contents = has_contents = acquire = renew = release = _to_come
    put_description = descriptions = remove_description = _to_come

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _size(write: _Write) -> int:
    """Return about how many bytes a statement's values are."""
    total = 0
    for value in write[1]:
        if isinstance(value, str):
            total += len(value.encode())
        elif isinstance(value, dict):
            total += sum(len(name) + (len(v.encode()) if isinstance(v, str) else 8) for name, v in value.items())
        else:
            total += 8
    return total


def _path(record: FileRecord) -> str:
    return record.path

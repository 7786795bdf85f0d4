"""The catalogue in Cassandra: tables for questions (`schema.cql`), plans from `plan`, what is left tested row by row.

A record is written by one logged batch to all its tables: a killed writer leaves it old or new. Rows that an older
version of the record left under another night or run are deleted in the same batch. A revision is the time of the
write in microseconds, made unique within a process; several writers need clocks that agree as well as they want
their changes ordered.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from itertools import islice
from threading import Lock
from typing import Any

import pyarrow as pa
from cassandra import DriverException
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.concurrent import execute_concurrent
from cassandra.policies import RoundRobinPolicy
from cassandra.query import BatchStatement, BatchType, PreparedStatement, dict_factory

from apbatch.errors import ServerError, UsageError
from apbatch.formats.reader import Attribute
from apbatch.index import plan as p
from apbatch.index import query as q
from apbatch.index.attributes import COMMON, merge_declarations
from apbatch.index.catalogue import COMMON_FIELDS, Catalogue, FileRecord, Replica
from apbatch.index.records import event_batch, event_rows, from_plain, from_row, parameter_names, to_plain, to_row

_ALL = "all"  # the one partition of small tables
_EVENTS_A_BUCKET = 20_000
_DAY_US = 86_400_000_000
_WINDOW = 64


class CassandraCatalogue(Catalogue):
    """A catalogue in one keyspace.

    Parameters
    ----------
    url : str
        ``cassandra://HOST[,HOST…]:PORT/KEYSPACE``; a keyspace that is not there is made with one copy.
    """

    def __init__(self, url: str) -> None:
        match = re.fullmatch(r"cassandra://([^/:]+)(?::(\d+))?/([a-z][a-z0-9_]{0,47})", url)
        if match is None:
            raise UsageError("not a Cassandra URL", where=url, remedy="cassandra://HOST:PORT/KEYSPACE, lower case")
        self._url = url
        profile = ExecutionProfile(
            request_timeout=60, row_factory=dict_factory, load_balancing_policy=RoundRobinPolicy()
        )
        self._cluster = Cluster(
            match[1].split(","),
            port=int(match[2] or 9042),
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            protocol_version=5,
            connect_timeout=10,
        )
        try:
            self._session = self._cluster.connect()
            self._create(match[3])
        except (NoHostAvailable, DriverException) as error:
            self._cluster.shutdown()
            raise ServerError(f"Cassandra does not answer: {error}", where=url) from None
        self._prepared: dict[str, PreparedStatement] = {}
        self._known: set[tuple[str, ...]] = set()
        self._last_revision = 0
        self._revisions = Lock()

    def _create(self, keyspace: str) -> None:
        if keyspace not in self._cluster.metadata.keyspaces:
            self._session.execute(
                f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = "
                "{'class': 'SimpleStrategy', 'replication_factor': 1}"
            )
        self._session.set_keyspace(keyspace)
        found = self._cluster.metadata.keyspaces.get(keyspace)
        text = re.sub(r"--.*", "", files("apbatch.index").joinpath("schema.cql").read_text())
        for statement in filter(str.strip, text.split(";")):
            name = re.search(r"EXISTS (\w+)", statement)
            known = found and name and (name[1] in found.tables or name[1] in found.indexes)
            if not known:
                self._session.execute(statement, timeout=120)

    def _run(self, cql: str, *values: Any) -> Iterator[dict[str, Any]]:
        try:
            yield from self._session.execute(self._prepare(cql), values)
        except (NoHostAvailable, DriverException) as error:
            raise ServerError(f"Cassandra failed: {error}", where=self._url) from None

    def _do(self, cql: str, *values: Any) -> None:
        for _ in self._run(cql, *values):
            pass

    def _prepare(self, cql: str) -> PreparedStatement:
        if cql not in self._prepared:
            self._prepared[cql] = self._session.prepare(cql)
        return self._prepared[cql]

    def _concurrently(self, statements: Sequence[tuple[Any, Any]]) -> list[Any]:
        try:
            return [result for _, result in execute_concurrent(self._session, statements, concurrency=_WINDOW)]
        except (NoHostAvailable, DriverException) as error:
            raise ServerError(f"Cassandra failed: {error}", where=self._url) from None

    # attributes

    def declare(self, attributes: Iterable[Attribute]) -> None:
        """Make attributes known; see `Catalogue.declare`."""
        for attribute in merge_declarations(self.attributes(), attributes).values():
            self._do(
                "INSERT INTO attribute (catalogue, name, type, unit, description) VALUES (?, ?, ?, ?, ?)",
                _ALL, attribute.name, attribute.type, attribute.unit, attribute.description,
            )  # fmt: skip

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query may name."""
        rows = self._run("SELECT * FROM attribute WHERE catalogue = ?", _ALL)
        return {
            **COMMON,
            **{row["name"]: Attribute(row["name"], row["type"], row["description"], row["unit"]) for row in rows},
        }

    # files

    def upsert(self, records: Iterable[FileRecord]) -> int:
        """Insert or replace files by path; one logged batch a record."""
        declared = self.attributes()
        iterator = iter(records)
        written = 0
        while part := list(islice(iterator, 500)):
            unique = list({record.path: record for record in part}.values())
            for record in unique:
                unknown = [name for name in record.attributes if name not in declared]
                if unknown:
                    raise UsageError(f"attribute '{unknown[0]}' of {record.path} was not declared")
            old = self._old_keys([record.path for record in unique])
            self._enter_partitions(unique)
            self._concurrently([(self._batch(record, old.get(record.path)), ()) for record in unique])
            written += len(unique)
        return written

    def _old_keys(self, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
        look = self._prepare(
            "SELECT path, experiment, night, run, site FROM file_by_directory WHERE parent = ? AND name = ?"
        )
        results = self._concurrently([(look, _split(path)) for path in paths])
        return {row["path"]: row for rows in results for row in rows}

    def _enter_partitions(self, records: Sequence[FileRecord]) -> None:
        """Write down the folders, experiments, nights and days of records; each once a process."""
        wanted: dict[tuple[str, ...], tuple[str, tuple[Any, ...]]] = {}
        for record in records:
            night = to_plain(record.night) or ""
            cql = "INSERT INTO experiment (catalogue, experiment) VALUES (?, ?)"
            wanted["experiment", record.experiment] = (cql, (_ALL, record.experiment))
            cql = "INSERT INTO night_of_experiment (experiment, night) VALUES (?, ?)"
            wanted["night", record.experiment, night] = (cql, (record.experiment, night))
            folder = record.path.rpartition("/")[0]
            while folder:
                cql = "INSERT INTO directory (parent, name) VALUES (?, ?)"
                wanted["directory", folder] = (cql, _split(folder))
                folder = folder.rpartition("/")[0]
        bucket = time.time_ns() // 1000 // _DAY_US
        for day in (bucket, bucket + 1):  # the batch may be written after midnight
            cql = "INSERT INTO change_bucket (catalogue, bucket) VALUES (?, ?)"
            wanted["bucket", str(day)] = (cql, (_ALL, day))
        fresh = {key: work for key, work in wanted.items() if key not in self._known}
        self._concurrently([(self._prepare(cql), values) for cql, values in fresh.values()])
        self._known.update(fresh)

    def _revision(self) -> int:
        with self._revisions:
            self._last_revision = max(self._last_revision + 1, time.time_ns() // 1000)
            return self._last_revision

    def _batch(self, record: FileRecord, old: dict[str, Any] | None) -> BatchStatement:
        row = {**to_row(record), "revision": self._revision()}
        plain = {name: to_plain(value) for name, value in record.attributes.items() if value is not None}
        row["texts"] = {name: value for name, value in plain.items() if isinstance(value, str)}
        row["numbers"] = {name: float(value) for name, value in plain.items() if not isinstance(value, str)}
        parent, name = _split(record.path)
        batch = BatchStatement(BatchType.LOGGED)
        self._insert(batch, "file_by_directory", {**row, "parent": parent, "name": name})
        by_night = {**row, "night": row["night"] or ""}
        self._insert(batch, "file_by_night", by_night)
        self._insert(batch, "file_by_site", {"site": record.site, "path": record.path})
        revision = row["revision"]
        self._insert(batch, "change", {"bucket": revision // _DAY_US, "revision": revision, "path": record.path})
        if record.run is not None:
            keys = {"experiment": record.experiment, "run": record.run, "path": record.path}
            self._insert(batch, "file_by_run", keys)
        if old is not None:
            self._remove_old(batch, record.path, old, by_night)
        return batch

    def _insert(self, batch: BatchStatement, table: str, row: dict[str, Any]) -> None:
        names = sorted(row)
        marks = ", ".join("?" * len(names))
        batch.add(
            self._prepare(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"), [row[name] for name in names]
        )

    def _remove_old(self, batch: BatchStatement, path: str, old: dict[str, Any], new: dict[str, Any] | None) -> None:
        """Delete what an older version of a record left under other keys; all of it, if there is no new version."""
        night = (old["experiment"], old["night"] or "")
        if new is None or night != (new["experiment"], new["night"]):
            cql = "DELETE FROM file_by_night WHERE experiment = ? AND night = ? AND path = ?"
            batch.add(self._prepare(cql), (*night, path))
        run = (old["experiment"], old["run"])
        if old["run"] is not None and (new is None or run != (new["experiment"], new["run"])):
            cql = "DELETE FROM file_by_run WHERE experiment = ? AND run = ? AND path = ?"
            batch.add(self._prepare(cql), (*run, path))
        if new is None or old["site"] != new["site"]:
            batch.add(self._prepare("DELETE FROM file_by_site WHERE site = ? AND path = ?"), (old["site"], path))

    def remove(self, paths: Iterable[str]) -> None:
        """Forget files, their replicas, and folders left empty."""
        for path in paths:
            old = self._old_keys([path]).get(path)
            batch = BatchStatement(BatchType.LOGGED)
            batch.add(self._prepare("DELETE FROM file_by_directory WHERE parent = ? AND name = ?"), _split(path))
            batch.add(self._prepare("DELETE FROM replica WHERE path = ?"), (path,))
            if old is not None:
                self._remove_old(batch, path, old, None)
            self._concurrently([(batch, ())])
            self._remove_empty(path.rpartition("/")[0])

    def _remove_empty(self, folder: str) -> None:
        while folder:
            files_in = self._run("SELECT name FROM file_by_directory WHERE parent = ? LIMIT 1", folder)
            folders_in = self._run("SELECT name FROM directory WHERE parent = ? LIMIT 1", folder)
            if next(files_in, None) or next(folders_in, None):
                return
            self._do("DELETE FROM directory WHERE parent = ? AND name = ?", *_split(folder))
            self._known.discard(("directory", folder))
            folder = folder.rpartition("/")[0]

    def get(self, path: str) -> FileRecord | None:
        """Return one file, or None."""
        row = next(self._run("SELECT * FROM file_by_directory WHERE parent = ? AND name = ?", *_split(path)), None)
        return None if row is None else _record(row, self.attributes())

    def list_directory(self, directory: str) -> Iterator[tuple[str, bool]]:
        """Yield (name, is_directory) of the entries of a folder of the merged tree."""
        directory = "/" + directory.strip("/")
        folders = self._run("SELECT name FROM directory WHERE parent = ?", directory)
        plain = self._run("SELECT name, state FROM file_by_directory WHERE parent = ?", directory)
        entries = {row["name"]: True for row in folders}
        entries |= {row["name"]: False for row in plain if row["state"] == "registered"}
        yield from sorted(entries.items())

    def of_site(self, site: str) -> Iterator[FileRecord]:
        """Yield every file of a site, in any state."""
        yield from self._read(p.Site(site), self.attributes())

    def select(self, query: q.Query, limit: int | None = None) -> Iterator[FileRecord]:
        """Yield the files that match, by path."""
        found = sorted(self._matching(query), key=lambda record: record.path)
        yield from found if limit is None else found[:limit]

    def _matching(self, query: q.Query) -> Iterator[FileRecord]:
        whole = q.of_registered(query)
        declared = self.attributes()
        seen: set[str] = set()
        accesses = p.plan(whole)
        for access in accesses:
            for record in self._read(access, declared):
                if record.path in seen or not q.matches(whole, record.flat()):
                    continue
                if len(accesses) > 1:
                    seen.add(record.path)
                yield record

    def _read(self, access: p.Access, declared: dict[str, Attribute]) -> Iterator[FileRecord]:
        match access:
            case p.Path(path):
                rows = self._run("SELECT * FROM file_by_directory WHERE parent = ? AND name = ?", *_split(path))
            case p.Tree(folder, prefix):
                rows = self._below(folder, prefix)
            case p.Site(site):
                rows = self._look_up(self._run("SELECT path FROM file_by_site WHERE site = ?", site))
            case p.Run(experiment, run):
                cql = "SELECT path FROM file_by_run WHERE experiment = ? AND run = ?"
                rows = self._look_up(self._run(cql, experiment, run))
            case p.Nights():
                rows = self._of_nights(access)
            case p.Index(conditions):
                tests = " AND ".join(f"{name} {operator} ?" for name, operator, _ in conditions)
                values = [value for _, _, value in conditions]
                if any(abs(value) >= 2**63 for value in values if isinstance(value, int)):
                    rows = iter(())
                else:
                    rows = self._run(f"SELECT * FROM file_by_night WHERE {tests}", *values)
        for row in rows:
            yield _record(row, declared)

    def _below(self, folder: str, prefix: str) -> Iterator[dict[str, Any]]:
        folders = [folder]
        while folders:
            folder = folders.pop()
            for row in self._run("SELECT * FROM file_by_directory WHERE parent = ?", folder):
                if row["path"].startswith(prefix):
                    yield row
            for row in self._run("SELECT name FROM directory WHERE parent = ?", folder):
                child = f"{folder}/{row['name']}"
                if f"{child}/".startswith(prefix) or prefix.startswith(f"{child}/"):
                    folders.append(child)

    def _look_up(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        look = self._prepare("SELECT * FROM file_by_directory WHERE parent = ? AND name = ?")
        while part := [row["path"] for row in islice(rows, 1000)]:
            for result in self._concurrently([(look, _split(path)) for path in part]):
                yield from result

    def _of_nights(self, access: p.Nights) -> Iterator[dict[str, Any]]:
        if access.experiment is None:
            rows = self._run("SELECT experiment FROM experiment WHERE catalogue = ?", _ALL)
            experiments = [row["experiment"] for row in rows]
        else:
            experiments = [access.experiment]
        for experiment in experiments:
            rows = self._run("SELECT night FROM night_of_experiment WHERE experiment = ?", experiment)
            for night in [row["night"] for row in rows]:
                wanted = access.these is None or night in access.these
                wanted = wanted and (access.low is None or night >= access.low)
                if wanted and (access.high is None or night <= access.high):
                    cql = "SELECT * FROM file_by_night WHERE experiment = ? AND night = ?"
                    yield from self._run(cql, experiment, night)

    def count(self, query: q.Query, by: str | None = None) -> dict[Any, int]:
        """Count matching files, by the values of attribute `by`; rows stream past, none is kept."""
        counts: Counter[Any] = Counter()
        for record in self._matching(query):
            counts[None if by is None else record.flat().get(by)] += 1
        if by is None:
            return {None: counts[None]}
        return dict(sorted(counts.items(), key=lambda item: (item[0] is not None, item[0])))

    def explain(self, query: q.Query) -> str:
        """Return what is read and what is tested row by row."""
        whole = q.of_registered(query)
        return "\n".join([*map(p.describe, p.plan(whole)), f"each row read is tested: {whole}"])

    def changes(self, since: int) -> Iterator[FileRecord]:
        """Yield files with a revision above `since`, oldest change first."""
        buckets = [
            row["bucket"]
            for row in self._run("SELECT bucket FROM change_bucket WHERE catalogue = ?", _ALL)
            if row["bucket"] >= since // _DAY_US
        ]
        for bucket in sorted(buckets):
            cql = "SELECT revision, path FROM change WHERE bucket = ? AND revision > ?"
            for row in self._run(cql, bucket, since):
                record = self.get(row["path"])
                if record is not None and record.revision == row["revision"]:  # else changed again, or gone
                    yield record

    # replicas

    def add_replica(self, replica: Replica) -> None:
        """Record (or renew) a replica, by path and URL."""
        self._do(
            "INSERT INTO replica (path, url, kind, checksum, verified) VALUES (?, ?, ?, ?, ?)",
            replica.path, replica.url, replica.kind, replica.checksum, to_plain(replica.verified),
        )  # fmt: skip

    def replicas(self, path: str) -> list[Replica]:
        """Return the replicas of a file."""
        return [
            Replica(
                row["path"],
                row["url"],
                row["kind"],
                row["checksum"],
                from_plain(COMMON["time_start"], row["verified"]),
            )
            for row in self._run("SELECT * FROM replica WHERE path = ?", path)
        ]

    def remove_replica(self, path: str, url: str) -> None:
        """Forget a replica."""
        self._do("DELETE FROM replica WHERE path = ? AND url = ?", path, url)

    # events

    def upsert_events(self, batch: pa.RecordBatch) -> int:
        """Insert or replace image parameters."""
        insert = self._prepare(
            "INSERT INTO event_by_run (experiment, run, bucket, event, telescope, cleaning, dataset, parameters) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        enter = self._prepare("INSERT INTO event_bucket (experiment, run, bucket) VALUES (?, ?, ?)")
        work: list[tuple[Any, Any]] = []
        buckets: set[tuple[str, int, int]] = set()
        for (experiment, run, event, telescope, cleaning), dataset, values in event_rows(batch):
            bucket = event // _EVENTS_A_BUCKET
            buckets.add((experiment, run, bucket))
            work.append((insert, (experiment, run, bucket, event, telescope, cleaning, dataset, values)))
        self._concurrently([(enter, key) for key in sorted(buckets)])
        name = self._prepare("INSERT INTO event_parameter (experiment, name) VALUES (?, ?)")
        experiments = sorted({key[0] for key in buckets})
        self._concurrently([(name, (e, parameter)) for e in experiments for parameter in parameter_names(batch)])
        self._concurrently(work)
        return len(work)

    def select_events(
        self, experiment: str, run: int | None = None, where: q.Query | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield image parameters, ordered by key."""
        test = None if where is None else q.normalise(where)
        known = self._run("SELECT name FROM event_parameter WHERE experiment = ?", experiment)
        names = [row["name"] for row in known]
        cql = "SELECT run, bucket FROM event_bucket WHERE experiment = ?"
        keys = [(row["run"], row["bucket"]) for row in self._run(cql, experiment)]
        cql = "SELECT * FROM event_by_run WHERE experiment = ? AND run = ? AND bucket = ?"
        for number, bucket in keys:
            if run is not None and number != run:
                continue
            kept = []
            for row in self._run(cql, experiment, number, bucket):
                values = dict(row.pop("parameters") or {})
                if test is None or q.matches(test, {**row, **values}):
                    key = (experiment, number, row["event"], row["telescope"], row["cleaning"])
                    kept.append((key, row["dataset"], values))
            if kept:
                yield event_batch(kept, names)

    def close(self) -> None:
        """Close the connections."""
        self._cluster.shutdown()


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent or "/", name  # Cassandra has no empty partition key


def _record(row: dict[str, Any], declared: dict[str, Attribute]) -> FileRecord:
    plain = {**(row.get("numbers") or {}), **(row.get("texts") or {})}
    attributes = {name: from_plain(declared.get(name), value) for name, value in plain.items()}
    values = {name: row[name] for name in COMMON_FIELDS}
    values["night"] = values["night"] or None
    return from_row(values, attributes)

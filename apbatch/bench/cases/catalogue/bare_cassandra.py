"""Cassandra by its driver and hand-written CQL: the catalogue's own consistency and patience, in logged batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.concurrent import execute_concurrent, execute_concurrent_with_args
from cassandra.policies import DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import BatchStatement, BatchType

from apbatch.bench.cases.catalogue.bare_sql import BareIndex, tests
from apbatch.index.cassandra.catalogue import CassandraCatalogue
from apbatch.index.cassandra.revisions import BUCKET
from apbatch.index.cassandra.rows import split, to_cells
from apbatch.index.cassandra.session import patience
from apbatch.index.files import FileRecord
from apbatch.index.query import Between, Query

_RECORDS_A_BATCH = 5
_BATCHES_AT_A_TIME = 64
_SHOWN = ("path", "place", "size", "mtime_ns", "state", "checksum")
_LISTED = ("site", "path", "size", "mtime_ns", "state", "format", "checksum")


class BareCassandra(BareIndex):
    """One session on a keyspace with the catalogue's tables, all of which a record is written to."""

    def __init__(self, url: str) -> None:
        CassandraCatalogue(url).close()  # makes the tables
        address, _, keyspace = url.removeprefix("cassandra://").partition("/")
        hosts, _, port = address.partition(":")
        profile = ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy()), request_timeout=120,
            consistency_level=ConsistencyLevel.LOCAL_QUORUM, retry_policy=patience(),
        )  # fmt: skip
        self._cluster = Cluster(
            hosts.split(","),
            port=int(port),
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            protocol_version=5,
            connect_timeout=10,
            control_connection_timeout=30,
        )
        self._session = self._cluster.connect(keyspace)
        self._statements: dict[str, Any] = {}

    def _prepare(self, cql: str) -> Any:
        if cql not in self._statements:
            self._statements[cql] = self._session.prepare(cql)
        return self._statements[cql]

    def prepared(self, records: Sequence[FileRecord], first: int) -> list[list[tuple[str, Mapping[str, Any]]]]:
        """Return the rows of each record by table."""
        return [self._rows(record, first + n) for n, record in enumerate(records)]

    def _rows(self, record: FileRecord, revision: int) -> list[tuple[str, Mapping[str, Any]]]:
        parent, name = split(record.path)
        cells = {
            **to_cells(record), "revision": revision, "tree_name": record.path, "tree_number": 0,
            "first_revision": revision,
        }  # fmt: skip
        cells = {key: value for key, value in cells.items() if value is not None and value != {}}
        folder, slash, source = record.source.rpartition("/")
        place = {"parent": parent, "name": name}
        return [
            ("file_by_night", cells),
            ("change", {"bucket": revision // BUCKET, "revision": revision, "path": record.path}),
            ("file_by_run", {"experiment": record.experiment, "run": record.run, "path": record.path}),
            ("holding", {**place, "path": record.path}),
            ("file_of_site", {**{key: cells[key] for key in _LISTED}, "folder": folder + slash, "name": source}),
            ("entry", {**{key: cells[key] for key in _SHOWN}, **place, "number": 0}),
            ("file_by_directory", {**cells, **place}),
        ]

    def write(self, rows: Sequence[Any]) -> None:
        """Insert or replace the rows of records, five records a logged batch."""
        nights = {(row["experiment"], row["night"]) for record in rows for table, row in record[:1]}
        for experiment, night in nights:
            insert = "INSERT INTO night_of_experiment (experiment, night) VALUES (?, ?)"
            self._session.execute(self._prepare(insert), (experiment, night))
        batches = []
        for start in range(0, len(rows), _RECORDS_A_BATCH):
            batch = BatchStatement(BatchType.LOGGED)
            for record in rows[start : start + _RECORDS_A_BATCH]:
                for table, row in record:
                    marks = ", ".join("?" * len(row))
                    insert = self._prepare(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})")
                    batch.add(insert, list(row.values()))
            batches.append((batch, ()))
        execute_concurrent(self._session, batches, concurrency=_BATCHES_AT_A_TIME)

    def size_of(self, path: str) -> int | None:
        """Read the whole record of a file; return its size."""
        select = self._prepare("SELECT * FROM file_by_directory WHERE parent = ? AND name = ?")
        row = self._session.execute(select, split(path)).one()
        return None if row is None else row.size

    def paths(self, query: Query, limit: int | None = None) -> list[str]:
        """Read the files that match, by path; return their paths."""
        condition, values = _where(query)
        rows = self._session.execute(self._prepare(f"SELECT * FROM file_by_night WHERE {condition}"), values)
        return sorted(row.path for row in rows)[:limit]

    def count(self, query: Query) -> int:
        """Count the files that match."""
        condition, values = _where(query)
        select = self._prepare(f"SELECT COUNT(*) FROM file_by_night WHERE {condition}")
        return int(self._session.execute(select, values).one()[0])

    def count_by_night(self, experiment: str) -> dict[date | None, int]:
        """Count the files of an experiment by night, many nights at a time."""
        select = self._prepare("SELECT night FROM night_of_experiment WHERE experiment = ?")
        nights = [row.night for row in self._session.execute(select, (experiment,))]
        count = self._prepare(
            "SELECT COUNT(*) FROM file_by_night WHERE experiment = ? AND night = ? AND state = 'registered'"
        )
        counts = execute_concurrent_with_args(self._session, count, [(experiment, night) for night in nights])
        numbers = [result.one()[0] for _, result in counts]
        return {date.fromisoformat(night): number for night, number in zip(nights, numbers, strict=True) if number}

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder."""
        rows = self._session.execute(self._prepare("SELECT * FROM entry WHERE parent = ?"), (folder,))
        return [row.name for row in rows]

    def close(self) -> None:
        """Close the connections."""
        self._cluster.shutdown()


def _where(query: Query) -> tuple[str, list[Any]]:
    conditions, values = ["state = 'registered'"], []
    for test in tests(query):
        if isinstance(test, Between):
            conditions += [f"{test.name} >= ?", f"{test.name} <= ?"]
            values += [test.low, test.high]
        else:
            conditions.append(f"{test.name} = ?")
            values.append(test.value.isoformat() if isinstance(test.value, date) else test.value)
    return " AND ".join(conditions), values

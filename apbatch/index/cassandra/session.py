"""The connection to a Cassandra keyspace: it is made on first use, statements are prepared once, errors are told."""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

from cassandra import ConsistencyLevel, DriverException, ReadFailure, RequestExecutionException, Unauthorized
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.concurrent import execute_concurrent
from cassandra.policies import DCAwareRoundRobinPolicy, RetryPolicy, TokenAwarePolicy
from cassandra.protocol import ErrorMessage
from cassandra.query import PreparedStatement, SimpleStatement, dict_factory

from apbatch.errors import ServerError, UsageError
from apbatch.index.cancelling import interruptible, raise_if_cancelled
from apbatch.index.catalogue import LOST_SERVER

SCHEMA_VERSION = 5
#: What makes the schema of the version before into that of the version named. The rows of schema 3 are written anew by
#: the catalogue, which notes the new version only then.
_NEW_COLUMNS = "(place text, tree_name text, tree_number int, first_revision bigint)"
_UPGRADES = {
    3: ["ALTER TABLE IF EXISTS event_by_run ADD IF NOT EXISTS (image_file text)"],
    4: [
        f"ALTER TABLE file_by_directory ADD IF NOT EXISTS {_NEW_COLUMNS}",
        f"ALTER TABLE file_by_night ADD IF NOT EXISTS {_NEW_COLUMNS}",
        "ALTER TABLE change ADD IF NOT EXISTS (kind text, detail text)",
        "ALTER TABLE replica ADD IF NOT EXISTS (revision bigint)",
    ],
    5: [],  # one more table
}
#: Rows of an older schema are written anew.
_ROWS_SINCE = 4
#: The one partition of small tables.
ALL = "all"
#: Of a store of events, which may share the keyspace.
EVENT_TABLES = {"event_of_run", "event_run", "event_column"}
_WINDOW = 64
_FAILURES = (NoHostAvailable, DriverException, RequestExecutionException, ErrorMessage)
#: Code of a light-weight transaction that met another one, so that nobody knows whether it was applied. The driver has
#: no exception of its own for it.
_CAS_UNKNOWN = 0x1700
#: A node that waits for another one in vain says so after 2 to 5 s; a dead one is noticed after some 10 s, on a busy
#: machine after a minute.
_RETRIES = 40
#: What a node says that knows of an index but can't use it yet, and how long it is given.
_NO_INDEX_YET = "INDEX_NOT_AVAILABLE"
_INDEX_WAIT_S = 30.0
#: An index that is neither usable nor being built for so long has failed: a compaction took its files away meanwhile.
_INDEX_IDLE_S = 5.0
_INDEX_ATTEMPTS = 5
_URL = re.compile(r"cassandra://([^/:@]+)(?::(\d+))?/([a-z][a-z0-9_]{0,47})")

# What the driver has to say becomes one message of ours; its own warnings would double it on the terminal.
logging.getLogger("cassandra").addHandler(logging.NullHandler())


class _Patience(RetryPolicy):  # type: ignore[misc]
    """Asks the same coordinator again while it learns that another node has died: each write of ours can be done twice.

    The level of consistency stays that of the statement: what a timeout names may be that of the log of batches.
    """

    def on_read_timeout(
        self,
        query: Any,
        consistency: Any,
        required_responses: int,
        received_responses: int,
        data_retrieved: bool,
        retry_num: int,
    ) -> tuple[int, Any]:
        """Ask again, but for what no node could answer in time: that is too much work."""
        return self._again(retry_num if received_responses else retry_num + _RETRIES - 1)

    def on_write_timeout(self, *_: Any, retry_num: int, **__: Any) -> tuple[int, Any]:
        """Write again."""
        return self._again(retry_num)

    def _again(self, retry_num: int) -> tuple[int, Any]:
        return (self.RETRY if retry_num < _RETRIES else self.RETHROW), None


def patience() -> RetryPolicy:
    """Return the policy by which statements that timed out are run again."""
    return _Patience()


class CassandraSession:
    """A keyspace of one Cassandra cluster.

    Parameters
    ----------
    url : str
        ``cassandra://HOST[,HOST…]:PORT/KEYSPACE``. A keyspace that is not there is made, with three copies or as many
        as there are nodes. User and password come from ``$APBATCH_CASSANDRA_USER`` and ``$APBATCH_CASSANDRA_PASSWORD``.

    Raises
    ------
    UsageError
        If the URL is wrong, or the keyspace holds something else.
    ServerError
        If no node answers.
    """

    def __init__(self, url: str) -> None:
        match = _URL.fullmatch(url)
        if match is None:
            raise UsageError("not a Cassandra URL", where=url, remedy="cassandra://HOST:PORT/KEYSPACE, lower case")
        self._url = url
        self._prepared: dict[str, PreparedStatement] = {}
        #: Whether the rows are still those of an older schema.
        self.is_old = False
        user = os.environ.get("APBATCH_CASSANDRA_USER")
        password = os.environ.get("APBATCH_CASSANDRA_PASSWORD", "")
        profile = ExecutionProfile(
            request_timeout=120,
            row_factory=dict_factory,
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy()),
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
            retry_policy=patience(),
        )
        self._cluster = Cluster(
            match[1].split(","),
            port=int(match[2] or 9042),
            auth_provider=PlainTextAuthProvider(user, password) if user else None,
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            protocol_version=5,
            connect_timeout=10,
            max_schema_agreement_wait=60,  # a busy node takes over late what another one made
            control_connection_timeout=30,  # which reads the whole schema, of every keyspace
        )
        try:
            self._session = self._cluster.connect()
            self._session.use_client_timestamp = False  # clocks of hosts may differ
            self._create(match[3])
        except _FAILURES as error:
            self.close()
            raise self._failure(error) from None
        except BaseException:
            self.close()
            raise

    def make_keyspace(self, keyspace: str) -> None:
        """Make a keyspace that is not there, and use it from now on."""
        if keyspace not in self._cluster.metadata.keyspaces:
            copies = min(3, len(self._cluster.metadata.all_hosts()))
            self._session.execute(
                f'CREATE KEYSPACE IF NOT EXISTS "{keyspace}" WITH replication = '
                f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {copies}}}"
            )
        self._session.set_keyspace(keyspace)

    def use_keyspace(self, keyspace: str) -> None:
        """Use a keyspace from now on, if it is there."""
        if keyspace in self._cluster.metadata.keyspaces:
            self._session.set_keyspace(keyspace)

    def has_table(self, name: str) -> bool:
        """Tell whether the keyspace in use has a table."""
        keyspace = self._cluster.metadata.keyspaces.get(self._session.keyspace or "")
        return keyspace is not None and name in keyspace.tables

    def _create(self, keyspace: str) -> None:
        self.make_keyspace(keyspace)
        rows = self._session.execute("SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s", [keyspace])
        tables = {row["table_name"] for row in rows} - EVENT_TABLES
        if tables and "schema_version" not in tables:
            raise self._refusal("the keyspace holds tables of another program, or of an older schema")
        if tables:
            row = self._session.execute("SELECT version FROM schema_version WHERE catalogue = 'all'").one()
            version = None if row is None else row["version"]
            if version == SCHEMA_VERSION:
                return
            if version is not None and version + 1 in _UPGRADES:
                for number in range(version + 1, SCHEMA_VERSION + 1):
                    for statement in _UPGRADES[number]:
                        self._session.execute(statement, timeout=120)
                self._make_tables()
                self.is_old = version < _ROWS_SINCE
                if not self.is_old:
                    self.write_version()
                return
            if version is not None:
                raise self._refusal(f"this catalogue has schema {version}, this program knows {SCHEMA_VERSION}")
        self._make_tables()
        self._session.execute("INSERT INTO revision (catalogue, next) VALUES ('all', 1) IF NOT EXISTS")
        self.write_version()

    def _make_tables(self) -> None:
        text = re.sub(r"--.*", "", files("apbatch.index.cassandra").joinpath("schema.cql").read_text(encoding="utf-8"))
        for statement in filter(str.strip, text.split(";")):
            self._session.execute(statement, timeout=120)

    def write_version(self) -> None:
        """Note that the keyspace has this program's schema, its rows included."""
        self._session.execute("INSERT INTO schema_version (catalogue, version) VALUES ('all', %s)", [SCHEMA_VERSION])

    def _refusal(self, what: str) -> UsageError:
        return UsageError(what, where=self._url, remedy="name another keyspace, or drop this one and ingest again")

    def prepare(self, cql: str) -> PreparedStatement:
        """Return the prepared statement; each is prepared once."""
        if cql not in self._prepared:
            try:
                self._prepared[cql] = self._session.prepare(cql)
            except _FAILURES as error:
                raise self._failure(error) from None
        return self._prepared[cql]

    def run(self, cql: str, *values: Any) -> Iterator[dict[str, Any]]:
        """Run a statement; yield its rows, page by page."""
        statement = self.prepare(cql)
        try:
            yield from interruptible(self._answer(statement, values))
        except _FAILURES as error:
            raise self._failure(error) from None

    def _answer(self, statement: PreparedStatement, values: Sequence[Any]) -> Any:
        """Return the result of a statement, waiting for an index that was just made, or a node that just started."""
        until = time.monotonic() + _INDEX_WAIT_S
        while True:
            try:
                return self._execute(statement, values)
            except ReadFailure as error:
                if _NO_INDEX_YET not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def _execute(self, statement: Any, values: Sequence[Any] | None = None) -> Any:
        """Run a statement, again if it met another writer: like one that timed out, it can be done twice."""
        raise_if_cancelled()
        for attempt in range(_RETRIES):
            try:
                return self._session.execute(statement, values)
            except ErrorMessage as error:
                if error.code != _CAS_UNKNOWN or attempt + 1 == _RETRIES:
                    raise
                time.sleep(random.uniform(0, 0.01 * (attempt + 1)))
        raise AssertionError  # not reached

    def do(self, statement: Any, *values: Any) -> list[dict[str, Any]]:
        """Run a statement (text, bound or batch) to its end; return its rows."""
        if isinstance(statement, str):
            return list(self.run(statement, *values))
        try:
            return list(self._execute(statement))
        except _FAILURES as error:
            raise self._failure(error) from None

    def change_schema(self, cql: str) -> None:
        """Run a statement that changes a table."""
        try:
            self._session.execute(cql, timeout=120)
        except _FAILURES as error:
            raise self._failure(error) from None

    def make_index(self, name: str, table: str, column: str) -> None:
        """Make an index and wait until the nodes can use it; one whose building failed is made anew.

        Parameters
        ----------
        name : str
            Of the index.
        table, column : str
            What it indexes.

        Raises
        ------
        ServerError
            If it can't be built.
        """
        for _ in range(_INDEX_ATTEMPTS):
            self.change_schema(f"CREATE INDEX IF NOT EXISTS {name} ON {table} (\"{column}\") USING 'sai'")
            if self._is_built(name):
                return
            self.change_schema(f"DROP INDEX IF EXISTS {name}")
        raise ServerError(
            f"Cassandra can't build the index {name}", where=self._url, remedy="the node's system.log says why"
        )

    def _is_built(self, index: str) -> bool:
        """Wait until an index can be used on every node that is up (True), or until one has given it up."""
        states = SimpleStatement(
            "SELECT is_queryable, is_building FROM system_views.sai_column_indexes "
            "WHERE keyspace_name = %s AND index_name = %s"
        )
        for host in self._cluster.metadata.all_hosts():
            idle_until = time.monotonic() + _INDEX_IDLE_S
            while host.is_up:
                raise_if_cancelled()
                try:
                    row = self._session.execute(states, [self._session.keyspace, index], host=host).one()
                except Unauthorized:
                    return True  # then the first question waits
                except _FAILURES as error:
                    raise self._failure(error) from None
                if row is not None and row["is_queryable"]:
                    break
                now = time.monotonic()
                if row is not None and row["is_building"]:
                    idle_until = now + _INDEX_IDLE_S
                if now > idle_until:
                    return False
                time.sleep(0.05)
        return True

    def concurrently(self, statements: Sequence[tuple[Any, Any]]) -> Iterator[Iterator[dict[str, Any]]]:
        """Run statements, some at a time; yield the rows of each in the order given."""
        raise_if_cancelled()
        try:
            for _, result in execute_concurrent(self._session, statements, concurrency=_WINDOW):
                yield interruptible(row for row in result)  # asked for its iterator twice, a result begins a page anew
        except _FAILURES as error:
            raise self._failure(error) from None

    def write(self, statements: Sequence[tuple[Any, Any]]) -> None:
        """Run statements that give no rows, some at a time."""
        for _ in self.concurrently(statements):
            pass

    def now_ms(self) -> int:
        """Return the time of the server, ms since 1970."""
        (row,) = self.do("SELECT toUnixTimestamp(now()) AS now FROM system.local")
        return int(row["now"])

    def _failure(self, error: Exception) -> ServerError:
        if isinstance(error, NoHostAvailable):
            return ServerError(f"Cassandra does not answer: {_short(error)}", where=self._url, remedy=LOST_SERVER)
        remedy = "nodetool rebuild_index, on the node that it names" if _NO_INDEX_YET in str(error) else None
        return ServerError(f"Cassandra failed: {_short(error)}", where=self._url, remedy=remedy)

    def close(self) -> None:
        """Close the connections."""
        self._cluster.shutdown()


def _short(error: Exception) -> str:
    if isinstance(error, NoHostAvailable):
        error = next(iter(error.errors.values()), error.args[0])
    return " ".join(str(error).split())[:300]

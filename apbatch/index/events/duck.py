"""DuckDB over the parts of a store of events: one connection, bounded memory, nothing fetched from outside."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from apbatch.errors import CancelledQueryError
from apbatch.index.cancelling import cancellable
from apbatch.index.events.engine_error import EngineError
from apbatch.storage.filesystem import StoreFileSystem

if TYPE_CHECKING:
    from apbatch.storage.store import Store

#: Beyond this DuckDB sorts and joins on the disk.
MEMORY = "1GB"
ROWS_A_BATCH = 65_536
_GLOB = "*?["


class Duck:
    """A connection of one process; several threads may ask.

    Parameters
    ----------
    store : Store, optional
        Whose files are read.
    memory : str
        Limit, such as ``512MB``.
    """

    def __init__(self, store: Store | None = None, memory: str = MEMORY) -> None:
        self._store = store
        self._folder = tempfile.TemporaryDirectory(prefix="apbatch-duckdb-")
        self._lock = threading.Lock()
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": memory,
                "temp_directory": self._folder.name,
                "threads": str(os.cpu_count() or 1),
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "preserve_insertion_order": "false",
            },
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        if store is not None:
            self._connection.register_filesystem(StoreFileSystem(store, skip_instance_cache=True))

    def place(self, path: str) -> str:
        """Return how SQL names a file of the store."""
        assert self._store is not None
        url = self._store.url_of(path)
        local = url.removeprefix("file://")
        if local != url and not any(char in local for char in _GLOB):
            return local
        return f"{StoreFileSystem.protocol}://{path}"

    def batches(
        self, sql: str, values: Sequence[Any] = (), tables: dict[str, Any] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Run a query; yield its rows.

        Parameters
        ----------
        sql : str
        values : sequence
            Bound in order.
        tables : dict, optional
            Arrow tables or readers that the query names.

        Raises
        ------
        EngineError
        """
        with self._lock:
            cursor = self._connection.cursor()
        try:
            for name, table in (tables or {}).items():
                cursor.register(name, table)
            with cancellable(cursor.interrupt):
                relation = cursor.sql(sql, params=list(values))
                yield from relation.to_arrow_reader(ROWS_A_BATCH)
        except duckdb.InterruptException:
            raise CancelledQueryError("the query was cancelled") from None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise EngineError(error, memory=isinstance(error, duckdb.OutOfMemoryException)) from error
        finally:
            cursor.close()

    def table(self, sql: str, values: Sequence[Any] = (), tables: dict[str, Any] | None = None) -> pa.Table | None:
        """Run a query; return its rows, None if there are none; see `Duck.batches`."""
        batches = list(self.batches(sql, values, tables))
        return pa.Table.from_batches(batches) if batches else None

    def load(self, name: str, batches: Iterator[pa.RecordBatch]) -> None:
        """Keep rows as a table of this connection, beyond the limit of memory on the disk; no table for no rows.

        Raises
        ------
        EngineError
        """
        first = next(batches, None)
        if first is None:
            return
        reader = pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))
        try:
            self._connection.register("incoming", reader)
            self._connection.execute(f'CREATE TABLE "{name}" AS SELECT * FROM incoming')
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise EngineError(error, memory=isinstance(error, duckdb.OutOfMemoryException)) from error
        finally:
            self._connection.unregister("incoming")

    def has(self, name: str) -> bool:
        """Tell whether `load` has made a table."""
        row = self._connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [name]).fetchone()
        return row is not None

    def close(self) -> None:
        """Close; what it wrote for sorting is removed."""
        self._connection.close()
        self._folder.cleanup()

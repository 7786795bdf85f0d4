"""Part files: Parquet written through a store's verified publication, in row groups of a size that readers like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.datasets.commit import Part
from apbatch.formats.parquet import parquet_options
from apbatch.storage.store import Publication, Store

#: Uncompressed bytes of a row group: small enough to hold several in memory, large enough that its header costs
#: nothing and that a split can be cut out of a large file.
ROW_GROUP_BYTES = 12 << 20


class PartWriter:
    """Collects batches and writes them as row groups of a file that is being published."""

    def __init__(self, store: Store, name: str, schema: pa.Schema) -> None:
        self._store, self._name, self._schema = store, name, schema
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self.rows = 0

    @contextmanager
    def writing(self) -> Iterator[PartWriter]:
        """Publish the file when the body ends; nothing of it stays after an error."""
        with (
            self._store.publish(self._name) as file,
            pq.ParquetWriter(
                pa.PythonFile(_Sink(file), mode="w"), self._schema, **parquet_options(self._schema)
            ) as writer,
        ):
            self._writer = writer
            yield self
            self._flush()
        self._published = file

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch; its memory is kept until its row group is written."""
        if not batch.num_rows:
            return
        self.rows += batch.num_rows
        self._waiting.append(batch)
        self._waiting_bytes += batch.nbytes
        if self._waiting_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._waiting, self._waiting_bytes = [], 0

    def part(self) -> Part:
        """Return what was written, once it is published."""
        written = self._published.checksums
        return Part(self._name, self.rows, written.size, written.blake3)


class _Sink:
    """What Arrow writes to: a publication as a file object."""

    def __init__(self, file: Publication) -> None:
        self._file, self._position, self.closed = file, 0, False

    def write(self, block: bytes | memoryview) -> int:
        size = memoryview(block).nbytes
        self._file.write(block)
        self._position += size
        return size

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

"""Many small part files of a dataset made into few, in place or elsewhere: the same rows in the same order.

A task reads the part files of one stretch of the dataset and writes one; it reads what it wrote and compares the
contents, whatever the layout of row groups. By the protocol of `apbatch.datasets.commit` the dataset is the old one
until every task is done, and the new one from then on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import blake3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apbatch.datasets import dataset
from apbatch.datasets.commit import DatasetCommit, SplitRecord, Staging
from apbatch.datasets.part_files import PartWriter
from apbatch.errors import FormatError, UsageError, VerificationError
from apbatch.formats.parquet import open_parquet, reading
from apbatch.provenance import digest, provenance
from apbatch.spark.bulk import run_splits
from apbatch.spark.inputs.places import with_hosts
from apbatch.spark.inputs.splits import BLOCK_BYTES, Piece, Split, dataset_files
from apbatch.spark.jobs import Meter
from apbatch.spark.summary import StepSummary, summed
from apbatch.storage.backends import open_store, open_url

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Smaller part files are no fewer.
LEAST_BYTES = 10**6
_ROWS = 2048
_ROLE = "dataset"


def compact(
    spark: SparkSession, url: str, output_url: str | None = None, target_bytes: int = BLOCK_BYTES
) -> StepSummary:
    """Make few part files of many; a dataset that has no more than it needs stays as it is.

    Parameters
    ----------
    spark : SparkSession
    url : str
        A complete dataset of any kind.
    output_url : str, optional
        Where the new one goes; by default it takes the place of the old one.
    target_bytes : int
        Size that part files should have: a block of HDFS by default.

    Returns
    -------
    StepSummary
        Its `images` are rows; `tasks` is 0 if there was nothing to do.

    Raises
    ------
    NotFoundError
        If there is no complete dataset.
    FormatError
        If part files have different columns.
    UsageError
        If the size makes no sense, or another program is writing the dataset.
    ServerError
        If Spark or a store fails, or what was written is not what was read: the old dataset stays, and the same call
        goes on.
    """
    started = time.monotonic()
    check_size(target_bytes)
    output_url = output_url or url
    sidecar = dataset.info(url)
    sources, sizes = dataset_files(url)
    splits = stretches([Piece(source, sizes[source.url][0]) for source in sources], target_bytes)
    if output_url.rstrip("/") == url.rstrip("/") and len(splits) == len(sources):
        return StepSummary(dataset.count_rows(url), time.monotonic() - started)
    key = digest(["compact", url, sizes, target_bytes])
    meter = Meter()
    with DatasetCommit({_ROLE: output_url}, key) as job:
        start = time.monotonic()
        records = run_splits(spark, with_hosts(splits), Compaction(job.staging), job, "compact", meter)
        seconds = time.monotonic() - start
        content = {name: value for name, value in sidecar.items() if name not in ("files", "generation")}
        origin = provenance("compact", [source.url for source in sources], {"target_bytes": target_bytes})
        job.commit(records, {_ROLE: {**content, "compacted": {**origin, "part_files": [len(sources), len(splits)]}}})
    return summed(records, meter, started, seconds, {}, [], {})


def is_compact(url: str, target_bytes: int = BLOCK_BYTES) -> bool:
    """Tell whether a dataset has no more part files than it needs.

    Raises
    ------
    NotFoundError, FormatError
    """
    sources, sizes = dataset_files(url)
    return len(stretches([Piece(source, sizes[source.url][0]) for source in sources], target_bytes)) == len(sources)


def check_size(target_bytes: int) -> None:
    """Refuse a size of part files that makes no sense.

    Raises
    ------
    UsageError
    """
    if target_bytes < LEAST_BYTES:
        raise UsageError(f"part files of {target_bytes} bytes would not be few", remedy="choose at least 1 Mbyte")


def stretches(pieces: Sequence[Piece], target_bytes: int) -> list[Split]:
    """Cut the part files of a dataset, in their order, into stretches of about the same size near the target."""
    total = sum(piece.bytes for piece in pieces)
    n_files = max(1, round(total / target_bytes))
    groups: list[list[Piece]] = []
    before = 0
    for piece in pieces:
        if not groups or (len(groups) < n_files and before >= len(groups) * total / n_files):
            groups.append([])
        groups[-1].append(piece)
        before += piece.bytes
    return [Split(number, tuple(part), sum(piece.bytes for piece in part)) for number, part in enumerate(groups)]


@dataclass
class Compaction:
    """What a task does with a stretch of part files: sent to the workers."""

    staging: Staging

    def __call__(self, split: Split) -> SplitRecord:
        """Read, write, read again and compare; return the record, which is kept beside the part as well.

        Raises
        ------
        FormatError
            If a part file is damaged, or has other columns than the first.
        VerificationError
            If what was written is not what was read.
        """
        started = time.monotonic()
        name, store = self.staging.attempt(split.number), open_store(self.staging.outputs[_ROLE])
        urls = [piece.source.url for piece in split.pieces]
        schema, read = _schema_of(urls[0]), ContentDigest()
        with PartWriter(store, f"{name}.parquet", schema).writing() as writer:
            for batch in _batches(urls, schema):
                read.add(batch)
                writer.write(batch)
        wrote = ContentDigest()
        for batch in _batches([store.url_of(f"{name}.parquet")], schema):
            wrote.add(batch)
        if read.result() != wrote.result():
            raise VerificationError("what was written is not what was read", where=store.url_of(f"{name}.parquet"))
        parts = {_ROLE: writer.part()} if read.rows else {}
        if not read.rows:  # Spark leaves empty part files
            store.remove(f"{name}.parquet")
        record = SplitRecord(split.number, read.rows, parts, split.bytes, [], time.monotonic() - started)
        self.staging.keep_record(name, record)
        return record


@dataclass
class ContentDigest:
    """The hash of rows in their order, the same however they are cut into batches, row groups and files."""

    rows: int = 0
    _hashers: dict[str, Any] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in rows."""
        self.rows += batch.num_rows
        for column in batch.schema:
            hasher = self._hashers.setdefault(f"{column.name}\x1f{column.type}", [blake3.blake3() for _ in range(3)])
            _hash(batch.column(column.name), *hasher)

    def result(self) -> str:
        """Return the hash, hexadecimal."""
        whole = blake3.blake3(str(self.rows).encode())
        for name, hashers in sorted(self._hashers.items()):
            whole.update(name.encode())
            for hasher in hashers:
                whole.update(hasher.digest())
        return str(whole.hexdigest())


def content_digest(url: str) -> str:
    """Return the hash of the rows of a dataset in their order.

    Raises
    ------
    NotFoundError, FormatError
    """
    digest = ContentDigest()
    for batch in dataset.read_batches(url, rows=_ROWS):
        digest.add(batch)
    return digest.result()


def _hash(array: pa.Array, values: Any, nulls: Any, lengths: Any) -> None:
    """Feed three hashers: with the values, with which are null, and, of texts and bytes, with how long each is."""
    nulls.update(array.is_null().to_numpy(zero_copy_only=False).astype("u1").tobytes())
    if pa.types.is_binary(array.type) or pa.types.is_string(array.type):
        lengths.update(pc.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
        data = array.buffers()[2]
        if data is not None and len(array):
            values.update(memoryview(data)[int(offsets[0]) : int(offsets[-1])])
        return
    if pa.types.is_timestamp(array.type) or pa.types.is_boolean(array.type):
        array = array.cast(pa.int64())
    values.update(np.ascontiguousarray(array.fill_null(0).to_numpy(zero_copy_only=False)).tobytes())


def _schema_of(url: str) -> pa.Schema:
    with open_url(url) as stream:
        return open_parquet(stream, url).schema_arrow


def _batches(urls: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Read part files one after the other."""
    for url in urls:
        with open_url(url) as stream, reading(url):
            file = open_parquet(stream, url)
            if not file.schema_arrow.equals(schema):
                raise FormatError(
                    f"other columns than in {urls[0]}", where=url, remedy="make the dataset again: its parts differ"
                )
            for batch in _whole(file.iter_batches(_ROWS, use_threads=False)):
                yield batch.replace_schema_metadata(schema.metadata)


def _whole(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    return (batch for batch in batches if batch.num_rows)

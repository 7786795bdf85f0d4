"""Compaction: what is hashed does not depend on the layout, stretches keep the order, contents are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.datasets import dataset
from apbatch.datasets.commit import DatasetCommit
from apbatch.errors import FormatError
from apbatch.provenance import digest
from apbatch.spark.compact import Compaction, ContentDigest, content_digest, stretches
from apbatch.spark.inputs.sources import Source
from apbatch.spark.inputs.splits import DATASET, Piece, dataset_files
from tests.synthetic import write_dataset

ROWS = 50


def content(seed: int = 1) -> pa.Table:
    random = np.random.default_rng(seed)
    images = [bytes(random.integers(0, 255, 20 + n % 3, np.uint8)) for n in range(ROWS)]
    size = random.random(ROWS)
    size[3] = np.nan
    return pa.table(
        {
            "experiment": pa.array([None if n % 7 == 0 else f"ä{n}" for n in range(ROWS)]),
            "event": pa.array(random.permutation(ROWS), pa.int64()), "image": pa.array(images),
            "mask": pa.array([None if n % 5 == 0 else b"x" for n in range(ROWS)]), "size": size,
            "flag": pa.array([None if n == 9 else n % 2 == 0 for n in range(ROWS)]),
            "time": pa.array(range(ROWS), pa.timestamp("ns", tz="UTC")),
        }
    )  # fmt: skip


def hashed(table: pa.Table, cuts: list[int]) -> str:
    found = ContentDigest()
    for start, stop in zip([0, *cuts], [*cuts, table.num_rows], strict=True):
        for batch in table.slice(start, stop - start).to_batches():
            found.add(batch)
    return found.result()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, ROWS)).map(sorted), st.lists(st.integers(0, ROWS)).map(sorted))
def test_the_hash_of_a_content_is_the_same_however_it_is_cut(some: list[int], others: list[int]) -> None:
    assert hashed(content(), some) == hashed(content(), others)


@pytest.mark.parametrize("column", ["experiment", "event", "image", "mask", "size", "flag", "time"])
def test_every_column_counts_and_so_does_the_order(column: str) -> None:
    table = content()
    place = table.schema.get_field_index(column)
    values = table[column].to_pylist()
    values[10], values[11] = values[11], values[10]
    changed = table.set_column(place, table.schema.field(column), pa.array(values, table[column].type))
    assert hashed(changed, []) != hashed(table, [])


def test_bytes_moved_from_one_row_to_the_next_are_another_content() -> None:
    one, other = pa.table({"a": [b"xy", b"z"]}), pa.table({"a": [b"x", b"yz"]})
    assert hashed(one, []) != hashed(other, [])
    assert hashed(pa.table({"a": [None, b""]}), []) != hashed(pa.table({"a": [b"", None]}), [])


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60), st.integers(1, 20_000))
def test_stretches_hold_every_file_once_in_order_and_near_the_target(sizes: list[int], target: int) -> None:
    pieces = [Piece(Source(f"file:///{n}", DATASET, ""), size) for n, size in enumerate(sizes)]
    splits = stretches(pieces, target)
    assert [piece for split in splits for piece in split.pieces] == pieces
    assert [split.number for split in splits] == list(range(len(splits)))
    assert len(splits) <= max(1, round(sum(sizes) / target))
    assert all(split.bytes <= sum(sizes) / max(1, round(sum(sizes) / target)) + max(sizes) for split in splits)


def run(url: str, output: str, target: int = 1 << 30, kill_after: int | None = None) -> int:
    """What `compact` does, in this process; return how many stretches an earlier run had finished."""
    sources, sizes = dataset_files(url)
    splits = stretches([Piece(source, sizes[source.url][0]) for source in sources], target)
    with DatasetCommit({"dataset": output}, digest([url, sizes, target])) as job:
        done = job.finished([split.number for split in splits])
        resumed = len(done)
        for split in splits:
            if split.number in done:
                continue
            if kill_after is not None and len(done) == kill_after:
                raise KeyboardInterrupt
            done[split.number] = Compaction(job.staging)(split)
        job.commit(done.values(), {"dataset": {"kind": "images"}})
    return resumed


def test_rows_and_their_order_are_kept(tmp_path: Path) -> None:
    url = write_dataset(tmp_path / "d", content(), {"kind": "images"}, parts=7)
    pq.write_table(content().slice(0, 0), tmp_path / "d" / "part-99999.parquet")  # as Spark leaves them
    before, table = content_digest(url), dataset.read_table(url)
    run(url, f"file://{tmp_path}/other")
    assert content_digest(url) == content_digest(f"file://{tmp_path}/other") == before
    run(url, url)
    assert len(dataset.part_files(url)) == 1 and len(list((tmp_path / "d").glob("*.parquet"))) == 1
    assert content_digest(url) == before
    assert dataset.read_table(url).drop_columns(["size"]).equals(table.drop_columns(["size"]))  # NaN is not NaN


def test_part_files_of_other_columns_or_damaged_change_nothing(tmp_path: Path) -> None:
    url = write_dataset(tmp_path / "d", content(), {"kind": "images"})
    odd = tmp_path / "d" / "part-00001.parquet"
    whole = odd.read_bytes()
    pq.write_table(pa.table({"event": [1]}), odd)
    with pytest.raises(FormatError, match=r"part-00001\.parquet: other columns than in"):
        run(url, url)
    odd.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"part-00001\.parquet: not a readable Parquet file"):
        run(url, url)
    odd.write_bytes(whole)
    assert len(dataset.part_files(url)) == 3
    run(url, url)
    assert len(dataset.part_files(url)) == 1


def test_a_killed_compaction_leaves_the_old_dataset_and_goes_on(tmp_path: Path) -> None:
    url = write_dataset(tmp_path / "d", content(), {"kind": "images"}, parts=8)
    before, names = content_digest(url), dataset.part_files(url)
    target = sum(size for size, _ in dataset_files(url)[1].values()) // 4
    with pytest.raises(KeyboardInterrupt):
        run(url, url, target, kill_after=2)
    assert dataset.part_files(url) == names and content_digest(url) == before
    assert run(url, url, target) == 2
    assert len(dataset.part_files(url)) == 4 and content_digest(url) == before
    assert {path.name for path in (tmp_path / "d").glob("*.parquet")} == set(dataset.part_files(url))

"""Cutting input into tasks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apbatch.datasets.commit import Loss
from apbatch.spark.bulk import largest_first
from apbatch.spark.inputs import places
from apbatch.spark.inputs.sources import Source
from apbatch.spark.inputs.splits import DATASET, FEWEST_BYTES, Piece, Split, file_splits, packed, split_bytes
from apbatch.spark.jobs import tally

MB = 1 << 20


def piece(name: str, size: int) -> Piece:
    return Piece(Source(f"hdfs://n:1/{name}", "apbatch-images", "X"), size)


@given(st.lists(st.integers(0, 300 * MB), max_size=60), st.integers(2 * MB, 128 * MB))
def test_nothing_is_lost_or_doubled_and_splits_have_a_size(sizes, target):
    pieces = [piece(str(number), size) for number, size in enumerate(sizes)]
    splits = packed(pieces, target)
    assert [one for split in splits for one in split.pieces] == pieces
    assert [split.number for split in splits] == list(range(len(splits)))
    for split in splits:
        assert len(split.pieces) == 1 or split.bytes <= 1.25 * target
    for one, other in pairwise(splits):  # no two neighbours would have fitted into one
        assert one.bytes + other.bytes + (len(one.pieces) + len(other.pieces)) * MB >= target


@pytest.mark.parametrize(
    ("total", "cores", "wanted"),
    [(10**12, 8, 128 * MB), (10**6, 8, FEWEST_BYTES), (600 * MB, 4, 50 * MB), (0, 2, FEWEST_BYTES)],
)
def test_size_of_a_split(total, cores, wanted):
    assert split_bytes(total, cores) == wanted


def test_the_largest_comes_first_and_keeps_its_number():
    splits = packed([piece("a", MB), piece("b", 9 * MB), piece("c", 5 * MB)], 2 * MB)
    assert [split.number for split in largest_first(splits)] == [1, 2, 0]


def test_a_large_part_file_is_cut_between_row_groups(tmp_path):
    path = tmp_path / "part.parquet"
    table = pa.table({"image": [bytes(1000)] * 1000})
    pq.write_table(table, path, row_group_size=100, compression="none", use_dictionary=False)
    source, size = Source(f"file://{path}", DATASET, ""), path.stat().st_size
    splits = file_splits([source], {source.url: (size, 0)}, size // 3)
    stretches = [one.stretch for split in splits for one in split.pieces]
    assert stretches == [(0, 4), (4, 8), (8, 10)]
    assert file_splits([source], {source.url: (size, 0)}, size)[0].pieces == (Piece(source, size),)
    path.write_bytes(b"no Parquet at all" * 100)
    assert len(file_splits([source], {source.url: (1700, 0)}, 100)) == 1  # the task will say what is wrong


def test_a_split_goes_where_its_blocks_are(monkeypatch):
    blocks = {"hdfs://n:1/a": [["one", "two"], ["two", "three"], ["four"]], "hdfs://n:1/b": []}
    monkeypatch.setattr(places, "_blocks", blocks.__getitem__)
    source = piece("a", 0).source
    cut = [Split(number, (Piece(source, 100, (number, number + 1)),), 100) for number in range(3)]
    assert [split.hosts for split in places.with_hosts(cut)] == [("one", "two"), ("two", "three"), ("four",)]
    assert places.with_hosts([replace(cut[0], pieces=(piece("b", 5),))])[0].hosts == ()
    local = Split(0, (Piece(Source("file:///a", "x", "X"), 5),), 5)
    assert places.with_hosts([local]) == [local]


def test_losses_are_summed_but_a_file_is_lost_once():
    losses = [
        Loss("u", "unreadable files", 1, "u: gone"),
        Loss("u", "unreadable files", 1, "u: gone, said another task"),
        Loss("v", "damaged images", 2, "v: 2"),
        Loss("v", "damaged images", 2, "v: 2"),
    ]
    assert tally(losses) == ({"damaged images": 4, "unreadable files": 1}, ["u: gone", "v: 2"])
    many = [Loss(str(number), "odd", 1, f"{number:03}") for number in range(120)]
    assert tally(many)[1][-1] == "20 more problems"

"""Single images of Parquet files: found by their keys, and read without the pixels of others."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.datasets.image_rows import Bounds, Places, only_wanted, read_rows, rows_by_file
from apbatch.errors import FormatError
from apbatch.formats.images import from_binary, to_binary

PIXELS, GROUPS, A_GROUP = 560, 16, 64
WRITING = {"use_dictionary": ["experiment"], "write_statistics": ["run", "event"]}
COLUMNS = {"run": pa.int64(), "event": pa.int64(), "image": pa.binary()}


class Counting(io.BytesIO):
    """A stream that counts what is read of it, and where."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.ranges: list[tuple[int, int]] = []

    def read(self, size: int | None = -1, /) -> bytes:
        start = self.tell()
        block = super().read(size)
        self.ranges.append((start, start + len(block)))
        return block

    def readinto(self, buffer: memoryview, /) -> int:
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    @property
    def bytes(self) -> int:
        return sum(stop - start for start, stop in self.ranges)


def table(runs: list[int], events: list[int], experiment: str = "T") -> pa.Table:
    """Images whose pixels are all the number of the row: each can be told from the others."""
    count = len(events)
    pixels = np.repeat(np.arange(count, dtype=np.float32)[:, None], PIXELS, axis=1)
    pixels += np.random.default_rng(1).random(pixels.shape, np.float32) / 2  # so that nothing can be compressed away
    return pa.table(
        {
            "experiment": pa.array([experiment] * count), "run": pa.array(runs, pa.int64()),
            "event": pa.array(events, pa.int64()), "telescope": pa.array([1] * count, pa.int32()),
            "time_ns": pa.array(range(count), pa.int64()), "image": to_binary(pixels),
            "mask": to_binary(pixels > 1),
        }
    )  # fmt: skip


def stored(content: pa.Table, a_group: int = A_GROUP) -> bytes:
    sink = io.BytesIO()
    pq.write_table(content, sink, row_group_size=a_group, compression="zstd", **WRITING)
    return sink.getvalue()


@pytest.fixture(scope="module")
def shuffled() -> pa.Table:
    """Events in no order, as a shuffle leaves them: statistics of row groups exclude nothing."""
    return table([7] * (GROUPS * A_GROUP), np.random.default_rng(2).permutation(GROUPS * A_GROUP).tolist())


def image_bytes(content: bytes, group: int, *columns: str) -> int:
    footer = pq.read_metadata(io.BytesIO(content)).row_group(group)
    places = [footer.column(place) for place in range(footer.num_columns)]
    return sum(place.total_compressed_size for place in places if place.path_in_schema in columns)


def test_only_the_row_groups_and_columns_of_wanted_images_are_read(shuffled):
    content = stored(shuffled)
    places, scanned = Places(), Counting(content)
    places.scan(scanned, "a")
    pixels = sum(image_bytes(content, group, "image", "mask") for group in range(GROUPS))
    assert scanned.bytes < 0.1 * pixels  # keys alone
    wanted = shuffled.slice(3 * A_GROUP + 5, 4)  # of one row group
    ((_, rows),) = rows_by_file(places.files, *places.find(wanted)).items()
    assert rows == ((3, (5, 6, 7, 8)),)
    stream = Counting(content)
    (batch,) = read_rows(stream, "a", rows, COLUMNS, 1000)
    assert batch.to_pydict() == wanted.select(list(COLUMNS)).to_pydict()
    footer = len(content) - max(
        column.data_page_offset + column.total_compressed_size
        for column in [pq.read_metadata(io.BytesIO(content)).row_group(GROUPS - 1).column(6)]
    )
    needed = image_bytes(content, 3, *COLUMNS)
    assert needed <= stream.bytes <= needed + 2 * footer + 70_000  # Arrow asks for the last 64 kB first
    assert stream.bytes < len(content) / 4
    # not one byte of the masks of that row group
    mask = pq.read_metadata(io.BytesIO(content)).row_group(3).column(6)
    assert mask.path_in_schema == "mask"
    first, last = mask.data_page_offset, mask.data_page_offset + mask.total_compressed_size
    assert not any(start < last and first < stop for start, stop in stream.ranges)


def test_row_groups_that_can_hold_none_of_the_wanted_are_not_looked_at():
    content = stored(table([7] * (GROUPS * A_GROUP), list(range(GROUPS * A_GROUP))))
    all_keys, some = Counting(content), Counting(content)
    Places().scan(all_keys, "a")
    places = Places()
    wanted = pa.table({"experiment": ["T"], "run": [7], "event": [134], "telescope": pa.array([1], pa.int32())})
    places.scan(some, "a", Bounds.of(wanted))
    assert [found.tolist() for found in places.find(wanted)] == [[0], [2], [6]]
    in_group = image_bytes(content, 2, "experiment", "run", "event", "telescope")
    others = image_bytes(content, 5, "experiment", "run", "event", "telescope")
    assert in_group > 0
    assert all_keys.bytes - some.bytes >= (GROUPS - 2) * others


def test_of_several_files_each_gets_its_rows():
    first, second = table([1, 1], [5, 6]), table([1, 2, 2], [7, 5, 6])
    places = Places()
    for name, content in (("a", first), ("b", second)):
        places.scan(io.BytesIO(stored(content)), name)
    wanted = pa.concat_tables([second.slice(2), first.slice(1), table([9], [9])])
    numbers, groups, rows = places.find(wanted)
    assert numbers.tolist() == [1, 0, -1] and groups.tolist() == [0, 0, -1] and rows.tolist() == [2, 1, -1]
    assert rows_by_file(places.files, numbers, groups, rows) == {"a": ((0, (1,)),), "b": ((0, (2,)),)}
    assert places.experiments() == ["T"]


keys = st.tuples(st.sampled_from([1, 2]), st.integers(-3, 30))


@settings(max_examples=60, deadline=None)
@given(st.lists(keys, min_size=1, max_size=60), st.lists(keys, max_size=20), st.integers(1, 13), st.integers(1, 7))
def test_selected_images_are_those_that_a_full_reading_gives(there, wanted, a_group, batch):
    content = table([run for run, _ in there], [event for _, event in there])
    data = stored(content, a_group)
    asked = table([run for run, _ in wanted], [event for _, event in wanted])
    places = Places()
    places.scan(io.BytesIO(data), "a", Bounds.of(asked))
    rows = rows_by_file(places.files, *places.find(asked)).get("a", ())
    batches = list(read_rows(io.BytesIO(data), "a", rows, COLUMNS, batch))
    got = [float(pixels[0]) // 1 for found in batches for pixels in from_binary(found.column("image"))]
    # of images with one key the first, whatever was asked how often
    first = {key: place for place, key in reversed(list(enumerate(there)))}
    assert got == sorted(first[key] for key in set(wanted) if key in first)
    assert all(found.num_rows <= batch for found in batches)


def test_a_time_of_a_sites_file_becomes_nanoseconds():
    content = table([1], [5])
    times = pa.array([1_509_206_462_345_678_901], pa.timestamp("ns", tz="UTC"))
    content = content.drop_columns(["time_ns"]).append_column("time", times)
    (batch,) = read_rows(io.BytesIO(stored(content)), "a", ((0, (0,)),), {"time_ns": pa.int64()}, 10)
    assert batch.column("time_ns").to_pylist() == [1_509_206_462_345_678_901]


@pytest.mark.parametrize("rows", [((9, (0,)),), ((0, (99,)),)])
def test_a_pointer_into_nothing_is_told(shuffled, rows):
    with pytest.raises(FormatError, match=r"a: there is no row .* register its events again"):
        list(read_rows(io.BytesIO(stored(shuffled.slice(0, A_GROUP))), "a", rows, COLUMNS, 10))


def test_a_file_without_the_column_or_cut_is_told(shuffled):
    content = stored(shuffled)
    with pytest.raises(FormatError, match="no column 'grid'"):
        list(read_rows(io.BytesIO(content), "a", ((0, (0,)),), {"grid": pa.binary()}, 10))
    (batch,) = read_rows(io.BytesIO(content), "a", ((0, (0,)),), {"peak_time": pa.binary(), "run": pa.int64()}, 10)
    assert batch.to_pydict() == {"peak_time": [None], "run": [7]}
    for cut in (content[: len(content) // 2], content[4:], b""):
        with pytest.raises(FormatError, match="a: not a readable Parquet file"):
            Places().scan(io.BytesIO(cut), "a")


def test_images_that_are_not_wanted_are_left_out():
    (batch,) = table([1, 1, 2], [5, 6, 5]).to_batches()
    assert only_wanted(batch, [(1, 6, 1), (2, 5, 1), (2, 5, 2)]).column("event").to_pylist() == [6, 5]
    assert only_wanted(batch, ()).num_rows == 3

"""Training images from disk: every image once an epoch, the same for one rank and two, errors of the reading thread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.training.data import load
from apbatch.dl.training.shards import Shards
from apbatch.errors import FormatError, UsageError
from tests.synthetic import showers


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    """With row groups of 30 images, as a large set has them of thousands."""
    inputs = showers(tmp_path_factory.mktemp("showers"), 60, 90)
    made = blind.make(**inputs, folder=tmp_path_factory.mktemp("blind"), settings=BlindSettings(open=True, seed=3))
    place = made.files / "train.parquet"
    pq.write_table(pq.read_table(place), place, row_group_size=30)
    return made


def shards(made: BlindSet) -> Shards:
    return Shards(made.files, made.manifest, "soft")


def epoch(known: Shards, number: int, parts: int = 2, mine: range = range(2)) -> list[tuple]:
    return list(known.batches(number, seed=5, batch=16, parts=parts, mine=mine))


def test_pixels_are_those_of_memory(made: BlindSet) -> None:
    known, whole = shards(made), load(made.files, made.manifest, "train", "soft").pixels
    for pixels, rows, _ in epoch(known, 0):
        assert np.array_equal(known.grids(pixels), whole[rows])


def test_an_epoch_takes_no_image_twice_and_nearly_all(made: BlindSet) -> None:
    known = shards(made)
    rows = np.concatenate([rows for _, rows, _ in epoch(known, 0)])
    assert len(np.unique(rows)) == len(rows)
    assert len(rows) > len(known.ids) - 30 - 2 * 16


def test_the_next_epoch_is_in_another_order_and_the_same_one_repeats(made: BlindSet) -> None:
    known = shards(made)
    first, again, other = (np.concatenate([rows for _, rows, _ in epoch(known, n)]) for n in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_two_ranks_see_together_what_one_rank_sees(made: BlindSet) -> None:
    known = shards(made)
    one = epoch(known, 3)
    two = [epoch(known, 3, mine=range(rank, rank + 1)) for rank in range(2)]
    assert len(one) == len(two[0]) == len(two[1])
    for whole, left, right in zip(one, *two, strict=True):
        assert np.array_equal(whole[1], np.concatenate([left[1], right[1]]))
        assert np.array_equal(whole[2], np.concatenate([left[2], right[2]]))


def test_all_ranks_take_equally_many_steps(made: BlindSet) -> None:
    known = shards(made)
    steps = {len(epoch(known, 1, parts=4, mine=range(part, part + 1))) for part in range(4)}
    assert steps == {known.steps(16, 4)}


def test_more_parts_than_row_groups_is_an_error(made: BlindSet) -> None:
    with pytest.raises(UsageError, match="row groups"):
        shards(made).deal(1000)


def test_a_file_that_breaks_while_it_is_read_is_an_error_and_no_hang(made: BlindSet, tmp_path: Path) -> None:
    known = shards(made)
    place = tmp_path / "train.parquet"
    content = bytearray((made.files / "train.parquet").read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    place.write_bytes(content)
    known._place = place
    with pytest.raises(FormatError):
        epoch(known, 0)

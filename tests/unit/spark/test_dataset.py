"""Datasets that are replaced while they are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.datasets import dataset
from apbatch.errors import FormatError, NotFoundError
from apbatch.storage.local import LocalStore
from tests.synthetic import write_dataset


def put(folder: Path, name: str, *values: int) -> None:
    """Make the part file `name` the dataset, as a commit does: the sidecar is replaced, then old parts go."""
    pq.write_table(pa.table({"x": list(values)}), folder / name)
    (folder / "_apbatch.json").write_text(json.dumps({"files": [{"name": name}]}))
    for path in folder.glob("*.parquet"):
        if path.name != name:
            path.unlink()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "set", pa.table({"x": [1]}), {}, parts=1)
    put(tmp_path / "set", "first.parquet", 1, 2)
    return tmp_path / "set"


@pytest.fixture
def replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A dataset that is replaced just when its first part file is about to be opened; the names that were opened."""
    opened: list[str] = []
    real = LocalStore.open

    def replace_first(self: LocalStore, path: str, *more: Any) -> Any:
        if path.endswith(".parquet"):
            opened.append(path)
            if path == "first.parquet":
                put(folder, "second.parquet", 3, 4, 5)
        return real(self, path, *more)

    monkeypatch.setattr(LocalStore, "open", replace_first)
    return opened


@pytest.mark.parametrize(
    "read",
    [
        lambda url: dataset.read_table(url)["x"].to_pylist(),
        lambda url: [x for batch in dataset.read_batches(url) for x in batch["x"].to_pylist()],
        lambda url: [3, 4, 5] if dataset.schema(url).names == ["x"] else [],
    ],
)
def test_a_dataset_that_is_replaced_is_read_again_from_the_new_one(
    folder: Path, replaced: list[str], read: Callable[[str], list[int]]
) -> None:
    assert read(f"file://{folder}") == [3, 4, 5]
    assert replaced == ["first.parquet", "second.parquet"]


def test_a_part_file_that_is_gone_is_an_error_where_nothing_took_its_place(folder: Path) -> None:
    (folder / "first.parquet").unlink()
    for read in (dataset.read_table, lambda url: list(dataset.read_batches(url)), dataset.schema):
        with pytest.raises(NotFoundError):
            read(f"file://{folder}")


def test_batches_of_two_datasets_are_never_mixed(folder: Path) -> None:
    pq.write_table(pa.table({"x": [7]}), folder / "more.parquet")
    (folder / "_apbatch.json").write_text(json.dumps({"files": [{"name": "first.parquet"}, {"name": "more.parquet"}]}))
    batches = dataset.read_batches(f"file://{folder}")
    assert next(batches)["x"].to_pylist() == [1, 2]
    put(folder, "second.parquet", 3)
    with pytest.raises(FormatError, match="replaced while it was read"):
        list(batches)

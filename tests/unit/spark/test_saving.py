"""Saving DataFrames: of a partition that was written twice, one part file stays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

pyspark = pytest.importorskip("pyspark")

from apbatch.camera.instruments.registry import camera_named  # noqa: E402
from apbatch.chain.recipe import Recipe  # noqa: E402
from apbatch.chain.steps import GRIDS  # noqa: E402
from apbatch.datasets import dataset  # noqa: E402
from apbatch.datasets.commit import DatasetCommit, SplitRecord  # noqa: E402
from apbatch.formats.images import to_binary  # noqa: E402
from apbatch.spark.saving import _Write  # noqa: E402


def batch(first: int, rows: int) -> pa.RecordBatch:
    grid = to_binary(np.full((rows, 4), first, np.float32))
    columns = {
        "experiment": pa.array(["X"] * rows), "run": pa.array([1] * rows, pa.int64()),
        "event": pa.array(range(first, first + rows), pa.int64()), "telescope": pa.array([1] * rows, pa.int32()),
        "grid": grid, "grid_cleaned": grid,
    }  # fmt: skip
    return pa.RecordBatch.from_arrays([columns[name] for name in GRIDS.names], schema=GRIDS)


def test_a_partition_written_twice_is_in_the_dataset_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = SimpleNamespace(partitionId=lambda: 3)
    monkeypatch.setattr(pyspark.TaskContext, "get", lambda: task)
    url = f"file://{tmp_path}/grids"
    with DatasetCommit({"grids": url}, "k") as job:
        write = _Write(job.staging, Recipe(camera_named("TAIGA-IACT01"), ("grids",), "none"))

        def attempt(batches: list[pa.RecordBatch]) -> SplitRecord:
            (found,) = write(iter(batches))
            return SplitRecord.from_json(found.column("record")[0].as_py())

        attempt([batch(0, 5), batch(5, 2)])
        taken = attempt([batch(0, 5), batch(5, 2)])
        task.partitionId = lambda: 4
        empty = attempt([])
        assert (taken.images, empty.images, empty.parts) == (7, 0, {})
        job.commit([taken, empty], {"grids": {"kind": "grids"}})
    assert dataset.read_table(url)["event"].to_pylist() == list(range(7))
    assert {path.name for path in (tmp_path / "grids").iterdir()} == {
        "_SUCCESS",
        "_apbatch.json",
        *dataset.part_files(url),
    }

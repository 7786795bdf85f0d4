"""The project's own Parquet files as a format of sites."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.errors import FormatError
from apbatch.formats.images import TRUTH_SCHEMA, from_binary, image_schema, to_binary
from apbatch.formats.reader import ImageReader, Reader, recognise


def write_images(path: Path, count: int = 5) -> np.ndarray:
    pixels = np.arange(count * 560, dtype=np.float32).reshape(count, 560)
    schema = image_schema("TAIGA-IACT01")
    time = pa.array([datetime(2018, 1, 1, 20, tzinfo=UTC)] * count, schema.field("time").type)
    table = pa.table(
        {
            "experiment": ["TAIGA-SIM"] * count,
            "run": [3] * count,
            "event": list(range(10, 10 + count)),
            "telescope": pa.array([1] * count, pa.int32()),
            "time": time,
            "image": to_binary(pixels),
        },
        schema=schema,
    )
    pq.write_table(table, path)
    return pixels


def write_truth(path: Path) -> None:
    columns = {field.name: pa.nulls(2, field.type) for field in TRUTH_SCHEMA}
    columns |= {"experiment": ["TAIGA-SIM"] * 2, "run": [3, 3], "event": [1, 2], "shower": [1, 1]}
    columns |= {"telescope": pa.array([1, 1], pa.int32()), "primary": ["proton", "gamma"], "true_energy": [2.0, 5.0]}
    pq.write_table(pa.table(columns, schema=TRUTH_SCHEMA), path)


def reader_of(path: Path) -> Reader | None:
    with path.open("rb") as stream:
        return recognise(path.name, stream.read(4096), stream)


def test_images_are_described_by_their_keys(tmp_path: Path) -> None:
    write_images(tmp_path / "a.parquet")
    reader = reader_of(tmp_path / "a.parquet")
    assert reader is not None and reader.name == "apbatch-images"
    with (tmp_path / "a.parquet").open("rb") as stream:
        found = reader.metadata(stream, "a.parquet")
    assert (found.experiment, found.run, found.telescope, found.events) == ("TAIGA-SIM", 3, 1, 5)
    assert found.time_start == datetime(2018, 1, 1, 20, tzinfo=UTC)
    assert found.attributes == {"camera": "TAIGA-IACT01", "cleaned": False, "event_first": 10, "event_last": 14}


def test_images_come_back_as_written(tmp_path: Path) -> None:
    pixels = write_images(tmp_path / "a.parquet")
    reader = reader_of(tmp_path / "a.parquet")
    assert isinstance(reader, ImageReader)
    with (tmp_path / "a.parquet").open("rb") as stream:
        batches = list(reader.images(stream, "a.parquet", batch_size=2))
    assert np.array_equal(np.vstack([from_binary(batch["image"]) for batch in batches]), pixels)
    assert all(batch.schema.equals(image_schema("TAIGA-IACT01"), check_metadata=True) for batch in batches)


def test_truth_is_told_from_images_by_its_schema_and_not_by_its_name(tmp_path: Path) -> None:
    write_truth(tmp_path / "a.parquet")
    reader = reader_of(tmp_path / "a.parquet")
    assert reader is not None and reader.name == "apbatch-truth"
    with (tmp_path / "a.parquet").open("rb") as stream:
        found = reader.metadata(stream, "a.parquet")
    assert found.attributes["primary"] == "gamma,proton"
    assert (found.attributes["energy_min"], found.attributes["energy_max"]) == (2.0, 5.0)
    assert found.attributes["showers"] == 1


def test_somebody_elses_parquet_is_not_recognised(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    assert reader_of(tmp_path / "a.parquet") is None


@pytest.mark.parametrize("keep", [10, 2000, -1])
def test_a_cut_file_is_recognised_and_refused(tmp_path: Path, keep: int) -> None:
    write_images(tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:keep])
    reader = reader_of(tmp_path / "cut.parquet")
    assert reader is not None
    with (tmp_path / "cut.parquet").open("rb") as stream, pytest.raises(FormatError, match="not a readable Parquet"):
        reader.metadata(stream, "cut.parquet")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    write_images(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet").drop_columns(["event"])
    pq.write_table(table, tmp_path / "b.parquet")
    reader = reader_of(tmp_path / "b.parquet")
    assert reader is not None
    with (tmp_path / "b.parquet").open("rb") as stream, pytest.raises(FormatError, match="no column 'event'"):
        reader.metadata(stream, "b.parquet")

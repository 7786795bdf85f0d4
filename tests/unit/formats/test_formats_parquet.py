"""The project's own Parquet files as a format of sites."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.camera.geometry import CameraGeometry, camera_from_positions
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import FormatError, NotFoundError
from apbatch.formats.images import TRUTH_SCHEMA, camera_in, from_binary, image_schema, telescopes_in, to_binary
from apbatch.formats.reader import ImageReader, Reader, Span, recognise
from apbatch.formats.text.lines import Problems


def write_images(path: Path, count: int = 5, **options: int) -> np.ndarray:
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
    pq.write_table(table, path, **options)
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


def images(path: Path, **options: object) -> list[pa.RecordBatch]:
    reader = reader_of(path)
    assert isinstance(reader, ImageReader)
    with path.open("rb") as stream:
        return list(reader.images(stream, path.name, **options))  # type: ignore[arg-type]


def test_row_groups_are_spans_and_together_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pixels = write_images(path, 50, row_group_size=7)
    reader = reader_of(path)
    assert isinstance(reader, ImageReader)
    with path.open("rb") as stream:
        spans = reader.spans(stream, "a", 2 * 7 * 560 * 4)
        parts = [batch for span in spans for batch in reader.images(stream, "a", span=span)]
        assert reader.spans(stream, "a", 1 << 40) == [Span(0, 8)]
    assert [(span.start, span.stop) for span in spans] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert np.array_equal(np.vstack([from_binary(batch["image"]) for batch in parts]), pixels)


def test_a_span_of_another_file_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "a.parquet")
    reader = reader_of(tmp_path / "a.parquet")
    assert isinstance(reader, ImageReader)
    with (tmp_path / "a.parquet").open("rb") as stream, pytest.raises(FormatError, match="row groups 0 to 2 of 1"):
        list(reader.images(stream, "a", span=Span(0, 2)))


def strange_camera(square: bool) -> CameraGeometry:
    r, q = (axis.ravel().astype(float) for axis in np.mgrid[:7, :9])
    x, y = (q, r) if square else (q + r / 2, r * np.sqrt(0.75))
    return camera_from_positions("nobody knows it", 0.1 * x, 0.1 * y, number=np.arange(63) * 2, focal_length=12.5)


@pytest.mark.parametrize("square", [True, False])
def test_a_camera_that_nobody_knows_comes_with_its_images(tmp_path: Path, square: bool) -> None:
    camera = strange_camera(square)
    schema = image_schema(camera, peak_time=True, pointing=True, telescopes={3: (1.5, -2.0, 2150.0)})
    columns = {field.name: pa.nulls(2, field.type) for field in schema}
    columns |= {"experiment": ["X"] * 2, "run": [1, 1], "event": [1, 2], "telescope": pa.array([3, 3], pa.int32())}
    columns |= {name: to_binary(np.ones((2, 63), np.float32)) for name in ("image", "peak_time")}
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "a.parquet")
    (batch,) = images(tmp_path / "a.parquet")
    assert batch.schema.equals(schema, check_metadata=True)
    found = camera_in(batch.schema)
    assert found is camera_in(batch.schema)
    for name in ("name", "lattice", "pitch", "focal_length"):
        assert getattr(found, name) == getattr(camera, name)
    for name in ("x", "y", "q", "r", "neighbours", "cluster", "number"):
        assert np.array_equal(getattr(found, name), getattr(camera, name)), name
    assert telescopes_in(batch.schema) == {3: (1.5, -2.0, 2150.0)}


@pytest.mark.parametrize("name", ["TAIGA-IACT01", "TAIGA-IACT01-2017"])
def test_a_known_camera_is_the_same_out_of_its_description(name: str) -> None:
    camera, found = camera_named(name), camera_in(image_schema(name))
    for column in ("x", "y", "q", "r", "neighbours", "cluster", "number"):
        assert np.array_equal(getattr(found, column), getattr(camera, column)), column


def of_yesterday(path: Path, camera: str) -> None:
    write_images(path)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"apbatch.schema": "images/1", "apbatch.camera": camera}), path)


def test_a_file_of_yesterday_is_read_by_the_name_of_its_camera(tmp_path: Path) -> None:
    of_yesterday(tmp_path / "a.parquet", "TAIGA-IACT01")
    (batch,) = images(tmp_path / "a.parquet")
    assert batch.num_rows == 5
    assert camera_in(batch.schema).n_pixels == 560


def test_a_file_of_yesterday_whose_camera_is_not_known_says_which_ones_are(tmp_path: Path) -> None:
    of_yesterday(tmp_path / "a.parquet", "TAIGA-IACT1")
    (batch,) = images(tmp_path / "a.parquet")
    with pytest.raises(NotFoundError) as caught:
        camera_in(batch.schema)
    assert caught.value.nearest == "TAIGA-IACT01"


@pytest.mark.parametrize("version", ["images/3", "images/", "images/0", "images/x"])
def test_a_schema_of_tomorrow_is_refused(tmp_path: Path, version: str) -> None:
    write_images(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    metadata = {**table.schema.metadata, b"apbatch.schema": version.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match="known are images/1 to images/2"):
        images(tmp_path / "a.parquet")


def square(**other: object) -> str:
    content = {"lattice": "square", "pitch": 1, "x": [0, 1, 1], "y": [0, 0, 1], "q": [0, 1, 1], "r": [0, 0, 1]}
    return json.dumps({**content, **other})


@pytest.mark.parametrize(
    ("geometry", "what"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"lattice": "round", "x": [0, 1, 2], "y": [0, 1, 0]}', "lattice must be"),
        ('{"lattice": "square", "x": [0, 1, "a"], "y": [0, 1, 0]}', "x must be"),
        ('{"lattice": "square", "x": [0, 1, NaN], "y": [0, 1, 0]}', "finite"),
        (square(q=[0, 1, 9e9]), "lattice"),
        (square(q=[0, 1]), "lengths"),
        (square(q=[0, 1, 1], r=[0, 0, 0]), "same place"),
        (square(pitch=0), "pitch"),
        (square(focal_length="long"), "focal_length"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_damaged_geometry_is_refused_with_file_and_reason(tmp_path: Path, geometry: str, what: str) -> None:
    write_images(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    metadata = {**table.schema.metadata, b"apbatch.geometry": geometry.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match=what) as caught:
        images(tmp_path / "a.parquet")
    assert caught.value.where == "a.parquet"


def flipped_in_group(path: Path, group: int) -> bytes:
    """Return a file with one bit of the images of a row group turned."""
    column = pq.read_metadata(path).row_group(group).column(5)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    return bytes(content)


def test_a_turned_bit_costs_its_row_group_and_is_noted_at_registration(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_images(path, 40, row_group_size=10, compression="none", use_dictionary=False, write_page_checksum=True)
    path.write_bytes(flipped_in_group(path, 1))
    reader, problems = reader_of(path), Problems()
    assert isinstance(reader, ImageReader)
    batches = images(path, problems=problems)
    assert [event for batch in batches for event in batch["event"].to_pylist()] == [*range(10, 20), *range(30, 50)]
    with path.open("rb") as stream:
        found = reader.metadata(stream, "a.parquet")
    assert found.events == 30
    assert found.problems == problems.result() and "rows 10 to 19 can't be read" in found.problems[0].reason


@pytest.mark.parametrize("column", ["primary", "shower", "event", "experiment"])
def test_a_row_of_truth_that_lacks_something_is_passed_over(tmp_path: Path, column: str) -> None:
    path = tmp_path / "truth.parquet"
    write_truth(path)
    table = pq.read_table(path)
    schema = pa.schema([field.with_nullable(True) for field in table.schema], metadata=table.schema.metadata)
    values = [None, *table[column].to_pylist()[1:]]
    place = table.schema.get_field_index(column)
    columns = [pa.array(values, field.type) if at == place else table[at] for at, field in enumerate(schema)]
    pq.write_table(pa.table(columns, schema=schema), path)
    reader = reader_of(path)
    assert reader is not None
    with path.open("rb") as stream:
        found = reader.metadata(stream, "truth.parquet")
    assert found.events == 1 and found.problems[0].reason == f"row 0: {column} is missing"


def test_an_image_of_another_length_or_without_a_key_is_passed_over(tmp_path: Path) -> None:
    pixels = write_images(tmp_path / "a.parquet", 6)
    table = pq.read_table(tmp_path / "a.parquet")
    binary = table["image"].to_pylist()
    binary[2], binary[4] = binary[2][:-4], None
    fields = [field.with_nullable(True) for field in table.schema]
    schema = pa.schema(fields, metadata=table.schema.metadata)
    columns = {**dict(zip(table.column_names, table.columns, strict=True)), "image": pa.array(binary, pa.binary())}
    columns["run"] = pa.array([3, None, 3, 3, 3, 3], pa.int64())
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "a.parquet")
    problems = Problems()
    batches = images(tmp_path / "a.parquet", batch_size=3, problems=problems)
    found = np.vstack([from_binary(batch["image"]) for batch in batches])
    assert np.array_equal(found, pixels[[0, 3, 5]])
    assert sorted(problem.offset for problem in problems.kept) == [1, 2, 4]

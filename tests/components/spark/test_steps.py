"""Steps as functions of Arrow batches, without Spark."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from apbatch.camera.cleaning import Cleaning
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.grid import METHODS, from_grid, grid_of, to_grid
from apbatch.camera.halo import halo
from apbatch.camera.hillas import PARAMETERS, hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.chain import steps
from apbatch.errors import FormatError
from apbatch.formats.images import IMAGE_KEY, TRUTH_SCHEMA, from_binary, image_schema, to_binary
from apbatch.index.events.columns import EVENT_KEYS


@pytest.fixture(scope="module")
def camera() -> CameraGeometry:
    return camera_named("TAIGA-IACT01")


def pixels(camera: CameraGeometry, count: int = 5) -> np.ndarray:
    rng = np.random.default_rng(9)
    images = rng.normal(0, 3, (count, camera.n_pixels)).astype(np.float32)
    for row in range(count):
        images[row, camera.neighbours[100 + row]] += 30
    return images


def batch(camera: CameraGeometry, images: np.ndarray) -> pa.RecordBatch:
    """Return images as a reader yields them."""
    count = len(images)
    columns = {
        "experiment": ["TAIGA"] * count,
        "run": [1] * count,
        "event": list(range(count)),
        "telescope": [1] * count,
        "time": pa.array([1_500_000_000_123_456_789 + row for row in range(count)], pa.timestamp("ns", tz="UTC")),
        "image": to_binary(images),
    }
    return pa.RecordBatch.from_pydict(columns, schema=image_schema(camera.name))


def clean(camera: CameraGeometry, images: np.ndarray) -> pa.RecordBatch:
    return steps.cleaned(steps.images_of(batch(camera, images)), camera, Cleaning("tailcuts", 14, 7))


def test_times_keep_their_nanoseconds(camera):
    made = steps.images_of(batch(camera, pixels(camera)))
    assert made.column("time_ns").to_pylist()[:2] == [1_500_000_000_123_456_789, 1_500_000_000_123_456_790]


def test_cleaning_adds_a_mask_and_leaves_the_image(camera):
    images = pixels(camera)
    made = clean(camera, images)
    assert made.schema.equals(steps.CLEANED)
    np.testing.assert_array_equal(from_binary(made.column("image")), images)
    assert (from_binary(made.column("mask"), "u1").sum(axis=1) >= 6).all()


def test_parameters_have_two_rows_an_image_keyed_as_the_catalogue_wants(camera):
    images = pixels(camera)
    made = steps.parametrised(clean(camera, images), camera, "tailcuts-14-7")
    assert made.num_rows == 2 * len(images)
    assert set(EVENT_KEYS) <= set(made.schema.names)
    assert len({tuple(row[key] for key in EVENT_KEYS) for row in made.to_pylist()}) == made.num_rows
    first = next(row for row in made.to_pylist() if row["cleaning"] == "none" and row["event"] == 0)
    assert first["size"] == pytest.approx(float(images[0][images[0] > 0].sum()), rel=1e-6)
    kept = next(row for row in made.to_pylist() if row["cleaning"] == "tailcuts-14-7" and row["event"] == 0)
    mask = from_binary(clean(camera, images).column("mask"), "u1").astype(bool)
    assert kept["width"] == hillas(images, camera, mask)["width"][0]


def test_grids_hold_the_image_and_the_cleaned_image(camera):
    images = pixels(camera)
    cleaned = clean(camera, images)
    made = steps.gridded(cleaned, camera)
    shape = grid_of(camera)
    whole = from_binary(made.column("grid")).reshape(-1, shape.rows, shape.cols)
    kept = from_binary(made.column("grid_cleaned")).reshape(-1, shape.rows, shape.cols)
    mask = from_binary(cleaned.column("mask"), "u1").astype(bool)
    np.testing.assert_array_equal(from_grid(whole, camera), images)
    np.testing.assert_array_equal(from_grid(kept, camera), np.where(mask, images, 0))


@pytest.mark.parametrize("method", METHODS)
def test_grids_of_every_method_have_the_shape_that_the_sidecar_tells(camera, method):
    images = pixels(camera)
    made = steps.gridded(clean(camera, images), camera, method)
    shape = grid_of(camera, method)
    whole = from_binary(made.column("grid")).reshape(-1, shape.rows, shape.cols)
    np.testing.assert_array_equal(whole, to_grid(images, camera, method=method))


def test_no_step_makes_a_column_of_truth():
    truth = set(TRUTH_SCHEMA.names) - set(IMAGE_KEY)
    for schema in (steps.IMAGES, steps.CLEANED, steps.PARAMETER_ROWS, steps.GRIDS):
        assert not truth & set(schema.names)
    assert not any(name.startswith("true") for name in PARAMETERS)


def test_empty_batches_give_empty_batches_of_the_right_schema(camera):
    nothing = clean(camera, pixels(camera)).slice(0, 0)
    assert steps.cleaned(nothing, camera, Cleaning("tailcuts", 14, 7)).schema.equals(steps.CLEANED)
    assert steps.parametrised(nothing, camera, "x").schema.equals(steps.PARAMETER_ROWS)
    assert steps.gridded(nothing, camera).schema.equals(steps.GRIDS)


def test_images_of_another_camera_are_a_format_error(camera):
    with pytest.raises(FormatError, match="37 pixels"):
        clean(camera, np.zeros((2, 37), np.float32))


def test_damaged_images_are_left_out_one_by_one(camera):
    good = clean(camera, pixels(camera, 5))
    image, mask = (good.column(name).to_pylist() for name in ("image", "mask"))
    image[1], image[2], mask[3] = None, image[2][:-4], mask[3][:-1]
    columns = dict(zip(good.schema.names, good.columns, strict=True))
    columns |= {"image": pa.array(image, pa.binary()), "mask": pa.array(mask, pa.binary())}
    columns["peak_time"] = pa.array([b"\0" * 4 * camera.n_pixels, None, None, None, b"\0" * 4], pa.binary())
    poisoned = pa.RecordBatch.from_arrays(list(columns.values()), schema=good.schema)
    left, damaged = steps.usable(poisoned, camera)
    assert (left.column("event").to_pylist(), damaged) == ([0], 4)
    assert steps.usable(good, camera) == (good, 0)


def test_what_a_reader_tells_besides_the_image_is_passed_on(camera):
    images = pixels(camera, 3)
    plain = batch(camera, images)
    columns = {name: plain.column(name) for name in plain.schema.names}
    columns |= {"peak_time": to_binary(images + 1), "pointing_altitude": pa.array([60.0, None, 70.0])}
    told = pa.RecordBatch.from_pydict(columns)
    made = steps.cleaned(steps.images_of(told), camera, Cleaning("tailcuts", 14, 7))
    np.testing.assert_array_equal(from_binary(made.column("peak_time")), images + 1)
    assert made.column("pointing_altitude").to_pylist() == [60.0, None, 70.0]
    assert made.column("pointing_azimuth").null_count == 3


def test_columns_of_yesterday_are_converted_and_missing_ones_are_named(camera):
    plain = batch(camera, pixels(camera))
    columns = {name: plain.column(name) for name in plain.schema.names}
    columns |= {"run": columns["run"].cast(pa.int32()), "image": columns["image"].cast(pa.large_binary())}
    assert steps.images_of(pa.RecordBatch.from_pydict(columns)).equals(steps.images_of(plain))
    with pytest.raises(FormatError, match="column 'run'"):
        steps.images_of(pa.RecordBatch.from_pydict(columns | {"run": pa.array(["x"] * 5)}))
    del columns["telescope"]
    with pytest.raises(FormatError, match="no column 'telescope'"):
        steps.images_of(pa.RecordBatch.from_pydict(columns))


def test_cleaning_and_parameters_in_one_pass_are_those_of_two(camera):
    plain = steps.images_of(batch(camera, pixels(camera, 40)))
    rule = Cleaning("tailcuts", 14, 7)
    mask, rows = steps.cleaned_and_parametrised(plain, camera, rule)
    wanted = steps.cleaned(plain, camera, Cleaning("tailcuts", 14, 7))
    assert mask.equals(wanted)
    assert rows.equals(steps.parametrised(wanted, camera, rule.name))
    assert [part.num_rows for part in steps.cleaned_and_parametrised(plain.slice(0, 0), camera, rule)] == [0, 0]


@pytest.mark.parametrize(
    "rule",
    [
        Cleaning("tailcuts", 14, 7),
        Cleaning("sigma", 5, 2.5, largest_island=True),
        Cleaning("time-neighbours", 14, 7, 1, time_limit=2, largest_island=True),
    ],
)
def test_odd_images_pass_every_cleaning_and_have_extras_where_they_are_defined(camera, rule):
    """All zeros, all missing, infinite, one pixel, two without neighbours; only the last is a shower."""
    images = np.zeros((6, camera.n_pixels), np.float32)
    images[1] = np.nan
    images[2] = np.inf
    images[3, 100] = 50
    images[4, [100, int(np.argmax(np.hypot(camera.x - camera.x[100], camera.y - camera.y[100])))]] = 50
    images[5, [100, *camera.neighbours[100]]] = 50
    plain = steps.images_of(batch(camera, images))
    times = [None, *[np.where(np.isfinite(row), row, np.nan).astype("<f4").tobytes() for row in images[1:]]]
    place = plain.schema.get_field_index("peak_time")
    plain = plain.set_column(place, plain.schema.field(place), pa.array(times, pa.binary()))
    noise = np.ones(camera.n_pixels)
    cleaned, rows = steps.cleaned_and_parametrised(plain, camera, rule, noise=noise, more=("extras", "halo"))
    kept = from_binary(cleaned.column("mask"), "u1").sum(axis=1).tolist()
    assert kept[:2] + kept[3:] == [0, 0, 0, 0, 7]
    assert rows.schema.equals(steps.parameter_rows(("halo", "extras"))) and rows.num_rows == 12
    shower = rows.to_pylist()[-1]
    assert shower["concentration_pixel"] == pytest.approx(1 / 7) and shower["n_medium_islands"] == 1
    assert all(row["n_small_islands"] == 0 for row in rows.to_pylist()[6:8])
    around = halo(np.asarray(images), camera)
    for row, made in enumerate(rows.to_pylist()):
        for name, values in around.items():
            assert made[name] == pytest.approx(values[row % 6], nan_ok=True), (name, row)

"""Bad input of a set of images: each a clear error that names the place, before hours are spent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.files import sha256
from apbatch.dl.training import launch
from apbatch.dl.training.data import PIXEL_MAX, load
from apbatch.dl.training.preflight import check
from apbatch.dl.training.spec import TrainSpec
from apbatch.errors import ApbatchError, FormatError, UsageError, VerificationError
from apbatch.formats.images import from_binary, to_binary
from tests.synthetic import showers, write_dataset


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return showers(tmp_path_factory.mktemp("showers"), 40, 60)


@pytest.fixture(scope="module")
def whole(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    return blind.make(**inputs, folder=tmp_path_factory.mktemp("blind"), settings=BlindSettings(open=True, seed=3))


@pytest.fixture
def made(whole: BlindSet, tmp_path: Path) -> BlindSet:
    """A copy that a test may spoil."""
    shutil.copytree(whole.folder, tmp_path / "blind")
    return blind.open_set(tmp_path / "blind")


def spec(made: BlindSet, output: Path, **more: object) -> TrainSpec:
    return TrainSpec.model_validate({"data": made.files, "output": output, "treatments": ("soft",), **more})


def spoil(made: BlindSet, split: str, change: object, **columns: object) -> None:
    """Change the pixels of a split (and other columns) and sign the set again, as a careless maker would."""
    place = made.files / f"{split}.parquet"
    table = pq.read_table(place)
    pixels = np.array(from_binary(table["image"]), np.float32)
    if callable(change):
        change(pixels)
    table = table.set_column(table.column_names.index("image"), "image", to_binary(pixels))
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, place)
    manifest = json.loads((made.files / "manifest.json").read_text())
    manifest["files"][split] = sha256(place)
    (made.files / "manifest.json").write_text(json.dumps(manifest))


def first_to(value: float, pixels: int = 1):  # type: ignore[no-untyped-def]
    def change(image: np.ndarray) -> None:
        image[0, :pixels] = value

    return change


@pytest.mark.parametrize(
    ("value", "pixels", "said"),
    [(np.nan, 560, "no measured pixel"), (np.inf, 1, "infinite"), (10 * PIXEL_MAX, 1, "which no camera can measure")],
)
def test_broken_pixels_are_named_before_training(
    made: BlindSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, pixels: int, said: str
) -> None:
    monkeypatch.setattr(launch, "_run", lambda *_: pytest.fail("training was started"))
    spoil(made, "train", first_to(value, pixels))
    with pytest.raises(FormatError, match=said) as caught:
        launch.train(spec(made, tmp_path / "out"), "single")
    assert str(caught.value.where).endswith("train.parquet")


def test_a_pixel_without_a_measurement_is_no_fault(made: BlindSet) -> None:
    spoil(made, "train", first_to(np.nan, 3))
    assert np.isfinite(load(made.files, made.manifest, "train", "none").pixels).all()


def test_a_missing_class_is_an_error_before_training(made: BlindSet, tmp_path: Path) -> None:
    n = pq.read_metadata(made.files / "train.parquet").num_rows
    spoil(made, "train", None, gamma=[True] * n)
    with pytest.raises(UsageError, match="no hadrons in the train set"):
        launch.train(spec(made, tmp_path / "out"), "single")


def test_fewer_images_than_ranks_is_an_error(made: BlindSet, tmp_path: Path) -> None:
    known = spec(made, tmp_path / "out", batch_size=4096)
    with pytest.raises(UsageError, match="fewer than"):
        check(known, made.manifest, 4096)


def test_corrupt_parquet_is_an_error_that_names_the_file(made: BlindSet, tmp_path: Path) -> None:
    place = made.files / "train.parquet"
    place.write_bytes(place.read_bytes()[:-200])
    manifest = json.loads((made.files / "manifest.json").read_text())
    manifest["files"]["train"] = sha256(place)
    (made.files / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError) as caught:
        launch.train(spec(made, tmp_path / "out"), "single")
    assert str(caught.value.where).endswith("train.parquet")


def test_a_set_that_was_tampered_with_is_refused(made: BlindSet, tmp_path: Path) -> None:
    place = made.files / "test.parquet"
    pq.write_table(pq.read_table(place).slice(1), place)
    with pytest.raises(VerificationError, match="differs"):
        launch.train(spec(made, tmp_path / "out"), "single")


def test_images_of_another_camera_make_no_set(inputs: dict[str, str], tmp_path: Path) -> None:
    table = pa.table(
        {
            "experiment": ["X"] * 4,
            "run": pa.array([1] * 4, pa.int64()),
            "event": pa.array(range(4), pa.int64()),
            "telescope": pa.array([1] * 4, pa.int32()),
            "image": to_binary(np.ones((4, 1440), np.float32)),
        }
    )
    url = write_dataset(tmp_path / "fact", table, {"kind": "images", "camera": "TAIGA-IACT01"})
    with pytest.raises(FormatError, match="of another camera"):
        blind.make(url, inputs["parameters"], inputs["truth"], tmp_path / "blind")


def test_an_unknown_camera_is_an_error_with_the_nearest(inputs: dict[str, str], tmp_path: Path) -> None:
    folder = Path(inputs["images"].removeprefix("file://"))
    shutil.copytree(folder, tmp_path / "images")
    (tmp_path / "images" / "_apbatch.json").write_text(json.dumps({"kind": "images", "camera": "TAIGA-IACT1"}))
    with pytest.raises(ApbatchError) as caught:
        blind.make(f"file://{tmp_path}/images", inputs["parameters"], inputs["truth"], tmp_path / "blind")
    assert caught.value.nearest == "TAIGA-IACT01"


def with_column(inputs: dict[str, str], which: str, name: str, values: pa.Array, folder: Path) -> dict[str, str]:
    """Return the inputs with another column in one of the datasets."""
    place = Path(inputs[which].removeprefix("file://"))
    table = pa.concat_tables([pq.read_table(part) for part in sorted(place.glob("part-*"))])
    table = table.set_column(table.column_names.index(name), name, values)
    info = json.loads((place / "_apbatch.json").read_text())
    return inputs | {which: write_dataset(folder / which, table, info)}


N = 400  # images of the inputs; parameters have two rows of each


@pytest.mark.parametrize(
    ("which", "name", "values", "said"),
    [
        ("truth", "primary", pa.array([None] * 20 + ["gamma"] * (N - 20)), "20 of 400 images have no 'primary'"),
        ("truth", "primary", pa.array([1] * N), "'primary' is of int64, not of text"),
        ("truth", "shower", pa.array([None] + [3] * (N - 1)), "1 of 400 images have no 'shower'"),
        ("truth", "telescope", pa.nulls(N, pa.int32()), "400 of 400 images have no 'telescope'"),
        ("truth", "event", pa.array([f"e{number}" for number in range(N)]), "'event' is of string, not of int64"),
        ("truth", "event", pa.array(np.arange(N) + 0.5), "'event' is of double, not of int64"),
        ("truth", "run", pa.array([[7]] * N), "'run' is of list<.*>, which is no key"),
        ("truth", "true_energy", pa.array(["much"] * N), "'true_energy' is of string, not of double"),
        ("parameters", "cleaning", pa.array([1] * 2 * N), "'cleaning' is of int64, not of text"),
        ("parameters", "size", pa.array(["much"] * 2 * N), "'size' is of string, not of float"),
        ("images", "image", pa.array([[1.0] * 560] * N, pa.list_(pa.float32())), "images are of list<.*>, not the"),
        ("images", "peak_time", pa.array([bytes(40)] * N, pa.binary()), r"times of \[40\] bytes"),
    ],
)
def test_a_column_of_another_type_or_with_gaps_is_an_error_that_names_the_dataset(
    which: str, name: str, values: pa.Array, said: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    spoilt = with_column(inputs, which, name, values, tmp_path)
    with pytest.raises(FormatError, match=said) as caught:
        blind.make(**spoilt, folder=tmp_path / "blind", settings=BlindSettings(open=True, seed=3, times=True))
    assert caught.value.where == spoilt[which]


def test_keys_and_primaries_may_be_dictionaries(inputs: dict[str, str], whole: BlindSet, tmp_path: Path) -> None:
    coded = inputs
    for which, name in (("images", "experiment"), ("truth", "primary")):
        place = Path(inputs[which].removeprefix("file://"))
        column = pa.concat_tables([pq.read_table(part) for part in sorted(place.glob("part-*"))])[name]
        coded = with_column(coded, which, name, column.dictionary_encode(), tmp_path)
    made = blind.make(**coded, folder=tmp_path / "blind", settings=BlindSettings(open=True, seed=3))
    assert made.manifest["cut_flow"] == whole.manifest["cut_flow"]

"""Training refuses what can't work before any process starts: these tests never import TensorFlow."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.files import read_json, sha256, write_json
from apbatch.dl.training import launch
from apbatch.dl.training.checkpoint import Checkpoint
from apbatch.dl.training.spec import TrainSpec
from apbatch.errors import ApbatchError, FormatError, UsageError, VerificationError
from tests.synthetic import showers


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    folder = tmp_path_factory.mktemp("training")
    return blind.make(
        **showers(folder / "data", 30, 30, 2), folder=folder / "blind", settings=BlindSettings(open=True, seed=3)
    )


@pytest.fixture
def files(made: BlindSet, tmp_path: Path) -> Path:
    shutil.copytree(made.files, tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(launch, "_run", never)


def replace(files: Path, split: str, table: pa.Table) -> None:
    """Put another table in, with a manifest that agrees, as if it had been made so."""
    pq.write_table(table, files / f"{split}.parquet")
    manifest = read_json(files / "manifest.json")
    manifest["files"][split] = sha256(files / f"{split}.parquet")
    write_json(files / "manifest.json", manifest)


def test_a_set_with_one_class_is_refused(files: Path, tmp_path: Path) -> None:
    table = pq.read_table(files / "train.parquet")
    replace(files, "train", table.filter(table["gamma"]))
    with pytest.raises(UsageError, match="no hadrons in the train set"):
        launch.train(TrainSpec(data=files, output=tmp_path / "out"))


def test_fewer_images_than_ranks_are_refused(files: Path, tmp_path: Path) -> None:
    table = pq.read_table(files / "train.parquet").sort_by("gamma")
    replace(files, "train", pa.concat_tables([table.slice(0, 1), table.slice(table.num_rows - 1)]))
    with pytest.raises(UsageError, match="fewer than 4 ranks"):
        launch.train(TrainSpec(data=files, output=tmp_path / "out"), "horovod", ranks=4)


def test_an_image_of_nan_is_refused(files: Path, tmp_path: Path) -> None:
    table = pq.read_table(files / "test.parquet")
    cells = table["image"].to_pylist()
    cells[0] = np.full(len(cells[0]) // 4, np.nan, "<f4").tobytes()
    replace(
        files, "test", table.set_column(table.schema.get_field_index("image"), "image", pa.array(cells, pa.binary()))
    )
    with pytest.raises(FormatError, match="no measured pixel"):
        launch.train(TrainSpec(data=files, output=tmp_path / "out"))


def test_a_file_that_was_changed_is_refused(files: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(files / "train.parquet").slice(1), files / "train.parquet")
    with pytest.raises(VerificationError, match=r"train\.parquet"):
        launch.train(TrainSpec(data=files, output=tmp_path / "out"))


def test_a_checkpoint_of_another_training_is_refused(files: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "none").mkdir(parents=True)
    Checkpoint("of another model", 1, [], [], []).write(tmp_path / "out" / "none" / "checkpoint.npz")
    with pytest.raises(UsageError, match="another model, other data or other settings"):
        launch.train(TrainSpec(data=files, output=tmp_path / "out"))


def test_an_unknown_model_names_the_nearest(files: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'talk-cnn'"):
        launch.train(TrainSpec(data=files, output=tmp_path / "out", model="talk-cn"))


def test_a_network_of_directions_is_not_symmetric(files: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="direction turns"):
        launch.train(TrainSpec(data=files, output=tmp_path / "out", task="showers", symmetric=True))


def test_a_symmetric_network_wants_turned_images(files: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="turned images"):
        launch.train(TrainSpec(data=files, output=tmp_path / "out", augment=False, symmetric=True))


def test_without_horovod_it_says_so_and_takes_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "launcher", lambda: None)
    assert launch._choose("auto", 2) == ("single", 1)
    assert "Horovod is not installed: training in one process" in capsys.readouterr().err
    with pytest.raises(ApbatchError, match="Horovod is not installed"):
        launch._choose("horovod", 2)


def test_auxiliary_outputs_are_of_a_separation_with_weights_above_0(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="auxiliary outputs belong to a separation"):
        launch.train(TrainSpec(data=files, output=out, task="showers", auxiliary={"energy": 0.3}))
    with pytest.raises(UsageError, match="loss weight of 'energy' is 0"):
        launch.train(TrainSpec(data=files, output=out, auxiliary={"energy": 0.0}))


def test_auxiliary_outputs_without_their_truth_name_the_column(files: Path, tmp_path: Path) -> None:
    table = pq.read_table(files / "train.parquet")
    replace(files, "train", table.drop_columns([name for name in ("energy", "impact") if name in table.column_names]))
    with pytest.raises(FormatError, match="energy"):
        launch.train(TrainSpec(data=files, output=tmp_path / "out", auxiliary={"energy": 0.3}))

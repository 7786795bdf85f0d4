"""Labels of a blind set can't be read from anything in it but the light of the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.judging.q_factor import roc
from apbatch.formats.images import from_binary
from tests.synthetic import showers

ensemble = pytest.importorskip("sklearn.ensemble")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    """Gammas and hadrons that are the same: whatever tells them apart is a leak."""
    inputs = showers(tmp_path_factory.mktemp("showers"), 160, 240, contrast=0.0)
    return blind.make(**inputs, folder=tmp_path_factory.mktemp("blind"), settings=BlindSettings(open=True, seed=8))


def guessed(features: np.ndarray, gamma: np.ndarray, shower: np.ndarray) -> float:
    """AUC of a forest that was trained on half of the showers and asked for the others."""
    half = np.isin(shower, np.unique(shower)[::2])
    forest = ensemble.RandomForestClassifier(200, min_samples_leaf=5, random_state=1, class_weight="balanced")
    forest.fit(features[half], gamma[half])
    return roc(forest.predict_proba(features[~half])[:, 1], gamma[~half])[2]


def opened(made: BlindSet) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Pixels, labels, showers and ids of all events whose labels a scorer may know, in the order of the files."""
    tables = [pq.read_table(made.files / f"{split}.parquet") for split in ("train", "validation")]
    pixels = np.concatenate([np.asarray(from_binary(table["image"]), np.float32) for table in tables])
    gamma, shower = (
        np.concatenate([table[name].to_numpy(zero_copy_only=False) for table in tables]) for name in ("gamma", "shower")
    )
    return pixels, gamma.astype(bool), shower, [name for table in tables for name in table["id"].to_pylist()]


def sure(gamma: np.ndarray) -> float:
    """3.5 standard deviations of the AUC of a guess, for the half that is asked; four images to a shower."""
    n = gamma.sum() / 8, (~gamma).sum() / 8
    return 3.5 * float(np.sqrt((n[0] + n[1] + 1) / (12 * n[0] * n[1])))


def test_names_tell_nothing(made: BlindSet) -> None:
    _, gamma, shower, ids = opened(made)
    digits = np.array([[int(digit, 16) for digit in name] for name in ids])
    assert abs(guessed(digits, gamma, shower) - 0.5) < sure(gamma)


def test_the_order_tells_nothing(made: BlindSet) -> None:
    _, gamma, shower, _ = opened(made)
    place = np.arange(len(gamma))
    features = np.column_stack([place, place % 2, place % 16, place % 1024, place // 64])
    assert abs(guessed(features, gamma, shower) - 0.5) < sure(gamma)


def test_the_last_bits_of_floats_and_missing_pixels_tell_nothing(made: BlindSet) -> None:
    pixels, gamma, shower, _ = opened(made)
    bits = pixels.view(np.uint32)
    features = np.column_stack(
        [np.isnan(pixels).sum(axis=1), (pixels == 0).sum(axis=1), np.signbit(pixels).sum(axis=1)]
        + [((bits >> shift) & 1).sum(axis=1) for shift in range(8)]
        + [(bits & 0xFF).mean(axis=1), (bits & 0xFFF == 0).sum(axis=1)]
    )
    assert abs(guessed(features, gamma, shower) - 0.5) < sure(gamma)


def test_columns_types_sizes_and_metadata_are_those_of_every_event(made: BlindSet) -> None:
    schema = pq.read_schema(made.files / "test.parquet")
    assert not schema.metadata
    assert not {"run", "event", "telescope", "experiment", "time", "shower", "energy", "zenith"} & set(schema.names)
    table = pq.read_table(made.files / "test.parquet")
    assert {len(cell) for cell in table["image"].to_pylist()} == {560 * 4}
    assert {len(name) for name in table["id"].to_pylist()} == {20}
    assert all(table[name].null_count == 0 for name in table.column_names)


def test_images_of_one_shower_do_not_lie_together(made: BlindSet) -> None:
    _, _, shower, _ = opened(made)
    n, of = len(shower), np.unique(shower, return_counts=True)[1]
    together = (shower[1:] == shower[:-1]).sum()
    expected = (of * (of - 1)).sum() / n
    assert together < expected + 5 * np.sqrt(expected) + 1


def test_files_tell_nothing_of_what_they_were_made_from(made: BlindSet) -> None:
    whole = b"".join((made.files / f"{split}.parquet").read_bytes() for split in ("train", "validation", "test"))
    for word in (b"gamma/", b"proton", b"SYNTHETIC", b"showers", str(Path.home()).encode()):
        assert word not in whole

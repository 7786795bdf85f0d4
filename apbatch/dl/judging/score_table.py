"""Scores of every method and treatment in one table, ready to be frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apbatch.dl.blind.blind_set import read_manifest
from apbatch.dl.blind.image_selection import VARIANTS
from apbatch.dl.files import read_json, read_parquet, table_bytes, write_json
from apbatch.dl.judging import box_cuts as classical
from apbatch.errors import FormatError
from apbatch.localfiles import write_whole

#: Names of the methods in tables of scores.
CUTS, CNN = "cuts", "cnn"


def score(files: Path, training: Path | None, output: Path) -> Path:
    """Fit the simple technique, score with it, and add what the networks said.

    Parameters
    ----------
    files : pathlib.Path
        The folder ``set`` of a blind analysis.
    training : pathlib.Path, optional
        Output folder of `apbatch.dl.training.launch.train`, or None for the simple technique alone.
    output : pathlib.Path
        Folder for ``scores.parquet`` (method, variant, split, id, score) and ``cuts.json`` (the boxes).

    Returns
    -------
    pathlib.Path
        ``scores.parquet``.

    Raises
    ------
    FormatError
        If the networks were trained on another set.
    """
    manifest = read_manifest(files)
    tables, boxes = [], {}
    train = read_parquet(files / "train.parquet")
    gamma = np.asarray(train["gamma"].to_numpy(zero_copy_only=False), bool)
    splits = {split: read_parquet(files / f"{split}.parquet") for split in ("validation", "test")}
    for variant in VARIANTS:
        box = classical.fit(features(train, variant), gamma)
        boxes[variant] = {
            "width_range": _finite(box.width_range),
            "length_range": _finite(box.length_range),
            "training_quality": box.quality,
        }
        for split, table in splits.items():
            tables.append(_rows(CUTS, variant, split, table["id"], box.score(features(table, variant))))
    if training is not None:
        record = read_json(training / "trained.json")
        predictions = read_parquet(training / "predictions.parquet")
        _check_same_set(record, predictions, splits, training)
        tables.append(predictions)
    # Float64 for all, so that tables from elsewhere can be put beside them.
    write_json(output / "cuts.json", {"boxes": boxes, "files": manifest["files"]})
    write_whole(output / "scores.parquet", table_bytes(pa.concat_tables(tables).combine_chunks()))
    return output / "scores.parquet"


def features(table: pa.Table, variant: str) -> classical.Features:
    """Return size, width and length of one treatment from a split of a blind set."""
    values = (table[f"{name}_{variant}"].to_numpy().astype(np.float64) for name in ("size", "width", "length"))
    return classical.Features(*values)


def _rows(method: str, variant: str, split: str, ids: Any, scores: Any) -> pa.Table:
    n = len(ids)
    return pa.table(
        {
            "method": pa.array([method] * n),
            "variant": pa.array([variant] * n),
            "split": pa.array([split] * n),
            "id": ids,
            "score": pa.array(scores, pa.float64()),
        }
    )


def _finite(border: tuple[float, float]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in border]


def _check_same_set(record: Any, predictions: pa.Table, splits: dict[str, pa.Table], training: Path) -> None:
    known = {name for table in splits.values() for name in table["id"].to_pylist()}
    if not isinstance(record, dict) or set(predictions["id"].to_pylist()) != known:
        raise FormatError("the networks scored another blind set", where=str(training), remedy="train on this set")

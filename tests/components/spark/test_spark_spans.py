"""A file that is cut for several tasks gives each image once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.camera.instruments.registry import camera_named
from apbatch.formats.images import image_schema, to_binary
from apbatch.spark.inputs.reading import read_piece
from apbatch.spark.inputs.sources import Source
from apbatch.spark.inputs.splits import file_splits

CAMERA = camera_named("TAIGA-IACT01")


def test_every_image_of_a_file_with_several_row_groups_is_read_by_one_task(tmp_path: Path) -> None:
    n, path = 600, tmp_path / "part-00000.parquet"
    schema = image_schema(CAMERA.name)
    known = {
        "experiment": pa.array(["X"] * n),
        "run": pa.array(np.ones(n, np.int64)),
        "event": pa.array(np.arange(n)),
        "telescope": pa.array(np.ones(n, np.int32)),
        "image": to_binary(np.random.default_rng(1).normal(size=(n, CAMERA.n_pixels)).astype(np.float32)),
    }
    arrays = [known.get(field.name, pa.nulls(n, field.type)) for field in schema]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, row_group_size=100)
    source, size = Source(path.as_uri(), "apbatch-images", "X", camera=CAMERA.name), path.stat().st_size
    splits = file_splits([source], {source.url: (size, 0)}, size // 4)
    assert len(splits) > 1
    losses: list = []
    events = [
        event
        for split in splits
        for piece in split.pieces
        for batch in read_piece(piece, CAMERA, losses, 256)
        for event in batch.column("event").to_pylist()
    ]
    assert not losses
    assert sorted(events) == list(range(n))

"""The project's own Parquet: images of two runs, and the truth of all of them, in a folder beside.

Sums: ``pe``, of all pixels; ``energy``, TeV; ``showers``, how many.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.camera.instruments.registry import camera_named
from apbatch.formats.image_files import ImagesReader, TruthReader
from apbatch.formats.images import TRUTH_SCHEMA, image_schema, to_binary
from apbatch.sample.contents import Contents
from apbatch.sample.showers import draw_showers, generator

FOLDER, TRUTH_FOLDER = "images", "truth"
CAMERA, EXPERIMENT = "TAIGA-IACT01", "TAIGA-SIM"
RUNS, SHOWERS, USES = (1, 2), 20, 3
_START_NS = 1_509_202_800_000_000_000


def write(folder: Path, seed: int) -> list[Contents]:
    """Write the files into `folder` / ``images`` and ``truth``; return what they hold."""
    for name in (FOLDER, TRUTH_FOLDER):
        (folder / name).mkdir()
    camera = camera_named(CAMERA)
    contents = []
    for run in RUNS:
        random = generator(seed, f"{FOLDER}/{run}")
        count = SHOWERS * USES
        showers = draw_showers(camera, count, random)
        pixels = (showers.photons + np.round(random.normal(0, 1, showers.photons.shape), 2)).astype("<f4")
        keys: dict[str, Any] = {
            "experiment": [EXPERIMENT] * count,
            "run": np.full(count, run),
            "event": random.permutation(count) + 1,
            "telescope": np.ones(count, np.int32),
        }
        schema = image_schema(camera)
        time = pa.array(_START_NS + np.arange(count) * 10**9, schema.field("time").type)
        table = pa.table({**keys, "time": time, "image": to_binary(pixels)}, schema=schema)
        gamma = np.arange(count) // USES < SHOWERS // 2
        truth = {
            **keys,
            "shower": np.arange(count) // USES + 1,
            "primary": np.where(gamma, "gamma", "proton").tolist(),
            "true_energy": np.repeat(showers.energy[::USES], USES),
            "true_core_x": showers.core_x,
            "true_core_y": showers.core_y,
            "true_zenith": np.full(count, 30.0),
            "true_azimuth": np.full(count, 180.0),
            "true_source_x": showers.source_x,
            "true_source_y": showers.source_y,
            "true_h_first": np.repeat(showers.h_first[::USES], USES),
        }
        name = f"part-{run:05d}.parquet"
        pq.write_table(table, folder / FOLDER / name, row_group_size=25, write_page_checksum=True)
        pq.write_table(pa.table(truth, schema=TRUTH_SCHEMA), folder / TRUTH_FOLDER / name, write_page_checksum=True)
        energy = float(truth["true_energy"].sum())
        contents += [
            Contents(
                f"{FOLDER}/{name}", ImagesReader.name, count, run, telescope=1,
                sums={"pe": float(pixels.sum(dtype=np.float64))},
            ),
            Contents(
                f"{TRUTH_FOLDER}/{name}", TruthReader.name, count, run, telescope=1,
                sums={"energy": energy, "showers": SHOWERS},
            ),
        ]  # fmt: skip
    return contents

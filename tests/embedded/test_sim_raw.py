"""Simulation, raw files, `clean` on Spark: the images come back, with the truth known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from apbatch.camera.cleaning import PRESETS, Cleaning, clean
from apbatch.camera.hillas import hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.config import SparkSettings
from apbatch.datasets import dataset
from apbatch.formats.images import from_binary
from apbatch.sim.detector.raw import write_raw
from apbatch.sim.production import simulate
from apbatch.sim.settings import Production, Spectrum
from apbatch.spark import pipeline
from apbatch.spark.connect.session import session
from apbatch.spark.inputs.sources import RawOptions, sources_at


def test_raw_files_of_a_production_become_its_images_again(tmp_path: Path) -> None:
    settings = Production(
        gammas=10, protons=0, seed=9, telescopes=8, core_max=150.0, cone=1.0,
        gamma=Spectrum(energy_min=3.0, energy_max=20.0, index=-2.0),
    )  # fmt: skip
    simulate(settings, tmp_path / "production", processes=1)
    raw = write_raw(tmp_path / "production", tmp_path / "raw")
    sources = sources_at([f"file://{raw.folder}/281017.01"], RawOptions("TAIGA-IACT01", str(raw.factors)))
    spark = session(SparkSettings(master="local[2]", conf={"spark.default.parallelism": "2"}), "tests")
    try:
        data = [source for source in sources if source.url.endswith(".001")]
        summary = pipeline.clean(spark, data, f"file://{tmp_path}/cleaned", Cleaning("tailcuts", 14, 7))
    finally:
        spark.stop()
    truth = pq.read_table(tmp_path / "production" / "images").sort_by("event")
    assert summary.images == truth.num_rows
    found = dataset.read_table(f"file://{tmp_path}/cleaned", ["event", "image"]).sort_by("event")
    assert found["event"].to_pylist() == truth["event"].to_pylist()
    camera = camera_named("TAIGA-IACT01")
    ours, theirs = (np.asarray(from_binary(table["image"]), np.float32) for table in (found, truth))
    a, b = (hillas(images, camera, clean(images, camera, PRESETS["standard"])) for images in (ours, theirs))
    bright = b["size"] > 100.0
    assert bright.sum() > 10
    assert abs(np.nanmedian(a["size"][bright] / b["size"][bright]) - 1.0) < 0.03
    for name in ("width", "length", "cog_x", "cog_y"):
        assert np.nanmedian(np.abs(a[name][bright] - b[name][bright])) < 0.02

"""The bulk steps on the standalone cluster, from HDFS to HDFS, against the same steps in one process without Spark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from apbatch.camera.calibration import factors_of_cluster
from apbatch.camera.geometry import camera_named
from apbatch.formats import dataset
from apbatch.formats.taiga_calibration import read_factors
from apbatch.spark import steps
from apbatch.spark.reading import RawCalibration, read_raw
from apbatch.spark.sources import Source
from apbatch.storage.store import open_store

pytestmark = [pytest.mark.spark, pytest.mark.hdfs]

ROOT = Path(__file__).resolve().parents[2]
CAMERA = camera_named("TAIGA-IACT01-2017")
SMALL = ("BSM04/28107004.001", "BSM06/28107006.001", "BSM12/28107012.001")
ORDER = [(name, "ascending") for name in steps.KEYS]


class NoLosses:
    def lose(self, url: str, reason: str, count: int, text: str) -> None:
        raise AssertionError(text)


def without_spark(folder: Path) -> pa.Table:
    """The files read, calibrated, assembled and cleaned here, from the site."""
    path = folder / "FACTORS_300917.txt"
    table = read_factors(path)
    factors = {
        (str(path), cluster): factors_of_cluster(table["cluster"], table["channel"], table["codes_per_pe"], cluster)
        for cluster in np.unique(table["cluster"]).tolist()
    }
    calibration = RawCalibration(CAMERA, factors)
    records: list[pa.RecordBatch] = []
    for name in SMALL:
        url, factors_of = f"file://{folder / name}", {"factors": str(path)}
        source = Source(url, "taiga-raw", "TAIGA", camera=CAMERA.name, calibration=factors_of)
        records += read_raw(source, calibration, NoLosses())
    images, _ = steps.assembled(pa.concat_batches(records), CAMERA)
    return pa.Table.from_batches([steps.cleaned(images, CAMERA, picture=14, boundary=7)]).sort_by(ORDER)


def test_images_from_hdfs_on_the_cluster_are_those_of_one_process(
    spark_master: str, hdfs: str, data: Path, tmp_path: Path
) -> None:
    folder = data / "taiga_raw"
    store = open_store(f"{hdfs}/standalone")
    for name in SMALL:
        with store.publish(f"site/{name}") as file:
            file.write((folder / name).read_bytes())
    url = store.url_of("images")
    command = [
        str(Path(sys.executable).with_name("spark-submit")), "--master", spark_master, "jobs/clean.py",
        "--input", *(store.url_of(f"site/{name}") for name in SMALL),
        "--camera", CAMERA.name, "--factors", str(folder / "FACTORS_300917.txt"), "--output", url,
    ]  # fmt: skip
    environment = {**os.environ, "APBATCH_HOME": str(tmp_path / "home"), "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    host, _, port = spark_master.removeprefix("spark://").rpartition(":")
    with urllib.request.urlopen(f"http://{host}:{int(port) + 1}/json/", timeout=30) as answer:
        ran = [job["name"] for job in json.load(answer)["completedapps"]]
    assert "clean" in ran, "it did not run on the cluster"
    wanted = without_spark(folder)
    found = dataset.read_table(url).sort_by(ORDER)
    assert (summary["images"], summary["losses"]) == (wanted.num_rows, {})
    assert found.column_names == wanted.column_names
    for name in wanted.column_names:  # bytes and all
        assert found[name].to_pylist() == wanted[name].to_pylist(), name

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

from apbatch.camera.calibration import factors_of_cluster, pedestals, photo_electrons
from apbatch.camera.cleaning import Cleaning
from apbatch.camera.instruments.registry import camera_named
from apbatch.chain import steps
from apbatch.datasets import dataset
from apbatch.formats.images import IMAGE_KEY, to_binary
from apbatch.formats.taiga.calibration import read_factors
from apbatch.formats.taiga.raw import read_records
from apbatch.storage.backends import open_store
from tests.waits import PATIENCE_S

pytestmark = [pytest.mark.spark, pytest.mark.hdfs]

ROOT = Path(__file__).resolve().parents[2]
CAMERA = camera_named("TAIGA-IACT01-2017")
SMALL = ("BSM04/28107004.001", "BSM06/28107006.001", "BSM12/28107012.001")
ORDER = [(name, "ascending") for name in IMAGE_KEY]


def without_spark(folder: Path) -> pa.Table:
    """The files read whole, calibrated and cleaned here, from the site; events put together one by one."""
    table = read_factors(folder / "FACTORS_281017.txt")
    images: dict[int, np.ndarray] = {}
    times: dict[int, tuple[int, int]] = {}
    for name in SMALL:
        with (folder / name).open("rb") as stream:
            records = np.concatenate(list(read_records(stream)))
        (cluster,) = np.unique(records["cluster"]).tolist()
        factors = factors_of_cluster(table["cluster"], table["channel"], table["codes_per_pe"], cluster)
        pe = photo_electrons(records["adc"], pedestals(records["adc"]), factors)
        pixels = np.flatnonzero(CAMERA.cluster == cluster)
        midnight = np.datetime64("2017-10-28T00:00", "ns").astype(np.int64)
        for row, event in enumerate(records["event"].tolist()):
            image = images.setdefault(event, np.full(CAMERA.n_pixels, np.nan, np.float32))
            image[pixels] = pe[row, CAMERA.number[pixels] // 2]
            hour = records["time"][row] // 3_600_000_000_000
            time = int(midnight + records["time"][row]) + (86_400_000_000_000 if hour < 5 else 0)
            times[event] = min(times.get(event, (99, 0)), (cluster, time))
    events = sorted(images)
    rows = {
        "experiment": ["TAIGA"] * len(events),
        "run": [20171028] * len(events),
        "event": events,
        "telescope": [1] * len(events),
        "time_ns": [times[event][1] for event in events],
        "image": to_binary(np.stack([images[event] for event in events])),
        **dict.fromkeys(("peak_time", "pointing_altitude", "pointing_azimuth"), [None] * len(events)),  # not recorded
    }
    made = pa.RecordBatch.from_pydict(rows, schema=steps.IMAGES)
    return pa.Table.from_batches([steps.cleaned(made, CAMERA, Cleaning("tailcuts", 14, 7))]).sort_by(ORDER)


def test_images_from_hdfs_on_the_cluster_are_those_of_one_process(
    spark_master: str, hdfs: str, sample: Path, tmp_path: Path
) -> None:
    folder = sample / "taiga_raw"
    store = open_store(f"{hdfs}/standalone")
    for name in SMALL:
        with store.publish(f"site/{name}") as file:
            file.write((folder / name).read_bytes())
    url = store.url_of("images")
    command = [
        str(Path(sys.executable).with_name("spark-submit")), "--master", spark_master, "jobs/clean.py",
        "--input", *(store.url_of(f"site/{name}") for name in SMALL),
        "--camera", CAMERA.name, "--factors", str(folder / "FACTORS_281017.txt"), "--output", url,
    ]  # fmt: skip
    environment = {**os.environ, "APBATCH_HOME": str(tmp_path / "home"), "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
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

"""Jobs whose workers, executors or driver are killed in the middle: each image is there once at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.camera.cleaning import Cleaning
from apbatch.camera.geometry import CameraGeometry, camera_from_positions
from apbatch.camera.hillas import PARAMETERS
from apbatch.camera.instruments.registry import camera_named
from apbatch.config import SparkSettings
from apbatch.datasets import dataset
from apbatch.datasets.commit import DatasetCommit
from apbatch.errors import ServerError, UsageError
from apbatch.formats.images import image_schema, to_binary
from apbatch.spark import one_pass, pipeline
from apbatch.spark.bulk import Work, _placed
from apbatch.spark.connect.session import close, session
from apbatch.spark.inputs.sources import Source, sources_at
from apbatch.spark.inputs.splits import Split
from tests.waits import PATIENCE_S, until

pytestmark = [pytest.mark.spark, pytest.mark.skipif(shutil.which("java") is None, reason="no Java")]

ROOT = Path(__file__).resolve().parents[2]
CAMERA = camera_named("TAIGA-IACT01")
FILES, IMAGES_A_FILE = 24, 400
#: A program that makes a dataset in many small tasks.
DRIVER = """
import json, sys
from dataclasses import asdict
from apbatch.camera.cleaning import Cleaning
from apbatch.config import SparkSettings
from apbatch.spark import pipeline
from apbatch.spark.inputs import splits
from apbatch.spark.connect.session import close, session
from apbatch.spark.inputs.sources import sources_at
master, source, output = sys.argv[1:]
conf = {"spark.executor.memory": "512m", "spark.executor.cores": "1"}
spark = session(SparkSettings(master=master, driver_memory="512m", executor_memory="512m", conf=conf), "faults")
pipeline.split_bytes = lambda *_: 200_000  # a file a task
summary = pipeline.clean(spark, sources_at([source]), output, Cleaning("tailcuts", 14, 7))
close(spark)
print(json.dumps(asdict(summary)))
"""


def write_images(path: Path, pixels: np.ndarray, first: int = 0, camera: CameraGeometry = CAMERA) -> None:
    count = len(pixels)
    columns = {
        "experiment": ["X"] * count,
        "run": np.full(count, 1),
        "event": np.arange(first, first + count),
        "telescope": np.full(count, 1, np.int32),
        "time": pa.array(np.arange(count), pa.timestamp("ns", tz="UTC")),
        "image": to_binary(pixels.astype(np.float32)),
    }
    pq.write_table(pa.Table.from_pydict(columns, schema=image_schema(camera)), path, compression="zstd")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(1)
    for number in range(FILES):
        pixels = random.normal(0, 8, (IMAGES_A_FILE, CAMERA.n_pixels))
        write_images(folder / f"{number:03}.parquet", pixels, number * IMAGES_A_FILE)
    return folder


class Driver:
    """The program, in a process of its own."""

    def __init__(self, master: str, images: Path, output: Path, home: Path) -> None:
        environment = {
            "SPARK_WORKER_DIR": str(home / "work"),
            **os.environ,
            "APBATCH_HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "PYSPARK_PYTHON": sys.executable,
        }
        self.output = output
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, master, f"file://{images}", f"file://{output}"],
            env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait_for_records(self, count: int) -> None:
        def written() -> bool:
            assert self.process.poll() is None, self.process.communicate()[1][-2000:]
            return len(list(self.output.glob(".apbatch-*.json"))) > count  # the job's own file is among them

        until(written)

    def children(self, word: str) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if any(word in argument for argument in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def summary(self) -> dict[str, object]:
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, err[-3000:]
        found: dict[str, object] = json.loads(out.splitlines()[-1])
        return found


def check_whole(output: Path) -> None:
    """Neither gaps nor doubles, and nothing left over."""
    events = dataset.read_table(f"file://{output}", ["event"])["event"].to_numpy()
    assert np.array_equal(np.sort(events), np.arange(FILES * IMAGES_A_FILE))
    there = {path.name for path in output.iterdir()}
    assert there == {"_SUCCESS", "_apbatch.json", *dataset.part_files(f"file://{output}")}
    for file in dataset.info(f"file://{output}")["files"]:
        assert (output / file["name"]).stat().st_size == file["bytes"]


def test_an_executor_killed_in_the_middle_costs_time_only(images, tmp_path):
    driver = Driver("local-cluster[2,1,512]", images, tmp_path / "out", tmp_path / "home")
    driver.wait_for_records(3)
    driver.children("CoarseGrainedExecutorBackend")[0].kill()
    summary = driver.summary()
    assert (summary["images"], summary["losses"], summary["resumed"]) == (FILES * IMAGES_A_FILE, {}, 0)
    check_whole(tmp_path / "out")


@pytest.mark.campaign
def test_a_killed_driver_is_started_again_and_does_the_rest_though_a_python_worker_is_killed(images, tmp_path):
    output = tmp_path / "out"
    first = Driver("local[2]", images, output, tmp_path / "home")
    first.wait_for_records(6)
    with pytest.raises(UsageError, match=f"being written by another program .process {first.process.pid}"):
        DatasetCommit({"images": f"file://{output}"}, "another").__enter__()
    family = first.children("")
    first.process.send_signal(signal.SIGKILL)
    first.process.communicate()
    assert not dataset.is_complete(f"file://{output}")
    psutil.wait_procs(family, timeout=60)
    before = len(list(output.glob(".apbatch-*-*.json")))
    again = Driver("local[2]", images, output, tmp_path / "home")
    again.wait_for_records(before + 2)
    again.children("pyspark.daemon")[-1].kill()
    summary = again.summary()
    assert summary["images"] == FILES * IMAGES_A_FILE
    assert 6 <= int(str(summary["resumed"])) < FILES
    assert summary["tasks"] == FILES - int(str(summary["resumed"]))
    check_whole(output)


@pytest.fixture(scope="module")
def spark() -> Iterator[object]:
    found = session(SparkSettings(master="local[2]", conf={"spark.default.parallelism": "2"}), "tests")
    yield found
    close(found)


@pytest.mark.campaign
def test_a_task_that_fails_twice_is_done_at_the_third_time(spark, images, tmp_path, monkeypatch):
    marks = tmp_path / "marks"
    marks.mkdir()

    def flaky(*arguments):
        work = Work(*arguments)

        def once_more(split):
            if split.number == 0 and len(list(marks.iterdir())) < 2:
                (marks / str(time.time_ns())).touch()
                raise ServerError("the store is away")
            return work(split)

        return once_more

    monkeypatch.setattr(one_pass, "Work", flaky)
    monkeypatch.setattr(pipeline, "split_bytes", lambda *_: 5_000_000)
    url = f"file://{tmp_path}/out"
    summary = pipeline.clean(spark, sources_at([f"file://{images}"]), url, Cleaning("tailcuts", 14, 7))
    assert (summary.images, summary.retries, summary.losses) == (FILES * IMAGES_A_FILE, 2, {})
    check_whole(tmp_path / "out")


@pytest.mark.campaign
def test_a_job_whose_tasks_fail_again_and_again_says_why_and_keeps_what_is_done(spark, images, tmp_path, monkeypatch):
    def broken(*arguments):
        work = Work(*arguments)

        def fails(split):
            if split.number == 1:
                raise ServerError("the store is away", where="hdfs://n:1")
            return work(split)

        return fails

    url = f"file://{tmp_path}/out"
    with monkeypatch.context() as patch:
        patch.setattr(one_pass, "Work", broken)
        patch.setattr(pipeline, "split_bytes", lambda *_: 5_000_000)
        with pytest.raises(ServerError, match="hdfs://n:1: the store is away"):
            pipeline.clean(spark, sources_at([f"file://{images}"]), url, Cleaning("tailcuts", 14, 7))
    summary = pipeline.clean(spark, sources_at([f"file://{images}"]), url, Cleaning("tailcuts", 14, 7))
    assert summary.resumed >= 1
    check_whole(tmp_path / "out")


def test_odd_images_and_files_of_others_are_told_and_the_rest_goes_on(spark, tmp_path):
    """All zeros, NaN, one pixel, no neighbour, a poisoned record, another camera, yesterday's schema, no file."""
    folder = tmp_path / "in"
    folder.mkdir()
    odd = np.zeros((5, CAMERA.n_pixels))
    odd[1] = np.nan
    odd[2, 100] = 50  # one pixel
    alone = [100, int(np.argmax(np.hypot(CAMERA.x - CAMERA.x[100], CAMERA.y - CAMERA.y[100])))]
    odd[3, alone] = 50  # bright, without neighbours
    odd[4, [100, *CAMERA.neighbours[100][CAMERA.neighbours[100] >= 0]]] = 50
    write_images(folder / "a-odd.parquet", odd)
    table = pq.read_table(folder / "a-odd.parquet")
    schema = table.schema.with_metadata({"apbatch.schema": "images/1", "apbatch.camera": CAMERA.name})
    rows = table["image"].to_pylist()
    rows[1] = rows[1][:-4]
    poisoned = table.set_column(5, schema.field("image"), pa.array(rows, pa.binary())).cast(schema)
    pq.write_table(poisoned.replace_schema_metadata(schema.metadata), folder / "b-yesterday.parquet")
    other = camera_from_positions("OTHER", CAMERA.x[:37], CAMERA.y[:37])
    write_images(folder / "c-other.parquet", np.ones((3, 37)), camera=other)
    moved = replace(CAMERA, x=CAMERA.x + 0.3)
    write_images(folder / "d-moved.parquet", odd, camera=moved)
    sources = [replace(source, camera=CAMERA.name) for source in sources_at([f"file://{folder}"])]
    sources.append(Source(f"file://{folder}/e-gone.parquet", "apbatch-images", "X", camera=CAMERA.name))
    outputs = {role: f"file://{tmp_path}/{role}" for role in ("images", "parameters", "grids")}
    summary = pipeline.images(spark, sources, outputs, Cleaning("tailcuts", 14, 7))
    assert summary.images == 5 + 4
    assert summary.losses == {"damaged places in files": 1, "images of another camera": 3 + 5, "unreadable files": 1}
    assert any("e-gone.parquet" in problem for problem in summary.problems)
    table = dataset.read_table(outputs["parameters"]).to_pylist()
    kept = {row["event"]: row for row in table[-9:] + table[:10] if row["cleaning"] == "tailcuts-14-7"}
    assert [kept[event]["n_pixels"] for event in range(5)] == [0, 0, 0, 0, 7]
    assert set(PARAMETERS) <= set(kept[0])
    assert all(np.isfinite(row["grid_sum"]) for row in _sums(outputs["grids"]))


def _sums(url: str) -> list[dict[str, float]]:
    return [{"grid_sum": float(np.frombuffer(row, "<f4").sum())} for row in dataset.read_table(url)["grid"].to_pylist()]


def test_a_camera_that_nobody_here_knows_comes_with_its_images(spark, tmp_path):
    strange = camera_from_positions("STRANGE", CAMERA.x[:61] * 2, CAMERA.y[:61] * 2)
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(1).normal(0, 8, (50, 61))
    pixels[:, :7] += 40
    write_images(tmp_path / "in" / "a.parquet", pixels, camera=strange)
    url = f"file://{tmp_path}/images"
    pipeline.clean(spark, sources_at([f"file://{tmp_path}/in"]), url, Cleaning("tailcuts", 14, 7))
    assert pipeline.parameters(spark, url, f"file://{tmp_path}/parameters").images == 50
    assert pipeline.grid(spark, url, f"file://{tmp_path}/grids").images == 50
    assert dataset.info(f"file://{tmp_path}/parameters")["camera"] == "STRANGE"


def test_spark_is_told_where_splits_lie_and_the_work_is_the_same(spark):
    tasks = [Split(number, (), 1, hosts) for number, hosts in enumerate([("alpha", "beta"), (), ("gamma",)])]
    placed = _placed(spark, tasks)
    rdd = placed._jrdd.rdd()
    told = [list(_java_list(spark, rdd.preferredLocations(part))) for part in rdd.partitions()]
    assert told == [["alpha", "beta"], [], ["gamma"]]
    assert placed.map(lambda split: (split.number, split.hosts)).collect() == [(one.number, one.hosts) for one in tasks]


def _java_list(spark, seq):
    return spark.sparkContext._jvm.scala.jdk.javaapi.CollectionConverters.asJava(seq)


#: Put into every Python process of a job: what a library in C may do with a file that it believes.
MISCHIEF = """
import os, pathlib, time
from apbatch.formats.image_files import ImagesReader

def images(self, stream, name, *more, **named):
    if pathlib.Path(__file__).with_name("begun").exists():
        if name.endswith("/1.parquet"):
            os.abort()
        if name.endswith("/2.parquet"):
            bytearray(8 << 40)
    yield from whole(self, stream, name, *more, **named)

whole, ImagesReader.images = ImagesReader.images, images
"""
SINGLE = """
import json, pathlib, sys
from apbatch.camera.cleaning import Cleaning
from apbatch.config import SparkSettings
from apbatch.spark import pipeline
from apbatch.spark.connect.session import close, session
from apbatch.spark.inputs.sources import sources_at
source, output, begun = sys.argv[1:]
sources = sources_at([source])
pathlib.Path(begun).touch()  # from here on files do what they do
spark = session(SparkSettings(master="local[1]", driver_memory="512m"), "fatal")
summary = pipeline.clean(spark, sources, output, Cleaning("tailcuts", 14, 7))
again = [one.url for one in sources_at([source])]
close(spark)
print(json.dumps([len(sources), summary.images, summary.problems, again]))
"""


def test_a_file_that_ends_its_worker_is_lost_alone(tmp_path: Path) -> None:
    folder, random = tmp_path / "images", np.random.default_rng(2)
    folder.mkdir()
    for number in range(4):
        write_images(folder / f"{number}.parquet", random.uniform(0, 100, (20, CAMERA.n_pixels)), 20 * number)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "sitecustomize.py").write_text(MISCHIEF)
    path = os.pathsep.join([str(tmp_path / "more"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    places = (folder.as_uri(), (tmp_path / "out").as_uri(), str(tmp_path / "more" / "begun"))
    made = subprocess.run(
        [sys.executable, "-c", SINGLE, *places], env={**os.environ, "PYTHONPATH": path}, capture_output=True,
        text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    sources, images, problems, again = json.loads(made.stdout.splitlines()[-1])
    assert (sources, images) == (4, 40)
    assert any("1.parquet" in text and "its parser was ended by it (SIGABRT)" in text for text in problems)
    assert any("2.parquet" in text and "MB of memory" in text for text in problems)
    assert [Path(url).name for url in again] == ["0.parquet", "3.parquet"]  # neither stops who looks at the folder
    assert "1.parquet" in made.stderr and "left out" in made.stderr

"""A production as a Spark job: the bytes of local processes, whatever the number of tasks, and after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from apbatch.sim.production import simulate
from apbatch.sim.settings import Production, Spectrum
from tests.waits import until, until_ended

pytestmark = pytest.mark.spark

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Production(
    gammas=24, protons=0, seed=4, telescopes=6, core_max=150.0, cone=1.0, showers_per_chunk=2,
    gamma=Spectrum(energy_min=2.0, energy_max=6.0, index=-2.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("local") / "production"
    simulate(SETTINGS, folder, processes=1)
    return parts(folder)


def parts(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("part-*.parquet"))}


def command(output: Path, settings: Path, config: Path) -> list[str]:
    settings.write_text(SETTINGS.model_dump_json())
    return [
        sys.executable, str(ROOT / "jobs" / "simulate.py"), "--settings", str(settings), "--config", str(config),
        "--output", f"file://{output}",
    ]  # fmt: skip


def config(folder: Path, master: str, tasks: int) -> Path:
    file = folder / f"{master.strip('[]')}-{tasks}.yaml"
    file.write_text(f"spark: {{master: '{master}', conf: {{spark.default.parallelism: '{tasks}'}}}}\n")
    return file


@pytest.mark.campaign
def test_tasks_make_the_bytes_that_one_process_makes(tmp_path: Path, expected: dict[str, bytes]) -> None:
    for master, tasks in (("local[2]", 1), ("local[2]", 3)):
        output = tmp_path / f"{tasks}"
        done = subprocess.run(
            command(output, tmp_path / "s.json.yaml", config(tmp_path, master, tasks)), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["images"] == sum(
            pq.read_metadata(file).num_rows for file in (output / "images").glob("part-*.parquet")
        )
        assert parts(output) == expected


def test_a_killed_job_goes_on_where_it_was(tmp_path: Path, expected: dict[str, bytes]) -> None:
    output = tmp_path / "killed"
    run = command(output, tmp_path / "s.yaml", config(tmp_path, "local[1]", 6))
    running = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    chunks = output / ".work" / "chunks"
    until(lambda: len(list(chunks.glob("*.arrow"))) >= 2 or running.poll() is not None)
    family = psutil.Process(running.pid).children(recursive=True)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    until_ended(family)
    there = {file: file.stat().st_mtime_ns for file in chunks.glob("*.arrow")}
    assert 0 < len(there) < 12
    assert not (output / "production.json").exists()
    summary = simulate(SETTINGS, output, processes=1)
    assert 0 < summary.made <= 24 - 2 * len(there)
    assert parts(output) == expected


def test_a_store_that_is_no_folder_is_refused_before_spark_starts(tmp_path: Path) -> None:
    run = command(tmp_path, tmp_path / "s.yaml", config(tmp_path, "local[1]", 1))[:-1]
    done = subprocess.run([*run, "hdfs://nowhere/x"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "file:///PATH" in done.stderr

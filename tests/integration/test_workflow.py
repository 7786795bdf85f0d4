"""The whole job: embedded, killed at three moments, and on real servers with the same scores."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.waits import PATIENCE_S

pytestmark = [pytest.mark.spark, pytest.mark.horovod]

ROOT = Path(__file__).resolve().parents[2]
COMMAND = str(Path(sys.executable).with_name("apbatch"))
#: Scores of one job embedded and on servers differ by less than this.
TOLERANCE = 1e-4

JOB = f"""
name: small
select: "experiment = 'TAIGA-SIM' and format = 'apbatch-images'"
steps:
  - simulate: {{gammas: 40, protons: 160, telescopes: 14, core_max: 200 m, gamma_energy_min: 2 TeV,
               gamma_energy_max: 20 TeV, proton_energy_min: 2 TeV, proton_energy_max: 50 TeV, seed: 5}}
  - ingest: {{site: {ROOT}/conf/sites/simulation.yaml}}
  - mirror: {{}}
  - clean: {{picture: 10 pe, boundary: 5 pe}}
  - parameters: {{}}
  - grid: {{}}
  - blind: {{size_min: 30 pe, pixels_min: 3, test_fraction: 0.35, validation_fraction: 0.25, open: true, seed: 3}}
  - study: {{cleanings: [none, standard], models: {{talk-cnn: {{}}}}, rivals: [], seeds: 1, epochs: 2, batch_size: 32,
            epoch_min: 500, hadrons_min: 3, resamples: 100, bins: 1}}
  - report: {{}}
"""
STEPS = 9


def start(home: Path, job: Path, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "APBATCH_HOME": str(home)}
    return subprocess.Popen(
        [COMMAND, "run", str(job), *more],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(home: Path, job: Path, *more: str) -> tuple[str, str]:
    process = start(home, job, *more)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    return out, err


def scores(home: Path) -> dict[tuple[str, str, str, str], float]:
    (file,) = (home / "jobs" / "small").glob("study-*/scores.parquet")
    rows = pq.read_table(file).to_pylist()
    return {(row["method"], row["treatment"], row["split"], row["id"]): row["score"] for row in rows}


def fingerprint(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file() and file.name != "lock"}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("job") / "small.yaml"
    file.write_text(JOB)
    return file


@pytest.fixture(scope="module")
def finished(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a job that ran to its end without a stop."""
    home = tmp_path_factory.mktemp("finished")
    out, err = run(home, job)
    assert f"[{STEPS}/{STEPS}] report:" in err
    assert "report.html" in out or ".html" in out
    return home


def test_the_report_and_its_numbers_are_there(finished: Path) -> None:
    (page,) = (finished / "jobs" / "small").glob("report-*/*.html")
    (numbers,) = (finished / "jobs" / "small").glob("report-*/report.json")
    text = page.read_text()
    assert text.count("<svg") + text.count("data:image/png") >= 4
    results: list[dict[str, Any]] = json.loads(numbers.read_text())["study"]["rows"]
    assert {(r["method"], r["treatment"]) for r in results} == {
        (m, v) for m in ("box", "talk-cnn") for v in ("none", "standard")
    }


def test_a_second_run_does_nothing(finished: Path, job: Path) -> None:
    before = fingerprint(finished / "jobs" / "small")
    _, err = run(finished, job)
    # the site is looked at again, and its record renewed; nothing else is touched
    assert err.count("done before") == STEPS - 1
    after = fingerprint(finished / "jobs" / "small")
    assert {name for name in before if after.get(name) != before[name]} <= {n for n in before if "/ingest-" in n}
    assert set(after) == set(before)


def test_a_dry_run_says_what_is_done_and_changes_nothing(finished: Path, job: Path) -> None:
    before = fingerprint(finished)
    out, _ = run(finished, job, "--dry-run", "--format", "json")
    states = [row["state"] for row in json.loads(out)]
    assert states == ["done", "each time", *["done"] * (STEPS - 2)]
    assert {n for n, t in fingerprint(finished).items() if before.get(n) != t and "catalogue" not in n} == set()


def test_killed_between_steps_at_the_start_of_spark_and_in_training_it_goes_on_to_the_same_scores(
    finished: Path, job: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("killed")
    shutil.copytree(finished / "simulation", home / "simulation")  # the showers need not be thrown again
    kills = 0
    for moment in ("] clean, parameters, grid …", "starting Spark", "] study …"):
        process = start(home, job)
        assert process.stderr is not None
        for line in process.stderr:
            if moment in line:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
        process.wait(PATIENCE_S)
        process.communicate()
    assert kills == 3
    _, err = run(home, job)
    assert f"[4/{STEPS}] clean: done before" in err
    killed, whole = scores(home), scores(finished)
    assert killed.keys() == whole.keys()
    assert max(abs(killed[key] - whole[key]) for key in whole) < TOLERANCE


@pytest.mark.hdfs
@pytest.mark.cassandra
def test_on_servers_it_gives_the_same_scores(
    finished: Path, job: Path, on_servers: Callable[..., Path], tmp_path: Path
) -> None:
    home = on_servers("hdfs", "cassandra", "spark")
    shutil.copytree(finished / "simulation", home / "simulation")
    run(home, job, "--config", str(ROOT / "conf" / "cluster.yaml"))
    there, here = scores(home), scores(finished)
    assert there.keys() == here.keys()
    assert max(abs(there[key] - here[key]) for key in here) < TOLERANCE
    assert not (home / "store").exists()  # nothing was kept in local files instead
    _, err = run(home, job, "--config", str(ROOT / "conf" / "cluster.yaml"))
    assert err.count("done before") == STEPS - 1


def test_two_runs_of_a_job_do_not_meet(finished: Path, job: Path) -> None:
    import fcntl

    with (finished / "jobs" / "small" / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(finished, job)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1 and "running already" in err


def test_without_java_it_says_which_package(tmp_path: Path, finished: Path, job: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(finished / "simulation", home / "simulation")
    bare = tmp_path / "bin"
    bare.mkdir()
    environment = {**os.environ, "APBATCH_HOME": str(home), "PATH": str(bare)}
    environment.pop("JAVA_HOME", None)
    done = subprocess.run(
        [COMMAND, "run", str(job)], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 1
    assert "apt-get install openjdk-17-jre-headless" in done.stderr and "Traceback" not in done.stderr

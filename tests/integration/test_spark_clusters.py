"""Jobs on standalone and YARN whose workers have nothing but Python, and what is killed under them.

Each must give the images of one process without Spark, byte for byte.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from apbatch.cluster.yarn import Yarn
from apbatch.datasets import dataset
from apbatch.storage.backends import open_store
from tests.integration.test_spark_standalone import CAMERA, ORDER, ROOT, SMALL, without_spark
from tests.servers import Servers
from tests.waits import PATIENCE_S, until

pytestmark = [pytest.mark.spark, pytest.mark.hdfs]


@pytest.fixture(scope="module")
def wanted(sample: Path) -> pa.Table:
    return without_spark(sample / "taiga_raw")


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with nothing installed, not even pip."""
    folder = tmp_path_factory.mktemp("bare") / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=PATIENCE_S)
    python = folder / "bin" / "python"
    missing = subprocess.run(
        [str(python), "-I", "-c", "import numpy"], capture_output=True, check=False, timeout=PATIENCE_S
    )
    assert missing.returncode == 1
    return str(python)


@pytest.fixture(scope="module")
def inputs(hdfs: str, sample: Path) -> list[str]:
    store = open_store(f"{hdfs}/clusters")
    for name in SMALL:
        with store.publish(f"site/{name}") as file:
            file.write((sample / "taiga_raw" / name).read_bytes())
    return [store.url_of(f"site/{name}") for name in SMALL]


def clean(inputs: list[str], sample: Path, url: str) -> list[str]:
    factors = str(sample / "taiga_raw" / "FACTORS_281017.txt")
    return [f"{ROOT}/jobs/clean.py", "--input", *inputs, "--camera", CAMERA.name, "--factors", factors, "--output", url]


def settings(folder: Path, **spark: Any) -> Path:
    file = folder / "settings.yaml"
    file.write_text(json.dumps({"spark": {"event_log": True, **spark}}))  # JSON is YAML
    return file


class Job:
    """A program under `jobs/` that runs: what it says, and what its page tells of it."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())

    def address(self, title: str) -> str | None:
        return next((line.partition(": ")[2] for line in self.said if line.startswith(title)), None)

    def until_at_work(self) -> None:
        """Wait until tasks of the step run; the first one of a job only looks at the workers."""

        def at_work() -> bool:
            assert self.process.poll() is None, "\n".join(self.said)
            return self._at_work()

        until(at_work, "no task has begun", pause_s=0.1)

    def _at_work(self) -> bool:
        page = self.address("Spark UI")
        if page is None:
            return False
        (app,) = ask(f"{page}/api/v1/applications")
        stages = ask(f"{page}/api/v1/applications/{app['id']}/stages?status=active")
        return any(stage["numActiveTasks"] > 0 for stage in stages)

    def summary(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        try:
            out = self.process.stdout.read()
            assert self.process.wait(PATIENCE_S) == 0, "\n".join(self.said)[-4000:]
        finally:
            self.process.kill()
        self._reader.join(PATIENCE_S)
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        return json.load(answer)


@pytest.fixture
def start(on_servers: Callable[..., Path]) -> Iterator[Callable[..., Job]]:
    """Start a program with the development servers; it is ended with the test."""
    jobs = []
    home = on_servers()

    def start(config: Path, *command: str) -> Job:
        environment = {**os.environ, "APBATCH_HOME": str(home)}
        jobs.append(Job([sys.executable, *command, "--config", str(config)], environment))
        return jobs[-1]

    yield start
    for job in jobs:
        job.process.kill()
        job.process.wait()


def equal(url: str, wanted: pa.Table) -> None:
    found = dataset.read_table(url).sort_by(ORDER)
    assert found.column_names == wanted.column_names
    for name in wanted.column_names:
        assert found[name].to_pylist() == wanted[name].to_pylist(), name


def kill(servers: Servers, server: str, process: str) -> None:
    done = servers.command("status", server, "--format", "json")
    (pid,) = [row["pid"] for row in json.loads(done.stdout) if row["process"] == process]
    os.kill(pid, signal.SIGKILL)


def test_a_killed_datanode_costs_no_image(
    servers: Servers, hdfs: str, inputs: list[str], sample: Path, wanted: pa.Table, tmp_path: Path, start: Any
) -> None:
    url = f"{hdfs}/clusters/datanode"
    job = start(settings(tmp_path, master="local[2]", ui=True), *clean(inputs, sample, url))
    job.until_at_work()
    kill(servers, "hdfs", "datanode2")
    try:
        assert job.summary()["losses"] == {}
        equal(url, wanted)
    finally:
        servers.url("hdfs")


def test_workers_of_a_standalone_cluster_need_only_python_and_one_may_be_killed(
    servers: Servers, spark_master: str, hdfs: str, history: str, inputs: list[str], sample: Path, wanted: pa.Table,
    bare_python: str, tmp_path: Path, start: Any, on_servers: Any,
) -> None:  # fmt: skip
    on_servers("history")
    url = f"{hdfs}/clusters/standalone"
    conf = {"spark.pyspark.python": bare_python}
    job = start(settings(tmp_path, master=spark_master, conf=conf), *clean(inputs, sample, url))
    job.until_at_work()
    kill(servers, "spark", "worker1")
    try:
        assert job.summary()["losses"] == {}
        equal(url, wanted)
        unpacked = list((servers.home / "cluster" / "spark").glob("work2/app-*/*/apbatch-program/apbatch/__init__.py"))
        assert unpacked, "the worker did not get the program"
        page = job.address("Spark history")
        assert page is not None and page.startswith(f"{history}/history/app-")
    finally:
        servers.url("spark")


@pytest.mark.campaign
def test_workers_with_another_python_are_told_before_the_job(
    spark_master: str, hdfs: str, inputs: list[str], sample: Path, tmp_path: Path, start: Any, on_servers: Any
) -> None:
    on_servers("spark")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nclass V(tuple): major, minor, micro = 3, 12, 0\nsys.version_info = V((3, 12, 0, 'final', 0))\n"
    )
    other = tmp_path / "python3.12"
    other.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}:$PYTHONPATH exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    config = settings(tmp_path, master="{spark}", worker_python=str(other), ship=False)
    job = start(config, *clean(inputs, sample, f"{hdfs}/clusters/never"))
    assert job.process.wait(PATIENCE_S) == 1
    job._reader.join(PATIENCE_S)
    (line,) = [line for line in job.said if "the workers run Python 3.12, and this is Python 3.11" in line]
    assert "worker_python" in line


@pytest.fixture
def our_yarn(servers: Servers, yarn: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Yarn:
    """The project's own handle of the cluster that runs."""
    monkeypatch.setenv("APBATCH_HOME", str(servers.home))
    return Yarn()


def master_node(cluster: Yarn) -> int:
    """The node with the application's master."""
    commands = {node: [" ".join(p.cmdline()) for p in cluster.containers(node)] for node in (1, 2)}
    (node,) = [n for n, found in commands.items() if any("deploy.yarn" in command for command in found)]
    return node


@pytest.mark.campaign
@pytest.mark.yarn
def test_on_yarn_a_node_may_be_killed_and_workers_need_only_python(
    servers: Servers, yarn: str, hdfs: str, inputs: list[str], sample: Path, wanted: pa.Table, bare_python: str,
    tmp_path: Path, start: Any, our_yarn: Yarn,
) -> None:  # fmt: skip
    url = f"{hdfs}/clusters/yarn"
    # Two workers of this size do not fit on one node, and the job begins when both are there.
    waits = {"spark.scheduler.maxRegisteredResourcesWaitingTime": f"{PATIENCE_S:.0f}s"}
    config = settings(
        tmp_path, master="yarn", hadoop_conf=yarn, worker_python=bare_python, executor_memory="2g", conf=waits
    )
    job = start(config, *clean(inputs, sample, url))
    job.until_at_work()
    other = 3 - master_node(our_yarn)
    killed = our_yarn.containers(other)
    assert killed
    kill(servers, "yarn", f"nodemanager{other}")
    our_yarn.end_containers(other)
    try:
        summary = job.summary()
        assert summary["losses"] == {} and not any(process.is_running() for process in killed)
        equal(url, wanted)
    finally:
        servers.url("yarn")
    assert not our_yarn.containers()


@pytest.mark.yarn
def test_the_driver_on_yarn_needs_only_python_too(
    servers: Servers, yarn: str, hdfs: str, inputs: list[str], sample: Path, wanted: pa.Table, bare_python: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    url = f"{hdfs}/clusters/cluster-mode"
    config = settings(tmp_path, master="yarn", hadoop_conf="{yarn}", worker_python=bare_python)
    program = str(Path(sys.executable).with_name("apbatch"))
    made = subprocess.run(
        [program, "cluster", "env", "--config", str(config)],
        env=servers.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    submit = " ".join([str(Path(sys.executable).with_name("spark-submit")), "--deploy-mode", "cluster"])
    script = f'{made.stdout}\nexec {submit} "$@"'
    environment = {name: text for name, text in servers.environment.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        ["sh", "-c", script, "sh", *clean(inputs, sample, url)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "final status: SUCCEEDED" in done.stderr
    equal(url, wanted)
    logs = [file.read_text() for file in (servers.home / "cluster" / "yarn").glob("nodemanager*/logs/*/*/stdout")]
    assert any(f'"images": {wanted.num_rows}' in text for text in logs), "the driver did not run in a container"


@pytest.mark.campaign
@pytest.mark.yarn
def test_a_killed_node_whose_containers_went_on_leaves_nothing_behind(
    servers: Servers, yarn: str, our_yarn: Yarn
) -> None:
    folder = our_yarn.folder / "nodemanager1" / "local" / "usercache"
    stray = subprocess.Popen(["sleep", "3600"], env={**os.environ, "LOCAL_DIRS": str(folder)})
    try:
        assert [process.pid for process in our_yarn.containers(1)] == [stray.pid]
        assert servers.command("down", "yarn").returncode == 0
        assert stray.wait(PATIENCE_S) == -signal.SIGKILL
    finally:
        stray.kill()
        servers.url("yarn")
    assert psutil.pid_exists(os.getpid())

"""Development servers: idempotent, healthy when `up` returns, their data kept, foreign processes left alone."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from tests.servers import Servers
from tests.waits import PATIENCE_S, until


def status(servers: Servers, *names: str) -> list[dict[str, Any]]:
    done = servers.command("status", *names, "--format", "json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def pids(servers: Servers, name: str) -> dict[str, int]:
    return {row["process"]: row["pid"] for row in status(servers, name)}


@pytest.mark.hdfs
def test_a_second_up_starts_nothing_new(servers: Servers, hdfs: str) -> None:
    before = pids(servers, "hdfs")
    assert servers.command("up", "hdfs").returncode == 0
    assert pids(servers, "hdfs") == before and len(before) == 4


@pytest.mark.hdfs
def test_hdfs_answers_its_own_http_interface(webhdfs: str) -> None:
    url = webhdfs.replace("webhdfs://", "http://") + "/webhdfs/v1/?op=LISTSTATUS"
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert "FileStatuses" in json.load(answer)


@pytest.mark.hdfs
def test_a_killed_process_is_told_and_comes_back(servers: Servers, hdfs: str) -> None:
    before = pids(servers, "hdfs")
    os.kill(before["datanode3"], signal.SIGKILL)
    psutil.wait_procs([psutil.Process(before["datanode3"])] if psutil.pid_exists(before["datanode3"]) else [], 5)
    assert {row["process"]: row["state"] for row in status(servers, "hdfs")}["datanode3"] == "down"
    assert servers.command("up", "hdfs").returncode == 0
    after = pids(servers, "hdfs")
    assert after["datanode3"] not in (None, before["datanode3"])
    assert after["namenode"] == before["namenode"]


@pytest.mark.hdfs
def test_data_survive_down_and_up(servers: Servers, hdfs: str) -> None:
    from apbatch.storage.backends import open_store

    with open_store(hdfs).publish("kept/file") as file:
        file.write(b"still here")
    assert servers.command("down", "hdfs").returncode == 0
    assert {row["state"] for row in status(servers, "hdfs")} == {"down"}
    assert servers.url("hdfs") == hdfs
    with open_store(hdfs).open("kept/file") as stream:
        assert stream.read() == b"still here"


@pytest.mark.spark
def test_the_spark_master_counts_its_workers(spark_master: str) -> None:
    port = int(spark_master.rpartition(":")[2]) + 1
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/", timeout=10) as answer:
        assert json.load(answer)["aliveworkers"] == 2


def test_everything_listens_on_loopback_only(
    servers: Servers, hdfs: str, cassandra: str, spark_master: str, yarn: str, history: str
) -> None:
    ours = {row["pid"] for row in status(servers) if row["pid"] and row["server"] != "afs"}
    listening = [c for c in psutil.net_connections("inet") if c.pid in ours and c.status == psutil.CONN_LISTEN]
    assert listening
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} <= {"127.0.0.1", "::1"}


def yarn_page(servers: Servers, path: str) -> dict[str, Any]:
    web = servers.url("yarn", "yarn_web")
    with urllib.request.urlopen(f"{web}/ws/v1/cluster/{path}", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@pytest.mark.yarn
def test_yarn_lends_the_cores_and_memory_of_both_nodes(servers: Servers, yarn: str) -> None:
    metrics = yarn_page(servers, "metrics")["clusterMetrics"]
    assert (metrics["activeNodes"], metrics["totalMB"], metrics["totalVirtualCores"]) == (2, 8192, 4)
    assert {path.name for path in Path(yarn).iterdir()} >= {"core-site.xml", "yarn-site.xml"}


@pytest.mark.yarn
def test_killed_daemons_of_yarn_come_back(servers: Servers, yarn: str) -> None:
    before = pids(servers, "yarn")
    assert set(before) == {"resourcemanager", "nodemanager1", "nodemanager2"}
    for name in ("resourcemanager", "nodemanager1"):
        os.kill(before[name], signal.SIGKILL)
    assert servers.url("yarn") == yarn
    after = pids(servers, "yarn")
    assert after["nodemanager2"] == before["nodemanager2"]
    assert not set(after.values()) & {before["resourcemanager"], before["nodemanager1"]}
    assert yarn_page(servers, "metrics")["clusterMetrics"]["activeNodes"] == 2


def test_a_taken_port_is_told_with_its_holder(tmp_path: Path) -> None:
    other = Servers(tmp_path / "home")
    base = other.base
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", base + 40))
        holder.listen()
        done = other.command("up", "spark")
    assert done.returncode == 1
    assert f"port {base + 40}" in done.stderr and f"process {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr
    assert all(row["state"] == "down" for row in status(other, "spark"))


@pytest.mark.postgres
def test_a_killed_postgresql_comes_back_beside_its_last_busy_process(servers: Servers, postgres: str) -> None:
    busy = threading.Event()

    def ask() -> None:
        with suppress(psycopg.OperationalError), psycopg.connect(f"{postgres}/postgres") as connection:
            busy.set()
            connection.execute("SELECT count(*) FROM generate_series(1, 20000000) n WHERE n % 7 = 3")

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        assert busy.wait(PATIENCE_S)
        main = psutil.Process(int(next(servers.home.rglob("postmaster.pid")).read_text().split()[0]))
        until(lambda: any(child.cpu_times().user > 0.2 for child in main.children()), "nobody asks")
        main.kill()
        main.wait(PATIENCE_S)
        done = servers.command("up", "postgres")
        assert done.returncode == 0, done.stderr
        asked.result()
    with psycopg.connect(f"{postgres}/postgres") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_servers_of_killed_tests_end_with_them(squid: str) -> None:
    script = (
        "import time\n"
        "from tests.servers import serving\n"
        "with serving() as servers:\n"
        "    print(servers.home, servers.url('squid'), flush=True)\n"
        "    time.sleep(3600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        home, url = tests.stdout.readline().split()
        tests.kill()
    with socket.socket() as probe:
        address = urlsplit(url)
        until(lambda: probe.connect_ex((address.hostname, address.port)) != 0, "Squid is still there")
    until(lambda: not Path(home).exists(), f"{home} is still there")


def test_an_unknown_server_is_a_users_error(tmp_path: Path) -> None:
    done = Servers(tmp_path / "home").command("up", "hdsf")
    assert done.returncode == 2 and "did you mean 'hdfs'" in done.stderr


def test_status_comes_as_csv(servers: Servers) -> None:
    done = servers.command("status", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {"namenode", "cassandra", "master", "worker2", "nodemanager2", "history", "keeper"} <= {
        row["process"] for row in rows
    }


@pytest.mark.cassandra
def test_a_killed_cassandra_keeps_every_acknowledged_row(servers: Servers, cassandra: str) -> None:
    from cassandra.cluster import Cluster

    host, port = cassandra.removeprefix("cassandra://").split(":")
    patient = {"port": int(port), "connect_timeout": PATIENCE_S, "control_connection_timeout": PATIENCE_S}
    with Cluster([host], **patient) as cluster, cluster.connect() as session:
        session.default_timeout = PATIENCE_S
        session.execute(
            "CREATE KEYSPACE durable WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
        )
        session.execute("CREATE TABLE durable.rows (id int PRIMARY KEY)")
        insert = session.prepare("INSERT INTO durable.rows (id) VALUES (?)")
        for number in range(200):
            session.execute(insert, (number,))
        os.kill(pids(servers, "cassandra")["cassandra"], signal.SIGKILL)
    assert servers.url("cassandra") == cassandra
    with Cluster([host], **patient) as cluster, cluster.connect() as session:
        session.default_timeout = PATIENCE_S
        assert session.execute("SELECT count(*) FROM durable.rows").one()[0] == 200
        session.execute("DROP KEYSPACE durable")


@pytest.mark.cassandra
def test_cqlsh_talks_to_the_node(cqlsh: Callable[[str], str]) -> None:
    assert "apbatch development" in cqlsh("SELECT cluster_name FROM system.local")


def in_cell(servers: Servers, *command: str) -> bytes:
    """Run one of OpenAFS's own tools beside its servers."""
    keeper = pids(servers, "afs")["keeper"]
    whole = ["nsenter", "-m", "-n", "-t", str(keeper), *command]
    return subprocess.run(whole, capture_output=True, timeout=60, check=True).stdout


@pytest.mark.afs
def test_what_is_written_through_the_mount_is_in_the_file_servers_volume(servers: Servers, afs: str) -> None:
    token = os.urandom(4000)
    Path(afs.removeprefix("afs://"), "note").write_bytes(token)
    assert token in in_cell(servers, "vos", "dump", "ap.data", "-localauth")


@pytest.mark.afs
def test_a_cell_whose_keeper_was_killed_comes_back_whole(servers: Servers, afs: str) -> None:
    note = Path(afs.removeprefix("afs://"), "kept")
    note.write_bytes(b"still here")
    before = {row["pid"] for row in status(servers, "afs")}
    os.kill(pids(servers, "afs")["keeper"], signal.SIGKILL)
    assert servers.url("afs") == afs
    assert note.read_bytes() == b"still here"
    # not one process of the old cell is left to write to the same partition
    assert not before & {process.pid for process in psutil.process_iter()}


@pytest.mark.afs
def test_the_cell_changes_nothing_outside_its_namespaces(afs: str) -> None:
    mounts = Path("/proc/self/mounts").read_text()
    assert "/etc/openafs" not in mounts and "/vicepa" not in mounts
    assert "10.99.0.1" not in {address.address for each in psutil.net_if_addrs().values() for address in each}

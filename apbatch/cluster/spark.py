"""A real Spark standalone cluster: a master and two workers of one core each, from the jars of pyspark."""

from __future__ import annotations

import importlib.util
import json
import sys
import urllib.request
from pathlib import Path
from typing import ClassVar

from apbatch.cluster.artifacts import require_java
from apbatch.cluster.process import Daemon
from apbatch.cluster.server import Server
from apbatch.errors import MissingSoftwareError

WORKERS = 2
#: What a job was given, half a gigabyte a worker, goes an hour after the job's end.
_CLEANUP = " ".join(f"-Dspark.worker.cleanup.{name}" for name in ("enabled=true", "interval=600", "appDataTtl=3600"))
DAEMON_ENVIRONMENT = {
    "SPARK_LOCAL_IP": "127.0.0.1",
    "SPARK_DAEMON_MEMORY": "256m",
    "SPARK_DAEMON_JAVA_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
}


def require_pyspark() -> None:
    """Make sure that pyspark, with Spark's jars, is installed.

    Raises
    ------
    MissingSoftwareError
    """
    if importlib.util.find_spec("pyspark") is None:
        raise MissingSoftwareError("pyspark is not installed", remedy="pip install 'apbatch[spark]'")


def _spark_home() -> Path:
    spec = importlib.util.find_spec("pyspark")
    return Path(spec.origin).parent if spec and spec.origin else Path("pyspark")


def spark_class() -> str:
    """Return the program that starts Spark's classes."""
    return str(_spark_home() / "bin" / "spark-class")


class Spark(Server):
    """Spark standalone on loopback."""

    name: ClassVar[str] = "spark"

    def prepare(self) -> None:
        """Nothing but folders: the jars come with pyspark."""
        require_java()
        require_pyspark()
        for worker in range(1, WORKERS + 1):
            (self.folder / f"work{worker}").mkdir(parents=True, exist_ok=True)

    def daemons(self) -> list[Daemon]:
        """Return master and workers."""
        environment = {
            **DAEMON_ENVIRONMENT,
            "SPARK_HOME": str(_spark_home()),
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_WORKER_OPTS": _CLEANUP,
        }
        start = spark_class()
        master = [start, "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1"]
        master += ["--port", str(self.port(40)), "--webui-port", str(self.port(41))]
        daemons = [Daemon("master", master, self.folder, environment, [self.port(40), self.port(41)])]
        for number in range(1, WORKERS + 1):
            ports = [self.port(42 + 2 * number), self.port(43 + 2 * number)]
            worker = [start, "org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--cores", "1"]
            worker += ["--memory", "2g", "--port", str(ports[0]), "--webui-port", str(ports[1])]
            worker += ["--work-dir", str(self.folder / f"work{number}"), f"spark://127.0.0.1:{self.port(40)}"]
            daemons.append(Daemon(f"worker{number}", worker, self.folder, environment, ports))
        return daemons

    def unhealthy(self) -> str | None:
        """The master must count both workers as alive."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port(41)}/json/", timeout=5) as answer:
                alive = json.load(answer)["aliveworkers"]
        except (OSError, ValueError) as error:
            return f"the master does not answer ({error})"
        return None if alive >= WORKERS else f"{alive} of {WORKERS} workers have joined"

    def addresses(self) -> dict[str, str]:
        """Return the master's URL."""
        return {"spark": f"spark://127.0.0.1:{self.port(40)}"}

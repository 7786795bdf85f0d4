"""What Spark is told: by the settings, by where it runs, and by what workers must be given."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from apbatch.config import SparkSettings, endpoints, event_logs, home
from apbatch.errors import NotFoundError, UsageError
from apbatch.spark.connect.shipping import is_shipment, shipment, with_shipment
from apbatch.storage.backends import open_store

#: Images an Arrow batch: with 600 pixels about 5 MB.
BATCH_IMAGES = 2048
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Cluster:
    """Where Spark runs: on this machine or not, on servers of ours or not.

    Attributes
    ----------
    ours : bool
        Whether it is a development server, whose workers are on this machine and listen on loopback only.
    hadoop : pathlib.Path, optional
        Folder of YARN's configuration.
    """

    def __init__(self, master: str, settings: SparkSettings) -> None:
        if not master.startswith(("local", "spark://", "yarn", "k8s://")):
            raise UsageError(f"'{master}' is not a master of Spark", remedy="write local[*], spark://HOST:PORT or yarn")
        self.master = master
        self.local = master.startswith("local")
        self.yarn = master.startswith("yarn")
        self.hadoop = _find_hadoop(settings) if self.yarn else None
        self.ours = urlsplit(master).hostname in _LOOPBACK or (
            self.hadoop is not None and str(self.hadoop) == endpoints().get("yarn")
        )


def configuration(cluster: Cluster, settings: SparkSettings, submitted: Mapping[str, str]) -> dict[str, str]:
    """Return Spark's settings by name.

    Parameters
    ----------
    cluster : Cluster
    settings : SparkSettings
    submitted : mapping of str to str
        What ``spark-submit`` has set already.

    Raises
    ------
    MissingSoftwareError
        If workers are to be given this program, and it is not installed.
    """
    conf = _defaults(cluster, settings) | settings.conf
    python = worker_python(cluster, settings, submitted)
    if _ships(cluster, settings, python) and not _shipped_already(submitted):
        conf = with_shipment(conf, shipment(), yarn=cluster.yarn)
    return conf


def worker_python(cluster: Cluster, settings: SparkSettings, submitted: Mapping[str, str]) -> str:
    """Return the Python that workers run: the one that is named, else this one where they are on this machine.

    Parameters
    ----------
    cluster : Cluster
    settings : SparkSettings
    submitted : mapping of str to str
        What ``spark-submit`` has set already.
    """
    named = settings.worker_python or submitted.get("spark.pyspark.python") or settings.conf.get("spark.pyspark.python")
    named = named or os.environ.get("PYSPARK_PYTHON")
    return named or (
        sys.executable if cluster.local or cluster.ours else f"python{sys.version_info[0]}.{sys.version_info[1]}"
    )


def _ships(cluster: Cluster, settings: SparkSettings, python: str) -> bool:
    """Tell whether workers are given this program: by default unless they run this very Python on this machine."""
    if settings.ship != "auto":
        return settings.ship and not cluster.local
    return not (cluster.local or (cluster.ours and python == sys.executable))


def _shipped_already(submitted: Mapping[str, str]) -> bool:
    return any(is_shipment(value) for key, value in submitted.items() if key.endswith(".archives"))


def _find_hadoop(settings: SparkSettings) -> Path:
    """Return the folder of YARN's configuration, and make it known to the Java machine that is to be started.

    Raises
    ------
    UsageError, NotFoundError
    """
    named = settings.hadoop_conf or os.environ.get("HADOOP_CONF_DIR") or os.environ.get("YARN_CONF_DIR")
    named = named or endpoints().get("yarn")
    if not named:
        raise UsageError(
            "YARN's address is not known",
            remedy="apbatch cluster up yarn, or name the folder of Hadoop's configuration: hadoop_conf: FOLDER",
        )
    folder = Path(named).absolute()
    # in a container of YARN the folder is one of the container's own
    if not any((folder / name).is_file() for name in ("yarn-site.xml", "core-site.xml")) and not _in_container():
        raise NotFoundError("no configuration of Hadoop", where=str(folder), remedy="it holds yarn-site.xml")
    os.environ["HADOOP_CONF_DIR"] = str(folder)
    return folder


def was_submitted() -> bool:
    """Tell whether ``spark-submit`` started this program, and with it the Java machine."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _in_container() -> bool:
    return "CONTAINER_ID" in os.environ


def _defaults(cluster: Cluster, settings: SparkSettings) -> dict[str, str]:
    conf = {
        "spark.driver.memory": settings.driver_memory,
        "spark.executor.memory": settings.executor_memory,
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH_IMAGES),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.executorEnv.PYTHONUNBUFFERED": "1",
    }
    if (cluster.local or cluster.ours) and not _in_container():
        conf |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
        if not was_submitted():
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    if cluster.local and not was_submitted():
        # It hands out splits, pixels stay in Python: half of its CPU time was compilation that never paid.
        conf["spark.driver.extraJavaOptions"] = "-XX:TieredStopAtLevel=1 -XX:+UseParallelGC"
    if cluster.yarn:
        # Python's memory counts in a container as well: images, kernels, Arrow
        conf["spark.executor.memoryOverhead"] = "1g"
    if cluster.yarn and cluster.ours:
        conf |= _our_yarn()
    return conf | _pages(cluster, settings)


def _our_yarn() -> dict[str, str]:
    """Return settings for the development YARN: on the machine that all share, nothing need be copied."""
    import pyspark

    return {
        "spark.yarn.jars": f"local:{Path(pyspark.__file__).parent}/jars/*",
        "spark.yarn.stagingDir": (home() / "cluster" / "yarn" / "staging").as_uri(),
        "spark.yarn.am.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    }


def _pages(cluster: Cluster, settings: SparkSettings) -> dict[str, str]:
    """Return the settings of the page of a running job, and of the log from which the history server makes it later."""
    # Where spark-submit started the Java machine without SPARK_LOCAL_IP, the page would be open to the network.
    private = not (cluster.local or cluster.ours) or not was_submitted() or "SPARK_LOCAL_IP" in os.environ
    show_ui = settings.ui if settings.ui != "auto" else private and (not cluster.local or sys.stderr.isatty())
    conf = {"spark.ui.enabled": str(bool(show_ui)).lower()}
    logs = settings.event_log
    if logs == "auto":
        logs = not cluster.local
    if logs:
        url = event_logs().as_uri() if logs is True else _url(str(logs))
        _make_folder(url)
        conf |= {"spark.eventLog.enabled": "true", "spark.eventLog.dir": url}
    return conf


def _url(folder: str) -> str:
    return folder if "://" in folder else Path(folder).absolute().as_uri()


def _make_folder(url: str) -> None:
    """Make the folder of event logs: Spark wants it to be there."""
    if url.startswith("file://"):
        Path(url.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
        return
    store = open_store(url)
    if store.info("") is None:
        with store.publish(".apbatch") as file:  # a hidden file is no event log to the history server
            file.write(b"Event logs of Spark.\n")

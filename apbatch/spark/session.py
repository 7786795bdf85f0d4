"""The Spark session: where it runs, with which Python, and how quietly."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from apbatch.config import SparkSettings, endpoints, event_logs, home
from apbatch.errors import MissingSoftwareError, NotFoundError, ServerError, UsageError
from apbatch.progress import say
from apbatch.storage.store import open_store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Images an Arrow batch: with 600 pixels about 5 MB.
BATCH_IMAGES = 2048
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def session(settings: SparkSettings, app: str) -> SparkSession:
    """Return a running Spark session.

    Parameters
    ----------
    settings : SparkSettings
        Under ``spark-submit``, ``--master`` and other settings given there count more.
    app : str
        Name by which it is known in Spark's pages.

    Raises
    ------
    MissingSoftwareError
        Without Java or pyspark.
    UsageError
        If the master's address makes no sense.
    NotFoundError
        If YARN's configuration is not where it should be.
    ServerError
        If Spark does not start.

    See Also
    --------
    close : Stops it.
    """
    _need_java()
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingSoftwareError("pyspark is not installed", remedy="pip install 'apbatch[spark]'") from error

    submitted = _submitted_settings()
    given = submitted.get("spark.master", "")
    master = given if given and given != "local[*]" else settings.master  # local[*] is what spark-submit fills in
    _check_master(master)
    cluster = _Cluster(master, settings)
    # Workers of the same machine must run this Python, or they would miss what is installed here.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app).master(master)
    for key, value in {**_defaults(cluster, settings), **settings.conf}.items():
        if key not in submitted:
            builder = builder.config(key, value)
    try:
        spark = builder.getOrCreate()
    except Exception as error:  # py4j raises many kinds, none of ours
        raise ServerError(
            f"Spark does not start: {first_line(error)}", where=master, remedy="apbatch cluster status"
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    if spark.sparkContext.uiWebUrl:
        say(f"Spark UI: {spark.sparkContext.uiWebUrl}")
    return spark


def close(spark: SparkSession) -> None:
    """Stop a session, and say where its pages are from now on."""
    context = spark.sparkContext
    name, attempt = context.applicationId, context._jsc.sc().applicationAttemptId()
    logs = (
        context.getConf().get("spark.eventLog.dir") if _true(context.getConf().get("spark.eventLog.enabled")) else None
    )
    spark.stop()
    if not logs:
        return
    history = endpoints().get("history")
    if history and logs == event_logs().as_uri():
        say(f"Spark history: {history}/history/{name}/{f'{attempt.get()}/' if attempt.isDefined() else ''}jobs/")
    else:
        say(f"Spark's event log: {logs} (apbatch cluster up history shows those of this machine)")


def first_line(error: BaseException) -> str:
    """Return the line of a Java stack trace that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:") or "apbatch.errors." in line]
    text = causes[-1] if causes else (lines[0] if lines else type(error).__name__)
    return text.removeprefix("Caused by:").strip()[:300]


def _submitted_settings() -> dict[str, str]:
    """Return what ``spark-submit`` was told; nothing in a program that was started without it."""
    if not _submitted():
        return {}
    from pyspark import SparkConf, SparkContext

    # They are in spark-submit's JVM: until Python has met it, a SparkConf is empty.
    SparkContext._ensure_initialized()
    return dict(SparkConf().getAll())


def _submitted() -> bool:
    """Tell whether ``spark-submit`` started this program, and with it the Java machine."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _need_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if (home and (Path(home) / "bin" / "java").exists()) or shutil.which("java"):
        return
    raise MissingSoftwareError(
        "Spark needs Java 17, and there is none", remedy="apt-get install openjdk-17-jre-headless"
    )


def _check_master(master: str) -> None:
    if not master.startswith(("local", "spark://", "yarn", "k8s://")):
        raise UsageError(f"'{master}' is no master of Spark", remedy="write local[*], spark://HOST:PORT or yarn")


class _Cluster:
    """Where Spark runs: on this machine or not, on servers of ours or not.

    Attributes
    ----------
    ours : bool
        Whether it is a development server, whose workers are on this machine and listen on loopback only.
    """

    def __init__(self, master: str, settings: SparkSettings) -> None:
        self.master = master
        self.local = master.startswith("local")
        self.yarn = master.startswith("yarn")
        hadoop = _find_hadoop(settings) if self.yarn else None
        self.ours = urlsplit(master).hostname in _LOOPBACK or (
            hadoop is not None and str(hadoop) == endpoints().get("yarn")
        )


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


def _in_container() -> bool:
    return "CONTAINER_ID" in os.environ


def _defaults(cluster: _Cluster, settings: SparkSettings) -> dict[str, str]:
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
        if not _submitted():
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    if cluster.yarn:
        # Python's memory counts in a container as well: images, kernels, Arrow
        conf["spark.executor.memoryOverhead"] = "1g"
    if cluster.yarn and cluster.ours:
        conf |= our_yarn()
    return conf | _pages(cluster, settings)


def our_yarn() -> dict[str, str]:
    """Return settings for the development YARN: on the machine that all share, nothing need be copied."""
    import pyspark

    return {
        "spark.yarn.jars": f"local:{Path(pyspark.__file__).parent}/jars/*",
        "spark.yarn.stagingDir": (home() / "cluster" / "yarn" / "staging").as_uri(),
        "spark.yarn.am.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    }


def _pages(cluster: _Cluster, settings: SparkSettings) -> dict[str, str]:
    """Return the settings of the page of a running job, and of the log from which the history server makes it later."""
    # Where spark-submit started the Java machine without SPARK_LOCAL_IP, the page would be open to the network.
    private = not (cluster.local or cluster.ours) or not _submitted() or "SPARK_LOCAL_IP" in os.environ
    wanted = settings.ui if settings.ui != "auto" else private and (not cluster.local or sys.stderr.isatty())
    conf = {"spark.ui.enabled": str(bool(wanted)).lower()}
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
        with store.publish("README") as file:
            file.write(b"Event logs of Spark.\n")


def _true(text: str | None) -> bool:
    return text == "true"

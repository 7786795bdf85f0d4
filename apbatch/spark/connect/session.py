"""The Spark session: where it runs, with which Python, and how quietly."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from apbatch.config import SparkSettings, endpoints, event_logs
from apbatch.errors import MissingSoftwareError, ServerError
from apbatch.progress import say
from apbatch.spark.connect.configuration import BATCH_IMAGES as BATCH_IMAGES
from apbatch.spark.connect.configuration import Cluster, configuration, was_submitted, worker_python
from apbatch.spark.connect.workers import check_workers, first_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: How often a task is tried before its job fails: Spark's own number for clusters.
_ATTEMPTS = 4


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
        Without Java or pyspark, or if workers lack Python or packages.
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
    master_of_submit = submitted.get("spark.master", "")
    master = (
        master_of_submit if master_of_submit and master_of_submit != "local[*]" else settings.master
    )  # local[*] is what spark-submit fills in
    master = _with_retries(master)
    cluster = Cluster(master, settings)
    # Python reads it when the session starts
    os.environ["PYSPARK_PYTHON"] = worker_python(cluster, settings, submitted)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app).master(master)
    for key, value in configuration(cluster, settings, submitted).items():
        if key not in submitted:
            builder = builder.config(key, value)
    try:
        spark = builder.getOrCreate()
    except Exception as error:  # py4j raises many kinds, none of ours
        raise ServerError(
            f"Spark does not start: {first_line(error)}", where=master, remedy="apbatch cluster status"
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    if not cluster.local:
        try:
            check_workers(spark)
        except BaseException:
            spark.stop()
            raise
    if spark.sparkContext.uiWebUrl:
        say(f"Spark UI: {spark.sparkContext.uiWebUrl}")
    return spark


def close(spark: SparkSession) -> None:
    """Stop a session, and say where its pages are from now on."""
    context = spark.sparkContext
    name, attempt = context.applicationId, context._jsc.sc().applicationAttemptId()
    conf = context.getConf()
    logs = conf.get("spark.eventLog.dir") if conf.get("spark.eventLog.enabled") == "true" else None
    spark.stop()
    if not logs:
        return
    history = endpoints().get("history")
    if history and logs == event_logs().as_uri():
        say(f"Spark history: {history}/history/{name}/{f'{attempt.get()}/' if attempt.isDefined() else ''}jobs/")
    else:
        say(f"Spark's event log: {logs} (apbatch cluster up history shows those of this machine)")


def _submitted_settings() -> dict[str, str]:
    """Return what ``spark-submit`` was told; nothing in a program that was started without it."""
    if not was_submitted():
        return {}
    from pyspark import SparkConf, SparkContext

    # They are in spark-submit's JVM: until Python has met it, a SparkConf is empty.
    SparkContext._ensure_initialized()
    return dict(SparkConf().getAll())


def _need_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if (home and (Path(home) / "bin" / "java").exists()) or shutil.which("java"):
        return
    raise MissingSoftwareError(
        "Spark needs Java 17, and there is none", remedy="apt-get install openjdk-17-jre-headless"
    )


def _with_retries(master: str) -> str:
    """Let tasks of ``local[N]`` be tried as often as on a cluster; by itself Spark gives up at the first failure."""
    return f"{master[:-1]},{_ATTEMPTS}]" if re.fullmatch(r"local\[(\d+|\*)\]", master) else master

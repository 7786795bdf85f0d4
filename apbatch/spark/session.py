"""The Spark session: where it runs, with which Python, and how quietly."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from apbatch.config import SparkSettings
from apbatch.errors import MissingSoftwareError, ServerError, UsageError

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
    ServerError
        If Spark does not start.
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
    # Workers of the same machine must run this Python, or they would miss what is installed here.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app).master(master)
    for key, value in {**_defaults(master, settings), **settings.conf}.items():
        if key not in submitted:
            builder = builder.config(key, value)
    try:
        spark = builder.getOrCreate()
    except Exception as error:  # py4j raises many kinds, none of ours
        raise ServerError(
            f"Spark does not start: {first_line(error)}", where=master, remedy="apbatch cluster status"
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def first_line(error: BaseException) -> str:
    """Return the line of a Java stack trace that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:") or "apbatch.errors." in line]
    text = causes[-1] if causes else (lines[0] if lines else type(error).__name__)
    return text.removeprefix("Caused by:").strip()[:300]


def _submitted_settings() -> dict[str, str]:
    """Return what ``spark-submit`` was told; nothing in a program that was started without it."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
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


def _check_master(master: str) -> None:
    if not master.startswith(("local", "spark://", "yarn", "k8s://")):
        raise UsageError(f"'{master}' is no master of Spark", remedy="write local[*] or spark://HOST:PORT")


def _defaults(master: str, settings: SparkSettings) -> dict[str, str]:
    conf = {
        "spark.driver.memory": settings.driver_memory,
        "spark.executor.memory": settings.executor_memory,
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH_IMAGES),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.executorEnv.PYTHONUNBUFFERED": "1",
    }
    if master.startswith("local") or urlsplit(master).hostname in _LOOPBACK:
        conf |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    return conf

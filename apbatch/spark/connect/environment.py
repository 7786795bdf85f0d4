"""What ``spark-submit`` needs to know from outside: written to a folder, named by a few variables of the shell.

A program that ``spark-submit`` starts here tells Spark the rest by itself. With ``--deploy-mode cluster`` it starts in
a container that has nothing but Python, so all must be known before: this program, its packages, the settings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from apbatch.config import Settings, home
from apbatch.spark.connect.configuration import Cluster, configuration, worker_python
from apbatch.spark.connect.shipping import PYTHON_PATH
from apbatch.yamlfile import dump_yaml

_SETTINGS = "apbatch-settings.yaml"


def write_environment(settings: Settings) -> dict[str, str]:
    """Write ``spark-defaults.conf`` and the settings, with addresses filled in; return the variables that name them.

    Raises
    ------
    ApbatchError
        As `apbatch.spark.connect.session.session` does, but for what only a running Spark can tell.
    """
    cluster = Cluster(settings.spark.master, settings.spark)
    conf = configuration(cluster, settings.spark, {})
    conf["spark.master"] = settings.spark.master
    folder = home() / "spark" / "conf"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / _SETTINGS
    file.write_text(dump_yaml(settings.model_dump(mode="json")), encoding="utf-8")
    if cluster.yarn:
        conf |= _of_driver_in_container(conf, file, worker_python(cluster, settings.spark, {}))
    (folder / "spark-defaults.conf").write_text("".join(f"{key} {value}\n" for key, value in sorted(conf.items())))
    variables = {"APBATCH_CONFIG": str(file), "SPARK_CONF_DIR": str(folder), "PYSPARK_DRIVER_PYTHON": sys.executable}
    if cluster.hadoop is not None:
        variables["HADOOP_CONF_DIR"] = str(cluster.hadoop)
    if cluster.local or cluster.ours:
        variables["SPARK_LOCAL_IP"] = "127.0.0.1"
    return variables


def _of_driver_in_container(conf: dict[str, str], file: Path, python: str) -> dict[str, str]:
    """Return what a driver in a container of YARN is given; one that runs here does without."""
    variables = {"APBATCH_CONFIG": file.name, "APBATCH_HOME": str(home())}
    variables |= {"PYSPARK_PYTHON": python, "PYSPARK_DRIVER_PYTHON": python}
    if PYTHON_PATH in conf:
        variables["PYTHONPATH"] = conf[PYTHON_PATH]
    files = conf.get("spark.yarn.dist.files")
    return {
        "spark.yarn.dist.files": f"{file.as_uri()},{files}" if files else file.as_uri(),
        **{f"spark.yarn.appMasterEnv.{name}": value for name, value in variables.items()},
    }

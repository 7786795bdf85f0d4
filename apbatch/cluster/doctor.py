"""What this machine has and lacks, each with the command that mends it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from apbatch.cluster.afs import PACKAGES as AFS_PACKAGES
from apbatch.cluster.afs import install_answers, missing_programs
from apbatch.cluster.artifacts import jars_folder, require_java
from apbatch.cluster.cassandra import VERSION as CASSANDRA_VERSION
from apbatch.cluster.cassandra import Cassandra
from apbatch.cluster.hadoop import VERSION as HADOOP_VERSION
from apbatch.cluster.hdfs import Hdfs
from apbatch.cluster.history import History
from apbatch.cluster.ports import require_free
from apbatch.cluster.postgres import programs
from apbatch.cluster.spark import Spark
from apbatch.cluster.yarn import Yarn
from apbatch.config import cache, home
from apbatch.errors import MissingSoftwareError, ServerError, UsageError, nearest_word
from apbatch.progress import say

_POLICY = Path("/usr/sbin/policy-rc.d")
Purpose = Literal["demo", "test"]


@dataclass(frozen=True)
class Finding:
    """One row of the doctor's table.

    Attributes
    ----------
    state : str
        ``ok``, ``missing`` (something that is needed), ``optional`` (does without, as told), or ``low`` and ``taken``
        (warnings).
    packages : tuple of str
        Debian packages that mend it.
    """

    what: str
    state: str
    found: str
    remedy: str = ""
    packages: tuple[str, ...] = ()


def examine(purpose: Purpose) -> list[Finding]:
    """Look at everything that `purpose` needs."""
    test = purpose == "test"
    return [
        _python(),
        _java(),
        _program("Maven", "mvn", ("maven",), needed=test, why="fetches HDFS, YARN and Cassandra"),
        _postgres(needed=test),
        _program("FUSE", "fusermount3", ("fuse3", "libfuse3-dev", "pkg-config"), needed=test, why="mounts the tree"),
        _program("C++ compiler", "g++", ("g++",), needed=test, why="builds Horovod; without it one process trains"),
        _module("Spark", "pyspark"),
        _module("TensorFlow", "tensorflow"),
        _module("chromo", "chromo"),
        _horovod(needed=test),
        _openafs(needed=test),
        _jars(),
        _ports(),
        _room(),
        _memory(),
    ]


def install(findings: list[Finding]) -> None:
    """Install the Debian packages that are missing, as root only.

    Services that come with them are not started: a development machine gets no open port from this.

    Raises
    ------
    MissingSoftwareError
        If this is not root, or apt-get fails; the remedy is the command.
    """
    packages = [package for finding in findings if finding.state == "missing" for package in finding.packages]
    if not packages:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *dict.fromkeys(packages)]
    text = " ".join(command)
    command[1:1] = ["-o", "DPkg::Lock::Timeout=300"]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingSoftwareError(f"packages are missing: {' '.join(packages)}", remedy=f"as root: {text}")
    say(f"installing {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if set(packages) & set(AFS_PACKAGES):
        install_answers()
    with _services_left_off():
        for step in (["apt-get", "update", "-q"], command):
            done = subprocess.run(step, env=environment, capture_output=True, text=True, check=False, timeout=1200)
            if done.returncode and step is command:
                raise MissingSoftwareError(f"apt-get failed: {done.stderr[-600:]}", remedy=f"as root: {text}")


def fetch_jars() -> None:
    """Fetch the programs of HDFS, YARN and Cassandra, unless they are there."""
    Hdfs.fetch()
    Yarn.fetch()
    Cassandra.fetch()


@contextmanager
def _services_left_off() -> Iterator[None]:
    """Tell Debian's package scripts, while they run, that no service may be started."""
    if _POLICY.exists():  # the machine has a policy of its own
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def purpose_named(text: str) -> Purpose:
    """Return the purpose that a user named."""
    if text == "demo":
        return "demo"
    if text == "test":
        return "test"
    raise UsageError(f"'{text}' is not a purpose", nearest=nearest_word(text, ["demo", "test"]), remedy="demo or test")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info[:2] >= (3, 11)
    return Finding("Python 3.11", "ok" if good else "missing", version, "" if good else "apt-get install python3.11")


def _java() -> Finding:
    try:
        require_java()
    except MissingSoftwareError as error:
        return Finding("Java 17", "missing", error.what, error.remedy or "", ("openjdk-17-jre-headless",))
    return Finding("Java 17", "ok", shutil.which("java") or "")


def _program(what: str, name: str, packages: tuple[str, ...], *, needed: bool, why: str) -> Finding:
    path = shutil.which(name)
    if path:
        return Finding(what, "ok", path)
    return Finding(what, "missing" if needed else "optional", why, f"apt-get install {' '.join(packages)}", packages)


def _postgres(*, needed: bool) -> Finding:
    try:
        return Finding("PostgreSQL", "ok", str(programs()))
    except MissingSoftwareError as error:
        state = "missing" if needed else "optional"
        return Finding("PostgreSQL", state, error.what, "apt-get install postgresql", ("postgresql",))


def _module(what: str, name: str) -> Finding:
    if importlib.util.find_spec(name):
        return Finding(what, "ok", "installed")
    return Finding(what, "missing", "not installed", "pip install 'apbatch[all]'")


def _horovod(*, needed: bool) -> Finding:
    if importlib.util.find_spec("horovod"):
        return Finding("Horovod", "ok", "installed")
    state = "missing" if needed else "optional"
    return Finding("Horovod", state, "not built: one process trains", "apt-get install g++, then make again")


def _openafs(*, needed: bool) -> Finding:
    if os.geteuid() != 0:  # nothing else needs root, so its lack must not stop the rest
        return Finding("OpenAFS", "optional", "only root can start a cell", "run as root")
    missing = missing_programs()
    if missing:
        state = "missing" if needed else "optional"
        command = f"apt-get install --no-install-recommends {' '.join(AFS_PACKAGES)}"
        return Finding("OpenAFS", state, f"no {', '.join(missing)}", command, AFS_PACKAGES)
    return Finding("OpenAFS", "ok", "installed, and this is root")


def _jars() -> Finding:
    folders = [jars_folder(name, HADOOP_VERSION) for name in ("hadoop-hdfs", "hadoop-yarn")]
    folders.append(jars_folder("cassandra", CASSANDRA_VERSION))
    absent = [folder.name for folder in folders if not folder.is_dir()]
    if absent:
        text = f"{', '.join(absent)} not fetched yet"
        return Finding("server programs", "optional", text, "apbatch cluster up fetches them on first use")
    return Finding("server programs", "ok", str(folders[0].parent))


def _ports() -> Finding:
    errors = []
    for server in (Hdfs(), Cassandra(), Spark(), Yarn(), History()):
        for daemon in server.daemons():
            for number in daemon.ports if daemon.process() is None else ():
                try:
                    require_free(number, f"{server.name} ({daemon.name})")
                except ServerError as error:
                    errors.append(error)
    if errors:
        return Finding("ports", "taken", "; ".join(error.what for error in errors), errors[0].remedy or "")
    return Finding("ports", "ok", "free, or held by servers of this state folder")


def _room() -> Finding:
    return _at_least("disk", [shutil.disk_usage(_existing(folder())).free for folder in (home, cache)], 5 << 30)


def _memory() -> Finding:
    return _at_least("memory", [psutil.virtual_memory().available], 4 << 30)


def _at_least(what: str, free: list[int], minimum: int) -> Finding:
    least = min(free)
    state = "ok" if least >= minimum else "low"  # a warning: small jobs may still do
    text = f"{least / 2**30:.1f} GiB free"
    return Finding(what, state, text, "" if state == "ok" else f"make room: {minimum >> 30} GiB are wanted")


def _existing(folder: os.PathLike[str]) -> str:
    path = os.fspath(folder)
    while not os.path.exists(path):  # noqa: PTH110 - walks up plain text
        path = os.path.dirname(path)  # noqa: PTH120
    return path

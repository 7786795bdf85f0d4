"""What this machine has and lacks, each with the command that mends it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import psutil

from apbatch.cluster.afs import PACKAGES as AFS_PACKAGES
from apbatch.cluster.afs import install_answers, missing_programs
from apbatch.cluster.artifacts import require_java
from apbatch.config import cache, home
from apbatch.errors import MissingSoftwareError, UsageError
from apbatch.progress import say

Purpose = Literal["demo", "test"]


@dataclass(frozen=True)
class Finding:
    """One row of the doctor's table.

    Attributes
    ----------
    state : str
        ``ok``, ``missing`` (something that is needed), ``optional`` or ``low``.
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
        _program("Maven", "mvn", ("maven",), needed=test, why="fetches HDFS and Cassandra"),
        _program("C++ compiler", "g++", ("g++",), needed=test, why="builds Horovod; without it one process trains"),
        _module("Spark", "pyspark"),
        _module("TensorFlow", "tensorflow"),
        _module("chromo", "chromo"),
        _horovod(needed=test),
        _openafs(needed=test),
        _room(),
        _memory(),
    ]


def install(findings: list[Finding]) -> None:
    """Install the Debian packages that are missing; as root only.

    Raises
    ------
    MissingSoftwareError
        If this is not root, or apt-get fails; the remedy is the command.
    """
    packages = [package for finding in findings if finding.state == "missing" for package in finding.packages]
    if not packages:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    text = " ".join(command)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingSoftwareError(f"packages are missing: {' '.join(packages)}", remedy=f"as root: {text}")
    say(f"installing {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if set(packages) & set(AFS_PACKAGES):
        install_answers()
    for step in (["apt-get", "update", "-q"], command):
        done = subprocess.run(step, env=environment, capture_output=True, text=True, check=False, timeout=1200)
        if done.returncode and step is command:
            raise MissingSoftwareError(f"apt-get failed: {done.stderr[-600:]}", remedy=f"as root: {text}")


def purpose_named(text: str) -> Purpose:
    """Return the purpose that a user named."""
    if text == "demo":
        return "demo"
    if text == "test":
        return "test"
    raise UsageError(f"'{text}' is no purpose", remedy="demo or test")


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
    found = shutil.which(name)
    if found:
        return Finding(what, "ok", found)
    return Finding(what, "missing" if needed else "optional", why, f"apt-get install {' '.join(packages)}", packages)


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
    missing = missing_programs()
    command = f"apt-get install --no-install-recommends {' '.join(AFS_PACKAGES)}"
    if missing:
        state = "missing" if needed else "optional"
        return Finding("OpenAFS", state, f"no {', '.join(missing)}", command, AFS_PACKAGES)
    if os.geteuid() != 0:
        return Finding("OpenAFS", "optional", "installed, but only root can start a cell", "run as root")
    return Finding("OpenAFS", "ok", "installed")


def _room() -> Finding:
    return _at_least("disk", [shutil.disk_usage(_existing(folder())).free for folder in (home, cache)], 5 << 30)


def _memory() -> Finding:
    return _at_least("memory", [psutil.virtual_memory().available], 4 << 30)


def _at_least(what: str, free: list[int], wanted: int) -> Finding:
    least = min(free)
    state = "ok" if least >= wanted else "low"  # a warning: small jobs may still do
    text = f"{least / 2**30:.1f} GiB free"
    return Finding(what, state, text, "" if state == "ok" else f"make room: {wanted >> 30} GiB are wanted")


def _existing(folder: os.PathLike[str]) -> str:
    path = os.fspath(folder)
    while not os.path.exists(path):  # noqa: PTH110 - walks up plain text
        path = os.path.dirname(path)  # noqa: PTH120
    return path

"""Java programs by Maven, kept under the cache folder; each set whole or not there at all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from functools import cache as remember
from pathlib import Path

from apbatch.config import cache
from apbatch.errors import MissingSoftwareError, ServerError
from apbatch.progress import say

_POM = """<project><modelVersion>4.0.0</modelVersion>
<groupId>apbatch</groupId><artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{dependencies}</dependencies></project>
"""
_BARE = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"


def java() -> str:
    """Return the command of Java: that of ``$JAVA_HOME``, or the one on the path."""
    home = os.environ.get("JAVA_HOME")
    return f"{home}/bin/java" if home else "java"


@remember
def require_java() -> None:
    """Make sure that Java is there and is 17 or newer.

    Raises
    ------
    MissingSoftwareError
        If there is none; the remedy names the package.
    """
    program = shutil.which(java())
    remedy = "apt-get install openjdk-17-jre-headless"
    if program is None:
        raise MissingSoftwareError("no Java on this machine", remedy=remedy)
    answer = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    version = re.search(r'version "(\d+)', answer)
    if version is None or int(version[1]) < 17:
        raise MissingSoftwareError(
            f"Java 17 is wanted, and {program} is {answer.splitlines()[0] if answer else 'mute'}", remedy=remedy
        )


def jars_folder(name: str, version: str) -> Path:
    """Return where the set of jars lies once it was fetched."""
    return cache() / "java" / f"{name}-{version}"


def jars(name: str, version: str, artifacts: list[str], webapps_from: str | None = None) -> Path:
    """Return the folder with the jars of `artifacts` and all they need, fetched on first use.

    Parameters
    ----------
    name, version : str
        Name of the set in the cache.
    artifacts : list of str
        ``group:artifact:version``; with a fourth part ``:classifier`` it comes without what it depends on.
    webapps_from : str, optional
        File name of the jar whose ``webapps/`` are unpacked beside the jars.

    Raises
    ------
    MissingSoftwareError
        If there is no Maven.
    ServerError
        If Maven fails.
    """
    folder = jars_folder(name, version)
    if folder.is_dir():
        return folder
    require_java()
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingSoftwareError("Maven is missing", remedy="apt-get install maven")
    say(f"fetching {name} {version} by Maven (once)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        work = Path(scratch)
        (work / "pom.xml").write_text(_POM.format(name=name, dependencies="".join(map(_dependency, artifacts))))
        lib = work / "lib"
        command = [maven, "-q", "-B", "-f", str(work / "pom.xml"), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={lib}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            raise ServerError(f"Maven could not fetch {name} {version}:\n{(done.stdout + done.stderr)[-1500:]}")
        if webapps_from:
            with zipfile.ZipFile(lib / webapps_from) as jar:
                jar.extractall(lib, [entry for entry in jar.namelist() if entry.startswith("webapps/")])
            (lib / webapps_from).unlink()
        try:
            lib.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was quicker, with the same jars
                raise
    return folder


def _dependency(coordinates: str) -> str:
    group, artifact, version, *classifier = coordinates.split(":")
    extra = f"<classifier>{classifier[0]}</classifier>{_BARE}" if classifier else ""
    return (
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version>{extra}</dependency>"
    )

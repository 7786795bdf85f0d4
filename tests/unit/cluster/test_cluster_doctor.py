"""What the doctor finds on machines that lack something, and how the servers' programs are fetched."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from apbatch.cluster import artifacts, doctor
from apbatch.errors import MissingSoftwareError, ServerError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the path; empty but for the shell's needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "mkdir", "cat"):
        (folder / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("APBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    artifacts.require_java.cache_clear()
    yield folder
    artifacts.require_java.cache_clear()


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def found(purpose: doctor.Purpose) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.examine(purpose)}


def test_tests_need_what_a_demo_can_do_without(home: Path, programs: Path) -> None:
    for what in ("Maven", "C++ compiler"):
        assert found("demo")[what].state == "optional"
        assert found("test")[what].state == "missing"


def test_each_lack_comes_with_its_command(home: Path, programs: Path) -> None:
    findings = found("test")
    assert findings["Java 17"].remedy == "apt-get install openjdk-17-jre-headless"
    assert findings["Maven"].remedy == "apt-get install maven"
    assert findings["C++ compiler"].remedy == "apt-get install g++"
    assert all(finding.remedy for finding in findings.values() if finding.state != "ok")


def test_a_java_that_is_too_old_is_told(programs: Path) -> None:
    program(programs, "java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    with pytest.raises(MissingSoftwareError, match=r"Java 17 is wanted.*11\.0\.2"):
        artifacts.require_java()


def test_a_port_that_is_taken_is_told(
    home: Path, port_base: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = port_base()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", base + 30))
        holder.listen()
        monkeypatch.setenv("APBATCH_PORT_BASE", str(base))
        finding = found("demo")["ports"]
    assert finding.state == "taken"
    assert f"port {base + 30} for cassandra (cassandra) is taken by process {os.getpid()}" in finding.found


def test_without_root_openafs_stops_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert found("test")["OpenAFS"].state == "optional"


def test_root_installs_what_is_missing_and_starts_no_service(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(doctor, "_POLICY", policy)
    program(programs, "apt-get", f'echo "$@" >>{tmp_path}/asked; cat {policy} >>{tmp_path}/policy')
    lacks = [
        doctor.Finding("Maven", "missing", "", packages=("maven",)),
        doctor.Finding("OpenAFS", "optional", "", packages=("openafs-client",)),
    ]
    doctor.install(lacks)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0].startswith("update") and asked[1].endswith("install -y --no-install-recommends maven")
    assert "exit 101" in (tmp_path / "policy").read_text()
    assert not policy.exists()


def test_without_root_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingSoftwareError) as raised:
        doctor.install([doctor.Finding("Maven", "missing", "", packages=("maven",))])
    assert raised.value.remedy == "as root: apt-get install -y --no-install-recommends maven"


def test_without_maven_the_package_is_told(programs: Path) -> None:
    program(programs, "java", "echo 'openjdk version \"17.0.15\"' >&2")
    with pytest.raises(MissingSoftwareError, match="apt-get install maven"):
        artifacts.jars("set", "1", ["group:artifact:1"])


def test_a_set_that_maven_could_not_fetch_is_not_there_afterwards(programs: Path) -> None:
    program(programs, "java", "echo 'openjdk version \"17.0.15\"' >&2")
    program(
        programs,
        "mvn",
        'for a in "$@"; do case $a in -DoutputDirectory=*) mkdir "${a#*=}";; esac; done; echo no net; exit 1',
    )
    with pytest.raises(ServerError, match="could not fetch set 1:\nno net"):
        artifacts.jars("set", "1", ["group:artifact:1"])
    assert list(artifacts.jars_folder("set", "1").parent.iterdir()) == []


def test_a_set_is_fetched_once(programs: Path, tmp_path: Path) -> None:
    program(programs, "java", "echo 'openjdk version \"17.0.15\"' >&2")
    script = 'for a in "$@"; do case $a in -DoutputDirectory=*) mkdir "${a#*=}"; echo jar >"${a#*=}/a.jar";; esac; done'
    program(programs, "mvn", f"{script}; echo once >>{tmp_path}/calls")
    for _ in range(2):
        assert (artifacts.jars("set", "1", ["group:artifact:1"]) / "a.jar").exists()
    assert (tmp_path / "calls").read_text() == "once\n"

"""The mirror as the user runs it: files of the sample, real servers, kills and damage."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from apbatch.config import load_settings
from apbatch.index.backends import open_catalogue
from apbatch.index.files import FileRecord
from apbatch.index.query import Everything
from apbatch.ingest.replicas.stores import best_source
from apbatch.storage.backends import open_store, open_url
from apbatch.storage.hadoop.webhdfs import WebHdfsStore
from apbatch.storage.publishing import PublishingStore
from apbatch.storage.store import Store
from tests.waits import PATIENCE_S

COMMAND = str(Path(sys.executable).with_name("apbatch"))
FILES = 6

TARGETS = [
    pytest.param("hdfs", marks=pytest.mark.hdfs),
    pytest.param("webhdfs", marks=pytest.mark.hdfs),
    pytest.param("afs", marks=pytest.mark.afs),
]


def apbatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def registered(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A site with some raw files of the sample, one a cluster, and the state in which it is registered."""
    base = tmp_path_factory.mktemp("mirror")
    root, state = base / "site", base / "home"
    for file in sorted((sample / "taiga_raw").glob("BSM*/*.001"))[:FILES]:
        (root / file.parent.name).mkdir(parents=True)
        shutil.copy(file, root / file.parent.name)
    for file in root.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    description = base / "site.yaml"
    description.write_text(f"name: tunka\nexperiment: TAIGA\nroot: {root}\n")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("APBATCH_HOME", str(state))
        for arguments in (("site", "add", str(description)), ("ingest", "tunka")):
            done = apbatch(*arguments)
            assert done.returncode == 0, done.stderr
    return root, state


@pytest.fixture
def site(home: Path, registered: tuple[Path, Path]) -> Path:
    """Root of the registered site; the catalogue is a fresh copy for each test."""
    shutil.copytree(registered[1], home)
    return registered[0]


def mirror(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the command; return its status and what became of each file."""
    done = apbatch("mirror", "experiment = 'TAIGA'", *arguments, "--files", "--format", "json")
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def outcomes(files: list[dict[str, Any]]) -> set[str]:
    return {file["outcome"] for file in files}


def records() -> list[FileRecord]:
    with open_catalogue(load_settings().catalogue) as catalogue:
        return list(catalogue.select(Everything()))


def recorded_urls() -> set[str]:
    with open_catalogue(load_settings().catalogue) as catalogue:
        paths = [record.path for record in catalogue.select(Everything())]
        return {replica.url for many in catalogue.replicas(paths).values() for replica in many}


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a folder of its own on a server."""
    server: str = request.getfixturevalue(request.param)
    folder = f"mirror-{secrets.token_hex(4)}"
    yield f"{server}/{folder}"
    open_store(server).remove(folder)


@pytest.mark.parametrize("target", TARGETS, indirect=True)
def test_every_file_of_a_site_gets_a_recorded_replica(site: Path, target: str) -> None:
    status, files = mirror("--to", target)
    assert (status, outcomes(files), len(files)) == (0, {"copied"}, FILES)
    assert recorded_urls() == {file["url"] for file in files}


@pytest.mark.parametrize("target", TARGETS, indirect=True)
def test_a_replica_has_the_bytes_of_the_site(site: Path, target: str) -> None:
    mirror("--to", target)
    for record in records():
        with open_catalogue(load_settings().catalogue) as catalogue:
            url = best_source(record, catalogue.replicas([record.path])[record.path], target)
        assert url.startswith(target)
        with open_url(url) as replica:
            assert replica.read() == (site / record.source).read_bytes()


@pytest.mark.parametrize("target", TARGETS, indirect=True)
def test_a_second_mirror_finds_everything_there(site: Path, target: str) -> None:
    mirror("--to", target)
    status, files = mirror("--to", target)
    assert (status, outcomes(files)) == (0, {"there already"})


def replica_paths(store: Store) -> list[str]:
    """All files of a store, parts included."""
    assert isinstance(store, PublishingStore)
    if store.info("") is None:
        return []
    folders, found = [""], []
    while folders:
        for entry in store._all_entries(folders.pop()):
            (folders if entry.is_directory else found).append(entry.path)
    return found


@pytest.mark.hdfs
@pytest.mark.parametrize("target", ["hdfs"], indirect=True)
def test_a_mirror_killed_goes_on_and_copies_nothing_twice(site: Path, target: str) -> None:
    store = open_store(target)
    running = subprocess.Popen(
        [COMMAND, "mirror", "experiment = 'TAIGA'", "--to", target, "--threads", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while running.poll() is None and not [path for path in replica_paths(store) if not path.endswith(".part")]:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    before = {path: store.info(path) for path in replica_paths(store) if not path.endswith(".part")}
    assert 0 < len(before) < FILES, "the kill came too late to show anything"

    status, files = mirror("--to", target)

    after = {path: store.info(path) for path in replica_paths(store)}
    assert status == 0
    assert len(after) == FILES, "a part was left, or a file is missing"
    assert {path: after[path] for path in before} == before, "a file was written again"
    assert recorded_urls() == {file["url"] for file in files}
    for record in records():
        assert store.checksums(record.path).blake3 == record.checksum


@pytest.mark.hdfs
@pytest.mark.parametrize("target", ["hdfs"], indirect=True)
def test_a_flipped_byte_in_a_replica_is_found_and_mended(site: Path, target: str) -> None:
    mirror("--to", target)
    store, record = open_store(target), records()[0]
    content = bytearray((site / record.source).read_bytes())
    content[len(content) // 2] ^= 1
    with store.publish(record.path) as publication:
        publication.write(content)

    _, unseen = mirror("--to", target)
    status, files = mirror("--to", target, "--verify")

    assert outcomes(unseen) == {"there already"}
    assert status == 0
    assert [file["path"] for file in files if file["outcome"] == "repaired"] == [record.path]
    assert store.checksums(record.path).blake3 == blake3((site / record.source).read_bytes()).hexdigest()


@pytest.mark.hdfs
@pytest.mark.parametrize("target", ["hdfs"], indirect=True)
def test_a_source_that_changed_since_registration_is_reported_and_the_rest_copied(site: Path, target: str) -> None:
    changed = records()[0]
    original = (site / changed.source).read_bytes()
    (site / changed.source).write_bytes(original[:1000] + b"\xff\xfe" + original[1002:])
    try:
        status, files = mirror("--to", target)
    finally:
        (site / changed.source).write_bytes(original)
    assert status == 1
    (failure,) = [file for file in files if file["outcome"] == "failed"]
    assert failure["path"] == changed.path
    assert "registered" in failure["reason"]
    assert len([file for file in files if file["outcome"] == "copied"]) == FILES - 1
    assert open_store(target).info(changed.path) is None


@pytest.mark.hdfs
def test_a_file_of_two_blocks_is_verified_and_located(hdfs: str, webhdfs: str) -> None:
    folder = f"mirror-{secrets.token_hex(4)}"
    store, web = open_store(f"{hdfs}/{folder}"), WebHdfsStore(f"{webhdfs}/{folder}")
    piece = os.urandom(1 << 20)
    with web.publish("long") as publication:  # verified by HDFS's checksum of a file of several blocks
        for _ in range(web.default_block_size() // len(piece) + 1):
            publication.write(piece)
    hosts = web.block_hosts("long")
    store.remove("long")
    assert len(hosts) == 2
    assert all(hosts)


def test_a_server_that_is_down_is_said_with_the_remedy(home: Path) -> None:
    done = apbatch("mirror", "", "--to", "hdfs")
    assert done.returncode == 1
    assert "apbatch cluster up hdfs" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_target_is_the_users_error(home: Path) -> None:
    done = apbatch("mirror", "", "--to", "hfds")
    assert done.returncode == 2
    assert "did you mean 'hdfs'" in done.stderr

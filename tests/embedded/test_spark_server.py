"""Spark jobs that select through a catalogue's server, and read from it what the policy shows to their token."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apbatch.access.guard import Guard
from apbatch.access.opening import Opening
from apbatch.access.reader import OpenFile
from apbatch.api.tokens import TokenFile
from apbatch.camera.cleaning import Cleaning
from apbatch.cli.analysis.on_spark import selected_images
from apbatch.cli.main import application, run_command
from apbatch.config import Settings, SparkSettings
from apbatch.datasets import dataset
from apbatch.errors import ServerError, UsageError
from apbatch.index.events.parquet import ParquetEvents
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.ingest.scan import ingest
from apbatch.ingest.sites import add_site
from apbatch.sample.site import SITES
from apbatch.spark import pipeline
from apbatch.spark.compact import content_digest
from apbatch.spark.connect.session import session
from apbatch.spark.inputs.sources import RawOptions, Source
from apbatch.spark.registration import register_events
from tests.service import Running, serving
from tests.waits import PATIENCE_S, until

pytestmark = [pytest.mark.spark, pytest.mark.campaign]

ROOT = Path(__file__).resolve().parents[2]
FIRST, SECOND = (f"/taiga-sim/images/part-0000{number}.parquet" for number in (1, 2))
IMAGES = "format = 'apbatch-images'"
CLEANING = Cleaning("tailcuts", 14, 7)
#: The worker reads the first file, sees the second one, and knows nothing of what is not TAIGA-SIM.
RULES = """
rules:
  - {name: names, who: {users: worker}, may: metadata, query: "experiment = 'TAIGA-SIM'"}
  - {name: first, who: {users: worker}, may: data, query: "experiment = 'TAIGA-SIM' and run = 1"}
"""
ALL = "rules: [{name: all, who: {users: worker}, may: data}]"


class Flipped:
    """An open file, whose first byte is another one on its way."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Flipped:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(self._file.read(offset, length))
        if offset == 0 and data:
            data[0] ^= 1
        return bytes(data)


class Files:
    """Opens files for the service, some of them wrongly."""

    def __init__(self) -> None:
        self._opening = Opening()
        self.flipped: set[str] = set()
        self.before: Callable[[str], object] = lambda path: None

    def __call__(self, door: Guard, path: str) -> OpenFile | Flipped:
        self.before(path)
        file = self._opening(door, path)
        return Flipped(file) if path in self.flipped else file


@pytest.fixture(scope="module")
def near(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of the catalogue: images in two files, and files of another camera and of none."""
    folder = tmp_path_factory.mktemp("near")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APBATCH_HOME", str(folder))
        patch.delenv("APBATCH_CONFIG", raising=False)
        for name in ("images", "taiga_mc", "taiga_raw", SITES):
            shutil.copytree(sample / name, folder / "sample" / name)
        with SqliteCatalogue(f"sqlite:///{folder}/catalogue.sqlite") as catalogue:
            for name in ("images", "taiga-mc", "taiga-raw"):
                ingest(add_site(folder / "sample" / SITES / f"{name}.yaml")[0], catalogue)
        yield folder


@pytest.fixture(scope="module")
def spark(near: Path) -> Iterator[object]:
    started = session(SparkSettings(master="local[2]"), "server")
    yield started
    started.stop()


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
def running(near: Path, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A service whose worker may read everything; his token is this process's."""
    with (
        SqliteCatalogue(f"sqlite:///{near}/catalogue.sqlite") as catalogue,
        ParquetEvents(f"file://{near}/events") as events,
        serving(tmp_path, catalogue, events, auth=True, rules=ALL, files=files) as running,
    ):
        monkeypatch.setenv("APBATCH_TOKEN", running.tokens.create("worker"))
        yield running


def selected(catalogue: str, query: str = IMAGES) -> list[Source]:
    return selected_images(Settings(catalogue=catalogue), query)


def selected_here(near: Path, query: str) -> list[Source]:
    settings = Settings(catalogue=f"sqlite:///{near}/catalogue.sqlite", events=f"file://{near}/events")
    return selected_images(settings, query)


def cleaned(spark: Any, sources: list[Source], folder: Path) -> tuple[dict[str, int], list[str], str]:
    """Losses, problems and the digest of the content of a new dataset of cleaned images."""
    url = folder.as_uri()
    summary = pipeline.clean(spark, sources, url, CLEANING)
    return summary.losses, summary.problems, content_digest(url)


def of_site(spark: Any, near: Path, query: str, folder: Path) -> str:
    """The digest of what the same query makes of the files in place."""
    losses, problems, digest = cleaned(spark, selected_here(near, query), folder)
    assert (losses, problems) == ({}, [])
    return digest


def test_a_program_cleans_what_the_policy_shows_to_its_token(spark, near: Path, tmp_path: Path) -> None:
    command, home, log = str(Path(sys.executable).with_name("apbatch")), tmp_path / "far", tmp_path / "log"
    token = TokenFile(near / "api" / "tokens.json").create("worker")
    (tmp_path / "policy.yaml").write_text(RULES)
    (tmp_path / "token").write_text(f"{token}\n")
    (tmp_path / "events").mkdir()
    settings = {"spark": {"master": "local[2]", "event_log": (tmp_path / "events").as_uri(),
                          "conf": {"spark.eventLog.compress": "false"}}}  # fmt: skip
    (tmp_path / "settings.yaml").write_text(json.dumps(settings))
    with log.open("w") as stream:
        server = subprocess.Popen(
            [command, "serve", "--auth", "--policy", tmp_path / "policy.yaml", "--port", "0"], stderr=stream
        )
    try:
        address = re.compile(r"serving on (http://\S+)")
        until(lambda: address.search(log.read_text()) or server.poll() is not None, "it does not listen")
        listening = address.search(log.read_text())
        assert listening, log.read_text()
        environment = {**os.environ, "APBATCH_HOME": str(home), "APBATCH_TOKEN_FILE": str(tmp_path / "token")}
        output = tmp_path / "images"
        job = subprocess.run(
            [sys.executable, ROOT / "jobs" / "clean.py", "--catalogue", listening[1], "--select", "events > 0",
             "--picture", "14 pe", "--boundary", "7 pe", "--output", output, "--config", tmp_path / "settings.yaml"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        server.terminate()
        assert server.wait(PATIENCE_S) == 0
    assert job.returncode == 0, job.stderr
    assert json.loads(job.stdout)["losses"] == {"unreadable files": 1}
    assert re.search(f"passed over: .*path={SECOND}: .*may not be read", job.stderr), job.stderr
    assert content_digest(output.as_uri()) == of_site(spark, near, f"{IMAGES} and run = 1", tmp_path / "local")
    inputs = dataset.info(output.as_uri())["provenance"]["inputs"]
    assert inputs == [f"{listening[1]}/api/v1/content?path={path}" for path in (FIRST, SECOND)]
    places = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "token"]
    assert len(list((tmp_path / "events").iterdir())) > 0
    assert [path for path in places if token.encode() in path.read_bytes()] == []
    assert token not in job.stdout + job.stderr


def test_a_wrong_byte_costs_its_file_alone(spark, running: Running, files: Files, near: Path, tmp_path: Path) -> None:
    files.flipped = {FIRST}
    losses, problems, digest = cleaned(spark, selected(running.url), tmp_path / "images")
    assert losses == {"unreadable files": 1}
    assert len(problems) == 1 and FIRST in problems[0] and "not those that were registered" in problems[0]
    assert digest == of_site(spark, near, f"{IMAGES} and run = 2", tmp_path / "local")


def test_a_file_that_the_server_can_not_give_costs_itself_alone(
    spark, running: Running, near: Path, tmp_path: Path
) -> None:
    there = near / "sample" / "images" / FIRST.rpartition("/")[2]
    away = there.rename(there.with_suffix(".away"))
    try:
        losses, problems, digest = cleaned(spark, selected(running.url), tmp_path / "images")
    finally:
        away.rename(there)
    assert losses == {"unreadable files": 1}
    assert len(problems) == 1 and FIRST in problems[0]
    assert digest == of_site(spark, near, f"{IMAGES} and run = 2", tmp_path / "local")


def test_a_job_ends_when_its_token_is_revoked_and_goes_on_with_another(
    spark, running: Running, files: Files, near: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = selected(running.url)

    def revoke(path: str) -> None:
        if path == SECOND:
            for token in running.tokens.list():
                running.tokens.revoke(token["id"])

    files.before = revoke
    with pytest.raises(ServerError, match="the token is not valid"):
        cleaned(spark, sources, tmp_path / "images")
    assert not dataset.is_complete((tmp_path / "images").as_uri())
    files.before = lambda path: None
    monkeypatch.setenv("APBATCH_TOKEN", running.tokens.create("worker"))
    losses, _, digest = cleaned(spark, selected(running.url), tmp_path / "images")
    assert (losses, digest) == ({}, of_site(spark, near, IMAGES, tmp_path / "local"))


def test_events_are_cleaned_anew_from_their_files(
    spark, running: Running, near: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, parameters = ((tmp_path / name).as_uri() for name in ("all", "parameters"))
    pipeline.images(spark, selected_here(near, IMAGES), {"images": images, "parameters": parameters}, CLEANING)
    query = "experiment = 'TAIGA-SIM' and cleaning = 'tailcuts-14-7' and size > 150 pe"
    with ParquetEvents(f"file://{near}/events") as events:
        register_events(events, parameters)
    losses, problems, digest = cleaned(spark, selected(running.url, query), tmp_path / "served")
    assert (losses, problems) == ({}, [])
    (tmp_path / "local").mkdir()
    summary = pipeline.clean(spark, selected_here(near, query), f"file://{tmp_path}/local/images", CLEANING)
    assert 0 < summary.images < 120
    assert digest == content_digest(f"file://{tmp_path}/local/images")
    register = ["parameters", "--catalogue", running.url, "--input", images, "--output", str(tmp_path / "x")]
    assert run_command(application(), arguments=[*register, "--register"]) == 2
    assert "a server takes no events" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_what_a_server_can_not_do_is_refused_before_any_work(
    running: Running, near: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served, output = ("--catalogue", running.url), ("--output", str(tmp_path / "x"))
    for command, wanted in {
        ("clean", *served, "--select", IMAGES, "--from", "hdfs", *output): "the server of the catalogue gives",
        ("skim", *served, "--select", "size > 200 pe", *output): "does not tell where cleaned images are",
    }.items():
        assert run_command(application(), arguments=list(command)) == 2
        assert wanted in capsys.readouterr().err


def test_raw_files_of_a_server_are_calibrated_as_the_options_say(
    running: Running, near: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, query = Settings(catalogue=running.url), "format = 'taiga-raw' and cluster = 4"
    here = selected_images(settings, query)  # the site is known here
    assert all(source.calibration["factors"].startswith(str(near)) for source in here)
    said = selected_images(settings, query, raw=RawOptions("TAIGA-IACT01", "/factors"))
    assert {(source.camera, source.calibration["factors"]) for source in said} == {("TAIGA-IACT01", "/factors")}
    assert [source.url for source in said] == [source.url for source in here]
    assert all(source.calibration["pedestal"].startswith(running.url) for source in said)
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "far"))
    with pytest.raises(UsageError, match="--camera NAME --factors FILE"):
        selected_images(settings, query)
    assert selected_images(settings, query, raw=RawOptions("TAIGA-IACT01", calibrated=False))[0].calibration.keys() == {
        "pedestal"
    }

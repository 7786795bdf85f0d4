"""Spark jobs on the files of an agent that asks for a token: workers show it, and it stands nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from apbatch.access.principals import ANYONE, Principal
from apbatch.camera.cleaning import Cleaning
from apbatch.config import SparkSettings
from apbatch.errors import AccessError
from apbatch.index.files import FileRecord
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.ingest.replicas.rules import ReplicaRule
from apbatch.sample.site import read_contents
from apbatch.sample.taiga_mc import IMAGES
from apbatch.spark import frames, pipeline
from apbatch.spark.connect.session import session
from apbatch.spark.inputs.sources import sources_for
from apbatch.spark.mirroring import mirror_on_spark
from apbatch.storage.backends import open_store
from apbatch.storage.store import RefusedError
from tests.agents import Site, served

pytestmark = [pytest.mark.spark, pytest.mark.campaign]

TOKEN = "apb_0123456789ab_a-token-that-must-stand-nowhere-else"


def identify(headers: Mapping[str, str]) -> Principal:
    given = headers.get("authorization")
    if given not in (None, f"Bearer {TOKEN}"):
        raise AccessError("the token is not valid")
    return ANYONE if given is None else Principal("worker")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("event-logs")


@pytest.fixture(scope="module")
def spark(logs: Path) -> Iterator[object]:
    """A session that starts before there is a token: what workers inherit from its Java machine has none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("APBATCH_AGENT_TOKEN", raising=False)
        patch.delenv("APBATCH_AGENT_TOKEN_FILE", raising=False)
        settings = SparkSettings(master="local[2]", event_log=logs.as_uri(), conf={"spark.eventLog.compress": "false"})
        spark = session(settings, "agent")
    yield spark
    spark.stop()


@pytest.fixture
def near(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SqliteCatalogue, FileRecord]]:
    """A catalogue whose only site is an agent, which gives its file to the worker's token alone."""
    monkeypatch.setenv("APBATCH_AGENT_ROOTS", "")
    with SqliteCatalogue(f"sqlite:///{tmp_path}/far.sqlite") as far:
        monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "home"))
        site = Site(tmp_path, far)
        site.policy.write_text("rules: [{name: w, who: {users: worker}, may: data}]")
        added = site.add("mc.txt", (sample / "taiga_mc" / IMAGES).read_bytes())
        registered = replace(added, format="taiga-mc")
        far.upsert([registered])
        with served(site.gateway(), identify) as (url, _), SqliteCatalogue(f"sqlite:///{tmp_path}/near.sqlite") as here:
            near = tmp_path / "home" / "sites" / "near.yaml"
            near.write_text(f"name: near\nexperiment: TAIGA\nroot: {url}\n")
            here.upsert([replace(registered, site="near")])
            yield here, replace(registered, site="near")


def traces(logs: Path, output: str, environments: bool = True) -> list[str]:
    """Where the token stands that it must not: event logs, output, command lines and what processes started with."""
    places = [path.name for path in logs.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    places += ["output"] if TOKEN in output else []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # ended, or about to be
            if TOKEN in " ".join(process.cmdline()) or (environments and TOKEN in process.environ().values()):
                places.append(process.name())
    return places


def test_workers_read_what_the_token_opens(
    spark, near, sample: Path, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    catalogue, record = near
    (listed,) = (content for content in read_contents(sample)[1] if content.path == f"taiga_mc/{IMAGES}")
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("APBATCH_AGENT_TOKEN_FILE", str(file))
    sources = sources_for(catalogue, [record])
    summary = pipeline.clean(spark, sources, f"file://{tmp_path}/images", Cleaning("tailcuts", 14, 7))
    assert (summary.images, summary.losses) == (listed.events, {})
    assert len(list(logs.rglob("*"))) > 0
    assert traces(logs, "".join(capfd.readouterr())) == []
    file.unlink()  # it is the driver's: no worker needs it
    monkeypatch.delenv("APBATCH_AGENT_TOKEN_FILE")
    monkeypatch.setenv("APBATCH_AGENT_TOKEN", TOKEN)
    images = frames.read_images(spark, sources)
    assert images.count() == listed.events
    rule = ReplicaRule("all", "", open_store((tmp_path / "store").as_uri()))
    copies = list(mirror_on_spark(spark, catalogue, [record], rule))
    assert [one.outcome.value for one in copies] == ["copied"]
    assert rule.store.checksums(record.path.lstrip("/")).blake3 == record.checksum
    monkeypatch.delenv("APBATCH_AGENT_TOKEN")  # who sets it hands it to what the driver starts
    assert traces(logs, "".join(capfd.readouterr()), environments=False) == []
    monkeypatch.setenv("APBATCH_AGENT_TOKEN", TOKEN[:-1])
    with pytest.raises(RefusedError, match="401"):
        pipeline.clean(spark, sources, f"file://{tmp_path}/none", Cleaning("tailcuts", 14, 7))

"""The benchmark on real servers, at its smallest."""

from __future__ import annotations

from pathlib import Path

import pytest

from apbatch.bench.campaign import run
from apbatch.bench.report import write_report
from apbatch.bench.samples import read_run
from apbatch.bench.sizes import Size
from apbatch.errors import ServerError

TINY = Size(repeats=1, large_mb=2, small_files=3, small_kb=2, records=320, lookups=4)


class Given:
    """Servers at known addresses."""

    def __init__(self, **addresses: str) -> None:
        self.addresses = addresses

    def endpoint(self, server: str, name: str) -> str:
        if name not in self.addresses:
            raise ServerError(f"the server '{server}' is not up")
        return self.addresses[name]


@pytest.mark.hdfs
def test_hdfs_is_measured_both_ways(tmp_path: Path, hdfs: str, webhdfs: str) -> None:
    left_out = run(["storage"], "tiny", TINY, Given(hdfs=hdfs, webhdfs=webhdfs), tmp_path / "run")
    samples = read_run(tmp_path / "run").samples
    assert set(left_out) == {"AFS"}
    assert {sample.error for sample in samples} == {None}
    assert {sample.peer for sample in samples} == {
        "bare disk", "local store", "HDFS (hdfs-native)", "HDFS (WebHDFS)",
    }  # fmt: skip


@pytest.mark.afs
def test_afs_is_measured(tmp_path: Path, afs: str) -> None:
    run(["storage"], "tiny", TINY, Given(afs=afs), tmp_path / "run")
    samples = [sample for sample in read_run(tmp_path / "run").samples if sample.peer == "AFS"]
    assert len(samples) == 5 * 2
    assert {sample.error for sample in samples} == {None}


@pytest.fixture(scope="module")
def index_run(cassandra: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "run"
    run(["index"], "tiny", TINY, Given(cassandra=cassandra), folder)
    return folder


@pytest.mark.cassandra
def test_both_catalogues_give_the_right_answers_to_every_question(index_run: Path) -> None:
    samples = read_run(index_run).samples
    assert {sample.error for sample in samples} == {None}
    questions = {
        peer: {sample.operation for sample in samples if sample.peer == peer} for peer in ("SQLite", "Cassandra")
    }
    assert questions["SQLite"] == questions["Cassandra"] and len(questions["SQLite"]) == 6
    cases = {(sample.operation, sample.peer) for sample in samples}
    assert len(samples) == len(cases) * (1 + TINY.repeats)


@pytest.mark.cassandra
def test_the_index_report_names_both_catalogues(index_run: Path) -> None:
    page, _ = write_report(index_run)
    assert {"SQLite", "Cassandra"} <= set(page.read_text().replace("<", " ").replace(">", " ").split())

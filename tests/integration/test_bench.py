"""The benchmark on real servers, at its smallest."""

from __future__ import annotations

from pathlib import Path

import pytest

from apbatch.bench.campaign import run
from apbatch.bench.cases.peers import bare_name
from apbatch.bench.report import rows, write_report
from apbatch.bench.samples import read_run
from apbatch.bench.sizes import Size
from apbatch.bench.suites import SUITES
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
        "bare disk", "local store", "HDFS (hdfs-native)", "HDFS (WebHDFS)", "apbatch mirror", "bare writes, 32 threads",
    }  # fmt: skip
    assert len({sample.operation for sample in samples}) == SUITES["storage"].operations


@pytest.mark.afs
def test_afs_is_measured(tmp_path: Path, afs: str) -> None:
    run(["storage"], "tiny", TINY, Given(afs=afs), tmp_path / "run")
    samples = [sample for sample in read_run(tmp_path / "run").samples if sample.peer == "AFS"]
    assert len(samples) == 5 * 2
    assert {sample.error for sample in samples} == {None}


@pytest.fixture(scope="module")
def index_run(cassandra: str, postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "run"
    size = TINY.model_copy(update={"lookups": 20})
    assert run(["index"], "tiny", size, Given(cassandra=cassandra, postgres=postgres), folder) == {}
    return folder


@pytest.mark.cassandra
@pytest.mark.postgres
def test_all_catalogues_and_bare_drivers_give_the_right_answers_to_every_question(index_run: Path) -> None:
    samples = read_run(index_run).samples
    assert {sample.error for sample in samples} == {None}
    questions: dict[str, set[str]] = {}
    for sample in samples:
        questions.setdefault(sample.peer, set()).add(sample.operation)
    for peer in ("SQLite", "PostgreSQL", "Cassandra"):
        assert questions[peer] == questions["SQLite"] and len(questions[peer]) == 11
        assert questions[peer] - questions[bare_name(peer)] == {"register a tree", "rescan a tree"}
    cases = {(sample.operation, sample.peer) for sample in samples}
    assert len(samples) == len(cases) * (1 + TINY.repeats)


@pytest.mark.cassandra
@pytest.mark.postgres
def test_the_index_report_compares_each_catalogue_with_its_bare_driver(index_run: Path) -> None:
    page, _ = write_report(index_run)
    assert "times its own bare driver" in page.read_text()
    compared = {row["peer"]: str(row["times"]) for row in rows(index_run) if row["operation"] == "look up a path"}
    for peer in ("SQLite", "PostgreSQL", "Cassandra"):
        assert compared[peer].endswith(f") {bare_name(peer)}") and compared[bare_name(peer)] == "None"

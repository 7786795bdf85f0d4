"""The suite of the service: each operation does its work, a stall is not hidden, and what is wrong is found out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from apbatch.bench.case import Operation
from apbatch.bench.cases import clients
from apbatch.bench.cases.api import groups, load
from apbatch.bench.cases.api.calls import search_of
from apbatch.bench.cases.catalogue.events import event_groups
from apbatch.bench.cases.catalogue.records import synthetic_records
from apbatch.bench.runner import Group, run_group, run_groups
from apbatch.bench.samples import Sample
from apbatch.bench.sizes import Size
from apbatch.bench.suite import Setting
from apbatch.bench.suites import SUITES
from apbatch.errors import ServerError
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.service import serving

TINY = Size(
    repeats=1, large_mb=1, small_files=3, small_kb=1, records=300, events=1000, lookups=3, load_s=0.5, clients_s=4.0
)
LOAD = Operation("api", "load", "Asks.", "ms", 1.0)
NOTHING = synthetic_records(0)


class NoServers:
    """Nothing is up."""

    def endpoint(self, server: str, name: str) -> str:
        raise ServerError(f"the server '{server}' is not up")


def samples_of(setting: Setting) -> list[Sample]:
    """Run the whole suite."""
    samples: list[Sample] = []
    with setting.at_end:
        run_groups(groups.api_groups(setting), 1, samples.append)
    return samples


def test_calls_streams_and_load_give_right_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for slow in ("memory_groups", "page_groups"):
        monkeypatch.setattr(groups, slow, lambda *anything: iter(()))
    setting = Setting(TINY, NoServers(), tmp_path)
    samples = samples_of(setting)
    assert set(setting.left_out) == {"PostgreSQL", "Cassandra"}
    assert [sample.error for sample in samples if sample.error] == []
    peers: dict[str, set[str]] = {}
    for sample in samples:
        assert (sample.figure is not None and sample.figure > 0) or sample.operation == "what REST adds to a get"
        peers.setdefault(sample.operation, set()).add(sample.peer)
    assert peers == {
        "get an entry": {"SQLite, local", "SQLite, REST"},
        "what REST adds to a get": {"SQLite"},
        "first files of a search": {"SQLite"},
        "stream a listing as Arrow": {"local", "REST"},
        "stream a listing as NDJSON": {"local", "REST"},
        "slowest answers under load": {"REST"},
        "64 clients": {"REST"},
        "memory under 64 clients": {"REST"},
    }


@pytest.mark.campaign
def test_the_whole_suite_gives_right_answers(tmp_path: Path) -> None:
    setting = Setting(TINY, NoServers(), tmp_path)
    samples = samples_of(setting)
    assert [(sample.operation, sample.error) for sample in samples if sample.error] == []
    assert len({sample.operation for sample in samples}) == SUITES["api"].operations - 2 * (
        "Chromium" in setting.left_out
    )
    followed, chromium = (
        [one.figure for one in samples if one.peer == peer and one.operation == "bytes of the first view"]
        for peer in ("links followed", "Chromium")
    )
    for one, other in zip(followed, chromium, strict=False):
        assert one is not None and other is not None and one < other < 1.5 * one


def test_folders_of_more_files_than_a_page_are_asked_for(tmp_path: Path) -> None:
    records = synthetic_records(2_400)
    with SqliteCatalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:
        catalogue.upsert(records)
        with serving(tmp_path, catalogue) as running:
            asked = load.questions(records, running.url)
    assert records.files_a_night > 500 and any("/entries?" in question.address for question in asked)


def test_the_search_matches_one_file_in_a_hundred() -> None:
    records = synthetic_records(20_000)
    assert 0.007 < len(search_of(records)[1]) / len(records) < 0.013


class _Stalls(BaseHTTPRequestHandler):
    """Answers one request after the other; the first takes long."""

    stall_s = 0.0

    def log_message(self, format: str, *values: object) -> None:
        pass

    def do_GET(self) -> None:
        time.sleep(_Stalls.stall_s)
        _Stalls.stall_s = 0.0
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")


class _Server(HTTPServer):
    request_queue_size = 128  # those who wait are not turned away


@contextmanager
def stalling(seconds: float, monkeypatch: pytest.MonkeyPatch, body: bytes = b"ok") -> Iterator[SimpleNamespace]:
    """Serve, and have clients expect `body`."""
    _Stalls.stall_s = seconds
    monkeypatch.setattr(load, "questions", lambda *_: [clients.Question("/", body)])
    with _Server(("127.0.0.1", 0), _Stalls) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_address[1]}", memory_mb=100.0)
        server.shutdown()
        thread.join()


def test_a_stall_shows_in_all_requests_that_arrived_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "CLIENTS", 1)  # who arrives meanwhile can't even ask
    with stalling(1.0, monkeypatch) as service:
        case = load._OpenLoop(LOAD, "REST", 0.5, NOTHING, service)
        samples: list[Sample] = []
        run_group(Group(LOAD, [case]), 0, samples.append)
    assert [sample.error for sample in samples] == [None]
    assert len(case._times) == 10
    assert min(case._times) > 0.2  # those whom the stall held count it, though each answer itself took no time


def test_a_wrong_answer_under_load_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with stalling(0.0, monkeypatch, b"no") as service:
        samples: list[Sample] = []
        run_group(Group(LOAD, [load._OpenLoop(LOAD, "REST", 0.5, NOTHING, service)]), 1, samples.append)
    assert [sample.error is not None and "did not do the work" in sample.error for sample in samples] == [True]


@pytest.mark.parametrize(("grown", "errors"), [(105.0, 0), (160.0, 1)])
def test_memory_that_grows_under_many_clients_is_found_out(
    grown: float, errors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stalling(0.0, monkeypatch) as service:
        memory: list[float] = []
        case = clients._Clients(LOAD, "REST", 0.05, 2, lambda: [clients.Question("/", b"ok")], service, memory)
        plain = case.run

        def run() -> None:
            plain()
            memory[-1] = grown if len(memory) == 3 else 100.0

        monkeypatch.setattr(case, "run", run)
        samples: list[Sample] = []
        run_group(Group(LOAD, [case]), 2, samples.append)
    assert sum("memory grew" in (sample.error or "") for sample in samples) == errors
    assert sum(sample.error is not None for sample in samples) == errors


@pytest.mark.parametrize("number", [1, 2, 99, 100, 101, 250])
def test_percentiles_are_numpys(number: int) -> None:
    values = list(np.random.default_rng(number).random(number))
    for part in (0.5, 0.9, 0.99, 1.0):
        assert load.percentile(values, part) == np.quantile(values, part, method="inverted_cdf")


def test_a_search_of_events_without_hits_is_an_answer(tmp_path: Path) -> None:
    samples: list[Sample] = []
    descriptions = []
    for group in event_groups(TINY, Setting(TINY, NoServers(), tmp_path)):
        descriptions.append(group.operation.description)
        run_group(group, 1, samples.append)
    assert descriptions[1].startswith("0 of 1000 ")
    assert [sample.error for sample in samples if sample.error] == []

"""The Python face: the same answers on this machine and through a server, in the types that people use."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import urllib3

import apbatch as ap
from apbatch.access.opening import Opening
from apbatch.cli.main import application, run_command
from apbatch.client import client
from apbatch.client.client import Client
from apbatch.client.remote import RemoteTransport
from apbatch.client.remote_ranges import RemoteRanges
from apbatch.client.results import SlowSearchWarning
from apbatch.client.served import ServedFiles, place_at_server
from apbatch.config import ServiceSettings
from apbatch.errors import NotFoundError, ServerError, TooManyRequestsError, UsageError, VerificationError
from apbatch.index.contents import BLOCK
from apbatch.index.events.coincidences import Window
from apbatch.index.events.parquet import ParquetEvents
from apbatch.index.query import Everything
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.ingest.events import load_events
from apbatch.ingest.scan import ingest
from apbatch.ingest.sites import add_site
from tests.agents import site
from tests.service import Running, serving


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a simulated site, its images and its events."""
    from apbatch.sample.site import SITES, write_sample

    home = tmp_path_factory.mktemp("client")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APBATCH_HOME", str(home))
        patch.delenv("APBATCH_CONFIG", raising=False)
        patch.setenv("APBATCH_CACHE", str(home / "cache"))
        write_sample(home / "sample")
        with (
            SqliteCatalogue(f"sqlite:///{home}/catalogue.sqlite") as catalogue,
            ParquetEvents(f"file://{home}/events") as events,
        ):
            for name in ("taiga-mc", "taiga-raw"):
                site, _ = add_site(home / "sample" / SITES / f"{name}.yaml")
                ingest(site, catalogue)
                load_events(site, catalogue, events)
        yield home


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[Running]:
    with (
        SqliteCatalogue(f"sqlite:///{home}/catalogue.sqlite") as catalogue,
        ParquetEvents(f"file://{home}/events") as events,
        serving(home, catalogue, events, files=Opening()) as running,
    ):
        yield running


@pytest.fixture(params=["local", "server"])
def cat(request: pytest.FixtureRequest, home: Path, running: Running) -> Iterator[Client]:
    with ap.connect() if request.param == "local" else ap.connect(running.url) as client:
        yield client


def test_a_search_that_will_be_slow_says_so_before(cat: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "size > 0 order by size"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(cat.find(query)) > 3
    monkeypatch.setattr(client, "SLOW_ROWS", 3)
    begun: list[str] = []
    batches = cat._transport.batches
    monkeypatch.setattr(cat._transport, "batches", lambda *asked: begun.append("asked") or batches(*asked))
    result = cat.find(query)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SlowSearchWarning, match=r"will take a while: up to \d+ rows are looked at"):
            result.arrow()
        assert begun == [] and len(cat.find(limit=2)) == 2  # files by path begin at once
    with pytest.warns(SlowSearchWarning) as told:
        rows = sum(batch.num_rows for batch in result.batches())
    assert rows == len(list(cat.records(query))) and told[0].filename == __file__


def test_the_command_says_so_to_people_and_not_to_programs(
    running: Running, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "SLOW_ROWS", 3)
    for catalogue in ([], ["--catalogue", running.url]):
        for format, warned in (("table", True), ("json", False), ("csv", False)):
            assert run_command(application(), arguments=[*catalogue, "find", "order by size", "--format", format]) == 0
            out, error = capfd.readouterr()
            assert ("this search will take a while: up to" in error) is warned
            assert "take a while" not in out and "path" in out


def test_a_name_that_nothing_has_is_told_with_the_nearest(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = {
        ("find", "experiment = 'TAGIA' and run > 0"): "no file has the experiment 'TAGIA'; did you mean 'TAIGA'?",
        ("find", "site in ('nowhere', 'zzz')"): "no file has the site 'nowhere'",
        ("events", "experiment = 'TAIGAA'"): "no event has the experiment 'TAIGAA'; did you mean 'TAIGA'?",
        ("coincidences", "TAIGA", "TAIGR", "--within", "1ms"): "no event has the experiment 'TAIGR'; did you mean",
        ("find", "run = 7"): "",
        ("find", "experiment = 'TAIGA' and site = 'taiga-mc' and run = 7"): "",
        ("find", "experiment = 'TAIGA' or run = 7"): "",
    }
    for catalogue in ([], ["--catalogue", running.url]):
        for command, reason in wrong.items():
            for format in ("table", "json"):
                assert run_command(application(), arguments=[*catalogue, *command, "--format", format]) == 0
                told = capfd.readouterr().err
                assert reason in told if reason and format == "table" else "no " not in told


def test_who_may_not_know_how_many_files_there_are_is_told_nothing(home: Path, tmp_path: Path) -> None:
    with (
        SqliteCatalogue(f"sqlite:///{home}/catalogue.sqlite") as catalogue,
        serving(tmp_path, catalogue, auth=True) as guarded,
        ap.connect(guarded.url) as stranger,
    ):
        assert stranger.slow_because("order by size") is None


def test_both_ways_give_the_same_table(home: Path, running: Running) -> None:
    query = "experiment = 'TAIGA' and run > 0 order by run desc, path"
    with ap.connect() as here, ap.connect(running.url) as there:
        for asked in (
            lambda cat: cat.find(query).arrow(),
            lambda cat: cat.events("order by size desc", ["size", "time"]).arrow().select(["run", "size", "time"]),
            lambda cat: list(cat.records(query)),
            lambda cat: cat.count(query, "night"),
            lambda cat: cat.count("size > 200 pe", events=True),
            lambda cat: list(cat.tree("/taiga")),
            lambda cat: list(cat.walk("/taiga-mc")),
            lambda cat: [(one["revision"], one["change"], one["path"]) for one in cat.changes(3)],
            lambda cat: cat.attributes(events=True),
        ):
            mine, theirs = asked(here), asked(there)
            assert mine == theirs and len(mine if hasattr(mine, "__len__") else [mine]) > 0


def test_conflicts_are_the_same_both_ways(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/catalogue.sqlite"
    with SqliteCatalogue(url) as catalogue, SqliteCatalogue(f"sqlite:///{home}/catalogue.sqlite") as other:
        records = [replace(one, attributes={}) for one in other.select(Everything())]
        twins = [
            replace(one, path=f"/b{one.path}", place=one.path, site="b", checksum=one.checksum[::-1]) for one in records
        ]
        catalogue.upsert([*records, *twins])
        with serving(tmp_path, catalogue) as running, ap.connect(url) as here, ap.connect(running.url) as there:
            mine, theirs = list(here.conflicts()), list(there.conflicts())
            assert run_command(
                application(), arguments=["--catalogue", running.url, "conflicts", "--format", "json"]
            ) == 0  # fmt: skip
    assert mine == theirs and [one.place for one in mine] == sorted(one.path for one in records)
    assert len(json.loads(capsys.readouterr().out)) == 2 * len(records)


def test_events_of_two_experiments_that_are_together_are_the_same_both_ways(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ap.connect() as here, ap.connect(running.url) as there:
        first, second, window = "cleaning = 'cluster-01'", "cleaning = 'cluster-02'", Window(10**7, nearest=True)
        mine, theirs = (cat.coincidences(first, second, window).arrow() for cat in (here, there))
        assert mine == theirs and mine.num_rows > 0
        assert there.coincidences("nobody", "TAIGA", window).arrow().num_rows == 0
        with pytest.raises(UsageError, match="did you mean 'experiment'"):
            there.coincidences("experimnt = 'A'", "TAIGA", window).arrow()
    command = ["coincidences", first, second, "--within", "10ms", "--nearest"]
    output = tmp_path / "pairs.parquet"
    assert run_command(application(), arguments=["--catalogue", running.url, *command, "--output", str(output)]) == 0
    assert pq.read_table(output) == theirs


def test_a_result_becomes_what_people_use(cat: Client) -> None:
    result = cat.events("size > 0 pe", ["size", "length", "time"], limit=50)
    frame, table = result.pandas(), result.table()
    assert len(frame) == len(table) == len(result) == result.polars().height == 50
    assert frame.attrs["units"]["length"] == "deg"
    assert np.array_equal(table["length"].to_value("arcmin"), frame["length"].to_numpy() * 60, equal_nan=True)


def test_a_notebook_shows_text_as_text(cat: Client) -> None:
    result = cat.find("path != '<script>alert(1)</script>'", ["path"], limit=3)
    html = result._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html and html.count("<tr>") == 4


def test_bytes_are_those_of_the_site(cat: Client, home: Path) -> None:
    path = next(iter(cat.walk("/taiga-mc")))
    source = next(cat.records(f"place = '{path}'"))["source"]
    expected = (home / "sample" / "taiga_mc" / source).read_bytes()
    with cat.open(path) as stream:
        assert stream.read() == expected
        stream.seek(-10, 2)
        assert stream.read() == expected[-10:]
    with pytest.raises(NotFoundError):
        cat.open("/taiga-mc/nothing")


def test_an_image_has_the_size_that_its_event_has(cat: Client) -> None:
    raw = "experiment = 'TAIGA-MC'"
    images = cat.images(raw, cleaning="tailcuts-10-5", limit=2)
    if not images:
        pytest.fail("no image was given")
    for image in images:
        size = image.parameters()["size"]
        assert size == pytest.approx(float(np.nansum(np.where(image.mask, image.pixels, 0).clip(0))), rel=1e-5)
        assert image.plot().axes[0].get_title() == "before cleaning"


def test_an_error_says_the_same_both_ways(cat: Client) -> None:
    with pytest.raises(UsageError) as raised:
        cat.find("zenit < 3").arrow()
    assert (raised.value.where, raised.value.what) == ("query, column 1", "unknown attribute 'zenit'")


def test_commands_work_against_a_server(home: Path, running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    def lines(*command: str) -> object:
        assert run_command(application(), arguments=list(command)) == 0
        return json.loads(capsys.readouterr().out)

    for command in (
        ("find", "experiment = 'TAIGA'", "--limit", "5"),
        ("count", "--by", "experiment"),
        ("events", "size > 300 pe", "--limit", "3", "--columns", "size,run"),
        ("attributes",),
    ):
        here = lines(*command, "--format", "json")
        assert lines("--catalogue", running.url, *command, "--format", "json") == here and here


@pytest.mark.parametrize(
    ("answer", "error"), [((200, b"whole"), VerificationError), ((206, b"12"), ServerError)], ids=["replaced", "short"]
)
def test_a_file_that_changes_while_it_is_read_is_not_read_on(
    running: Running, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, bytes], error: type[Exception]
) -> None:
    from apbatch.client import remote

    ask: Callable[..., urllib3.BaseHTTPResponse] = remote.RemoteTransport.request

    def request(self: remote.RemoteTransport, path: str, *given: object, **more: object) -> urllib3.BaseHTTPResponse:
        real = ask(self, path, *given, **more)
        if more.get("method") == "HEAD":
            return real
        real.close()
        return urllib3.HTTPResponse(
            io.BytesIO(answer[1]), {"etag": real.headers["etag"]}, answer[0], preload_content=False
        )

    with ap.connect(running.url) as cat:
        path = next(iter(cat.walk("/taiga-mc")))
        monkeypatch.setattr(remote.RemoteTransport, "request", request)
        with cat.open(path) as stream, pytest.raises(error):
            stream.read()


def test_a_block_that_is_not_what_was_registered_is_not_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands between: the service itself gave the right bytes."""
    data = np.random.default_rng(21).bytes(2 * BLOCK + 1000)
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "home"))
    fetch, wrong = RemoteRanges.fetch, {BLOCK}

    def altered(self: RemoteRanges, begin: int, end: int) -> bytes:
        block = bytearray(fetch(self, begin, end))
        block[-1] ^= begin in wrong
        return bytes(block)

    with (
        site(tmp_path) as far,
        serving(tmp_path, far.catalogue, rules=None, files=Opening()) as running,
        ap.connect(running.url) as cat,
    ):
        path = far.add("large", data).path
        with cat.open(path) as stream:
            assert stream.read() == data
        monkeypatch.setattr(RemoteRanges, "fetch", altered)
        with cat.open(path) as stream:
            assert stream.read(1000) == data[:1000]
            stream.seek(BLOCK + 10)
            with pytest.raises(VerificationError, match=f"{path}: the bytes of block 1 are not those"):
                stream.read(10)
            wrong.clear()
            stream.seek(2 * BLOCK)
            assert stream.read() == data[2 * BLOCK :]


_HERE_ALONE = "rules: [{name: here, who: anyone, may: data, query: \"site = 'taiga'\"}]"


@pytest.mark.parametrize("rules", [None, _HERE_ALONE])
def test_a_job_reads_the_file_that_was_selected_where_sites_disagree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rules: str | None
) -> None:
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "home"))
    with (
        site(tmp_path) as far,
        serving(tmp_path, far.catalogue, auth=rules is not None, rules=rules, files=Opening()) as running,
    ):
        here = far.add("here", b"here", place="/taiga/x")
        there = replace(far.add("there", b"there"), site="other", place="/taiga/x", path="/taiga/other/there")
        far.catalogue.upsert([there])
        server = RemoteTransport(running.url)
        served = ServedFiles(server)
        records = {record.path: record for record in served.select(Everything())}
        assert records[here.path].checksum == here.checksum
        assert (there.path in records) == (rules is None)
        replicas = served.replicas(records)
        places = {path: place_at_server(one.url) for path, (one,) in replicas.items()}
        for path, place in places.items():
            assert place is not None and place[0] == running.url
            assert server.entry(place[1]).checksum == records[path].checksum == replicas[path][0].checksum
        assert len({place[1] for place in places.values() if place}) == len(records)
        server.close()


def test_a_patient_client_waits_until_it_may_ask_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(urllib3.Retry, "sleep", lambda self, answer=None: waits.append(self.get_retry_after(answer)))
    settings = ServiceSettings(requests_per_second=0.001, burst=2)
    with (
        SqliteCatalogue(f"sqlite:///{home}/catalogue.sqlite") as catalogue,
        serving(tmp_path, catalogue, auth=True, settings=settings) as running,
    ):
        for patient in (False, True):
            server = RemoteTransport(running.url, patient=patient)
            with pytest.raises(TooManyRequestsError):
                for _ in range(3):
                    server.attributes(False)
                    server._attributes.clear()
            assert len(waits) == (20 if patient else 0) and all(wait >= 1 for wait in waits)
            server.close()


def test_a_token_does_not_go_unencrypted_over_a_network() -> None:
    with pytest.raises(UsageError, match="unencrypted"):
        ap.connect("http://data.example.org", token="apb_x")

"""TAP as astronomers' programs meet it: pyvo asks, astropy reads, the validator of STILTS judges."""

from __future__ import annotations

import csv
import io
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pyvo
from astropy.io.votable import parse_single_table
from astropy.io.votable import validate as validate_votable
from pydantic import ValidationError

from apbatch.api.tap.jobs import OF_ONE, Asker, Jobs
from apbatch.api.tap.obscore import identifier_of
from apbatch.api.tap.votable import votable
from apbatch.config import ServiceSettings
from apbatch.errors import ApbatchError, NotFoundError, TooManyRequestsError, UsageError
from apbatch.index.events.parquet import ParquetEvents
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.service import Running, fill, record, serving
from tests.waits import until

ODD = '/taiga/site/<&>"\x01\r\u202eü ]]>.dat'


class _Bytes:
    """A file of the merged tree that is not there: eleven bytes."""

    size, verified = 11, True

    def read(self, place: int, length: int) -> bytes:
        return b"hello world"[place : place + length]

    def close(self) -> None:
        pass

    def __enter__(self) -> _Bytes:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteCatalogue]:
    with SqliteCatalogue(f"sqlite:///{tmp_path_factory.mktemp('tap')}/c.sqlite") as catalogue:
        fill(catalogue)
        catalogue.upsert([record(900, path=ODD, source=ODD[12:], place=ODD)])
        yield catalogue


@pytest.fixture(scope="module")
def running(catalogue: SqliteCatalogue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("home")
    with ParquetEvents(f"file://{home}/events") as events:
        keys = {
            "experiment": ["TAIGA"] * 5,
            "run": [1] * 5,
            "event": range(5),
            "telescope": [1] * 5,
            "cleaning": ["a"] * 5,
        }
        table = pa.table({**keys, "size": [10.0, 20.5, None, 40.0, 50.0]})
        events.upsert(table.to_batches())
        with serving(home, catalogue, events, files=lambda door, path: _Bytes()) as running:
            yield running


@pytest.fixture(scope="module")
def guarded(catalogue: SqliteCatalogue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("home"), catalogue, auth=True, files=lambda door, path: _Bytes()) as running:
        yield running


@pytest.fixture
def tap(running: Running) -> pyvo.dal.TAPService:
    return pyvo.dal.TAPService(running.url + "/tap")


def ask(running: Running, query: str, token: str = "", **parameters: str) -> bytes:
    """Ask by /sync and expect an answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    address = f"/tap/sync?{urlencode({'QUERY': query, **parameters})}"
    answer = running.get(address, **headers)
    assert answer.status == 200, answer.data
    return answer.data


def rows(document: bytes) -> list[tuple[Any, ...]]:
    """Read a VOTable."""
    table = parse_single_table(io.BytesIO(document)).to_table()
    return [tuple(None if value is None or str(value) == "--" else value for value in row) for row in table]


def test_pyvo_finds_the_files_that_the_catalogue_finds(tap: pyvo.dal.TAPService, catalogue: SqliteCatalogue) -> None:
    from apbatch.index.parser import parse_search

    result = tap.search(
        "SELECT path, size, night, time_start, zenith FROM apbatch.files "
        "WHERE zenith BETWEEN 10 AND 100 ORDER BY size DESC"
    )
    expected = catalogue.select(parse_search("zenith between 10 and 100 order by size desc", catalogue.attributes()))
    assert [(row["path"], row["size"], row["night"], row["time_start"], row["zenith"]) for row in result] == [
        (one.path, one.size, str(one.night), f"{one.time_start:%Y-%m-%dT%H:%M:%S.%f}", one.attributes["zenith"])
        for one in expected
    ]
    field = result.fielddescs[4]
    assert (str(field.unit), field.datatype, result.fielddescs[3].xtype) == ("deg", "double", "timestamp")


def test_every_table_is_described_and_every_column_can_be_asked_for(tap: pyvo.dal.TAPService) -> None:
    names = [table.name for table in tap.tables]
    assert {"apbatch.files", "apbatch.events", "ivoa.obscore", "tap_schema.columns"} <= set(names)
    for name in names:
        described = f"SELECT column_name FROM tap_schema.columns WHERE table_name = '{name}' ORDER BY column_index"
        columns = [row["column_name"] for row in tap.search(described)]
        assert columns == [column.name for column in tap.tables[name].columns]
        result = tap.search(f"SELECT TOP 1 {', '.join(columns)} FROM {name}")
        assert [column.strip('"') for column in columns] == list(result.fieldnames)


def test_events_are_a_table_without_what_is_inside(tap: pyvo.dal.TAPService) -> None:
    result = tap.search('SELECT event, "size" FROM events WHERE size > 15 ORDER BY size DESC')
    assert [(row["event"], row["size"]) for row in result] == [(4, 50.0), (3, 40.0), (1, 20.5)]
    assert "dataset" not in [column.name for column in tap.tables["apbatch.events"].columns]
    with pytest.raises(pyvo.dal.DALQueryError, match="no column 'dataset'"):
        tap.search("SELECT event FROM events WHERE dataset = 'x'")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "query",
    ["SELECT * FROM files", "SELECT * FROM ivoa.obscore", "SELECT * FROM tap_schema.columns", "SELECT * FROM events",
     "SELECT night, COUNT(*) FROM files GROUP BY night", "SELECT TOP 0 * FROM files", "SELECT nothing FROM files"],
    ids=["files", "obscore", "columns", "events", "counts", "none", "error"],
)  # fmt: skip
def test_documents_are_valid_votables(running: Running, query: str, tmp_path: Path) -> None:
    answer = running.get(f"/tap/sync?{urlencode({'QUERY': query})}")
    (tmp_path / "table.xml").write_bytes(answer.data)
    report = io.StringIO()
    valid = validate_votable(str(tmp_path / "table.xml"), output=report)
    assert valid, report.getvalue()


def test_texts_come_through_xml_unharmed(running: Running) -> None:
    ((path,),) = rows(ask(running, "SELECT path FROM files WHERE run = 900"))
    assert path == ODD.replace("\x01", "\ufffd")


def test_numbers_come_through_xml_unharmed() -> None:
    values = [1.5, None, float("nan"), float("inf"), float("-inf"), 1e-300, 0.1]
    batch = pa.record_batch({"x": values, "n": [2**62, None, 0, -5, 1, 2, 3], "b": [True, None, False] + [True] * 4})
    table = parse_single_table(io.BytesIO(b"".join(votable(batch.schema, [batch])))).to_table()
    assert [float(value) for value in table["x"][[0, 3, 4, 5, 6]]] == [1.5, float("inf"), float("-inf"), 1e-300, 0.1]
    assert list(table["n"].mask) == [False, True] + [False] * 5 and table["n"][0] == 2**62
    assert [bool(value) for value in table["b"][[0, 2]]] == [True, False]


def test_all_forms_hold_the_same_rows(running: Running) -> None:
    query = "SELECT path, size, zenith FROM files WHERE experiment = 'TAIGA' AND size BETWEEN 100 AND 500 ORDER BY size"
    expected = [(str(path), int(size), float(zenith)) for path, size, zenith in rows(ask(running, query))]
    table = pq.read_table(io.BytesIO(ask(running, query, RESPONSEFORMAT="application/vnd.apache.parquet")))
    lines = list(csv.reader(io.StringIO(ask(running, query, responseformat="csv").decode())))[1:]
    assert [tuple(row.values()) for row in table.to_pylist()] == expected and len(expected) > 30
    assert [(path, int(size), float(zenith)) for path, size, zenith in lines] == expected
    assert table.schema.field("zenith").metadata == {b"unit": b"deg", b"description": b"zenith angle"}


def test_maxrec_cuts_off_and_says_so(tap: pyvo.dal.TAPService, running: Running) -> None:
    cut = tap.search("SELECT path FROM files", maxrec=7)
    assert (len(cut), cut.query_status) == (7, "OVERFLOW")
    assert b"OVERFLOW" not in ask(running, "SELECT TOP 7 path FROM files", MAXREC="7")
    assert b"OVERFLOW" not in ask(running, "SELECT TOP 7 path FROM files", MAXREC="99999999999999999999")
    assert rows(ask(running, "SELECT path FROM files", MAXREC="0")) == []
    assert len(ask(running, "SELECT path FROM files", MAXREC="3", FORMAT="csv").splitlines()) == 4


@pytest.mark.parametrize(
    ("parameters", "text"),
    [({"QUERY": "SELECT zenit FROM files"}, "QUERY, line 1, column 8: there is no column 'zenit'"),
     ({"QUERY": ""}, "there is no query"), ({"QUERY": "SELECT * FROM files", "MAXREC": "-1"}, "MAXREC"),
     ({"QUERY": "SELECT * FROM files", "LANG": "SQL"}, "LANG"), ({"QUERY": "x", "UPLOAD": "a,http://b/"}, "uploads"),
     ({"QUERY": "SELECT * FROM files", "RESPONSEFORMAT": "fits"}, "there is no format"),
     ({"QUERY": "SELECT * FROM files WHERE path = '" + "x" * 25_000}, "too long"),
     ({"QUERY": "SELECT <b>&\x02 FROM files"}, "not expected")],
    ids=["column", "empty", "maxrec", "lang", "upload", "format", "long", "markup"],
)  # fmt: skip
def test_errors_are_votables_with_the_place(running: Running, parameters: dict[str, str], text: str) -> None:
    answer = running.pool.request("POST", running.url + "/tap/sync", fields=parameters, encode_multipart=False)
    assert answer.status == 400 and answer.headers["content-type"].startswith("application/x-votable+xml")
    assert b'name="QUERY_STATUS" value="ERROR"' in answer.data
    assert text.encode() in answer.data.replace(b"&apos;", b"'")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "address", ["async/" + "0" * 32, "async/..%2f..%2fx/phase", "tables/nope", "async/x/results/result"]
)
def test_wrong_addresses_are_no_errors_of_the_service(running: Running, method: str, address: str) -> None:
    assert running.get(f"/tap/{address}", method).status in (400, 404, 405)


def test_a_search_that_fails_on_the_way_ends_with_an_error() -> None:
    batch = pa.record_batch({"x": [1, 2]})

    def batches() -> Iterator[pa.RecordBatch]:
        yield batch
        raise ApbatchError("the disk is gone")

    document = b"".join(votable(batch.schema, batches())).decode()
    assert document.count("<TR>") == 2 and document.rstrip().endswith("</VOTABLE>")
    assert '<INFO name="QUERY_STATUS" value="ERROR">the disk is gone</INFO>' in document


def test_a_job_runs_and_its_result_is_that_of_a_query(tap: pyvo.dal.TAPService, running: Running) -> None:
    query = "SELECT path, size FROM files WHERE size > 1000 ORDER BY path"
    job = tap.submit_job(query, maxrec=1000)
    assert job.phase == "PENDING" and job.job_id in [one.jobid for one in tap.get_job_list()]
    job.run().wait(timeout=600)
    assert job.phase == "COMPLETED" and job.query == query
    assert job.fetch_result().to_table().pformat() == tap.search(query).to_table().pformat()
    job.delete()
    assert running.get(f"/tap/async/{job.job_id}").status == 404


def test_a_wrong_job_fails_with_the_place_and_an_aborted_one_is_aborted(tap: pyvo.dal.TAPService) -> None:
    wrong = tap.submit_job("SELECT path FROM file")
    wrong.run().wait(phases=["ERROR"], timeout=600)
    with pytest.raises(pyvo.dal.DALQueryError, match="line 1, column 18: there is no table 'file'"):
        wrong.raise_if_error()
    waiting = tap.submit_job("SELECT path FROM files")
    waiting.abort()
    assert waiting.phase == "ABORTED"


def test_a_job_that_was_not_started_can_be_changed(tap: pyvo.dal.TAPService) -> None:
    job = tap.submit_job("SELECT path FROM file")
    job.query = "SELECT COUNT(*) FROM files"
    job.destruction = f"{datetime.now(UTC) + timedelta(days=900):%Y-%m-%dT%H:%M:%SZ}"
    job.execution_duration = 10
    assert job.execution_duration.to_value("s") == 10
    assert job.destruction.to_datetime(UTC) < datetime.now(UTC) + timedelta(days=8)
    job.run().wait(timeout=600)
    assert job.fetch_result()[0]["count"] == 126


def test_addresses_are_those_of_the_proxy_that_stands_before(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.service, "settings", ServiceSettings(url="https://data.example.org/sky"))
    assert b'use="base">https://data.example.org/sky/tap<' in running.get("/tap/capabilities").data
    assert b"<baseURL>https://data.example.org/sky/oai<" in running.get("/oai?verb=Identify").data
    created = running.get("/tap/async?QUERY=x", "POST").headers["location"]
    assert created.startswith("https://data.example.org/sky/tap/async/")
    with pytest.raises(ValidationError):
        ServiceSettings(url="javascript:alert(1)")


def test_nobody_learns_what_the_policy_hides(guarded: Running) -> None:
    token = guarded.tokens.create("ann")
    for query in ("files WHERE experiment = 'SECRET'", "files WHERE path LIKE '%secret%'",
                  "obscore WHERE obs_collection = 'SECRET'"):  # fmt: skip
        assert rows(ask(guarded, f"SELECT COUNT(*) FROM {query}")) == [(0,)]
        assert rows(ask(guarded, f"SELECT COUNT(*) FROM {query}", token)) == [(5,)]
    for query in (
        "SELECT DISTINCT experiment FROM files",
        "SELECT * FROM ivoa.obscore",
        "SELECT experiment, site FROM files",
    ):
        assert b"secret" not in ask(guarded, query).lower()
    assert b"apbatch.events" not in guarded.get("/tap/tables").data


def test_links_lead_to_the_bytes_of_those_who_may_read_them(guarded: Running, running: Running) -> None:
    def linked(service: Running, path: str, **headers: str) -> dict[str, Any]:
        answer = service.get(f"/tap/links?ID={quote(identifier_of(path), safe='')}", **headers)
        assert answer.status == 200
        table = parse_single_table(io.BytesIO(answer.data)).to_table()
        return {name: table[name][0] for name in table.colnames}

    hidden, missing = linked(guarded, "/secret/site/run0001.dat"), linked(guarded, "/secret/site/run9999.dat")
    assert {**hidden, "ID": ""} == {**missing, "ID": ""} and "NotFoundFault" in hidden["error_message"]
    ann = {"Authorization": f"Bearer {guarded.tokens.create('ann')}"}
    address = linked(guarded, "/secret/site/run0001.dat", **ann)["access_url"]
    assert guarded.get(address.removeprefix(guarded.url), **ann).data == b"hello world"
    result = pyvo.dal.TAPService(running.url + "/tap").search(
        "SELECT * FROM obscore WHERE access_estsize = 1 AND t_min > 58000"
    )
    (link, *_) = next(result.iter_datalinks())
    assert (
        link.semantics == "#this" and running.get(link["access_url"].removeprefix(running.url)).data == b"hello world"
    )


def test_jobs_belong_to_whoever_made_them(guarded: Running) -> None:
    ann, bob = ({"Authorization": f"Bearer {guarded.tokens.create(name)}"} for name in ("ann", "bob"))

    def create(**headers: str) -> str:
        body = urlencode({"QUERY": "SELECT COUNT(*) FROM files", "PHASE": "RUN"})
        answer = guarded.pool.request(
            "POST", guarded.url + "/tap/async", body=body, redirect=False,
            headers={"Content-Type": "application/x-www-form-urlencoded", **headers},
        )  # fmt: skip
        assert answer.status == 303
        return answer.headers["location"].removeprefix(guarded.url)

    of_ann, of_nobody = create(**ann), create()
    for path in (of_ann, of_ann + "/phase", of_ann + "/results/result", of_ann + "/parameters"):
        others = guarded.get(path, **bob), guarded.get(path)
        missing = guarded.get(path.replace(of_ann[-32:], "0" * 32), **bob)
        assert [one.status for one in others] == [404, 404] and {one.data for one in others} == {missing.data}
    for method, path in (("DELETE", of_ann), ("POST", of_ann + "/phase?PHASE=ABORT")):
        assert guarded.get(path, method, **bob).status == 404
    assert of_ann[-32:].encode() in guarded.get("/tap/async", **ann).data
    for headers in (bob, {}):
        assert b"jobref" not in guarded.get("/tap/async", **headers).data
    until(lambda: guarded.get(of_nobody + "/phase").data == b"COMPLETED")
    assert rows(guarded.get(of_nobody + "/results/result").data) == [(121,)]


ANN = Asker("ann", "user ann", "sight")


def test_a_running_job_ends_when_it_is_aborted_or_deleted(tmp_path: Path) -> None:
    jobs, more = Jobs(tmp_path), threading.Event()

    def write(parameters: dict[str, str]) -> tuple[str, Iterator[bytes]]:
        def pieces() -> Iterator[bytes]:
            yield b"first"
            more.wait()
            while True:
                yield b"more"

        return "text/plain", pieces()

    aborted, deleted = (jobs.create(ANN, {}).id for _ in range(2))
    for name in (aborted, deleted):
        jobs.start(ANN, name, write)
        until(lambda name=name: jobs.get(ANN, name).phase == "EXECUTING")
    jobs.abort(ANN, aborted)
    jobs.delete(ANN, deleted)
    more.set()
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("tap-")])
    assert jobs.get(ANN, aborted).phase == "ABORTED" and not (tmp_path / aborted / "result").exists()
    assert [job.id for job in jobs.of(ANN)] == [aborted] and not (tmp_path / deleted).exists()


def test_jobs_are_limited_in_number_time_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Jobs(tmp_path)
    names = [jobs.create(ANN, {}).id for _ in range(OF_ONE)]
    with pytest.raises(TooManyRequestsError):
        jobs.create(ANN, {})
    jobs.create(Asker(None, "address 1"), {})
    jobs.change(ANN, names[0], destruction=datetime.now(UTC))
    with pytest.raises(NotFoundError):
        jobs.get(ANN, names[0])
    jobs.create(ANN, {})
    monkeypatch.setattr("apbatch.api.tap.jobs.LARGEST", 100)
    jobs.start(ANN, names[1], lambda parameters: ("", iter([b"x" * 60] * 2)))
    jobs.change(ANN, names[2], longest_s=-1)
    jobs.start(ANN, names[2], lambda parameters: ("", iter([b"x"])))
    until(lambda: all(jobs.get(ANN, name).phase == "ERROR" for name in names[1:3]))
    assert "larger than" in jobs.get(ANN, names[1]).message and "longer than" in jobs.get(ANN, names[2]).message
    with pytest.raises(UsageError):
        jobs.create(Asker("bob", "user bob"), {"QUERY": "x" * 100_000})


def test_a_user_who_is_called_owner_is_not_the_owner(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    name = jobs.create(Asker("owner", "owner"), {}).id
    with pytest.raises(NotFoundError):
        jobs.get(Asker("owner", "user owner"), name)
    assert jobs.of(Asker("owner", "user owner")) == [] and jobs.get(Asker("owner", "owner"), name).id == name


def test_a_result_is_not_given_under_another_policy(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    name = jobs.create(ANN, {}).id
    jobs.start(ANN, name, lambda parameters: ("text/plain", iter([b"x"])))
    until(lambda: jobs.get(ANN, name).phase == "COMPLETED")
    assert jobs.result(ANN, name)[0].read_bytes() == b"x"
    with pytest.raises(UsageError, match="policy"):
        jobs.result(Asker("ann", "user ann", "less"), name)


_KILLED = """
import sys, time, pathlib
from apbatch.api.tap.jobs import Asker, Jobs
ann, jobs = Asker("ann", "user ann", "sight"), Jobs(pathlib.Path(sys.argv[1]))
def pieces():
    print("running", flush=True)
    time.sleep(3600)
    yield b""
name = jobs.create(ann, {}).id
jobs.start(ann, name, lambda parameters: ("", pieces()))
time.sleep(3600)
"""


def test_a_job_whose_process_was_killed_has_failed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"running\n"
        (job,) = Jobs(tmp_path).of(ANN)
        assert job.phase == "EXECUTING"  # seen from another process
        process.send_signal(signal.SIGKILL)
    (job,) = Jobs(tmp_path).of(ANN)
    assert job.phase == "ERROR" and "stopped" in job.message


#: All that is for tables, queries, jobs and ObsCore; there are no uploads and no plans of observations.
_STAGES = "TMV TME TMS TMC CPV CAP AVV QGE QPO QAS UWS MDQ OBS EXA"


def test_the_validator_of_stilts_has_no_error_to_report(running: Running) -> None:
    stilts = shutil.which("stilts")
    assert stilts, "jobs/setup.sh system installs stilts"
    report = subprocess.run(
        [stilts, "taplint", f"tapurl={running.url}/tap", f"stages={_STAGES}", "report=EF"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors = [line for line in report.stdout.splitlines() if line.startswith(("E-", "F-"))]
    assert "Totals" in report.stdout and not errors, report.stdout + report.stderr

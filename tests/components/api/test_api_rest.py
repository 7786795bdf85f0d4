"""The REST interface as a client meets it: the same answers as the catalogue's, in every form, to those who may."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.access.guard import Guard
from apbatch.api import counting
from apbatch.index.query import Everything
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.service import Running, fill, record, serving
from tests.synthetic import look_at_run


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteCatalogue]:
    with SqliteCatalogue(f"sqlite:///{tmp_path_factory.mktemp('api')}/c.sqlite") as catalogue:
        fill(catalogue)
        catalogue.upsert([record(900, path="/taiga/site/=cmd()", source="=cmd()", place="/taiga/site/=cmd()")])
        yield catalogue


@pytest.fixture(scope="module")
def running(catalogue: SqliteCatalogue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("home"), catalogue) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(catalogue: SqliteCatalogue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("home"), catalogue, auth=True) as running:
        yield running


def paths(running: Running, query: str, size: int = 50) -> list[str]:
    """Read all pages."""
    found: list[str] = []
    cursor = ""
    while True:
        page = running.json(f"/api/v1/files?q={quote(query)}&columns=path&limit={size}{cursor}")
        found += [item["path"] for item in page["items"]]
        if page["cursor"] is None:
            return found
        cursor = f"&cursor={quote(page['cursor'])}"


def test_pages_hold_every_file_that_the_catalogue_finds_once(running: Running, catalogue: SqliteCatalogue) -> None:
    from apbatch.index.parser import parse_search

    query = "experiment = 'TAIGA' and zenith > 2 deg order by night desc, size"
    expected = [one.path for one in catalogue.select(parse_search(query, catalogue.attributes()))]
    assert len(expected) > 100 and paths(running, query) == expected


@pytest.mark.parametrize("name", ["ndjson", "csv", "arrow", "parquet"])
def test_streams_hold_the_same_rows_as_pages(running: Running, name: str) -> None:
    query = quote("experiment = 'SECRET' order by size desc")
    answer = running.get(f"/api/v1/files?q={query}&columns=path,size,night,zenith&format={name}")
    rows = {
        "ndjson": lambda: [json.loads(line) for line in answer.data.splitlines()],
        "csv": lambda: list(csv.DictReader(io.StringIO(answer.data.decode()))),
        "arrow": lambda: pa.ipc.open_stream(answer.data).read_all().to_pylist(),
        "parquet": lambda: pq.read_table(io.BytesIO(answer.data)).to_pylist(),
    }[name]()
    page = running.json(f"/api/v1/files?q={query}&columns=path,size,night,zenith")["items"]
    assert [(row["path"], int(row["size"]), str(row["night"]), float(row["zenith"])) for row in rows] == [
        (row["path"], row["size"], row["night"], row["zenith"]) for row in page
    ]


def test_the_form_is_the_one_that_is_accepted_most(running: Running) -> None:
    def media(accept: str) -> str:
        return running.get("/api/v1/files?limit=1", Accept=accept).headers["content-type"].partition(";")[0]

    assert media("text/csv;q=0.5, application/x-ndjson;q=0.9, image/png") == "application/x-ndjson"
    assert media("*/*") == "application/json"
    refused = running.get("/api/v1/files", Accept="image/png")
    assert (refused.status, refused.headers["content-type"]) == (406, "application/problem+json")


def test_a_column_of_an_arrow_stream_carries_its_unit(running: Running) -> None:
    schema = pa.ipc.open_stream(running.get("/api/v1/files?columns=zenith&format=arrow").data).schema
    assert schema.field("zenith").metadata[b"unit"] == b"deg"


def test_no_cell_of_a_csv_begins_a_formula(running: Running) -> None:
    query = quote("source = '=cmd()'")
    text = running.get(f"/api/v1/files?q={query}&columns=source,zenith&format=csv").data.decode()
    assert text.splitlines()[1].startswith('"\'=cmd()"')


def test_a_client_that_has_the_page_gets_304(running: Running) -> None:
    first = running.get("/api/v1/files?limit=3")
    again = running.get("/api/v1/files?limit=3", If_None_Match=first.headers["etag"])
    other = running.get("/api/v1/files?limit=4", If_None_Match=first.headers["etag"])
    assert (again.status, again.data, other.status) == (304, b"", 200)


def test_a_wrong_query_is_a_problem_with_place_and_nearest_word(running: Running) -> None:
    answer = running.get("/api/v1/files?q=zenit%3C3")
    problem = json.loads(answer.data)
    assert answer.status == 400 and answer.headers["content-type"] == "application/problem+json"
    assert (problem["where"], problem["nearest"]) == ("query, column 1", "zenith")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/v1/files?limit=0", 400), ("/api/v1/files?cursor=x", 400), ("/api/v1/file?path=/taiga/../etc", 404),
     ("/api/v1/file?path=%00", 400), ("/api/v1/nowhere", 404), ("/api/v1/reports/..%2f..%2fetc%2fpasswd", 404),
     ("/api/v1/jobs/%2e%2e%2f", 404), ("/static/../app.py", 404), ("/static/%2e%2e/app.py", 404),
     ("/api/v1/content?path=/../../etc/passwd", 404), ("/api/v1/files/histogram?attribute=nope", 400),
     ("/api/v1/nights?night=x", 400), ("/api/v1/changes?since=-1", 400)],
    ids=["limit", "cursor", "dots", "nul", "unknown", "report", "job", "static", "static-escaped", "content",
         "attribute", "night", "since"],
)  # fmt: skip
def test_wrong_requests_are_problems(running: Running, path: str, status: int) -> None:
    answer = running.get(path)
    assert answer.status == status
    assert json.loads(answer.data)["status"] == status


def test_a_histogram_counts_every_value_once(running: Running) -> None:
    found = running.json("/api/v1/files/histogram?attribute=size&q=" + quote("experiment = 'TAIGA'"))
    assert sum(found["counts"]) == 121 and found["edges"] == sorted(found["edges"])
    texts = running.json("/api/v1/files/histogram?attribute=experiment")
    assert {one["value"]: one["count"] for one in texts["values"]} == {"TAIGA": 121, "SECRET": 5}


def test_the_feed_goes_on_where_a_browser_was_cut_off(running: Running, catalogue: SqliteCatalogue) -> None:
    last = catalogue.revision()
    catalogue.upsert([record(901), record(902)])
    stream = running.pool.request(
        "GET", running.url + "/api/v1/changes", preload_content=False,
        headers={"Accept": "text/event-stream", "Last-Event-ID": str(last + 1)},
    )  # fmt: skip
    text = b""
    while b"data:" not in text:
        text += stream.read1(65536)
    stream.close()
    lines = text.decode().split("\n")
    assert [line for line in lines if line.startswith("id:")] == [f"id: {last + 2}"]
    assert json.loads(next(line for line in lines if line.startswith("data:"))[5:])["key"] == "/taiga/site/run0902.dat"


def test_who_may_see_nothing_learns_nothing(guarded: Running) -> None:
    """Hidden files and files that do not exist are alike in status, body and count."""
    for address in ("file?path={}", "entry?path={}", "replicas?path={}", "content?path={}"):
        hidden = guarded.get("/api/v1/" + address.format("/secret/site/run0001.dat"))
        missing = guarded.get("/api/v1/" + address.format("/secret/site/run9999.dat"))
        assert hidden.status == missing.status == 404
        assert hidden.data.replace(b"0001", b"9999") == missing.data
    query = quote("experiment = 'SECRET'")
    assert guarded.json(f"/api/v1/files/count?q={query}") == {"count": 0}
    assert (
        guarded.json("/api/v1/complete?attribute=experiment")["items"]
        == guarded.json("/api/v1/complete?attribute=experiment&begin=T")["items"]
    )
    shown = guarded.json("/api/v1/files/histogram?attribute=experiment")["values"]
    assert [one["value"] for one in shown] == ["TAIGA"]
    assert [entry["name"] for entry in guarded.json("/api/v1/entries")["items"]] == ["taiga"]
    assert "secret" not in guarded.get("/api/v1/changes?format=ndjson").data.decode()
    for inside in ("jobs", "reports", "files/explain"):
        assert guarded.get(f"/api/v1/{inside}").status == 404


def test_a_token_opens_what_its_policy_allows_until_it_is_revoked(guarded: Running) -> None:
    token = guarded.tokens.create("ann")
    query = quote("experiment = 'SECRET'")
    bearer = {"Authorization": f"Bearer {token}"}
    assert guarded.json(f"/api/v1/files/count?q={query}", **bearer) == {"count": 5}
    guarded.tokens.revoke(token.split("_")[1])
    refused = guarded.get(f"/api/v1/files/count?q={query}", **bearer)
    assert refused.status == 401 and refused.headers["www-authenticate"].startswith("Bearer")


def test_the_log_holds_no_secret_and_the_file_no_token(guarded: Running) -> None:
    token = guarded.tokens.create("bob")
    guarded.get(f"/api/v1/files?token={token}&limit=1", Authorization=f"Bearer {token}")
    secret = token.split("_", 2)[2]
    assert secret not in "\n".join(guarded.log) and "limit=1" in guarded.log[-1]
    assert secret not in guarded.tokens.path.read_text() and guarded.tokens.path.stat().st_mode & 0o077 == 0


def test_requests_of_other_sites_and_other_names_are_refused(running: Running) -> None:
    assert running.get("/api/v1/files", Origin="http://evil.example").status == 400
    assert running.get("/api/v1/files", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors").status == 400
    assert running.get("/api/v1/files", Host="evil.example").status == 400
    assert running.get("/api/v1/files", Origin=running.url).status == 200


def test_every_answer_keeps_browsers_safe(running: Running) -> None:
    for path in ("/", "/api/v1/files?limit=1", "/nowhere"):
        headers = running.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and "private" in headers["cache-control"]


def test_the_quality_of_a_run_is_for_those_who_may_read_all_of_its_files(guarded: Running) -> None:
    for experiment, run in (("TAIGA", 5), ("TAIGA", 900)):
        look_at_run(guarded.service.home, experiment, run)
    ann, eve = ({"Authorization": f"Bearer {guarded.tokens.create(name)}"} for name in ("ann", "eve"))
    (row,) = [one for one in guarded.json("/api/v1/nights?night=2017-10-06", **ann)["items"] if one["run"] == 5]
    assert row["quality"][0]["event_rate"]["median"] == pytest.approx(5)
    assert row["quality"][0]["rates"] == pytest.approx([5] * 10, rel=0.03)
    assert row["quality"][0]["pixels"]["whole"]["dead"] == 1
    (item,) = guarded.json("/api/v1/quality?experiment=TAIGA&run=5", **ann)["items"]
    assert item["gains"]["whole"]["pedestal"] == pytest.approx(20, abs=0.2)
    assert "inside" not in json.dumps(item)  # where files are is for the owner and operators
    for who, run in ((ann, 900), (eve, 5), ({}, 5)):  # 900 is too large for ann to read
        hidden = guarded.get(f"/api/v1/quality?experiment=TAIGA&run={run}", **who)
        missing = guarded.get("/api/v1/quality?experiment=TAIGA&run=12345", **who)
        assert (hidden.status, hidden.data) == (404, missing.data)
    rows = guarded.json("/api/v1/nights?night=2017-10-06", **eve)["items"]
    assert rows and not any(row["quality"] for row in rows)


def test_the_owner_sees_where_a_quality_came_from(running: Running) -> None:
    look_at_run(running.service.home, "TAIGA", 900)
    (item,) = running.json("/api/v1/quality?experiment=TAIGA&run=900")["items"]
    assert item["output"] == "file:///inside/quality" and item["problems"] == ["file:///inside/run.dat: odd"]
    path = next(running.service.home.glob("quality/*/900-1.json"))
    path.write_text(path.read_text()[:100])  # cut off
    assert running.get("/api/v1/quality?experiment=TAIGA&run=900").status == 404


@pytest.mark.parametrize(
    "address",
    ["files/count?by=path", "files/count?by=revision", "files/histogram?attribute=path", "complete?attribute=revision"],
)
def test_values_that_are_too_many_are_refused_before_all_are_read(
    running: Running, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    assert running.get(f"/api/v1/{address}").status == 200
    monkeypatch.setattr(counting, "MOST_VALUES", 20)
    read: list[int] = []
    batches = Guard.batches

    def counted(self: Guard, *arguments: Any) -> Iterator[pa.RecordBatch]:
        for batch in batches(self, *arguments, size=10):
            read.append(len(batch))
            yield batch

    monkeypatch.setattr(Guard, "batches", counted)
    answer = running.get(f"/api/v1/{address}")
    assert answer.status == 400 and "more than 20 values" in answer.data.decode()
    assert sum(read) <= 30


def test_counts_by_what_has_many_values_are_those_of_the_rows(running: Running, catalogue: SqliteCatalogue) -> None:
    for by in ("size", "zenith", "checksum", "time_start"):
        counts = running.json(f"/api/v1/files/count?by={by}")["counts"]
        expected = catalogue.count(Everything(), by)
        assert len(counts) == len(expected)
        assert sorted(one["count"] for one in counts) == sorted(expected.values())
    sizes = {one["value"]: one["count"] for one in running.json("/api/v1/files/count?by=size")["counts"]}
    assert sizes == catalogue.count(Everything(), "size")

"""What may not be seen is not there: two catalogues that differ only in hidden files answer alike, byte by byte."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest

from apbatch.access.guard import Guard
from apbatch.api.limits import STEP_S
from apbatch.formats.reader import Attribute
from apbatch.index.contents import Content
from apbatch.index.events.backends import open_events
from apbatch.index.files import Replica
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.components.api.test_api_graphql import BOMBS, post
from tests.service import Running, record, serving
from tests.synthetic import look_at_run

RULES = """
rules:
  - {name: names, who: anyone, may: metadata, below: /taiga}
  - {name: ann, who: {users: ann}, may: data, below: /taiga}
"""
#: Where the copy of a file is that everybody may see.
STORE = "hdfs://namenode.example:8020/store"
#: Who asks: nobody known, somebody who reads what is seen, and somebody whom no rule names.
WHO = ("", "ann", "eve")


def _fill(catalogue: SqliteCatalogue, hidden: bool) -> None:
    catalogue.declare([Attribute("zenith", "number", "zenith angle", "deg")])
    catalogue.upsert([record(number) for number in range(30)])
    twice = record(40, place="/taiga/twice")
    catalogue.upsert([twice, replace(twice, path="/taiga/b/x", site="b", source="x", checksum="c" * 64)])
    catalogue.put_contents([Content(f"{1:064x}", 0, "0", b"", b"", b"")])
    moment = datetime(2018, 1, 1, tzinfo=UTC)
    catalogue.add_replicas([Replica("/taiga/site/run0003.dat", f"{STORE}/3", "hdfs", f"{3:064x}", moment)])
    if hidden:
        catalogue.put_contents([Content(f"{50:064x}", 0, "0", b"", b"", b"")])
        catalogue.upsert([record(number, "secret", attributes={"zenith": 80.0}) for number in range(60)])
        for place in ("/secret/a", "/secret/b", "/secret/c", "/zzz/a"):
            one = record(70, "secret", place=place, path=f"{place}1", source=f"{place}1")
            catalogue.upsert([one, replace(one, path=f"{place}2", source=f"{place}2", site="b", checksum="d" * 64)])
        catalogue.add_replicas([Replica("/secret/site/run0001.dat", "file:///x", "local", f"{1:064x}", moment)])
        # Of the same content as a file that is seen, and of a site that has no other files.
        catalogue.upsert([record(3, "secret", path="/secret/hidden/3", source="3", site="hidden", place="/secret/3")])
        catalogue.remove(["/secret/site/run0059.dat"])


def _events(experiment: str) -> pa.RecordBatch:
    rows = [
        {"experiment": experiment.upper(), "run": run, "event": event, "telescope": 1, "cleaning": "none",
         "file": f"/{experiment}/site/run{run:04d}.dat", "size": 10.0 * event * (1 if experiment == "taiga" else 100)}
        for run in range(3) for event in range(5)
    ]  # fmt: skip
    return pa.RecordBatch.from_pylist(rows)


class _Bytes(io.BytesIO):
    """Bytes of a file that may be read."""

    verified = True

    def __init__(self, door: Guard, path: str) -> None:
        super().__init__(door.readable(path)[0].path.encode())
        self.size = len(self.getvalue())

    def read(self, place: int | None = 0, size: int = 0) -> bytes:
        return self.getvalue()[place or 0 :][:size]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Running]]:
    with ExitStack() as stack:
        both = []
        for hidden in (False, True):
            home: Path = tmp_path_factory.mktemp("hidden")
            catalogue = stack.enter_context(SqliteCatalogue(f"sqlite:///{home}/c.sqlite"))
            events = stack.enter_context(open_events(f"file://{home}/events"))
            _fill(catalogue, hidden)
            events.upsert(_events("taiga"))
            if hidden:
                events.upsert(_events("secret"))
                shutil.copytree(both[0].service.home / "quality", home / "quality")
                look_at_run(home, "SECRET", 1)
            else:
                look_at_run(home, "TAIGA", 2)
            running = stack.enter_context(
                serving(home, catalogue, events, auth=True, rules=RULES, files=_Bytes)
            )  # fmt: skip
            for name in WHO[1:]:
                running.given[name] = running.tokens.create(name)
            both.append(running)
        yield both[0], both[1]


Q = quote("zenith > 1 deg order by size desc")
PATHS = ("", "/", "/taiga", "/taiga/site/run0003.dat", "/taiga/twice", "/secret", "/secret/site",
         "/secret/site/run0001.dat",
         "/secret/site/run0059.dat", "/secret/a", "/zzz", "/secret/hidden/3", "/taiga/../secret")  # fmt: skip
ADDRESSES = [
    "", "/openapi.json", "/sites", "/attributes", "/attributes?of=events", "/conflicts", "/conflicts?limit=1", "/jobs",
    "/jobs/x", "/reports", "/reports/x", "/nights", "/nights?night=2017-10-02", "/nights?night=2017-10-03",
    "/files/explain", "/changes",
    *(f"/quality?experiment={name}&run={run}" for name in ("TAIGA", "SECRET") for run in (1, 2)),
    "/changes?limit=3", "/changes?since=33", "/changes?since=40", "/changes?since=1000000", "/changes?format=ndjson",
    "/files?q=" + quote("site = 'hidden' or experiment = 'SECRET' or state = 'missing'"),
    f"/files?q={Q}", f"/files?q={Q}&limit=4", "/files?q=zenit%3C3", "/files?cursor=x", "/files?limit=31",
    *(f"/files?q={Q}&format={form}" for form in ("ndjson", "csv", "arrow", "parquet")), "/files?columns=*&format=csv",
    "/files/count", "/files/count?by=site", "/files/count?by=experiment", "/files/count?by=zenith",
    "/files/count?by=checksum", "/files/count?q=" + quote("experiment = 'SECRET'"),
    "/files/histogram?attribute=size", "/files/histogram?attribute=zenith", "/files/histogram?attribute=experiment",
    "/files/histogram?attribute=night", "/complete?attribute=experiment", "/complete?attribute=experiment&begin=S",
    *(f"/hashes?checksum={number:064x}" for number in (1, 50, 9999)),
    "/complete?attribute=site", "/events", "/events?format=csv", "/events?q=" + quote("size > 40 order by size"),
    "/events/count", "/events/count?by=experiment", "/events/count?by=file", "/events/histogram?attribute=size",
    "/events/histogram?attribute=experiment", "/events/count?q=" + quote("experiment = 'SECRET'"),
    *(f"/events/display?experiment={name}&run=1&event=1&telescope=1" for name in ("TAIGA", "SECRET", "NONE")),
    *(f"/{door}?{'folder' if door == 'entries' else 'path'}={quote(path)}"
      for door in ("entries", "entry", "file", "replicas", "content") for path in PATHS),
]  # fmt: skip
DOCUMENTS = [
    "{ files { totalCount nodes { path revision replicas { url } eventsRead { totalCount nodes { event } } } } }",
    "{ files(query: \"experiment = 'SECRET'\") { totalCount nodes { path } pageInfo { endCursor } } }",
    "{ sites { totalCount nodes { name fileCount files(first: 2) { totalCount pageInfo { endCursor } } } } }",
    "{ events { totalCount nodes { experiment run event values file { path } } pageInfo { endCursor } } }",
    "{ attributes(first: 100) { nodes { name } } more: attributes(ofEvents: true, first: 100) { nodes { name } } }",
    *(f"{{ file(path: {json.dumps(path)}) {{ path size }} }}" for path in PATHS),
    '{ files(query: "zenit < 3") { totalCount } }', "{ nope }", BOMBS["cost"],
]  # fmt: skip
_CHANGING = ("date", "server-timing")


def _headers(running: Running, who: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {running.given[who]}"} if who else {}


@pytest.mark.parametrize("who", WHO, ids=["anyone", "reader", "stranger"])
def test_hidden_files_change_no_byte_of_any_answer(pair: tuple[Running, Running], who: str) -> None:
    for address in ADDRESSES:
        answers = []
        for running in pair:
            answer = running.get(f"/api/v1{address}", **_headers(running, who))
            kept = {name: value for name, value in answer.headers.items() if name not in _CHANGING}
            answers.append((answer.status, kept, answer.data))
        assert answers[0] == answers[1], address
    for document in DOCUMENTS:
        one, other = (post(running, {"query": document}, **_headers(running, who)) for running in pair)
        assert one == other, document


def test_where_copies_are_is_told_to_those_who_may_read_the_file(pair: tuple[Running, Running]) -> None:
    for who, expected in zip(WHO, (False, True, False), strict=True):
        headers = _headers(pair[0], who)
        told = {
            f"/api/v1{address}"
            for address in ADDRESSES
            if STORE.encode() in pair[0].get(f"/api/v1{address}", **headers).data
        }
        told |= {document for document in DOCUMENTS if STORE in str(post(pair[0], {"query": document}, **headers))}
        assert bool(told) == expected, (who, told)
        if expected:
            assert {address.partition("?")[0].rpartition("/")[2] for address in told} >= {"file", "replicas", "changes"}
            assert DOCUMENTS[0] in told


_ADQL = (
    "SELECT COUNT(*) FROM files", "SELECT TOP 50 * FROM files ORDER BY size DESC",
    "SELECT site, COUNT(*) FROM files GROUP BY site", "SELECT * FROM files WHERE experiment = 'SECRET'",
    "SELECT COUNT(*) FROM events", "SELECT * FROM events WHERE size > 40", "SELECT * FROM ivoa.obscore",
    "SELECT zenit FROM files", "SELECT * FROM TAP_SCHEMA.columns",
)  # fmt: skip
#: For libraries and for astronomers.
PROTOCOLS = [
    *(f"/oai?verb={verb}" for verb in ("Identify", "ListSets", "ListMetadataFormats")),
    *(f"/oai?verb={verb}&metadataPrefix=oai_dc" for verb in ("ListIdentifiers", "ListRecords")),
    "/oai?verb=ListIdentifiers&metadataPrefix=oai_dc&set=secret", "/tap/tables", "/tap/capabilities", "/tap/async",
    "/healthz", "/readyz",
    *(f"/tap/sync?REQUEST=doQuery&LANG=ADQL&FORMAT=csv&QUERY={quote(text)}" for text in _ADQL),
]  # fmt: skip


@pytest.mark.parametrize("who", WHO, ids=["anyone", "reader", "stranger"])
def test_hidden_files_change_no_byte_of_other_protocols(pair: tuple[Running, Running], who: str) -> None:
    """But for the service's own address, and the times at which it saw its catalogue."""
    statuses = []
    for address in PROTOCOLS:
        answers = []
        for running in pair:
            answer = running.get(address, **_headers(running, who))
            text = answer.data.decode().replace(running.url, "http://service")
            answers.append((answer.status, re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME", text)))
        assert answers[0] == answers[1], address
        statuses.append(answers[0][0])
    assert statuses.count(200) > len(PROTOCOLS) / 2  # these are answers, not only refusals


def test_every_address_is_compared(pair: tuple[Running, Running]) -> None:
    paths = {path.removeprefix("/api/v1") for path in pair[0].json("/api/v1/openapi.json")["paths"]}
    ours = {path for path in paths if not path.startswith(("/oai", "/tap", "/graphql"))}
    asked = {address.partition("?")[0] for address in ADDRESSES}
    assert {path for path in ours if "{" not in path} <= asked
    ann = _headers(pair[1], "ann")
    assert pair[1].json("/api/v1/quality?experiment=TAIGA&run=2", **ann)["items"]
    assert pair[1].json("/api/v1/files/count") == {"count": 32}  # and there is something to hide
    assert pair[1].service.catalogue.revision() > pair[0].service.catalogue.revision()


def test_a_path_that_is_hidden_is_one_that_is_not_there(pair: tuple[Running, Running]) -> None:
    """Status, headers and body are alike but for the name itself."""
    for who in WHO:
        for door in ("file", "entry", "replicas", "content", "entries"):
            name = "folder" if door == "entries" else "path"
            hidden, missing = (
                pair[1].get(f"/api/v1/{door}?{name}=/secret/site/run{n}.dat", **_headers(pair[1], who))
                for n in ("0001", "9999")
            )
            assert hidden.status == missing.status
            assert hidden.data.replace(b"0001", b"9999") == missing.data


def test_time_does_not_tell_what_is_hidden(pair: tuple[Running, Running]) -> None:
    """The server's own time of each answer that nothing is there is a whole number of steps."""
    text = '{ file(path: "/secret/site/run0001.dat") { path } }'
    for path in ("/secret/site/run0001.dat", "/secret/site/run9999.dat"):
        shown = pair[1].get(f"/api/v1/file?path={path}").headers["server-timing"]
        assert float(shown.partition("dur=")[2]) >= STEP_S * 1000
    post(pair[1], {"query": text})
    assert json.loads(pair[1].log[-1])["ms"] >= STEP_S * 1000


def test_pages_of_conflicts_are_full_of_those_that_are_seen(pair: tuple[Running, Running]) -> None:
    page = pair[1].json("/api/v1/conflicts?limit=1")
    assert [one["place"] for one in page["items"]] == ["/taiga/twice"] and page["cursor"] is None


def test_the_feed_ends_at_what_is_seen_and_goes_on_from_there(pair: tuple[Running, Running]) -> None:
    running = pair[1]
    since = 0
    for _ in range(100):
        page = running.json(f"/api/v1/changes?since={since}&limit=7&from_start=true")
        if page["since"] == since:
            break
        since = page["since"]
    assert since < running.service.catalogue.revision() and page["items"] == []
    running.service.catalogue.upsert([record(80)])
    assert [one["key"] for one in running.json(f"/api/v1/changes?since={since}")["items"]] == [
        "/taiga/site/run0080.dat"
    ]

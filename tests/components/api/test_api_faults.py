"""Clients that go away, read slowly or send what is meant to break something: others notice nothing of them."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from apbatch.errors import CancelledQueryError
from apbatch.index.events.backends import open_events
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.components.api.test_api_graphql import events
from tests.service import Running, connected, fill, record, serving
from tests.waits import PATIENCE_S, until

#: Names that end a header, a cell, a folder or a page.
NAMES = (
    'a"b.dat', "a\r\nSet-Cookie: x=y.dat", "a\nb", "a;b=c", "ü\u202egnp.dat", "%0d%0aX: y", "a'b<script>",
    "=cmd()", "+1", "-1", "@x", "\t=x", "\r=x", "＝1+1", "＋1", "－1", "＠x", " =x", "a,b", "a\\b",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class Bytes(io.BytesIO):
    """The bytes of any file that may be read."""

    verified = True

    def __init__(self, door: Any, path: str) -> None:
        super().__init__(door.readable(path)[0].path.encode())
        self.size = len(self.getvalue())

    def read(self, place: int | None = 0, size: int = 0) -> bytes:
        return self.getvalue()[place or 0 :][:size]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteCatalogue]:
    with SqliteCatalogue(f"sqlite:///{tmp_path_factory.mktemp('faults')}/c.sqlite") as catalogue:
        fill(catalogue, 20)
        odd = [
            record(500 + n, source=name, path=f"/odd/site/{name}", place=f"/odd/{name}", format=name, experiment="ODD")
            for n, name in enumerate(NAMES)
        ]
        catalogue.upsert(odd)
        yield catalogue


@pytest.fixture(scope="module")
def running(catalogue: SqliteCatalogue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("home")
    with open_events(f"file://{home}/events") as store:
        store.upsert(events("taiga", 3))
        with serving(home, catalogue, store, files=Bytes) as running:
            yield running


ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c WHERE n < 0"
GRAPH = json.dumps({"query": "{ sites { totalCount } }"})
REQUESTS = {
    "rest": ("count", "GET /api/v1/files/count?q=size%3E1 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "graphql": ("count", "POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(GRAPH)}\r\n\r\n{GRAPH}"),
    "events": ("events", "GET /api/v1/events/count?q=size%3E1 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_the_query_of_a_client_that_goes_away_is_ended(
    running: Running, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), []
    database: Any = running.service.catalogue
    duck: Any = getattr(running.service.events, "_duck", None)

    def run(*_: object, **__: object) -> dict[Any, int]:
        begun.set()
        try:
            list(duck.batches(ENDLESS)) if name == "events" else database._db.ask(ENDLESS, ())
        except CancelledQueryError as error:
            ended.append(error)
            raise
        return {None: 0}

    target = running.service.events if name == "events" else running.service.catalogue
    monkeypatch.setattr(target, "count", run)
    client = connected(running, REQUESTS[name][1])
    assert begun.wait(PATIENCE_S)
    client.close()
    until(lambda: ended, "the query goes on")
    monkeypatch.undo()
    assert running.json("/api/v1/files/count")["count"] > 0  # the connection serves others


def test_a_reader_who_takes_nothing_holds_no_writer(tmp_path: Path) -> None:
    with SqliteCatalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:
        fill(catalogue, 12_000)
        with serving(tmp_path / "home", catalogue) as running:
            clients = [
                connected(running, "GET /api/v1/files?format=ndjson&columns=* HTTP/1.1\r\nHost: localhost\r\n\r\n")
                for _ in range(3)
            ]
            for client in clients:
                assert client.recv(12) == b"HTTP/1.1 200"
            catalogue.upsert([record(20_000)])
            # No reader holds an old state: the whole log can be taken over and cut.
            busy, *_ = catalogue._db.ask("PRAGMA wal_checkpoint(TRUNCATE)", ())[0]
            assert busy == 0 and running.json("/api/v1/files/count") == {"count": 12_006}
            assert not any("ndjson" in line for line in running.log)  # each is still in the middle of its stream
            for client in clients:
                client.close()


@pytest.mark.parametrize("name", NAMES, ids=[f"{number}" for number in range(len(NAMES))])
def test_a_name_stays_inside_its_header_and_its_cell(running: Running, name: str) -> None:
    answer = running.get(f"/api/v1/content?path={quote('/odd/' + name)}")
    assert answer.status == 200 and answer.data.decode() == f"/odd/site/{name}"
    assert "set-cookie" not in answer.headers and "x" not in answer.headers
    assert answer.headers["content-disposition"].isascii() and answer.headers["content-disposition"].isprintable()
    cells = running.get(f"/api/v1/files?q={quote('experiment = ')}'ODD'&columns=path,source,format,place&format=csv")
    rows = list(csv.DictReader(io.StringIO(cells.data.decode(), newline="")))
    assert len(rows) == len(NAMES)
    row = next(row for row in rows if row["path"] == f"/odd/site/{name}")
    assert row["source"] == row["format"] == (f"'{name}" if name.startswith(FORMULA) else name)
    assert running.json(f"/api/v1/file?path={quote('/odd/' + name)}")["record"]["source"] == name


@pytest.mark.parametrize(
    "wanted", ["lines=0-4", "bytes=9-2", "bytes=0-1,5-6", "bytes=0-9223372036854775807", "bytes=999-"]
)
def test_a_range_of_a_file_is_a_part_the_whole_or_refused(running: Running, wanted: str) -> None:
    path = "/taiga/site/run0003.dat"
    answer = running.get(f"/api/v1/content?path={path}", Range=wanted)
    status = 416 if wanted.endswith("999-") else 206 if wanted.endswith("807") else 200
    assert answer.status == status
    expected = {200: None, 206: f"bytes 0-{len(path) - 1}/{len(path)}", 416: f"bytes */{len(path)}"}[status]
    assert answer.headers.get("content-range") == expected
    assert status == 416 or answer.data == path.encode()


TRAVERSALS = (
    "../secret.txt", "/../secret.txt", "../../secret.txt", "/taiga/../../secret.txt", "%2e%2e/secret.txt", "secret.txt",
    "..%2fsecret.txt", "..\\secret.txt", "....//secret.txt", "file:///etc/passwd", "/etc/passwd", "//etc/passwd",
    "\0/etc/passwd", "jobs/../secret.txt", "bench/../../secret.txt", "/proc/self/environ", "..", ".",
    "../api/tokens.json", "api/tokens.json",
)  # fmt: skip


def test_no_parameter_leads_out_of_the_tree(running: Running) -> None:
    """Every text of every operation, in the address and behind it."""
    secret = "what nobody should read"
    for folder in (running.service.home, running.service.home.parent, running.service.home / "bench"):
        folder.mkdir(exist_ok=True)
        (folder / "secret.txt").write_text(secret)
    document = running.json("/api/v1/openapi.json")
    tried = 0
    for path, operations in document["paths"].items():
        for parameter in operations.get("get", {}).get("parameters", ()):
            if parameter["schema"].get("type") == "integer":
                continue
            for text in TRAVERSALS:
                for coded in {quote(text, safe=""), quote(text, safe="/." if parameter["in"] == "path" else "")}:
                    address = path.replace("{" + parameter["name"] + "}", coded)
                    if parameter["in"] == "query":
                        address += f"?{parameter['name']}={coded}"
                    answer = running.get(address)
                    tried += 1
                    assert answer.status < 500 and secret.encode() not in answer.data, address
                    assert b"root:" not in answer.data and b"apbatch_token" not in answer.data, address
    for text in TRAVERSALS:
        for below in ("/static/", "/browse/"):
            answer = running.get(below + quote(text, safe="/."))
            assert answer.status < 500 and secret.encode() not in answer.data
    assert tried > 500


def test_a_request_that_breaks_off_leaves_nothing_behind(running: Running) -> None:
    before = threading.active_count()
    cuts: list[Callable[[], str]] = [
        lambda: "GET /api/v1/files HTTP/1.1\r\nHost: localh",
        lambda: (
            "POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        ),
        lambda: "GET /api/v1/files?format=arrow HTTP/1.1\r\nHost: localhost\r\n\r\n",
        lambda: "GET /api/v1/changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
        lambda: "\0\0\0\r\n\r\n",
        lambda: "GET /api/v1/files HTTP/1.1\r\nHost: localhost\r\nX: " + "y" * 200_000 + "\r\n\r\n",
    ]
    for _ in range(10):
        for cut in cuts:
            connected(running, cut()).close()
    assert running.json("/api/v1/files/count")["count"] > 0
    until(lambda: running.service.followers._free == running.service.settings.followers, "a place in the feed is lost")
    assert threading.active_count() <= before + 45  # the pool of threads has 40

"""A server's feed, followed: as it happens, on after every cut, and through proxies that let no stream pass."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import urllib3

import apbatch as ap
from apbatch.client import feed
from apbatch.errors import AccessError, ApbatchError
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.service import Running, fill, record, serving
from tests.waits import PATIENCE_S

PROBLEM = json.dumps({"title": "Access", "detail": "the token is not valid"}).encode()


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteCatalogue]:
    with SqliteCatalogue(f"sqlite:///{tmp_path_factory.mktemp('feed')}/c.sqlite") as catalogue:
        fill(catalogue, 3)
        yield catalogue


@pytest.fixture(scope="module")
def running(catalogue: SqliteCatalogue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("home"), catalogue) as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(feed, "_LAST_PAUSE_S", 0.05)
    monkeypatch.setattr(feed, "POLL_S", 0.05)


class Proxy:
    """What stands between a client and the service.

    Attributes
    ----------
    streams : list of str
        What is done with the next streams; the last one stays: ``pass``, ``cut`` after one event, ``close`` at once,
        ``hold`` back, ``fail``, ``refuse``, ``garble``.
    resumed : list of str or None
        Last-Event-ID of each stream that was asked for.
    pages : int
        Other requests.
    """

    def __init__(self, to: str) -> None:
        self.streams, self.resumed, self.pages = ["pass"], list[str | None](), 0
        self.ended = threading.Event()
        proxy, pool = self, urllib3.PoolManager(retries=False)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                if "event-stream" in self.headers.get("Accept", ""):
                    proxy.resumed.append(self.headers.get("Last-Event-ID"))
                    how = proxy.streams.pop(0) if len(proxy.streams) > 1 else proxy.streams[0]
                    self._stream(how, headers)
                    return
                proxy.pages += 1
                answer = pool.request("GET", to + self.path, headers=headers)
                self._answer(answer.status, answer.data, "application/json")

            def _stream(self, how: str, headers: dict[str, str]) -> None:
                if how in ("fail", "refuse"):
                    self._answer(502 if how == "fail" else 401, PROBLEM if how == "refuse" else b"", "application/json")
                elif how == "hold":
                    proxy.ended.wait(PATIENCE_S)
                else:
                    self.send_response(200)
                    self.send_header("Content-Type", "text/event-stream")
                    self.end_headers()
                    if how == "garble":
                        self.wfile.write(b"id: 9\nevent: new\ndata: {]\n\n")
                    elif how != "close":
                        self._pass_on(pool.request("GET", to + self.path, headers=headers, preload_content=False), how)
                self.close_connection = True

            def _pass_on(self, answer: Any, how: str) -> None:
                while not proxy.ended.is_set() and (piece := answer.read1(65536)):
                    if how == "cut" and b"data:" in piece:
                        head, _, rest = piece.partition(b"data:")
                        self.wfile.write(head + b"data:" + rest.partition(b"\n\n")[0] + b"\n\nid: 77\nevent: ne")
                        break
                    self.wfile.write(piece)
                    self.wfile.flush()
                answer.close()

            def _answer(self, status: int, body: bytes, media: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", media)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def proxy(running: Running) -> Iterator[Proxy]:
    proxy = Proxy(running.url)
    yield proxy
    proxy.close()


def followed(url: str, since: int) -> Iterator[dict[str, Any]]:
    """Changes alone, without the words that there are no more for now."""
    with ap.connect(url) as catalogue:
        yield from (row for row in catalogue.follow(since) if row is not None)


def paths(rows: Iterator[dict[str, Any]], number: int) -> list[str]:
    return [row["path"] for row in islice(rows, number)]


def test_changes_come_on_one_connection_as_they_happen(running: Running, catalogue: SqliteCatalogue) -> None:
    since, asked = catalogue.revision(), len(running.log)
    rows = followed(running.url, since)
    for number in (100, 101, 102):
        catalogue.upsert([record(number)])
        row = next(rows)
        assert (row["path"], row["change"], row["size"]) == (record(number).path, "new", record(number).size)
    catalogue.remove([record(100).path])
    row = next(rows)
    assert (row["path"], row["change"]) == (record(100).path, "gone")
    rows.close()  # type: ignore[attr-defined]
    assert len(running.log) - asked <= 1, "one request, which is logged at its end"


def test_from_the_beginning_it_is_what_the_pages_have(running: Running) -> None:
    with ap.connect(running.url) as there:
        pages = list(there.changes())
    assert list(islice(followed(running.url, 0), len(pages))) == pages


def test_after_each_cut_it_goes_on_by_the_last_event(
    proxy: Proxy, catalogue: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = catalogue.revision()
    catalogue.upsert([record(number) for number in range(200, 206)])
    proxy.streams = ["cut"]
    expected = [record(number).path for number in range(200, 206)]
    assert paths(followed(proxy.url, since), 6) == expected
    assert proxy.resumed == [str(since + number) for number in range(6)]
    assert proxy.pages == 0


@pytest.mark.parametrize("how", ["close", "hold"])
def test_where_no_stream_comes_through_pages_are_read(
    proxy: Proxy, catalogue: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(feed, "_SILENCE_S", 1.0)
    proxy.streams = [how]
    rows = followed(proxy.url, catalogue.revision())
    for number in (300, 301):
        catalogue.upsert([record(number, "close" if how == "close" else "hold")])
        assert next(rows)["run"] == number
    assert len(proxy.resumed) <= 3 and proxy.pages >= 2


def test_a_server_that_was_away_is_asked_again(
    proxy: Proxy, catalogue: SqliteCatalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.streams = ["cut", "fail", "fail", "pass"]
    rows = followed(proxy.url, catalogue.revision())
    catalogue.upsert([record(400), record(401)])
    assert paths(rows, 2) == [record(400).path, record(401).path]
    assert len(proxy.resumed) == 4 and "asked again in" in capsys.readouterr().err


def test_who_is_refused_is_told(proxy: Proxy, catalogue: SqliteCatalogue) -> None:
    proxy.streams = ["cut", "refuse"]
    rows = followed(proxy.url, catalogue.revision())
    catalogue.upsert([record(500), record(501)])
    assert next(rows)["run"] == 500
    with pytest.raises(AccessError, match="not valid"):
        next(rows)
    proxy.streams = ["garble"]
    with pytest.raises(ApbatchError, match="not a change"):
        next(followed(proxy.url, 1))
    proxy.streams = ["fail"]
    with pytest.raises(ApbatchError, match="502"):  # nobody waits for an address that is wrong
        next(followed(proxy.url, 1))


def test_the_command_follows_a_server(running: Running, catalogue: SqliteCatalogue) -> None:
    command = [str(Path(sys.executable).with_name("apbatch")), "--catalogue", running.url, "changes", "--follow"]
    since = catalogue.revision()
    catalogue.upsert([record(600)])
    with subprocess.Popen([*command, "--since", str(since)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["run"] == 600
        catalogue.upsert([record(601)])
        assert json.loads(process.stdout.readline())["run"] == 601
        process.kill()

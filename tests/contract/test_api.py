"""The service over each back-end: by each of its doors the same files, in pages, counts, feeds and tables."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import pyarrow as pa
import pytest
import urllib3

from apbatch.index.backends import open_catalogue
from apbatch.index.cancelling import Cancellation
from apbatch.index.cassandra.session import CassandraSession
from tests.components.api.test_api_graphql import FILES, ask
from tests.contract.conftest import CASSANDRA, POSTGRES
from tests.servers import Servers
from tests.service import Running, connected, fill, record, serving
from tests.waits import PATIENCE_S, until

NUMBER = 60
TAIGA = [record(number) for number in range(NUMBER)]
SECRET = [record(number, "secret") for number in range(5)]
#: A condition on an attribute of its own, and an order that is not that of paths.
WHERE = "experiment = 'TAIGA' and zenith > 2 deg"
QUERY = f"{WHERE} order by night desc, size"


def expected() -> list[str]:
    """Find and order the files by plain Python."""
    matching = [one for one in TAIGA if float(str(one.attributes["zenith"])) > 2]
    return [one.path for one in sorted(matching, key=lambda one: (-one.night.toordinal(), one.size))]  # type: ignore[union-attr]


@pytest.fixture(scope="module", params=["sqlite", POSTGRES, CASSANDRA])
def running(
    request: pytest.FixtureRequest, new_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with open_catalogue(new_url(request.param)) as catalogue:
        fill(catalogue, NUMBER)
        with serving(tmp_path_factory.mktemp("home"), catalogue) as running:
            yield running


def test_pages_hold_every_match_once_in_its_order(running: Running) -> None:
    paths: list[str] = []
    cursor = ""
    while True:
        page = running.json(f"/api/v1/files?q={quote(QUERY)}&columns=path&limit=7{cursor}")
        assert len(page["items"]) <= 7
        paths += [item["path"] for item in page["items"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={quote(page['cursor'])}"
    assert paths == expected()


def test_a_stream_holds_what_the_pages_hold(running: Running) -> None:
    answer = running.get(f"/api/v1/files?q={quote(QUERY)}&columns=path,size&format=arrow")
    table = pa.ipc.open_stream(answer.data).read_all()
    sizes = {one.path: one.size for one in TAIGA}
    assert table.to_pylist() == [{"path": path, "size": sizes[path]} for path in expected()]


def test_counts_are_those_of_plain_python(running: Running) -> None:
    assert running.json("/api/v1/files/count") == {"count": NUMBER + 5}
    counts = running.json(f"/api/v1/files/count?by=night&q={quote(WHERE)}")["counts"]
    nights = {one.path: str(one.night) for one in TAIGA}
    assert {one["value"]: one["count"] for one in counts} == Counter(nights[path] for path in expected())


def test_the_feed_tells_every_file_once_by_pages(running: Running) -> None:
    since, keys = 0, []
    while True:
        page = running.json(f"/api/v1/changes?since={since}&from_start=true&limit=20")
        keys += [item["key"] for item in page["items"]]
        if page["since"] == since:
            break
        assert page["since"] > since
        since = page["since"]
    assert sorted(keys) == sorted(one.path for one in [*TAIGA, *SECRET])


def test_the_tree_has_the_files_of_a_folder(running: Running) -> None:
    names, cursor = [], ""
    while True:
        page = running.json(f"/api/v1/entries?folder=/taiga/site&limit=25{cursor}")
        names += [item["name"] for item in page["items"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={quote(page['cursor'])}"
    assert names == [one.path.rpartition("/")[2] for one in TAIGA]
    assert running.json(f"/api/v1/entry?path={TAIGA[3].path}")["size"] == TAIGA[3].size


def test_tap_answers_adql(running: Running) -> None:
    adql = ("SELECT path, size FROM apbatch.files WHERE experiment = 'TAIGA' AND zenith > 2 "
            "ORDER BY night DESC, size")  # fmt: skip
    answer = running.get(f"/tap/sync?{urlencode({'LANG': 'ADQL', 'QUERY': adql, 'RESPONSEFORMAT': 'csv'})}")
    assert answer.status == 200, answer.data
    assert [row["path"] for row in csv.DictReader(io.StringIO(answer.data.decode()))] == expected()


def test_graphql_gives_the_same_files(running: Running) -> None:
    paths: list[str] = []
    after = None
    while True:
        page = ask(running, FILES, {"query": QUERY, "after": after, "first": 20})["files"]
        paths += [node["path"] for node in page["nodes"]]
        if (after := page["pageInfo"]["endCursor"]) is None:
            break
    assert page["totalCount"] == len(paths) and paths == expected()


def test_harvesters_get_every_file_once(running: Running) -> None:
    space = "{http://www.openarchives.org/OAI/2.0/}"
    asked, identifiers = "verb=ListIdentifiers&metadataPrefix=oai_dc", []
    while True:
        document = ElementTree.fromstring(running.get(f"/oai?{asked}").data)
        identifiers += [one.text for one in document.iter(f"{space}identifier")]
        token = document.find(f".//{space}resumptionToken")
        if token is None or not token.text:
            break
        asked = f"verb=ListIdentifiers&resumptionToken={quote(token.text)}"
    assert len(identifiers) == len(set(identifiers)) == NUMBER + 5


@pytest.mark.parametrize("running", [CASSANDRA], indirect=True)
def test_cassandra_is_asked_for_no_further_row_when_the_client_goes_away(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cassandra can't be told to end a query: its rows come by pages and partitions, and no more are taken."""
    begun, cancelled, taken = threading.Event(), threading.Event(), []
    concurrently, cancel = CassandraSession.concurrently, Cancellation.cancel

    def each(session: CassandraSession, statements: Any) -> Iterator[Iterator[dict[str, Any]]]:
        for rows in concurrently(session, statements):
            yield (watched(row) for row in rows)

    def watched(row: dict[str, Any]) -> dict[str, Any]:
        taken.append(row)
        begun.set()
        assert cancelled.wait(PATIENCE_S)
        return row

    def noted(cancellation: Cancellation) -> bool:
        ran = cancel(cancellation)
        cancelled.set()
        return ran

    monkeypatch.setattr(CassandraSession, "concurrently", each)
    monkeypatch.setattr(Cancellation, "cancel", noted)
    query = quote("experiment = 'TAIGA' and mtime_ns > 0")  # it has no index: all nights are read
    asked = f"/api/v1/files/count?q={query}"
    client = connected(running, f"GET {asked} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert begun.wait(PATIENCE_S)
    lines = len(running.log)
    client.close()
    until(lambda: len(running.log) > lines, "the request goes on")
    assert len(taken) == 1
    monkeypatch.undo()
    assert running.json(asked) == {"count": NUMBER}


@pytest.mark.parametrize("back_end", [POSTGRES, CASSANDRA])
def test_a_restart_of_the_server_under_load_costs_time_or_a_503_and_nothing_else(
    back_end: str, new_url: Callable[[str], str], servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Clients ask while the server goes and comes back; each answer is right, or says when to ask again."""
    adql = urlencode({"LANG": "ADQL", "QUERY": "SELECT COUNT(*) AS n FROM apbatch.files", "RESPONSEFORMAT": "csv"})
    graph = json.dumps({"query": "{ files(first: 1) { totalCount } }"}).encode()
    with open_catalogue(new_url(back_end)) as catalogue:
        fill(catalogue, NUMBER)
        with serving(tmp_path_factory.mktemp("home"), catalogue) as running:
            questions: list[tuple[str, str, bytes | None, bytes]] = [
                ("GET", "/api/v1/files/count", None, b'{"count":65}'),
                ("GET", f"/api/v1/entry?path={TAIGA[1].path}", None, b'"size":11'),
                ("GET", "/api/v1/files?limit=100&columns=path&format=csv", None, TAIGA[59].path.encode()),
                ("GET", f"/tap/sync?{adql}", None, b"65"),
                ("POST", "/graphql", graph, b'"totalCount":65'),
            ]
            answers: list[tuple[int, int]] = []  # question, status
            wrong: list[object] = []
            stop = threading.Event()

            def client(number: int) -> None:
                method, path, body, content = questions[number]
                headers = {"Content-Type": "application/json"} if body else {}
                with urllib3.PoolManager(retries=False, timeout=PATIENCE_S) as pool:
                    while not stop.is_set():
                        answer = pool.request(method, running.url + path, body=body, headers=headers)
                        status = answer.status
                        if body and b'"errors"' in answer.data:
                            status = json.loads(answer.data)["errors"][0]["extensions"]["status"]
                        answers.append((number, status))
                        if status == 200 and content not in answer.data:
                            wrong.append((path, answer.data[:300]))
                        if status not in (200, 503):
                            wrong.append((path, status, answer.data[:300]))
                        if answer.status == 503 and "retry-after" not in answer.headers:
                            wrong.append((path, dict(answer.headers)))
                        if answer.status == 503 and path.startswith("/api/"):
                            assert answer.headers["content-type"] == "application/problem+json"

            def served(number: int) -> int:
                return sum(one == number and status == 200 for one, status in list(answers))

            def all_served_again() -> bool:
                before = [served(number) for number in range(len(questions))]
                until(lambda: all(served(n) > before[n] + 1 for n in range(len(questions))), "a door stays shut")
                return True

            with ThreadPoolExecutor(len(questions)) as pool:
                clients = [pool.submit(client, number) for number in range(len(questions))]
                try:
                    assert all_served_again()
                    for action in ("down", "up"):
                        done = servers.command(action, back_end)
                        assert done.returncode == 0, done.stderr
                    assert all_served_again()
                finally:
                    stop.set()
                for one in clients:
                    one.result()
            assert not wrong, wrong[:5]

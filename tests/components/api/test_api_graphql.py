"""GraphQL as a client meets it: the same answers as REST's, to those who may, and a bomb that never goes off."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from graphql import get_introspection_query

from apbatch.api.graph import paging
from apbatch.api.graph.measure import measured
from apbatch.errors import UsageError
from apbatch.index.events.backends import open_events
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.service import Running, fill, serving

#: Seconds in which a request that is refused has an answer, on a machine under load; a bomb takes hours.
REFUSED_S = 20.0


def events(experiment: str, number: int) -> pa.RecordBatch:
    rows = [
        {"experiment": experiment.upper(), "run": run, "event": event, "telescope": 1, "cleaning": "none",
         "file": f"/{experiment}/site/run{run:04d}.dat", "night": date(2017, 10, 1), "size": 10.0 * event,
         "dataset": "file:///inside"}
        for run in range(3) for event in range(number)
    ]  # fmt: skip
    return pa.RecordBatch.from_pylist(rows)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphql")


@pytest.fixture(scope="module")
def catalogue(home: Path) -> Iterator[SqliteCatalogue]:
    with SqliteCatalogue(f"sqlite:///{home}/c.sqlite") as catalogue:
        fill(catalogue)
        yield catalogue


@pytest.fixture(scope="module")
def running(catalogue: SqliteCatalogue, home: Path) -> Iterator[Running]:
    with open_events(f"file://{home}/events") as store:
        store.upsert(events("taiga", 8))
        store.upsert(events("secret", 4))
        with serving(home / "open", catalogue, store) as running:
            yield running


@pytest.fixture(scope="module")
def guarded(catalogue: SqliteCatalogue, home: Path) -> Iterator[Running]:
    rules = """
rules:
  - {name: names, who: anyone, may: metadata, below: /taiga}
  - {name: taiga, who: {users: ann}, may: data, query: "experiment = 'TAIGA'"}
"""
    with (
        open_events(f"file://{home}/events") as store,
        serving(home / "guarded", catalogue, store, auth=True, rules=rules) as running,
    ):
        yield running


def post(running: Running, content: object, **headers: str) -> tuple[int, dict[str, Any]]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    names = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    answer = running.pool.request("POST", running.url + "/graphql", body=body, headers=names)
    return answer.status, json.loads(answer.data)


def ask(running: Running, text: str, variables: dict[str, object] | None = None, **headers: str) -> dict[str, Any]:
    status, answer = post(running, {"query": text, "variables": variables}, **headers)
    assert status == 200 and "errors" not in answer, answer
    data: dict[str, Any] = answer["data"]
    return data


def refusal(running: Running, text: str, variables: dict[str, object] | None = None) -> dict[str, Any]:
    status, answer = post(running, {"query": text, "variables": variables})
    assert status == 400 and "data" not in answer, answer
    problem: dict[str, Any] = answer["errors"][0]["extensions"] if "errors" in answer else answer
    assert problem["status"] == 400 and problem["title"] == "Usage"
    return problem


FILES = """query($query: String!, $after: String, $first: Int!) { files(query: $query, after: $after, first: $first) {
    totalCount pageInfo { hasNextPage endCursor }
    nodes { path size night timeStart attributes revision replicas { kind } } } }"""


def test_pages_of_files_are_those_of_rest(running: Running) -> None:
    query = "experiment = 'TAIGA' and zenith > 2 deg order by night desc, size"
    nodes, after = [], None
    while True:
        page = ask(running, FILES, {"query": query, "after": after, "first": 30})["files"]
        nodes += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        assert page["pageInfo"]["hasNextPage"] is (after is not None)
        if after is None:
            break
    rows = running.json(f"/api/v1/files?q={quote(query)}&limit=1000")["items"]
    assert page["totalCount"] == len(rows) == len(nodes) > 100
    for node, row in zip(nodes, rows, strict=True):
        assert (node["path"], node["size"], node["night"], node["timeStart"], node["revision"]) == (
            row["path"], row["size"], row["night"], row["time_start"], row["revision"],
        )  # fmt: skip
        assert node["attributes"] == {"zenith": row["zenith"]}


CONNECTIONS = {
    "files": 'query: "experiment = \'TAIGA\' order by night desc, size limit 40"',
    "events": 'query: "order by size desc limit 17"', "attributes": "ofEvents: true", "sites": "",
}  # fmt: skip
IDS = {"files": "path", "events": "run event telescope", "attributes": "name", "sites": "name"}


@pytest.mark.parametrize("of", CONNECTIONS)
def test_every_edge_has_a_cursor_that_leads_on_from_it(running: Running, of: str) -> None:
    text = f"""query($after: String, $first: Int!) {{ {of}({CONNECTIONS[of]} first: $first, after: $after) {{
        pageInfo {{ hasNextPage endCursor }} nodes {{ {IDS[of]} }} edges {{ cursor node {{ {IDS[of]} }} }} }} }}"""
    whole = ask(running, text, {"after": None, "first": 100})[of]
    nodes = whole["nodes"]
    assert nodes == [edge["node"] for edge in whole["edges"]] and nodes
    for first in (1, 7):
        page, seen = ask(running, text, {"after": None, "first": first})[of], 0
        while page["pageInfo"]["hasNextPage"]:
            assert page["edges"][-1]["cursor"] == page["pageInfo"]["endCursor"]
            seen += len(page["nodes"])
            page = ask(running, text, {"after": page["edges"][-1]["cursor"], "first": first})[of]
            assert page["nodes"] == nodes[seen : seen + first]
            middle = len(page["edges"]) // 2
            later = ask(running, text, {"after": page["edges"][middle]["cursor"], "first": 100})[of]
            assert later["nodes"] == nodes[seen + middle + 1 :]
    assert ask(running, text, {"after": whole["edges"][-1]["cursor"], "first": 3})[of]["nodes"] == []


def test_pages_that_begin_within_each_other_lead_to_the_end(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MANY", 10)
    query = "experiment = 'TAIGA'"
    text = f"""query($after: String) {{ files(query: "{query}", first: 10, after: $after) {{
        edges {{ cursor node {{ path }} }} }} }}"""
    paths, after = [], None
    while edges := ask(running, text, {"after": after})["files"]["edges"]:
        some = edges[: max(1, len(edges) - 3)]
        paths += [edge["node"]["path"] for edge in some]
        after = some[-1]["cursor"]
    assert paths == sorted(set(paths)) and len(paths) == running.json(f"/api/v1/files/count?q={quote(query)}")["count"]


@pytest.mark.parametrize("cursor", ["2001+", "99999999999999+", "-1+", "+", "x+", "3+x", "٣+"])
def test_a_cursor_that_nobody_gave_is_refused(running: Running, cursor: str) -> None:
    status, answer = post(running, {"query": FILES, "variables": {"query": "", "after": cursor, "first": 3}})
    assert answer["errors"][0]["extensions"]["status"] == 400, (status, answer)


def test_pages_of_events_with_a_limit_hold_so_many(running: Running) -> None:
    text = """query($after: String) { events(query: "size > 5 order by size desc limit 17", first: 5, after: $after,
        columns: ["size"]) { totalCount pageInfo { endCursor } nodes { run event values file { path events } } } }"""
    nodes, after = [], None
    while True:
        page = ask(running, text, {"after": after})["events"]
        nodes += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if after is None:
            break
    assert page["totalCount"] == len(nodes) == len({(one["file"]["path"], one["event"]) for one in nodes}) == 17
    sizes = [one["values"]["size"] for one in nodes]
    assert sizes == sorted(sizes, reverse=True)
    assert all(one["values"] == {"size": 10.0 * one["event"]} and one["file"]["events"] == one["run"] for one in nodes)


def test_rest_pages_of_events_with_a_limit_hold_so_many(running: Running) -> None:
    query, rows, cursor = quote("size > 5 order by size desc limit 17"), [], ""
    while cursor is not None:
        page = running.json(f"/api/v1/events?q={query}&limit=5&cursor={quote(cursor)}" if cursor else
                            f"/api/v1/events?q={query}&limit=5")  # fmt: skip
        rows += page["items"]
        cursor = page["cursor"]
    assert len(rows) == 17


def test_edges_lead_from_sites_to_files_to_events(running: Running) -> None:
    text = """{ sites { totalCount nodes { name fileCount
        files(query: "experiment = 'TAIGA' order by run desc", first: 2) { totalCount nodes { path } } } }
        file(path: "/taiga/site/run0002.dat") { eventsRead(query: "size >= 30", first: 3) {
            totalCount pageInfo { hasNextPage } nodes { event } } } }"""
    data = ask(running, text)
    site = data["sites"]["nodes"][0]
    assert (site["name"], site["fileCount"], site["files"]["totalCount"]) == ("site", 125, 120)
    assert [one["path"] for one in site["files"]["nodes"]] == [f"/taiga/site/run0{n}.dat" for n in (119, 118)]
    assert data["file"][0]["eventsRead"] == {
        "totalCount": 5, "pageInfo": {"hasNextPage": True}, "nodes": [{"event": n} for n in (3, 4, 5)],
    }  # fmt: skip


def test_attributes_come_in_pages_with_their_units(running: Running) -> None:
    names, after = [], None
    text = """query($after: String) { attributes(first: 7, after: $after) {
        totalCount pageInfo { endCursor } nodes { name type unit } } }"""
    while True:
        page = ask(running, text, {"after": after})["attributes"]
        names += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if after is None:
            break
    listed = running.json("/api/v1/attributes")["items"]
    assert sorted(one["name"] for one in listed) == [one["name"] for one in names] and page["totalCount"] == len(names)
    assert {"name": "zenith", "type": "number", "unit": "deg"} in names


def test_the_policy_holds_in_every_edge_and_count(guarded: Running) -> None:
    """Who may see metadata below /taiga sees no other file by any way, no event, no address of a copy."""
    text = """{ all: files(query: "path like '%run0001%'") { totalCount nodes { path } }
        secret: files(query: "experiment = 'SECRET'") { totalCount nodes { path } pageInfo { endCursor } }
        sites { totalCount nodes { name fileCount files(query: "run = 1") { totalCount nodes { path } } } }
        hidden: file(path: "/secret/site/run0001.dat") { path }
        missing: file(path: "/secret/site/run9999.dat") { path }
        seen: file(path: "/taiga/site/run0001.dat") { path eventsRead { totalCount nodes { event } } }
        events { totalCount nodes { event } } }"""
    data = ask(guarded, text)
    taiga = [{"path": "/taiga/site/run0001.dat"}]
    assert data["all"] == {"totalCount": 1, "nodes": taiga}
    assert data["secret"] == {"totalCount": 0, "nodes": [], "pageInfo": {"endCursor": None}}
    assert data["sites"]["nodes"] == [
        {"name": "site", "fileCount": 120, "files": {"totalCount": 1, "nodes": taiga}}
    ] and data["sites"]["totalCount"] == 1  # fmt: skip
    assert data["hidden"] == data["missing"] == []
    assert data["seen"] == [{**taiga[0], "eventsRead": {"totalCount": 0, "nodes": []}}]
    assert data["events"] == {"totalCount": 0, "nodes": []}


def test_who_may_read_gets_events_and_no_place_inside(guarded: Running) -> None:
    bearer = f"Bearer {guarded.tokens.create('ann')}"
    data = ask(guarded, "{ events(first: 100) { totalCount nodes { experiment values } } }", Authorization=bearer)
    assert data["events"]["totalCount"] == 24 and {one["experiment"] for one in data["events"]["nodes"]} == {"TAIGA"}
    assert not any("dataset" in one["values"] for one in data["events"]["nodes"])


def test_errors_have_the_fields_of_problems(running: Running) -> None:
    status, answer = post(running, {"query": '{ files(query: "zenit < 3") { totalCount } sites { totalCount } }'})
    (error,) = answer["errors"]
    problem = json.loads(running.get("/api/v1/files?q=zenit%3C3").data)
    assert status == 200 and error["extensions"] == problem and error["path"] == ["files"]
    assert answer["data"]["files"] is None and answer["data"]["sites"] == {"totalCount": 1}


def test_what_fails_inside_is_told_by_a_number_only(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("password=secret")

    monkeypatch.setattr(running.service.catalogue, "count", fail)
    status, answer = post(running, {"query": "{ sites { totalCount } }"})
    (error,) = answer["errors"]
    assert status == 200 and error["extensions"]["status"] == 500 and "secret" not in json.dumps(answer)


BOMBS = {
    "aliases": "{ " + " ".join(f"a{n}: sites {{ totalCount }}" for n in range(31)) + " }",
    "ten thousand aliases": "{ " + " ".join(f"a{n}: sites {{ totalCount }}" for n in range(10_000)) + " }",
    "levels": "{ sites { nodes { " + "files { nodes { eventsRead { nodes { file { " * 4 + "path" + " }" * 22 + " }",
    "deep": "{ a" * 900 + " }" * 900,
    "deep values": "{ files(query: " + "[" * 900 + "]" * 900 + ") { totalCount } }",
    "inline fragments": "{ " + "... { " * 600 + "sites { totalCount }" + " }" * 601,
    "cost": "{ files(first: 1000) { nodes { eventsRead(first: 1000) { nodes { event } } } } }",
    "cost by sites": "{ sites(first: 1000) { nodes { files(first: 1000) { nodes { path } } } } }",
    "cost by default": "query($n: Int = 1000) { files(first: $n) { nodes { eventsRead { nodes { event } } } } }",
    "same field": "{ " + "sites { totalCount } " * 400 + "}",
    "cycle": "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }",
    "unused cycle": "{ sites { totalCount } } fragment a on Query { ...a }",
    "doubling fragments": "{ ...f0 } "
    + " ".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(60))
    + " fragment f60 on Query { sites { totalCount } }",
    "doubling fields": "{ sites { nodes { ...f0 } } } "
    + " ".join(f"fragment f{n} on File {{ a: eventsRead {{ nodes {{ file {{ ...f{n + 1} }} }} }} }}" for n in range(40))
    + " fragment f40 on File { path }",
    "introspection": "{ __schema { types " + "{ fields { type " * 4 + "{ name" + " } }" * 4 + " } } }",
    "directives": "{ sites " + "@skip(if: false) " * 300 + "{ totalCount } }",
    "many operations": " ".join(f"query q{n} {{ sites {{ totalCount }} }}" for n in range(400)),
    "huge text": "{ sites { totalCount } }" + " " * 50_000,
    "huge name": "{ " + "a" * 19_000 + " }",
    "mutation": "mutation { x }",
    "subscription": "subscription { x }",
    "no text": "",
    "control": "{ \0 }",
    "string": '{ files(query: "' + "\\u0000" * 10 + '") { nope } }',
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_runs(running: Running, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("it ran")

    for method in ("count", "select_records", "sources", "get_many"):
        monkeypatch.setattr(running.service.catalogue, method, fail)
    begun = time.process_time()
    refusal(running, BOMBS[name])
    assert time.process_time() - begun < REFUSED_S


def test_the_time_of_a_refusal_does_not_grow_with_what_is_asked() -> None:
    def cost(number: int) -> float:
        text = "{ " + " ".join(f"a{n}: sites {{ totalCount }}" for n in range(number)) + " }"
        begun = time.process_time()
        for _ in range(20):
            with pytest.raises(UsageError):
                measured(text, {})
        return time.process_time() - begun

    cost(500)
    assert cost(20_000) < 5 * cost(500) + 0.5


def test_what_clients_ask_of_the_schema_is_answered(running: Running) -> None:
    schema = ask(running, get_introspection_query())["__schema"]
    assert {"File", "Event", "Site", "Attribute"} <= {one["name"] for one in schema["types"]}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'[{"query": "{ sites { totalCount } }"}]', b"null", b"1", b'"x"', b'{"query": 1}', b"{}",
     b'{"query": "{ sites { totalCount } }", "variables": []}', b'{"query": "{a}", "operationName": {}}',
     b'{"query": "{ sites { totalCount } }", "variables": {"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}", b"\xff\xfe",
     b'{"query": "\\ud800"}', b'{"query": "query q { sites { totalCount } }", "operationName": "nope"}'],
    ids=["empty", "cut", "list", "batch", "null", "number", "text", "type", "nothing", "variables", "name", "deep",
         "encoding", "surrogate", "operation"],
)  # fmt: skip
def test_what_is_no_request_is_refused(running: Running, body: bytes) -> None:
    status, answer = post(running, body)
    assert status == 400 and answer["errors"][0]["extensions"]["status"] == 400


def test_requests_of_forms_and_of_other_sites_are_refused(running: Running) -> None:
    query = {"query": "{ sites { totalCount } }"}
    assert post(running, query, Content_Type="text/plain")[0] == 400
    assert post(running, query, Content_Type="application/x-www-form-urlencoded")[0] == 400
    assert post(running, query, Origin="http://evil.example")[0] == 400
    assert running.get("/graphql?query=" + quote("{sites{totalCount}}")).status == 405
    body = b"x" * 300_000
    assert post(running, body)[0] == 400


def test_a_client_of_plain_json_gets_errors_with_200(running: Running) -> None:
    status, answer = post(running, {"query": "{ nope }"}, Accept="application/json")
    assert status == 200 and answer["errors"][0]["extensions"]["where"] == "query, line 1, column 3"


@pytest.mark.parametrize("first", [0, -1, 1001, 2**31, 10**30, 1.5, "5", None, [1], True])
def test_a_wrong_number_of_nodes_is_refused(running: Running, first: object) -> None:
    text = "query($n: Int!) { files(first: $n) { nodes { path } } }"
    _, answer = post(running, {"query": text, "variables": {"n": first}})
    assert answer["errors"][0]["extensions"]["status"] == 400


@pytest.mark.parametrize("after", ["", "x", "WyI0ZjE", "\0", "é" * 300, "9~", "~", "99999999999999999999~x"])
def test_a_wrong_cursor_is_refused(running: Running, after: str) -> None:
    for field in ('files(after: $a)', 'sites(after: $a)', 'attributes(after: $a)', 'events(after: $a)',
                  'events(query: "size > 1 limit 3", after: $a)'):  # fmt: skip
        _, answer = post(
            running, {"query": f"query($a: String) {{ {field} {{ totalCount }} }}", "variables": {"a": after}}
        )
        assert answer["errors"][0]["extensions"]["status"] == 400, field

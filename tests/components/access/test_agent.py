"""The agent of a site: what it serves to whom, what it refuses, and that all refusals are alike."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from blake3 import blake3

from apbatch.access.agents.capability import Secrets, rotate_secret
from apbatch.access.agents.server import disposition
from apbatch.access.principals import ANYONE, Principal
from apbatch.access.reader import OpenFile
from apbatch.errors import AccessError, NotFoundError, UsageError
from apbatch.index.contents import BLOCK
from apbatch.index.files import State
from tests.agents import Site, served, site

DATA = random.Random(7).randbytes(2 * BLOCK + 12_345)
NAMES = ["a b.001", 'q"uote;.dat', "100%.dat", "новая.dat", "line\nbreak", "\\xff.dat", "-x", "n" * 255]


@pytest.fixture
def taiga(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("apbatch.access.policy.PERIOD_S", 0.0)
    monkeypatch.setattr("apbatch.access.agents.capability._LOOK_EVERY_S", 0.0)
    with site(tmp_path) as one:
        yield one


class Answer:
    def __init__(self, response: HTTPResponse) -> None:
        self.status, self.headers = response.status, {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str, target: str, headers: Mapping[str, str] | None = None, method: str = "GET", body: Any = None
) -> Answer:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    try:
        connection.request(method, target, None if body is None else json.dumps(body), dict(headers or {}))
        return Answer(connection.getresponse())
    finally:
        connection.close()


def locate(url: str, *paths: str) -> dict[str, Any]:
    files: dict[str, Any] = ask(url, "/locate", method="POST", body={"paths": list(paths)}).json()["files"]
    return files


def test_blocks_come_whole_verified_and_cacheable(taiga: Site) -> None:
    record, empty = taiga.add("f", DATA), taiga.add("empty", b"")
    with served(taiga.gateway()) as (url, _):
        place = locate(url, record.path, "/taiga/taiga/none", empty.path)
        assert set(place) == {record.path, empty.path}
        one = place[record.path]
        assert (one["checksum"], one["size"], one["mtime_ns"]) == (record.checksum, len(DATA), record.mtime_ns)
        answers = [ask(url, f"/b/{one['capability']}/{number}") for number in range(3)]
        assert b"".join(answer.body for answer in answers) == DATA
        for answer in answers:
            assert answer.status == 200 and answer.headers["etag"] == f'"{blake3(answer.body).hexdigest()}"'
            assert answer.headers["cache-control"].startswith("public, max-age=")
            assert answer.headers["cache-control"].endswith(", immutable")
        assert ask(url, f"/b/{place[empty.path]['capability']}/0").body == b""


def test_what_may_not_be_had_is_answered_as_what_is_not_there(taiga: Site) -> None:
    record, gone, wrong = taiga.add("f", DATA), taiga.add("gone", b"x" * 9), taiga.add("wrong", b"y" * 9)
    taiga.add("hidden", b"hidden")
    taiga.policy.write_text("rules: [{name: a, who: anyone, may: data, query: \"source != 'hidden'\"}]")
    clock = [1e9]
    with served(taiga.gateway(now=lambda: clock[0])) as (url, _):
        assert locate(url, "/taiga/taiga/hidden") == {}
        capability = locate(url, record.path)[record.path]["capability"]
        gone_at, wrong_at = (locate(url, one.path)[one.path]["capability"] for one in (gone, wrong))
        (taiga.root / "gone").unlink()
        (taiga.root / "wrong").write_bytes(b"z" * 9)
        os.utime(taiga.root / "wrong", ns=(wrong.mtime_ns, wrong.mtime_ns))
        checksum, expires, key, signature = capability.split(".")
        targets = [
            "/f/taiga/taiga/none", "/f/taiga/taiga/hidden", "/f/taiga/taiga/f/", "/f/%ff", "/f/a%00b", "/nothing",
            "/b/x", "/b/%D0%BD.1.2.3/0", f"/b/{checksum}.{expires}.{'0' * 8}.{signature}/0",
            f"/b/{capability}/3", f"/b/{capability}/-1", f"/b/{capability}/x", f"/b/{capability[:-1]}/0",
            f"/b/{'0' * 64}.{expires}.{key}.{signature}/0",
            f"/b/{checksum}.{int(expires, 16) + 1:x}.{key}.{signature}/0",
        ]  # fmt: skip
        answers = [ask(url, target) for target in targets]
        clock[0] += 3 * 86_400
        answers += [ask(url, f"/b/{capability}/0"), ask(url, f"/b/{gone_at}/0")]
        for answer in answers:
            del answer.headers["date"]
            assert (answer.status, answer.body, answer.headers) == (404, b"not found\n", answers[0].headers)
        assert answers[0].headers["cache-control"] == "no-store"
        clock[0] -= 3 * 86_400
        for held in (gone_at, wrong_at):  # a wrong byte is never delivered
            assert ask(url, f"/b/{held}/0").status in (404, 503)
        assert ask(url, f"/b/{capability}/0").status == 200


def test_a_secret_is_rotated_with_an_overlap_and_revoked(taiga: Site) -> None:
    record = taiga.add("f", b"data")
    with served(taiga.gateway()) as (url, _):
        old = locate(url, record.path)[record.path]["capability"]
        rotate_secret(taiga.secrets)
        new = locate(url, record.path)[record.path]["capability"]
        assert new != old and {ask(url, f"/b/{one}/0").status for one in (old, new)} == {200}
        rotate_secret(taiga.secrets, keep=0)
        assert {ask(url, f"/b/{one}/0").status for one in (old, new)} == {404}
        taiga.secrets.unlink()
        assert ask(url, f"/b/{new}/0").status == 404


def test_all_who_ask_in_a_period_share_a_capability(taiga: Site) -> None:
    secrets = [
        Secrets(taiga.secrets, now=lambda now=now: now) for now in (86_400.0 * 7, 86_400.0 * 8 - 1, 86_400.0 * 8)
    ]
    early, late, following = (one.capability("a" * 64) for one in secrets)
    assert early == late != following and early.expires == 86_400 * 9
    assert secrets[2].read(early.text) == early
    taiga.secrets.chmod(0o644)
    with pytest.raises(UsageError, match="others can read"):
        Secrets(taiga.secrets)
    with pytest.raises(NotFoundError):
        Secrets(taiga.secrets.with_name("none"))


@pytest.mark.parametrize(
    ("wanted", "status", "first", "end"),
    [
        ("bytes=0-9", 206, 0, 10), ("bytes=10-", 206, 10, None), ("bytes=-5", 206, -5, None),
        (f"bytes={BLOCK - 3}-{BLOCK + 3}", 206, BLOCK - 3, BLOCK + 4), ("bytes=5-999999999", 206, 5, None),
        ("bytes=999999999-", 416, 0, 0), ("bytes=0-1,5-6", 200, 0, None), ("bytes=9-3", 200, 0, None),
        ("lines=1-2", 200, 0, None), ("bytes=-", 200, 0, None), ("bytes=-0", 416, 0, 0),
    ],
    ids=str,
)  # fmt: skip
def test_ranges_are_those_of_http(taiga: Site, wanted: str, status: int, first: int, end: int | None) -> None:
    taiga.add("f", DATA)
    with served(taiga.gateway()) as (url, _):
        answer = ask(url, "/f/taiga/taiga/f", {"Range": wanted})
        assert answer.status == status
        if status == 416:
            assert answer.headers["content-range"] == f"bytes */{len(DATA)}"
            return
        assert answer.body == DATA[first:end]
        head = ask(url, "/f/taiga/taiga/f", {"Range": wanted}, "HEAD")
        assert (head.status, head.headers["content-length"]) == (status, str(len(answer.body))) and head.body == b""


def test_a_reply_is_tied_to_the_content(taiga: Site) -> None:
    record = taiga.add("f", DATA)
    listed = taiga.add("l", b"listed")
    taiga.catalogue.upsert([type(listed)(**{**_fields(listed), "state": State.LISTED, "checksum": "", "adler32": ""})])
    with served(taiga.gateway()) as (url, _):
        tag = ask(url, "/f/taiga/taiga/f").headers["etag"]
        assert tag == f'"{record.checksum}"'
        assert ask(url, "/f/taiga/taiga/f", {"If-None-Match": f'"x", {tag}'}).status == 304
        part = ask(url, "/f/taiga/taiga/f", {"Range": "bytes=0-1", "If-Range": tag})
        assert (part.status, part.body) == (206, DATA[:2])
        assert ask(url, "/f/taiga/taiga/f", {"Range": "bytes=0-1", "If-Range": '"other"'}).status == 200
        answer = ask(url, "/f/taiga/taiga/l")
        assert (answer.status, answer.body) == (200, b"listed") and answer.headers["etag"].startswith("W/")
        assert locate(url, listed.path) == {}


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_odd_names_are_served_and_break_no_header(taiga: Site, name: str) -> None:
    (taiga.root / "plain").write_bytes(b"odd")
    record = taiga.add("plain", b"odd", place=f"/odd/{name}")
    with served(taiga.gateway()) as (url, _):
        answer = ask(url, f"/f/odd/{quote(name)}")
        assert answer.body == b"odd" and record.size == 3
        value = answer.headers["content-disposition"]
        assert value == disposition(f"/odd/{name}") and "\n" not in value and value.isascii()
        assert value.endswith(f"filename*=UTF-8''{quote(name, safe='')}")
        (entry,) = ask(url, "/f/odd/").json()["entries"]
        assert entry["name"] == name


def test_the_token_decides_and_who_is_not_let_in_gets_401(taiga: Site) -> None:
    taiga.add("f", b"data")
    taiga.policy.write_text("rules: [{name: a, who: {users: ann}, may: data}]")

    def identify(headers: Mapping[str, str]) -> Principal:
        given = headers.get("authorization", "")
        if given == "Bearer wrong":
            raise AccessError("the token is not valid")
        return Principal("ann") if given == "Bearer ann" else ANYONE

    with served(taiga.gateway(), identify) as (url, _):
        assert ask(url, "/f/taiga/taiga/f").status == 404
        assert ask(url, "/f/taiga/taiga/f", {"Authorization": "Bearer ann"}).body == b"data"
        refused = ask(url, "/f/taiga/taiga/f", {"Authorization": "Bearer wrong"})
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert ask(url, "/changes").json()["changes"] == []
        changes = ask(url, "/changes", {"Authorization": "Bearer ann"}).json()["changes"]
        assert [change["key"] for change in changes] == ["/taiga/taiga/f"]
        for body in ({"paths": 3}, {"paths": [1]}, [], {"paths": ["x"] * 1001}):
            assert ask(url, "/locate", method="POST", body=body).status == 400


def test_the_feed_goes_on_where_a_follower_was_cut_off(taiga: Site) -> None:
    taiga.add("a", b"a")
    with served(taiga.gateway()) as (url, server):
        lines = follow(url, 0)
        first = next(lines)
        assert (first["event"], json.loads(first["data"])["key"]) == ("new", "/taiga/taiga/a")
        position = next(lines)
        assert position["event"] == "position"
        taiga.add("b", b"b")
        assert json.loads(next(lines)["data"])["key"] == "/taiga/taiga/b"
        again = follow(url, int(position["id"]))
        assert json.loads(next(again)["data"])["key"] == "/taiga/taiga/b"
        assert ask(url, "/readyz").json()["status"] == "ok"
        server.draining.set()  # streams end, new ones are refused
        assert [one for one in lines if one.get("event") not in (None, "position")] == []
        assert ask(url, "/feed").status == ask(url, "/readyz").status == 503


def test_a_feed_ends_with_the_token_that_opened_it(taiga: Site) -> None:
    taiga.add("a", b"a")
    taiga.policy.write_text("rules: [{name: a, who: {users: ann}, may: data}]")
    revoked = threading.Event()

    def identify(headers: Mapping[str, str]) -> Principal:
        if revoked.is_set():
            raise AccessError("the token is not valid")
        return Principal("ann")

    with served(taiga.gateway(), identify) as (url, _):
        lines = follow(url, 0, {"Authorization": "Bearer ann"})
        assert json.loads(next(lines)["data"])["key"] == "/taiga/taiga/a"
        revoked.set()
        taiga.add("b", b"b")
        assert not any("/taiga/taiga/b" in one["data"] for one in lines)


def follow(url: str, since: int, headers: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    resumption = {"Last-Event-ID": str(since)} if since else {}
    connection.request("GET", "/feed", headers={**resumption, **(headers or {})})
    response = connection.getresponse()
    assert response.status == 200
    event: dict[str, str] = {}
    for line in response:
        text = line.decode().rstrip("\n")
        if text and not text.startswith(":"):
            name, _, value = text.partition(": ")
            event[name] = value
        elif not text and "data" in event:
            yield event
            event = {}
    connection.close()


def test_many_clients_at_once_get_what_they_ask_for(taiga: Site) -> None:
    record = taiga.add("f", DATA)
    with served(taiga.gateway()) as (url, server):
        capability = locate(url, record.path)[record.path]["capability"]
        bad: list[object] = []

        def client(number: int) -> None:
            for turn in range(3):
                block = (number + turn) % 3
                answer = ask(url, f"/b/{capability}/{block}")
                if answer.body != DATA[block * BLOCK : (block + 1) * BLOCK]:
                    bad.append((answer.status, number, turn))

        threads = [threading.Thread(target=client, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bad == [] and server.counts["blocks"] == 192
        metrics = ask(url, "/metrics").body.decode()
        assert "apbatch_blocks_total 192.0" in metrics
        assert 'apbatch_requests_total{method="GET",route="/b",status="200"} 192.0' in metrics


def before_the_first_read(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have something happen once, between a request's look for its content and its first byte of it."""
    read, due = OpenFile.read, [happens]

    def delayed(file: OpenFile, offset: int, length: int) -> bytes:
        if due:
            due.pop()()
        return read(file, offset, length)

    monkeypatch.setattr(OpenFile, "read", delayed)


@pytest.mark.parametrize("other", ["a guess", "an expired capability", "no such block", "another content"])
def test_no_request_closes_what_another_reads(taiga: Site, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    monkeypatch.setattr("apbatch.access.agents.gateway._OPEN_CONTENTS", 1)
    record, second = taiga.add("f", DATA), taiga.add("second", b"another")
    gateway = taiga.gateway()
    with served(gateway) as (url, _):
        capability = locate(url, record.path)[record.path]["capability"]
        elsewhere = locate(url, second.path)[second.path]["capability"]
        old = Secrets(taiga.secrets, now=lambda: 1e9).capability(record.checksum).text
        target, status = {
            "a guess": (f"/b/{capability[:-43]}{'A' * 43}/0", 404),
            "an expired capability": (f"/b/{old}/0", 404),
            "no such block": (f"/b/{capability}/3", 404),
            "another content": (f"/b/{elsewhere}/0", 200),
        }[other]
        answers: list[Answer] = []
        before_the_first_read(monkeypatch, lambda: answers.append(ask(url, target)))
        answer = ask(url, f"/b/{capability}/0")
        assert (answer.status, answer.body) == (200, DATA[:BLOCK]) and [one.status for one in answers] == [status]
        assert gateway._reader.breakers._rests == {}


def test_a_content_whose_block_was_damaged_is_looked_for_anew(taiga: Site) -> None:
    record = taiga.add("f", DATA)
    path = taiga.root / "f"
    times = path.stat()
    path.write_bytes(DATA[:BLOCK] + bytes(BLOCK) + DATA[2 * BLOCK :])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with served(taiga.gateway()) as (url, _):
        capability = locate(url, record.path)[record.path]["capability"]
        damaged = ask(url, f"/b/{capability}/1")
        assert (damaged.status, damaged.headers["apbatch-concerns"]) == (503, "file")
        assert ask(url, f"/b/{capability}/0").body == DATA[:BLOCK]

"""Never a 500: thousands of requests that nobody should send, each answered, refused, and telling nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from apbatch.access.policy import Policy
from apbatch.api.app import build
from apbatch.api.identity import Identity
from apbatch.api.service import Service
from apbatch.api.tokens import TokenFile
from apbatch.config import ServiceSettings
from apbatch.index.events.backends import open_events
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.fuzzing import Answer, Call, answered, calls
from tests.service import fill

#: How many; docs/contributing.md says how to ask for more.
NUMBER, SEED = int(os.environ.get("APBATCH_FUZZ_CALLS", "2000")), int(os.environ.get("APBATCH_FUZZ_SEED", "21"))
RULES = """
rules:
  - {name: names, who: anyone, may: metadata, below: /taiga}
  - {name: ann, who: {users: ann}, may: data, query: "experiment = 'TAIGA'"}
  - {name: all, who: {users: eve}, may: data}
"""
_HEADER = re.compile(rb"[\x20-\x7e\x80-\xff]*")


def check(call: Call, answer: Answer, home: Path) -> None:
    """See that an answer is whole, refuses by a problem, and tells nothing of the inside."""
    assert 200 <= answer.status < 500, answer.body[:500]
    assert all(_HEADER.fullmatch(value) for _, value in answer.headers), answer.headers
    assert not any(name == b"x-injected" for name, _ in answer.headers)
    headers = dict(answer.headers)
    if answer.status >= 400 and call.method != "HEAD":
        problem = json.loads(answer.body)
        problem = problem["errors"][0]["extensions"] if "errors" in problem else problem
        assert problem["status"] == answer.status and problem["detail"]
    elif b"json" in headers.get(b"content-type", b"") and b"ndjson" not in headers[b"content-type"] and answer.body:
        content = json.loads(answer.body)
        for error in content.get("errors", ()):
            assert error["extensions"]["status"] < 500, error
    for inside in (b"Traceback", b"sqlite3", b"root:x:0", str(home).encode(), b"duckdb"):
        assert inside not in answer.body, inside
    if b"authorization" not in call.headers and call.path not in (b"/graphql", b"/api/v1/openapi.json"):
        assert answer.status >= 400 or b"/secret/site/run0003" not in answer.body


def test_no_request_ends_in_a_500(tmp_path: Path) -> None:
    rows = [
        {"experiment": name, "run": run, "event": event, "telescope": 1, "cleaning": "none", "night": date(2017, 10, 1),
         "file": f"/{name.lower()}/site/run{run:04d}.dat", "size": 10.0 * event, "width": event / 7}
        for name in ("TAIGA", "SECRET") for run in range(3) for event in range(5)
    ]  # fmt: skip
    statuses: Counter[str] = Counter()
    with SqliteCatalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue, open_events(f"file://{tmp_path}/e") as events:
        fill(catalogue, 60)
        events.upsert(pa.RecordBatch.from_pylist(rows))
        tokens = TokenFile(tmp_path / "tokens.json")
        given = (tokens.create("ann"), tokens.create("eve", roles=("operator",)))
        settings = ServiceSettings(requests_per_second=0, names=["localhost", "127.0.0.1"])
        policy = Policy(lambda: (RULES, Path("policy.yaml")), catalogue)
        service = Service(catalogue, events, policy, Identity(tokens), tmp_path, settings)
        app = build(service, lambda line: json.loads(line) and None)

        async def run() -> None:
            ask = Call("GET", b"/api/v1/openapi.json", headers={b"host": b"localhost"})
            document: dict[str, Any] = json.loads((await answered(app, ask)).body)
            for call, cursors in calls(SEED, NUMBER, document, given):
                answer = await answered(app, call)
                try:
                    check(call, answer, tmp_path)
                except Exception as error:
                    failures.append((call, repr(error)[:600]))
                statuses[f"{call.method} {answer.status}"] += 1
                if answer.status == 200 and (cursor := re.search(rb'(?:cursor|endCursor)":"([^"]+)"', answer.body)):
                    cursors.append(cursor[1].decode())

        failures: list[tuple[Call, str]] = []
        asyncio.run(run())
    print(statuses)
    assert not failures, f"{len(failures)} of {NUMBER}: " + "\n".join(map(str, failures[:10]))
    assert statuses["GET 200"] > NUMBER / 10  # many come through, so that what is behind is reached

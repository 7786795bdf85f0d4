"""Requests that nobody should send: made from the OpenAPI document and the schema of GraphQL, each from its number."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_from_bytes

from graphql import GraphQLObjectType, get_named_type
from starlette.types import ASGIApp, Message

from apbatch.api.graph.schema import SCHEMA

#: Pieces of a streamed body after which a client goes away.
_PIECES = 20
# fmt: off
HOSTILE = (
    "", "\x00", "\r\nX-Injected: 1", "../../../../etc/passwd", "/../../etc/passwd", "..\\..\\etc", "%2e%2e%2f",
    "//", "/", "/taiga/../secret", "file:///etc/passwd", "'", '"', "' or 1=1 --", "; drop table file; --",
    "\u202e", "\ud800", "é" * 500, "x" * 9000, "-1", "0", "1", "1e400", "NaN", "inf", "99999999999999999999999",
    "9223372036854775807", "-9223372036854775808", "9223372036854775808", "2147483648", "true", "null", "[]",
    "{}", "%", "%s", "{0}", "${jndi:x}", "=cmd()", "@x", "٣", "１", "0000-00-00", "9999-12-31", "0001-01-01",
    "2017-10-28", "2017-13-01", "*", "json", "csv", "arrow", "parquet", "ndjson", "/taiga",
    "/taiga/site/run0001.dat", "/secret/site/run0001.dat", 'W/"x"', "a\tb", "a\nb", "\x7f", "ﬀ", "İ", "🜚",
)
# fmt: on
NAMES = tuple(
    """
    path place site source size mtime_ns checksum format experiment state reason run night time_start telescope
    events revision zenith event cleaning time nanoseconds dataset file width nope SIZE order limit cone
    """.split()  # noqa: SIM905
)
# fmt: off
VALUES = (
    "1", "0", "-1", "1.5", "1e308", "1e999", "-0.0", "9223372036854775807", "9223372036854775808", "1" * 400,
    "'TAIGA'", "'x'", "''", "'%'", "'_%\\'", "'\\'", "'" + "%" * 999 + "'", "2017-10-01", "0001-01-01",
    "9999-12-31", "2017-02-30", "2017-10-01T20:00", "2017-10-01T20:00:00+14:00", "0001-01-01T00:00+23:59",
    "9999-12-31T23:59:59-23:59", "true", "false", "3 deg", "3 rad", "2 TB", "1e300 TB", "5 nope", "null",
    "'registered'", "'nowhere'", '"q"', "1e-400 deg", "'İ'", "'a' 'b'", "5 m/s", "5 deg^99999999",
)
# fmt: on
_HEADERS = {
    "accept": (
        "*/*",
        "text/csv",
        "application/json;q=0",
        "text/event-stream",
        "image/png",
        "*/*;q=x",
        ";;;,,,",
        "text/*",
        "application/vnd.apache.arrow.stream",
        "application/x-ndjson",
        "application/graphql-response+json",
    ),
    "if-none-match": ("*", '"x"', 'W/"', ",,,"),
    "if-range": ('"x"', "Sat, 28 Nov 2026 12:00:00 GMT"),
    "range": (
        "bytes=0-",
        "bytes=-1",
        "bytes=5-2",
        "bytes=0-0,2-3",
        "bytes=" + "9" * 30 + "-",
        "bytes=a-b",
        "lines=1-2",
        "bytes=-0",
        "bytes=٣-",
        "bytes",
    ),
    "last-event-id": ("1", "-1", "x", "9" * 30, "٣"),
    "origin": ("http://evil.example", "null", "http://localhost", "//", "http://["),
    "sec-fetch-site": ("cross-site", "same-origin", "x"),
    "cookie": ("apbatch_token=x", "apbatch_token=", ";;;=", 'a="\\', "apbatch_token=" + "x" * 9000),
    "content-type": ("application/json", "text/plain", "", "application/json; charset=utf-16", ";"),
    "content-length": ("5", "-1", "x"),
    "x-forwarded-for": ("127.0.0.1",),
}


@dataclass
class Call:
    """One request, as ASGI gives it to an application."""

    method: str
    path: bytes
    query: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Answer:
    """What an application sent."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


async def answered(app: ASGIApp, call: Call) -> Answer:
    """Return the answer; after so many pieces of a stream the client goes away."""
    answer, pieces, gone, sent = Answer(), 0, asyncio.Event(), False

    async def receive() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": call.body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal pieces
        if message["type"] == "http.response.start":
            answer.status, answer.headers = message["status"], list(message.get("headers", ()))
        else:
            pieces += 1
            answer.body += message.get("body", b"")
            stream = (b"content-type", b"text/event-stream; charset=utf-8") in answer.headers
            if pieces >= _PIECES or stream or not message.get("more_body"):
                gone.set()

    path = call.path.decode("latin-1") if b"%" not in call.path else _unquoted(call.path)
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": call.method,
        "scheme": "http", "path": path, "raw_path": call.path, "query_string": call.query, "root_path": "",
        "headers": [(name.lower(), value) for name, value in call.headers.items()], "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    return answer


def _unquoted(path: bytes) -> str:
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(path).decode("utf-8", "replace")


#: Values that attributes of a kind may have.
_GOOD = {
    ("size", "run", "events", "revision", "telescope", "event"): (*VALUES[:3], "9223372036854775807", "1.5"),
    ("zenith", "width"): (*VALUES[:5], "3 deg", "-0.0", "1e-400 deg"),
    ("path", "place", "site", "format", "experiment", "cleaning", "file"): VALUES[10:17],
    ("night",): VALUES[17:20],
    ("time_start", "time"): VALUES[21:25] + VALUES[17:20],
}


def condition(draw: random.Random, depth: int = 0) -> str:
    """Return something like a query."""
    kind = draw.randrange(12 if depth < 4 else 9)
    name, value = draw.choice(NAMES), draw.choice(VALUES)
    if draw.random() < 0.7:
        names = draw.choice(list(_GOOD))
        name, value = draw.choice(names), draw.choice(_GOOD[names])
    if kind < 4:
        return f"{name} {draw.choice(('=', '<', '>=', '!=', '<>', '=='))} {value}"
    if kind == 4:
        return f"{name} {draw.choice(('', 'not '))}like {value}"
    if kind == 5:
        return f"{name} in ({', '.join(draw.choices(VALUES, k=draw.randrange(1, 5)))})"
    if kind == 6:
        return f"{name} between {value} and {draw.choice(VALUES)}"
    if kind == 7:
        return f"{name} is {draw.choice(('', 'not '))}null"
    if kind == 8:
        return f"cone({draw.choice(VALUES)}, {value}, {draw.choice(VALUES)})"
    if kind == 9:
        return f"not ({condition(draw, depth + 1)})"
    return f"({condition(draw, depth + 1)} {draw.choice(('and', 'or'))} {condition(draw, depth + 1)})"


def query(draw: random.Random) -> str:
    """Return something like a query with order and limit; sometimes damaged."""
    text = condition(draw)
    if draw.random() < 0.3:
        text += f" order by {draw.choice(NAMES)} {draw.choice(('', 'desc'))}, {draw.choice(NAMES)}"
    if draw.random() < 0.2:
        text += f" limit {draw.choice(VALUES)}"
    if draw.random() < 0.2:
        place = draw.randrange(len(text) + 1)
        text = text[:place] + draw.choice(HOSTILE) + text[place + draw.randrange(3) :]
    return text


def value(draw: random.Random, parameter: dict[str, Any], cursors: list[str]) -> str:
    """Return a value of a parameter: a good one, or none."""
    name = parameter["name"]
    if name == "q" and draw.random() < 0.85:
        return query(draw)
    if name == "cursor" and cursors and draw.random() < 0.7:
        text = draw.choice(cursors)
        place = draw.randrange(len(text))
        return text if draw.random() < 0.5 else text[:place] + draw.choice("Aa0_~-") + text[place + 1 :]
    if name in ("attribute", "by", "columns") and draw.random() < 0.7:
        return ",".join(draw.choices(NAMES, k=1 if name != "columns" else draw.randrange(1, 4)))
    if name == "format" and draw.random() < 0.7:
        return draw.choice(("json", "ndjson", "csv", "arrow", "parquet"))
    if parameter.get("schema", {}).get("type") == "integer" and draw.random() < 0.6:
        return str(draw.choice((0, 1, 2, 7, 100)))
    return draw.choice(HOSTILE)


def _encoded(text: str) -> str:
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe="")


def rest_call(draw: random.Random, document: dict[str, Any], cursors: list[str]) -> Call:
    """Return a request of REST."""
    path = draw.choice(sorted(document["paths"]))
    operations = document["paths"][path]
    method = draw.choice(sorted(operations))
    pairs = []
    for parameter in operations[method].get("parameters", ()):
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", _encoded(draw.choice(HOSTILE)))
        elif parameter["in"] == "query" and (parameter.get("required") or draw.random() < 0.5):
            for _ in range(1 if draw.random() < 0.97 else 2):
                pairs.append(f"{quote(parameter['name'])}={_encoded(value(draw, parameter, cursors))}")
    if draw.random() < 0.05:
        pairs.append(draw.choice(("=", "&&&", "a", "%", "%ff=%fe", "q[]=1")))
    if draw.random() < 0.05:
        method = draw.choice(("head", "post", "put", "delete", "options", "patch", "TRACE", "x"))
    return Call(method.upper(), path.encode(), "&".join(pairs).encode(), body=b"" if method == "get" else b"{}")


def graph_call(draw: random.Random, cursors: list[str]) -> Call:
    """Return a request of GraphQL."""

    def given(name: str) -> str:
        if draw.random() < 0.1:
            return draw.choice(("1", "true", "[]", "null", "{}", "x", "1e999", json.dumps(draw.choice(HOSTILE))))
        texts = {"query": query(draw), "after": draw.choice(cursors or [""]), "path": draw.choice(HOSTILE),
                 "columns": draw.choice(NAMES)}  # fmt: skip
        if name in texts:
            return json.dumps([texts[name]] if name == "columns" else texts[name])
        return draw.choice(("1", "5", "50")) if name == "first" else "true"

    def selection(of: Any, depth: int) -> str:
        parts = []
        for name in draw.sample(sorted(of.fields), k=draw.randrange(1, min(5, len(of.fields) + 1))):
            names = [one for one in of.fields[name].args if draw.random() < 0.4 or one == "path"]
            arguments = ", ".join(f"{one}: {given(one)}" for one in names)
            inner = get_named_type(of.fields[name].type)
            below = selection(inner, depth + 1) if isinstance(inner, GraphQLObjectType) and depth < 8 else ""
            parts.append(name + (f"({arguments})" if arguments else "") + below)
        if draw.random() < 0.05:
            parts.append(draw.choice(("nope", "__typename", "...x", "a: __typename", "... { __typename }", "__schema")))
        return " { " + " ".join(parts) + " }"

    document = selection(SCHEMA._schema.query_type, 0).strip()
    if draw.random() < 0.1:
        place = draw.randrange(len(document))
        document = (
            document[:place]
            + draw.choice(("{", "}", "(", "...", "$x", "\0", '"', "@skip", "\ud800", "é"))
            + document[place:]
        )
    content: Any = {"query": document}
    if draw.random() < 0.2:
        content["variables"] = draw.choice((None, {}, [], {"x": draw.choice(HOSTILE)}, "x", {"x": 10**40}))
    if draw.random() < 0.1:
        content["operationName"] = draw.choice((None, "", "x", 1))
    body = json.dumps([content] if draw.random() < 0.03 else content).encode()
    if draw.random() < 0.05:
        body = body[: draw.randrange(len(body))]
    return Call("POST", b"/graphql", b"", {b"content-type": b"application/json"}, body)


def calls(
    seed: int, number: int, document: dict[str, Any], tokens: tuple[str, ...]
) -> Iterator[tuple[Call, list[str]]]:
    """Yield requests; the list takes cursors of answers, for later ones to use.

    Parameters
    ----------
    seed, number : int
    document : dict
        The OpenAPI document.
    tokens : tuple of str
        Good ones.
    """
    cursors: list[str] = []
    for n in range(number):
        draw = random.Random(f"{seed} {n}")
        call = graph_call(draw, cursors) if draw.random() < 0.25 else rest_call(draw, document, cursors)
        call.headers[b"host"] = draw.choice((b"127.0.0.1", b"localhost")) if draw.random() < 0.98 else b"evil[.example"
        if draw.random() < 0.5:
            token = draw.choice(tokens) if draw.random() < 0.9 else draw.choice(("apb_", "x.y.z", "", "é"))
            call.headers[b"authorization"] = f"Bearer {token}".encode()
        for name in draw.sample(sorted(_HEADERS), k=draw.choice((0, 0, 1, 2))):
            call.headers[name.encode()] = draw.choice(_HEADERS[name]).encode("utf-8", "surrogatepass")
        yield call, cursors
        del cursors[:-50]

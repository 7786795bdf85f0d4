"""The HTTP server of an agent or a gateway: read-only, every refusal alike, nothing kept (``docs/agent.md``)."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import anyio
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from apbatch.access.agents.gateway import MOST_PATHS, Gateway
from apbatch.access.guard import Guard
from apbatch.access.principals import ANYONE, Principal
from apbatch.access.reader import OpenFile
from apbatch.access.serving.operations import Counts, Operations
from apbatch.access.serving.ranges import requested_range
from apbatch.errors import (
    AccessError,
    ApbatchError,
    FileUnavailableError,
    NotFoundError,
    UsageError,
    VerificationError,
)
from apbatch.index.catalogue import PAGE
from apbatch.index.changes import Change, StaleReaderError
from apbatch.index.contents import BLOCK
from apbatch.index.files import State
from apbatch.ingest.remote.wire import CONCERNS, ITS_FILE, attribute_to_json, change_to_json, sse_event, weak_tag

#: Says who sends a request, from its headers; raises `AccessError` for a token that is not valid.
Identify = Callable[[Mapping[str, str]], Principal]

#: Blocks that are read at the same time, each 2 MiB in memory; others wait.
_READERS = 32
#: Followers of the feed at the same time; how often each looks, and when a silent connection gets a sign of life, s.
_FOLLOWERS, _PERIOD_S, _SILENCE_S = 200, 0.5, 15.0
_LARGEST_BODY = 8 << 20
_BLOCK_NUMBER = re.compile(r"[0-9]{1,9}")
_ROUTES = ("/locate", "/changes", "/feed", "/b", "/f")
_COUNTED = {
    "refusals": "Answers that something is not there or may not be had.",
    "failures": "Data that could not be had.",
    "blocks": "Blocks that were sent.",
    "block_bytes": "Bytes of blocks.",
    "file_bytes": "Bytes of files by path.",
}
_SAFE = {"x-content-type-options": "nosniff"}


def nobody(headers: Mapping[str, str]) -> Principal:
    """Take every request for one without a token."""
    return ANYONE


class Server:
    """The application, and what it counts.

    Parameters
    ----------
    gateway : Gateway
    identify : callable
    """

    def __init__(self, gateway: Gateway, identify: Identify = nobody) -> None:
        self._gateway, self._identify = gateway, identify
        self._readers = CapacityLimiter(_READERS)
        self._followers = threading.Semaphore(_FOLLOWERS)
        self.counts = {"refusals": 0, "failures": 0, "blocks": 0, "block_bytes": 0, "file_bytes": 0}
        routes = [
            Route("/", self._about, methods=["GET"]),
            Route("/locate", self._locate, methods=["POST"]),
            Route("/changes", self._changes, methods=["GET"]),
            Route("/feed", self._feed, methods=["GET"]),
            Route("/b/{capability}/{number}", self._block, methods=["GET"]),
            Route("/f/{path:path}", self._file, methods=["GET"]),
        ]
        self._routed = Starlette(
            routes=routes, exception_handlers={ApbatchError: self._refuse, 404: _no_route, 405: _no_route}
        )
        self.operations = Operations(self._serve, self._ready, _ROUTES)
        self.operations.registry.register(Counts(self.counts, _COUNTED))
        #: Set when the server is about to end: streams close, new ones are refused.
        self.draining = self.operations.draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self.operations(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/f/"):
            scope = {**scope, "path": "/f/-"}  # routes know no line ends; `_path_of` reads the path as it was sent
        await self._routed(scope, receive, send)

    # what is served

    async def _about(self, request: Request) -> Response:
        guard = await self._guard(request)
        attributes = await run_sync(guard.attributes)
        return JSONResponse(
            {
                "site": self._gateway.site,
                "block": BLOCK,
                "revision": await run_sync(guard.revision),
                "attributes": [attribute_to_json(one) for one in attributes.values()],
            },
            headers=_private(),
        )

    async def _locate(self, request: Request) -> Response:
        guard = await self._guard(request)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST_BODY:
                raise UsageError("the request is too large", remedy=f"at most {MOST_PATHS} paths")
        try:
            paths = json.loads(bytes(body))["paths"]
            if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UsageError('a body such as {"paths": ["/experiment/site/file"]} is wanted') from None
        if len(paths) > MOST_PATHS:
            raise UsageError(f"{len(paths)} paths", remedy=f"at most {MOST_PATHS} in one request")
        files = await run_sync(self._gateway.locate, guard, paths)
        return JSONResponse({"files": files}, headers={**_SAFE, "cache-control": "no-store"})

    async def _block(self, request: Request) -> Response:
        text, number = request.path_params["capability"], request.path_params["number"]
        if not _BLOCK_NUMBER.fullmatch(number):
            raise NotFoundError("not found")
        read = partial(self._gateway.block, text, int(number))
        data, digest, seconds = await run_sync(read, limiter=self._readers)
        self.counts["blocks"] += 1
        self.counts["block_bytes"] += len(data)
        headers = {
            **_SAFE,
            "etag": f'"{digest}"',
            "cache-control": f"public, max-age={seconds}, immutable",
            "content-type": "application/octet-stream",
        }
        return Response(data, headers=headers)

    async def _file(self, request: Request) -> Response:
        guard = await self._guard(request)
        path = _path_of(request)
        if path.endswith("/") or path == "":
            return await self._folder(guard, path, request.query_params.get("cursor"))
        file = await run_sync(self._gateway.open, guard, path)
        try:
            return await self._file_response(request, file)
        except BaseException:
            file.close()
            raise

    async def _file_response(self, request: Request, file: OpenFile) -> Response:
        record = file.record
        verified = record.state is not State.LISTED and bool(record.checksum)
        tag = f'"{record.checksum}"' if verified else weak_tag(record)
        headers = {
            **_private(),
            "etag": tag,
            "accept-ranges": "bytes",
            "content-disposition": disposition(file.path),
            "content-type": "application/octet-stream",
            "vary": "Authorization",
        }
        if tag in [one.strip() for one in request.headers.get("if-none-match", "").split(",")]:
            file.close()
            return Response(status_code=304, headers=headers)
        status, first, end = requested_range(request.headers, tag, file.size)
        if status == 416:
            file.close()
            return Response(status_code=416, headers={**headers, "content-range": f"bytes */{file.size}"})
        if status == 206:
            headers["content-range"] = f"bytes {first}-{end - 1}/{file.size}"
        headers["content-length"] = str(end - first)
        if request.method == "HEAD":
            file.close()
            return Response(status_code=status, headers=headers)
        # The first piece is read here, so that a source that fails is a refusal, not a reply that breaks off.
        piece = await self._piece(file, first, end)
        return StreamingResponse(self._rest(file, piece, first, end), status, headers)

    async def _rest(self, file: OpenFile, piece: bytes, first: int, end: int) -> AsyncIterator[bytes]:
        try:
            while True:
                first += len(piece)
                self.counts["file_bytes"] += len(piece)
                yield piece
                if first >= end:
                    return
                piece = await self._piece(file, first, end)
        finally:
            file.close()

    async def _piece(self, file: OpenFile, first: int, end: int) -> bytes:
        stop = min(end, (first // BLOCK + 1) * BLOCK)
        return await run_sync(file.read, first, stop - first, limiter=self._readers) if stop > first else b""

    async def _folder(self, guard: Guard, path: str, cursor: str | None) -> Response:
        entry = await run_sync(guard.entry, path)
        if entry is None or entry.kind != "folder":
            raise NotFoundError("not found")
        page = await run_sync(guard.entries, path, cursor)
        entries = [
            {"name": one.name, "kind": one.kind, "size": one.size, "mtime_ns": one.mtime_ns, "state": one.state,
             "checksum": one.checksum} for one in page.entries
        ]  # fmt: skip
        return JSONResponse({"entries": entries, "cursor": page.cursor}, headers=_private())

    # the feed

    async def _changes(self, request: Request) -> Response:
        if "text/event-stream" in request.headers.get("accept", ""):
            return await self._feed(request)
        guard = await self._guard(request)
        since, limit = _number(request, "since", 0), _number(request, "limit", PAGE)
        from_start = since == 0 or _number(request, "from_start", 0) == 1
        limit = max(1, min(limit, 10_000))
        changes, last = await run_sync(lambda: guard.changes_read(since, limit, from_start=from_start))
        content = {"changes": [change_to_json(change) for change in changes], "revision": last}
        return JSONResponse(content, headers=_private())

    async def _feed(self, request: Request) -> Response:
        guard = await self._guard(request)
        last_event_id = request.headers.get("last-event-id")
        since = _whole(last_event_id, "Last-Event-ID") if last_event_id else _number(request, "since", 0)
        from_start = not last_event_id and (since == 0 or _number(request, "from_start", 0) == 1)
        if self.draining.is_set() or not self._followers.acquire(blocking=False):
            return Response(status_code=503, headers={**_private(), "retry-after": "5"})
        try:
            # Read here, so that a reader who was away for too long gets a refusal, not a stream that breaks off.
            first = await run_sync(lambda: guard.changes_read(since, PAGE, from_start=from_start))
        except BaseException:
            self._followers.release()
            raise

        def read_on(place: int) -> tuple[list[Change], int]:
            if self._identify(request.headers) != guard.who:
                raise AccessError("the token is another's by now")
            return guard.changes_read(place, PAGE, from_start=from_start)

        stream = self._stream(read_on, first, since)
        return StreamingResponse(stream, 200, {**_private(), "x-accel-buffering": "no"}, "text/event-stream")

    async def _stream(
        self, read_on: Callable[[int], tuple[list[Change], int]], first: tuple[list[Change], int], since: int
    ) -> AsyncIterator[bytes]:
        (changes, last), silence = first, 0.0
        try:
            yield b"retry: 2000\n\n"
            while not self.draining.is_set():
                if last != since:
                    # The position goes along where the last changes are hidden, so that they are not read again.
                    yield b"".join(map(sse_event, changes)) + f"id: {last}\nevent: position\ndata: {last}\n\n".encode()
                    since, silence = last, 0.0
                else:
                    await anyio.sleep(_PERIOD_S)
                    silence += _PERIOD_S
                    if silence >= _SILENCE_S:
                        yield b": still here\n\n"
                        silence = 0.0
                changes, last = await run_sync(read_on, since)
        except ApbatchError:
            return  # who follows asks again, and is then told
        finally:
            self._followers.release()

    # operations

    def _ready(self) -> tuple[str | None, dict[str, Any]]:
        revision, fault = self._gateway.catalogue.revision(), self._gateway.policy.fault
        facts: dict[str, Any] = {"revision": revision}
        if fault is not None:
            facts["policy"] = "the newest is wrong: an older one is in force"
        return None, facts

    async def _guard(self, request: Request) -> Guard:
        return self._gateway.guard(await run_sync(self._identify, request.headers))

    async def _refuse(self, request: Request, error: Exception) -> Response:
        """Answer an error: what is not there, not allowed, expired or guessed is one and the same."""
        if isinstance(error, NotFoundError):
            self.counts["refusals"] += 1
            return _refusal(404, "not found")
        if isinstance(error, StaleReaderError):
            return _refusal(410, f"{error.what}; {error.remedy}")
        if isinstance(error, UsageError):
            status = 401 if isinstance(error, AccessError) else 400
            return _refusal(status, error.what, {"www-authenticate": "Bearer"} if status == 401 else {})
        self.counts["failures"] += 1
        of_file = isinstance(error, FileUnavailableError | VerificationError)
        more = {CONCERNS: ITS_FILE} if of_file else {}
        return _refusal(503, "the data can't be had now", {"retry-after": "5", **more})


def disposition(path: str) -> str:
    """Return a Content-Disposition that saves any name under itself; none can break the header (RFC 6266)."""
    name = path.rpartition("/")[2]
    plain = "".join(char if " " <= char <= "~" and char not in '"\\%;' else "_" for char in name) or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _refusal(status: int, text: str, more: Mapping[str, str] | None = None) -> Response:
    headers = {**_SAFE, "cache-control": "no-store", **(more or {})}
    return Response(f"{text}\n", status, headers, "text/plain; charset=utf-8")


async def _no_route(request: Request, error: Exception) -> Response:
    return _refusal(404, "not found")


def _private() -> dict[str, str]:
    return {**_SAFE, "cache-control": "private, no-cache"}


def _path_of(request: Request) -> str:
    """Return the path in the merged tree that a request names, by its bytes."""
    raw: bytes = request.scope["raw_path"]
    encoded = raw.split(b"?", 1)[0].removeprefix(b"/f")
    try:
        path = unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        raise NotFoundError("not found") from None
    if "\0" in path:
        raise NotFoundError("not found")
    return path


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    return default if text is None else _whole(text, name)


def _whole(text: str, where: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) >= math.ldexp(1, 62):
        raise UsageError("a whole number is wanted", where=where)
    return int(text)

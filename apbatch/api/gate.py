"""The gate: what holds for every request before anything else sees it, and for every answer.

Host and origin are checked, who asks is told, requests are counted, answers get the headers that keep browsers safe,
and one line without secrets goes to the log.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote_to_bytes, urlencode, urlsplit

from anyio.to_thread import run_sync
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apbatch.api.identity import Asker, Identity, cookies_of
from apbatch.api.limits import RateLimit, until_step_s
from apbatch.api.problems import problem_response
from apbatch.errors import AccessError, ApbatchError, UsageError
from apbatch.index.cancelling import Cancellation

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_SECRET = {"token", "access_token", "code", "key", "secret", "password", "id_token"}
_LONGEST_TARGET = 32_768
#: Seconds between attempts to end a query.
_AGAIN_S = 0.2
#: Bytes of a request's body.
_LARGEST_BODY = 1_000_000


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine by its loopback interface."""
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host.lower() == "localhost"


class Gate:
    """Middleware around the whole service.

    Parameters
    ----------
    app : ASGI application
    identity : Identity
    rate : RateLimit
    hosts : collection of str
        Names under which the service is reached; empty: any name, for a service with authentication.
    log : callable
        Takes a line of the access log.
    """

    def __init__(
        self, app: ASGIApp, identity: Identity, rate: RateLimit, hosts: frozenset[str], log: Callable[[str], None]
    ) -> None:
        self._app, self._identity, self._rate, self._hosts, self._log = app, identity, rate, hosts, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        asker: Asker | None = None
        sent = {"status": 0, "bytes": 0}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
                if message["status"] == 404 and asker is not None and not asker.principal.is_owner:
                    await asyncio.sleep(until_step_s(start))
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "private, no-cache")
                headers.add_vary_header("Authorization, Cookie, Accept")
                headers["server-timing"] = f"first;dur={(time.perf_counter() - start) * 1000:.1f}"
            elif message["type"] == "http.response.body":
                sent["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            try:
                asker = await self._admit(scope)
            except ApbatchError as error:
                await problem_response(error, retry_s=self._rate.wait_s())(scope, receive, answer)
                return
            scope.setdefault("state", {})["asker"] = asker
            await _until_gone(self._app, scope, receive, answer)
        finally:
            self._write(scope, asker, sent, time.perf_counter() - start)

    async def _admit(self, scope: Scope) -> Asker:
        headers = Headers(scope=scope)
        self._check_target(scope)
        host = _split(f"//{headers.get('host', '')}").hostname or ""
        if self._hosts and host not in self._hosts and not is_loopback(host):
            raise UsageError("the service has another name", remedy="ask by the name it was started with")
        _check_origin(headers)
        client = scope.get("client") or ("unknown", 0)
        cookies = cookies_of(headers)
        address = str(client[0])
        try:
            if "authorization" in headers or cookies:  # keys of a provider may have to be fetched
                asker = await run_sync(self._identity.asker, headers, cookies, address)
            else:
                asker = self._identity.asker(headers, cookies, address)
        except AccessError:
            if scope["path"] in _WITHOUT_SESSION or scope["path"].startswith("/static/"):
                asker = self._identity.asker({}, {}, address)  # an old cookie must not keep anybody from signing in
            else:
                self._rate.take(f"address {address}")
                raise
        self._rate.take(asker.key)
        return asker

    def _check_target(self, scope: Scope) -> None:
        target = scope.get("raw_path", b"") + scope.get("query_string", b"")
        if len(target) > _LONGEST_TARGET:
            raise UsageError("the request's address is too long", remedy=f"at most {_LONGEST_TARGET} bytes")
        if b"\0" in unquote_to_bytes(target):
            raise UsageError("the request's address has a NUL in it")

    def _write(self, scope: Scope, asker: Asker | None, sent: dict[str, int], seconds: float) -> None:
        record = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": scope["method"],
            "path": scope["path"],
            "query": _without_secrets(scope.get("query_string", b"")),
            "who": asker.key if asker else None,
            "status": sent["status"],
            "bytes": sent["bytes"],
            "ms": round(seconds * 1000, 1),
        }
        self._log(json.dumps(record))


#: What a browser with an old cookie still gets.
_WITHOUT_SESSION = frozenset({"/", "/sign-in", "/sign-out"})


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.hostname  # noqa: B018 - a wrong one shows here
    except ValueError:
        raise UsageError("a header names no host", where="Host or Origin") from None
    return parts


def _check_origin(headers: Headers) -> None:
    """Refuse what another site's page sends: it would come with this browser's rights."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    own = headers.get("host", "")
    foreign = origin is not None and origin != "null" and _split(origin).netloc != own
    navigation = headers.get("sec-fetch-mode") == "navigate"
    if foreign or origin == "null" or (site in ("cross-site", "same-site") and not navigation):
        raise UsageError("requests from pages of other sites are refused", remedy="ask from a program")


def _without_secrets(query: bytes) -> str:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return urlencode([(name, "***" if name.lower() in _SECRET else value[:500]) for name, value in pairs])[:2000]


async def _until_gone(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run a request; if its client goes away, end its queries."""
    cancellation = Cancellation()
    messages: asyncio.Queue[Message] = asyncio.Queue(1)  # no more of a body is taken in than the application reads

    async def listen() -> None:
        while (message := await receive())["type"] != "http.disconnect":
            await messages.put(message)
        await asyncio.gather(messages.put(message), end())

    async def end() -> None:
        while await run_sync(cancellation.cancel):  # one that was about to begin may not have heard of it
            await asyncio.sleep(_AGAIN_S)

    async def heard() -> Message:
        message = await messages.get()
        if message["type"] == "http.disconnect":
            messages.put_nowait(message)  # whoever asks again hears it again
        return message

    listener = asyncio.create_task(listen())
    try:
        with cancellation.active():
            await app(scope, _bounded(heard), send)
    except Exception:
        if not cancellation.is_cancelled:  # else there is nobody to tell
            raise
    finally:
        listener.cancel()


def _bounded(receive: Receive) -> Receive:
    """Cut a body off that is larger than any request needs."""
    total = 0

    async def limited() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > _LARGEST_BODY:
            raise UsageError("the request is too large", remedy=f"at most {_LARGEST_BODY} bytes")
        return message

    return limited


def log_to_stderr(line: str) -> None:
    """Write a line of the access log."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def state_of(scope: Scope) -> Any:
    """Return who sent the request of a scope."""
    return scope["state"]["asker"]

"""Health, readiness and metrics of a server, in front of whatever it serves (``docs/servers.md``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from anyio.to_thread import run_sync
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apbatch.errors import ApbatchError

#: Where probes ask, and where Prometheus does.
HEALTH, READY, METRICS = "/healthz", "/readyz", "/metrics"
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})

#: Says what keeps a server from serving, None if nothing does; and facts for whoever asks.
Ready = Callable[[], tuple[str | None, Mapping[str, Any]]]


class Operations:
    """Middleware that counts requests, and answers what concerns the server itself.

    Parameters
    ----------
    app : ASGI application
    ready : callable
        Looks whether the server can serve; runs in a thread.
    routes : iterable of str
        Prefixes of paths that are counted by themselves, the longest that fits; all others are one.
    admit : callable, optional
        Says from the headers whether somebody may see metrics; runs in a thread; by default everybody may.

    Attributes
    ----------
    registry : CollectorRegistry
        Takes further metrics.
    draining : threading.Event
        Set when the server is about to end.
    """

    def __init__(
        self, app: ASGIApp, ready: Ready, routes: Iterable[str], admit: Callable[[Headers], bool] | None = None
    ) -> None:
        self._app, self._ready, self._admit = app, ready, admit
        self._routes = sorted(routes, key=len, reverse=True)
        self.draining = threading.Event()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._requests = Counter(
            "apbatch_requests", "Requests that were answered.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "apbatch_request_seconds",
            "Time from a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._bytes = Counter("apbatch_sent_bytes", "Bytes of answers.", ["route"], registry=self.registry)
        self._open = Gauge("apbatch_requests_open", "Requests under way.", registry=self.registry)
        Gauge("apbatch_draining", "1 while the server ends.", registry=self.registry).set_function(
            lambda: float(self.draining.is_set())
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = await self._own(scope)
        if answer is not None:
            await answer(scope, receive, send)
        else:
            await self._counted(scope, receive, send)

    async def _own(self, scope: Scope) -> Response | None:
        path = scope["path"]
        if path not in (HEALTH, READY, METRICS) or scope["method"] not in ("GET", "HEAD"):
            return None
        if path == HEALTH:
            return JSONResponse({"status": "ok"}, headers=_HEADERS)
        if path == READY:
            return await self._readiness()
        try:
            admitted = self._admit is None or await run_sync(self._admit, Headers(scope=scope))
        except ApbatchError:
            admitted = False
        if not admitted:
            return Response("not allowed\n", 401, {**_HEADERS, "www-authenticate": "Bearer"})
        content = await run_sync(generate_latest, self.registry)
        return Response(content, headers={**_HEADERS, "content-type": CONTENT_TYPE_LATEST})

    async def _readiness(self) -> Response:
        if self.draining.is_set():
            return JSONResponse({"status": "draining"}, 503, _HEADERS)
        try:
            fault, facts = await run_sync(self._ready)
        except ApbatchError as error:
            fault, facts = error.what, {}
        content = {"status": "ok" if fault is None else fault, **facts}
        return JSONResponse(content, 200 if fault is None else 503, _HEADERS)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = next((one for one in self._routes if _is_below(scope["path"], one)), "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        status, start = 500, time.perf_counter()

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                self._bytes.labels(route).inc(len(message.get("body", b"")))
            await send(message)

        self._open.inc()
        try:
            await self._app(scope, receive, counting)
        finally:
            self._open.dec()
            self._requests.labels(method, route, str(status)).inc()
            self._seconds.labels(route).observe(time.perf_counter() - start)


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


class Counts(Collector):
    """Offers counters that somebody else keeps.

    Parameters
    ----------
    counts : Mapping
        Numbers by name; only grow.
    help : Mapping
        What each counts.
    """

    def __init__(self, counts: Mapping[str, int], help: Mapping[str, str]) -> None:
        self._counts, self._help = counts, help

    def collect(self) -> Iterable[Metric]:
        """Yield the counters as they are now."""
        for name, value in self._counts.items():
            yield CounterMetricFamily(f"apbatch_{name}", self._help.get(name, name), value=value)

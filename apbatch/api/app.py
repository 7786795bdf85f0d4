"""The service put together: routes, pages, the gate around all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI, Request
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

import apbatch
from apbatch.access.serving.operations import Operations
from apbatch.api import changes, events, files, nights, problems, reports
from apbatch.api.gate import Gate, log_to_stderr
from apbatch.api.graph.router import router as graphql
from apbatch.api.identity import COOKIE
from apbatch.api.limits import RateLimit
from apbatch.api.oai.router import router as oai
from apbatch.api.openapi import ANSWERS, document
from apbatch.api.service import OPERATOR, Service, Who
from apbatch.api.streams import FORMS, json_response
from apbatch.api.tap import routes as tap

_PAGES = Path(__file__).with_name("pages")
#: Addresses of the page's views; what each shows is for the page itself to find out.
_VIEWS = (
    "/",
    "/browse",
    "/browse/{path:path}",
    "/search",
    "/file",
    "/events",
    "/event",
    "/nights",
    "/reports",
    "/about",
)

#: Prefixes of addresses that metrics tell apart.
_ROUTES = (
    *(f"/api/v1{path}" for path in ("", "/files", "/events", "/changes", "/tree", "/content", "/reports")),
    "/static",
    "/oai",
)

router = APIRouter(prefix="/api/v1", tags=["service"], responses=ANSWERS)


@router.get("", summary="About this service and who asks")
def about(request: Request, who: Who) -> Response:
    """Return version, forms of results, the asker's name, and what this service has."""
    service: Service = request.app.state.service
    return json_response(
        request,
        {
            "apbatch": apbatch.__version__,
            "who": {"name": who.name, "owner": who.is_owner, "operator": who.is_owner or OPERATOR in who.roles},
            "authentication": not service.identity.is_open,
            "events": service.events is not None,
            "bytes": service.files is not None,
            "formats": [form.name for form in FORMS],
            "openapi": "/api/v1/openapi.json",
        },
    )


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> Response:
    """Return the OpenAPI document."""
    return json_response(request, document(request.app))


def build(service: Service, log: Callable[[str], None] = log_to_stderr) -> ASGIApp:
    """Return the service as an ASGI application.

    Parameters
    ----------
    service : Service
    log : callable
        Takes a line of the access log.
    """
    app = FastAPI(title="apbatch", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.service = service
    page = (_PAGES / "index.html").read_bytes()
    problems.install(app, page)
    for part in (router, files.router, events.router, nights.router, changes.router, reports.router, graphql, oai):
        app.include_router(part)
    tap.install(app, service)
    _add_pages(app, page)
    settings = service.settings
    rate = RateLimit(0 if service.identity.is_open else settings.requests_per_second, settings.burst)
    hosts = frozenset(name.lower() for name in settings.names)
    if service.identity.is_open:
        hosts |= {"localhost"}
    operations = Operations(
        Gate(app, service.identity, rate, hosts, log), partial(_ready, service), _ROUTES, partial(_may_measure, service)
    )
    service.draining = operations.draining
    return operations


def _ready(service: Service) -> tuple[str | None, dict[str, Any]]:
    service.catalogue.revision()  # it answers; the number would tell strangers that something changed
    return None, {}


def _may_measure(service: Service, headers: Headers) -> bool:
    who = service.identity.asker(headers, {}, "").principal
    return who.is_owner or OPERATOR in who.roles


def _add_pages(app: FastAPI, page: bytes) -> None:
    def view(request: Request) -> Response:
        return Response(page, media_type="text/html; charset=utf-8")

    for address in _VIEWS:
        app.add_api_route(address, view, include_in_schema=False, response_class=Response)

    @app.post("/sign-in", include_in_schema=False)
    async def sign_in(request: Request) -> Response:
        service: Service = request.app.state.service
        token = parse_qs((await request.body()).decode("latin-1")).get("token", [""])[0].strip()
        if not service.identity.is_open:
            await run_sync(service.identity.of_token, token)
        answer: Any = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, max_age=30 * 86400)
        return answer  # type: ignore[no-any-return]

    @app.post("/sign-out", include_in_schema=False)
    def sign_out() -> Response:
        answer: Any = RedirectResponse("/", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer  # type: ignore[no-any-return]

    app.mount("/static", StaticFiles(directory=_PAGES), name="static")

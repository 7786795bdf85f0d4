"""The addresses of TAP: synchronous queries, VOSI, DataLink; those of jobs are in `asynchronous`."""

from __future__ import annotations

from datetime import UTC, datetime

from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response, StreamingResponse

from apbatch.api.service import Service, service_of
from apbatch.api.tap import asynchronous, examples, links, vosi
from apbatch.api.tap.faults import VotableRoute, explained
from apbatch.api.tap.jobs import Jobs
from apbatch.api.tap.request import Tap, base_of, parameters_of
from apbatch.errors import NotFoundError, UsageError

_XML = "text/xml; charset=utf-8"
_SINCE = datetime.now(UTC)
router = APIRouter(prefix="/tap", include_in_schema=False, route_class=VotableRoute)


def install(app: FastAPI, service: Service) -> None:
    """Give an application the addresses of TAP, and its jobs."""
    app.state.tap_jobs = Jobs(service.home / "api" / "tap", explained)
    for part in (router, asynchronous.router):
        app.include_router(part)


@router.api_route("/sync", methods=["GET", "POST"])
async def sync(request: Request) -> Response:
    """Answer a query at once, as a stream."""
    media, pieces = await run_sync(Tap.of(request).result, await parameters_of(request))
    return StreamingResponse(pieces, 200, None, media)


@router.get("/availability")
def availability() -> Response:
    """Say that the service is there."""
    return Response(vosi.availability(_SINCE), media_type=_XML)


@router.get("/capabilities")
def capabilities(request: Request) -> Response:
    """Say what the service can."""
    return Response(vosi.capabilities(base_of(request)), media_type=_XML)


@router.get("/examples")
def example_statements() -> Response:
    """Return statements to begin with."""
    return Response(examples.document(), media_type="application/xhtml+xml")


@router.get("/tables")
def tables(request: Request) -> Response:
    """Describe all tables; with ``detail=min``, without columns."""
    detail = request.query_params.get("detail", "max")
    if detail not in ("min", "max"):
        raise UsageError("detail is min or max", where="detail")
    return Response(vosi.tableset(Tap.of(request).tables(), with_columns=detail == "max"), media_type=_XML)


@router.get("/tables/{name}")
def table(request: Request, name: str) -> Response:
    """Describe one table."""
    one = Tap.of(request).tables().get(name.lower())
    if one is None:
        raise NotFoundError("there is no such table")
    return Response(vosi.table_document(one), media_type=_XML)


@router.api_route("/links", methods=["GET", "POST"])
async def data_links(request: Request) -> Response:
    """Return where the bytes of observations are."""
    parameters = await parameters_of(request)
    named = [value for name, value in request.query_params.multi_items() if name.upper() == "ID"]
    identifiers = [one for one in named or [parameters.get("ID", "")] if one]
    if len(identifiers) > links.MOST:
        raise UsageError(f"more than {links.MOST} identifiers", where="ID", remedy="ask for them in parts")
    if parameters.get("RESPONSEFORMAT", "votable").lower() not in ("votable", links.MEDIA, "application/x-votable+xml"):
        raise UsageError("links are a VOTable", where="RESPONSEFORMAT")
    service, tap = service_of(request), Tap.of(request)
    content = tap.base.removesuffix("/tap") + "/api/v1/content"

    def document() -> bytes:
        return links.links(tap.door, content, identifiers, has_bytes=service.files is not None)

    return Response(await run_sync(document), media_type=links.MEDIA)

"""The address ``/oai``: a request of HTTP becomes one of the protocol, its answer a document."""

from __future__ import annotations

from urllib.parse import parse_qsl

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from starlette.responses import Response

from apbatch.access.guard import Guard
from apbatch.api.oai.datestamps import Datestamps
from apbatch.api.oai.markup import attributes_text, element
from apbatch.api.oai.requests import ProtocolError, read_request, written_moment
from apbatch.api.oai.verbs import Repository, answer
from apbatch.api.service import Door, Service, service_of
from apbatch.formats.oai.namespaces import OAI, XSI

router = APIRouter(include_in_schema=False)
_ROOT = attributes_text(
    {"xmlns": OAI, "xmlns:xsi": XSI, "xsi:schemaLocation": f"{OAI} http://www.openarchives.org/OAI/2.0/OAI-PMH.xsd"}
)


@router.get("/oai")
@router.post("/oai")
async def oai(request: Request, door: Door) -> Response:
    """Answer a request of OAI-PMH; errors of the protocol are answers with status 200, as it demands."""
    text = request.url.query if request.method == "GET" else (await request.body()).decode("latin-1")
    root = (service_of(request).settings.url or str(request.base_url)).rstrip("/")
    document = await run_sync(_document, service_of(request), door, text, root)
    return Response(document, media_type="text/xml; charset=utf-8")


def _document(service: Service, door: Guard, text: str, root: str) -> bytes:
    settings = service.settings.oai
    namespace = settings.namespace or next(
        (name for name in service.settings.names if "." in name), "apbatch.localhost"
    )
    datestamps = Datestamps(service.home / "api" / "oai.sqlite")
    now = datestamps.read(door.revision)
    repository = Repository(door, datestamps, now, settings, namespace, root)
    echo: dict[str, str | None] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=50)
    except ValueError:
        pairs = []
    try:
        request = read_request(pairs)
        echo = {"verb": request.verb, **request.arguments}
        content = answer(repository, request)
    except ProtocolError as error:
        if error.code in ("badVerb", "badArgument"):
            echo = {}
        content = element("error", str(error), code=error.code)
    head = element("responseDate", written_moment(now.time)) + element("request", repository.address, **echo)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<OAI-PMH{_ROOT}>{head}{content}</OAI-PMH>\n'.encode()

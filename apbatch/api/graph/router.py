"""The address of GraphQL: one request in JSON, measured, run in one thread, its errors with the fields of problems."""

from __future__ import annotations

import json
import time
from typing import Any

from anyio import sleep
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from graphql import GraphQLError
from starlette.responses import Response

from apbatch.api.graph.measure import measured
from apbatch.api.graph.schema import SCHEMA, Context
from apbatch.api.limits import until_step_s
from apbatch.api.openapi import ANSWERS
from apbatch.api.problems import problem_content
from apbatch.api.service import Door, service_of
from apbatch.api.streams import json_bytes
from apbatch.errors import ApbatchError, UsageError

router = APIRouter(tags=["graphql"], responses=ANSWERS)
_MEDIA = "application/graphql-response+json"
#: Bytes of a request, and errors that are shown of it.
_LARGEST, _ERRORS = 256 * 1024, 10
_REQUEST = {
    "type": "object",
    "properties": {
        "query": {"type": "string"},
        "operationName": {"type": ["string", "null"]},
        "variables": {"type": ["object", "null"]},
    },
    "required": ["query"],
}
_RESPONSE = {
    "type": "object",
    "properties": {
        "data": {"type": ["object", "null"]},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "message": {"type": "string"},
                    "path": {"type": "array"},
                    "extensions": {"$ref": "#/components/schemas/Problem"},
                },
                "required": ["message", "extensions"],
            },
        },
    },
}
_EXAMPLE = {"query": "{ files(query: \"experiment = 'TAIGA'\", first: 2) { nodes { path size } totalCount } }"}


@router.post(
    "/graphql",
    summary="A request of GraphQL",
    responses={
        200: {
            "description": "Data, and errors with the fields of problems in `extensions`.",
            "content": {_MEDIA: {"schema": _RESPONSE}, "application/json": {"schema": _RESPONSE}},
        },
        400: {**ANSWERS[400], "content": {**ANSWERS[400]["content"], _MEDIA: {"schema": _RESPONSE}}},
    },
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST, "example": _EXAMPLE}}}
    },
)
async def graphql(request: Request, door: Door) -> Response:
    """Return data and errors; a request that costs too much is refused before it runs."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UsageError("a request of GraphQL is JSON", where="Content-Type", remedy="application/json")
    start, body = time.perf_counter(), bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _LARGEST:
            raise UsageError("the request is too large", remedy=f"at most {_LARGEST} bytes")
    context = Context(door, service_of(request).events is not None)
    content = await run_sync(_answer, bytes(body), context)
    if context.missed and not door.who.is_owner:
        await sleep(until_step_s(start))
    accept = request.headers.get("accept", "")
    plain_json = "application/json" in accept and _MEDIA not in accept
    # What did not run is an error of HTTP too, except to clients of before that media type, which read no such answer.
    status = 200 if plain_json or "data" in content else 400
    return Response(json_bytes(content), status, None, "application/json" if plain_json else _MEDIA)


@router.get("/graphql/schema", include_in_schema=False)
def schema() -> Response:
    """Return the schema as text."""
    return Response(str(SCHEMA), media_type="text/plain; charset=utf-8")


def _answer(body: bytes, context: Context) -> dict[str, Any]:
    try:
        text, variables, name = _request(body)
        measured(text, variables, name)
        result = SCHEMA.execute_sync(text, variables, context, operation_name=name)
    except (UsageError, RecursionError) as error:
        fault = error if isinstance(error, UsageError) else UsageError("the request is nested too deeply")
        return {"errors": [{"message": fault.what, "extensions": problem_content(fault)}]}
    content: dict[str, Any] = {}
    if result.errors:
        content["errors"] = [_error(error) for error in result.errors[:_ERRORS]]
    if result.data is not None or not result.errors or any(error.path for error in result.errors):
        content["data"] = result.data
    return content


def _request(body: bytes) -> tuple[str, dict[str, Any], str | None]:
    try:
        content = json.loads(body)
        text, variables, name = content["query"], content.get("variables"), content.get("operationName")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            "not a request of GraphQL; several at once are not served", remedy='{"query": "…", "variables": {…}}'
        ) from None
    variables = {} if variables is None else variables
    if not isinstance(text, str) or not isinstance(variables, dict) or not isinstance(name, str | None):
        raise UsageError("query and operationName are texts, variables an object", where="request")
    return text, variables, name


def _error(error: GraphQLError) -> dict[str, Any]:
    cause = error.original_error
    if cause is None or (isinstance(cause, GraphQLError) and not error.path):  # of the request: its grammar, its types
        place = error.locations[0] if error.locations else None
        where = "query" if place is None else f"query, line {place.line}, column {place.column}"
        cause = UsageError(error.message[:500], where=where)
    elif not isinstance(cause, ApbatchError):
        cause = ApbatchError(f"unexpected {type(cause).__name__}: {cause}")
    problem = problem_content(cause)
    entry: dict[str, Any] = {"message": problem["detail"], "extensions": problem}
    if error.path:
        entry["path"] = error.path
    if error.locations:
        entry["locations"] = [{"line": one.line, "column": one.column} for one in error.locations]
    return entry

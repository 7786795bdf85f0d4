"""The OpenAPI document: answers that every operation may give, and examples."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

import apbatch
from apbatch.api.problems import PROBLEM

_ABOUT = """Files and events of several experiments as one searchable tree.

Filters are written in the query language (`experiment = 'TAIGA' and zenith < 30 deg order by night desc limit 10`).
JSON comes in pages with opaque cursors; NDJSON, CSV, Arrow and Parquet are streams of everything that matches. Ask by
`Accept`, or by `?format=`. In CSV, texts that a spreadsheet would run as a formula begin with an apostrophe. Everything
that is answered is what the policy lets the asker see: a path that is hidden and one that does not exist are alike.
"""
_EXAMPLE = {
    "type": "about:blank",
    "title": "Usage",
    "status": 400,
    "detail": "unknown attribute 'zenit'",
    "where": "query, column 1",
    "nearest": "zenith",
    "remedy": "apbatch attributes lists them",
}


def _problem(text: str) -> dict[str, Any]:
    return {
        "description": text,
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": _EXAMPLE}},
    }


#: What every operation may answer besides its result.
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The result.", "content": {"application/json": {}}},
    304: {"description": "The client has it already."},
    400: _problem("The request is wrong; the problem says where, and what to do."),
    401: _problem("The token is not valid."),
    404: _problem("There is no such thing, or it may not be seen."),
    406: _problem("None of the accepted forms is there."),
    429: _problem("Too many requests; `Retry-After` says how long to wait."),
    503: _problem("A server behind the service is away."),
}
#: Forms of tables besides JSON.
TABLES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page (JSON), or everything as a stream.",
        "content": {
            "application/json": {
                "example": {"items": [{"path": "/taiga/raw/run.dat", "size": 1024}], "cursor": "WyI0ZjE…"}
            },
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
            "application/vnd.apache.arrow.stream": {"schema": {"type": "string", "format": "binary"}},
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the service."""
    if app.openapi_schema:
        return app.openapi_schema
    schema = get_openapi(title="apbatch", version=apbatch.__version__, description=_ABOUT, routes=app.routes)
    parts = schema.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        parts.pop(name, None)
    texts = {name: {"type": "string"} for name in ("type", "title", "detail", "where", "nearest", "remedy", "instance")}
    parts["Problem"] = {
        "type": "object",
        "properties": {**texts, "status": {"type": "integer"}},
        "required": ["type", "title", "status", "detail"],
    }
    schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{}, {"token": []}]
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    app.openapi_schema = schema
    return schema

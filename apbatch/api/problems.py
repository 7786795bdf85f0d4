"""Errors as answers: ``application/problem+json`` by the one renderer, and never a word about the machine inside."""

from __future__ import annotations

import json
import sys
import traceback
import uuid
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from apbatch.errors import AccessError, ApbatchError, NotFoundError, TooManyRequestsError, UsageError
from apbatch.messages import error_problem

PROBLEM = "application/problem+json"


def problem_response(
    error: ApbatchError, code: int | None = None, headers: dict[str, str] | None = None, retry_s: int = 1
) -> Response:
    """Return an error as an answer.

    What is no fault of the client (a server that is away, a damaged file) is told without places and reasons, which
    name what is inside; the whole goes to the service's own log under a number that the client gets.
    """
    content = error_problem(error, code)
    headers = dict(headers or {})
    if content["status"] >= 500:
        number = uuid.uuid4().hex[:12]
        print(f"error {number}: {error}", file=sys.stderr, flush=True)
        content = {name: content[name] for name in ("type", "title", "status")}
        content |= {"detail": "the service could not answer", "instance": f"urn:apbatch:error:{number}"}
    if isinstance(error, AccessError):
        headers["WWW-Authenticate"] = 'Bearer realm="apbatch"'
    if isinstance(error, TooManyRequestsError):
        headers["Retry-After"] = str(retry_s)
    return Response(json.dumps(content), content["status"], headers, PROBLEM)


def validation_error(faults: list[Any]) -> UsageError:
    """Return what pydantic found wrong with a request as the project's error."""
    fault = faults[0]
    place = ".".join(str(part) for part in fault["loc"])
    return UsageError(str(fault["msg"]).removeprefix("Value error, "), where=place[:200])


def install(app: FastAPI) -> None:
    """Have an application answer all errors as problems."""

    @app.exception_handler(ApbatchError)
    async def of_ours(request: Request, error: ApbatchError) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def of_request(request: Request, error: RequestValidationError) -> Response:
        return problem_response(validation_error(list(error.errors())))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        kind = NotFoundError if error.status_code == 404 else UsageError
        return problem_response(kind(str(error.detail)), error.status_code, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def of_others(request: Request, error: Exception) -> Response:
        traceback.print_exception(error, file=sys.stderr)
        return problem_response(ApbatchError(f"unexpected {type(error).__name__}: {error}"))

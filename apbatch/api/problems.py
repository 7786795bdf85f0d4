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

#: Seconds after which a client may ask again where a server behind this one is away.
AWAY_S = 5
PROBLEM = "application/problem+json"


def problem_response(
    error: ApbatchError, code: int | None = None, headers: dict[str, str] | None = None, retry_s: int = 1
) -> Response:
    """Return an error as an answer, with the content of `problem_content`.

    Parameters
    ----------
    error : ApbatchError
    code : int, optional
        Status of HTTP; by default that of the kind of error.
    headers : dict of str, optional
        Further ones.
    retry_s : int
        Seconds after which a client that asked too often may ask again.
    """
    content = problem_content(error, code)
    headers = dict(headers or {})
    if isinstance(error, AccessError):
        headers["WWW-Authenticate"] = 'Bearer realm="apbatch"'
    if isinstance(error, TooManyRequestsError):
        headers["Retry-After"] = str(retry_s)
    elif content["status"] == 503:
        headers["Retry-After"] = str(AWAY_S)
    return Response(json.dumps(content), content["status"], headers, PROBLEM)


def problem_content(error: ApbatchError, code: int | None = None) -> dict[str, Any]:
    """Return an error as a client may see it.

    What is no fault of the client (a server that is away, a damaged file) is told without places and reasons, which
    name what is inside; the whole goes to the service's own log under a number that the client gets.
    """
    content = error_problem(error, code)
    if content["status"] >= 500:
        number = uuid.uuid4().hex[:12]
        print(f"error {number}: {error}", file=sys.stderr, flush=True)
        content = {name: content[name] for name in ("type", "title", "status")}
        content |= {"detail": "the service could not answer", "instance": f"urn:apbatch:error:{number}"}
    return content


def validation_error(faults: list[Any]) -> UsageError:
    """Return what pydantic found wrong with a request as the project's error."""
    fault = faults[0]
    place = ".".join(str(part) for part in fault["loc"])
    return UsageError(str(fault["msg"]).removeprefix("Value error, "), where=place[:200])


def install(app: FastAPI, page: bytes) -> None:
    """Have an application answer all errors as problems.

    Parameters
    ----------
    app : FastAPI
    page : bytes
        The web page, which says it to a browser that was sent to an address that there is not.
    """

    @app.exception_handler(ApbatchError)
    async def of_ours(request: Request, error: ApbatchError) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def of_request(request: Request, error: RequestValidationError) -> Response:
        return problem_response(validation_error(list(error.errors())))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404 and request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return Response(page, 404, media_type="text/html; charset=utf-8")
        kind = NotFoundError if error.status_code == 404 else UsageError
        return problem_response(kind(str(error.detail)), error.status_code, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def of_others(request: Request, error: Exception) -> Response:
        traceback.print_exception(error, file=sys.stderr)
        return problem_response(ApbatchError(f"unexpected {type(error).__name__}: {error}"))

"""Errors as VOTables (DALI 1.1, 4.4), with no more in them than a client may know."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from apbatch.api.problems import AWAY_S, problem_content
from apbatch.api.tap.votable import MEDIA, error_document
from apbatch.errors import ApbatchError
from apbatch.messages import error_text


def explained(error: Exception) -> str:
    """Return what a client may know of an error, as a sentence."""
    return _sentence(error)[0]


def _sentence(error: Exception) -> tuple[str, int]:
    """Return the sentence, and the status of HTTP."""
    kind = error if isinstance(error, ApbatchError) else ApbatchError(f"unexpected {type(error).__name__}: {error}")
    problem = problem_content(kind)
    if "instance" in problem:
        return f"{problem['detail']} ({problem['instance']})", problem["status"]
    return error_text(kind), problem["status"]


class VotableRoute(APIRoute):
    """A route whose errors are VOTables."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except ApbatchError as error:
                text, status = _sentence(error)
                headers = {"Retry-After": str(AWAY_S)} if status == 503 else None
                return Response(error_document(text), status, headers, MEDIA)

        return answer

"""The feed of changes: pages, a stream to its end, or events that a server sends as they happen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from apbatch.access.guard import Guard
from apbatch.api.limits import FeedPlaces
from apbatch.api.openapi import ANSWERS
from apbatch.api.service import FEW, MANY, Door, FormName, PageSize, Service, service_of
from apbatch.api.streams import json_response, plain, wanted_form
from apbatch.errors import ApbatchError, UsageError
from apbatch.index.changes import Change
from apbatch.messages import error_problem

router = APIRouter(prefix="/api/v1", tags=["changes"], responses=ANSWERS)
_EVENTS = "text/event-stream"
#: How often the feed is looked at, and how often a silent connection is kept alive, s.
_PERIOD_S, _SILENCE_S = 1.0, 15.0


@router.get(
    "/changes", summary="What changed after a revision",
    responses={200: {"description": "A page, a stream to the end, or events as they happen.",
                     "content": {"application/json": {}, "application/x-ndjson": {"schema": {"type": "string"}},
                                 _EVENTS: {"schema": {"type": "string"}}}}},
)  # fmt: skip
async def changes(
    request: Request,
    door: Door,
    since: Annotated[int, Query(ge=0, lt=2**63, description="The last revision that is held; 0 to begin.")] = 0,
    from_start: Annotated[bool, Query(description="The reader began at 0, less than 30 days ago.")] = False,
    limit: PageSize = FEW,
    form: FormName = None,
) -> Response:
    """Return changes in their order, each with its revision; go on from the last one's.

    With `Accept: text/event-stream` the connection stays, and changes come when they happen; a browser that was cut
    off goes on by `Last-Event-ID`.
    """
    from_start = from_start or since == 0
    if form is None and _EVENTS in request.headers.get("accept", ""):
        after = _after(request.headers.get("last-event-id"), since)
        service = service_of(request)
        service.followers.check()
        if after != since:
            from_start = False
        # The first page is read here, so that a reader who was away for too long gets a problem, not a broken stream.
        first = await run_sync(lambda: door.changes_read(after, MANY, from_start=from_start))

        def read_on(place: int) -> tuple[list[Change], int]:
            service.identity.check_still(request.headers, door.who)
            return door.changes_read(place, MANY, from_start=from_start)

        return StreamingResponse(_events(read_on, service, first, after), 200, None, _EVENTS)
    representation = wanted_form(request.headers.get("accept", ""), form)
    if representation.name == "json":
        places = service_of(request).feed_places
        page, last = await run_sync(lambda: _page(door, places, since, limit, from_start=from_start))
        return json_response(request, {"items": [_record(change) for change in page], "since": last})
    if representation.name != "ndjson":
        raise UsageError("changes come as JSON, NDJSON or server-sent events", where="format")
    await run_sync(lambda: door.changes_read(since, 1, from_start=from_start))
    return StreamingResponse(_lines(door, since, from_start), 200, None, representation.media)


def _page(door: Guard, places: FeedPlaces, since: int, limit: int, *, from_start: bool) -> tuple[list[Change], int]:
    """Return the next changes that are seen, none only if there are no more, and the revision of the last of them.

    How far the feed goes beyond is not told: it would count what is not seen. The service keeps that for itself.
    """
    rule = door.policy.metadata(door.who)
    if rule is None:
        return door.changes_read(since, limit, from_start=from_start)
    key = (door.who, rule, since)
    place = places.get(key, since)
    while True:
        page, last = door.changes_read(place, limit, from_start=from_start)
        if page:
            return page, page[-1].revision
        if last == place:
            places.put(key, place)
            return [], since
        place = last


def _record(change: Change) -> dict[str, Any]:
    record = None if change.record is None else plain(change.record.flat())
    return {"revision": change.revision, "kind": change.kind.value, "key": change.key, "detail": change.detail,
            "record": record}  # fmt: skip


def _lines(door: Guard, since: int, from_start: bool) -> Iterator[bytes]:
    while True:
        page, last = door.changes_read(since, MANY, from_start=from_start)
        if last == since:
            return
        yield "".join(json.dumps(_record(change), ensure_ascii=False) + "\n" for change in page).encode()
        since = last


def _after(last_event_id: str | None, since: int) -> int:
    if last_event_id is None:
        return since
    if not last_event_id.isascii() or not last_event_id.isdecimal() or len(last_event_id) > 18:
        raise UsageError("not a revision", where="Last-Event-ID")
    return int(last_event_id)


async def _events(
    read_on: Callable[[int], tuple[list[Change], int]], service: Service, first: tuple[list[Change], int], since: int
) -> AsyncIterator[bytes]:
    with service.followers:
        page, last = first
        silence = 0.0
        yield b"retry: 2000\n\n"
        while not service.draining.is_set():
            if page or last != since:
                if page:
                    silence = 0.0
                    yield "".join(map(_event, page)).encode()
                since = last
            else:
                await anyio.sleep(_PERIOD_S)
                silence += _PERIOD_S
                if silence >= _SILENCE_S:
                    silence = 0.0
                    yield b": still here\n\n"
            try:
                page, last = await run_sync(read_on, since)
            except ApbatchError as error:
                yield f"event: problem\ndata: {json.dumps(error_problem(error))}\n\n".encode()
                return


def _event(change: Change) -> str:
    content = json.dumps(_record(change), ensure_ascii=False)  # on one line: JSON escapes line ends
    return f"id: {change.revision}\nevent: {change.kind.value}\ndata: {content}\n\n"

"""REST of events: searching, counting, distributions, and what one event looked like."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from apbatch.access.described import columns_of, event_batches, events_page, limited
from apbatch.api.counting import counts_by
from apbatch.api.files import counted
from apbatch.api.histogram import histogram_of
from apbatch.api.openapi import ANSWERS, TABLES
from apbatch.api.service import (
    FEW,
    MANY,
    Attribute,
    Bins,
    By,
    Columns,
    Condition,
    Cursor,
    EventsDoor,
    FormName,
    service_of,
)
from apbatch.api.streams import json_response, plain, streamed, wanted_form
from apbatch.errors import NotFoundError
from apbatch.formats.reader import Scalar
from apbatch.index.attributes import known_attribute
from apbatch.index.events.columns import EVENT_KEYS, POINTER
from apbatch.index.parser import parse_search
from apbatch.index.query import And, Compare

router = APIRouter(prefix="/api/v1/events", tags=["events"], responses=ANSWERS)


@router.get("", summary="Events that match a query", responses=TABLES)
def events(
    request: Request,
    door: EventsDoor,
    q: Condition = "",
    columns: Columns = "",
    cursor: Cursor = None,
    limit: Annotated[int | None, Query(ge=1, le=2**31, description="Rows of a page (JSON), or of the whole.")] = None,
    form: FormName = None,
) -> Response:
    """Return a page of events (JSON), or all events as a stream; one row an event and cleaning."""
    attributes = door.event_attributes()
    search = parse_search(q, attributes)
    representation = wanted_form(request.headers.get("accept", ""), form)
    listed = columns.split(",")
    if representation.write is None:
        fields = None if columns.strip() in ("", "*") else columns_of(listed, attributes, ())
        page, following = events_page(door, search, fields, min(limit or FEW, MANY), cursor)
        return json_response(request, {"items": plain(page.to_pylist()), "cursor": following})
    search = replace(search, limit=limited((search.limit, limit)))
    schema, batches = event_batches(door, search, listed)
    return streamed(representation, schema, batches, "events")


@router.get("/count", summary="Number of events that match")
def count(request: Request, door: EventsDoor, q: Condition = "", by: By = "") -> Response:
    """Return one number, or one for each value of an attribute."""
    attributes = door.event_attributes()
    where = parse_search(q, attributes).where
    counts = (
        counts_by(known_attribute(by, attributes), where, door.events_count, door.events_batches)
        if by
        else door.events_count(where)
    )
    return json_response(request, counted(counts, by))


@router.get("/histogram", summary="Distribution of an attribute over the events that match")
def histogram(request: Request, door: EventsDoor, attribute: Attribute, q: Condition = "", bins: Bins = 40) -> Response:
    """Return bins of a number or a time, or the counts of a text's most frequent values."""
    attributes = door.event_attributes()
    where, one = parse_search(q, attributes).where, known_attribute(attribute, attributes)
    values = (batch.column(one.name) for batch in door.events_batches(where, [one.name]))
    return json_response(
        request, histogram_of(one, bins, values, lambda: counts_by(one, where, door.events_count, door.events_batches))
    )


@router.get("/display", summary="What one event looked like")
def show(
    request: Request,
    door: EventsDoor,
    experiment: Annotated[str, Query(max_length=255, description="Name of the experiment.", examples=["TAIGA"])],
    run: Annotated[int, Query(ge=-(2**63), lt=2**63, description="Number of the run.")],
    event: Annotated[int, Query(ge=-(2**63), lt=2**63, description="Number of the event in the run.")],
    telescope: Annotated[int, Query(ge=-(2**31), lt=2**31, description="Number of the telescope.")],
    cleaning: Annotated[
        str, Query(max_length=80, description="Name of a cleaning.", examples=["tailcuts-14-7"])
    ] = "standard",
) -> Response:
    """Return pixels before and after cleaning, the Hillas ellipse, the square grid, arrival times and scores."""
    from apbatch.api.display import display  # needs numba, which searching does not

    key = (experiment, run, event, telescope)
    values: tuple[Scalar, ...] = key
    where = And(tuple(Compare(name, "=", value) for name, value in zip(EVENT_KEYS[:4], values, strict=True)))
    rows = [row for batch in door.events_batches(where) for row in batch.to_pylist()]
    if not rows:
        raise NotFoundError("there is no such event")
    content = display(door, service_of(request).files, key, rows, cleaning)
    content["rows"] = [plain({name: value for name, value in row.items() if name not in POINTER}) for row in rows]
    return json_response(request, content)

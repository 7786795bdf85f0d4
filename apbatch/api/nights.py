"""REST of nights and runs at a glance: files, events, rates, and the quality of runs that were looked at."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from apbatch.access.guard import Guard
from apbatch.api.openapi import ANSWERS
from apbatch.api.service import OPERATOR, Condition, Door, Who, service_of
from apbatch.api.streams import json_response, plain
from apbatch.errors import NotFoundError, UsageError
from apbatch.index.parser import parse_search
from apbatch.index.query import And, Compare, Search
from apbatch.quality.records import kept_quality

router = APIRouter(prefix="/api/v1", tags=["files"], responses=ANSWERS)
#: What a row of a night shows of the quality of its run.
_GLANCE = ("telescope", "unit", "event_rate", "pixels", "gains", "absent_clusters", "missing_clusters", "losses")
#: What names places inside.
_INSIDE = ("output", "problems")
_COLUMNS = ("experiment", "run", "telescope", "size", "events", "time_start", "time_end")


@router.get("/nights", summary="Nights and runs at a glance")
def nights(
    request: Request,
    door: Door,
    q: Condition = "",
    night: Annotated[str | None, Query(max_length=10, description="Show its runs.", examples=["2017-10-28"])] = None,
) -> Response:
    """Return the number of files of each night, or each run of one night with its files, events, rate and quality."""
    attributes = door.attributes()
    where = parse_search(q, attributes).where
    if night is None:
        counts = sorted(door.count(where, "night").items(), key=lambda one: str(one[0]))
        return json_response(request, {"items": [{"night": plain(value), "files": n} for value, n in counts]})
    try:
        day = Compare("night", "=", date.fromisoformat(night))
    except ValueError:
        raise UsageError("not a date such as 2017-10-28", where="night") from None
    runs: dict[Any, dict[str, Any]] = {}
    for batch in door.batches(Search(And((where, day))), _COLUMNS):
        for row in batch.to_pylist():
            _add(runs.setdefault((row["experiment"], row["run"], row["telescope"]), {}), row)
    items = []
    for (experiment, run, telescope), totals in sorted(runs.items(), key=lambda item: _sorted(item[0])):
        records = [] if run is None else _quality(request, door, experiment, run)
        glances = [
            {name: record.get(name) for name in _GLANCE} | {"rates": [rate for _, rate in record.get("rates", ())]}
            for record in records
            if telescope in (None, record.get("telescope"))
        ]
        key = {"experiment": experiment, "run": run, "telescope": telescope}
        items.append({**key, **plain(totals), "quality": glances})
    return json_response(request, {"items": items})


@router.get("/quality", summary="Quality of a run: rates, pedestals, pixels, losses")
def quality(
    request: Request,
    door: Door,
    who: Who,
    experiment: Annotated[str, Query(max_length=255, description="Name of the experiment.", examples=["TAIGA"])],
    run: Annotated[int, Query(ge=-(2**63), lt=2**63, description="Number of the run.", examples=[20171028])],
) -> Response:
    """Return the last look at a run, one item a telescope, to those who may read all files of the run."""
    records = _quality(request, door, experiment, run)
    if not records:
        raise NotFoundError("nobody has looked at the quality of such a run", remedy="apbatch quality")
    if not (who.is_owner or OPERATOR in who.roles):
        records = [{name: value for name, value in record.items() if name not in _INSIDE} for record in records]
    return json_response(request, {"items": records})


def _quality(request: Request, door: Guard, experiment: str, run: int) -> list[dict[str, Any]]:
    """Return what is kept of a run, if it tells the asker nothing that the files that may be read do not."""
    records = kept_quality(service_of(request).home, experiment, run)
    if records and door.may_read_all(And((Compare("experiment", "=", experiment), Compare("run", "=", run)))):
        return records
    return []


def _sorted(key: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(part).rjust(20) for part in key)


def _add(run: dict[str, Any], row: dict[str, Any]) -> None:
    run["files"] = run.get("files", 0) + 1
    run["size"] = run.get("size", 0) + row["size"]
    if row["events"] is not None:
        run["events"] = run.get("events", 0) + row["events"]
    for name, better in (("time_start", min), ("time_end", max)):
        if row[name] is not None:
            run[name] = row[name] if run.get(name) is None else better(run[name], row[name])
    if run.get("time_start") and run.get("time_end") and run.get("events"):
        seconds = (run["time_end"] - run["time_start"]).total_seconds()
        run["rate"] = run["events"] / seconds if seconds > 0 else None

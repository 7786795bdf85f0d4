"""The addresses of jobs (UWS 1.1 below ``/tap/async``)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import islice
from typing import cast

from anyio import sleep
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from starlette.responses import FileResponse, RedirectResponse, Response

from apbatch.api.service import service_of
from apbatch.api.tap.faults import VotableRoute
from apbatch.api.tap.jobs import KEPT_AT_MOST, LONGEST_S, PHASES, Asker, Job, Jobs
from apbatch.api.tap.request import Tap, base_of, parameters_of
from apbatch.api.tap.uws import job_document, list_document, part_document, time_text
from apbatch.api.tap.votable import MEDIA, error_document
from apbatch.errors import NotFoundError, UsageError

router = APIRouter(prefix="/tap/async", include_in_schema=False, route_class=VotableRoute)
_XML = "text/xml; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"
#: Seconds that a client may wait for a job, and between two looks at it.
_LONGEST_WAIT_S, _LOOK_S = 60.0, 0.1


def _jobs(request: Request) -> Jobs:
    return cast(Jobs, request.app.state.tap_jobs)


async def _asker(request: Request) -> Asker:
    return await run_sync(Tap.of(request).asker, request)


async def _job(request: Request, name: str) -> Job:
    return await run_sync(_jobs(request).get, await _asker(request), name)


def _address(request: Request, name: str = "") -> str:
    return f"{base_of(request)}/async" + (f"/{name}" if name else "")


def _see(request: Request, name: str = "") -> Response:
    return RedirectResponse(_address(request, name), 303)


@router.get("")
async def job_list(request: Request) -> Response:
    """Return the asker's jobs, of one PHASE, created AFTER a time, the LAST few."""
    parameters = await parameters_of(request)
    jobs = await run_sync(_jobs(request).of, await _asker(request))
    phases = [value for name, value in request.query_params.multi_items() if name.upper() == "PHASE"]
    if any(phase not in PHASES for phase in phases):
        raise UsageError("there is no such phase", where="PHASE", remedy=f"one of {', '.join(PHASES)}")
    if phases:
        jobs = [job for job in jobs if job.phase in phases]
    if after := parameters.get("AFTER"):
        moment = _moment(after, "AFTER")
        jobs = [job for job in jobs if job.created > moment]
    last = _number(parameters["LAST"], "LAST") if parameters.get("LAST") else None
    return Response(list_document(islice(jobs, last), _address(request)), media_type=_XML)


@router.post("")
async def create(request: Request) -> Response:
    """Make a job, and start it if PHASE is RUN."""
    parameters = await parameters_of(request)
    phase = _phase(parameters) if "PHASE" in parameters else ""
    asker = await _asker(request)
    job = await run_sync(_jobs(request).create, asker, parameters)
    if phase == "RUN":
        await run_sync(_jobs(request).start, asker, job.id, Tap.of(request).result)
    return _see(request, job.id)


@router.get("/{name}")
async def job(request: Request, name: str) -> Response:
    """Return a job; with WAIT, when it left its phase or that many seconds are over."""
    one = await _job(request, name)
    parameters = await parameters_of(request)
    if wait := parameters.get("WAIT"):
        seconds = _LONGEST_WAIT_S if wait == "-1" else min(_number(wait, "WAIT"), _LONGEST_WAIT_S)
        until, phase = time.monotonic() + seconds, parameters.get("PHASE", one.phase)
        draining = service_of(request).draining
        while one.phase == phase and one.phase in ("QUEUED", "EXECUTING") and time.monotonic() < until:
            if draining.is_set():
                break
            await sleep(_LOOK_S)
            one = await _job(request, name)
    return Response(job_document(one, _address(request, name)), media_type=_XML)


@router.delete("/{name}")
async def delete(request: Request, name: str) -> Response:
    """End and forget a job."""
    await run_sync(_jobs(request).delete, await _asker(request), name)
    return _see(request)


@router.post("/{name}")
async def act(request: Request, name: str) -> Response:
    """Forget a job, for programs that can't DELETE; change its parameters."""
    parameters = await parameters_of(request)
    if parameters.get("ACTION", "").upper() == "DELETE":
        return await delete(request, name)
    if "ACTION" in parameters:
        raise UsageError("there is only ACTION=DELETE", where="ACTION")
    return await change_parameters(request, name)


@router.post("/{name}/phase")
async def turn(request: Request, name: str) -> Response:
    """Start or abort a job."""
    asker, phase = await _asker(request), _phase(await parameters_of(request))
    if phase == "RUN":
        await run_sync(_jobs(request).start, asker, name, Tap.of(request).result)
    else:
        await run_sync(_jobs(request).abort, asker, name)
    return _see(request, name)


@router.post("/{name}/parameters")
async def change_parameters(request: Request, name: str) -> Response:
    """Change parameters of a job that was not started."""
    asker, parameters = await _asker(request), await parameters_of(request)
    await run_sync(lambda: _jobs(request).change(asker, name, waiting=True, parameters=parameters))
    return _see(request, name)


@router.post("/{name}/destruction")
async def change_destruction(request: Request, name: str) -> Response:
    """Set when a job is forgotten, within the longest time that one is kept."""
    asker, text = await _asker(request), (await parameters_of(request)).get("DESTRUCTION", "")
    moment = min(_moment(text, "DESTRUCTION"), datetime.now(UTC) + KEPT_AT_MOST)
    await run_sync(lambda: _jobs(request).change(asker, name, destruction=moment))
    return _see(request, name)


@router.post("/{name}/executionduration")
async def change_duration(request: Request, name: str) -> Response:
    """Set how long a job may run that was not started; 0 for as long as any may."""
    asker, text = await _asker(request), (await parameters_of(request)).get("EXECUTIONDURATION", "")
    seconds = min(_number(text, "EXECUTIONDURATION") or LONGEST_S, LONGEST_S)
    await run_sync(lambda: _jobs(request).change(asker, name, waiting=True, longest_s=seconds))
    return _see(request, name)


@router.get("/{name}/results/result")
async def result(request: Request, name: str) -> Response:
    """Return the result of a job."""
    path, media = await run_sync(_jobs(request).result, await _asker(request), name)
    return FileResponse(path, media_type=media)


@router.get("/{name}/{part}")
async def part(request: Request, name: str, part: str) -> Response:
    """Return one part of a job's description.

    Parameters
    ----------
    request : Request
    name : str
        Of the job.
    part : str
        Such as ``phase`` or ``parameters``; also ``error``.
    """
    one = await _job(request, name)
    if part == "error":
        if one.phase != "ERROR":
            raise NotFoundError("the job has no error")
        return Response(error_document(one.message), media_type=MEDIA)
    if part in ("results", "parameters"):
        return Response(part_document(one, _address(request, name), part), media_type=_XML)
    texts = {"phase": one.phase, "executionduration": str(one.longest_s), "quote": "", "owner": one.owner or "",
             "destruction": time_text(one.destruction)}  # fmt: skip
    if part not in texts:
        raise NotFoundError("a job has no such part")
    return Response(texts[part], media_type=_TEXT)


def _phase(parameters: dict[str, str]) -> str:
    phase = parameters.get("PHASE", "").upper()
    if phase not in ("RUN", "ABORT"):
        raise UsageError("PHASE is RUN or ABORT", where="PHASE")
    return phase


def _number(text: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise UsageError("this is not a whole number of seconds or jobs", where=where)
    return int(text)


def _moment(text: str, where: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError("this is not a time such as 2026-11-28T12:00:00Z", where=where) from None

"""Jobs, studies and benchmarks of this home, for its owner and for operators."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from starlette.responses import FileResponse, Response

from apbatch.access.principals import Principal
from apbatch.api.openapi import ANSWERS
from apbatch.api.service import OPERATOR, Who, service_of
from apbatch.api.streams import json_response
from apbatch.errors import NotFoundError

router = APIRouter(prefix="/api/v1", tags=["jobs and reports"], responses=ANSWERS)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+:-]{0,199}")
#: A report is a page of its own: it must reach nothing of this service.
_SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
_LARGEST_RECORD = 4 * 2**20
_Name = Annotated[str, InPath(max_length=200, description="Of the job.", examples=["gammas"])]


def _allow(who: Principal) -> None:
    if not (who.is_owner or OPERATOR in who.roles):
        raise NotFoundError("there is no such thing, or it may not be seen")


@router.get("/jobs", summary="Jobs, the last one first")
def jobs(request: Request, who: Who) -> Response:
    """Return names and states: running, or when it last finished a step."""
    _allow(who)
    items = [_job(folder) for folder in _folders(service_of(request).home / "jobs")]
    items.sort(key=lambda job: job["changed"] or "", reverse=True)
    return json_response(request, {"items": items})


@router.get("/jobs/{name}", summary="One job with its finished steps")
def job(request: Request, who: Who, name: _Name) -> Response:
    """Return what each finished step was made from, and made."""
    _allow(who)
    folder = service_of(request).home / "jobs" / _checked(name)
    if not folder.is_dir():
        raise NotFoundError(f"there is no job '{name}'")
    steps = [record for path in sorted(folder.glob("steps/*/*.json")) if (record := _json(path)) is not None]
    steps.sort(key=lambda step: str(step.get("made")))
    return json_response(request, {**_job(folder), "steps": steps})


@router.get("/reports", summary="Reports of jobs, studies and benchmarks")
def reports(request: Request, who: Who) -> Response:
    """Return names and times; each is a page of its own."""
    _allow(who)
    return json_response(request, {"items": list(_reports(service_of(request).home))})


@router.get(
    "/reports/{identifier:path}",
    summary="One report",
    response_class=Response,
    responses={200: {"content": {"text/html": {}}}},
)
def report(
    request: Request,
    who: Who,
    identifier: Annotated[str, InPath(max_length=500, description="As the list of reports has it.")],
) -> Response:
    """Return the page; it may run no program and fetch nothing."""
    _allow(who)
    home = service_of(request).home
    if identifier not in {one["id"] for one in _reports(home)}:  # only what the list names is ever opened
        raise NotFoundError("there is no such report")
    headers = {"Content-Security-Policy": _SANDBOX}
    return FileResponse(home / identifier, headers=headers, media_type="text/html; charset=utf-8")


def _reports(home: Path) -> Iterator[dict[str, Any]]:
    for kind, pattern in (("benchmark", "bench/*/report.html"), ("job", "jobs/*/**/*.html")):
        for path in sorted(home.glob(pattern)):
            inside = path.relative_to(home)
            if path.is_symlink() or not path.is_file() or any(part.startswith(".") for part in inside.parts):
                continue
            title = " / ".join(inside.parts[1:-1]) or inside.stem
            yield {"id": inside.as_posix(), "kind": kind, "title": title, "changed": _time(path)}


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise NotFoundError("there is no such job")
    return name


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [one for one in sorted(folder.iterdir()) if one.is_dir() and _NAME.fullmatch(one.name)]


def _job(folder: Path) -> dict[str, Any]:
    records = list(folder.glob("steps/*/*.json"))
    changed = max((_time(record) for record in records), default=None)
    return {
        "name": folder.name,
        "running": _is_locked(folder / "lock"),
        "steps_finished": len(records),
        "changed": changed,
    }


def _is_locked(path: Path) -> bool:
    """Tell whether a process holds a lock file, without taking it away from one that wants it."""
    import fcntl

    try:
        with path.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _time(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")


def _json(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _LARGEST_RECORD:
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None

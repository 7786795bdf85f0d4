"""Jobs as XML (UWS 1.1)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from apbatch.api.tap.jobs import Job
from apbatch.api.tap.votable import attribute, clean

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_SPACES = (
    'xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="1.1"'
)


def time_text(moment: datetime) -> str:
    """Return a time, UTC, as UWS writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def job_document(job: Job, address: str) -> bytes:
    """Return a job as XML; `address` is its own."""
    parts = [
        f"<uws:jobId>{job.id}</uws:jobId>",
        _text("runId", job.parameters["RUNID"][:200]) if job.parameters.get("RUNID") else "",
        _text("ownerId", job.owner),
        _text("phase", job.phase),
        _text("quote", None),
        _text("creationTime", time_text(job.created)),
        _text("startTime", None if job.started is None else time_text(job.started)),
        _text("endTime", None if job.ended is None else time_text(job.ended)),
        _text("executionDuration", str(job.longest_s)),
        _text("destruction", time_text(job.destruction)),
        parameters_part(job),
        results_part(job, address),
    ]
    if job.phase == "ERROR":
        message = _text("message", job.message)
        parts.append(f'<uws:errorSummary type="fatal" hasDetail="true">{message}</uws:errorSummary>')
    return f"{_HEAD}<uws:job {_SPACES}>{''.join(parts)}</uws:job>\n".encode()


def parameters_part(job: Job, spaces: str = "") -> str:
    """Return the parameters of a job."""
    rows = "".join(
        f"<uws:parameter id={attribute(name)}>{clean(value)}</uws:parameter>" for name, value in job.parameters.items()
    )
    return f"<uws:parameters{spaces}>{rows}</uws:parameters>"


def results_part(job: Job, address: str, spaces: str = "") -> str:
    """Return the results of a job.

    Parameters
    ----------
    job : Job
    address : str
        URL of the job.
    spaces : str
        Declarations of XML namespaces, where it is a document of its own.
    """
    row = ""
    if job.phase == "COMPLETED":
        link = f'xlink:type="simple" xlink:href={attribute(address + "/results/result")}'
        row = f'<uws:result id="result" {link} mime-type={attribute(job.media)} size="{job.size}"/>'
    return f"<uws:results{spaces}>{row}</uws:results>"


def part_document(job: Job, address: str, name: str) -> bytes:
    """Return parameters or results of a job as a document of its own.

    Parameters
    ----------
    job : Job
    address : str
        URL of the job.
    name : str
        ``parameters`` or ``results``.
    """
    spaces = " " + _SPACES.removesuffix(' version="1.1"')
    return (
        _HEAD + (parameters_part(job, spaces) if name == "parameters" else results_part(job, address, spaces))
    ).encode()


def list_document(jobs: Iterable[Job], address: str) -> bytes:
    """Return a list of jobs as XML; `address` is that of the list."""
    rows = "".join(
        f'<uws:jobref id="{job.id}" xlink:type="simple" xlink:href={attribute(f"{address}/{job.id}")}>'
        f"{_text('phase', job.phase)}{_text('ownerId', job.owner)}"
        f"{_text('creationTime', time_text(job.created))}</uws:jobref>"
        for job in jobs
    )
    return f"{_HEAD}<uws:jobs {_SPACES}>{rows}</uws:jobs>\n".encode()


def _text(name: str, text: str | None) -> str:
    return f'<uws:{name} xsi:nil="true"/>' if text is None else f"<uws:{name}>{clean(text)}</uws:{name}>"

"""A file as libraries see it: title, makers, dates, rights; said once, written in each metadata format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from urllib.parse import quote

from apbatch.formats.oai import attributes as a
from apbatch.index.files import FileRecord


@dataclass(frozen=True, slots=True)
class Description:
    """What is said of one file.

    Attributes
    ----------
    identifier : str
        In the protocol.
    page : str
        URL of its page.
    creators, subjects : tuple of str
    span : tuple of str
        Times at which the data were taken, ISO 8601: begin and end, or one date, or nothing.
    checksum : str
        BLAKE3; empty if nobody read the file yet.
    rights : tuple of str
        Text and URL of the licence, each empty if it is not known.
    doi : str
        Of the whole to which the file belongs, or which it describes; empty if there is none.
    """

    identifier: str
    page: str
    title: str
    creators: tuple[str, ...]
    publisher: str
    year: int
    kind: str
    subjects: tuple[str, ...]
    span: tuple[str, ...]
    summary: str
    format: str
    size: int
    checksum: str
    rights: tuple[str, str]
    doi: str
    url: str


def describe(record: FileRecord, identifier: str, root: str, repository: str) -> Description:
    """Return what is said of a file.

    Parameters
    ----------
    record : FileRecord
    identifier : str
    root : str
        URL of the service, for the address of the file's page.
    repository : str
        Name of the repository: the publisher, if the file names none.
    """
    creators = _text(record, a.CREATORS.name).split("; ") if _text(record, a.CREATORS.name) else [record.experiment]
    return Description(
        identifier=identifier,
        page=f"{root}/file?path={quote(record.place)}",
        title=_text(record, a.TITLE.name) or record.source.rpartition("/")[2],
        creators=tuple(one for one in creators if one) or (repository,),
        publisher=_text(record, a.PUBLISHER.name) or repository,
        year=_year(record),
        kind=_text(record, a.KIND.name),
        subjects=tuple(dict.fromkeys(one for one in ("Astroparticle physics", record.experiment) if one)),
        span=_span(record),
        summary=_text(record, a.ABSTRACT.name) or _summary(record),
        format=_text(record, a.DATA_FORMAT.name) or record.format,
        size=record.size,
        checksum=record.checksum,
        rights=(_text(record, a.LICENCE.name), _text(record, a.LICENCE_URL.name)),
        doi=_text(record, a.DOI.name),
        url=_text(record, a.URL.name),
    )


def _text(record: FileRecord, name: str) -> str:
    value = record.attributes.get(name)
    return value.strip() if isinstance(value, str) else ""


def _span(record: FileRecord) -> tuple[str, ...]:
    published = record.attributes.get(a.PUBLISHED.name)
    if record.time_start is not None:
        times = [record.time_start, record.time_end or record.time_start]
        return tuple(dict.fromkeys(_written(time) for time in times))
    if record.night is not None:
        return (record.night.isoformat(),)
    return (published.isoformat(),) if isinstance(published, date) else ()


def _written(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time.tzinfo else f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _year(record: FileRecord) -> int:
    published = record.attributes.get(a.PUBLISHED.name)
    for moment in (published, record.time_start, record.night):
        if isinstance(moment, date):
            return moment.year
    return datetime.fromtimestamp(max(0, record.mtime_ns) // 10**9, UTC).year


def _summary(record: FileRecord) -> str:
    parts: Sequence[tuple[str, object]] = (
        ("run", record.run),
        ("night", record.night),
        ("telescope", record.telescope),
        ("cluster", record.cluster),
        ("events", record.events),
    )
    text = ", ".join(f"{name} {value}" for name, value in parts if value is not None)
    return f"File of {record.experiment} at site {record.site}" + (f": {text}" if text else "")

"""What the catalogue should hold of a file: what its site says of it, and what reading it told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

from apbatch.errors import FormatError
from apbatch.formats.reader import Attribute, Metadata, Scalar
from apbatch.index.contents import Content
from apbatch.index.files import FileRecord, State
from apbatch.ingest.reading.description import UNKNOWN
from apbatch.ingest.site import FIELDS, NOON, Site
from apbatch.ingest.walk import LATEST_NS, Entry

#: Attributes that every registered file may have.
ATTRIBUTES = (
    Attribute("problems", "integer", "Places in the file that could not be read and were passed over, 101 at most."),
    Attribute("problem", "string", "The first of them: its byte and what is wrong."),
)


def listed(site: Site, source: str, size: int, mtime_ns: int, format: str = UNKNOWN) -> FileRecord:
    """Return the record of a file that was listed, not read: name, size, time, and what its path tells.

    Parameters
    ----------
    site : Site
    source : str
    size : int
        Bytes.
    mtime_ns : int
        Time of change since 1970, ns.
    format : str
        Format as which it is registered already.
    """
    fields, attributes = _split(_storable(site.values(source)))
    return FileRecord(
        **_holding(site, source, size, mtime_ns, format),
        checksum="",
        adler32="",
        state=State.LISTED,
        attributes=attributes,
        **fields,
    )


def quarantined(site: Site, entry: Entry, format: str, reason: str, content: Content | None = None) -> FileRecord:
    """Return the record of a file that is not usable.

    Parameters
    ----------
    site : Site
    entry : Entry
        What the walk knows of the file.
    format : str
        Name of its format.
    reason : str
        One sentence.
    content : Content, optional
        Hashes of what was read; without them the file is tried again at the next ingest.
    """
    fields, attributes = _split(
        {
            name: value
            for name, value in site.values(entry.source).items()
            if not isinstance(value, float) or math.isfinite(value)
        }
    )
    return FileRecord(
        **_holding(site, entry.source, entry.size, entry.mtime_ns, format),
        checksum=content.checksum if content else "",
        adler32=content.adler32 if content else "",
        state=State.QUARANTINED,
        reason=reason,
        attributes=attributes,
        **fields,
    )


def registered(site: Site, entry: Entry, format: str, metadata: Metadata, content: Content) -> FileRecord:
    """Return the record of a file that was read.

    Parameters
    ----------
    site : Site
    entry : Entry
        What the walk knows of the file.
    format : str
        Name of its format.
    metadata : Metadata
        What its reader says.
    content : Content
        Hashes of what was read.
    """
    attributes: dict[str, Scalar] = {
        name: value
        for name, value in metadata.attributes.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    faults = [f"the path: {fault}" for fault in site.faults(entry.source)]
    losses = [
        f"byte {problem.offset}: {problem.reason}" if problem.offset else problem.reason
        for problem in metadata.problems
    ]
    if problems := [*losses, *faults]:
        attributes |= {"problems": len(problems), "problem": problems[0]}
    record = FileRecord(
        **_holding(site, entry.source, entry.size, entry.mtime_ns, format),
        checksum=content.checksum,
        adler32=content.adler32,
        run=metadata.run,
        night=_night(site, metadata.night, metadata.time_start),
        time_start=metadata.time_start,
        time_end=metadata.time_end,
        telescope=metadata.telescope,
        cluster=metadata.cluster,
        events=metadata.events,
        attributes=attributes,
    )
    return _with_values(record, site.values(entry.source), metadata.night)


def as_described(site: Site, record: FileRecord) -> FileRecord:
    """Return a record with what the site says now, path and place included; its file need not be read again."""
    moved = replace(
        record,
        path=site.path_of(record.source),
        place=site.place_of(record.source),
        experiment=site.experiment,
        night=_night(site, record.night, record.time_start),
    )
    values = site.values(record.source)
    return _with_values(moved, values if record.state is State.REGISTERED else _storable(values), record.night)


def refusal(record: FileRecord) -> FormatError | None:
    """Return what in a record is no value to search for, though a catalogue may take it."""
    for name, value in record.attributes.items():
        if isinstance(value, float) and not math.isfinite(value):
            return FormatError(f"{name} is {value}, no finite number", where=record.source)
    if abs(record.mtime_ns) >= LATEST_NS:
        return FormatError(
            "its time of change is out of range (1678 to 2262)", where=record.source, remedy="set it by touch"
        )
    return None


def _holding(site: Site, source: str, size: int, mtime_ns: int, format: str) -> dict[str, Any]:
    return {
        "path": site.path_of(source), "place": site.place_of(source), "site": site.name, "source": source,
        "size": size, "mtime_ns": mtime_ns, "format": format, "experiment": site.experiment,
    }  # fmt: skip


def _split(values: Mapping[str, Scalar]) -> tuple[dict[str, Any], dict[str, Scalar]]:
    """Return values of fields and of attributes."""
    return (
        {name: value for name, value in values.items() if name in FIELDS},
        {name: value for name, value in values.items() if name not in FIELDS},
    )


def _storable(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Leave out numbers that no catalogue holds: that they are there is told when the file is read."""
    return {
        name: value
        for name, value in values.items()
        if not (isinstance(value, int) and abs(value) >= 2**63) and not (isinstance(value, float) and math.isinf(value))
    }


def _with_values(record: FileRecord, values: Mapping[str, Scalar], counted_from: date | None) -> FileRecord:
    """Return a record with the values that its site gives; times that were counted from another night are moved."""
    fields, attributes = _split(values)
    start, end, night = record.time_start, record.time_end, fields.get("night")
    if isinstance(night, date) and counted_from is not None:
        start, end = _shifted(start, night - counted_from), _shifted(end, night - counted_from)
    return replace(record, **fields, time_start=start, time_end=end, attributes={**record.attributes, **attributes})


def _night(site: Site, night: date | None, start: datetime | None) -> date | None:
    """Return the night of a file: as it tells, or as its first event does by the site's rule.

    A night that is no other than noon to noon gives was taken from the time, and is taken anew by the site's rule.
    """
    if start is None or (night is not None and (site.night_begins == NOON or night != _noon_to_noon(start))):
        return night
    return site.night_of(start)


def _noon_to_noon(moment: datetime) -> date:
    return (moment - timedelta(hours=12)).date()


def _shifted(time: datetime | None, by: timedelta) -> datetime | None:
    """Move a time that a reader counted from its own reading of the night to the night that the site says."""
    return None if time is None else time + by

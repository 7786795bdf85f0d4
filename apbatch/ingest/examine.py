"""One file of a site, read once, and what the catalogue should hold of it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Literal

from apbatch.errors import FormatError
from apbatch.formats.reader import Attribute, Metadata, Scalar
from apbatch.index.files import FileRecord, State
from apbatch.ingest.description import FileChangedError, describe
from apbatch.ingest.parsing import describe_apart
from apbatch.ingest.sites import FIELDS, Site
from apbatch.ingest.walk import LATEST_NS, Entry, time_of_change
from apbatch.storage.store import Checksums

#: Attributes that every registered file may have.
ATTRIBUTES = (
    Attribute("problems", "integer", "Places in the file that could not be read and were passed over, 101 at most."),
    Attribute("problem", "string", "The first of them: its byte and what is wrong."),
)

#: How often a file is read that changes meanwhile, and the pause between.
_ATTEMPTS, _PAUSE_S = 3, 0.2

Outcome = Literal["registered", "quarantined", "unrecognised", "busy", "gone"]


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of reading one file.

    Attributes
    ----------
    record : FileRecord, optional
        What the catalogue should hold; None for ``unrecognised``, ``busy`` and ``gone``.
    bytes_read : int
    """

    entry: Entry
    outcome: Outcome
    record: FileRecord | None = None
    bytes_read: int = 0


def examine(site: Site, entry: Entry, known_format: str | None = None) -> Examined:
    """Read a file and return what the catalogue should hold of it; no error of one file is raised.

    Parameters
    ----------
    site : Site
    entry : Entry
    known_format : str, optional
        Format as which the file is registered already: it must not silently turn into no known file.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_S)
            try:
                status = os.lstat(entry.path)
            except OSError:
                return Examined(entry, "gone")
            entry = replace(entry, size=status.st_size, mtime_ns=time_of_change(status))
        try:
            return _examine(site, entry, known_format)
        except FileChangedError:
            continue
        except FileNotFoundError:
            return Examined(entry, "gone")
        except OSError as error:
            # No checksum: the file is tried again at the next ingest, whatever its time says.
            record = _quarantined(site, entry, known_format or "unknown", f"can't be read: {error.strerror or error}")
            return Examined(entry, "quarantined", record)
    return Examined(entry, "busy")


def _examine(site: Site, entry: Entry, known_format: str | None) -> Examined:
    description = describe(entry, os.fsencode(site.root), known_format, describe_apart)
    if description.format is None or description.checksums is None:
        return Examined(entry, "unrecognised", bytes_read=description.bytes_read)
    failure, record = description.failure, None
    if description.metadata is not None:
        record = _registered(site, entry, description.format, description.metadata, description.checksums)
        failure = refusal(record)
    if record is None or failure is not None:
        # What needs another program to be read is tried again; what is broken is not, until it changes.
        again = not isinstance(failure, FormatError)
        checksums = None if again else description.checksums
        reason = str(failure).removeprefix(entry.source).lstrip(": ")  # the record names the file
        record = _quarantined(site, entry, description.format, reason, checksums)
        return Examined(entry, "quarantined", record, description.bytes_read)
    return Examined(entry, "registered", record, description.bytes_read)


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


def _registered(site: Site, entry: Entry, format: str, metadata: Metadata, checksums: Checksums) -> FileRecord:
    attributes: dict[str, Scalar] = {
        name: value
        for name, value in metadata.attributes.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    faults = [f"the path: {fault}" for fault in site.faults(entry.source)]
    told = [f"byte {problem.offset}: {problem.reason}" for problem in metadata.problems]
    if problems := [*told, *faults]:
        attributes |= {"problems": len(problems), "problem": problems[0]}
    said = site.values(entry.source)
    attributes |= {name: value for name, value in said.items() if name not in FIELDS}
    fields: Mapping[str, Any] = {name: value for name, value in said.items() if name in FIELDS}
    start, end = metadata.time_start, metadata.time_end
    night = fields.get("night")
    if isinstance(night, date) and metadata.night is not None:
        start, end = _shifted(start, night - metadata.night), _shifted(end, night - metadata.night)
    return FileRecord(
        path=site.path_of(entry.source),
        site=site.name,
        source=entry.source,
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        checksum=checksums.blake3,
        adler32=checksums.adler32,
        format=format,
        experiment=site.experiment,
        run=fields.get("run", metadata.run),
        night=fields.get("night", metadata.night),
        time_start=start,
        time_end=end,
        telescope=fields.get("telescope", metadata.telescope),
        cluster=fields.get("cluster", metadata.cluster),
        events=metadata.events,
        attributes=attributes,
    )


def _shifted(time: datetime | None, by: timedelta) -> datetime | None:
    """Move a time that a reader counted from its own reading of the night to the night that the site says."""
    return None if time is None else time + by


def _quarantined(site: Site, entry: Entry, format: str, reason: str, checksums: Checksums | None = None) -> FileRecord:
    said = {
        name: value
        for name, value in site.values(entry.source).items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    fields: dict[str, Any] = {name: value for name, value in said.items() if name in FIELDS}
    return FileRecord(
        path=site.path_of(entry.source),
        site=site.name,
        source=entry.source,
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        checksum=checksums.blake3 if checksums else "",
        adler32=checksums.adler32 if checksums else "",
        format=format,
        experiment=site.experiment,
        state=State.QUARANTINED,
        reason=reason,
        attributes={name: value for name, value in said.items() if name not in FIELDS},
        **fields,
    )

"""One file of a site, read once, and what the catalogue should hold of it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Literal

from apbatch.errors import FormatError
from apbatch.formats.reader import readers
from apbatch.index.contents import Content
from apbatch.index.files import FileRecord
from apbatch.ingest.reading.description import OTHER, UNKNOWN, FileChangedError, describe
from apbatch.ingest.reading.parsing import describe_apart
from apbatch.ingest.records import quarantined, refusal, registered
from apbatch.ingest.site import Site
from apbatch.ingest.walk import Entry, time_of_change

#: How often a file is read that changes meanwhile, and the pause between.
_ATTEMPTS, _PAUSE_S = 3, 0.2

Outcome = Literal["registered", "quarantined", "unrecognised", "busy", "gone"]


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of reading one file.

    Attributes
    ----------
    record : FileRecord, optional
        What the catalogue should hold; None for ``busy`` and ``gone``.
    content : Content, optional
        All hashes of its content, if it was read.
    """

    entry: Entry
    outcome: Outcome
    record: FileRecord | None = None
    content: Content | None = None


def examine(site: Site, entry: Entry, format: str = UNKNOWN) -> Examined:
    """Read a file and return what the catalogue should hold of it; no error of one file is raised.

    Parameters
    ----------
    site : Site
    entry : Entry
    format : str
        Format as which the file is registered already: it must not silently turn into no known file.
    """
    known_format = None if format in (UNKNOWN, OTHER) else format
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
        except (FileNotFoundError, NotADirectoryError):
            return Examined(entry, "gone")
        except OSError as error:
            # No checksum: the file is tried again at the next ingest, whatever its time says.
            record = quarantined(site, entry, known_format or UNKNOWN, f"can't be read: {error.strerror or error}")
            return Examined(entry, "quarantined", record)
    return Examined(entry, "busy")


def _examine(site: Site, entry: Entry, known_format: str | None) -> Examined:
    description = describe(entry, os.fsencode(site.root), known_format, describe_apart)
    content, failure, record = description.content, description.failure, None
    if description.metadata is not None:
        record = registered(site, entry, description.format, description.metadata, content)
        failure = refusal(record)
    if record is None or failure is not None:
        # What needs another program to be read is tried again; what is broken is not, until it changes.
        again = not isinstance(failure, FormatError)
        reason = str(failure).removeprefix(entry.source).lstrip(": ")  # the record names the file
        record = quarantined(site, entry, description.format, reason, None if again else content)
        return Examined(entry, "quarantined", record, content)
    outcome: Outcome = "registered" if description.format in readers() else "unrecognised"
    return Examined(entry, outcome, record, content)

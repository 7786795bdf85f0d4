"""One file of a site: recognised, hashed and described in one reading."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Literal

from apbatch.errors import ApbatchError, FormatError
from apbatch.formats.reader import Attribute, Metadata, Reader, Scalar, readers, recognise
from apbatch.index.files import FileRecord, State
from apbatch.ingest.sites import FIELDS, Site, open_plain
from apbatch.ingest.walk import Entry
from apbatch.storage.hashing import BLOCK, Hasher
from apbatch.storage.store import Checksums

#: Attributes that every registered file may have.
ATTRIBUTES = (
    Attribute("problems", "integer", "Places in the file that could not be read and were passed over, 101 at most."),
    Attribute("problem", "string", "The first of them: its byte and what is wrong."),
)

#: How often a file is read that changes meanwhile, and the pause between.
_ATTEMPTS, _PAUSE_S = 3, 0.2
_BUFFER = 1 << 20

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


class _HashedStream(io.RawIOBase):
    """A file read from start to end, hashed on the way."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.hasher = Hasher()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self.hasher.update(memoryview(buffer)[:count])
        return count


class _ChangedError(Exception):
    """The file changed while it was read."""


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
            entry = replace(entry, size=status.st_size, mtime_ns=status.st_mtime_ns)
        try:
            return _examine(site, entry, known_format)
        except _ChangedError:
            continue
        except FileNotFoundError:
            return Examined(entry, "gone")
        except OSError as error:
            # No checksum: the file is tried again at the next ingest, whatever its time says.
            record = _quarantined(site, entry, known_format or "unknown", f"can't be read: {error.strerror or error}")
            return Examined(entry, "quarantined", record)
    return Examined(entry, "busy")


def _examine(site: Site, entry: Entry, known_format: str | None) -> Examined:
    name = entry.source
    with os.fdopen(open_plain(entry.path, os.fsencode(site.root)), "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != (entry.size, entry.mtime_ns):
            raise _ChangedError
        head = os.pread(file.fileno(), max(reader.head_bytes for reader in readers().values()), 0)
        reader = _recognise(name, head, file)
        if reader is None and known_format is None:
            return Examined(entry, "unrecognised", bytes_read=len(head))
        file.seek(0)
        metadata: Metadata | None = None
        failure: ApbatchError | None = None
        if reader is None:
            checksums = _drained(_HashedStream(file))
            failure = FormatError(f"no longer recognised as {known_format}")
        elif reader.seeks:
            checksums = _drained(_HashedStream(file))
            file.seek(0)
            metadata, failure = _metadata(reader, io.BufferedReader(file, _BUFFER), name)
        else:
            stream = _HashedStream(file)
            metadata, failure = _metadata(reader, io.BufferedReader(stream, _BUFFER), name)
            checksums = _drained(stream)
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns, checksums.size) != (entry.size, entry.mtime_ns, entry.size):
            raise _ChangedError
    format = reader.name if reader is not None else known_format or "unknown"
    if metadata is None:
        # What needs another program to be read is tried again; what is broken is not, until it changes.
        again = failure is not None and not isinstance(failure, FormatError)
        record = _quarantined(site, entry, format, str(failure), None if again else checksums)
        return Examined(entry, "quarantined", record, checksums.size)
    return Examined(entry, "registered", _registered(site, entry, format, metadata, checksums), checksums.size)


def _recognise(name: str, head: bytes, file: io.FileIO) -> Reader | None:
    try:
        return recognise(name, head, file)  # type: ignore[arg-type]  # an unbuffered file reads as well
    except OSError:
        raise
    except Exception as error:  # a plug-in must not end the ingest of all other files
        raise OSError(f"a reader failed to look at it: {type(error).__name__}: {error}") from error


def _metadata(reader: Reader, stream: Any, name: str) -> tuple[Metadata | None, ApbatchError | None]:
    try:
        return reader.metadata(stream, name), None
    except ApbatchError as error:
        return None, error
    except OSError:
        raise
    except Exception as error:  # hostile content finds the holes of a plug-in; the rest must go on
        return None, FormatError(f"the reader failed: {type(error).__name__}: {error}", where=name)
    finally:
        if not stream.closed:
            stream.detach()


def _drained(stream: _HashedStream) -> Checksums:
    """Read on to the end, past where a reader stopped, and return the checksums of the whole file."""
    block = bytearray(BLOCK)
    while stream.readinto(block):
        pass
    return stream.hasher.result()


def _registered(site: Site, entry: Entry, format: str, metadata: Metadata, checksums: Checksums) -> FileRecord:
    attributes: dict[str, Scalar] = {
        name: value
        for name, value in metadata.attributes.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    if metadata.problems:
        first = metadata.problems[0]
        attributes |= {"problems": len(metadata.problems), "problem": f"byte {first.offset}: {first.reason}"}
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
    said = site.values(entry.source)
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

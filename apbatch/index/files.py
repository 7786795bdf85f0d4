"""What the catalogue holds of files: records, copies, entries of the merged tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Literal

from apbatch.formats.reader import Scalar


class State(StrEnum):
    """What is known of a file."""

    #: Name, size and time, as listed at the site; neither content nor metadata were read yet.
    LISTED = "listed"
    #: Read: checksum and metadata are those of its content.
    REGISTERED = "registered"
    #: Registered once, now gone from its site.
    MISSING = "missing"
    #: Gone from its site, but a verified replica of it is left.
    ARCHIVED = "archived"
    #: Not usable; `FileRecord.reason` says why.
    QUARANTINED = "quarantined"


#: Looked up three times as quickly as the enumeration itself.
STATES = {state.value: state for state in State}
#: States of files that the merged tree shows.
VISIBLE = (State.REGISTERED, State.LISTED, State.ARCHIVED)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a site: a holding.

    Texts are valid Unicode without NUL; other bytes of a name are written ``%XX`` (`apbatch.ingest.patterns`).

    Attributes
    ----------
    path : str
        ``/experiment/site/source``; the key.
    site : str
        Name of the site that holds it.
    source : str
        Path below the site's root.
    checksum : str
        BLAKE3, hexadecimal; empty for a listed file and for a quarantined one that could not be read.
    place : str
        Path in the merged tree that the file wants; by default `path`.
    revision : int
        Set by the catalogue; grows with every change of any file.
    reason : str, optional
        Why the file is in quarantine.
    attributes : Mapping
        Typed attributes beyond the common ones, in their declared units.
    """

    path: str
    site: str
    source: str
    size: int
    mtime_ns: int
    checksum: str
    adler32: str
    format: str
    experiment: str
    state: State = State.REGISTERED
    reason: str | None = None
    run: int | None = None
    night: date | None = None
    time_start: datetime | None = None
    time_end: datetime | None = None
    telescope: int | None = None
    cluster: int | None = None
    events: int | None = None
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    place: str = ""
    revision: int = 0

    def __post_init__(self) -> None:
        if not self.place:
            object.__setattr__(self, "place", self.path)

    def flat(self) -> dict[str, Any]:
        """Return all fields and attributes side by side under their own names, as `apbatch find` prints them."""
        common = {name: getattr(self, name) for name in COMMON_FIELDS}
        return {**common, **self.attributes}


#: Fields of `FileRecord` that every file has, in the order in which they are shown.
COMMON_FIELDS = (
    "path", "place", "site", "source", "size", "mtime_ns", "checksum", "adler32", "format", "experiment", "state",
    "reason", "run", "night", "time_start", "time_end", "telescope", "cluster", "events", "revision",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that the catalogue did not take.

    Attributes
    ----------
    record : FileRecord
    reason : str
        One sentence that names the field and the value.
    """

    record: FileRecord
    reason: str

    def quarantined(self) -> FileRecord:
        """Return the record for quarantine: what the walk knows of the file, the reason, and no metadata.

        A catalogue refuses that too if path, site or source themselves can't be stored.
        """
        return replace(
            self.record, state=State.QUARANTINED, reason=self.reason, run=None, night=None, time_start=None,
            time_end=None, telescope=None, cluster=None, events=None, attributes={},
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class UpsertReport:
    """What became of the records given to `Catalogue.upsert`.

    Attributes
    ----------
    written : int
        Number of files inserted or replaced.
    refusals : tuple of Refusal
        Records that were not taken; the others were.
    """

    written: int
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Replica:
    """A verified copy of a file.

    Attributes
    ----------
    path : str
        Path (key) of the file it copies.
    url : str
        Full store URL.
    kind : str
        ``local``, ``hdfs``, ``webhdfs`` or ``afs``.
    checksum : str
        BLAKE3 of the bytes that were verified; a reader compares it with the file's own, which may have changed since.
    verified : datetime.datetime
        UTC.
    """

    path: str
    url: str
    kind: str
    checksum: str
    verified: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder of the merged tree.

    Attributes
    ----------
    name : str
        Last component; ``NAME@SITE`` where sites hold other content at one place.
    kind : str
        ``file`` or ``folder``.
    size : int
        Bytes; 0 for a folder.
    mtime_ns : int
        Time of last change since 1970, ns; 0 for a folder.
    state : State, optional
        One of `VISIBLE`; None for a folder.
    checksum : str
        BLAKE3 of the content; empty for a folder and for a listed file.
    conflict : bool
        Whether other content lies at the same place.
    """

    name: str
    kind: Literal["file", "folder"]
    size: int = 0
    mtime_ns: int = 0
    state: State | None = None
    checksum: str = ""
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Some entries of a folder, and the cursor for the next ones; None after the last."""

    entries: list[Entry]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """A place at which sites hold different content.

    Attributes
    ----------
    place : str
    entries : Mapping
        Name in the merged tree by path (key) of the holding; holdings of one content share a name.
    """

    place: str
    entries: Mapping[str, str]


def _open_twin(kind: type) -> Any:
    """Return a class with the fields of a frozen dataclass that can be set.

    A back-end makes an object of each row, which is whole and right already: it fills a twin field by field, and then
    gives it the class of what is wanted. A frozen dataclass' own constructor sets each field by a call, and takes
    several times as long.
    """
    return make_dataclass(kind.__name__, [(one.name, Any) for one in fields(kind)], slots=True, eq=False)


#: For those who fill them; nobody else is to see one.
RecordTwin, EntryTwin = _open_twin(FileRecord), _open_twin(Entry)

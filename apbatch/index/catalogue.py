"""The catalogue: one interface, several back-ends, one contract suite (`tests/contract`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa

from apbatch.formats.reader import Attribute, Scalar
from apbatch.index.query import Everything, Query


class State(StrEnum):
    """What is known of a registered file."""

    REGISTERED = "registered"
    MISSING = "missing"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a site, as registered.

    Attributes
    ----------
    path : str
        Logical path in the merged tree, ``/experiment/site/…``; the primary key.
    site : str
        Name of the site that holds it.
    source : str
        Path below the site's root.
    checksum : str
        BLAKE3, hexadecimal; empty for a quarantined file that could not be read.
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
    revision: int = 0

    def flat(self) -> dict[str, Any]:
        """Return all fields and attributes side by side under their own names, as `apbatch find` prints them."""
        common = {name: getattr(self, name) for name in COMMON_FIELDS}
        return {**common, **self.attributes}


@dataclass(frozen=True, slots=True)
class Replica:
    """A verified copy of a file.

    Attributes
    ----------
    path : str
        Logical path of the file it copies.
    url : str
        Full store URL.
    kind : str
        ``local``, ``hdfs``, ``webhdfs`` or ``afs``.
    checksum : str
        BLAKE3 of the bytes that were verified.
    verified : datetime.datetime
        UTC.
    """

    path: str
    url: str
    kind: str
    checksum: str
    verified: datetime


#: Fields of `FileRecord` that every file has, in the order in which they are shown.
COMMON_FIELDS = (
    "path", "site", "source", "size", "mtime_ns", "checksum", "adler32", "format", "experiment", "state", "reason",
    "run", "night", "time_start", "time_end", "telescope", "cluster", "events", "revision",
)  # fmt: skip


class Catalogue(ABC):
    """Files, replicas and event parameters of all sites.

    Writes are idempotent (upsert by key) and whole: a killed writer leaves a record old or new, never half.
    """

    @abstractmethod
    def declare(self, attributes: Iterable[Attribute]) -> None:
        """Make attributes known for typing and units.

        Raises
        ------
        UsageError
            If a name is declared already with another type or unit.
        """

    @abstractmethod
    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query may name, common ones included."""

    @abstractmethod
    def upsert(self, records: Iterable[FileRecord]) -> int:
        """Insert or replace files by path; return how many were written."""

    @abstractmethod
    def remove(self, paths: Iterable[str]) -> None:
        """Forget files and their replicas."""

    @abstractmethod
    def get(self, path: str) -> FileRecord | None:
        """Return one file, or None."""

    @abstractmethod
    def list_directory(self, directory: str) -> Iterator[tuple[str, bool]]:
        """Yield (name, is_directory) of the entries of a folder of the merged tree, names sorted."""

    @abstractmethod
    def of_site(self, site: str) -> Iterator[FileRecord]:
        """Yield every file of a site, in any state."""

    @abstractmethod
    def select(self, query: Query, limit: int | None = None) -> Iterator[FileRecord]:
        """Yield the files that match, by path.

        Quarantined and missing files match only if the query names `state`.

        Raises
        ------
        UsageError
            If the back-end can't serve the query without a full scan; the message says why.
        """

    @abstractmethod
    def count(self, query: Query, by: str | None = None) -> dict[Any, int]:
        """Count matching files, by the values of attribute `by`; one entry under None without `by`."""

    @abstractmethod
    def explain(self, query: Query) -> str:
        """Return how the back-end would answer, for people."""

    @abstractmethod
    def changes(self, since: int) -> Iterator[FileRecord]:
        """Yield files with a revision above `since`, oldest change first."""

    @abstractmethod
    def add_replica(self, replica: Replica) -> None:
        """Record (or renew) a replica, by path and URL."""

    @abstractmethod
    def replicas(self, path: str) -> list[Replica]:
        """Return the replicas of a file."""

    @abstractmethod
    def remove_replica(self, path: str, url: str) -> None:
        """Forget a replica."""

    @abstractmethod
    def upsert_events(self, events: pa.RecordBatch) -> int:
        """Insert or replace image parameters by (experiment, run, event, telescope, cleaning); return their number.

        The batch has the columns of `EVENT_KEYS`, numbers (parameters), and may have those of `POINTER`.
        """

    @abstractmethod
    def select_events(
        self, where: Query = Everything(), parameters: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield events that match, ordered by key: the columns of `EVENT_KEYS` and `POINTER`, and image parameters.

        Parameters
        ----------
        where : Query
            Of the attributes that `event_attributes` returns.
        parameters : sequence of str, optional
            Which image parameters to give, one float64 column each; by default all that these experiments have.

        Raises
        ------
        UsageError
            If the back-end can't serve the query without a full scan; the message says why.
        """

    @abstractmethod
    def event_attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query of events may name."""

    @abstractmethod
    def close(self) -> None:
        """Release connections."""

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


#: Key of an image's parameters; `cleaning` names how the image was cleaned (``none``, ``tailcuts-14-7``, …).
EVENT_KEYS = ("experiment", "run", "event", "telescope", "cleaning")
#: Where an event's image is: URL of a dataset, name of its part file, row group, row in the row group.
POINTER = ("dataset", "image_file", "image_row_group", "image_row")


def open_catalogue(url: str) -> Catalogue:
    """Open (and on first use create) the catalogue at ``sqlite:///FILE`` or ``cassandra://HOST:PORT/KEYSPACE``.

    Raises
    ------
    UsageError
        If the scheme is unknown.
    ServerError
        If the server can't be reached.
    """
    from apbatch.index.backends import backend_for  # the back-ends import this module

    return backend_for(url)

"""What a format plug-in is: it recognises its files, extracts metadata, and, where there are images, reads them.

Plug-ins are found through the entry-point group ``apbatch.readers``. Input is hostile until proven otherwise:
a reader raises `FormatError` with file, place and remedy, or reports a `Problem` and goes on with the next record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from importlib.metadata import entry_points
from typing import BinaryIO, ClassVar, Literal

import pyarrow as pa

from apbatch.errors import FormatError
from apbatch.formats.text.lines import Problem, Problems

Scalar = str | int | float | bool | date | datetime
AttributeType = Literal["string", "integer", "number", "boolean", "date", "time"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """Declaration of one searchable attribute.

    Attributes
    ----------
    name : str
        Lower-case identifier.
    type : str
        ``string``, ``integer``, ``number``, ``boolean``, ``date`` or ``time`` (UTC).
    unit : str, optional
        Unit of the stored number; a query's units are converted to it.
    description : str
        One sentence.
    """

    name: str
    type: AttributeType
    description: str
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a reader finds in one file; None means that the format does not tell.

    Attributes
    ----------
    night : datetime.date, optional
        Date of the evening on which the observing night began (UTC date of the noon before).
    time_start, time_end : datetime.datetime, optional
        UTC, of the first and last event.
    events : int, optional
        Number of whole, readable events.
    attributes : Mapping
        More attributes by name; each is declared in the reader's `attributes`.
    problems : tuple of Problem
        Records passed over; a file with problems is still registered.
    """

    experiment: str | None = None
    run: int | None = None
    night: date | None = None
    time_start: datetime | None = None
    time_end: datetime | None = None
    telescope: int | None = None
    cluster: int | None = None
    events: int | None = None
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file that is read by itself; the parts that `Reader.spans` gives hold every record once.

    Attributes
    ----------
    start, stop : int
        What they count is the reader's: bytes, row groups, entries. A record belongs to the span in which it begins.
    """

    start: int
    stop: int


def even_spans(count: int, step: int) -> list[Span]:
    """Cut `count` units into spans of `step` units, the last one shorter."""
    step = max(step, 1)
    return [Span(start, min(start + step, count)) for start in range(0, count, step)]


class Reader(ABC):
    """One file format."""

    #: Name of the format in the catalogue, such as ``taiga-raw``.
    name: ClassVar[str]
    #: Attributes that this format adds to the common ones.
    attributes: ClassVar[tuple[Attribute, ...]] = ()
    #: Columns of events that `events` gives beyond those that every event may have.
    event_columns: ClassVar[tuple[Attribute, ...]] = ()
    #: How many first bytes `sniff` wants.
    head_bytes: ClassVar[int] = 4096
    #: Whether `metadata` and `images` need a stream that can seek (Parquet, HDF5); others read from start to end.
    seeks: ClassVar[bool] = False

    @abstractmethod
    def sniff(self, name: str, head: bytes) -> bool:
        """Tell from the file's name and first bytes whether it is of this format."""

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look again, into the whole file, where the first bytes are shared by several formats.

        Raises
        ------
        FormatError
            If the file is so damaged that it can't be told; `claims` decides then.
        """
        return True

    def claims(self, name: str) -> bool:
        """Tell whether the name alone says that a file is of this format."""
        return False

    def isolated(self, head: bytes) -> bool:
        """Tell whether a file is read in a process of its own: one that a library in C parses, of whatever content.

        Parameters
        ----------
        head : bytes
            The first bytes of the file.
        """
        return True

    @abstractmethod
    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Extract metadata, reading in bounded memory.

        Raises
        ------
        FormatError
            If the file is not usable at all; it names the file and the byte or line.
        """

    def spans(self, stream: BinaryIO, name: str, target_bytes: int) -> list[Span]:
        """Return parts of about `target_bytes` that can be read by themselves; empty if only the whole can be.

        Parameters
        ----------
        stream : BinaryIO
            Seekable; of one that is not, nothing can be read but the whole.
        name : str
            Name of the file, for errors.
        target_bytes : int
            Bytes that a part should have.

        Raises
        ------
        FormatError
            If the file is so damaged that its parts can't be told.
        """
        return []

    def events(self, stream: BinaryIO, name: str, problems: Problems | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the events of a file as rows of numbers; nothing for formats that have none.

        Parameters
        ----------
        stream : BinaryIO
            Seekable where the reader `seeks`.
        name : str
            Path of the file; it may tell run and night.
        problems : Problems, optional
            Takes what was passed over.

        Returns
        -------
        iterator of RecordBatch
            Columns ``run``, ``event``, ``telescope`` and ``cleaning``, which tell events of one experiment apart,
            ``time`` (nanoseconds, UTC) where there is one, image parameters under their usual names and in their
            usual units, and those that `event_columns` declares.

        Raises
        ------
        FormatError
            If the file is not usable at all, or not usable further.
        """
        return iter(())


class ImageReader(Reader):
    """A format that holds camera images, one a record."""

    @abstractmethod
    def images(
        self,
        stream: BinaryIO,
        name: str,
        batch_size: int = 1024,
        span: Span | None = None,
        problems: Problems | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the images in `apbatch.formats.images.image_schema`.

        Each batch is of one camera, which its schema names and describes (`apbatch.formats.images.camera_in`); of a
        file with several cameras, batches of one may follow those of another.

        Parameters
        ----------
        stream : BinaryIO
        name : str
            Path or URL of the file; it may tell run and night.
        batch_size : int
            Most images in a batch.
        span : Span, optional
            One of `spans`, read alone; needs a stream that can seek.
        problems : Problems, optional
            Takes what was passed over.

        Raises
        ------
        FormatError
            If the file is not usable at all, or not usable further.
        """

    def truth(self, stream: BinaryIO, name: str, batch_size: int = 1024) -> Iterator[pa.RecordBatch]:
        """Yield Monte Carlo truth in `apbatch.formats.images.TRUTH_SCHEMA`; nothing for real data.

        Parameters
        ----------
        stream : BinaryIO
        name : str
            Name of the file, which may tell run, telescope and primary.
        batch_size : int
            Most rows of a batch.
        """
        return iter(())


@cache
def readers() -> dict[str, Reader]:
    """Return one instance of every installed reader by format name."""
    plugins = [entry.load()() for entry in entry_points(group="apbatch.readers")]
    return {reader.name: reader for reader in sorted(plugins, key=lambda reader: reader.name)}


def recognise(name: str, head: bytes, stream: BinaryIO | None = None) -> Reader | None:
    """Return the reader of a file, or None.

    Parameters
    ----------
    name : str
        Its name, or its path below the root of its site.
    head : bytes
        Its first bytes.
    stream : BinaryIO, optional
        The file, seekable; without it, the first bytes decide.

    Raises
    ------
    FormatError
        If it is so damaged that no reader can tell, and its name does not.
    """
    damage: FormatError | None = None
    claiming: Reader | None = None
    for reader in candidates(name, head):
        if stream is None:
            return reader
        stream.seek(0)
        try:
            confirmed = reader.confirm(stream, name)
        except FormatError as error:
            confirmed, damage = False, damage or error
            claiming = claiming or (reader if reader.claims(name) else None)
        stream.seek(0)
        if confirmed:
            return reader
    if damage is not None and claiming is None:
        raise damage
    return claiming


def candidates(name: str, head: bytes) -> list[Reader]:
    """Return the readers that take a file for one of theirs by its name and first bytes."""
    return [reader for reader in readers().values() if reader.sniff(name, head[: reader.head_bytes])]

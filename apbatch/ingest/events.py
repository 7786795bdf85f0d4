"""Events of a site's files into the store of events: what readers give, with the file that each came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from apbatch.errors import FormatError
from apbatch.formats.reader import Reader, readers
from apbatch.formats.text.lines import Problems
from apbatch.index.catalogue import Catalogue
from apbatch.index.events.store import EventStore
from apbatch.index.files import FileRecord, State
from apbatch.index.query import And, Compare
from apbatch.ingest.event_reading import read_events
from apbatch.ingest.site import Site


@dataclass
class EventsSummary:
    """What a load of events did.

    Attributes
    ----------
    files, events : int
        Files that were read, events that they gave.
    unchanged : int
        Files whose events were there already.
    failed : dict
        Why events of a file could not be loaded, by its path below the root; what was there of it stays.
    notes : list of str
        What else people should know.
    """

    files: int = 0
    events: int = 0
    unchanged: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def event_readers() -> dict[str, Reader]:
    """Return the readers whose files have events, by format."""
    return {name: reader for name, reader in readers().items() if type(reader).events is not Reader.events}


def load_events(site: Site, catalogue: Catalogue, store: EventStore, *, again: bool = False) -> EventsSummary:
    """Load the events of the registered files of a site; a file whose events are there is not read again.

    What is there is known by the file's content, so that a load that was stopped goes on where it stopped. A file that
    can't be read stops no other.

    Parameters
    ----------
    site : Site
    catalogue : Catalogue
    store : EventStore
    again : bool
        Read files whose events are there already.

    Raises
    ------
    UsageError
        If a reader's column is known with another type or unit.
    ServerError
    """
    summary = EventsSummary()
    by_format = event_readers()
    declared = {column.name: column for reader in by_format.values() for column in reader.event_columns}
    store.declare(declared.values())
    mine = Compare("experiment", "=", site.experiment)
    loaded = store.count(mine, "content")
    for record in catalogue.of_site(site.name):
        reader = by_format.get(record.format)
        if reader is None or record.state is not State.REGISTERED or not record.checksum:
            continue
        if record.checksum in loaded and not again:
            summary.unchanged += 1
            continue
        problems = Problems()
        try:
            number = store.upsert(_of_file(site, record, reader, problems))
        except (FormatError, OSError) as error:
            summary.failed[record.source] = str(error)
            continue
        file = Compare("file", "=", record.path)
        store.remove(And((mine, file, Compare("content", "!=", record.checksum))))  # of what the file was before
        kept = store.count(And((mine, file)))[None]
        if kept > number:  # of what an earlier reader gave: other keys, or rows that are passed over now
            store.remove(And((mine, file)))
            store.upsert(_of_file(site, record, reader, Problems()))
            kept = store.count(And((mine, file)))[None]
        if kept < number:
            summary.notes.append(f"{record.source}: {number - kept} of {number} events have the number of another one")
        summary.files, summary.events = summary.files + 1, summary.events + number
        if problems.count and not record.attributes.get("problems"):  # else the registration said so
            first = problems.kept[0].reason
            summary.notes.append(f"{record.source}: {problems.count} records passed over, first: {first}")
    after = store.count(mine, "content")
    for checksum, number in loaded.items():
        if checksum is not None and 0 < after.get(checksum, 0) < number:
            summary.notes.append(f"{number - after[checksum]} events were replaced by those of another file")
    return summary


def _of_file(site: Site, record: FileRecord, reader: Reader, problems: Problems) -> Iterator[pa.RecordBatch]:
    more = {"experiment": site.experiment, "file": record.path, "content": record.checksum}
    for batch in read_events(record, reader, problems):
        columns = {name: batch.column(name) for name in batch.schema.names}
        origin = {name: pa.array([value] * batch.num_rows, pa.string()) for name, value in more.items()}
        yield pa.RecordBatch.from_pydict({**origin, **columns})

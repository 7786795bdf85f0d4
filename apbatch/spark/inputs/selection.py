"""From a query of events to the images that it picks: files, row groups and rows, so that nothing else is read.

The store of events holds for each where its image was written. A dataset that was made again since (compacted, run
anew) is looked through once more, its key columns alone. If a dataset is gone, the images are read from the registered
files of the run: from a mirror, or on demand from the site.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apbatch.datasets import dataset
from apbatch.datasets.image_rows import Bounds, Places, rows_by_file
from apbatch.errors import NotFoundError, UsageError
from apbatch.formats.image_files import ImagesReader
from apbatch.formats.images import IMAGE_KEY
from apbatch.index.events.columns import POINTER
from apbatch.index.query import And, Compare, In, Query
from apbatch.index.selection import Selection, parse_selection
from apbatch.provenance import digest
from apbatch.spark.inputs.sources import Copies, RawOptions, Source, image_formats, sources_for
from apbatch.spark.registration import keys_at, places_in
from apbatch.storage.backends import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apbatch.config import Settings
    from apbatch.formats.reader import Attribute
    from apbatch.index.files import FileRecord

_KEY_TYPES = pa.schema(
    [("experiment", pa.string()), ("run", pa.int64()), ("event", pa.int64()), ("telescope", pa.int32())]
)


#: Runs that are asked for at once.
_RUNS = 500


class Files(Copies, Protocol):
    """Files to select from: a catalogue, or a server in front of one."""

    def attributes(self) -> dict[str, Attribute]:
        """Return what queries may name."""
        ...

    def select(self, search: Query, /) -> Iterable[FileRecord]:
        """Yield the files that match."""
        ...


class Events(Protocol):
    """Events to select from: a store, or a server in front of one."""

    def attributes(self) -> dict[str, Attribute]:
        """Return what queries may name."""
        ...

    def select(self, where: Query, columns: tuple[str, ...], /) -> Iterator[pa.RecordBatch]:
        """Yield keys and pointers of the events that match, by key."""
        ...


@contextmanager
def registered(settings: Settings) -> Iterator[tuple[Files, Events]]:
    """Open what the settings name to select from: catalogue and events, here or behind a server.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    UsageError, ServerError
    """
    from apbatch.client.transport import is_server

    if is_server(settings.catalogue):
        from apbatch.client.remote import RemoteTransport
        from apbatch.client.served import ServedEvents, ServedFiles

        server = RemoteTransport(settings.catalogue, patient=True)
        with closing(server):
            yield ServedFiles(server), ServedEvents(server)
        return
    from apbatch.index.backends import open_catalogue
    from apbatch.index.events.upgrade import events_of

    with open_catalogue(settings.catalogue) as catalogue, events_of(settings) as events:
        yield catalogue, events


def parse_select(catalogue: Files, events: Events, text: str) -> Selection:
    """Parse what a user wants selected, files or events.

    Parameters
    ----------
    catalogue : Files
    events : Events
    text : str
        The query.

    Raises
    ------
    UsageError
    """
    return parse_selection(text, catalogue.attributes(), events.attributes())


def selected_sources(
    catalogue: Files,
    events: Events,
    selection: Selection,
    prefer: str | None = None,
    *,
    only_preferred: bool = False,
    raw: RawOptions = RawOptions(),
) -> list[Source]:
    """Return the sources of the images that a query of files or of events picks.

    Parameters
    ----------
    catalogue : Files
    events : Events
    selection : Selection
    prefer, only_preferred, raw
        Of registered files, as in `apbatch.spark.inputs.sources.sources_for`.

    Raises
    ------
    UsageError
        If nothing is picked, or as `sources_for`.
    """
    if selection.of_events:
        return event_sources(catalogue, events, selection.query, prefer, only_preferred=only_preferred, raw=raw)
    records = catalogue.select(selection.query)
    return sources_for(catalogue, records, prefer, only_preferred=only_preferred, raw=raw)


def event_sources(
    catalogue: Files,
    events: Events,
    query: Query,
    prefer: str | None = None,
    *,
    only_preferred: bool = False,
    raw: RawOptions = RawOptions(),
) -> list[Source]:
    """Return the sources of the images of events; each image once, whatever number of cleanings it matches with.

    Parameters
    ----------
    catalogue : Files
    events : Events
    query : Query
        A condition on events.
    prefer : str, optional
        Store whose replicas of files are read first.
    only_preferred : bool
        Whether files without such a replica are an error.
    raw : RawOptions

    Raises
    ------
    UsageError
        If no event matches, or there is no image of some of them any more.
    """
    picked = selected_events(events, query)
    if not picked.num_rows:
        raise UsageError("the query picks no event", remedy='apbatch events "QUERY" shows what a query picks')
    of_datasets: list[Source] = []
    left: list[pa.Table] = []
    urls = picked.column("dataset")
    for url in pc.unique(urls).to_pylist():
        if url is None:
            left.append(picked.filter(pc.is_null(urls)))
            continue
        sources, lost = _from_dataset(url, picked.filter(pc.equal(urls, url)))
        of_datasets += sources
        left.append(lost)
    rest = pa.concat_tables(left) if left else picked.slice(0, 0)
    return [*of_datasets, *_from_files(catalogue, rest, prefer, only_preferred=only_preferred, raw=raw)]


def selected_events(store: Events, query: Query) -> pa.Table:
    """Return keys and pointers of the events that match, by key; of several rows with one key, the first."""
    columns = [*_KEY_TYPES.names, *POINTER]
    batches = [batch.select(columns) for batch in store.select(query, ())]
    if not batches:
        return pa.table({name: [] for name in columns}, schema=pa.schema([*_KEY_TYPES, *_pointer_fields()]))
    events = pa.Table.from_batches(batches)
    # Rows come by key: a row that repeats the one before is of another cleaning.
    repeats = pa.array(np.zeros(1, bool))
    same = None
    for name in IMAGE_KEY:
        column = events.column(name).combine_chunks()
        equal = pc.equal(column.slice(1), column.slice(0, len(column) - 1))
        same = equal if same is None else pc.and_(same, equal)
    return events.filter(pc.invert(pa.concat_arrays([repeats, same])))


def events_digest(events: pa.Table) -> str:
    """Return the hash of which events are picked, and of the datasets that hold their images."""
    return digest([events.column(name).to_pylist() for name in (*IMAGE_KEY, "dataset")])


def _pointer_fields() -> Iterator[pa.Field]:
    for name in POINTER:
        yield pa.field(name, pa.string() if name in ("dataset", "image_file") else pa.int64())


def _from_dataset(url: str, events: pa.Table) -> tuple[list[Source], pa.Table]:
    """Return the sources of events in one dataset, and the events whose images are not in it."""
    try:
        sidecar, names = dataset.info(url), dataset.part_files(url)
    except NotFoundError:
        return [], events
    files = {name: number for number, name in enumerate(names)}
    numbers = np.array([files.get(name, -1) for name in events.column("image_file").to_pylist()], np.int64)
    groups, rows = (_integers(events, name) for name in ("image_row_group", "image_row"))
    stale = numbers < 0
    if stale.any():  # made again since the catalogue heard of it
        keys = events.filter(pa.array(stale))
        places = places_in(url, Bounds.of(keys))
        moved, groups[stale], rows[stale] = places.find(keys)
        renamed = np.array([files.get(name, -1) for name in places.files] + [-1], np.int64)
        numbers[stale] = renamed[moved]
    store, camera = open_store(url), sidecar.get("camera")
    sources = [
        Source(store.url_of(name), ImagesReader.name, _experiment(events), camera=camera, rows=file_rows)
        for name, file_rows in sorted(rows_by_file(names, numbers, groups, rows).items())
    ]
    return sources, events.filter(pa.array(numbers < 0))


def _from_files(
    catalogue: Files, events: pa.Table, prefer: str | None, *, only_preferred: bool, raw: RawOptions
) -> list[Source]:
    """Return the sources of events whose images are in no dataset: the registered files of their runs."""
    chunk_sources: list[Source] = []
    for experiment in pc.unique(events.column("experiment")).to_pylist():
        mine = events.filter(pc.equal(events.column("experiment"), experiment))
        runs = pc.unique(mine.column("run")).to_pylist()
        records = [
            record
            for start in range(0, len(runs), _RUNS)
            for record in catalogue.select(_of_runs(experiment, runs[start : start + _RUNS]))
            if record.format in image_formats()
        ]
        if not records:
            raise UsageError(
                f"the images of {mine.num_rows} events of {experiment} are gone, no file of their runs is registered",
                where=next((url for url in mine.column("dataset").to_pylist() if url), None),
                remedy="run the step again that made the dataset, or register the files with `apbatch ingest`",
            )
        for source in sources_for(catalogue, records, prefer, only_preferred=only_preferred, raw=raw):
            part = mine if source.run is None else mine.filter(pc.equal(mine.column("run"), source.run))
            if source.format == ImagesReader.name:
                rows = _rows_of(source.url, part)
                chunk_sources += [replace(source, rows=rows)] if rows else []
            elif part.num_rows:
                keys = zip(*(part.column(name).to_pylist() for name in ("run", "event", "telescope")), strict=True)
                chunk_sources.append(replace(source, only=tuple(keys)))
    return chunk_sources


def _of_runs(experiment: str, runs: Sequence[int]) -> Query:
    return And((Compare("experiment", "=", experiment), In("run", tuple(runs))))


def _rows_of(url: str, events: pa.Table) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Find images in one registered Parquet file, by its key columns."""
    places = Places()
    places.take(url, keys_at(url, Bounds.of(events)))
    return rows_by_file([url], *places.find(events)).get(url, ())


def _experiment(events: pa.Table) -> str:
    return str(events.column("experiment")[0])


def _integers(events: pa.Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(pc.fill_null(events.column(name), -1).to_numpy(), np.int64)

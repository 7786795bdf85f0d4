"""Image parameters into the store of events, each with the place of the image that it describes."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from apbatch.camera.hillas import PARAMETERS
from apbatch.datasets import dataset
from apbatch.datasets.image_rows import Bounds, Places, keys_in
from apbatch.errors import UsageError
from apbatch.formats.parser_process import stream_apart
from apbatch.index.events.columns import EVENT_KEYS, POINTER
from apbatch.index.query import And, Compare
from apbatch.spark.inputs.opening import open_input
from apbatch.spark.inputs.splits import sizes_of
from apbatch.storage.backends import open_store

if TYPE_CHECKING:
    from apbatch.index.events.store import EventStore

_EVENTS_A_BATCH = 50_000


def register_events(events: EventStore, parameters_url: str) -> int:
    """Write image parameters into the store of events, with pointers to the images they describe.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    NotFoundError, FormatError, UsageError
    """
    sidecar = dataset.info(parameters_url)
    if sidecar.get("kind") != "parameters":
        raise UsageError("not a dataset of image parameters", where=parameters_url)
    images_url = sidecar.get("images_url")
    places = Places()
    if images_url is not None and dataset.is_complete(str(images_url)):
        places = places_in(str(images_url))
    batches = dataset.read_batches(parameters_url, [*EVENT_KEYS, *PARAMETERS], _EVENTS_A_BATCH)
    return events.upsert(_pointed(batch, images_url, places) for batch in batches)


def point_again(events: EventStore, images_url: str) -> int:
    """Renew the pointers of events whose images were moved within a dataset; return how many.

    Raises
    ------
    NotFoundError, FormatError, ServerError
    """
    places = places_in(images_url)
    rows = 0
    for experiment in places.experiments():
        query = And((Compare("experiment", "=", experiment), Compare("dataset", "=", images_url)))
        batches = (batch.drop_columns(list(POINTER)) for batch in events.select(query))
        rows += events.upsert(_pointed(batch, images_url, places) for batch in batches)
    return rows


def places_in(images_url: str, bounds: Bounds | None = None) -> Places:
    """Find where the images of a dataset lie, by reading its key columns.

    Raises
    ------
    NotFoundError, FormatError
    """
    store, places = open_store(images_url), Places()
    for name in dataset.part_files(images_url):
        places.take(name, keys_at(store.url_of(name), bounds))
    return places


def keys_at(url: str, bounds: Bounds | None = None) -> Iterator[tuple[int, pa.Table]]:
    """Do what `apbatch.datasets.image_rows.keys_in` does, in a process of its own.

    Raises
    ------
    NotFoundError, FormatError
    """
    size, _ = sizes_of([url])[url]
    return stream_apart(_keys_at, url, bounds, size=size, where=url)


def _keys_at(url: str, bounds: Bounds | None) -> Generator[tuple[int, pa.Table], None, None]:
    with open_input(url) as stream:
        yield from keys_in(stream, url, bounds)


def _pointed(batch: pa.RecordBatch, images_url: str | None, places: Places) -> pa.RecordBatch:
    """Add the columns of `POINTER`; null where the image was not found."""
    numbers, groups, rows = places.find(batch)
    missing = numbers < 0
    names = np.array([*places.files, None], object)[numbers]
    added: list[Any] = [
        pa.array([images_url] * batch.num_rows, pa.string()),
        pa.array(names, pa.string()),
        pa.array(groups, pa.int64(), mask=missing),
        pa.array(rows, pa.int64(), mask=missing),
    ]
    arrays = [*batch.columns, *added]
    return pa.RecordBatch.from_arrays(arrays, names=[*batch.schema.names, *POINTER])

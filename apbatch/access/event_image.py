"""The image of one event, for whoever may read it: from its dataset or the file it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apbatch.access.guard import Guard
from apbatch.access.opening import Files
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.instruments.registry import camera_named
from apbatch.datasets import dataset
from apbatch.datasets.image_rows import read_rows, schema_in
from apbatch.errors import ApbatchError, NotFoundError
from apbatch.formats.images import IMAGE_KEY, camera_in, from_binary
from apbatch.formats.reader import ImageReader, readers
from apbatch.storage.backends import open_store

#: Files larger than this are not looked through for one image.
_LARGEST_FILE = 2 * 2**30


@dataclass(frozen=True, eq=False)
class EventImage:
    """One camera image.

    Attributes
    ----------
    camera : CameraGeometry
    pixels : ndarray of float32, shape (n_pixels,)
        Photo-electrons; NaN: not measured.
    times : ndarray of float32, shape (n_pixels,), optional
        Arrival times, ns.
    """

    camera: CameraGeometry
    pixels: npt.NDArray[np.float32]
    times: npt.NDArray[np.float32] | None


def image_of_event(
    door: Guard, files: Files | None, key: tuple[str, int, int, int], rows: Sequence[Mapping[str, Any]]
) -> EventImage:
    """Return the image of an event.

    Parameters
    ----------
    door : Guard
        Has given the rows: who asks may read the event.
    files : callable, optional
        Opens entries of the merged tree; without it only datasets are looked into.
    key : tuple
        Experiment, run, event and telescope.
    rows : sequence of Mapping
        The event as the store of events has it.

    Raises
    ------
    NotFoundError
        If there is no image, or it may not be read.
    """
    for row in rows:
        if row.get("dataset"):
            try:
                image = _in_dataset(row, key)
            except (ApbatchError, OSError):
                continue  # made again or gone: the file that the event was read from may still be there
            if image is not None:
                return image
    paths = dict.fromkeys(str(row["file"]) for row in rows if row.get("file"))
    for path in paths:
        if files is not None and (image := _in_file(door, files, path, key)) is not None:
            return image
    raise NotFoundError("there is no image of this event")


def _in_dataset(row: Mapping[str, Any], key: tuple[str, int, int, int]) -> EventImage | None:
    url, name = str(row["dataset"]), str(row["image_file"])
    store, about = open_store(url), dataset.info(url)
    place = store.url_of(name)
    with store.open(name) as stream:
        schema = schema_in(stream, place)
        stream.seek(0)
        columns = {"experiment": pa.string(), "run": pa.int64(), "event": pa.int64(), "telescope": pa.int32(),
                   "image": pa.binary(), "peak_time": pa.binary()}  # fmt: skip
        groups = ((int(row["image_row_group"]), (int(row["image_row"]),)),)
        batch = next(read_rows(stream, place, groups, columns, 1), None)
    if batch is None or tuple(batch.column(one)[0].as_py() for one in IMAGE_KEY) != key:
        return None
    carried = b"apbatch.camera" in (schema.metadata or {})
    return _image(batch, camera_in(schema) if carried else camera_named(str(about.get("camera"))))


def _in_file(door: Guard, files: Files, path: str, key: tuple[str, int, int, int]) -> EventImage | None:
    record = door.get(path)
    if record is None or record.size > _LARGEST_FILE or not door.may_read(record):
        return None
    reader = readers().get(record.format)
    if not isinstance(reader, ImageReader):
        return None
    _, run, event, telescope = key
    with ExitStack() as stack, suppress(ApbatchError, OSError):
        stream = stack.enter_context(files(door, record.place).stream())
        for batch in reader.images(stream, record.source):
            same = pc.and_(
                pc.and_(pc.equal(batch.column("run"), run), pc.equal(batch.column("event"), event)),
                pc.equal(batch.column("telescope"), telescope),
            )
            rows = np.flatnonzero(np.asarray(pc.fill_null(same, False)))
            if len(rows):
                return _image(batch.slice(int(rows[0]), 1), camera_in(batch.schema))
    return None


def _image(batch: pa.RecordBatch, camera: CameraGeometry) -> EventImage:
    pixels = np.array(from_binary(batch.column("image"))[0], np.float32)
    times = None
    if "peak_time" in batch.schema.names and batch.column("peak_time").null_count == 0:
        times = np.array(from_binary(batch.column("peak_time"))[0], np.float32)
    return EventImage(camera, pixels, times)

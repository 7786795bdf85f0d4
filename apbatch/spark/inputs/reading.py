"""Reading of whole images in Spark's workers: a damaged file or image is counted as a loss, and the job goes on."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from apbatch.camera.geometry import CameraGeometry
from apbatch.chain.steps import CLEANED, IMAGES, conform, images_of
from apbatch.datasets.commit import Loss
from apbatch.datasets.image_rows import only_wanted, read_rows
from apbatch.errors import ApbatchError, FormatError
from apbatch.formats.images import camera_in, camera_of
from apbatch.formats.parquet import open_parquet, reading
from apbatch.formats.reader import ImageReader, Span, readers
from apbatch.formats.text.lines import Problems
from apbatch.spark.inputs.guard import guarded
from apbatch.spark.inputs.opening import fails_for_all, open_input
from apbatch.spark.inputs.sources import UNKNOWN_EXPERIMENT, Source
from apbatch.spark.inputs.splits import DATASET, Piece

#: Reasons of losses, as they are counted.
UNREADABLE_FILE = "unreadable files"
DAMAGED_RECORD = "damaged places in files"
DAMAGED_IMAGES = "damaged images"
REPEATED_RECORD = "records repeated within an event"
OTHER_CAMERA = "images of another camera"
OTHER_CLUSTER = "records of another cluster than the camera has"
NO_FACTORS = "records of clusters without conversion factors"
POOR_PEDESTAL = "records in files too short for a pedestal"
#: Reasons that are about a whole file: several tasks that meet them in one file count once.
OF_FILES = frozenset({UNREADABLE_FILE})


def read_piece(piece: Piece, camera: CameraGeometry, losses: list[Loss], batch_size: int) -> Iterator[pa.RecordBatch]:
    """Read a file, a stretch of it or some of its rows: batches of schema `IMAGES`, or `CLEANED` from a dataset.

    A file that takes too much time or memory, or ends the process that parses it, is lost as a damaged one is.

    Parameters
    ----------
    piece : Piece
    camera : CameraGeometry
    losses : list of Loss
        Takes what was passed over.
    batch_size : int
        Most images of a batch.
    """
    try:
        losses += yield from guarded(_piece, piece, camera, batch_size, size=piece.bytes)
    except ApbatchError as error:
        losses.append(lost_file(piece.source.url, error))


def _piece(piece: Piece, camera: CameraGeometry, batch_size: int) -> Generator[pa.RecordBatch, None, list[Loss]]:
    url, problems, strange, losses = piece.source.url, Problems(), dict[str, int](), list[Loss]()
    cleaned = piece.source.format == DATASET
    target = CLEANED if cleaned else IMAGES
    try:
        with open_input(url) as stream:
            if piece.source.rows:
                types = {field.name: field.type for field in target}
                yield from read_rows(stream, url, piece.source.rows, types, batch_size)
                return losses
            for batch in (_dataset if cleaned else _images)(stream, piece, batch_size, problems):
                if not _of_camera(batch.schema, camera):
                    name = camera_of(batch.schema)
                    strange[name] = strange.get(name, 0) + batch.num_rows
                elif cleaned:
                    columns = {name: batch.column(name) for name in batch.schema.names}
                    yield conform(columns, batch.num_rows, CLEANED)
                else:
                    yield only_wanted(images_of(labelled(batch, piece.source)), piece.source.only)
    except ApbatchError as error:
        losses.append(lost_file(url, error))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # hostile content finds the holes of a plug-in; the other files must go on
        losses.append(Loss(url, UNREADABLE_FILE, 1, f"{url}: the reader failed: {type(error).__name__}: {error}"))
    for name, count in strange.items():
        text = f"{url}: {count} images of {name}, the others are of {camera.name}"
        if name == camera.name:
            text = f"{url}: {count} images of another {name}: the pixels are in other places"
        losses.append(Loss(url, OTHER_CAMERA, count, text))
    if problems.count:
        first = problems.kept[0]
        more = f" ({problems.count - 1} more places)" if problems.count > 1 else ""
        losses.append(Loss(url, DAMAGED_RECORD, problems.count, f"{url}: {first.reason}{more}"))
    return losses


def labelled(batch: pa.RecordBatch, source: Source) -> pa.RecordBatch:
    """Return images under the experiment of their source: what a site says counts more than what its reader assumes."""
    if source.experiment == UNKNOWN_EXPERIMENT:
        return batch
    label = pa.array([source.experiment] * batch.num_rows, pa.string())
    return batch.set_column(batch.schema.get_field_index("experiment"), batch.schema.field("experiment"), label)


def _of_camera(schema: pa.Schema, camera: CameraGeometry) -> bool:
    """Tell whether images are of this camera; those that do not name one are taken for it."""
    return not camera_of(schema) or same_camera(camera_in(schema), camera)


def same_camera(one: CameraGeometry, other: CameraGeometry) -> bool:
    """Tell whether two descriptions are of the same camera: its name, and each pixel in its place."""
    if one is other:
        return True
    if one.name != other.name or one.n_pixels != other.n_pixels:
        return False
    near = 0.1 * other.pitch
    return bool(np.allclose(one.x, other.x, rtol=0, atol=near) and np.allclose(one.y, other.y, rtol=0, atol=near))


def _images(stream: BinaryIO, piece: Piece, batch_size: int, problems: Problems) -> Iterator[pa.RecordBatch]:
    reader = readers()[piece.source.format]
    assert isinstance(reader, ImageReader)
    span = Span(*piece.stretch) if piece.stretch is not None else None
    return reader.images(_seekable(stream), piece.source.url, batch_size, span, problems)


def _dataset(stream: BinaryIO, piece: Piece, batch_size: int, problems: Problems) -> Iterator[pa.RecordBatch]:
    url = piece.source.url
    with reading(url):
        file = open_parquet(stream, url)
        stored = file.schema_arrow
        if "mask" not in stored.names:
            raise FormatError("there is no column 'mask'", where=url, remedy="make the images again: apbatch clean")
        columns = [name for name in CLEANED.names if name in stored.names]
        groups = list(range(*(piece.stretch or (0, file.num_row_groups))))
        schema = pa.schema([stored.field(name) for name in columns], metadata=stored.metadata)
        # One thread: Spark runs as many tasks as there are cores.
        for batch in file.iter_batches(batch_size, row_groups=groups, columns=columns, use_threads=False):
            yield pa.RecordBatch.from_arrays([batch.column(name) for name in columns], schema=schema)


def _seekable(stream: BinaryIO) -> BinaryIO:
    return stream if stream.seekable() else io.BytesIO(stream.read())


def lost_file(url: str, error: ApbatchError) -> Loss:
    """Count a file as lost; a server that is away is no fault of the file, so the task fails and is tried again.

    Raises
    ------
    ServerError, AccessError, TooManyRequestsError
    """
    if fails_for_all(error):
        raise error
    text = str(error)
    return Loss(url, UNREADABLE_FILE, 1, text if url in text else f"{url}: {text}")

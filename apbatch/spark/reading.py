"""Reading of whole images in Spark's workers: a damaged file or image is counted as a loss, and the job goes on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.camera.geometry import CameraGeometry
from apbatch.errors import ApbatchError, FormatError, ServerError
from apbatch.formats.image_rows import only_wanted, read_rows
from apbatch.formats.images import camera_of
from apbatch.formats.reader import ImageReader, Span, readers
from apbatch.spark.committer import Loss
from apbatch.spark.splits import DATASET, Piece
from apbatch.spark.steps import CLEANED, IMAGES, images_of
from apbatch.storage.store import RefusedError, open_url

#: Reasons of losses, as they are counted.
UNREADABLE_FILE = "unreadable files"
DAMAGED_RECORD = "damaged places in files"
DAMAGED_IMAGES = "damaged images"
REPEATED_RECORD = "records repeated within an event"
OTHER_CAMERA = "files of another camera"
OTHER_CLUSTER = "records of another cluster than the camera has"
NO_FACTORS = "records of clusters without conversion factors"
POOR_PEDESTAL = "records in files too short for a pedestal"
#: Reasons that are about a whole file: several tasks that meet them in one file count once.
OF_FILES = frozenset({UNREADABLE_FILE, OTHER_CAMERA})


def read_piece(piece: Piece, camera: CameraGeometry, losses: list[Loss], batch_size: int) -> Iterator[pa.RecordBatch]:
    """Read a file, a stretch of it or some of its rows: batches of schema `IMAGES`, or `CLEANED` from a dataset."""
    url, rows = piece.source.url, piece.source.rows
    try:
        with open_url(url) as stream:
            if rows:
                wanted = CLEANED if piece.source.format == DATASET else IMAGES
                yield from read_rows(stream, url, rows, {field.name: field.type for field in wanted}, batch_size)
                return
            batches = _dataset(stream, piece, batch_size) if piece.source.format == DATASET else None
            for batch in batches or _images(stream, piece, batch_size):
                found = camera_of(batch.schema)
                if found and found != camera.name:
                    text = f"{url}: images of {found}, the others are of {camera.name}"
                    losses.append(Loss(url, OTHER_CAMERA, 1, text))
                    return
                yield batch if batches else only_wanted(images_of(batch), piece.source.only)
    except ApbatchError as error:
        losses.append(lost_file(url, error))


def _images(stream: BinaryIO, piece: Piece, batch_size: int) -> Iterator[pa.RecordBatch]:
    reader = readers()[piece.source.format]
    assert isinstance(reader, ImageReader)
    span = Span(*piece.stretch) if piece.stretch is not None else None
    return reader.images(_seekable(stream), piece.source.url, batch_size, span)


def _dataset(stream: BinaryIO, piece: Piece, batch_size: int) -> Iterator[pa.RecordBatch]:
    url = piece.source.url
    try:
        file = pq.ParquetFile(stream)
        missing = [name for name in CLEANED.names if name not in file.schema_arrow.names]
        if missing:
            raise FormatError(
                f"there is no column '{missing[0]}'", where=url, remedy="make the images again with jobs/clean.py"
            )
        camera = camera_of(file.schema_arrow)
        schema = CLEANED.with_metadata({"apbatch.camera": camera}) if camera else CLEANED
        groups = list(range(*(piece.stretch or (0, file.num_row_groups))))
        # One thread: Spark runs as many tasks as there are cores.
        for batch in file.iter_batches(batch_size, row_groups=groups, columns=CLEANED.names, use_threads=False):
            arrays = [batch.column(field.name).cast(field.type) for field in CLEANED]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0][:200]
        raise FormatError(f"not a readable Parquet file: {reason}", where=url) from error


def _seekable(stream: BinaryIO) -> BinaryIO:
    return stream if stream.seekable() else io.BytesIO(stream.read())


def lost_file(url: str, error: ApbatchError) -> Loss:
    """Count a file as lost; a server that is away is no fault of the file, so the task fails and is tried again.

    Raises
    ------
    ServerError
    """
    if isinstance(error, ServerError) and not isinstance(error, RefusedError):
        raise error
    text = str(error)
    return Loss(url, UNREADABLE_FILE, 1, text if url in text else f"{url}: {text}")

"""The project's own Parquet: camera images and Monte Carlo truth, kept apart.

An image is a binary column of little-endian float32, one value a pixel, in photo-electrons: the column type that
costs least on the way through Arrow and Spark. NaN marks a pixel without a measurement (a missing cluster, a dead
pixel). The camera's name is in the schema's metadata under ``apbatch.camera``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: Columns that identify an image; unique together within an experiment.
KEYS = ("run", "event", "telescope")

_KEY_FIELDS = [
    pa.field("experiment", pa.string(), nullable=False),
    pa.field("run", pa.int64(), nullable=False),
    pa.field("event", pa.int64(), nullable=False),
    pa.field("telescope", pa.int32(), nullable=False),
]

#: Monte Carlo truth; never in the same file as the images it belongs to.
TRUTH_SCHEMA = pa.schema(
    [
        *_KEY_FIELDS,
        pa.field("shower", pa.int64(), nullable=False),  # images of one shower are correlated: split by it
        pa.field("primary", pa.string(), nullable=False),  # gamma, proton, …
        pa.field("true_energy", pa.float64()),  # TeV
        pa.field("true_core_x", pa.float64()),  # m, telescope to core
        pa.field("true_core_y", pa.float64()),  # m
        pa.field("true_zenith", pa.float64()),  # deg
        pa.field("true_azimuth", pa.float64()),  # deg
        pa.field("true_source_x", pa.float64()),  # deg in the camera
        pa.field("true_source_y", pa.float64()),  # deg in the camera
        pa.field("true_h_first", pa.float64()),  # m above sea level, first interaction
    ],
    metadata={"apbatch.schema": "truth/1"},
)


def image_schema(camera: str, *, cleaned: bool = False) -> pa.Schema:
    """Return the schema of images of one camera.

    Parameters
    ----------
    camera : str
        Name known to `apbatch.camera.geometry.camera_named`.
    cleaned : bool
        Whether there is a `mask` column (binary, one byte a pixel, 1 = kept by cleaning).
    """
    fields = [
        *_KEY_FIELDS,
        pa.field("time", pa.timestamp("ns", tz="UTC")),
        pa.field("image", pa.binary(), nullable=False),
    ]
    if cleaned:
        fields.append(pa.field("mask", pa.binary(), nullable=False))
    return pa.schema(fields, metadata={"apbatch.schema": "images/1", "apbatch.camera": camera})


def camera_of(schema: pa.Schema) -> str:
    """Return the name of the camera that a schema of images carries."""
    metadata = schema.metadata or {}
    return str(metadata.get(b"apbatch.camera", b"").decode())


def to_binary(pixels: npt.NDArray[np.float32] | npt.NDArray[np.bool_]) -> pa.Array:
    """Pack an array of shape (n_images, n_pixels) into a binary column without copying row by row."""
    rows = np.ascontiguousarray(pixels, dtype="<f4" if pixels.dtype.kind == "f" else "u1")
    n_images, width = rows.shape[0], int(np.prod(rows.shape[1:])) * rows.itemsize
    if n_images * width >= 2**31:
        raise ValueError(f"{n_images} images of {width} bytes do not fit one Arrow batch; use smaller batches")
    offsets = np.arange(n_images + 1, dtype=np.int32) * np.int32(width)
    return pa.Array.from_buffers(pa.binary(), n_images, [None, pa.py_buffer(offsets), pa.py_buffer(rows)])


def from_binary(column: pa.Array | pa.ChunkedArray, dtype: str = "<f4") -> npt.NDArray[np.generic]:
    """View a binary column as an array of shape (n_images, n_pixels), without a copy where there is one chunk.

    Raises
    ------
    ValueError
        If there are nulls or rows of different lengths.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # no chunks, or too large for one
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.binary())
    if column.null_count:
        raise ValueError(f"{column.null_count} images are missing")
    if len(column) == 0:
        return np.empty((0, 0), dtype)
    large = pa.types.is_large_binary(column.type)
    offsets = np.frombuffer(column.buffers()[1], np.int64 if large else np.int32)
    offsets = offsets[column.offset : column.offset + len(column) + 1]
    widths = np.diff(offsets)
    if (widths != widths[0]).any():
        raise ValueError("images of different lengths in one column")
    width = int(widths[0])
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8, count=len(column) * width, offset=int(offsets[0]))
    if width % np.dtype(dtype).itemsize:
        raise ValueError(f"an image of {width} bytes is no whole number of pixels")
    return data.view(dtype).reshape(len(column), -1)

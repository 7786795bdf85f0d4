"""The project's own Parquet: camera images and Monte Carlo truth, kept apart.

An image is a binary column of little-endian float32, one value a pixel, in photo-electrons: the column type that
costs least on the way through Arrow and Spark. NaN marks a pixel without a measurement (a missing cluster, a dead
pixel). The schema's metadata name the camera (``apbatch.camera``) and hold its geometry (``apbatch.geometry``, see
`apbatch.formats.embedded`), so that `camera_in` needs nothing but the file.

Schemas have a number: ``images/2`` is written. ``images/1``, without geometry and without the columns `peak_time`,
`pointing_altitude` and `pointing_azimuth`, is read; its camera must be known by name.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import FormatError
from apbatch.formats.embedded import Telescopes, camera_from_json, geometry_json, telescopes_from_json

#: Name of the schema of images that is written; the number counts its changes.
IMAGES_SCHEMA = "images/2"
_NEWEST = 2
#: Columns that images need not have, in their order after `image`.
OPTIONAL = {
    "peak_time": pa.field("peak_time", pa.binary(), nullable=False),
    "pointing_altitude": pa.field("pointing_altitude", pa.float64()),
    "pointing_azimuth": pa.field("pointing_azimuth", pa.float64()),
    "mask": pa.field("mask", pa.binary(), nullable=False),
}

_KEY_FIELDS = [
    pa.field("experiment", pa.string(), nullable=False),
    pa.field("run", pa.int64(), nullable=False),
    pa.field("event", pa.int64(), nullable=False),
    pa.field("telescope", pa.int32(), nullable=False),
]
#: Columns that identify an image.
IMAGE_KEY = tuple(field.name for field in _KEY_FIELDS)

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

#: The source that a telescope observes, one row an image. It is no truth: gammas of the source come from there, all
#: other showers from anywhere, and every image has one.
SOURCE_SCHEMA = pa.schema(
    [
        *_KEY_FIELDS,
        pa.field("source_x", pa.float64(), nullable=False),  # deg in the camera
        pa.field("source_y", pa.float64(), nullable=False),
    ],
    metadata={"apbatch.schema": "sources/1"},
)


def image_schema(
    camera: str | CameraGeometry,
    *,
    cleaned: bool = False,
    peak_time: bool = False,
    pointing: bool = False,
    telescopes: Telescopes | None = None,
) -> pa.Schema:
    """Return the schema of images of one camera.

    Parameters
    ----------
    camera : str or CameraGeometry
        The camera, or a name known to `apbatch.camera.instruments.registry.camera_named`.
    cleaned : bool
        Whether there is a `mask` column (binary, one byte a pixel, 1 = kept by cleaning).
    peak_time : bool
        Whether there is a `peak_time` column: binary as `image`, when the light of each pixel arrived, ns from
        where the read-out begins; NaN where that is not defined.
    pointing : bool
        Whether there are columns `pointing_altitude` and `pointing_azimuth` (from north to east), deg, null where
        they are not known.
    telescopes : Mapping, optional
        Where telescopes stand by number: x (to the north), y (to the west), z, m.

    Raises
    ------
    NotFoundError
        If the camera is not known.
    """
    if isinstance(camera, str):
        camera = camera_named(camera)
    optional = {"mask": cleaned, "peak_time": peak_time, "pointing_altitude": pointing, "pointing_azimuth": pointing}
    return schema_of(
        camera.name, [name for name, there in optional.items() if there], geometry_json(camera, telescopes)
    )


def schema_of(camera: str, optional: Iterable[str], geometry: str | None) -> pa.Schema:
    """Return the schema of images with these of the `OPTIONAL` columns, and with a geometry as JSON if there is one.

    Parameters
    ----------
    camera : str
        Name of the camera.
    optional : iterable of str
        Names of `OPTIONAL` columns.
    geometry : str, optional
        The camera as JSON.
    """
    optional = set(optional)
    fields = [
        *_KEY_FIELDS,
        pa.field("time", pa.timestamp("ns", tz="UTC")),
        pa.field("image", pa.binary(), nullable=False),
        *(field for name, field in OPTIONAL.items() if name in optional),
    ]
    metadata = {"apbatch.schema": IMAGES_SCHEMA, "apbatch.camera": camera}
    if geometry is not None:
        metadata["apbatch.geometry"] = geometry
    return pa.schema(fields, metadata=metadata)


def camera_of(schema: pa.Schema) -> str:
    """Return the name of the camera that a schema of images carries; empty if it carries none."""
    return _text(schema, b"apbatch.camera").decode("utf-8", "replace")


def camera_in(schema: pa.Schema) -> CameraGeometry:
    """Return the camera of images: its geometry in their schema, or, in ``images/1``, the camera known by its name.

    The same object for the same description, so that what is derived from a camera can be kept with it.

    Raises
    ------
    FormatError
        If the schema names no camera, or its geometry is damaged.
    NotFoundError
        If there is no geometry and no camera of that name is known.
    """
    name = camera_of(schema)
    if not name:
        raise FormatError("the schema does not name a camera (apbatch.camera)")
    geometry = _text(schema, b"apbatch.geometry")
    return camera_from_json(name, geometry) if geometry else camera_named(name)


def telescopes_in(schema: pa.Schema) -> dict[int, tuple[float, float, float]]:
    """Return where telescopes stand by number: x (to the north), y (to the west), z, m; empty if not known.

    Raises
    ------
    FormatError
        If the geometry in the schema is damaged.
    """
    geometry = _text(schema, b"apbatch.geometry")
    return telescopes_from_json(camera_of(schema), geometry) if geometry else {}


def version_of(schema: pa.Schema) -> int:
    """Return the number of a schema of images.

    Raises
    ------
    FormatError
        If it is none, or one that this version does not know.
    """
    kind, _, number = _text(schema, b"apbatch.schema").decode("utf-8", "replace").partition("/")
    if kind != "images" or not number.isdecimal() or not 1 <= int(number) <= _NEWEST:
        raise FormatError(
            f"the schema is '{kind}/{number}', known are images/1 to images/{_NEWEST}",
            remedy="read it with the version of apbatch that wrote it, or a newer one",
        )
    return int(number)


def _text(schema: pa.Schema, key: bytes) -> bytes:
    return bytes((schema.metadata or {}).get(key, b""))


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
        raise ValueError(f"an image of {width} bytes is not a whole number of pixels")
    return data.view(dtype).reshape(len(column), -1)

"""The steps themselves: pure functions from Arrow batches to Arrow batches.

They know nothing of Spark: the same functions serve Spark's workers, tests and programs of one process. No step
takes or makes a column of Monte Carlo truth.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apbatch.camera.cleaning import NONE, Cleaning, clean
from apbatch.camera.extras import EXTRAS, extras
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.grid import to_grid
from apbatch.camera.halo import HALO, halo
from apbatch.camera.hillas import PARAMETERS, clean_and_parametrise, hillas
from apbatch.errors import FormatError
from apbatch.formats.images import IMAGE_KEY, from_binary, to_binary

_KEY_FIELDS = [
    pa.field("experiment", pa.string()),
    pa.field("run", pa.int64()),
    pa.field("event", pa.int64()),
    pa.field("telescope", pa.int32()),
]
#: Nanoseconds since 1970 (UTC): Spark's own time has microseconds, which is too coarse.
_TIME = pa.field("time_ns", pa.int64())

#: Camera images, and the same with the mask of a cleaning. What a format does not tell is null: arrival times of the
#: light in each pixel (ns, as `image`), where the telescope pointed (deg).
IMAGES = pa.schema(
    [
        *_KEY_FIELDS,
        _TIME,
        pa.field("image", pa.binary()),
        pa.field("peak_time", pa.binary()),
        pa.field("pointing_altitude", pa.float64()),
        pa.field("pointing_azimuth", pa.float64()),
    ]
)
_OPTIONAL = ("peak_time", "pointing_altitude", "pointing_azimuth")
CLEANED = IMAGES.append(pa.field("mask", pa.binary()))
_POINTING = ("pointing_altitude", "pointing_azimuth")
#: Image parameters, one row an image and cleaning; with the pointing, without which images of several telescopes
#: can't be brought together.
PARAMETER_ROWS = pa.schema(
    [
        *_KEY_FIELDS,
        pa.field("cleaning", pa.string()),
        *(pa.field(name, pa.float64()) for name in PARAMETERS),
        *(pa.field(name, pa.float64()) for name in _POINTING),
    ]
)
#: Families of parameters that are computed only when they are asked for: their columns and units.
FAMILIES: dict[str, dict[str, str]] = {"extras": EXTRAS, "halo": HALO}
#: Noise of pixels, p.e.: of all images, or of each.
Noise = npt.NDArray[np.floating[Any]]
#: Images on the grid: all light, and what cleaning keeps.
GRIDS = pa.schema([*_KEY_FIELDS, pa.field("grid", pa.binary()), pa.field("grid_cleaned", pa.binary())])


def parameter_rows(more: Collection[str] = ()) -> pa.Schema:
    """Return the schema `PARAMETER_ROWS`, with the columns of some of `FAMILIES`."""
    columns = [pa.field(name, pa.float64()) for name in _columns(more)]
    return pa.schema([*PARAMETER_ROWS, *columns])


def _columns(more: Collection[str]) -> list[str]:
    return [name for family, units in FAMILIES.items() if family in more for name in units]


def images_of(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Bring images as readers yield them (`apbatch.formats.images`) into the schema `IMAGES`."""
    time = batch.column("time").cast(pa.int64())
    columns = {name: batch.column(name) for name in batch.schema.names} | {"time_ns": time}
    return conform(columns, batch.num_rows, IMAGES)


def conform(columns: Mapping[str, pa.Array], rows: int, schema: pa.Schema) -> pa.RecordBatch:
    """Make a batch of a schema from columns of similar types; optional ones that are missing become null.

    Parameters
    ----------
    columns : mapping of str to pyarrow.Array
    rows : int
        Rows of the batch, for columns that are missing.
    schema : pyarrow.Schema

    Raises
    ------
    FormatError
        If another column is missing or can't be converted.
    """
    arrays = []
    for field in schema:
        if field.name in columns:
            try:
                arrays.append(columns[field.name].cast(field.type))
            except pa.ArrowException as error:
                raise FormatError(f"column '{field.name}': {str(error).splitlines()[0]}") from error
        elif field.name in _OPTIONAL:
            arrays.append(pa.nulls(rows, field.type))
        else:
            raise FormatError(f"there is no column '{field.name}'")
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def usable(batch: pa.RecordBatch, camera: CameraGeometry) -> tuple[pa.RecordBatch, int]:
    """Leave out images that are missing or have not the camera's number of pixels, and those without their mask.

    Returns
    -------
    batch : RecordBatch
        Of the same schema.
    damaged : int
        How many were left out.
    """
    good = pc.equal(pc.binary_length(batch.column("image")), 4 * camera.n_pixels)
    # Arrival times may be unknown, but not of other pixels.
    times = pc.equal(pc.binary_length(batch.column("peak_time")), 4 * camera.n_pixels)
    good = pc.and_(good, pc.fill_null(times, True))
    if "mask" in batch.schema.names:
        good = pc.and_(good, pc.equal(pc.binary_length(batch.column("mask")), camera.n_pixels))
    good = pc.fill_null(good, False)
    damaged = int(pc.sum(pc.invert(good)).as_py() or 0)
    return (batch.filter(good), damaged) if damaged else (batch, 0)


def cleaned(
    batch: pa.RecordBatch, camera: CameraGeometry, cleaning: Cleaning, noise: Noise | None = None
) -> pa.RecordBatch:
    """Add the mask of a cleaning: `IMAGES` (or `CLEANED`, whose mask is replaced) to `CLEANED`.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
    camera : CameraGeometry
    cleaning : Cleaning
    noise : ndarray, shape (n_pixels,) or (n_images, n_pixels), optional
        Of pixels, p.e.; a cleaning by ``sigma`` needs it.
    """
    if not batch.num_rows:
        return _empty(CLEANED)
    times = times_of(batch, camera) if cleaning.time_limit is not None else None
    return _with_mask(batch, clean(_pixels(batch, camera), camera, cleaning, peak_time=times, noise=noise))


def cleaned_and_parametrised(
    batch: pa.RecordBatch,
    camera: CameraGeometry,
    cleaning: Cleaning,
    *,
    noise: Noise | None = None,
    more: Collection[str] = (),
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Do what `cleaned` and `parametrised` do, in one pass over the pixels for the cleaned images.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        Of schema `IMAGES` or `CLEANED`.
    camera : CameraGeometry
    cleaning : Cleaning
    noise : ndarray, shape (n_pixels,) or (n_images, n_pixels), optional
        Noise of pixels, p.e.
    more : collection of str
        Further `FAMILIES` of parameters.
    """
    if not batch.num_rows:
        return _empty(CLEANED), _empty(parameter_rows(more))
    pixels = _pixels(batch, camera)
    times = times_of(batch, camera) if cleaning.time_limit is not None else None
    mask, parameters = clean_and_parametrise(pixels, camera, cleaning, peak_time=times, noise=noise)
    values = {NONE: hillas(pixels, camera), cleaning.name: parameters}
    _add_families(values, batch, camera, pixels, mask, more)
    return _with_mask(batch, mask), _parameter_rows(batch, values, more)


def _with_mask(batch: pa.RecordBatch, mask: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([*(batch.column(name) for name in IMAGES.names), to_binary(mask)], schema=CLEANED)


def parametrised(
    batch: pa.RecordBatch, camera: CameraGeometry, cleaning: str, *, more: Collection[str] = ()
) -> pa.RecordBatch:
    """Compute image parameters: `CLEANED` to `parameter_rows`.

    Parameters
    ----------
    batch : RecordBatch of schema `CLEANED`
    camera : CameraGeometry
    cleaning : str
        Name of the cleaning that made the mask.
    more : collection of str
        Which of `FAMILIES` are wanted too.

    Returns
    -------
    RecordBatch
        Two rows an image: with the cleaning ``none`` (all pixels with light) and with this one. Halo parameters belong
        to the image and are the same in both.
    """
    if not batch.num_rows:
        return _empty(parameter_rows(more))
    pixels, mask = _pixels(batch, camera), _mask(batch)
    values = {NONE: hillas(pixels, camera), cleaning: hillas(pixels, camera, mask)}
    _add_families(values, batch, camera, pixels, mask, more)
    return _parameter_rows(batch, values, more)


def _add_families(
    values: Mapping[str, dict[str, npt.NDArray[np.float64]]],
    batch: pa.RecordBatch,
    camera: CameraGeometry,
    pixels: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    more: Collection[str],
) -> None:
    """Add the columns of families to those of the cleaning ``none`` and of the cleaning that made the mask."""
    if "extras" in more:
        times = times_of(batch, camera)
        for name, columns in values.items():
            columns |= extras(pixels, camera, None if name == NONE else mask, peak_time=times)
    if "halo" in more:
        around = halo(pixels, camera)
        for columns in values.values():
            columns |= around


def _parameter_rows(
    batch: pa.RecordBatch, values: Mapping[str, Mapping[str, npt.NDArray[np.float64]]], more: Collection[str]
) -> pa.RecordBatch:
    schema = parameter_rows(more)
    batches = []
    for name, columns in values.items():
        arrays = [*(batch.column(key) for key in IMAGE_KEY), pa.array([name] * batch.num_rows, pa.string())]
        arrays += [pa.array(columns[parameter]) for parameter in PARAMETERS]
        arrays += [batch.column(column) for column in _POINTING]
        arrays += [pa.array(columns[parameter]) for parameter in _columns(more)]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.concat_batches(batches)


def times_of(batch: pa.RecordBatch, camera: CameraGeometry) -> npt.NDArray[np.float32] | None:
    """Return the times of pixels, NaN for images without; None if no image has any."""
    column = batch.column("peak_time")
    if column.null_count == len(column):
        return None
    if not column.null_count:
        return np.asarray(from_binary(column), np.float32)
    times = np.full((len(column), camera.n_pixels), np.nan, np.float32)
    times[np.flatnonzero(column.is_valid())] = from_binary(column.drop_null())
    return times


def gridded(batch: pa.RecordBatch, camera: CameraGeometry, method: str = "axial") -> pa.RecordBatch:
    """Map images onto the square grid, whole and cleaned: `CLEANED` to `GRIDS`.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        Of schema `CLEANED`.
    camera : CameraGeometry
    method : str
        One of `apbatch.camera.grid.METHODS`.
    """
    if not batch.num_rows:
        return _empty(GRIDS)
    pixels = _pixels(batch, camera)
    grids = [to_grid(pixels, camera, mask, method) for mask in (None, _mask(batch))]
    return pa.RecordBatch.from_arrays(
        [*(batch.column(key) for key in IMAGE_KEY), *(to_binary(grid) for grid in grids)], schema=GRIDS
    )


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def _pixels(batch: pa.RecordBatch, camera: CameraGeometry) -> npt.NDArray[np.float32]:
    """Return the pixels of images.

    Raises
    ------
    FormatError
        If images are missing or have not the camera's number of pixels.
    """
    try:
        pixels = from_binary(batch.column("image"))
    except ValueError as error:
        raise FormatError(str(error)) from error
    if pixels.shape[1] != camera.n_pixels:
        raise FormatError(f"images of {pixels.shape[1]} pixels, {camera.name} has {camera.n_pixels}")
    return np.asarray(pixels, np.float32)


def _mask(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    try:
        return np.asarray(from_binary(batch.column("mask"), "u1")).astype(np.bool_)
    except (KeyError, ValueError) as error:
        raise FormatError(f"images without a usable mask: {error}", remedy="run apbatch clean first") from error

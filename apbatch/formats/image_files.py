"""Readers of the project's own Parquet files of images and of Monte Carlo truth (schemas: `apbatch.formats.images`)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apbatch.errors import FormatError
from apbatch.formats.attributes import CAMERA, ENERGY_MAX, ENERGY_MIN, EVENT_FIRST, EVENT_LAST, PRIMARY, SHOWERS
from apbatch.formats.images import KEYS, TRUTH_SCHEMA, camera_of, image_schema
from apbatch.formats.reader import Attribute, ImageReader, Metadata, Reader, Scalar

_MAGIC = b"PAR1"


def _open(stream: BinaryIO, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError(
            f"not a readable Parquet file: {_short(error)}", where=name, remedy="the file was cut or damaged"
        ) from error


def _short(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]


def _kind(stream: BinaryIO, name: str) -> str | None:
    """Return the project's schema of a Parquet file (``images/1``), or None; an unreadable one tells by its name."""
    try:
        metadata = _open(stream, name).schema_arrow.metadata or {}
    except FormatError:
        return "truth" if "truth" in PurePosixPath(name).name.lower() else "images"
    return str(metadata.get(b"apbatch.schema", b"").decode("utf-8", "replace")) or None


def _batches(file: pq.ParquetFile, name: str, size: int, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(batch_size=size, columns=columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError(f"not a readable Parquet file: {_short(error)}", where=name) from error


def _check(file: pq.ParquetFile, wanted: pa.Schema, name: str) -> None:
    """Raise if a column is missing or has another type."""
    for field in wanted:
        place = file.schema_arrow.get_field_index(field.name)
        if place < 0:
            raise FormatError(f"there is no column '{field.name}'", where=name)
        found = file.schema_arrow.field(place).type
        if found != field.type:
            raise FormatError(f"column '{field.name}' is {found}, not {field.type}", where=name)


class _Range:
    """Smallest and largest value of a column over batches."""

    def __init__(self) -> None:
        self.low: Any = None
        self.high: Any = None

    def add(self, column: pa.Array) -> None:
        limits = pc.min_max(column).as_py()
        if limits["min"] is None:
            return
        self.low = limits["min"] if self.low is None else min(self.low, limits["min"])
        self.high = limits["max"] if self.high is None else max(self.high, limits["max"])

    @property
    def single(self) -> Any:
        """The value, if there is only one."""
        return self.low if self.low == self.high else None


def _utc(nanoseconds: int | None) -> datetime | None:
    return None if nanoseconds is None else datetime.fromtimestamp(nanoseconds / 1e9, UTC)


class ImagesReader(ImageReader):
    """Camera images in the project's Parquet."""

    name: ClassVar[str] = "apbatch-images"
    seeks: ClassVar[bool] = True
    attributes: ClassVar[tuple[Attribute, ...]] = (
        CAMERA,
        EVENT_FIRST,
        EVENT_LAST,
        Attribute("cleaned", "boolean", "Whether the images come with the mask that cleaning made."),
    )

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise Parquet that its name does not call truth."""
        return head.startswith(_MAGIC)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look at the schema's name, which is at the end of the file."""
        return (_kind(stream, name) or "").startswith("images")

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read the keys of all images.

        Raises
        ------
        FormatError
            If the file is damaged or columns are missing.
        """
        file = _open(stream, name)
        schema = self._schema(file, name)
        ranges = {key: _Range() for key in (*KEYS, "time", "experiment")}
        for batch in _batches(file, name, 65536, list(ranges)):
            for key, values in ranges.items():
                column = batch.column(key)
                values.add(column.cast(pa.int64()) if key == "time" else column)
        attributes: dict[str, Scalar] = {"cleaned": "mask" in schema.names, "camera": camera_of(schema)}
        if ranges["event"].low is not None:
            attributes |= {"event_first": ranges["event"].low, "event_last": ranges["event"].high}
        return Metadata(
            experiment=ranges["experiment"].single,
            run=ranges["run"].single,
            telescope=ranges["telescope"].single,
            time_start=_utc(ranges["time"].low),
            time_end=_utc(ranges["time"].high),
            events=file.metadata.num_rows,
            attributes=attributes,
        )

    def images(self, stream: BinaryIO, name: str, batch_size: int = 1024) -> Iterator[pa.RecordBatch]:
        """Yield the images as they are stored."""
        file = _open(stream, name)
        schema = self._schema(file, name)
        for batch in _batches(file, name, batch_size, schema.names):
            yield pa.RecordBatch.from_arrays([batch.column(column) for column in schema.names], schema=schema)

    def _schema(self, file: pq.ParquetFile, name: str) -> pa.Schema:
        camera = camera_of(file.schema_arrow)
        if not camera:
            raise FormatError("the schema does not name a camera (apbatch.camera)", where=name)
        schema = image_schema(camera, cleaned="mask" in file.schema_arrow.names)
        _check(file, schema, name)
        return schema


class TruthReader(Reader):
    """Monte Carlo truth in the project's Parquet."""

    name: ClassVar[str] = "apbatch-truth"
    seeks: ClassVar[bool] = True
    attributes: ClassVar[tuple[Attribute, ...]] = (EVENT_FIRST, EVENT_LAST, ENERGY_MIN, ENERGY_MAX, SHOWERS, PRIMARY)

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise Parquet."""
        return head.startswith(_MAGIC)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look at the schema's name, which is at the end of the file."""
        return (_kind(stream, name) or "").startswith("truth")

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read keys, energies and primaries.

        Raises
        ------
        FormatError
            If the file is damaged or columns are missing.
        """
        file = _open(stream, name)
        _check(file, TRUTH_SCHEMA, name)
        ranges = {key: _Range() for key in (*KEYS, "experiment", "true_energy")}
        primaries: set[str] = set()
        showers: set[tuple[int, int]] = set()
        for batch in _batches(file, name, 65536, [*ranges, "primary", "shower"]):
            for key, values in ranges.items():
                values.add(batch.column(key))
            primaries.update(pc.unique(batch.column("primary")).to_pylist())
            showers.update(zip(batch.column("run").to_pylist(), batch.column("shower").to_pylist(), strict=True))
        attributes: dict[str, Scalar] = {"showers": len(showers), "primary": ",".join(sorted(primaries))}
        for label, key in (("event", "event"), ("energy", "true_energy")):
            if ranges[key].low is not None:
                low, high = ("first", "last") if label == "event" else ("min", "max")
                attributes |= {f"{label}_{low}": ranges[key].low, f"{label}_{high}": ranges[key].high}
        return Metadata(
            experiment=ranges["experiment"].single,
            run=ranges["run"].single,
            telescope=ranges["telescope"].single,
            events=file.metadata.num_rows,
            attributes=attributes,
        )

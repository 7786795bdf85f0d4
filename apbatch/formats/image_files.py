"""Readers of the project's own Parquet files of images and of Monte Carlo truth (schemas: `apbatch.formats.images`)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import ApbatchError, FormatError, NotFoundError
from apbatch.formats.attributes import CAMERA, ENERGY_MAX, ENERGY_MIN, EVENT_FIRST, EVENT_LAST, PRIMARY, SHOWERS
from apbatch.formats.clocks import time_of
from apbatch.formats.embedded import geometry_json
from apbatch.formats.images import IMAGE_KEY, OPTIONAL, TRUTH_SCHEMA, camera_in, camera_of, schema_of, version_of
from apbatch.formats.parquet import BATCH_ROWS, MAGIC, batches_of_groups, open_parquet
from apbatch.formats.reader import Attribute, ImageReader, Metadata, Reader, Scalar, Span
from apbatch.formats.text.lines import Problems


def _kind(stream: BinaryIO, name: str) -> str | None:
    """Return the project's schema of a Parquet file (``images/1``), or None; an unreadable one tells by its name."""
    try:
        metadata = open_parquet(stream, name).schema_arrow.metadata or {}
    except FormatError:
        return "truth" if "truth" in PurePosixPath(name).name.lower() else "images"
    return str(metadata.get(b"apbatch.schema", b"").decode("utf-8", "replace")) or None


def _check(file: pq.ParquetFile, schema: pa.Schema, name: str) -> None:
    """Raise if a column is missing or has another type."""
    for field in schema:
        count = len(file.schema_arrow.get_all_field_indices(field.name))
        if count != 1:
            what = f"there is no column '{field.name}'" if not count else f"{count} columns are called '{field.name}'"
            raise FormatError(what, where=name)
        kind = file.schema_arrow.field(field.name).type
        if kind != field.type:
            raise FormatError(f"column '{field.name}' is {kind}, not {field.type}", where=name)


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
    return None if nanoseconds is None else time_of(nanoseconds)


def _none_readable(name: str, problems: Problems) -> FormatError:
    return FormatError(f"no row can be read: {problems.kept[0].reason}", where=name, remedy="copy the file again")


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
        return head.startswith(MAGIC)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look at the schema's name, which is at the end of the file."""
        return (_kind(stream, name) or "").startswith("images")

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read all images, as far as they can be read.

        Raises
        ------
        FormatError
            If the file is damaged, columns are missing, or no image can be read.
        """
        problems, images = Problems(), 0
        ranges = {key: _Range() for key in (*IMAGE_KEY, "time")}
        schema: pa.Schema | None = None
        for batch in self.images(stream, name, BATCH_ROWS, problems=problems):
            schema, images = batch.schema, images + batch.num_rows
            for key, values in ranges.items():
                column = batch.column(key)
                values.add(column.cast(pa.int64()) if key == "time" else column)
        if not images and problems.count:
            raise _none_readable(name, problems)
        if schema is None:
            schema = self._schema(open_parquet(stream, name), name)
        attributes: dict[str, Scalar] = {"cleaned": "mask" in schema.names, "camera": camera_of(schema)}
        if ranges["event"].low is not None:
            attributes |= {"event_first": ranges["event"].low, "event_last": ranges["event"].high}
        return Metadata(
            experiment=ranges["experiment"].single,
            run=ranges["run"].single,
            telescope=ranges["telescope"].single,
            time_start=_utc(ranges["time"].low),
            time_end=_utc(ranges["time"].high),
            events=images,
            attributes=attributes,
            problems=problems.result(),
        )

    def spans(self, stream: BinaryIO, name: str, target_bytes: int) -> list[Span]:
        """Return runs of row groups of about `target_bytes`.

        Raises
        ------
        FormatError
            If the file is damaged.
        """
        content = open_parquet(stream, name).metadata
        spans, start, size = [], 0, 0
        for group in range(content.num_row_groups):
            # The footer's sizes are those of the columns before compression; images hardly shrink.
            size += content.row_group(group).total_byte_size
            if size >= target_bytes or group == content.num_row_groups - 1:
                spans.append(Span(start, group + 1))
                start, size = group + 1, 0
        return spans

    def images(
        self,
        stream: BinaryIO,
        name: str,
        batch_size: int = 1024,
        span: Span | None = None,
        problems: Problems | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the images as they are stored; the span is of row groups.

        Raises
        ------
        FormatError
            If the file is damaged, columns are missing, or the span is not of this file.
        """
        problems = problems if problems is not None else Problems()
        size = stream.seek(0, 2)
        file = open_parquet(stream, name)
        schema = self._schema(file, name)
        span = span if span is not None else Span(0, file.num_row_groups)
        if not 0 <= span.start <= span.stop <= file.num_row_groups:
            raise FormatError(
                f"row groups {span.start} to {span.stop} of {file.num_row_groups}",
                where=name,
                remedy="the file is another one than the spans were made for",
            )
        pixels = _pixels_of(schema)
        groups = range(span.start, span.stop)
        for row, batch in batches_of_groups(file, size, schema.names, groups, problems, batch_size):
            arrays = [batch.column(column) for column in schema.names]
            yield _whole(pa.RecordBatch.from_arrays(arrays, schema=schema), pixels, row, problems)

    def _schema(self, file: pq.ParquetFile, name: str) -> pa.Schema:
        stored = file.schema_arrow
        try:
            version_of(stored)
            camera = camera_of(stored)
            if not camera:
                raise FormatError("the schema does not name a camera (apbatch.camera)")
            geometry: str | None = (stored.metadata or {}).get(b"apbatch.geometry", b"").decode() or None
            if geometry is None:
                geometry = _known_geometry(camera)
            else:
                camera_in(stored)
        except UnicodeDecodeError as error:
            raise FormatError("the geometry in the schema is not text", where=name) from error
        except ApbatchError as error:
            raise FormatError(error.what, where=name, remedy=error.remedy) from error
        schema = schema_of(camera, OPTIONAL.keys() & set(stored.names), geometry)
        _check(file, schema, name)
        return schema


def _known_geometry(camera: str) -> str | None:
    """Return the geometry of a file of yesterday, which has none, if the camera is known here."""
    try:
        return geometry_json(camera_named(camera))
    except NotFoundError:
        return None


def _pixels_of(schema: pa.Schema) -> int | None:
    try:
        return camera_in(schema).n_pixels
    except NotFoundError:
        return None


def _whole(batch: pa.RecordBatch, pixels: int | None, row: int, problems: Problems) -> pa.RecordBatch:
    """Leave out the rows that lack what their schema wants, or whose image is not one value a pixel."""
    keep = None
    for field in batch.schema:
        column, bad = batch.column(field.name), None
        if field.nullable:
            continue
        if column.null_count:
            bad = pc.is_null(column)
        if pixels is not None and pa.types.is_binary(field.type):
            width = pixels * (1 if field.name == "mask" else 4)
            lengths = pc.fill_null(pc.binary_length(column), -1)
            bad = pc.not_equal(lengths, width)
        if bad is not None and pc.any(bad).as_py():
            for place in pc.indices_nonzero(bad).to_pylist():
                of_pixels = f" or not of {pixels} pixels" if pa.types.is_binary(field.type) else ""
                problems.add(row + place, f"row {row + place}: {field.name} is missing{of_pixels}")
            keep = pc.invert(bad) if keep is None else pc.and_(keep, pc.invert(bad))
    return batch if keep is None else batch.filter(keep)


class TruthReader(Reader):
    """Monte Carlo truth in the project's Parquet."""

    name: ClassVar[str] = "apbatch-truth"
    seeks: ClassVar[bool] = True
    attributes: ClassVar[tuple[Attribute, ...]] = (EVENT_FIRST, EVENT_LAST, ENERGY_MIN, ENERGY_MAX, SHOWERS, PRIMARY)

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise Parquet."""
        return head.startswith(MAGIC)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look at the schema's name, which is at the end of the file."""
        return (_kind(stream, name) or "").startswith("truth")

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read keys, energies and primaries.

        Raises
        ------
        FormatError
            If the file is damaged, columns are missing, or no row can be read.
        """
        problems, rows = Problems(), 0
        size = stream.seek(0, 2)
        file = open_parquet(stream, name)
        _check(file, TRUTH_SCHEMA, name)
        ranges = {key: _Range() for key in (*IMAGE_KEY, "true_energy")}
        primaries: set[str] = set()
        showers: set[tuple[int, int]] = set()
        groups = range(file.num_row_groups)
        for row, stored in batches_of_groups(file, size, TRUTH_SCHEMA.names, groups, problems):
            arrays = [stored.column(column) for column in TRUTH_SCHEMA.names]
            batch = _whole(pa.RecordBatch.from_arrays(arrays, schema=TRUTH_SCHEMA), None, row, problems)
            rows += batch.num_rows
            for key, values in ranges.items():
                values.add(batch.column(key))
            primaries.update(pc.unique(batch.column("primary")).to_pylist())
            showers.update(zip(batch.column("run").to_pylist(), batch.column("shower").to_pylist(), strict=True))
        if not rows and problems.count:
            raise _none_readable(name, problems)
        attributes: dict[str, Scalar] = {"showers": len(showers), "primary": ",".join(sorted(primaries))}
        for label, key in (("event", "event"), ("energy", "true_energy")):
            if ranges[key].low is not None:
                low, high = ("first", "last") if label == "event" else ("min", "max")
                attributes |= {f"{label}_{low}": ranges[key].low, f"{label}_{high}": ranges[key].high}
        return Metadata(
            experiment=ranges["experiment"].single,
            run=ranges["run"].single,
            telescope=ranges["telescope"].single,
            events=rows,
            attributes=attributes,
            problems=problems.result(),
        )

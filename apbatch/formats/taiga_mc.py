"""Monte Carlo of TAIGA-IACT as the collaboration hands it on: cleaned images as text, and their table of parameters.

An image is a header of 11 numbers, followed by one line a pixel that survived cleaning::

    number event array-offset n_pixels energy/TeV source_x/cm source_y/cm core_x/m core_y/m axis-a axis-b
    cluster pixel x/cm y/cm amplitude/pe          n_pixels times

The shower `event` was thrown several times onto the array; `array-offset` numbers these uses of it. `pixel` is the
MAROC channel, half the high-gain ADC channel. A few files number pixels of a cluster in another way, so the place
decides, and the cluster must agree with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.geometry import CameraGeometry, camera_named
from apbatch.camera.taiga import DEG_PER_CM
from apbatch.errors import FormatError
from apbatch.formats.attributes import CAMERA, ENERGY_MAX, ENERGY_MIN, PRIMARY, SHOWERS
from apbatch.formats.images import TRUTH_SCHEMA, image_schema, to_binary
from apbatch.formats.lines import Line, Problems, head_lines, lines_of, numbers
from apbatch.formats.reader import Attribute, ImageReader, Metadata, Reader, Scalar, Span, even_spans

CAMERA_NAME = "TAIGA-IACT01"
#: An event is ``shower x 100 + array offset``, as in CORSIKA's own numbering of used showers.
_USES = 100
_HEADER_WORDS, _PIXEL_WORDS = 11, 5
#: How far a hit may lie from a pixel of the camera, cm.
_TOLERANCE_CM = 0.05
_PRIMARIES = ("gamma", "proton", "electron", "helium", "iron")

MOST_PIXELS = 10_000


@dataclass(frozen=True, slots=True)
class _Header:
    line: Line
    shower: int
    use: int
    n_pixels: int
    energy: float
    source: tuple[float, float]
    core: tuple[float, float]

    @property
    def event(self) -> int:
        return self.shower * _USES + self.use


@dataclass(frozen=True, slots=True)
class _Image:
    header: _Header
    hits: npt.NDArray[np.float64]  # (n_pixels, 5): cluster, pixel, x, y, amplitude


def _header(line: Line) -> _Header | None:
    values = numbers(line.words)
    if values is None or len(values) != _HEADER_WORDS:
        return None
    whole = values[1:4]
    if not all(math.isfinite(value) and value == int(value) and value >= 0 for value in whole):
        return None
    if not 0 < values[3] <= MOST_PIXELS or not 0 < values[4] < math.inf:
        return None
    shower, use, n_pixels = (int(value) for value in whole)
    return _Header(line, shower, use, n_pixels, values[4], (values[5], values[6]), (values[7], values[8]))


def _hit(line: Line) -> list[float] | None:
    values = numbers(line.words)
    if values is None or len(values) != _PIXEL_WORDS or not all(map(math.isfinite, values)):
        return None
    return values


def read_images(stream: BinaryIO, problems: Problems, span: Span | None = None) -> Iterator[_Image]:
    """Yield the whole images of a text file; what is no image is noted and passed over up to the next header.

    Of a span, which is of bytes, the images whose header begins in it.
    """
    header: _Header | None = None
    hits: list[list[float]] = []
    # What comes before the first header of a later span belongs to the span before.
    skipping = span is not None and span.start > 0
    for line in lines_of(stream, problems, span.start if span is not None else 0):
        found = _header(line)
        after = span is not None and line.offset >= span.stop
        if found is not None and header is not None:
            problems.at_line(header.line, f"an image of {header.n_pixels} pixels has only {len(hits)}")
            header = None
        if after and header is None:
            return
        if found is not None:
            header, hits, skipping = found, [], False
            continue
        hit = _hit(line) if header is not None else None
        if header is None or hit is None:
            if not skipping:
                what = "an image's header" if header is None else f"pixel {len(hits) + 1} of {header.n_pixels}"
                problems.at_line(line, f"{what} was expected; passed over up to the next header")
            header, skipping = None, True
            continue
        hits.append(hit)
        if len(hits) == header.n_pixels:
            yield _Image(header, np.array(hits))
            header = None
    if header is not None:
        problems.at_line(header.line, f"the file ends within an image: {len(hits)} of {header.n_pixels} pixels")


class _Placement:
    """Finds the pixels of the camera at the places of hits."""

    def __init__(self, camera: CameraGeometry) -> None:
        self.camera = camera
        self._x, self._y = camera.x / DEG_PER_CM, camera.y / DEG_PER_CM

    def pixels(self, image: _Image, problems: Problems) -> npt.NDArray[np.int64] | None:
        """Return the index of each hit's pixel, or None (noted) if a hit is nowhere, elsewhere or twice."""
        cluster, channel = image.hits[:, 0].astype(np.int64), 2 * image.hits[:, 1].astype(np.int64)
        x, y = image.hits[:, 2], image.hits[:, 3]
        index = self.camera.index(cluster, channel)
        off = np.hypot(self._x[index] - x, self._y[index] - y)
        doubtful = (index < 0) | (off > _TOLERANCE_CM)
        if doubtful.any():
            distance = np.hypot(self._x - x[doubtful, None], self._y - y[doubtful, None])
            index[doubtful] = distance.argmin(axis=1)
            far = distance.min(axis=1) > _TOLERANCE_CM
            strange = far | (self.camera.cluster[index[doubtful]] != cluster[doubtful])
            if strange.any():
                hit = int(np.flatnonzero(doubtful)[np.argmax(strange)])
                problems.at_line(
                    image.header.line,
                    f"image passed over: no pixel of cluster {cluster[hit]} at ({x[hit]:g}, {y[hit]:g}) cm",
                )
                return None
        if len(np.unique(index)) < len(index):
            problems.at_line(image.header.line, "image passed over: a pixel is given twice")
            return None
        return index


def run_of(name: str) -> int | None:
    """Return the number of the production in a file's name: 607 for ``taiga607_clean_…``."""
    match = re.match(r"^\D*?(\d+)_", PurePosixPath(name).name)
    return int(match[1]) if match else None


def telescope_of(name: str) -> int:
    """Return the telescope in a file's name: 1 for ``…_iact01_…``; 1 if there is none."""
    match = re.search(r"iact(\d+)", PurePosixPath(name).name)
    return int(match[1]) if match else 1


def primary_of(name: str) -> str:
    """Return the primary that a path names, or ``unknown``: these files do not tell."""
    lower = name.lower()
    return next((primary for primary in _PRIMARIES if primary in lower), "unknown")


class TaigaMcReader(ImageReader):
    """Cleaned Monte Carlo images of TAIGA-IACT01 as text."""

    name: ClassVar[str] = "taiga-mc"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        CAMERA,
        ENERGY_MIN,
        ENERGY_MAX,
        SHOWERS,
        Attribute("pixels_max", "integer", "Most pixels in an image of the file."),
        Attribute("size_min", "number", "Smallest sum of amplitudes of an image.", "pe"),
        Attribute("size_max", "number", "Largest sum of amplitudes of an image.", "pe"),
    )

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise a header and as many pixels as it announces (or the head holds)."""
        lines = head_lines(head)
        if not lines:
            return False
        header = _header(Line(1, 0, lines[0]))
        hits = lines[1 : 1 + header.n_pixels] if header else []
        return bool(hits) and all(_hit(Line(1, 0, line)) is not None for line in hits)

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read all images: their number, showers, energies and sizes.

        Raises
        ------
        FormatError
            If there is no whole image.
        """
        problems = Problems()
        place = _Placement(camera_named(CAMERA_NAME))
        energies: list[float] = []
        sizes: list[float] = []
        showers: set[int] = set()
        most = 0
        for image in read_images(stream, problems):
            if place.pixels(image, problems) is None:
                continue
            energies.append(image.header.energy)
            sizes.append(float(image.hits[:, 4].sum()))
            showers.add(image.header.shower)
            most = max(most, image.header.n_pixels)
        if not energies:
            reason = f": {problems.kept[0].reason}" if problems.kept else ""
            raise FormatError(f"no whole image{reason}", where=name)
        return Metadata(
            run=run_of(name),
            telescope=telescope_of(name),
            events=len(energies),
            attributes={
                "camera": CAMERA_NAME,
                "energy_min": min(energies),
                "energy_max": max(energies),
                "showers": len(showers),
                "pixels_max": most,
                "size_min": min(sizes),
                "size_max": max(sizes),
            },
            problems=problems.result(),
        )

    def spans(self, stream: BinaryIO, name: str, target_bytes: int) -> list[Span]:
        """Return ranges of bytes; an image is of the span in which its header begins."""
        return even_spans(stream.seek(0, 2), target_bytes)

    def images(
        self,
        stream: BinaryIO,
        name: str,
        batch_size: int = 1024,
        span: Span | None = None,
        problems: Problems | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the images, 0 in pixels that cleaning removed, with the mask of those that it kept."""
        camera = camera_named(CAMERA_NAME)
        schema = image_schema(CAMERA_NAME, cleaned=True)
        for batch in self._batches(stream, batch_size, camera, span, problems):
            pixels = np.zeros((len(batch), camera.n_pixels), np.float32)
            mask = np.zeros(pixels.shape, bool)
            for row, (image, index) in enumerate(batch):
                pixels[row, index] = image.hits[:, 4]
                mask[row, index] = True
            columns = {
                **_keys([image.header for image, _ in batch], name),
                "time": pa.nulls(len(batch), schema.field("time").type),
                "image": to_binary(pixels),
                "mask": to_binary(mask),
            }
            yield pa.RecordBatch.from_pydict(columns, schema=schema)

    def truth(self, stream: BinaryIO, name: str, batch_size: int = 1024) -> Iterator[pa.RecordBatch]:
        """Yield energy, core and source of each image; its primary is the one that the path names."""
        camera = camera_named(CAMERA_NAME)
        for batch in self._batches(stream, batch_size, camera):
            headers = [image.header for image, _ in batch]
            columns: dict[str, Any] = {
                **_keys(headers, name),
                "shower": [header.shower for header in headers],
                "primary": [primary_of(name)] * len(headers),
                "true_energy": [header.energy for header in headers],
                "true_core_x": [header.core[0] for header in headers],
                "true_core_y": [header.core[1] for header in headers],
                "true_source_x": [header.source[0] * DEG_PER_CM for header in headers],
                "true_source_y": [header.source[1] * DEG_PER_CM for header in headers],
            }
            for field in TRUTH_SCHEMA:
                columns.setdefault(field.name, pa.nulls(len(headers), field.type))
            yield pa.RecordBatch.from_pydict(columns, schema=TRUTH_SCHEMA)

    def _batches(
        self,
        stream: BinaryIO,
        batch_size: int,
        camera: CameraGeometry,
        span: Span | None = None,
        problems: Problems | None = None,
    ) -> Iterator[list[tuple[_Image, npt.NDArray[np.int64]]]]:
        problems = problems if problems is not None else Problems()
        place = _Placement(camera)
        batch: list[tuple[_Image, npt.NDArray[np.int64]]] = []
        for image in read_images(stream, problems, span):
            index = place.pixels(image, problems)
            if index is None:
                continue
            batch.append((image, index))
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch


def _keys(headers: list[_Header], name: str) -> dict[str, Any]:
    return {
        "experiment": ["TAIGA-MC"] * len(headers),
        "run": [run_of(name) or 0] * len(headers),
        "event": [header.event for header in headers],
        "telescope": [telescope_of(name)] * len(headers),
    }


#: Columns without which a table is not the collaboration's.
_HILLAS_COLUMNS = {"event_number", "numb_pix", "energy", "size", "length[0]", "width[0]"}


class TaigaHillasReader(Reader):
    """Table of the image parameters of Monte Carlo images of TAIGA-IACT01, comma-separated."""

    name: ClassVar[str] = "taiga-mc-hillas"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        ENERGY_MIN,
        ENERGY_MAX,
        SHOWERS,
        PRIMARY,
        Attribute("size_min", "number", "Smallest sum of amplitudes of an image.", "pe"),
        Attribute("size_max", "number", "Largest sum of amplitudes of an image.", "pe"),
        Attribute("columns", "integer", "Number of columns of the table."),
    )

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise the names of the columns in the first line."""
        lines = head_lines(head)
        return bool(lines) and set(_columns(lines[0] if lines else "")) >= _HILLAS_COLUMNS

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read all rows: their number, showers, energies and sizes.

        Raises
        ------
        FormatError
            If the columns are missing or there is no whole row.
        """
        problems = Problems()
        lines = lines_of(stream, problems)
        first = next(lines, None)
        columns = _columns(first.text) if first else []
        missing = sorted(_HILLAS_COLUMNS - set(columns))
        if missing:
            raise FormatError(f"there is no column '{missing[0]}'", where=f"{name}:1")
        at = {column: place for place, column in enumerate(columns)}
        rows = 0
        showers: set[int] = set()
        energy, size = [math.inf, -math.inf], [math.inf, -math.inf]
        for line in lines:
            values = numbers([word.strip() for word in line.text.split(",")])
            if values is None or len(values) != len(columns):
                problems.at_line(line, f"{len(columns)} numbers are wanted")
                continue
            if not math.isfinite(values[at["event_number"]]):
                problems.at_line(line, "a row without an event number")
                continue
            rows += 1
            showers.add(int(values[at["event_number"]]))
            for limits, value in ((energy, values[at["energy"]]), (size, values[at["size"]])):
                if math.isfinite(value):
                    limits[0], limits[1] = min(limits[0], value), max(limits[1], value)
        if not rows:
            raise FormatError("no whole row", where=name)
        attributes: dict[str, Scalar] = {"showers": len(showers), "columns": len(columns)}
        for label, limits in (("energy", energy), ("size", size)):
            if math.isfinite(limits[0]):
                attributes |= {f"{label}_min": limits[0], f"{label}_max": limits[1]}
        if primary_of(name) != "unknown":
            attributes["primary"] = primary_of(name)
        return Metadata(
            run=run_of(name),
            telescope=telescope_of(name),
            events=rows,
            attributes=attributes,
            problems=problems.result(),
        )


def _columns(line: str) -> list[str]:
    # No csv.reader: it raises at a stray carriage return, and these tables quote nothing.
    return [word.strip().strip('\ufeff"') for word in line.split(",")]

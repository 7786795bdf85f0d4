"""Monte Carlo of TAIGA-IACT as the collaboration hands it on: cleaned images as text, and their table of parameters.

An image is a header of 11 numbers, followed by one line a pixel that survived cleaning::

    number event array-offset n_pixels energy/TeV source_x/cm source_y/cm core_x/m core_y/m axis-a axis-b
    cluster pixel x/cm y/cm amplitude/pe          n_pixels times

The shower `event` was thrown several times onto the array; `array-offset` numbers these uses of it. `pixel` is the
MAROC channel, half the high-gain ADC channel. A few files number pixels of a cluster in another way, so the place
decides, and the cluster must agree with it.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import PurePosixPath
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.registry import camera_named
from apbatch.camera.taiga import DEG_PER_CM
from apbatch.errors import FormatError
from apbatch.formats.attributes import CAMERA, ENERGY_MAX, ENERGY_MIN, PRIMARY, SHOWERS
from apbatch.formats.event_columns import AZIMUTH, BATCH, CORE_X, CORE_Y, ENERGY, ZENITH, event_batch
from apbatch.formats.images import TRUTH_SCHEMA, image_schema, to_binary
from apbatch.formats.lines import Line, Problems, head_lines, lines_of, numbers
from apbatch.formats.number_lines import NumberLines, number_lines
from apbatch.formats.reader import Attribute, ImageReader, Metadata, Reader, Scalar, Span, even_spans

CAMERA_NAME = "TAIGA-IACT01"
#: An event is ``shower x 100 + array offset``, as in CORSIKA's own numbering of used showers.
_USES = 100
_HEADER_WORDS, _PIXEL_WORDS = 11, 5
#: How far a hit may lie from a pixel of the camera, cm.
_TOLERANCE_CM = 0.05
_PRIMARIES = ("gamma", "proton", "electron", "helium", "iron")

MOST_PIXELS = 10_000


#: More than any number of a shower or of its use.
_MOST_SHOWER, _MOST_USE = 1e15, 1e6
#: More than any number of a cluster, and of a channel in it.
_CLUSTERS, _CHANNELS = 64, 128


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


def _header(lines: NumberLines, index: int) -> _Header:
    values = lines.values[index].tolist()
    shower, use, n_pixels = (int(value) for value in values[1:4])
    return _Header(lines.line(index), shower, use, n_pixels, values[4], (values[5], values[6]), (values[7], values[8]))


def _kinds(lines: NumberLines) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Tell which lines are headers of images, and which are pixels."""
    with np.errstate(invalid="ignore"):
        shower, use, n_pixels, energy = lines.values[:, 1:5].T
        header = (lines.count == _HEADER_WORDS) & (shower >= 0) & (shower < _MOST_SHOWER) & (use >= 0)
        header &= (use < _MOST_USE) & (n_pixels > 0) & (n_pixels <= MOST_PIXELS) & (energy > 0) & (energy < np.inf)
        header &= (np.floor(lines.values[:, 1:4]) == lines.values[:, 1:4]).all(axis=1)
        pixel = (lines.count == _PIXEL_WORDS) & np.isfinite(lines.values[:, :_PIXEL_WORDS]).all(axis=1)
    return header, pixel


class _Images:
    """Puts the lines of a text file together to images; what is none is noted, up to the next header."""

    def __init__(self, problems: Problems, skipping: bool) -> None:
        self._problems, self._skipping = problems, skipping
        self._header: _Header | None = None
        self._hits: list[npt.NDArray[np.float64]] = []
        self._got = 0

    @property
    def within(self) -> bool:
        """Whether an image has begun and is not complete."""
        return self._header is not None

    def begin(self, header: _Header) -> None:
        """Take the header of the next image."""
        self.broken_off("an image of {wanted} pixels has only {got}")
        self._header, self._hits, self._got, self._skipping = header, [], 0, False

    def broken_off(self, what: str) -> None:
        """Note an image that is not complete."""
        if self._header is not None:
            text = what.format(wanted=self._header.n_pixels, got=self._got)
            self._problems.at_line(self._header.line, text)
            self._header = None

    def body(
        self, lines: NumberLines, pixel: npt.NDArray[np.bool_], first: int, last: int, inside: int
    ) -> _Image | None:
        """Take the lines between two headers; return the image that they complete.

        Lines from `inside` on belong to the next span, unless the image needs them.
        """
        made = None
        if self._header is not None:
            take = min(self._header.n_pixels - self._got, last - first)
            fine = pixel[first : first + take]
            if not fine.all():
                bad = int(np.argmin(fine))
                what = f"pixel {self._got + bad + 1} of {self._header.n_pixels}"
                self._problems.at_line(lines.line(first + bad), _EXPECTED.format(what))
                self._header, self._skipping = None, True
                return None
            if take:
                self._hits.append(lines.values[first : first + take, :_PIXEL_WORDS])
            self._got, first = self._got + take, first + take
            if self._got == self._header.n_pixels:
                hits = self._hits[0] if len(self._hits) == 1 else np.concatenate(self._hits)
                made, self._header = _Image(self._header, hits), None
        if first < min(last, inside) and self._header is None and not self._skipping:
            self._problems.at_line(lines.line(first), _EXPECTED.format("an image's header"))
            self._skipping = True
        return made


_EXPECTED = "{} was expected; passed over up to the next header"


def read_images(stream: BinaryIO, problems: Problems, span: Span | None = None) -> Iterator[_Image]:
    """Yield the whole images of a text file; what is no image is noted and passed over up to the next header.

    Of a span, which is of bytes, the images whose header begins in it.
    """
    start, stop = (span.start, span.stop) if span is not None else (0, 1 << 62)
    # What comes before the first header of a later span belongs to the span before.
    images = _Images(problems, skipping=start > 0)
    for lines in number_lines(stream, problems, _HEADER_WORDS, start):
        header, pixel = _kinds(lines)
        headers = np.flatnonzero(header).tolist()
        # Lines at and after the stop are looked at only to complete an image.
        inside = int(np.searchsorted(lines.offset, stop))
        for first, last in pairwise([-1, *headers, len(header)]):
            if first >= 0:
                if first >= inside:
                    images.broken_off("an image of {wanted} pixels has only {got}")
                    return
                images.begin(_header(lines, first))
            made = images.body(lines, pixel, first + 1, last, inside)
            if made is not None:
                yield made
            if last > inside and not images.within:
                return
    images.broken_off("the file ends within an image: {got} of {wanted} pixels")


class _Placement:
    """Finds the pixels of the camera at the places of hits."""

    def __init__(self, camera: CameraGeometry) -> None:
        self.camera = camera
        self._x, self._y = camera.x / DEG_PER_CM, camera.y / DEG_PER_CM
        self._index = np.full((_CLUSTERS, _CHANNELS), -1, np.int64)
        self._index[camera.cluster, camera.number] = np.arange(camera.n_pixels)

    def placed(
        self, images: list[_Image], problems: Problems
    ) -> tuple[list[_Header], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Find the pixels of images.

        Returns
        -------
        headers : list
            Of the images that are kept; one with a hit that is nowhere, elsewhere or twice is noted and left out.
        row, pixel : ndarray of int64, shape (n_hits,)
            Image and pixel of each hit.
        amplitude : ndarray of float64, shape (n_hits,)
        """
        hits = np.concatenate([image.hits for image in images])
        image = np.repeat(np.arange(len(images)), [len(one.hits) for one in images])
        cluster, channel = hits[:, 0], 2 * hits[:, 1]
        fits = (cluster >= 0) & (cluster < _CLUSTERS) & (channel >= 0) & (channel < _CHANNELS)
        cluster, channel = (np.where(fits, values, 0).astype(np.int64) for values in (cluster, channel))
        pixel = np.where(fits, self._index[cluster, channel], -1)
        off = np.hypot(self._x[pixel] - hits[:, 2], self._y[pixel] - hits[:, 3])
        bad = self._moved(images, hits, image, pixel, (pixel < 0) | (off > _TOLERANCE_CM), problems)
        order = np.argsort(image * self.camera.n_pixels + pixel, kind="stable")
        same = (np.diff(image[order]) == 0) & (np.diff(pixel[order]) == 0)
        for one in np.unique(image[order[1:][same]]).tolist():
            if one not in bad:
                problems.at_line(images[one].header.line, "image passed over: a pixel is given twice")
                bad.add(one)
        if not bad:
            return [one.header for one in images], image, pixel, hits[:, 4]
        good = np.array([number not in bad for number in range(len(images))])
        kept = good[image]
        row = (np.cumsum(good) - 1)[image[kept]]
        return [one.header for one, keep in zip(images, good, strict=True) if keep], row, pixel[kept], hits[kept, 4]

    def _moved(
        self,
        images: list[_Image],
        hits: npt.NDArray[np.float64],
        image: npt.NDArray[np.int64],
        pixel: npt.NDArray[np.int64],
        doubtful: npt.NDArray[np.bool_],
        problems: Problems,
    ) -> set[int]:
        """Place hits, whose numbers and places disagree, by their place; return the images where that fails."""
        bad: set[int] = set()
        for hit in np.flatnonzero(doubtful).tolist():
            one = int(image[hit])
            if one in bad:
                continue
            cluster, x, y = (float(hits[hit, column]) for column in (0, 2, 3))
            distance = np.hypot(self._x - x, self._y - y)
            pixel[hit] = int(np.argmin(distance))
            if distance[pixel[hit]] > _TOLERANCE_CM or self.camera.cluster[pixel[hit]] != cluster:
                reason = f"image passed over: no pixel of cluster {cluster:g} at ({x:g}, {y:g}) cm"
                problems.at_line(images[one].header.line, reason)
                bad.add(one)
        return bad


def run_of(name: str) -> int | None:
    """Return the number of the production in a file's name: 607 for ``taiga607_clean_…``."""
    match = re.match(r"^\D*?(\d{1,18})_", PurePosixPath(name).name)
    return int(match[1]) if match else None


def telescope_of(name: str) -> int:
    """Return the telescope in a file's name: 1 for ``…_iact01_…``; 1 if there is none."""
    match = re.search(r"iact(\d{1,9})", PurePosixPath(name).name)
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
        text = "".join(f"{line}\n" for line in lines).encode()
        found = next(number_lines(io.BytesIO(text), Problems(), _HEADER_WORDS, compiled=False))
        header, pixel = _kinds(found)
        if not len(header) or not header[0]:
            return False
        hits = pixel[1 : 1 + int(found.values[0, 3])]
        return bool(len(hits)) and bool(hits.all())

    def isolated(self, head: bytes) -> bool:
        """Return False: no library in C parses it."""
        return False

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
        for headers, row, _, amplitude in _batches(stream, 1024, place, problems):
            energies += [header.energy for header in headers]
            sizes += np.bincount(row, amplitude, len(headers)).tolist()
            showers.update(header.shower for header in headers)
            most = max(most, *(header.n_pixels for header in headers))
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

    event_columns: ClassVar[tuple[Attribute, ...]] = (ENERGY, CORE_X, CORE_Y)

    def events(self, stream: BinaryIO, name: str, problems: Problems | None = None) -> Iterator[pa.RecordBatch]:
        """Yield energy, light, number of pixels and core of each image."""
        problems = problems if problems is not None else Problems()
        place = _Placement(camera_named(CAMERA_NAME))
        for headers, row, _, amplitude in _batches(stream, 1024, place, problems):
            columns = {
                "energy": np.array([header.energy for header in headers]),
                "size": np.bincount(row, amplitude, len(headers)),
                "n_pixels": np.array([header.n_pixels for header in headers], np.float64),
                "core_x": np.array([header.core[0] for header in headers]),
                "core_y": np.array([header.core[1] for header in headers]),
            }
            event = np.array([header.event for header in headers], np.int64)
            yield event_batch(run_of(name) or 0, event, columns, telescope=telescope_of(name), cleaning="images")

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
        problems = problems if problems is not None else Problems()
        for headers, row, pixel, amplitude in _batches(stream, batch_size, _Placement(camera), problems, span):
            pixels = np.zeros((len(headers), camera.n_pixels), np.float32)
            mask = np.zeros(pixels.shape, bool)
            pixels[row, pixel], mask[row, pixel] = amplitude, True
            columns = {
                **_keys(headers, name),
                "time": pa.nulls(len(headers), schema.field("time").type),
                "image": to_binary(pixels),
                "mask": to_binary(mask),
            }
            yield pa.RecordBatch.from_pydict(columns, schema=schema)

    def truth(self, stream: BinaryIO, name: str, batch_size: int = 1024) -> Iterator[pa.RecordBatch]:
        """Yield energy, core and source of each image; its primary is the one that the path names."""
        camera = camera_named(CAMERA_NAME)
        for headers, _, _, _ in _batches(stream, batch_size, _Placement(camera), Problems()):
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
    stream: BinaryIO, batch_size: int, place: _Placement, problems: Problems, span: Span | None = None
) -> Iterator[tuple[list[_Header], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    images = read_images(stream, problems, span)
    while batch := list(islice(images, batch_size)):
        placed = place.placed(batch, problems)
        if placed[0]:
            yield placed


def _keys(headers: list[_Header], name: str) -> dict[str, Any]:
    return {
        "experiment": ["TAIGA-MC"] * len(headers),
        "run": [run_of(name) or 0] * len(headers),
        "event": [header.event for header in headers],
        "telescope": [telescope_of(name)] * len(headers),
    }


#: Columns of the collaboration's table, and their names here.
_TABLE = {
    "size": "size", "numb_pix": "n_pixels", "Xc[0]": "cog_x", "Yc[0]": "cog_y", "length[0]": "length",
    "width[0]": "width", "dist[0]": "distance", "azwidth[1]": "azwidth", "miss[1]": "miss", "alpha[0]": "alpha",
    "con1": "con1", "con2": "con2", "skewness_l": "skewness", "kurtosis_l": "kurtosis", "edge": "edge",
    "num_islands": "n_islands", "energy": "energy", "x_ground": "core_x", "y_ground": "core_y",
    "source_tet": "zenith", "source_fi": "azimuth", "Xmax": "depth_of_maximum",
}  # fmt: skip
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

    event_columns: ClassVar[tuple[Attribute, ...]] = (
        ENERGY,
        ZENITH,
        AZIMUTH,
        CORE_X,
        CORE_Y,
        PRIMARY,
        Attribute("depth_of_maximum", "number", "Depth of the shower's maximum.", "g/cm2"),
    )

    def events(self, stream: BinaryIO, name: str, problems: Problems | None = None) -> Iterator[pa.RecordBatch]:
        """Yield image parameters and truth; events are numbered as in the images of the same production."""
        problems = problems if problems is not None else Problems()
        lines = lines_of(stream, problems, whole=True)
        first = next(lines, None)
        names = _columns(first.text) if first else []
        if missing := sorted(_HILLAS_COLUMNS - set(names)):
            raise FormatError(f"there is no column '{missing[0]}'", where=f"{name}:1")
        while batch := list(islice(lines, BATCH)):
            rows = []
            for line in batch:
                values = numbers([word.strip() for word in line.text.split(",")])
                if values is None or len(values) != len(names):
                    problems.at_line(line, f"{len(names)} numbers are wanted")
                elif not (values[names.index("event_number")] < _MOST_SHOWER):
                    problems.at_line(line, "a row without an event number")
                else:
                    rows.append(values)
            if not rows:
                continue
            table = dict(zip(names, np.array(rows, np.float64).T, strict=True))
            columns: dict[str, Any] = {ours: table[theirs] for theirs, ours in _TABLE.items() if theirs in table}
            for angle in ("zenith", "azimuth"):
                if angle in columns:
                    columns[angle] = np.degrees(columns[angle]) % 360.0
            columns["primary"] = [primary_of(name)] * len(rows)
            use = np.nan_to_num(table.get("axis_scatter", np.zeros(len(rows))))
            event = table["event_number"].astype(np.int64) * _USES + np.clip(use, 0, _MOST_USE).astype(np.int64)
            yield event_batch(run_of(name) or 0, event, columns, telescope=telescope_of(name), cleaning="taiga-mc")

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise the names of the columns in the first line."""
        lines = head_lines(head)
        return bool(lines) and set(_columns(lines[0] if lines else "")) >= _HILLAS_COLUMNS

    def isolated(self, head: bytes) -> bool:
        """Return False: no library in C parses it."""
        return False

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read all rows: their number, showers, energies and sizes.

        Raises
        ------
        FormatError
            If the columns are missing or there is no whole row.
        """
        problems = Problems()
        lines = lines_of(stream, problems, whole=True)
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

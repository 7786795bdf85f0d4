"""Monte Carlo images of TAIGA-IACT as the collaboration hands them on: cleaned, as text."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.instruments.taiga import DEG_PER_CM
from apbatch.errors import FormatError
from apbatch.formats.attributes import CAMERA, ENERGY_MAX, ENERGY_MIN, SHOWERS
from apbatch.formats.compressed import content_fits, kind_of, may_fit
from apbatch.formats.event_columns import CORE_X, CORE_Y, ENERGY, event_batch
from apbatch.formats.images import TRUTH_SCHEMA, image_schema, to_binary
from apbatch.formats.reader import Attribute, ImageReader, Metadata, Span, even_spans
from apbatch.formats.taiga.numbering import camera_name_of, primary_of, run_of, telescope_of
from apbatch.formats.taiga.text_images import HEADER_WORDS, ImageHeader, Placement, line_kinds, read_images
from apbatch.formats.text.lines import Problems, head_lines
from apbatch.formats.text.number_lines import number_lines


class TaigaMcReader(ImageReader):
    """Cleaned Monte Carlo images of TAIGA-IACT as text, in the camera of the telescope in the file's name."""

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
        return may_fit(head, self._is_content)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look into a compressed file, of which the first bytes may tell nothing."""
        return content_fits(stream, self._is_content)

    def _is_content(self, head: bytes) -> bool:
        lines = head_lines(head)
        if not lines:
            return False
        text = "".join(f"{line}\n" for line in lines).encode()
        rows = next(number_lines(io.BytesIO(text), Problems(), HEADER_WORDS, compiled=False))
        header, pixel = line_kinds(rows)
        if not len(header) or not header[0]:
            return False
        hits = pixel[1 : 1 + int(rows.values[0, 3])]
        return bool(len(hits)) and bool(hits.all())

    def isolated(self, head: bytes) -> bool:
        """Return False: no library in C parses it."""
        return False

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read all images: their number, showers, energies and sizes.

        Raises
        ------
        FormatError
            If there is no whole image, or most lie in another camera: the file is of another telescope than its name.
        """
        problems = Problems()
        camera_name = camera_name_of(name)
        place = Placement(camera_named(camera_name))
        energies: list[float] = []
        sizes: list[float] = []
        showers: set[int] = set()
        most = 0
        for headers, row, _, amplitude in _batches(stream, 1024, place, problems):
            energies += [header.energy for header in headers]
            sizes += np.bincount(row, amplitude, len(headers)).tolist()
            showers.update(header.shower for header in headers)
            most = max(most, *(header.n_pixels for header in headers))
        if place.elsewhere > max(len(energies), 1):
            raise FormatError(
                f"{place.elsewhere} images do not lie in the camera {camera_name}, {len(energies)} do",
                where=name,
                remedy="name the telescope in the file's name, such as _iact02_",
            )
        if not energies:
            reason = f": {problems.kept[0].reason}" if problems.kept else ""
            raise FormatError(f"no whole image{reason}", where=name)
        return Metadata(
            run=run_of(name),
            telescope=telescope_of(name),
            events=len(energies),
            attributes={
                "camera": camera_name,
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
        place = Placement(camera_named(camera_name_of(name)))
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
        """Return ranges of bytes; an image is of the span in which its header begins. Compressed: read whole."""
        if kind_of(stream.read(4)) is not None:
            return []
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
        camera = camera_named(camera_name_of(name))
        schema = image_schema(camera.name, cleaned=True)
        problems = problems if problems is not None else Problems()
        for headers, row, pixel, amplitude in _batches(stream, batch_size, Placement(camera), problems, span):
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
        camera = camera_named(camera_name_of(name))
        for headers, _, _, _ in _batches(stream, batch_size, Placement(camera), Problems()):
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
    stream: BinaryIO, batch_size: int, place: Placement, problems: Problems, span: Span | None = None
) -> Iterator[tuple[list[ImageHeader], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    images = read_images(stream, problems, span)
    while batch := list(islice(images, batch_size)):
        placed = place.placed(batch, problems)
        if placed[0]:
            yield placed


def _keys(headers: list[ImageHeader], name: str) -> dict[str, Any]:
    return {
        "experiment": ["TAIGA-MC"] * len(headers),
        "run": [run_of(name) or 0] * len(headers),
        "event": [header.event for header in headers],
        "telescope": [telescope_of(name)] * len(headers),
    }

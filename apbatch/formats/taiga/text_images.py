"""Images of the collaboration's Monte Carlo, as text: lines to images, and their hits to pixels of the camera.

An image is a header of 11 numbers, followed by one line a pixel that survived cleaning::

    number event array-offset n_pixels energy/TeV source_x/cm source_y/cm core_x/m core_y/m axis-a axis-b
    cluster pixel x/cm y/cm amplitude/pe          n_pixels times

The shower `event` was thrown several times onto the array; `array-offset` numbers these uses of it. `pixel` is the
MAROC channel, half the high-gain ADC channel. A few files number pixels of a cluster in another way, so the place
decides, and the cluster must agree with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.instruments.taiga import DEG_PER_CM
from apbatch.formats.compressed import plain
from apbatch.formats.reader import Span
from apbatch.formats.taiga.numbering import MOST_SHOWER, MOST_USE, USES
from apbatch.formats.text.lines import Line, Problems
from apbatch.formats.text.number_lines import NumberLines, number_lines

HEADER_WORDS, PIXEL_WORDS = 11, 5
#: How far a hit may lie from a pixel of the camera, cm.
_TOLERANCE_CM = 0.05
MOST_PIXELS = 10_000
#: More than any number of a cluster, and of a channel in it.
_CLUSTERS, _CHANNELS = 64, 128


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The header of an image: its number, energy (TeV), source (cm in the camera) and core (m)."""

    line: Line
    shower: int
    use: int
    n_pixels: int
    energy: float
    source: tuple[float, float]
    core: tuple[float, float]

    @property
    def event(self) -> int:
        """The number of the event, made of those of the shower and of its use."""
        return self.shower * USES + self.use


@dataclass(frozen=True, slots=True)
class HitImage:
    """An image as its header and its hits."""

    header: ImageHeader
    hits: npt.NDArray[np.float64]  # (n_pixels, 5): cluster, pixel, x, y, amplitude


def _read_header(lines: NumberLines, index: int) -> ImageHeader:
    values = lines.values[index].tolist()
    shower, use, n_pixels = (int(value) for value in values[1:4])
    return ImageHeader(
        lines.line(index), shower, use, n_pixels, values[4], (values[5], values[6]), (values[7], values[8])
    )


def line_kinds(lines: NumberLines) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Tell which lines are headers of images, and which are pixels."""
    with np.errstate(invalid="ignore"):
        shower, use, n_pixels, energy = lines.values[:, 1:5].T
        header = (lines.count == HEADER_WORDS) & (shower >= 0) & (shower < MOST_SHOWER) & (use >= 0)
        header &= (use < MOST_USE) & (n_pixels > 0) & (n_pixels <= MOST_PIXELS) & (energy > 0) & (energy < np.inf)
        header &= (np.floor(lines.values[:, 1:4]) == lines.values[:, 1:4]).all(axis=1)
        pixel = (lines.count == PIXEL_WORDS) & np.isfinite(lines.values[:, :PIXEL_WORDS]).all(axis=1)
    return header, pixel


class _Images:
    """Puts the lines of a text file together to images; what is none is noted, up to the next header."""

    def __init__(self, problems: Problems, skipping: bool) -> None:
        self._problems, self._skipping = problems, skipping
        self._header: ImageHeader | None = None
        self._hits: list[npt.NDArray[np.float64]] = []
        self._got = 0

    @property
    def within(self) -> bool:
        """Whether an image has begun and is not complete."""
        return self._header is not None

    def begin(self, header: ImageHeader) -> None:
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
    ) -> HitImage | None:
        """Take the lines between two headers; return the image that they complete.

        Lines from `inside` on belong to the next span, unless the image needs them.
        """
        image = None
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
                self._hits.append(lines.values[first : first + take, :PIXEL_WORDS])
            self._got, first = self._got + take, first + take
            if self._got == self._header.n_pixels:
                hits = self._hits[0] if len(self._hits) == 1 else np.concatenate(self._hits)
                image, self._header = HitImage(self._header, hits), None
        if first < min(last, inside) and self._header is None and not self._skipping:
            self._problems.at_line(lines.line(first), _EXPECTED.format("an image's header"))
            self._skipping = True
        return image


_EXPECTED = "{} was expected; passed over up to the next header"


def read_images(stream: BinaryIO, problems: Problems, span: Span | None = None) -> Iterator[HitImage]:
    """Yield the whole images of a text file; what is no image is noted and passed over up to the next header.

    Of a span, which is of bytes, the images whose header begins in it.

    Parameters
    ----------
    stream : BinaryIO
        Compressed or not; in spans only what is not.
    problems : Problems
        Takes lines that were passed over.
    span : Span, optional
        Bytes of the file; all if left out.
    """
    start, stop = (span.start, span.stop) if span is not None else (0, 1 << 62)
    content, decompression = (stream, None) if span is not None else plain(stream)
    # What comes before the first header of a later span belongs to the span before.
    images = _Images(problems, skipping=start > 0)
    for lines in number_lines(content, problems, HEADER_WORDS, start):
        header, pixel = line_kinds(lines)
        headers = np.flatnonzero(header).tolist()
        # Lines at and after the stop are looked at only to complete an image.
        inside = int(np.searchsorted(lines.offset, stop))
        for first, last in pairwise([-1, *headers, len(header)]):
            if first >= 0:
                if first >= inside:
                    images.broken_off("an image of {wanted} pixels has only {got}")
                    return
                images.begin(_read_header(lines, first))
            image = images.body(lines, pixel, first + 1, last, inside)
            if image is not None:
                yield image
            if last > inside and not images.within:
                return
    images.broken_off("the file ends within an image: {got} of {wanted} pixels")
    if decompression is not None:
        decompression.note_fault(problems)


class Placement:
    """Finds the pixels of the camera at the places of hits.

    Attributes
    ----------
    camera : CameraGeometry
    elsewhere : int
        How many images so far had a hit where the camera has no pixel of that cluster.
    """

    def __init__(self, camera: CameraGeometry) -> None:
        self.camera, self.elsewhere = camera, 0
        self._x, self._y = camera.x / DEG_PER_CM, camera.y / DEG_PER_CM
        self._index = np.full((_CLUSTERS, _CHANNELS), -1, np.int64)
        self._index[camera.cluster, camera.number] = np.arange(camera.n_pixels)

    def placed(
        self, images: list[HitImage], problems: Problems
    ) -> tuple[list[ImageHeader], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
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
        usable = good[image]
        row = (np.cumsum(good) - 1)[image[usable]]
        return [one.header for one, keep in zip(images, good, strict=True) if keep], row, pixel[usable], hits[usable, 4]

    def _moved(
        self,
        images: list[HitImage],
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
        self.elsewhere += len(bad)
        return bad

"""FACT's photon stream: a JSON object a line, compressed or not, with the arrival times of photons in every pixel.

``Trigger`` is 4 for a shower; 1024 is a pedestal, 1 and 2 are external triggers, 256 and 512 light pulses: those are
counted and are no images. Simulations have showers alone and no ``Trigger``.

``PhotonArrivals_500ps`` lists, in the order of CHID, the time slices of 0.5 ns in which photons arrived. Observations
have ``Night``, ``Run``, ``Event``, ``UnixTime_s_us`` and ``Trigger``, simulations ``Run``, ``Event`` and ``Reuse``;
both ``Zd_deg``, ``Az_deg`` of the pointing and ``SaturatedPixels``. A pixel that is saturated, or has 500 photons,
where their extraction was given up, has no measurement. Reference: S. A. Mueller, PhD thesis, ETH Zurich 2019, and the
public description of the format.
"""

from __future__ import annotations

import json
import math
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.instruments.fact import NAME as CAMERA_NAME
from apbatch.errors import FormatError
from apbatch.formats.angles import clamped, turned
from apbatch.formats.attributes import (
    CALIBRATIONS,
    CAMERA,
    EVENT_FIRST,
    EVENT_LAST,
    PEDESTALS,
    POINTING_DEC,
    POINTING_RA,
    PRIMARY,
    SHOWERS,
    ZENITH_MAX,
    ZENITH_MIN,
)
from apbatch.formats.clocks import time_of
from apbatch.formats.compressed import kind_of, plain, plain_head, plain_name
from apbatch.formats.fact.nights import RUNS_A_NIGHT, night_of, times_of
from apbatch.formats.images import TRUTH_SCHEMA, image_schema, to_binary
from apbatch.formats.reader import Attribute, ImageReader, Metadata, Scalar, Span, even_spans
from apbatch.formats.signatures import is_of_another_kind
from apbatch.formats.sky import Place, pointing_from_horizon
from apbatch.formats.taiga.numbering import primary_of
from apbatch.formats.text.lines import Problems, RawLine, raw_lines

PIXELS = 1440
SLICE_NS = 0.5
#: A read-out has 300 slices; extraction of photons is given up at 500 in a pixel.
MOST_SLICES, MOST_PHOTONS = 1024, 500
#: On La Palma (the value that the collaboration's analysis uses, fact-tools).
_PLACE = Place(longitude=-17.891116, latitude=28.761647, height=2200.0)
#: An event is ``event x 100 + reuse``, as in TAIGA's Monte Carlo.
_USES = 100
#: All pixels with all photons and their commas are less.
_LONGEST_LINE = 4 << 20
_PHOTONS = b'"PhotonArrivals_500ps"'
_LAST_S = 1 << 32
#: Trigger of a shower, and how others are counted; what is not named is counted as external.
_SHOWER = 4
_OTHER_TRIGGERS = {1024: "pedestals", 256: "calibrations", 512: "calibrations"}
#: Degrees that an azimuth is counted to beyond a turn.
_MOST_AZIMUTH = 720.0


class _BadLineError(Exception):
    """The line is no event; says why."""


@dataclass(frozen=True, slots=True)
class _Event:
    run: int
    event: int
    shower: int | None
    night: date | None
    time_ns: int | None
    zenith: float
    azimuth: float
    saturated: list[int]
    trigger: int = _SHOWER


def _whole(content: dict[str, Any], key: str, most: int = 1 << 40) -> int:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < most:
        raise _BadLineError(f"{key} must be a whole number, not {_excerpt(value)}")
    return value


def _degrees(content: dict[str, Any], key: str) -> float:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _BadLineError(f"{key} must be an angle in degrees, not {_excerpt(value)}")
    return float(value)


def _excerpt(value: object) -> str:
    return repr(value)[:40] if value is not None else "missing"


def _event(content: Any) -> _Event:
    if not isinstance(content, dict):
        raise _BadLineError("not a JSON object")
    run, event = _whole(content, "Run"), _whole(content, "Event")
    saturated = content.get("SaturatedPixels", [])
    if not isinstance(saturated, list) or any(
        isinstance(pixel, bool) or not isinstance(pixel, int) or not 0 <= pixel < PIXELS for pixel in saturated
    ):
        raise _BadLineError("SaturatedPixels must be numbers of pixels")
    zenith, azimuth = float(clamped(_degrees(content, "Zd_deg"), 0, 180)), _degrees(content, "Az_deg")
    if math.isnan(zenith) or abs(azimuth) > _MOST_AZIMUTH:
        raise _BadLineError(f"a pointing to {_excerpt(content['Zd_deg'])} and {_excerpt(content['Az_deg'])} deg")
    if "Reuse" in content:
        reuse = _whole(content, "Reuse", _USES)
        return _Event(run, event * _USES + reuse, event, None, None, zenith, azimuth, saturated)
    number, time_ns = _whole(content, "Night", 10**8), None
    night = night_of(number)
    if night is None:
        raise _BadLineError(f"Night {number} is not a date of data taking")
    if "UnixTime_s_us" in content:
        time = content["UnixTime_s_us"]
        if not isinstance(time, list) or len(time) != 2:
            raise _BadLineError("UnixTime_s_us must be seconds and microseconds")
        seconds = _whole({"UnixTime_s_us": time[0]}, "UnixTime_s_us", _LAST_S)
        time_ns = seconds * 10**9 + _whole({"UnixTime_s_us": time[1]}, "UnixTime_s_us", 10**6) * 1000
        first, last = times_of(night)
        if not first <= time_ns < last:
            raise _BadLineError(
                f"UnixTime_s_us is {time_of(time_ns):%Y-%m-%d %H:%M:%S}, which is not of night {number}"
            )
    if run >= RUNS_A_NIGHT:
        raise _BadLineError(f"a night has no run {run}")
    trigger = _whole(content, "Trigger") if "Trigger" in content else _SHOWER
    return _Event(number * RUNS_A_NIGHT + run, event, None, night, time_ns, zenith, azimuth, saturated, trigger)


def _parse(content: bytes, image: npt.NDArray[np.float32], peak: npt.NDArray[np.float32]) -> _Event:
    """Read one line: the photons into `image` and `peak`, the rest is returned."""
    compiled = _compiled()
    key = content.find(_PHOTONS)
    if key < 0:
        raise _BadLineError("PhotonArrivals_500ps is missing")
    start = content.find(b"[", key)
    if compiled is None or content[key + len(_PHOTONS) : start].strip() != b":":
        whole = _json(content)
        event = _event(whole)
        _count(whole.get("PhotonArrivals_500ps"), image, peak)
    else:
        end = compiled(np.frombuffer(content, np.uint8), start, MOST_SLICES, MOST_PHOTONS, image, peak)
        if end < 0:
            raise _BadLineError(_REASONS[end])
        event = _event(_json(content[:start] + b"[]" + content[end:]))
    image[event.saturated] = np.nan
    peak[event.saturated] = np.nan
    return event


_REASONS = {
    -1: "PhotonArrivals_500ps must be lists of whole numbers",
    -2: f"PhotonArrivals_500ps must have {PIXELS} lists",
    -3: f"photons arrive in slices below {MOST_SLICES}",
}


def _json(content: bytes) -> Any:
    try:
        # Some files are one array of events, with a comma behind each line.
        return json.loads(content.rstrip(b" \t\r\n,"))
    except (ValueError, RecursionError) as error:
        raise _BadLineError(f"not JSON: {str(error)[:80]}") from error


def _count(photons: Any, image: npt.NDArray[np.float32], peak: npt.NDArray[np.float32]) -> None:
    """Do what the compiled parser does, where there is no numba."""
    if not isinstance(photons, list) or not all(isinstance(pixel, list) for pixel in photons):
        raise _BadLineError(_REASONS[-1])
    if len(photons) != PIXELS:
        raise _BadLineError(_REASONS[-2])
    for index, pixel in enumerate(photons):
        if any(isinstance(slice_, bool) or not isinstance(slice_, int) for slice_ in pixel):
            raise _BadLineError(_REASONS[-1])
        if any(not 0 <= slice_ < MOST_SLICES for slice_ in pixel):
            raise _BadLineError(_REASONS[-3])
        measured = len(pixel) < MOST_PHOTONS
        image[index] = len(pixel) if measured else np.nan
        peak[index] = np.median(pixel) if pixel and measured else np.nan


@cache
def _compiled() -> Callable[..., int] | None:
    """Return the compiled parser; None without numba."""
    try:
        from apbatch.formats.fact.kernel import parse_photons
    except ImportError:
        return None
    return parse_photons


class FactPhotonsReader(ImageReader):
    """FACT's photon stream: the number of photons of each pixel, and the median of their arrival."""

    name: ClassVar[str] = "fact-photons"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        CAMERA,
        EVENT_FIRST,
        EVENT_LAST,
        ZENITH_MIN,
        ZENITH_MAX,
        POINTING_RA,
        POINTING_DEC,
        SHOWERS,
        PRIMARY,
        PEDESTALS,
        CALIBRATIONS,
        Attribute("external_triggers", "integer", "Triggers from outside the camera in the file, which are no images."),
        Attribute("photons_min", "integer", "Fewest photons in an image of the file."),
        Attribute("photons_max", "integer", "Most photons in an image of the file."),
    )

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise the first line of a file, compressed or not; a broken one named like one, too."""
        content = plain_head(head).removeprefix(BOM_UTF8).lstrip(b" \t\r\n[")
        if content.startswith(b"{") and _PHOTONS in content:
            return True
        if is_of_another_kind(content):
            return False
        return self.claims(name) and (not content.strip() or b"\0" in content or kind_of(head) is not None)

    def isolated(self, head: bytes) -> bool:
        """Return False: no library in C parses it."""
        return False

    def claims(self, name: str) -> bool:
        """Tell whether a file is named as those of the photon stream are."""
        return plain_name(name).endswith(".phs.jsonl")

    def spans(self, stream: BinaryIO, name: str, target_bytes: int) -> list[Span]:
        """Return ranges of bytes, to which the lines belong that begin in them; a compressed file is read whole."""
        compressed = kind_of(stream.read(4)) is not None
        return [] if compressed else even_spans(stream.seek(0, 2), target_bytes)

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read all events: runs, times, pointing and numbers of photons.

        Raises
        ------
        FormatError
            If there is no event.
        """
        problems = Problems()
        first: _Event | None = None
        zenith, photons, times, numbers = [math.inf, -math.inf], [math.inf, -1.0], [1 << 62, -1], [1 << 62, -1]
        showers: set[int] = set()
        directions: list[tuple[float, float, int]] = []
        counts = dict.fromkeys(("events", "external_triggers", *_OTHER_TRIGGERS.values()), 0)
        for event, image in _events(stream, problems):
            first = first or event
            if event.run != first.run:
                problems.add(0, f"event {event.event} is of run {event.run}, the first is of {first.run}")
            if event.time_ns is not None:
                times = [min(times[0], event.time_ns), max(times[1], event.time_ns)]
                directions.append((event.zenith, event.azimuth, event.time_ns))
            if event.trigger != _SHOWER:
                counts[_OTHER_TRIGGERS.get(event.trigger, "external_triggers")] += 1
                continue
            counts["events"] += 1
            total = float(np.nansum(image))
            zenith = [min(zenith[0], event.zenith), max(zenith[1], event.zenith)]
            photons = [min(photons[0], total), max(photons[1], total)]
            numbers = [min(numbers[0], event.event), max(numbers[1], event.event)]
            if event.shower is not None:
                showers.add(event.shower)
        if first is None:
            reason = f": {problems.kept[0].reason}" if problems.kept else ""
            raise FormatError(f"no event{reason}", where=name, remedy="copy the file again from where it was made")
        count = counts.pop("events")
        attributes: dict[str, Scalar] = {"camera": CAMERA_NAME}
        if first.shower is None:
            attributes |= counts
        if directions:
            zeniths, azimuths, moments = zip(*directions, strict=True)
            attributes |= pointing_from_horizon(zeniths, azimuths, moments, _PLACE)
        if count:
            attributes |= {
                "event_first": numbers[0],
                "event_last": numbers[1],
                "zenith_min": zenith[0],
                "zenith_max": zenith[1],
                "photons_min": int(photons[0]),
                "photons_max": int(photons[1]),
            }
        if showers:
            attributes["showers"] = len(showers)
            if primary_of(name) != "unknown":
                attributes["primary"] = primary_of(name)
        timed = times[1] >= 0
        return Metadata(
            experiment="FACT" if first.shower is None else "FACT-MC",
            run=first.run,
            night=first.night,
            time_start=time_of(times[0]) if timed else None,
            time_end=time_of(times[1]) if timed else None,
            telescope=1,
            events=count,
            attributes=attributes,
            problems=problems.result(),
        )

    def images(
        self,
        stream: BinaryIO,
        name: str,
        batch_size: int = 1024,
        span: Span | None = None,
        problems: Problems | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the number of photons in each pixel, and the median of their arrival from the start of the read-out."""
        schema = image_schema(CAMERA_NAME, peak_time=True, pointing=True)
        problems = problems if problems is not None else Problems()
        for events, image, peak in _batches(stream, batch_size, problems, span):
            peak *= SLICE_NS
            columns: dict[str, Any] = {
                **_keys(events),
                "time": pa.array([event.time_ns for event in events], schema.field("time").type),
                "image": to_binary(image),
                "peak_time": to_binary(peak),
                "pointing_altitude": [90.0 - event.zenith for event in events],
                "pointing_azimuth": turned([event.azimuth for event in events]),
            }
            yield pa.RecordBatch.from_pydict(columns, schema=schema)

    def truth(self, stream: BinaryIO, name: str, batch_size: int = 1024) -> Iterator[pa.RecordBatch]:
        """Yield the shower of each simulated image; its primary is the one that the path names."""
        for events, _, _ in _batches(stream, batch_size, Problems(), None):
            simulated = [event for event in events if event.shower is not None]
            columns: dict[str, Any] = {
                **_keys(simulated),
                "shower": [event.shower for event in simulated],
                "primary": [primary_of(name)] * len(simulated),
            }
            for field in TRUTH_SCHEMA:
                columns.setdefault(field.name, pa.nulls(len(simulated), field.type))
            if simulated:
                yield pa.RecordBatch.from_pydict(columns, schema=TRUTH_SCHEMA)


_Images = npt.NDArray[np.float32]


def _batches(
    stream: BinaryIO, size: int, problems: Problems, span: Span | None
) -> Iterator[tuple[list[_Event], _Images, _Images]]:
    """Yield showers with their images and median slices, shape (n_events, n_pixels)."""
    images, peaks = (np.empty((size, PIXELS), np.float32) for _ in range(2))
    events: list[_Event] = []
    for line in _lines(stream, problems, span):
        event = _parsed(line, problems, images[len(events)], peaks[len(events)])
        if event is None or event.trigger != _SHOWER:
            continue
        events.append(event)
        if len(events) == size:
            yield events, images, peaks
            events = []
            images, peaks = (np.empty((size, PIXELS), np.float32) for _ in range(2))
    if events:
        yield events, images[: len(events)], peaks[: len(events)]


def _events(stream: BinaryIO, problems: Problems) -> Iterator[tuple[_Event, _Images]]:
    """Yield all events, of any trigger, with their images, each in the place of the one before."""
    image, peak = np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32)
    for line in _lines(stream, problems, None):
        event = _parsed(line, problems, image, peak)
        if event is not None:
            yield event, image


def _parsed(line: RawLine, problems: Problems, image: _Images, peak: _Images) -> _Event | None:
    try:
        return _parse(line.content, image, peak)
    except _BadLineError as error:
        whole = line.content.endswith(b"\n")
        problems.at_line(line, str(error) if whole else f"the file ends within an event ({error})")
    return None


def _lines(stream: BinaryIO, problems: Problems, span: Span | None) -> Iterator[RawLine]:
    content, decompression = (stream, None) if span is not None else plain(stream)
    start, stop = (span.start, span.stop) if span is not None else (0, 1 << 62)
    noted = decompression is None
    for line in raw_lines(content, problems, start, _LONGEST_LINE):
        if line.offset >= stop:
            return
        if decompression is not None and decompression.fault is not None and not line.content.endswith(b"\n"):
            decompression.note_fault(problems)  # that is why the last line has no end
            noted = True
            if not line.content.rstrip(b" \t\r,]").endswith(b"}"):
                return
        if line.content.strip(b" \t\r\n[]"):
            yield line
    if decompression is not None and not noted:
        decompression.note_fault(problems)


def _keys(events: list[_Event]) -> dict[str, Any]:
    return {
        "experiment": ["FACT" if event.shower is None else "FACT-MC" for event in events],
        "run": [event.run for event in events],
        "event": [event.event for event in events],
        "telescope": [1] * len(events),
    }

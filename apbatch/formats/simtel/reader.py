"""Simulated events of sim_telarray (``*.simtel``, ``.simtel.gz``, ``.simtel.zst``), read by eventio.

A file describes the telescopes of an array with their cameras, then gives the events: the shower, one use of it, and
what each telescope recorded, which here is an image (`apbatch.formats.simtel.file`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa

from apbatch.camera.geometry import CameraGeometry
from apbatch.errors import FormatError, MissingSoftwareError
from apbatch.formats.attributes import (
    CALIBRATIONS,
    CAMERA,
    ENERGY_MAX,
    ENERGY_MIN,
    EVENT_FIRST,
    EVENT_LAST,
    PRIMARY,
    SHOWERS,
    ZENITH_MAX,
    ZENITH_MIN,
)
from apbatch.formats.compressed import kind_of, plain, plain_head, plain_name
from apbatch.formats.eventio_objects import first_kind
from apbatch.formats.images import TRUTH_SCHEMA, image_schema, to_binary
from apbatch.formats.reader import Attribute, ImageReader, Metadata, Scalar, Span
from apbatch.formats.signatures import is_of_another_kind
from apbatch.formats.simtel.file import OF_PIXELS, OF_SHOWERS, OF_TELESCOPES, Image, Kind, Shower, SimtelFile
from apbatch.formats.text.lines import Problems, is_text

EXPERIMENT = "CTA-MC"
#: Types of objects that only sim_telarray writes at the top of a file.
_KINDS = frozenset({70, 75, *range(2000, 2100)})


class SimtelReader(ImageReader):
    """Output of sim_telarray: an image a telescope and event, batches by camera."""

    name: ClassVar[str] = "simtel"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        CAMERA,
        EVENT_FIRST,
        EVENT_LAST,
        ENERGY_MIN,
        ENERGY_MAX,
        ZENITH_MIN,
        ZENITH_MAX,
        SHOWERS,
        PRIMARY,
        CALIBRATIONS,
        Attribute("cameras", "string", "Names of the cameras, separated by commas."),
        Attribute("telescopes", "integer", "How many telescopes the array has."),
        Attribute("array_events", "integer", "Events that at least one telescope recorded."),
    )

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise the first object that a file of sim_telarray has; an empty or broken one by its name."""
        content = plain_head(head)
        if first_kind(content) in _KINDS:
            return True
        # A block of zstandard is larger than the head: `confirm` looks into it.
        if kind_of(head) == "zstandard":
            return True
        return self.claims(name) and not is_text(content or head) and not is_of_another_kind(content or head)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look at the first object; of a broken file the name decides."""
        try:
            content = plain(stream)[0].read(self.head_bytes)
        except MissingSoftwareError:
            return self.claims(name)
        return first_kind(content) in _KINDS or (self.claims(name) and not is_of_another_kind(content))

    def claims(self, name: str) -> bool:
        """Tell whether a file is named as sim_telarray's are."""
        return plain_name(name).endswith(".simtel")

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read showers, and what telescopes recorded of them as far as it can be made images.

        Raises
        ------
        FormatError
            If it is no file of sim_telarray.
        MissingSoftwareError
            Without eventio.
        """
        file = SimtelFile(Problems())
        images = events = 0
        numbers, energies, zeniths = [1 << 62, -1], [math.inf, 0.0], [math.inf, -1.0]
        showers: set[int] = set()
        primaries: set[str] = set()
        used: set[str] = set()
        for item in file.objects(stream, OF_SHOWERS | OF_TELESCOPES | OF_PIXELS):
            if item.kind == Kind.SHOWER and file.shower is not None:
                shower = file.shower
                showers.add(shower.number)
                primaries.add(shower.primary)
                energies = [min(energies[0], shower.energy), max(energies[1], shower.energy)]
                zeniths = [min(zeniths[0], 90 - shower.altitude), max(zeniths[1], 90 - shower.altitude)]
            if item.kind == Kind.ARRAY:
                event, cameras = file.readable(item)
                images += len(cameras)
                events += bool(cameras)
                used.update(camera.name for camera in cameras)
                if cameras:
                    numbers = [min(numbers[0], event), max(numbers[1], event)]
        if not file.telescopes:
            reason = f": {file.problems.kept[0].reason}" if file.problems.kept else ""
            raise FormatError(f"no telescope is described{reason}", where=name, remedy="copy the file again")
        names = used or {one.camera.name for one in file.telescopes.values() if one.camera is not None}
        attributes: dict[str, Scalar] = {
            "telescopes": len(file.telescopes),
            "array_events": events,
            "calibrations": file.calibrations,
        }
        if names:
            attributes["cameras"] = ",".join(sorted(names))
        if len(names) == 1:
            attributes["camera"] = next(iter(names))
        if numbers[1] >= 0:
            attributes |= {"event_first": numbers[0], "event_last": numbers[1]}
        if showers:
            attributes |= {
                "showers": len(showers),
                "primary": ",".join(sorted(primaries)),
                "energy_min": energies[0],
                "energy_max": energies[1],
                "zenith_min": zeniths[0],
                "zenith_max": zeniths[1],
            }
        return Metadata(
            experiment=EXPERIMENT,
            run=file.run,
            telescope=next(iter(file.telescopes)) if len(file.telescopes) == 1 else None,
            events=images,
            attributes=attributes,
            problems=file.problems.result(),
        )

    def images(
        self,
        stream: BinaryIO,
        name: str,
        batch_size: int = 1024,
        span: Span | None = None,
        problems: Problems | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the images of each camera in batches of its own; those of a camera are in the order of the file.

        The time is null: the clock of a simulation is that of the computer.

        Raises
        ------
        FormatError
            If it is no file of sim_telarray, or a span is asked for: the description at the start belongs to all.
        MissingSoftwareError
            Without eventio.
        """
        if span is not None:
            raise FormatError("a file of sim_telarray is read whole", where=name)
        file = SimtelFile(problems if problems is not None else Problems())
        waiting: dict[CameraGeometry, list[Image]] = {}
        for item in file.objects(stream, OF_SHOWERS | OF_TELESCOPES | OF_PIXELS):
            if item.kind != Kind.ARRAY:
                continue
            for image in file.images(item):
                batch = waiting.setdefault(image.camera, [])
                batch.append(image)
                if len(batch) == batch_size:
                    yield _batch(waiting.pop(image.camera), file)
        if not file.telescopes:
            raise FormatError("no telescope is described", where=name, remedy="copy the file again")
        for batch in waiting.values():
            yield _batch(batch, file)

    def truth(self, stream: BinaryIO, name: str, batch_size: int = 1024) -> Iterator[pa.RecordBatch]:
        """Yield the shower of each image; cores as seen from its telescope."""
        file = SimtelFile(Problems())
        rows: list[dict[str, Any]] = []
        for item in file.objects(stream, OF_SHOWERS):
            if item.kind != Kind.ARRAY or file.shower is None:
                continue
            event, records, pointings = file.recorded(item)
            for telescope in records:
                rows.append(_truth(file, event, telescope, file.shower, pointings.get(telescope)))
                if len(rows) == batch_size:
                    yield pa.RecordBatch.from_pylist(rows, schema=TRUTH_SCHEMA)
                    rows = []
        if rows:
            yield pa.RecordBatch.from_pylist(rows, schema=TRUTH_SCHEMA)


def _truth(
    file: SimtelFile, event: int, telescope: int, shower: Shower, pointing: tuple[float, float] | None
) -> dict[str, Any]:
    place = file.places.get(telescope)
    core: tuple[float | None, float | None] = (None, None)
    if place is not None and file.core is not None:
        core = (file.core[0] - place[0], file.core[1] - place[1])
    source: tuple[float | None, float | None] = (None, None)
    if pointing is not None and all(map(math.isfinite, pointing)):
        source = _source(shower, *pointing)
    return {
        "experiment": EXPERIMENT,
        "run": file.run,
        "event": event,
        "telescope": telescope,
        "shower": shower.number,
        "primary": shower.primary,
        "true_energy": shower.energy,
        "true_core_x": core[0],
        "true_core_y": core[1],
        "true_zenith": 90.0 - shower.altitude,
        "true_azimuth": shower.azimuth,
        "true_source_x": source[0],
        "true_source_y": source[1],
        "true_h_first": shower.h_first if math.isfinite(shower.h_first) else None,
    }


def _source(shower: Shower, altitude: float, azimuth: float) -> tuple[float, float]:
    """Return where in the camera a shower comes from, deg: latitude and longitude of the sky seen from the pointing."""
    alt, alt0 = math.radians(shower.altitude), math.radians(altitude)
    az = math.radians(shower.azimuth - azimuth)
    ahead = math.cos(alt) * math.cos(alt0) * math.cos(az) + math.sin(alt) * math.sin(alt0)
    up = math.sin(alt) * math.cos(alt0) - math.cos(alt) * math.sin(alt0) * math.cos(az)
    aside = math.cos(alt) * math.sin(az)
    return math.degrees(math.asin(max(-1.0, min(1.0, up)))), math.degrees(math.atan2(aside, ahead))


def _batch(images: list[Image], file: SimtelFile) -> pa.RecordBatch:
    camera, count = images[0].camera, len(images)
    places = {
        number: file.places[number]
        for number, telescope in file.telescopes.items()
        if telescope.camera is camera and number in file.places
    }
    schema = image_schema(camera, peak_time=True, pointing=True, telescopes=places)
    altitude, azimuth = (np.array([getattr(one, name) for one in images]) for name in ("altitude", "azimuth"))
    columns: dict[str, Any] = {
        "experiment": [EXPERIMENT] * count,
        "run": np.full(count, file.run, np.int64),
        "event": [image.event for image in images],
        "telescope": [image.telescope for image in images],
        "time": pa.nulls(count, schema.field("time").type),
        "image": to_binary(np.stack([image.pixels for image in images])),
        "peak_time": to_binary(np.stack([image.peak for image in images])),
        "pointing_altitude": pa.array(altitude, mask=~np.isfinite(altitude)),
        "pointing_azimuth": pa.array(azimuth, mask=~np.isfinite(azimuth)),
    }
    return pa.RecordBatch.from_pydict(columns, schema=schema)

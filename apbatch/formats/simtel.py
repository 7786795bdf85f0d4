"""Simulated events of sim_telarray (``*.simtel``, ``.simtel.gz``, ``.simtel.zst``), read by eventio.

A file describes the telescopes of an array with their cameras, then gives the events: the shower, one use of it, and
what each telescope recorded. Here every telescope's record is an image: the samples of a pixel less its pedestal,
summed over the read-out, times the calibration to photo-electrons, as
``(adc - pedestal) x calib`` of the high gain, or of the low gain where the high one is saturated.
Reference: K. Bernloehr, Astropart. Phys. 30 (2008) 149, doi:10.1016/j.astropartphys.2008.07.009.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.geometry import CameraGeometry, Lattice, camera_from_positions
from apbatch.errors import ApbatchError, FormatError, MissingSoftwareError
from apbatch.formats.attributes import (
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
from apbatch.formats.compressed import kind_of, plain, plain_head
from apbatch.formats.eventio_objects import MARK, Object, eventio_base, objects_of
from apbatch.formats.images import TRUTH_SCHEMA, image_schema, to_binary
from apbatch.formats.lines import Problems
from apbatch.formats.reader import Attribute, ImageReader, Metadata, Scalar, Span

EXPERIMENT = "CTA-MC"
#: Codes of the high gain above which its 12 bits are taken for saturated (ctapipe's limit).
SATURATED = 4000
MOST_PIXELS, MOST_SAMPLES, MOST_GAINS = 50_000, 4096, 4

_HISTORY, _META, _RUN, _CAMERA, _PIXELS, _DISABLED = 70, 75, 2000, 2002, 2004, 2005
_ARRAY, _SHOWER, _USE, _MONITORING, _LASER = 2010, 2020, 2021, 2022, 2023
_DESCRIBING = frozenset({_META, _RUN, _CAMERA, _PIXELS, _DISABLED})
_TRUTH = frozenset({_RUN, _SHOWER, _USE, _ARRAY})
_ALL = _DESCRIBING | _TRUTH | {_MONITORING, _LASER}
_TRIGGER, _SUMS, _SAMPLES = 2009, 2012, 2013
#: sim_telarray's numbers of shapes of pixels: round, hexagons lying and standing, squares.
_SQUARE = 2
_PARTICLES = {
    0: "gamma", 1: "electron", -1: "positron", 2: "muon", -2: "antimuon", 101: "proton", 402: "helium",
    1206: "carbon", 1407: "nitrogen", 1608: "oxygen", 2412: "magnesium", 2814: "silicon", 5626: "iron",
}  # fmt: skip

Floats32 = npt.NDArray[np.float32]


@dataclass
class _Telescope:
    """What is known of one telescope."""

    camera: CameraGeometry | None = None
    name: str = ""
    disabled: list[int] = field(default_factory=list)
    nanoseconds: float = 1.0
    pedestal: Floats32 | None = None  # codes of one sample, (n_gains, n_pixels)
    pe_per_code: Floats32 | None = None


@dataclass(frozen=True, eq=False)
class _Shower:
    """The simulated shower and its use that an event belongs to."""

    number: int
    primary: str
    energy: float
    altitude: float  # deg
    azimuth: float
    h_first: float


@dataclass(frozen=True, eq=False)
class _Image:
    event: int
    telescope: int
    camera: CameraGeometry
    altitude: float  # of the pointing, deg; NaN if not known
    azimuth: float
    pixels: Floats32
    peak: Floats32


class _File:
    """A file that is read from start to end: gathers what describes the telescopes, yields what they recorded."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.run = 0
        self.places: dict[int, tuple[float, float, float]] = {}
        self.telescopes: dict[int, _Telescope] = {}
        self.shower: _Shower | None = None
        self.core: tuple[float, float] | None = None
        self._cameras: dict[tuple[str, bytes, bytes, int, float], CameraGeometry | None] = {}

    def objects(self, stream: BinaryIO, wanted: frozenset[int]) -> Iterator[Object]:
        """Yield the wanted objects; what describes telescopes and showers is taken in on the way."""
        takers: dict[int, Callable[[Object], None]] = {
            _META: self._meta, _RUN: self._header, _CAMERA: self._camera, _PIXELS: self._pixels,
            _DISABLED: self._disabled, _SHOWER: self._shower, _USE: self._use, _MONITORING: self._monitoring,
            _LASER: self._laser,
        }  # fmt: skip
        content, decompression = plain(stream)
        for found in objects_of(content, wanted, self.problems):
            if found.kind in takers:
                self._guarded(found, takers[found.kind])
            yield found
        if decompression is not None and decompression.fault is not None:
            self.problems.add(decompression.compressed_bytes, f"{decompression.fault}; what follows is lost")

    def _guarded(self, found: Object, take: Callable[[Object], Any]) -> Any:
        try:
            return take(found)
        except MissingSoftwareError:
            raise
        except ApbatchError as error:
            self.problems.add(found.offset, str(error))
        except Exception as error:  # eventio raises almost anything at damaged bytes
            reason = str(error).split("\n", 1)[0][:120] or type(error).__name__
            self.problems.add(found.offset, f"an object of type {found.kind} can't be read: {reason}")
        return None

    def _telescope(self, number: int) -> _Telescope:
        return self.telescopes.setdefault(number, _Telescope())

    def _meta(self, found: Object) -> None:
        content = found.opened().parse()
        name = content.get(b"CAMERA_CONFIG_NAME", b"").decode("ascii", "replace").strip()
        number = found.id if found.id < 1 << 31 else -1
        if number > 0 and name:
            self._telescope(number).name = PurePosixPath(name).name

    def _header(self, found: Object) -> None:
        content = found.opened().parse()
        self.run = int(content["run"])
        for number, place in zip(content["tel_id"].tolist(), content["tel_pos"].tolist(), strict=True):
            if all(map(math.isfinite, place)):
                self.places[int(number)] = (place[0], place[1], place[2])

    def _camera(self, found: Object) -> None:
        opened = found.opened()
        telescope = self._telescope(int(opened.telescope_id))
        content = opened.parse()
        focal_length = float(content.get("effective_focal_length") or 0) or float(content["focal_length"])
        # The camera may be mounted turned; x goes with altitude and y with azimuth, as in ctapipe.
        turn = float(content["cam_rot"])
        raw_x, raw_y = content["pixel_x"].astype(np.float64), content["pixel_y"].astype(np.float64)
        x = math.cos(turn) * raw_x - math.sin(turn) * raw_y
        y = math.sin(turn) * raw_x + math.cos(turn) * raw_y
        shape = int(content["pixel_shape"][0])
        telescope.name = telescope.name or f"simtel-{len(x)}px-{focal_length:.2f}m"
        key = (telescope.name, x.tobytes(), y.tobytes(), shape, focal_length)
        if key not in self._cameras:
            self._cameras[key] = None
            # Two cameras of one name would be told apart by nobody.
            taken = [camera.name for camera in self._cameras.values() if camera is not None]
            name, count = telescope.name, 1
            while name in taken:
                count += 1
                name = f"{telescope.name}-{count}"
            self._cameras[key] = _camera(name, *key[1:])
        telescope.camera = self._cameras[key]

    def _pixels(self, found: Object) -> None:
        opened = found.opened()
        nanoseconds = float(opened.parse()["time_slice"])
        if not 0 < nanoseconds < 1000:
            raise FormatError(f"samples of {nanoseconds} ns")
        self._telescope(int(opened.telescope_id)).nanoseconds = nanoseconds

    def _disabled(self, found: Object) -> None:
        opened = found.opened()
        self._telescope(int(opened.telescope_id)).disabled = [int(one) for one in opened.parse()["HV_disabled"]]

    def _monitoring(self, found: Object) -> None:
        content = found.opened().parse()
        if "pedestal" in content:
            slices = max(int(content["n_ped_slices"]), 1)
            self._telescope(int(content["telescope_id"])).pedestal = (content["pedestal"] / slices).astype(np.float32)

    def _laser(self, found: Object) -> None:
        content = found.opened().parse()
        self._telescope(int(content["telescope_id"])).pe_per_code = content["calib"].astype(np.float32)

    def _shower(self, found: Object) -> None:
        self.shower = None
        content = found.opened().parse()
        energy = float(content["energy"])
        if not 0 < energy < math.inf:
            raise FormatError(f"an energy of {energy} TeV")
        number = int(content["primary_id"])
        self.shower = _Shower(
            number=int(found.id),
            primary=_PARTICLES.get(number, f"particle {number}"),
            energy=energy,
            altitude=math.degrees(float(content["altitude"])),
            azimuth=math.degrees(float(content["azimuth"])) % 360.0,
            h_first=float(content["h_first_int"]),
        )

    def _use(self, found: Object) -> None:
        self.core = None
        content = found.opened().parse()
        self.core = (float(content["xcore"]), float(content["ycore"]))

    def recorded(self, found: Object) -> tuple[int, dict[int, Any], dict[int, tuple[float, float]]]:
        """Return number, telescope records (eventio objects) and pointings (deg) of an array event."""
        return self._guarded(found, self._array) or (0, {}, {})

    def _array(self, found: Object) -> tuple[int, dict[int, Any], dict[int, tuple[float, float]]]:
        event = int(found.id)
        records: dict[int, Any] = {}
        pointings: dict[int, tuple[float, float]] = {}
        recording, tracking = _types()
        expected: set[int] | None = None
        for part in found.opened():
            if part.header.type == _TRIGGER:
                event = int(part.header.id) or event
                expected = {int(one) for one in part.parse().get("telescopes_with_data", ())}
            elif isinstance(part, recording):
                records[int(part.telescope_id)] = part
            elif isinstance(part, tracking):
                content = part.parse()
                altitude, azimuth = (
                    content.get(f"{name}_cor", content.get(f"{name}_raw", math.nan)) for name in ("altitude", "azimuth")
                )
                pointings[int(part.telescope_id)] = (math.degrees(altitude), math.degrees(azimuth) % 360.0)
        if expected is None:
            raise FormatError("an event without its trigger")
        if lost := sorted(expected - records.keys()):
            self.problems.add(found.offset, f"event {event}: no record of telescope {', '.join(map(str, lost))}")
        return event, records, pointings

    def images(self, found: Object) -> Iterator[_Image]:
        """Yield the images of an array event."""
        event, records, pointings = self.recorded(found)
        for number, record in records.items():
            altitude, azimuth = pointings.get(number, (math.nan, math.nan))
            made = self._guarded(found, partial(self._image, number, record))
            if made is not None:
                camera, pixels, peak = made
                yield _Image(event, number, camera, altitude, azimuth, pixels, peak)

    def _image(self, number: int, record: Any, _: Object) -> tuple[CameraGeometry, Floats32, Floats32] | None:
        telescope = self.telescopes.get(number)
        if telescope is None or telescope.camera is None:
            raise FormatError(f"telescope {number} recorded an event, but its camera is not described")
        if telescope.pedestal is None or telescope.pe_per_code is None:
            raise FormatError(f"telescope {number} recorded an event before it was calibrated")
        n_pixels = telescope.camera.n_pixels
        for part in record:
            if part.header.type == _SAMPLES:
                _check_counts(part, n_pixels)
                made = _integrated(np.asarray(part.parse()), telescope, n_pixels)
            elif part.header.type == _SUMS:
                _check_counts(part, n_pixels)
                made = _from_sums(np.asarray(part.parse()), telescope, n_pixels)
            else:
                continue
            for values in made:
                values[[pixel for pixel in telescope.disabled if 0 <= pixel < n_pixels]] = np.nan
            return telescope.camera, *made
        return None  # triggered, but not read out


@lru_cache(maxsize=64)
def _camera(name: str, x: bytes, y: bytes, shape: int, focal_length: float) -> CameraGeometry:
    """Make a camera of positions in m; once for the many files of a production."""
    if not 0 < focal_length < math.inf:
        raise FormatError(f"a focal length of {focal_length} m")
    scale = math.degrees(1.0 / focal_length)
    lattice: Lattice | None = "square" if shape == _SQUARE else None
    return camera_from_positions(
        name, np.frombuffer(x) * scale, np.frombuffer(y) * scale, lattice=lattice, focal_length=focal_length
    )


def _check_counts(part: Any, n_pixels: int) -> None:
    """Refuse numbers that would make eventio ask for more memory than the file can mean."""
    head = part.read(8)
    found, gains = int.from_bytes(head[:4], "little", signed=True), int.from_bytes(head[4:6], "little", signed=True)
    samples = int.from_bytes(head[6:8], "little", signed=True) if part.header.type == _SAMPLES else 1
    if found != n_pixels or not 1 <= gains <= MOST_GAINS or not 1 <= samples <= MOST_SAMPLES:
        raise FormatError(f"{found} pixels, {gains} gains and {samples} samples, the camera has {n_pixels} pixels")


def _calibration(telescope: _Telescope, gains: int, n_pixels: int) -> tuple[Floats32, Floats32]:
    assert telescope.pedestal is not None and telescope.pe_per_code is not None
    for name, array in (("pedestals", telescope.pedestal), ("calibration", telescope.pe_per_code)):
        if array.ndim != 2 or array.shape[0] < gains or array.shape[1] != n_pixels:
            raise FormatError(f"{name} of shape {array.shape} for {gains} gains and {n_pixels} pixels")
    return telescope.pedestal, telescope.pe_per_code


def _integrated(samples: npt.NDArray[Any], telescope: _Telescope, n_pixels: int) -> tuple[Floats32, Floats32]:
    if samples.ndim != 3:
        samples = samples.reshape(-1, n_pixels, 1)
    pedestal, pe_per_code = _calibration(telescope, samples.shape[0], n_pixels)
    image, peak = np.empty(n_pixels, np.float32), np.empty(n_pixels, np.float32)
    _kernel()(
        np.ascontiguousarray(samples, np.uint16), pedestal, pe_per_code, SATURATED, telescope.nanoseconds, image, peak
    )
    return image, peak


def _from_sums(sums: npt.NDArray[Any], telescope: _Telescope, n_pixels: int) -> tuple[Floats32, Floats32]:
    """Calibrate sums that the camera made itself; they carry no times, and do not tell their number of samples."""
    sums = np.asarray(sums, np.float64).reshape(-1, n_pixels)
    pedestal, pe_per_code = _calibration(telescope, len(sums), n_pixels)
    image = (sums[0] - pedestal[0]) * pe_per_code[0]
    image[sums[0] == 0] = np.nan
    return image.astype(np.float32), np.full(n_pixels, np.nan, np.float32)


def _kernel() -> Callable[..., None]:
    try:
        from apbatch.formats.simtel_kernel import integrate
    except ImportError as error:
        raise MissingSoftwareError(
            "images of sim_telarray need the package numba", remedy="pip install 'apbatch[images]'"
        ) from error
    return integrate


def _types() -> tuple[Any, Any]:
    eventio_base()
    from eventio.simtel.objects import TelescopeEvent, TrackingPosition

    return TelescopeEvent, TrackingPosition


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
        Attribute("cameras", "string", "Names of the cameras, separated by commas."),
        Attribute("telescopes", "integer", "How many telescopes the array has."),
        Attribute("array_events", "integer", "Events that at least one telescope recorded."),
    )

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise an object that a file of sim_telarray begins with; an empty or broken one by its name."""
        content = plain_head(head)
        if content:
            return _begins(content) or (_named(name) and b"\0" in content)
        # A block of zstandard is larger than the head: `confirm` looks into it.
        return kind_of(head) == "zstandard" or (_named(name) and (not head or kind_of(head) is not None))

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look at the first object; of a broken file the name decides."""
        try:
            return _begins(plain(stream)[0].read(8)) or _named(name)
        except MissingSoftwareError:
            return _named(name)

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read showers and which telescopes recorded them.

        Raises
        ------
        FormatError
            If it is no file of sim_telarray.
        MissingSoftwareError
            Without eventio.
        """
        file = _File(Problems())
        images = events = 0
        numbers, energies, zeniths = [1 << 62, -1], [math.inf, 0.0], [math.inf, -1.0]
        showers: set[int] = set()
        primaries: set[str] = set()
        used: set[str] = set()
        for found in file.objects(stream, _ALL - {_MONITORING, _LASER, _PIXELS, _DISABLED}):
            if found.kind == _SHOWER and file.shower is not None:
                shower = file.shower
                showers.add(shower.number)
                primaries.add(shower.primary)
                energies = [min(energies[0], shower.energy), max(energies[1], shower.energy)]
                zeniths = [min(zeniths[0], 90 - shower.altitude), max(zeniths[1], 90 - shower.altitude)]
            if found.kind == _ARRAY:
                event, records, _ = file.recorded(found)
                images += len(records)
                events += bool(records)
                for telescope in (file.telescopes.get(number) for number in records):
                    if telescope is not None and telescope.camera is not None:
                        used.add(telescope.camera.name)
                if records:
                    numbers = [min(numbers[0], event), max(numbers[1], event)]
        if not file.telescopes:
            reason = f": {file.problems.kept[0].reason}" if file.problems.kept else ""
            raise FormatError(f"no telescope is described{reason}", where=name, remedy="copy the file again")
        known = used or {one.camera.name for one in file.telescopes.values() if one.camera is not None}
        attributes: dict[str, Scalar] = {"telescopes": len(file.telescopes), "array_events": events}
        if known:
            attributes["cameras"] = ",".join(sorted(known))
        if len(known) == 1:
            attributes["camera"] = next(iter(known))
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
        file = _File(problems if problems is not None else Problems())
        waiting: dict[CameraGeometry, list[_Image]] = {}
        for found in file.objects(stream, _ALL):
            if found.kind != _ARRAY:
                continue
            for image in file.images(found):
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
        file = _File(Problems())
        rows: list[dict[str, Any]] = []
        for found in file.objects(stream, _TRUTH):
            if found.kind != _ARRAY or file.shower is None:
                continue
            event, records, pointings = file.recorded(found)
            for telescope in records:
                rows.append(_truth(file, event, telescope, file.shower, pointings.get(telescope)))
                if len(rows) == batch_size:
                    yield pa.RecordBatch.from_pylist(rows, schema=TRUTH_SCHEMA)
                    rows = []
        if rows:
            yield pa.RecordBatch.from_pylist(rows, schema=TRUTH_SCHEMA)


def _named(name: str) -> bool:
    return ".simtel" in PurePosixPath(name).name.lower()


def _begins(content: bytes) -> bool:
    """Tell whether these are the first bytes of an object that a file of sim_telarray begins with."""
    return content.startswith(MARK) and int.from_bytes(content[4:6], "little") in (_HISTORY, _META, _RUN)


def _truth(
    file: _File, event: int, telescope: int, shower: _Shower, pointing: tuple[float, float] | None
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


def _source(shower: _Shower, altitude: float, azimuth: float) -> tuple[float, float]:
    """Return where in the camera a shower comes from, deg: latitude and longitude of the sky seen from the pointing."""
    alt, alt0 = math.radians(shower.altitude), math.radians(altitude)
    az = math.radians(shower.azimuth - azimuth)
    ahead = math.cos(alt) * math.cos(alt0) * math.cos(az) + math.sin(alt) * math.sin(alt0)
    up = math.sin(alt) * math.cos(alt0) - math.cos(alt) * math.sin(alt0) * math.cos(az)
    aside = math.cos(alt) * math.sin(az)
    return math.degrees(math.asin(max(-1.0, min(1.0, up)))), math.degrees(math.atan2(aside, ahead))


def _batch(images: list[_Image], file: _File) -> pa.RecordBatch:
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

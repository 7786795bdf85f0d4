"""What a file of sim_telarray says: the telescopes with their cameras and calibration, the shower, and the records.

A file is read from start to end. What describes telescopes and showers is taken in on the way; what telescopes
recorded becomes images of photo-electrons: ``(adc - pedestal) x calib`` summed over the read-out, of the high gain,
or of the low gain where the high one is saturated.
Reference: K. Bernloehr, Astropart. Phys. 30 (2008) 149, doi:10.1016/j.astropartphys.2008.07.009.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry, Lattice, camera_from_positions
from apbatch.errors import ApbatchError, FormatError, MissingSoftwareError
from apbatch.formats.angles import clamped, turned
from apbatch.formats.compressed import plain
from apbatch.formats.eventio_objects import Object, eventio_base, objects_of
from apbatch.formats.text.lines import Problems

#: Codes of the high gain above which its 12 bits are taken for saturated (ctapipe's limit).
SATURATED = 4000
MOST_PIXELS, MOST_SAMPLES, MOST_GAINS = 50_000, 4096, 4


class Kind(IntEnum):
    """Numbers of eventio objects at the top of a file."""

    HISTORY = 70
    META = 75
    RUN = 2000
    CAMERA = 2002
    PIXELS = 2004
    DISABLED = 2005
    ARRAY = 2010
    SHOWER = 2020
    USE = 2021
    MONITORING = 2022
    LASER = 2023
    CALIBRATION = 2028


#: Objects that describe showers; those that describe telescopes; what calibrates their pixels.
OF_SHOWERS = frozenset({Kind.RUN, Kind.SHOWER, Kind.USE, Kind.ARRAY, Kind.CALIBRATION})
OF_TELESCOPES = frozenset({Kind.META, Kind.RUN, Kind.CAMERA})
OF_PIXELS = frozenset({Kind.PIXELS, Kind.DISABLED, Kind.MONITORING, Kind.LASER})
_TRIGGER, _SUMS, _SAMPLES = 2009, 2012, 2013
#: sim_telarray's numbers of shapes of pixels: round, hexagons lying and standing, squares.
_SQUARE = 2
_PARTICLES = {
    0: "gamma", 1: "electron", -1: "positron", 2: "muon", -2: "antimuon", 101: "proton", 402: "helium",
    1206: "carbon", 1407: "nitrogen", 1608: "oxygen", 2412: "magnesium", 2814: "silicon", 5626: "iron",
}  # fmt: skip

Floats32 = npt.NDArray[np.float32]


@dataclass
class Telescope:
    """What is known of one telescope."""

    camera: CameraGeometry | None = None
    name: str = ""
    disabled: list[int] = field(default_factory=list)
    nanoseconds: float = 1.0
    pedestal: Floats32 | None = None  # codes of one sample, (n_gains, n_pixels)
    pe_per_code: Floats32 | None = None


@dataclass(frozen=True, eq=False)
class Shower:
    """The simulated shower and its use that an event belongs to."""

    number: int
    primary: str
    energy: float
    altitude: float  # deg
    azimuth: float
    h_first: float


@dataclass(frozen=True, eq=False)
class Image:
    """What one telescope recorded of an event, in photo-electrons and ns."""

    event: int
    telescope: int
    camera: CameraGeometry
    altitude: float  # of the pointing, deg; NaN if not known
    azimuth: float
    pixels: Floats32
    peak: Floats32


class SimtelFile:
    """A file that is read from start to end: gathers what describes the telescopes, yields what they recorded."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.run = 0
        self.places: dict[int, tuple[float, float, float]] = {}
        self.telescopes: dict[int, Telescope] = {}
        self.shower: Shower | None = None
        self.core: tuple[float, float] | None = None
        #: Events marked as calibration, and array events before the first shower: pedestals and light pulses.
        self.calibrations = 0
        self._showers_began = False
        self._cameras: dict[tuple[str, bytes, bytes, int, float], CameraGeometry | None] = {}

    def objects(self, stream: BinaryIO, kinds: frozenset[int]) -> Iterator[Object]:
        """Yield the wanted objects; what describes telescopes and showers is taken in on the way.

        Array events before the first shower are calibration: they are counted and not yielded.
        """
        takers: dict[int, Callable[[Object], None]] = {
            Kind.META: self._meta, Kind.RUN: self._header, Kind.CAMERA: self._camera, Kind.PIXELS: self._pixels,
            Kind.DISABLED: self._disabled, Kind.SHOWER: self._shower, Kind.USE: self._use,
            Kind.MONITORING: self._monitoring, Kind.LASER: self._laser,
        }  # fmt: skip
        content, decompression = plain(stream)
        for item in objects_of(content, kinds, self.problems):
            self._showers_began |= item.kind in (Kind.SHOWER, Kind.USE)
            if item.kind in takers:
                self._guarded(item, takers[item.kind])
            if item.kind == Kind.CALIBRATION or (item.kind == Kind.ARRAY and not self._showers_began):
                self.calibrations += 1
                continue
            yield item
        if decompression is not None:
            decompression.note_fault(self.problems)

    def _guarded(self, item: Object, take: Callable[[Object], Any]) -> Any:
        try:
            return take(item)
        except (MissingSoftwareError, MemoryError):
            raise
        except ApbatchError as error:
            self.problems.add(item.offset, str(error))
        except Exception as error:  # eventio raises almost anything at damaged bytes
            reason = str(error).split("\n", 1)[0][:120] or type(error).__name__
            self.problems.add(item.offset, f"an object of type {item.kind} can't be read: {reason}")
        return None

    def _telescope(self, number: int) -> Telescope:
        return self.telescopes.setdefault(number, Telescope())

    def _meta(self, item: Object) -> None:
        content = item.opened().parse()
        name = content.get(b"CAMERA_CONFIG_NAME", b"").decode("ascii", "replace").strip()
        number = item.id if item.id < 1 << 31 else -1
        if number > 0 and name:
            self._telescope(number).name = PurePosixPath(name).name

    def _header(self, item: Object) -> None:
        content = item.opened().parse()
        self.run = int(content["run"])
        for number, place in zip(content["tel_id"].tolist(), content["tel_pos"].tolist(), strict=True):
            if all(map(math.isfinite, place)):
                self.places[int(number)] = (place[0], place[1], place[2])

    def _camera(self, item: Object) -> None:
        opened = item.opened()
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
            names = [camera.name for camera in self._cameras.values() if camera is not None]
            name, count = telescope.name, 1
            while name in names:
                count += 1
                name = f"{telescope.name}-{count}"
            self._cameras[key] = _camera(name, *key[1:])
        telescope.camera = self._cameras[key]

    def _pixels(self, item: Object) -> None:
        opened = item.opened()
        nanoseconds = float(opened.parse()["time_slice"])
        if not 0 < nanoseconds < 1000:
            raise FormatError(f"samples of {nanoseconds} ns")
        self._telescope(int(opened.telescope_id)).nanoseconds = nanoseconds

    def _disabled(self, item: Object) -> None:
        opened = item.opened()
        self._telescope(int(opened.telescope_id)).disabled = [int(one) for one in opened.parse()["HV_disabled"]]

    def _monitoring(self, item: Object) -> None:
        content = item.opened().parse()
        if "pedestal" in content:
            slices = max(int(content["n_ped_slices"]), 1)
            self._telescope(int(content["telescope_id"])).pedestal = (content["pedestal"] / slices).astype(np.float32)

    def _laser(self, item: Object) -> None:
        content = item.opened().parse()
        self._telescope(int(content["telescope_id"])).pe_per_code = content["calib"].astype(np.float32)

    def _shower(self, item: Object) -> None:
        self.shower = None
        content = item.opened().parse()
        energy = float(content["energy"])
        if not 0 < energy < math.inf:
            raise FormatError(f"an energy of {energy} TeV")
        number = int(content["primary_id"])
        altitude, azimuth = math.degrees(float(content["altitude"])), math.degrees(float(content["azimuth"]))
        if math.isnan(clamped(altitude, -90, 90)) or math.isnan(azimuth):
            raise FormatError(f"a shower from an altitude of {altitude:g} and an azimuth of {azimuth:g} deg")
        self.shower = Shower(
            number=int(item.id),
            primary=_PARTICLES.get(number, f"particle {number}"),
            energy=energy,
            altitude=float(clamped(altitude, -90, 90)),
            azimuth=float(turned(azimuth)),
            h_first=float(content["h_first_int"]),
        )

    def _use(self, item: Object) -> None:
        self.core = None
        content = item.opened().parse()
        self.core = (float(content["xcore"]), float(content["ycore"]))

    def recorded(self, item: Object) -> tuple[int, dict[int, Any], dict[int, tuple[float, float]]]:
        """Return number, telescope records (eventio objects) and pointings (deg) of an array event."""
        return self._guarded(item, self._array) or (0, {}, {})

    def _array(self, item: Object) -> tuple[int, dict[int, Any], dict[int, tuple[float, float]]]:
        event = int(item.id)
        records: dict[int, Any] = {}
        pointings: dict[int, tuple[float, float]] = {}
        recording, tracking = _types()
        expected: set[int] | None = None
        for part in item.opened():
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
                pointings[int(part.telescope_id)] = (
                    float(clamped(math.degrees(altitude), -90, 90)),
                    float(turned(math.degrees(azimuth))),
                )
        if expected is None:
            raise FormatError("an event without its trigger")
        if lost := sorted(expected - records.keys()):
            self.problems.add(item.offset, f"event {event}: no record of telescope {', '.join(map(str, lost))}")
        return event, records, pointings

    def images(self, item: Object) -> Iterator[Image]:
        """Yield the images of an array event."""
        event, records, pointings = self.recorded(item)
        for number, record in records.items():
            altitude, azimuth = pointings.get(number, (math.nan, math.nan))
            measurement = self._guarded(item, partial(self._image, number, record))
            if measurement is not None:
                camera, pixels, peak = measurement
                yield Image(event, number, camera, altitude, azimuth, pixels, peak)

    def readable(self, item: Object) -> tuple[int, list[CameraGeometry]]:
        """Return the number of an array event and the cameras of the images that `images` makes of it."""
        event, records, _ = self.recorded(item)
        codes = [self._guarded(item, partial(self._codes, number, record)) for number, record in records.items()]
        return event, [one.telescope.camera for one in codes if one is not None]

    def _codes(self, number: int, record: Any, _: Object) -> _Codes | None:
        """Return what a telescope recorded; None if it triggered, but was not read out."""
        telescope = self.telescopes.get(number)
        if telescope is None or telescope.camera is None:
            raise FormatError(f"telescope {number} recorded an event, but its camera is not described")
        if telescope.pedestal is None or telescope.pe_per_code is None:
            raise FormatError(f"telescope {number} recorded an event before it was calibrated")
        n_pixels = telescope.camera.n_pixels
        for part in record:
            if part.header.type in (_SAMPLES, _SUMS):
                _check_counts(part, n_pixels)
                summed = part.header.type == _SUMS
                values = np.asarray(part.parse())
                values = values.reshape(-1, n_pixels) if summed else values.reshape(len(values), n_pixels, -1)
                _check_calibration(telescope, len(values), n_pixels)
                return _Codes(telescope, values, summed)
        return None

    def _image(self, number: int, record: Any, item: Object) -> tuple[CameraGeometry, Floats32, Floats32] | None:
        codes = self._codes(number, record, item)
        if codes is None or codes.telescope.camera is None:
            return None
        pixels, peak = (_from_sums if codes.summed else _integrated)(codes.values, codes.telescope)
        for values in (pixels, peak):
            values[[pixel for pixel in codes.telescope.disabled if 0 <= pixel < len(values)]] = np.nan
        return codes.telescope.camera, pixels, peak


@dataclass(frozen=True, eq=False)
class _Codes:
    """What a telescope recorded: samples of shape (n_gains, n_pixels, n_samples), or sums of (n_gains, n_pixels)."""

    telescope: Telescope
    values: npt.NDArray[Any]
    summed: bool


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
    count, gains = int.from_bytes(head[:4], "little", signed=True), int.from_bytes(head[4:6], "little", signed=True)
    samples = int.from_bytes(head[6:8], "little", signed=True) if part.header.type == _SAMPLES else 1
    if count != n_pixels or not 1 <= gains <= MOST_GAINS or not 1 <= samples <= MOST_SAMPLES:
        raise FormatError(f"{count} pixels, {gains} gains and {samples} samples, the camera has {n_pixels} pixels")


def _check_calibration(telescope: Telescope, gains: int, n_pixels: int) -> None:
    for name, array in (("pedestals", telescope.pedestal), ("calibration", telescope.pe_per_code)):
        if array is None or array.ndim != 2 or array.shape[0] < gains or array.shape[1] != n_pixels:
            shape = None if array is None else array.shape
            raise FormatError(f"{name} of shape {shape} for {gains} gains and {n_pixels} pixels")


def _integrated(samples: npt.NDArray[Any], telescope: Telescope) -> tuple[Floats32, Floats32]:
    image, peak = np.empty(samples.shape[1], np.float32), np.empty(samples.shape[1], np.float32)
    _kernel()(
        np.ascontiguousarray(samples, np.uint16),
        telescope.pedestal,
        telescope.pe_per_code,
        SATURATED,
        telescope.nanoseconds,
        image,
        peak,
    )
    return image, peak


def _from_sums(sums: npt.NDArray[Any], telescope: Telescope) -> tuple[Floats32, Floats32]:
    """Calibrate sums that the camera made itself; they carry no times, and do not tell their number of samples."""
    assert telescope.pedestal is not None and telescope.pe_per_code is not None
    image = (sums[0].astype(np.float64) - telescope.pedestal[0]) * telescope.pe_per_code[0]
    image[sums[0] == 0] = np.nan
    return image.astype(np.float32), np.full(sums.shape[1], np.nan, np.float32)


def _kernel() -> Callable[..., None]:
    try:
        from apbatch.formats.simtel.kernel import integrate
    except ImportError as error:
        raise MissingSoftwareError(
            "images of sim_telarray need the package numba", remedy="pip install 'apbatch[images]'"
        ) from error
    return integrate


def _types() -> tuple[Any, Any]:
    eventio_base()
    from eventio.simtel.objects import TelescopeEvent, TrackingPosition

    return TelescopeEvent, TrackingPosition

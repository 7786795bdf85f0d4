"""sim_telarray: four telescopes, cameras of two kinds, showers thrown twice onto the array, a flash of light before.

Sums: ``pe``, of all images; ``energy``, of all showers, TeV; ``showers``, how many; ``array_events``, that were
recorded.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry, camera_from_positions
from apbatch.formats.simtel.file import Kind
from apbatch.formats.simtel.reader import SimtelReader
from apbatch.sample.contents import Contents
from apbatch.sample.eventio_writer import count, differences, floats, metadata, part, signed_count, string, top
from apbatch.sample.showers import Floats, Ints, draw_light, generator

FOLDER = "simtel"
RUN = 759
NAME = f"gamma_run{RUN:06d}.simtel.gz"
#: Cameras by name: rings of pixels round the middle one, and their pitch, m.
CAMERAS = {"SampleCam": (9, 0.05), "SampleCamFine": (10, 0.04)}
#: Place of each telescope, m, and its camera.
TELESCOPES = {
    1: ((0.0, 0.0, 5.0), "SampleCam"),
    2: ((100.0, 0.0, 5.0), "SampleCam"),
    3: ((0.0, 120.0, 5.0), "SampleCamFine"),
    4: ((-90.0, -60.0, 5.0), "SampleCamFine"),
}
SHOWERS, USES = 8, 2
FOCAL_LENGTH_M = 12.0
#: Samples of 2 ns; codes of a sample without light; codes of a photo-electron, over all samples.
SAMPLES, SLICE_NS, PEDESTAL, CODES_PER_PE = 12, 2.0, 300, 10
#: A telescope is read out from this light on, photo-electrons.
READ_OUT_PE = 300
_ALTITUDE, _AZIMUTH = math.radians(70.0), math.radians(180.0)
_TIME = struct.pack("<ii", 1_509_202_800, 0)
_NOTHING = struct.pack("<i", 0)
#: Shape of a pulse in samples.
_PULSE = np.array([0, 0, 1, 2, 3, 2, 1, 1, 0, 0, 0, 0]) / 10


def camera(name: str) -> CameraGeometry:
    """Return a camera of `CAMERAS`, x and y as in the file."""
    x, y = _positions(name)
    scale = math.degrees(1 / FOCAL_LENGTH_M)
    return camera_from_positions(name, x * scale, y * scale, focal_length=FOCAL_LENGTH_M)


def _positions(name: str) -> tuple[Floats, Floats]:
    rings, pitch = CAMERAS[name]
    steps = np.arange(-rings, rings + 1)
    q, r = (axis.ravel() for axis in np.meshgrid(steps, steps))
    inside = np.abs(q + r) <= rings
    q, r = q[inside], r[inside]
    return pitch * (q + r / 2), pitch * np.sqrt(0.75) * r


def write(folder: Path, seed: int) -> list[Contents]:
    """Write the file into `folder` / ``simtel``; return what it holds."""
    (folder / FOLDER).mkdir()
    random = generator(seed, FOLDER)
    pieces = [_history(), *_header(), *_calibration(random)]
    energy = np.round(10 ** random.uniform(0.0, 1.5, SHOWERS), 4)
    height = np.round(random.uniform(12_000.0, 30_000.0, SHOWERS), 1)
    core = np.round(random.uniform(-150.0, 150.0, (2, SHOWERS * USES)), 2)
    light = {number: _light(number, energy, core, random) for number in TELESCOPES}
    images = recorded = 0
    total = 0.0
    for use in range(SHOWERS * USES):
        shower = use // USES + 1
        if use % USES == 0:
            pieces.append(_shower(shower, energy[shower - 1], height[shower - 1]))
        event = 100 * shower + use % USES
        pieces.append(top(Kind.USE, event, struct.pack("<i", shower) + floats(core[:, use]), version=1))
        samples = {number: _samples(pe[use], random) for number, pe in light.items() if pe[use].sum() >= READ_OUT_PE}
        if not samples:
            continue
        pieces.append(_event(event, samples))
        images, recorded = images + len(samples), recorded + 1
        total += sum(float(codes.sum() - PEDESTAL * codes.size) for codes in samples.values()) / CODES_PER_PE
    (folder / FOLDER / NAME).write_bytes(gzip.compress(b"".join(pieces), mtime=0))
    sums = {"pe": total, "energy": float(energy.sum()), "showers": SHOWERS, "array_events": recorded}
    return [Contents(f"{FOLDER}/{NAME}", SimtelReader.name, images, RUN, sums=sums)]


def _light(number: int, energy: Floats, core: Floats, random: np.random.Generator) -> Ints:
    """Return what a telescope sees of all uses of all showers, which come from where it points to."""
    place, name = TELESCOPES[number]
    away = core - np.array(place[:2])[:, None]
    return draw_light(camera(name), np.repeat(energy, USES), np.zeros(core.shape), away, random)


def _history() -> bytes:
    lines = [part(71, 0, _TIME[:4] + string(b"apbatch sample"), version=1)]
    content = [top(Kind.HISTORY, 0, b"".join(lines), nested=True)]
    content += [
        top(Kind.META, number, metadata([(b"CAMERA_CONFIG_NAME", name.encode())]))
        for number, (_, name) in TELESCOPES.items()
    ]
    return b"".join(content)


def _header() -> list[bytes]:
    """Return the run and what describes each telescope."""
    number = len(TELESCOPES)
    run = struct.pack("<4i", RUN, 1_509_202_800, -1, 0) + floats([_AZIMUTH, _ALTITUDE, 0, 0, 0, 0, 0])
    run += struct.pack("<i", number) + np.array(list(TELESCOPES), "<i2").tobytes()
    run += (
        floats([place for place, _ in TELESCOPES.values()])
        + struct.pack("<ii", 2, 0)
        + string(b"sample")
        + string(b"apbatch")
    )
    programs = struct.pack("<6i", 1, 7500, 0, 1, 0, 0) + floats([675.0]) + struct.pack("<3i", SHOWERS, USES, 1)
    programs += floats([0, 200, *[_ALTITUDE] * 2, *[_AZIMUTH] * 2]) + struct.pack("<i", 0)
    programs += floats([0, 0, 1, 32, -2.0, 60.0, 1.2, 0.0, 0.0]) + struct.pack("<4i", 1, 0, 0, 0)
    programs += floats([5, 300, 600]) + struct.pack("<2i", 0, 0)
    pieces = [top(Kind.RUN, RUN, run, version=1), top(2001, RUN, programs, version=4)]
    for telescope, (_, name) in TELESCOPES.items():
        pieces += _telescope(telescope, name)
    return pieces


def _telescope(number: int, name: str) -> list[bytes]:
    x, y = _positions(name)
    n_pixels, pitch = len(x), CAMERAS[name][1]
    area = math.sqrt(0.75) * pitch**2
    settings = struct.pack("<i", n_pixels) + floats([FOCAL_LENGTH_M, FOCAL_LENGTH_M]) + floats(x) + floats(y)
    settings += signed_count(0) + signed_count(1)  # flat, and all pixels look along the axis
    settings += signed_count(1) + signed_count(1) + floats([area, pitch])  # all are hexagons
    settings += struct.pack("<i", 60) + floats([100.0, 0.0])  # mirrors, their area, turn of the camera
    organisation = struct.pack("<4i", n_pixels, 1, 1, 1) + bytes(2 * n_pixels) + 3 * bytes(2 * n_pixels)
    organisation += bytes(2 * n_pixels) + b"\0" + floats([0.0, 0.0])
    pixels = struct.pack("<4i", 0, 0, 2, n_pixels) + bytes(4 * n_pixels) + struct.pack("<3i", 1, 0, 1)
    pixels += struct.pack("<hh", 0, SAMPLES) + floats([SLICE_NS]) + struct.pack("<i", SAMPLES)
    pixels += signed_count(1) + signed_count(SAMPLES) + floats([SLICE_NS]) + _PULSE.astype("<f2").tobytes()
    return [
        top(Kind.CAMERA, number, settings, version=5),
        top(2003, number, organisation, version=1),
        top(Kind.PIXELS, number, pixels, version=2),
        top(Kind.DISABLED, number, 2 * _NOTHING),
        top(2006, number, 16 * _NOTHING),
        top(2008, number, bytes(4) + 12 * _NOTHING),
        top(2007, number, 2 * _NOTHING),
    ]


def _calibration(random: np.random.Generator) -> list[bytes]:
    """Return pedestals and conversion of all telescopes, and one flash of light that is no shower."""
    pieces, flash = [], {}
    for number, (_, name) in TELESCOPES.items():
        n_pixels = len(_positions(name)[0])
        what = 0x04  # pedestals and noise
        monitoring = struct.pack("<hhi", what, what, 1) + _TIME + struct.pack("<4h", 1, n_pixels, 1, 1)
        monitoring += _TIME + struct.pack("<h", SAMPLES) + floats(np.full(n_pixels, PEDESTAL * SAMPLES))
        monitoring += floats(np.ones(n_pixels))
        laser = struct.pack("<Hhi", n_pixels, 1, 1) + floats(np.full(n_pixels, 1 / CODES_PER_PE))
        laser += floats([1.0, 0.5]) + floats(np.zeros(n_pixels))
        pieces += [top(Kind.MONITORING, number | what << 8, monitoring), top(Kind.LASER, number, laser, version=2)]
        flash[number] = _samples(np.full(n_pixels, 20), random)
    pieces.append(top(2028, 1, _event(1, flash)[4:], nested=True))
    return pieces


def _shower(number: int, energy: float, height: float) -> bytes:
    content = struct.pack("<i", 0) + floats([energy, _AZIMUTH, _ALTITUDE, 0.0])
    content += floats([height, 300.0, 8000.0, 8000.0, 8000.0]) + struct.pack("<h", 0)
    return top(Kind.SHOWER, number, content, version=1)


def _samples(photons: Ints, random: np.random.Generator) -> Ints:
    """Return the codes of all samples, shape (n_pixels, samples); light beyond the pulse's rounding is in its peak."""
    signal = np.floor(photons[:, None] * CODES_PER_PE * _PULSE).astype(np.int64)
    signal[:, int(np.argmax(_PULSE))] += photons * CODES_PER_PE - signal.sum(axis=1)
    return PEDESTAL + signal + np.round(random.normal(0, 2, signal.shape)).astype(np.int64)


def _event(event: int, samples: dict[int, npt.NDArray[np.int64]]) -> bytes:
    numbers = np.array(list(samples), "<i2")
    trigger = _TIME + _TIME + struct.pack("<ii", 1, 1)
    for times in (floats(np.zeros(len(numbers))), b""):
        trigger += struct.pack("<h", len(numbers)) + numbers.tobytes() + times
    trigger += b"".join(count(1) for _ in samples)
    pieces = [part(2009, event, trigger, version=2)]
    for number, codes in samples.items():
        head = part(2011, number, struct.pack("<ii", event, event) + _TIME + _TIME + struct.pack("<h", 1), version=1)
        traces = struct.pack("<ihh", len(codes), 1, SAMPLES) + b"".join(differences(row) for row in codes.tolist())
        pieces.append(
            part(2200 + number, event, head + part(2013, number << 12, traces, version=3), version=1, nested=True)
        )
    for number in TELESCOPES:
        pieces.append(part(2100 + number, number | 0x300, floats([_AZIMUTH, _ALTITUDE] * 2)))
    return top(Kind.ARRAY, event, b"".join(pieces), nested=True)

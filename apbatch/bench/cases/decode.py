"""Decoding cases: bytes of every format with images to images, against the library that reads the format.

One thread, in memory; the peers do the same on the same bytes. Where real files are given they are read, else TAIGA's
records and FACT's events are made up, and the formats that only a library can write are left out.
"""

from __future__ import annotations

import importlib.util
import io
import json
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from apbatch.bench.case import Case, Operation
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.instruments.taiga import DEG_PER_CM
from apbatch.errors import VerificationError
from apbatch.formats.compressed import plain
from apbatch.formats.fact.photons import PIXELS, FactPhotonsReader
from apbatch.formats.magic import MagicReader
from apbatch.formats.reader import ImageReader
from apbatch.formats.simtel.reader import SimtelReader
from apbatch.formats.taiga import raw as taiga_raw
from apbatch.formats.taiga.monte_carlo import TaigaMcReader

OURS = "apbatch"
#: Bytes of raw records in one round, 10⁶: the slowest peer takes a second for 20.
_MOST_RAW_MB = 64
#: Most bytes of photon lists in one round, 10⁶.
_MOST_FACT_MB = 10
_MAGIC_CHARGE, _MAGIC_ARRIVAL = "MCerPhotEvt.fPixels.fPhot", "MArrivalTime.fData"
_MAGIC_NUMBERS = (
    "MRawEvtHeader.fDAQEvtNumber", "MRawEvtHeader.fStereoEvtNumber", "MRawEvtHeader.fTelescopeNumber", "MTime.fMjd",
    "MTime.fTime.fMilliSec", "MTime.fNanoSec", "MPointingPos.fZd", "MPointingPos.fAz", "MTriggerPattern.fPrescaled",
)  # fmt: skip


def decode_groups(setting: Setting) -> Iterator[Group]:
    """Yield the groups of the decoding suite."""
    yield _raw(setting)
    yield _text(setting)
    yield _fact(setting)
    if file := _file(setting, "magic_real", "*_Y_*.root", "uproot", "MAGIC's ROOT files"):
        yield _magic(file)
    if file := _file(setting, "simtel", "history_meta_75.simtel.zst", "eventio", "sim_telarray's files"):
        yield _simtel(setting, file)


class _Decode(Case):
    """A peer that decodes; what it returns is compared with what all must find."""

    def __init__(
        self, operation: Operation, peer: str, size: int, decode: Callable[[], float], expected: float
    ) -> None:
        super().__init__(operation, peer, size)
        self._decode, self._expected, self._result = decode, expected, float("nan")

    def run(self) -> None:
        self._result = self._decode()

    def check(self) -> None:
        if not np.isclose(self._result, self._expected, rtol=1e-6):
            raise VerificationError(f"{self.peer} found {self._result}, {self._expected} is there")


def _group(operation: Operation, size: int, expected: float, peers: dict[str, Callable[[], float]]) -> Group:
    return Group(operation, [_Decode(operation, peer, size, decode, expected) for peer, decode in peers.items()])


def _file(setting: Setting, folder: str, pattern: str, library: str, what: str) -> Path | None:
    if importlib.util.find_spec(library) is None:
        setting.left_out[library] = f"{what} need it: pip install 'apbatch[all]'"
        return None
    files = sorted((setting.data / folder).glob(pattern)) if setting.data is not None else []
    if not files:
        setting.left_out[library] = f"there is no real file {folder}/{pattern}: give --data FOLDER"
        return None
    return files[0]


# --- TAIGA's raw records ------------------------------------------------------------------------------------------


def _raw(setting: Setting) -> Group:
    count = min(setting.size.large_mb, _MOST_RAW_MB) * 1_000_000 // taiga_raw.RECORD.itemsize
    content = _real_records(setting, count) or _made_records(count)
    operation = Operation(
        "decode",
        "TAIGA raw records",
        f"{count} records of 156 bytes in memory, in batches of {taiga_raw.BATCH}: check, time of day, 64 amplitudes; "
        "the events and the high gains are then added up by all. Copy: the bytes alone, into memory that is there.",
        "GB/s",
        len(content) / 1e9,
        reference="copy",
        baseline="numpy",
        clock="cpu",
    )
    records = np.frombuffer(content, taiga_raw.RECORD)
    expected = float(records["event"].sum(dtype=np.float64))
    target = np.empty(taiga_raw.BATCH * taiga_raw.RECORD.itemsize, np.uint8)

    def copied() -> float:
        source = np.frombuffer(content, np.uint8)
        for start in range(0, len(source), len(target)):
            piece = source[start : start + len(target)]
            target[: len(piece)] = piece
        return expected

    def ours() -> float:
        total = 0.0
        for batch in taiga_raw.read_records(io.BytesIO(content)):
            total += float(batch["event"].sum())
        return total

    def by_numpy() -> float:
        total, size = 0.0, taiga_raw.BATCH * taiga_raw.RECORD.itemsize
        for start in range(0, len(content), size):
            count = min(taiga_raw.BATCH, (len(content) - start) // taiga_raw.RECORD.itemsize)
            batch = np.frombuffer(content, taiga_raw.RECORD, count, start)
            fine = (batch["type"] == 3032) & (batch["size"] == 132) & (batch["end"] == 0xFFFFFFFF)
            events = taiga_raw.decoded_by_numpy(batch[fine], start)
            total += float(events["event"].sum())
        return total

    return _group(
        operation,
        len(content),
        expected,
        {"copy": copied, OURS: ours, "numpy": by_numpy, "record by record": lambda: _one_by_one(content)},
    )


def _one_by_one(content: bytes) -> float:
    layout, total = struct.Struct("<HHII4HI64HI"), 0.0
    for fields in layout.iter_unpack(content):
        if fields[0] != 3032 or fields[1] != 132 or fields[-1] != 0xFFFFFFFF:
            continue
        time = fields[4] | fields[5] << 16 | fields[6] << 32 | fields[7] << 48
        tens, us, ms = time & 0x7F, time >> 7 & 0x3FF, time >> 17 & 0x3FF
        second, minute, hour = time >> 27 & 0x3F, time >> 33 & 0x3F, time >> 39 & 0x1F
        _ = ((hour * 60 + minute) * 60 + second) * 10**9 + ms * 10**6 + us * 1000 + tens * 10
        total += fields[2]
    return total


def _real_records(setting: Setting, count: int) -> bytes:
    if setting.data is None:
        return b""
    size = taiga_raw.RECORD.itemsize
    files = sorted((setting.data / "taiga_raw").glob("BSM*/*.001"))
    content = b"".join(file.read_bytes()[: file.stat().st_size // size * size] for file in files)
    return (content * (count * size // len(content) + 1))[: count * size] if content else b""


def _made_records(count: int) -> bytes:
    random = np.random.default_rng(1)
    records = np.zeros(count, taiga_raw.RECORD)
    records["type"], records["size"], records["end"] = 3032, 132, 0xFFFFFFFF
    records["event"] = np.arange(count)
    packed = random.integers(0, 100, count) | random.integers(0, 1000, count) << 7 | np.int64(17) << 39
    records["time"] = packed.view("<u2").reshape(count, 4)
    records["board"] = 6
    records["adc"] = random.integers(1000, 9000, (count, 32, 2))
    return records.tobytes()


# --- TAIGA's Monte Carlo as text ----------------------------------------------------------------------------------


def _text(setting: Setting) -> Group:
    content = _real_text(setting) or _made_text()

    def by_python() -> float:
        total = 0.0
        lines = iter(content.decode().splitlines())
        for line in lines:
            words = line.split()
            hits = [[float(word) for word in next(lines).split()] for _ in range(int(words[3]))]
            total += sum(hit[4] for hit in hits)
        return total

    operation = Operation(
        "decode",
        "TAIGA Monte Carlo text",
        f"{len(content) / 1e6:.1f} MB of text in memory to images of 560 pixels with masks. Python: split into "
        "words and made numbers, no images.",
        "MB/s",
        len(content) / 1e6,
        baseline="Python",
        clock="cpu",
    )
    peers = {OURS: _reading(TaigaMcReader(), content), "Python": by_python}
    return _group(operation, len(content), by_python(), peers)


def _real_text(setting: Setting) -> bytes:
    files = sorted((setting.data / "taiga_mc").glob("*.txt")) if setting.data is not None else []
    return files[0].read_bytes() if files else b""


def _made_text() -> bytes:
    camera, random, lines = camera_named("TAIGA-IACT01"), np.random.default_rng(3), []
    x, y = camera.x / DEG_PER_CM, camera.y / DEG_PER_CM
    for number in range(2000):
        pixels = random.choice(camera.n_pixels, 15, replace=False)
        lines.append(f"0 {number} 1 {len(pixels)} 50.5 0 0 100.5 -20.25 1.5 2.5")
        lines += [
            f"{camera.cluster[p]} {camera.number[p] // 2} {x[p]:.6g} {y[p]:.6g} {random.exponential(30):.6g}"
            for p in pixels
        ]
    return "".join(f"{line}\n" for line in lines).encode()


# --- FACT's photon stream -----------------------------------------------------------------------------------------


def _fact(setting: Setting) -> Group:
    lines = _real_lines(setting) or _made_lines()
    while len(lines) < min(setting.size.large_mb, _MOST_FACT_MB) * 1_000_000:
        lines += lines
    expected = float(sum(sum(map(len, json.loads(line)["PhotonArrivals_500ps"])) for line in lines.splitlines()))
    operation = Operation(
        "decode",
        "FACT photon stream",
        f"{len(lines) / 1e6:.0f} MB of JSON lines in memory to images and arrival times. json: the same lines to "
        "Python objects and the numbers of photons to an image, without times.",
        "MB/s",
        len(lines) / 1e6,
        baseline="json",
        clock="cpu",
    )

    def by_json() -> float:
        total, image = 0.0, np.empty(PIXELS, np.float32)
        for line in io.BytesIO(lines):
            image[:] = [len(pixel) for pixel in json.loads(line)["PhotonArrivals_500ps"]]
            total += float(image.sum())
        return total

    return _group(operation, len(lines), expected, {OURS: _reading(FactPhotonsReader(), lines), "json": by_json})


def _real_lines(setting: Setting) -> bytes:
    files = sorted((setting.data / "fact_images").glob("*.phs.jsonl.gz")) if setting.data is not None else []
    if not files:
        return b""
    with files[0].open("rb") as stream:
        return plain(stream)[0].read()


def _made_lines() -> bytes:
    random, lines = np.random.default_rng(2), []
    for number in range(100):
        photons = [random.integers(30, 130, random.poisson(1.8)).tolist() for _ in range(PIXELS)]
        event = {"Run": 1, "Event": number, "Reuse": 1, "Zd_deg": 10.0, "Az_deg": 0.0, "PhotonArrivals_500ps": photons}
        lines.append(json.dumps(event, separators=(",", ":")).encode())
    return b"\n".join(lines) + b"\n"


def _reading(reader: ImageReader, content: bytes, times: int = 1) -> Callable[[], float]:
    """Return a function that reads all images and returns the sum of their light."""

    def read() -> float:
        total = 0.0
        for _ in range(times):
            for batch in reader.images(io.BytesIO(content), "bench"):
                total += _light(batch)
        return total

    return read


def _light(batch: Any) -> float:
    from apbatch.formats.images import from_binary

    return float(np.nansum(from_binary(batch.column("image")), dtype=np.float64))


# --- MAGIC's ROOT files -------------------------------------------------------------------------------------------


def _magic(path: Path) -> Group:
    import uproot

    content, times = path.read_bytes(), 5

    def by_uproot() -> float:
        total = 0.0
        for _ in range(times):
            tree = uproot.open(io.BytesIO(content))["Events"]
            charge = np.stack(tree[_MAGIC_CHARGE].array(library="np"))[:, :1039]
            np.stack(tree[_MAGIC_ARRIVAL].array(library="np"))
            numbers = {name: tree[name].array(library="np") for name in _MAGIC_NUMBERS}
            cosmic = (numbers["MTriggerPattern.fPrescaled"] & 8) == 0
            total += float(charge[cosmic].sum(dtype=np.float64))
        return total

    expected = by_uproot()
    with path.open("rb") as stream:
        images = MagicReader().metadata(stream, path.name).events or 0
    operation = Operation(
        "decode",
        "MAGIC calibrated events",
        f"A file of {images} images, read {times} times from memory: opened, decompressed, amplitudes, arrival times, "
        "numbers, times and pointing as arrays.",
        "images/s",
        float(images * times),
        baseline="uproot",
        clock="cpu",
    )
    peers = {OURS: _reading(MagicReader(), content, times), "uproot": by_uproot}
    return _group(operation, len(content) * times, expected, peers)


# --- sim_telarray -------------------------------------------------------------------------------------------------


def _simtel(setting: Setting, path: Path) -> Group:
    from eventio import SimTelFile

    with path.open("rb") as stream:
        content = plain(stream)[0].read()
    copy = setting.scratch / "bench.simtel"  # eventio reads files only
    copy.write_bytes(content)
    setting.at_end.callback(copy.unlink, missing_ok=True)
    images = sum(batch.num_rows for batch in SimtelReader().images(io.BytesIO(content), "bench"))

    def by_eventio() -> float:
        total = 0.0
        with SimTelFile(str(copy)) as file:
            for event in file:
                for number, record in event["telescope_events"].items():
                    samples = record["adc_samples"]
                    monitoring = event["camera_monitorings"][number]
                    level = (monitoring["pedestal"] / monitoring["n_ped_slices"])[:, :, np.newaxis]
                    pe = ((samples - level).sum(axis=2) * event["laser_calibrations"][number]["calib"]).astype("f4")
                    low = (samples[0].max(axis=1) > 4000) if len(samples) > 1 else np.zeros(samples.shape[1], bool)
                    total += float(np.where(low, pe[-1], pe[0]).sum(dtype=np.float64))
        return total

    def by_ctapipe() -> float:
        from ctapipe.io import SimTelEventSource

        total = 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with SimTelEventSource(copy, focal_length_choice="EQUIVALENT") as source:
                for event in source:
                    for record in event.r1.tel.values():
                        total += float(np.asarray(record.waveform)[0].sum(dtype=np.float64))
        return total

    expected = by_eventio()
    operation = Operation(
        "decode",
        "sim_telarray images",
        f"A file of {images} images of cameras with 1,855 pixels, not compressed: samples, pedestals, choice of gain, "
        "photo-electrons summed over the read-out. apbatch: times of arrival as well.",
        "images/s",
        float(images),
        baseline="eventio",
        clock="cpu",
    )
    peers: dict[str, Callable[[], float]] = {OURS: _reading(SimtelReader(), content), "eventio": by_eventio}
    if importlib.util.find_spec("ctapipe") is not None:
        peers["ctapipe"] = by_ctapipe
    else:
        setting.left_out["ctapipe"] = "not installed: pip install ctapipe"
    return _group(operation, len(content), expected, peers)

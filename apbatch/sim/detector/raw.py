"""A production as raw files of TAIGA-IACT: what the data acquisition would have written of the same images.

An amplitude in photo-electrons becomes the codes of a channel's high and low gain by a pedestal and a factor that are
drawn for each channel about those of 2017; the factors go into a table as the LED calibration writes it, the pedestals
only show in the pedestal files, which hold the camera's noise without light. Event numbers are those of the production,
so that its truth and its own images are at hand for whatever the chain makes of the raw files.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import FormatError, NotFoundError, UsageError
from apbatch.formats.images import camera_of, from_binary
from apbatch.formats.taiga.raw import DATA_TYPE, RECORD
from apbatch.sim.detector.noise import CONTENT
from apbatch.sim.detector.response import Camera, Light, digitise, over_threshold
from apbatch.sim.settings import DetectorModel, Production

Floats = npt.NDArray[np.float64]

Clusters = Literal["all", "triggered"]

#: ADC codes of a photo-electron in the high gain, as the LED calibration of 30 September 2017 found it on average, and
#: their relative spread; the high over the low gain; pedestals; largest code of 12 bits.
_CODES, _SPREAD, _RATIO, _PEDESTAL, _LAST = 14.0, 0.1, 4.3, 350.0, 4095.0
#: Records of a pedestal file.
_PEDESTAL_RECORDS = 500
_MOST_CLUSTERS = 22
#: Of the mask of triggers: set in all records of 2017.
_ALWAYS = 1 << 25
#: Start of data taking, ns since 0 h UTC, and the mean time between events.
_START_NS, _GAP_NS = 15 * 3_600_000_000_000, 50_000_000


@dataclass(frozen=True)
class RawSummary:
    """What was written.

    Attributes
    ----------
    folder : Path
        With ``DDMMYY.RR/BSMcc/*`` and ``FACTORS_*.txt``.
    factors : Path
        The table of conversion factors.
    events, records, files : int
    """

    folder: Path
    factors: Path
    events: int
    records: int
    files: int


@dataclass(frozen=True, eq=False)
class _Channels:
    """Electronics of all pixels: pedestal and codes per p.e. of the high and the low gain, shape (n_pixels, 2)."""

    pedestal: Floats
    codes: Floats

    @classmethod
    def draw(cls, n_pixels: int, rng: np.random.Generator) -> _Channels:
        pedestal = _PEDESTAL + 20.0 * rng.standard_normal((n_pixels, 2))
        high = np.round(_CODES * (1.0 + _SPREAD * np.clip(rng.standard_normal(n_pixels), -2.0, 2.0)), 3)
        low = np.round(high / (_RATIO * (1.0 + 0.05 * np.clip(rng.standard_normal(n_pixels), -2.0, 2.0))), 3)
        return cls(pedestal, np.column_stack([high, low]))

    def adc(self, amplitude: Floats) -> npt.NDArray[np.uint16]:
        """Return quarters of codes, shape (n, n_pixels, 2), of amplitudes in p.e.; a dead pixel gives its pedestal."""
        there = np.nan_to_num(amplitude, nan=0.0)[:, :, None]
        codes = np.clip(self.pedestal + there * self.codes, 0.0, _LAST)
        return np.asarray(np.round(4.0 * codes), np.uint16)


def write_raw(
    production: Path,
    output: Path,
    *,
    night: date = date(2017, 10, 28),
    number: int = 1,
    clusters: Clusters = "all",
    noise_library: Path | None = None,
    noise_factors: Path | None = None,
) -> RawSummary:
    """Write the images of a production as raw cluster files with pedestals and a table of factors.

    Parameters
    ----------
    production : Path
        Folder of a finished production in the camera TAIGA-IACT01, one telescope a shower's use.
    output : Path
        Folder; must not hold anything.
    night, number : date, int
        Date and number of the run, which names of folders and files tell.
    clusters : str
        `all`: every event has a record of all clusters; `triggered`: of those in which two neighbours fired.
    noise_library, noise_factors : Path, optional
        The raw run, and its table of factors, whose noise the production has: its summary does not say where they lie.

    Returns
    -------
    RawSummary

    Raises
    ------
    NotFoundError, UsageError, FormatError
        If there is no production, it is of another camera or of an array, the output is not empty, or the noise is
        not that of the production.
    """
    settings = _settings(production)
    detector = _with_noise(settings.detector, noise_library, noise_factors, production)
    if output.exists() and any(output.iterdir()):
        raise UsageError("the folder is not empty", where=str(output), remedy="choose another folder")
    files = sorted((production / "images").glob("part-*.parquet"))
    if not files:
        raise NotFoundError("no images", where=str(production / "images"))
    name = camera_of(pq.read_schema(files[0]))
    if not name.startswith("TAIGA-IACT01") or len(settings.array) > 1:
        what = f"{len(settings.array)} x {name}"
        raise UsageError(f"raw files are of one TAIGA-IACT01, not of {what}", where=str(production))
    camera = camera_named(name)
    rng = np.random.default_rng(np.random.SeedSequence([*camera.name.encode(), settings.run]))
    channels = _Channels.draw(camera.n_pixels, rng)
    electronics = Camera.of(camera, detector)
    run = output / f"{night:%d%m%y}.{number:02d}"
    run.mkdir(parents=True)
    time, records, events = _START_NS, 0, 0
    part_files = set()
    for part, file in enumerate(files, start=1):
        table = pq.read_table(file, columns=["event", "image"], page_checksum_verification=True).sort_by("event")
        images = np.asarray(from_binary(table["image"]), np.float64)
        gaps = rng.exponential(_GAP_NS, len(images)).astype(np.int64) // 10 * 10 + 10
        times = time + np.cumsum(gaps)
        time = int(times[-1])
        fired = _fired(images, electronics, settings.detector, camera)
        bits = _ALWAYS | (fired.astype(np.int64) << np.arange(_MOST_CLUSTERS)).sum(axis=1)
        adc = channels.adc(images)
        number_of = np.asarray(table["event"].to_numpy(), np.int64)
        for cluster in range(1, _MOST_CLUSTERS + 1):
            in_cluster = np.arange(len(images)) if clusters == "all" else np.flatnonzero(fired[:, cluster - 1])
            rows = _records(
                camera, cluster, number_of[in_cluster], bits[in_cluster], times[in_cluster], adc[in_cluster]
            )
            path = _path(run, night, cluster, f"{part:03d}")
            path.write_bytes(rows.tobytes())
            part_files.add(path)
            records += len(rows)
        events += len(images)
    shape = (_PEDESTAL_RECORDS, camera.n_pixels)
    noise = digitise(Light.of_counts(np.zeros(shape, np.int64)), electronics, settings.detector, rng).amplitude
    adc = channels.adc(noise)
    for cluster in range(1, _MOST_CLUSTERS + 1):
        count = np.arange(1, _PEDESTAL_RECORDS + 1)
        before = _START_NS - 10_000_000_000 + count * 10_000
        rows = _records(camera, cluster, count, np.full(len(count), _ALWAYS), before, adc)
        path = _path(run, night, cluster, "ped")
        path.write_bytes(rows.tobytes())
        part_files.add(path)
    factors = output / f"FACTORS_{night:%d%m%y}.txt"
    factors.write_text(_factors(camera, channels, electronics.dead[0]), encoding="ascii")
    return RawSummary(output, factors, events, records, len(part_files))


def encode_time(nanoseconds: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
    """Pack times of day, ns since 0 h, into the four words of a record: `taiga_raw.decode_time` backwards."""
    rest = np.asarray(nanoseconds, np.int64)
    packed = np.zeros(len(rest), np.uint64)
    shift = 0
    for bits, limit, unit in (
        (7, 100, 10),
        (10, 1000, 1_000),
        (10, 1000, 1_000_000),
        (6, 60, 1_000_000_000),
        (6, 60, 60_000_000_000),
        (5, 24, 3_600_000_000_000),
    ):
        packed |= (rest // unit % limit).astype(np.uint64) << np.uint64(shift)
        shift += bits
    words = (packed[:, None] >> np.array([0, 16, 32, 48], np.uint64)) & np.uint64(0xFFFF)
    return words.astype(np.uint16)


def _settings(production: Path) -> Production:
    file = production / "production.json"
    if not file.is_file():
        raise NotFoundError("no finished production", where=str(production), remedy="apbatch sim --output FOLDER")
    try:
        content = json.loads(file.read_text())
        return Production.model_validate(content["parameters"])
    except (ValueError, KeyError) as error:
        raise FormatError(f"not the summary of a production: {error}", where=str(file)) from error


def _with_noise(
    published: DetectorModel, noise_library: Path | None, noise_factors: Path | None, production: Path
) -> DetectorModel:
    """Return the detector of a summary with the files of its noise, which stand there by their content."""
    recorded = {"noise_library": str(published.noise_library), "noise_factors": str(published.noise_factors)}
    by_content = recorded["noise_library"].startswith(CONTENT)
    if noise_library is None:
        if by_content:
            raise UsageError(
                "the production has the noise of a raw run",
                where=str(production),
                remedy="name it: --noise-library FOLDER, and --noise-factors FILE if they do not lie beside it",
            )
        return published  # without such noise, or a summary of before, which says where it lies
    files = {"noise_library": noise_library, "noise_factors": noise_factors}
    detector = published.model_copy(update=files)
    if by_content and not recorded.items() <= detector.published().items():
        raise UsageError("not the noise that the production has", where=str(noise_library))
    if published.noise_library is None:
        raise UsageError("the production has no noise of a raw run", where=str(production))
    return detector


def _fired(images: Floats, camera: Camera, detector: DetectorModel, geometry: CameraGeometry) -> npt.NDArray[np.bool_]:
    """Return which clusters have a trigger of their own, shape (n, 22)."""
    out = np.zeros((len(images), _MOST_CLUSTERS), bool)
    for cluster in range(1, _MOST_CLUSTERS + 1):
        mine = geometry.cluster == cluster
        out[:, cluster - 1] = over_threshold(np.where(mine, images, np.nan), camera, detector)
    return out


def _records(
    camera: CameraGeometry,
    cluster: int,
    events: npt.NDArray[np.int64],
    triggers: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    adc: npt.NDArray[np.uint16],
) -> npt.NDArray[np.void]:
    rows = np.zeros(len(events), RECORD)
    rows["type"], rows["size"], rows["end"] = DATA_TYPE, RECORD.itemsize - 24, 0xFFFFFFFF
    rows["event"], rows["trigger"], rows["board"] = events, triggers, cluster - 1
    rows["time"] = encode_time(times)
    pixels = np.flatnonzero(camera.cluster == cluster)
    rows["adc"] = math.floor(4.0 * _PEDESTAL)  # channels that are not connected
    values = rows["adc"]
    values[:, camera.number[pixels] // 2] = adc[:, pixels]
    rows["adc"] = values
    return rows


def _path(run: Path, night: date, cluster: int, extension: str) -> Path:
    folder = run / f"BSM{cluster:02d}"
    folder.mkdir(exist_ok=True)
    return folder / f"{night:%d%m}{night.year % 10}{cluster:03d}.{extension}"


def _factors(camera: CameraGeometry, channels: _Channels, dead: npt.NDArray[np.bool_]) -> str:
    lines = [
        "LED calibration (simulated)",
        "Conversion factors",
        "1pe, code - single photoelectron in ADC codes",
        "Cluster     Channel        Gain       K_ADC   1pe, code    Rel_sens",
        "=" * 67,
    ]
    order = np.lexsort((camera.number, camera.cluster))
    for pixel in order:
        for gain in (0, 1):
            codes = 0.0 if dead[pixel] else channels.codes[pixel, gain]
            k_adc = 1.1 if gain == 0 else 1.1 * _RATIO
            channel = f"{camera.cluster[pixel]:7d}{camera.number[pixel] + gain:12d}"
            lines.append(f"{channel}{1.0:12.3f}{k_adc:12.3f}{codes:12.3f}{1.0:12.3f}")
    return "\n".join(lines) + "\n"

"""TAIGA-IACT's raw files: all clusters of the camera in two parts, some pedestal files, factors and coordinates.

Sums: ``adc``, of all 64 channels of all records, in quarters of a code.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.instruments.taiga import DEG_PER_CM
from apbatch.formats.taiga.raw import DATA_TYPE, RECORD, TaigaRawReader
from apbatch.sample.contents import Contents
from apbatch.sample.showers import Ints, draw_showers, generator
from apbatch.sim.detector.raw import encode_time

FOLDER = "taiga_raw"
CAMERA = "TAIGA-IACT01-2017"
NIGHT, RUN = date(2017, 10, 28), 20171028
FACTORS, COORDINATES = "FACTORS_281017.txt", "xy_turn_2017n.txt"
#: Events of the two parts; those of the second are read out only where there is light.
EVENTS = (64, 32)
#: Light of a cluster below which the second part has no record of it, photo-electrons.
READ_OUT_PE = 90
#: Clusters with a pedestal file, and its records; the pedestals of others are found in the data.
PEDESTAL_CLUSTERS, PEDESTAL_RECORDS = (1, 2, 3, 4), 200
#: Cluster with pixels without high voltage, and how many: they see no light, not even that of the sky.
DEAD_CLUSTER, DEAD_PIXELS = 12, 5
#: Light of the night sky in a pixel, photo-electrons; it is what tells a pixel that works from a dead one.
_SKY_PE = 2.0
_PEDESTAL, _NOISE, _RATIO, _LAST = 350, 1.5, 4.0, 4095
_START_NS, _GAP_NS = 15 * 3_600_000_000_000, 40_000_000
#: Of the mask of triggers: set in every record.
_ALWAYS = 1 << 25

Codes = npt.NDArray[np.float64]


def write(folder: Path, seed: int) -> list[Contents]:
    """Write the files into `folder` / ``taiga_raw``; return what they hold."""
    random, camera = generator(seed, FOLDER), camera_named(CAMERA)
    root = folder / FOLDER
    root.mkdir()
    codes = np.round(random.uniform(11.0, 17.0, camera.n_pixels), 3)
    (root / FACTORS).write_text(_factors(camera, codes), encoding="ascii")
    (root / COORDINATES).write_text(_coordinates(camera), encoding="ascii")
    contents = []
    first = 1
    for part, count in enumerate(EVENTS, start=1):
        photons = draw_showers(camera, count, random, background=_SKY_PE).photons
        photons[:, np.flatnonzero(camera.cluster == DEAD_CLUSTER)[:DEAD_PIXELS]] = 0
        event = np.arange(first, first + count)
        time = _START_NS + event * _GAP_NS
        for cluster in np.unique(camera.cluster).tolist():
            mine = camera.cluster == cluster
            triggers = np.flatnonzero((part == 1) | (photons[:, mine].sum(axis=1) >= READ_OUT_PE))
            rows = _records(camera, cluster, event[triggers], time[triggers], photons[triggers], codes, random)
            path = f"{FOLDER}/BSM{cluster:02d}/{NIGHT:%d%m}{NIGHT.year % 10}{cluster:03d}.{part:03d}"
            contents += _written(folder, path, cluster, rows)
        first += count
    dark = np.zeros((PEDESTAL_RECORDS, camera.n_pixels), np.int64)
    number = np.arange(1, PEDESTAL_RECORDS + 1)
    for cluster in PEDESTAL_CLUSTERS:
        rows = _records(camera, cluster, number, _START_NS - 10_000_000_000 + number * 10_000, dark, codes, random)
        path = f"{FOLDER}/PED/{NIGHT:%d%m}{NIGHT.year % 10}{cluster:03d}.ped"
        contents += _written(folder, path, cluster, rows)
    return contents


def _written(folder: Path, path: str, cluster: int, rows: npt.NDArray[np.void]) -> list[Contents]:
    """Write a file, unless a cluster recorded nothing."""
    if not len(rows):
        return []
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(rows.tobytes())
    sums = {"adc": float(rows["adc"].sum(dtype=np.int64))}
    return [Contents(path, TaigaRawReader.name, len(rows), RUN, NIGHT, telescope=1, cluster=cluster, sums=sums)]


def _records(
    camera: CameraGeometry,
    cluster: int,
    event: Ints,
    time: Ints,
    photons: Ints,
    codes: Codes,
    random: np.random.Generator,
) -> npt.NDArray[np.void]:
    rows = np.zeros(len(event), RECORD)
    rows["type"], rows["size"], rows["end"] = DATA_TYPE, RECORD.itemsize - 24, 0xFFFFFFFF
    rows["event"], rows["time"] = event, encode_time(time)
    rows["trigger"], rows["board"] = _ALWAYS | 1 << (cluster - 1), cluster - 1
    pixels = np.flatnonzero(camera.cluster == cluster)
    adc = np.full((len(event), 32, 2), 4 * _PEDESTAL)  # channels that are not connected
    for gain, factor in ((0, 1.0), (1, 1.0 / _RATIO)):
        level = _PEDESTAL + gain * 10 + photons[:, pixels] * codes[pixels] * factor
        level = level + random.normal(0.0, _NOISE, level.shape)
        adc[:, camera.number[pixels] // 2, gain] = np.round(4 * np.clip(level, 0, _LAST))
    rows["adc"] = adc
    return rows


def _factors(camera: CameraGeometry, codes: Codes) -> str:
    lines = [
        "LED calibration of the sample",
        "Conversion factors",
        "",
        "Cluster     Channel        Gain       K_ADC   1pe, code    Rel_sens",
        "=" * 67,
    ]
    for pixel in np.lexsort((camera.number, camera.cluster)):
        for gain, factor in ((0, 1.0), (1, 1.0 / _RATIO)):
            channel = f"{camera.cluster[pixel]:7d}{camera.number[pixel] + gain:12d}"
            lines.append(f"{channel}{1.0:12.3f}{1.1 / factor:12.3f}{codes[pixel] * factor:12.4f}{1.0:12.3f}")
    return "\n".join(lines) + "\n"


def _coordinates(camera: CameraGeometry) -> str:
    lines = []
    for number, pixel in enumerate(np.lexsort((camera.number, camera.cluster)), start=1):
        cluster, high = int(camera.cluster[pixel]), int(camera.number[pixel])
        within = int((camera.cluster[: pixel + 1] == cluster).sum())
        x, y = camera.x[pixel] / DEG_PER_CM, camera.y[pixel] / DEG_PER_CM
        place = f"{cluster:4d}{within:7d}{number:8d}{x:11.3f}{y:11.3f}"
        lines.append(f"{place}{high:7d}{high + 1:7d}{high // 2:7d}")
    return "\n".join(lines) + "\n"

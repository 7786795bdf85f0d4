"""Toy cameras, and toy showers in the schemas of the real datasets: ellipses of light, hadrons wider than gammas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.camera.geometry import CameraGeometry, camera_from_positions

CLEANING = "tailcuts-14-7"


def write_dataset(folder: Path, table: pa.Table, info: dict[str, Any], parts: int = 3) -> str:
    """Write a dataset as Spark leaves it: part files, `_SUCCESS`, sidecar; return its URL."""
    folder.mkdir(parents=True)
    for number, rows in enumerate(np.array_split(np.arange(table.num_rows), parts)):
        pq.write_table(table.take(pa.array(rows)), folder / f"part-{number:05d}.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "_apbatch.json").write_text(json.dumps(info))
    return f"file://{folder}"


def showers(
    folder: Path, gammas: int = 80, hadrons: int = 120, images: int = 4, seed: int = 5, contrast: float = 1.0
) -> dict[str, str]:
    """Write toy images of the TAIGA camera, their parameters and truth; the arguments of `blind.make` as URLs.

    Every draw is of the same law for both classes, but the width and the length of the ellipse.
    """
    from apbatch.camera.cleaning import PRESETS, clean
    from apbatch.camera.hillas import hillas
    from apbatch.camera.instruments.registry import camera_named

    camera = camera_named("TAIGA-IACT01")
    random = np.random.default_rng(seed)
    n = (gammas + hadrons) * images
    shower = np.repeat(np.arange(gammas + hadrons), images)
    gamma = shower < gammas
    size = 250 * np.exp(random.exponential(0.8, n))
    wide = np.where(gamma, 0.0, contrast)
    widths = 1.1 * (1 + 0.5 * wide * random.random(n)) * random.lognormal(0, 0.1, n) * camera.pitch
    lengths = widths * random.uniform(1.3, 2.2, n) * (1 + 0.2 * wide)
    middle, angle = random.uniform(-3, 3, (2, n)), random.uniform(0, np.pi, n)
    dx, dy = camera.x - middle[0][:, None], camera.y - middle[1][:, None]
    along = dx * np.cos(angle)[:, None] + dy * np.sin(angle)[:, None]
    across = dy * np.cos(angle)[:, None] - dx * np.sin(angle)[:, None]
    light = np.exp(-0.5 * (along / lengths[:, None]) ** 2 - 0.5 * (across / widths[:, None]) ** 2)
    light *= (size / light.sum(axis=1))[:, None]
    pixels = (random.poisson(light) + random.normal(0, 1.2, light.shape)).astype("<f4")
    order = random.permutation(n)
    # Drawn apart, so that they change nothing else: places of the telescopes, and times that run along the image.
    apart = np.random.default_rng([seed, 1])
    core = apart.uniform(-200, 200, (2, n))
    times = (30 + 4 * along + apart.normal(0, 1, light.shape)).astype("<f4")
    key = {
        "experiment": pa.array(["SYNTHETIC"] * n),
        "run": pa.array(np.full(n, 7)),
        "event": pa.array(random.permutation(n) + 1),
        "telescope": pa.array(np.tile(np.arange(images, dtype=np.int32), gammas + hadrons)),
    }
    rows = []
    for name, mask in (("none", None), (CLEANING, clean(pixels, camera, PRESETS["standard"]))):
        found = {column: pa.array(values) for column, values in hillas(pixels, camera, mask).items()}
        rows.append(pa.table({**key, "cleaning": pa.array([name] * n), **found}))
    truth = pa.table(
        {
            **key,
            "shower": pa.array(shower),
            "primary": pa.array(np.where(gamma, "gamma", "proton")),
            "true_energy": pa.array(size / 60),
            "true_source_x": pa.array(middle[0] + np.cos(angle)),
            "true_source_y": pa.array(middle[1] + np.sin(angle)),
            "true_core_x": pa.array(core[0]),
            "true_core_y": pa.array(core[1]),
            "true_zenith": pa.array(random.uniform(25, 35, gammas + hadrons)[shower]),
        }
    )
    images_table = pa.table({**key, "image": _binary(pixels), "peak_time": _binary(times)}).take(pa.array(order))
    info = {"kind": "images", "camera": camera.name, "cleaning": CLEANING}
    return {
        "images": write_dataset(folder / "images", images_table, info),
        "parameters": write_dataset(folder / "parameters", pa.concat_tables(rows), {"kind": "parameters"}),
        "truth": write_dataset(folder / "truth", truth, {"kind": "truth"}),
    }


def showers_of_a_source(folder: Path) -> dict[str, str]:
    """Write toy images with the place of an observed source: gammas point to it, hadrons anywhere; as `showers`."""
    inputs = showers(folder, gammas=160, hadrons=240, contrast=0.3)
    truth = pq.read_table(folder / "truth").replace_schema_metadata(None)
    gamma = np.asarray(truth["primary"].to_numpy(zero_copy_only=False) == "gamma")
    turn = np.random.default_rng(2).uniform(0, 2 * np.pi, (2, len(gamma)))
    places = {
        f"source_{axis}": pa.array(np.where(gamma, truth[f"true_source_{axis}"].to_numpy(), 3 * np.cos(turn[number])))
        for number, axis in enumerate("xy")
    }
    keys = {name: truth[name] for name in ("experiment", "run", "event", "telescope")}
    return inputs | {"sources": write_dataset(folder / "sources", pa.table({**keys, **places}), {"kind": "sources"})}


def _binary(pixels: np.ndarray) -> pa.Array:
    return pa.array([row.tobytes() for row in pixels], pa.binary())


def disc(radius: float, upright: bool = True) -> CameraGeometry:
    """Return a round camera with a pitch of 1, its rows along x or along y."""
    steps = np.arange(-20, 21)
    q, r = (axis.ravel() for axis in np.meshgrid(steps, steps))
    x, y = q + r / 2, r * np.sqrt(0.75)
    inside = np.hypot(x, y) <= radius
    x, y = x[inside], y[inside]
    return camera_from_positions("disc", *((x, y) if upright else (y, x)))


def look_at_run(home: Path, experiment: str, run: int) -> None:
    """Keep the quality of a run of 100 s at 5 Hz, of telescope 1, with one dead pixel, as `apbatch quality` does."""
    from apbatch.camera.instruments.registry import camera_named
    from apbatch.quality.file_quality import FileQuality
    from apbatch.quality.monitor import ChannelMonitor
    from apbatch.quality.records import keep_quality
    from apbatch.quality.runs import quality_of_runs

    camera, random = camera_named("TAIGA-IACT01"), np.random.default_rng(7)
    number = np.arange(500)
    pixels = random.normal(20, 1.5, (len(number), camera.n_pixels))
    pixels[:, 7] = 20
    channels = ChannelMonitor(camera.n_pixels)
    channels.add(number // 50, pixels)
    time = 1_509_210_000_000_000_000 + number * 200_000_000
    of_file = FileQuality((experiment, run, 1), camera, 0, channels, number, time, np.ones(len(number), np.int64))
    of_file.by_cluster = dict.fromkeys(np.unique(camera.cluster).tolist(), len(number))
    of_file.problems.append("file:///inside/run.dat: odd")
    keep_quality(home, quality_of_runs([of_file], 10.0), "file:///inside/quality")

"""FACT's photon streams, of an observation and of simulated gammas, and its image parameters in HDF5.

Sums: ``photons``, of all events that are images; ``pedestals``, events of an observation that are none; ``size``, of
all rows of the table, p.e.
"""

from __future__ import annotations

import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from apbatch.camera.cleaning import clean
from apbatch.camera.cleaning_rule import Cleaning
from apbatch.camera.hillas import hillas
from apbatch.camera.instruments.fact import NAME
from apbatch.camera.instruments.registry import camera_named
from apbatch.formats.fact.photons import FactPhotonsReader
from apbatch.formats.tables import FactHillasReader
from apbatch.sample.contents import Contents
from apbatch.sample.hdf5 import open_new
from apbatch.sample.showers import Ints, draw_showers, generator

IMAGES_FOLDER, TABLE_FOLDER = "fact_images", "fact_hillas"
NIGHT, RUN, MC_RUN = date(2017, 1, 19), 229, 11014
OBSERVATION, SIMULATION = f"{NIGHT:%Y%m%d}_{RUN}.phs.jsonl.gz", f"gamma_{MC_RUN:06d}.phs.jsonl"
#: Physics triggers, pedestals and external triggers, by FACT's numbers of triggers.
_PHYSICS, _PEDESTAL, _EXTERNAL = 4, 1024, 2
_TRIGGERS = [_PHYSICS] * 20 + [_PEDESTAL] * 4 + [_EXTERNAL] * 2
_GAMMAS, _USES = 15, 2
#: Slices of 0.5 ns in which light may arrive, and its spread.
_FIRST_SLICE, _LAST_SLICE, _SPREAD = 30, 130, 4.0
_BACKGROUND = 1.0
#: In a pixel: at 500 FACT's extraction gives up.
_MOST_PHOTONS = 450
_START_S = 1_484_895_000
_TABLE_ROWS = {"gamma": 1, "proton": 14}


def write(folder: Path, seed: int) -> list[Contents]:
    """Write the files into `folder` / ``fact_images`` and ``fact_hillas``; return what they hold."""
    for name in (IMAGES_FOLDER, TABLE_FOLDER):
        (folder / name).mkdir()
    return [_observation(folder, seed), _simulation(folder, seed), *_tables(folder, seed)]


def _observation(folder: Path, seed: int) -> Contents:
    random, camera = generator(seed, OBSERVATION), camera_named(NAME)
    triggers = random.permutation(_TRIGGERS)
    photons = np.minimum(draw_showers(camera, len(triggers), random, _BACKGROUND).photons, _MOST_PHOTONS)
    dark = random.poisson(_BACKGROUND, photons.shape)
    lines = []
    for number, trigger in enumerate(triggers.tolist()):
        image = photons[number] if trigger == _PHYSICS else dark[number]
        head = {
            "Night": int(f"{NIGHT:%Y%m%d}"),
            "Run": RUN,
            "Event": number + 1,
            "UnixTime_s_us": [_START_S + number, int(random.integers(0, 10**6))],
            "Trigger": trigger,
            "Az_deg": -63.25,
            "Zd_deg": 33.07,
        }
        lines.append(_line(head, image, random))
    path = folder / IMAGES_FOLDER / OBSERVATION
    path.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
    physics = triggers == _PHYSICS
    sums = {"photons": float(photons[physics].sum()), "pedestals": int((triggers == _PEDESTAL).sum())}
    run = int(f"{NIGHT:%Y%m%d}{RUN:03d}")
    return Contents(
        f"{IMAGES_FOLDER}/{OBSERVATION}", FactPhotonsReader.name, int(physics.sum()), run, NIGHT, 1, sums=sums
    )


def _simulation(folder: Path, seed: int) -> Contents:
    random, camera = generator(seed, SIMULATION), camera_named(NAME)
    photons = np.minimum(draw_showers(camera, _GAMMAS * _USES, random, _BACKGROUND).photons, _MOST_PHOTONS)
    lines = []
    for number, image in enumerate(photons):
        event, use = divmod(number, _USES)
        head = {"Run": MC_RUN, "Event": event + 1, "Reuse": use + 1, "Az_deg": -187.0, "Zd_deg": 1.3}
        lines.append(_line(head, image, random))
    (folder / IMAGES_FOLDER / SIMULATION).write_text("".join(lines), encoding="ascii")
    sums = {"photons": float(photons.sum())}
    return Contents(
        f"{IMAGES_FOLDER}/{SIMULATION}", FactPhotonsReader.name, len(photons), MC_RUN, telescope=1, sums=sums
    )


def _line(head: dict[str, Any], image: Ints, random: np.random.Generator) -> str:
    """Return one event; photons of a pixel arrive together, those of the sky whenever they like."""
    middle = random.uniform(_FIRST_SLICE + 20, _LAST_SLICE - 20)
    slices = np.clip(np.round(random.normal(middle, _SPREAD, int(image.sum()))), _FIRST_SLICE, _LAST_SLICE)
    ends = np.cumsum(image)
    arrivals = [part.astype(int).tolist() for part in np.split(slices, ends[:-1])]
    content = {**head, "PhotonArrivals_500ps": arrivals, "SaturatedPixels": []}
    return json.dumps(content, separators=(",", ":")) + "\n"


def _tables(folder: Path, seed: int) -> list[Contents]:
    contents = []
    camera = camera_named(NAME)
    for primary, particle in _TABLE_ROWS.items():
        random = generator(seed, f"fact_hillas/{primary}")
        showers = draw_showers(camera, 80, random, _BACKGROUND)
        images = showers.photons.astype(np.float32)
        mask = clean(images, camera, Cleaning("tailcuts", 5.5, 4.0))
        moments = hillas(images, camera, mask)
        rows = np.flatnonzero(mask.sum(axis=1) >= 3)
        run = MC_RUN + particle
        columns: dict[str, Any] = {
            "run_id": np.full(len(rows), run), "event_num": rows + 1, "size": moments["size"][rows],
            "length": moments["length"][rows], "width": moments["width"][rows], "cog_x": moments["cog_x"][rows],
            "cog_y": moments["cog_y"][rows], "delta": np.radians(moments["psi"][rows]),
            "num_pixel_in_shower": mask[rows].sum(axis=1), "num_islands": moments["n_islands"][rows].astype(np.int64),
            "corsika_event_header_total_energy": 1000 * showers.energy[rows],
            "corsika_run_header_particle_id": np.full(len(rows), particle),
            "corsika_run_header_run_number": np.full(len(rows), run),
        }  # fmt: skip
        path = f"{TABLE_FOLDER}/{primary}.hdf5"
        with open_new(folder / path) as file:
            group = file.create_group("events")
            for name, values in columns.items():
                group.create_dataset(name, data=values)
        sums = {"size": float(columns["size"].sum()), "energy": float(showers.energy[rows].sum())}
        contents.append(Contents(path, FactHillasReader.name, len(rows), run, telescope=1, sums=sums))
    return contents

"""MAGIC: calibrated events as uproot writes them, and the table of image parameters of the UCI repository.

Sums: ``pe``, of all amplitudes of images; ``pedestals``, entries that are none; ``gammas`` and ``hadrons``.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from apbatch.camera.instruments.magic import NAME
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import MissingSoftwareError
from apbatch.formats.magic import MagicReader
from apbatch.formats.tables import UciMagicReader
from apbatch.sample.contents import Contents
from apbatch.sample.showers import draw_showers, generator

FOLDER, TABLE_FOLDER = "magic", "uci_magic"
NIGHT, RUN = date(2013, 10, 3), 5029747
EVENTS, PEDESTALS = 40, 6
#: Numbers an event in the file: the camera's pixels are the first 1,039 of them.
_PIXELS = 1183
#: Modified Julian date of 2013-10-04, on which the night of the 3rd ended.
_MJD = 56_569
#: Milliseconds from the beginning of that day to the first event: midnight comes in the middle of the file.
_FIRST_MS = -5_000
_PEDESTAL = 8
#: Where the telescope points: 0.4 degrees from the Crab nebula, deg.
RIGHT_ASCENSION_DEG, DECLINATION_DEG = 83.98333, 22.24389
_GAMMAS, _HADRONS = 120, 60


def write(folder: Path, seed: int) -> list[Contents]:
    """Write the files into `folder` / ``magic`` and ``uci_magic``; return what they hold."""
    for name in (FOLDER, TABLE_FOLDER):
        (folder / name).mkdir()
    return [_table(folder, seed), _events(folder, seed)]


def _events(folder: Path, seed: int) -> Contents:
    try:
        import awkward
        import uproot
    except ImportError as error:
        raise MissingSoftwareError(
            "ROOT files need the package uproot", remedy="pip install 'apbatch[magic]'"
        ) from error
    random, camera = generator(seed, FOLDER), camera_named(NAME)
    pedestal = np.zeros(EVENTS + PEDESTALS, bool)
    pedestal[random.permutation(len(pedestal))[:PEDESTALS]] = True
    photons = draw_showers(camera, len(pedestal), random).photons
    pixels = np.zeros((len(pedestal), _PIXELS), "f4")
    pixels[:, : camera.n_pixels] = np.where(pedestal[:, None], 0, photons)
    pixels[:, : camera.n_pixels] += np.round(random.normal(0, 1, (len(pedestal), camera.n_pixels)), 2)
    event = np.maximum(np.cumsum(~pedestal), 1).astype("u4")  # a pedestal has the number of the event before it
    columns: dict[str, Any] = {
        "MCerPhotEvt.fPixels.fPhot": awkward.from_regular(pixels),
        "MRawEvtHeader.fDAQEvtNumber": np.arange(1, len(event) + 1, dtype="u4"),
        "MRawEvtHeader.fStereoEvtNumber": event,
        "MRawEvtHeader.fTelescopeNumber": np.full(len(event), 1, "i4"),
        "MTime.fMjd": np.full(len(event), _MJD, "i4"),
        "MTime.fTime.fMilliSec": (_FIRST_MS + 250 * np.arange(len(event))).astype("i4"),
        "MTime.fNanoSec": random.integers(0, 10**6, len(event)).astype("u4"),
        "MPointingPos.fZd": np.round(np.linspace(20.0, 21.0, len(event)), 4),
        "MPointingPos.fAz": np.round(np.linspace(110.0, 111.0, len(event)), 4),
        "MPointingPos.fRa": np.full(len(event), RIGHT_ASCENSION_DEG / 15),
        "MPointingPos.fDec": np.full(len(event), DECLINATION_DEG),
        "MTriggerPattern.fPrescaled": np.where(pedestal, _PEDESTAL, 1).astype("u1"),
    }
    path = f"{FOLDER}/{NIGHT.replace(day=NIGHT.day + 1):%Y%m%d}_M1_{RUN:08d}.001_Y_Sample-W0.40+035.root"
    with uproot.recreate(folder / path) as file:
        types = {name: "var * float32" if values.ndim == 2 else values.dtype for name, values in columns.items()}
        file.mktree("RunHeaders", {"MRawRunHeader.fRunNumber": "i4"})
        file["RunHeaders"].extend({"MRawRunHeader.fRunNumber": np.array([RUN], "i4")})
        file.mktree("Events", types, counter_name=lambda name: f"n_{name}")
        for start in range(0, len(event), 16):  # several baskets
            file["Events"].extend({name: values[start : start + 16] for name, values in columns.items()})
    images = pixels[~pedestal, : camera.n_pixels]
    sums = {"pe": float(images.sum(dtype=np.float64)), "pedestals": PEDESTALS}
    return Contents(path, MagicReader.name, EVENTS, RUN, NIGHT, telescope=1, sums=sums)


def _table(folder: Path, seed: int) -> Contents:
    random = generator(seed, TABLE_FOLDER)
    kinds = random.permutation(["g"] * _GAMMAS + ["h"] * _HADRONS)
    lines = []
    for kind in kinds:
        width = random.gamma(4.0, 4.0 if kind == "g" else 7.0)
        values = [
            width * random.uniform(1.5, 2.5), width, random.uniform(2, 4), *random.uniform(0.05, 0.6, 2),
            *random.normal(0, 30, 3), random.uniform(0, 90), random.uniform(20, 300),
        ]  # fmt: skip
        lines.append(",".join(f"{value:.4f}" for value in values) + f",{kind}\n")
    path = f"{TABLE_FOLDER}/magic.data"
    (folder / path).write_text("".join(lines), encoding="ascii")
    return Contents(path, UciMagicReader.name, len(kinds), sums={"gammas": _GAMMAS, "hadrons": _HADRONS})

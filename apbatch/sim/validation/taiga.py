"""Gammas against the TAIGA collaboration's Monte Carlo, shower by shower.

Each shower of the reference is simulated again: its energy, direction and the telescope's pointing, and the telescope
where the reference had it. So the distributions of energies, distances and zenith angles are the same by construction,
and an image has a partner that differs by the shower's fluctuations only. Bins of size are of the geometric mean of
both partners, so that neither's fluctuations choose the bin.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.csv

from apbatch.camera.cleaning import Cleaning, clean
from apbatch.camera.hillas import hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.progress import Task
from apbatch.sim.detector.observatory import camera_frame
from apbatch.sim.primaries import GAMMA, Throw
from apbatch.sim.settings import DetectorModel, Production, SiteModel
from apbatch.sim.shower import Simulator
from apbatch.sim.validation import plots
from apbatch.sim.validation.check import Part, in_bins
from apbatch.sim.validation.sizes import Size

Floats = npt.NDArray[np.float64]

TABLE = "taiga_mc/taiga607_hillas_iact01_14_7fix_cb0.csv"
_TITLE = "Gammas against the TAIGA collaboration's Monte Carlo"
_PICTURE, _BOUNDARY, _FEWEST = 14.0, 7.0, 5
_SIZES = (60.0, 120.0, 250.0, 500.0, 1000.0, 2000.0, 5000.0, 20000.0)
_DISTANCES = (0.0, 100.0, 150.0, 200.0, 250.0, 300.0, 400.0, 500.0)
#: Columns of the reference by our names.
_COLUMNS = {
    "size": "size",
    "width": "width[0]",
    "length": "length[0]",
    "distance": "dist[1]",
    "con2": "con2",
    "n_pixels": "numb_pix",
}
_UNITS = {
    "width": "width, deg",
    "length": "length, deg",
    "distance": "distance to the source, deg",
    "size": "size, p.e.",
}
#: The reference has no ADC: its amplitudes do not saturate.
DETECTOR = DetectorModel(codes_per_pe=0.0)
#: Its images lie where showers of the US standard atmosphere put them: with the winter's air they are 11 % (standard
#: error 4 %) farther from the source.
SITE = SiteModel(atmosphere="us-standard", ozone_column=300.0)


def compare(data: Path, size: Size, seed: int, task: Task) -> Part:
    """Simulate showers of the reference again and compare their images.

    Parameters
    ----------
    data : Path
        Folder of reference data.
    size : Size
    seed : int
    task : Task
        Gets one for each shower.

    Returns
    -------
    Part
    """
    part = Part(_TITLE, (__doc__ or "").split("\n\n", 1)[1])
    file = data / TABLE
    if not file.is_file():
        part.missing = f"no file {file}"
        return part
    part.references.append(file)
    table = _read(file)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 10]))
    showers, first = np.unique(table["event_number"], return_index=True)
    cheap = showers[table["energy"][first] <= size.taiga_energy]
    picks = rng.permutation(cheap)[: size.taiga]
    rows, here, fired = [], [], []
    simulators: dict[int, Simulator] = {}
    for number in picks:
        mine = np.flatnonzero(table["event_number"] == number)
        thrown = _throw(table, mine, int(rng.integers(1, 2**31)))
        zenith = round(thrown.pointing_zenith)
        if zenith not in simulators:
            site = SITE.model_copy(update={"zenith": zenith})
            simulators[zenith] = Simulator(Production(gammas=1, protons=0, site=site, detector=DETECTOR, seed=seed))
        images, _, trigger = simulators[zenith].images_of(thrown, rng)
        rows.append(mine)
        here.append(_parameters(images, thrown.source))
        fired.append(trigger)
        task.advance(1)
    index = np.concatenate(rows)
    ours = {name: np.concatenate([one[name] for one in here]) for name in here[0]}
    theirs = {name: table[column][index] for name, column in _COLUMNS.items()}
    whole = (ours["edge"] == 0) & (table["edge"][index] == 0) & np.concatenate(fired)
    whole &= (ours["n_pixels"] >= _FEWEST) & (theirs["n_pixels"] >= _FEWEST)
    groups = table["event_number"][index][whole].astype(np.int64)
    pairs = [(_UNITS.get(name, name), ours[name][whole], theirs[name][whole]) for name in _COLUMNS]
    mean_size = np.sqrt(ours["size"] * theirs["size"])[whole]
    across = _across(table, index)[whole]
    part.checks += in_bins("TAIGA", pairs, mean_size, (0.0, np.inf), "all sizes", groups, 0.05)
    part.checks += in_bins("TAIGA", pairs, mean_size, _SIZES, "size", groups, 0.05)
    part.checks += in_bins("TAIGA", pairs, across, _DISTANCES, "distance across the axis, m,", groups, 0.05)
    caption = f"{whole.sum()} pairs of images of {len(picks)} showers, cleaned at {_PICTURE:g}/{_BOUNDARY:g} p.e."
    part.figures.append((f"{caption}, none at the camera's edge", plots.pairs(pairs, "TAIGA collaboration")))
    part.figures.append(("Medians here over there, by size", plots.ratios(part.checks, "size")))
    part.figures.append(("The same by the distance across the axis", plots.ratios(part.checks, "distance across")))
    return part


def _read(file: Path) -> dict[str, Floats]:
    table = pyarrow.csv.read_csv(file)
    names = {*_COLUMNS.values(), "event_number", "energy", "edge", "x_ground", "y_ground"}
    names |= {"tel_tet", "tel_fi", "source_tet", "source_fi"}
    return {name: np.asarray(table[name].to_numpy(), np.float64) for name in names}


def _throw(table: dict[str, Floats], rows: npt.NDArray[np.int64], seed: int) -> Throw:
    """Return the throw that repeats a shower; angles are those of flight, as CORSIKA counts them."""
    first = {name: float(values[rows[0]]) for name, values in table.items()}
    flight = first["source_fi"] + math.pi
    zenith = first["source_tet"]
    towards = np.array([math.sin(zenith) * math.cos(flight), math.sin(zenith) * math.sin(flight), math.cos(zenith)])
    pointing = (math.degrees(first["tel_tet"]), math.degrees(first["tel_fi"]) + 180.0)
    direction = camera_frame(*pointing) @ towards
    altitude = SITE.altitude
    places = np.column_stack([table["x_ground"][rows], table["y_ground"][rows], np.full(len(rows), altitude)])
    return Throw(
        shower=int(first["event_number"]),
        primary=GAMMA,
        energy=1000.0 * first["energy"],
        direction=-towards,
        pointing_zenith=pointing[0],
        pointing_azimuth=pointing[1],
        source=(math.degrees(direction[0] / direction[2]), math.degrees(direction[1] / direction[2])),
        telescopes=places,
        seed=seed,
    )


def _across(table: dict[str, Floats], rows: npt.NDArray[np.int64]) -> Floats:
    x, y, azimuth = (table[name][rows] for name in ("x_ground", "y_ground", "source_fi"))
    along = (x * np.cos(azimuth) + y * np.sin(azimuth)) * np.sin(table["source_tet"][rows])
    return np.asarray(np.sqrt(x * x + y * y - along * along), np.float64)


def _parameters(images: npt.NDArray[np.float32], source: tuple[float, float]) -> dict[str, Floats]:
    camera = camera_named(DETECTOR.camera)
    mask = clean(images, camera, Cleaning("tailcuts", _PICTURE, _BOUNDARY))
    return hillas(images, camera, mask, source=source)

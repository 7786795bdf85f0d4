"""Gammas and protons against FACT's Monte Carlo, with FACT's camera and site.

The open FACT tables (CORSIKA and CERES) hold what passed a trigger, so an event of theirs can't be repeated: a proton
that fired the telescope was a lucky one. Instead showers of the tables' energies and zenith angles are thrown with
directions and cores of their own; those that pass the same cuts here (10 pixels, at most 60 % of the light at the
camera's edge) are weighted so that their energies are those of the table. Then images are compared in bins of size.
Protons are the point: they have no other reference.

The detector is described from publications. One number of it was fitted: the blur of the mirror, 0.075 deg, to the
widths of gammas, which one blur fits at all sizes; with the 0.015 deg that aligned facets would have, images are too
narrow. FACT's trigger is
a sum over patches, here it is two pixels; its cleaning by charge and time is the same here (5.5 and 2 p.e., neighbours
within 10 ns) up to the way charges are read from the pulse.

References
----------
H. Anderhub et al., JINST 8 (2013) P06008 (FACT's design: 9.51 m2, focal length 4.889 m, G-APDs with cones);
M. Noethe et al., PoS(ICRC2017) 791 (open data and analysis).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning import Cleaning, clean
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.hillas import hillas
from apbatch.errors import MissingSoftwareError
from apbatch.progress import Task
from apbatch.sim.detector.cameras import camera_of
from apbatch.sim.detector.observatory import camera_frame
from apbatch.sim.interactions import load_bank
from apbatch.sim.primaries import Throw, around
from apbatch.sim.settings import DetectorModel, Production, SiteModel
from apbatch.sim.shower import Simulator
from apbatch.sim.validation import plots
from apbatch.sim.validation.blocks import first_interactions
from apbatch.sim.validation.check import Check, Part, bootstrap
from apbatch.sim.validation.sizes import Size

Floats = npt.NDArray[np.float64]

_TITLE = "Gammas and protons against FACT's Monte Carlo"
_SIZES = (60.0, 100.0, 200.0, 400.0, 10000.0)
_FEWEST = 10
_COMPARED = ("size", "width", "length", "con2", "n_pixels")
#: Degrees of a millimetre in the camera.
_DEG_PER_MM = math.degrees(1e-3 / 4.889)

#: Roque de los Muchachos, as FACT's simulation has it.
SITE = SiteModel(
    atmosphere="us-standard",
    altitude=2200.0,
    zenith=15.0,
    magnetic_field=(29.5, 0.0, -23.0),
    ozone_column=280.0,
    ozone_height=23000.0,
)


def detector(camera: Path) -> DetectorModel:
    """Return FACT; `camera` is its table of pixels. Photo-detection efficiency: Hamamatsu S10362-33-050C."""
    return DetectorModel(
        camera=str(camera),
        mirror_area=9.51,
        focal_length=4.889,
        facets=30,
        facet_diameter=0.635,
        facet_pitch=0.627,
        psf=0.075,
        wavelengths=(290.0, 320.0, 350.0, 400.0, 450.0, 500.0, 550.0, 600.0, 650.0, 700.0, 800.0, 900.0),
        quantum_efficiency=(0.0, 0.09, 0.19, 0.29, 0.33, 0.31, 0.27, 0.22, 0.17, 0.13, 0.07, 0.0),
        efficiency=0.6,
        guide_angles=(0.0, 90.0),
        guide_acceptance=(1.0, 1.0),
        integration_window=30.0,
        time_resolution=0.6,
        night_sky=0.04,
        single_pe_spread=0.3,
        pedestal_noise=0.25,
        gain_spread=0.03,
        codes_per_pe=0.0,
        trigger_threshold=4.0,
        trigger_pixels=2,
    )


@dataclass(frozen=True)
class _Kind:
    """One table: its file, the primary, how directions and cores are drawn, and uses of a shower."""

    table: str
    primary: str
    cone: tuple[float, float]  # deg
    core_max: float  # m
    uses: int


_KINDS = (
    _Kind("gamma", "gamma", (0.6, 0.6), 270.0, 6),
    _Kind("gamma_diffuse", "gamma", (0.0, 3.0), 270.0, 6),
    _Kind("proton", "proton", (0.0, 5.0), 400.0, 30),
)


@dataclass(frozen=True, eq=False)
class _Sample:
    """Parameters of images with weights; `group` is the shower."""

    values: dict[str, Floats]
    weight: Floats
    group: npt.NDArray[np.int64]


def compare(data: Path, size: Size, seed: int, task: Task) -> Part:
    """Simulate showers with the energies of FACT's tables and compare their images.

    Parameters
    ----------
    data : pathlib.Path
        Folder of real data.
    size : Size
        How many showers.
    seed : int
    task : Task
        Shows progress.
    """
    part = Part(_TITLE, (__doc__ or "").split("\n\n", 1)[1].split("\n\nReferences")[0])
    camera = data / "camgeom" / "FACT.camgeom.fits.gz"
    tables = {kind.table: data / "fact_hillas" / f"{kind.table}.hdf5" for kind in _KINDS}
    lacking = [file for file in (camera, *tables.values()) if not file.is_file()]
    if lacking:
        part.missing = f"no file {lacking[0]}"
        return part
    part.references += [camera, *tables.values()]
    settings = Production(gammas=1, protons=1, site=SITE, detector=detector(camera), seed=seed)
    here: dict[str, _Sample] = {}
    there: dict[str, _Sample] = {}
    for kind in _KINDS:
        try:
            bank = load_bank(settings.banks) if kind.primary == "proton" else None
        except MissingSoftwareError as error:
            part.missing = f"protons are left out: {error}"
            continue
        number = size.fact_protons if kind.primary == "proton" else size.fact_gammas
        table = _read(tables[kind.table])
        there[kind.table] = _reference(table)
        here[kind.table] = _simulated(kind, table, Simulator(settings, bank), number, seed, task)
        part.checks += _in_size(kind.table, here[kind.table], there[kind.table])
        columns = [(n, here[kind.table], there[kind.table]) for n in ("size", "width", "length", "n_pixels")]
        caption = f"{kind.table}: {len(here[kind.table].weight)} images of {number} showers"
        part.figures.append(
            (caption, plots.weighted([(n, a.values[n], a.weight, b.values[n]) for n, a, b in columns], "FACT"))
        )
    if "proton" in here:
        part.checks += _contrast(here, there)
    part.figures.append(("Medians here over there, by size", plots.ratios(part.checks, "size")))
    return part


def _simulated(
    kind: _Kind, table: dict[str, Floats], simulator: Simulator, number: int, seed: int, task: Task
) -> _Sample:
    rng = np.random.default_rng(np.random.SeedSequence([seed, 11, len(kind.table)]))
    rows = rng.permutation(len(table["energy"]))[:number]
    firsts = first_interactions("proton", table["energy"][rows], rng) if kind.primary == "proton" else [None] * number
    geometry = camera_of(simulator.settings.detector)
    parts: list[dict[str, Floats]] = []
    energies, groups = [], []
    for row, first in zip(rows, firsts, strict=False):
        thrown = _throw(kind, float(table["energy"][row]), float(table["pointing_zenith"][row]), rng)
        amplitude, time, fired = simulator.images_of(thrown, rng, first)
        values = _parameters(amplitude[fired], time[fired], geometry)
        good = (values["n_pixels"] >= _FEWEST) & (values["leakage"] < 0.6)
        parts.append({name: values[name][good] for name in _COMPARED})
        energies.append(np.full(int(good.sum()), thrown.energy))
        groups.append(np.full(int(good.sum()), row))
        task.advance(1)
    energy = np.concatenate(energies)
    # Weights: as many images of each energy as the table has.
    edges = np.quantile(table["energy"], np.linspace(0.0, 1.0, 9))
    edges[-1] *= 1.001
    mine, theirs = (np.histogram(values, edges)[0] for values in (energy, table["energy"]))
    weight = (theirs / np.maximum(mine, 1))[np.clip(np.searchsorted(edges, energy, side="right") - 1, 0, 7)]
    values = {name: np.concatenate([one[name] for one in parts]) for name in _COMPARED}
    return _Sample(values, weight, np.concatenate(groups).astype(np.int64))


def _reference(table: dict[str, Floats]) -> _Sample:
    number = len(table["energy"])
    return _Sample({name: table[name] for name in _COMPARED}, np.ones(number), np.arange(number))


def _in_size(kind: str, here: _Sample, there: _Sample) -> list[Check]:
    checks = []
    for low, high in pairwise(_SIZES):
        a, b = (_select(one, low, high) for one in (here, there))
        if len(np.unique(a.group)) < 8 or len(b.group) < 8:
            continue
        for name, aim in (("width", 0.05), ("length", 0.05), ("con2", 0.1), ("n_pixels", 0.1)):
            value = partial(_median, name)
            error = math.hypot(_error(value, a) / value(a), _error(value, b) / value(b))
            checks.append(
                Check("FACT", f"{kind}: {name}", f"size {low:g}–{high:g}", value(a), value(b), error, aim, len(a.group))
            )
    level = partial(_median, "size")
    error = math.hypot(_error(level, here) / level(here), _error(level, there) / level(there))
    checks.append(Check("FACT", f"{kind}: size", "all", level(here), level(there), error, 0.2, len(here.group)))
    return checks


def _contrast(here: dict[str, _Sample], there: dict[str, _Sample]) -> list[Check]:
    """Compare what separates: a proton's parameter over a diffuse gamma's, and how much protons spread."""
    checks = []
    for name in ("width", "length"):
        value, spread = partial(_median, name), partial(_spread, name)
        a, b = (value(one["proton"]) / value(one["gamma_diffuse"]) for one in (here, there))
        parts = [
            _error(value, one[kind]) / value(one[kind]) for one in (here, there) for kind in ("proton", "gamma_diffuse")
        ]
        error = math.sqrt(sum(part * part for part in parts))
        number = len(here["proton"].group)
        checks.append(Check("FACT", f"proton over diffuse gamma: median {name}", "all", a, b, error, 0.05, number))
        a, b = spread(here["proton"]), spread(there["proton"])
        error = math.hypot(_error(spread, here["proton"]) / a, _error(spread, there["proton"]) / b)
        checks.append(Check("FACT", f"proton: spread of ln {name}", "all", a, b, error, 0.1, number))
    return checks


def _select(sample: _Sample, low: float, high: float) -> _Sample:
    rows = np.flatnonzero((sample.values["size"] > low) & (sample.values["size"] <= high))
    return _rows_of(sample, rows)


def _rows_of(sample: _Sample, rows: npt.NDArray[np.int64]) -> _Sample:
    return _Sample({n: v[rows] for n, v in sample.values.items()}, sample.weight[rows], sample.group[rows])


def _median(name: str, sample: _Sample) -> float:
    order = np.argsort(sample.values[name])
    below = np.cumsum(sample.weight[order])
    return float(sample.values[name][order][np.searchsorted(below, 0.5 * below[-1])])


def _spread(name: str, sample: _Sample) -> float:
    logs = np.log(np.maximum(sample.values[name], 1e-3))
    mean = np.average(logs, weights=sample.weight)
    return float(np.sqrt(np.average((logs - mean) ** 2, weights=sample.weight)))


def _error(value: Callable[[_Sample], float], sample: _Sample) -> float:
    return bootstrap(lambda rows: value(_rows_of(sample, rows)), sample.group, 100)


def _read(file: Path) -> dict[str, Floats]:
    try:
        import h5py
    except ImportError as error:
        raise MissingSoftwareError("FACT's tables need h5py", remedy="pip install h5py") from error
    columns = {
        "energy": ("corsika_event_header_total_energy", 1.0),
        "pointing_zenith": ("ceres_pointing_zd", 1.0),
        "size": ("size", 1.0),
        "width": ("width", _DEG_PER_MM),
        "length": ("length", _DEG_PER_MM),
        "con2": ("concentration_two_pixel", 1.0),
        "n_pixels": ("num_pixel_in_shower", 1.0),
    }
    with h5py.File(file) as content:
        events = content["events"]
        return {name: np.asarray(events[column][:], np.float64) * unit for name, (column, unit) in columns.items()}


def _throw(kind: _Kind, energy: float, zenith: float, rng: np.random.Generator) -> Throw:
    azimuth = 360.0 * rng.random()
    frame = camera_frame(zenith, azimuth)
    low, high = (1.0 - math.cos(math.radians(one)) for one in kind.cone)
    cosine = 1.0 - (low + (high - low) * rng.random())
    sine, beta = math.sqrt(max(0.0, 1.0 - cosine * cosine)), 2.0 * math.pi * rng.random()
    towards = np.array([sine * math.cos(beta), sine * math.sin(beta), cosine]) @ frame
    radius = kind.core_max * np.sqrt(rng.random(kind.uses))
    places = around(towards, frame, radius, 2.0 * math.pi * rng.random(kind.uses), SITE.altitude)
    return Throw(
        shower=0,
        primary=kind.primary,
        energy=energy,
        direction=-towards,
        pointing_zenith=zenith,
        pointing_azimuth=azimuth,
        source=(math.degrees(sine * math.cos(beta) / cosine), math.degrees(sine * math.sin(beta) / cosine)),
        telescopes=places,
        seed=int(rng.integers(1, 2**31)),
    )


def _parameters(
    amplitude: npt.NDArray[np.float32], time: npt.NDArray[np.float32], camera: CameraGeometry
) -> dict[str, Floats]:
    mask = clean(amplitude, camera, Cleaning("tailcuts", 5.5, 2.0, 1))
    neighbours = np.where(camera.neighbours < 0, camera.n_pixels, camera.neighbours)
    padded_mask = np.concatenate([mask, np.zeros((len(mask), 1), bool)], axis=1)[:, neighbours]
    padded_time = np.concatenate([time, np.zeros((len(time), 1), np.float32)], axis=1)[:, neighbours]
    together = (padded_mask & (np.abs(padded_time - time[:, :, None]) < 10.0)).any(axis=2)
    return hillas(amplitude, camera, mask & together)

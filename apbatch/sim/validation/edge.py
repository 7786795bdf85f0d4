"""What a production lacks because its spectra begin at some energy.

Below the lowest energy of a spectrum showers are missing that would have given images: faint ones, and in their place
gammas and hadrons lack different ones, so that the edge itself tells classes apart. Here showers are thrown evenly in
the logarithm of the energy from a quarter of the lowest energy upward, weighted to the spectrum, and images are counted
by size: what part of a bin comes from below the edge. In no bin that is used should it be more than 2 %.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning import Cleaning, clean
from apbatch.camera.geometry import CameraGeometry
from apbatch.errors import MissingSoftwareError
from apbatch.progress import Task
from apbatch.sim.detector.cameras import camera_of
from apbatch.sim.interactions import Bank, load_bank
from apbatch.sim.primaries import random_of, throw
from apbatch.sim.settings import PRIMARIES, Production, Spectrum
from apbatch.sim.shower import FirstInteraction, Simulator
from apbatch.sim.validation.blocks import first_interactions
from apbatch.sim.validation.check import Check, Part, bootstrap
from apbatch.sim.validation.sizes import Size

Floats = npt.NDArray[np.float64]

_TITLE = "What is missing below the spectra's lowest energies"
KINDS = ("gamma", "point gamma", "proton", "helium")
#: Most of a bin that may come from below the lowest energy.
AIM = 0.02
_SIZES = (60.0, 80.0, 120.0, 250.0)
_CLEANINGS = {"soft": Cleaning("tailcuts", 7.0, 3.5), "standard": Cleaning("tailcuts", 14.0, 7.0)}
_BELOW, _ABOVE = 4.0, 16.0
_FEWEST = 3
_TELESCOPES, _CORE = 20, 300.0


def compare(size: Size, seed: int, task: Task, settings: Production | None = None) -> Part:
    """Simulate showers about the lowest energies of a production's spectra.

    Parameters
    ----------
    size : Size
        With the number of showers of each kind.
    seed : int
    task : Task
        Gets one for each shower.
    settings : Production, optional
        Whose spectra; the default ones if None.
    """
    part = Part(_TITLE, (__doc__ or "").split("\n\n", 1)[1])
    settings = settings or Production(telescopes=_TELESCOPES, core_max=_CORE)
    bank: Bank | None = None
    try:
        bank = load_bank(settings.banks)
    except MissingSoftwareError as error:
        part.missing = f"hadrons are left out: {error}"
    for kind in KINDS:
        if PRIMARIES[kind].nucleons == 0 or bank is not None:
            part.checks += _missing(kind, settings, bank, size.edge, seed, task)
    return part


def _missing(kind: str, settings: Production, bank: Bank | None, number: int, seed: int, task: Task) -> list[Check]:
    usual = settings.spectrum_of(kind)
    edge = usual.energy_min
    wide = Spectrum(energy_min=edge / _BELOW, energy_max=edge * _ABOVE, index=-1.0)
    thrown_from = settings.model_copy(
        update={"seed": seed, "gammas": 1, PRIMARIES[kind].particle: wide, "seed_commitment": ""}
    )
    simulator = Simulator(thrown_from, bank)
    camera = camera_of(settings.detector)
    randoms = [random_of(thrown_from, shower) for shower in range(number)]
    throws = [throw(thrown_from, shower, kind, random) for shower, random in enumerate(randoms)]
    energy = np.array([one.energy for one in throws])
    firsts: list[FirstInteraction] | list[None] = [None] * number
    if PRIMARIES[kind].nucleons:
        firsts = first_interactions(kind, energy, np.random.default_rng(np.random.SeedSequence([seed, 13])))
    rows: dict[str, list[tuple[int, float]]] = {name: [] for name in _CLEANINGS}
    for shower, (thrown, random, first) in enumerate(zip(throws, randoms, firsts, strict=True)):
        images, _, fired = simulator.images_of(thrown, random, first)
        for name, cleaning in _CLEANINGS.items():
            rows[name] += [(shower, size) for size in _sizes(images[fired], camera, cleaning)]
        task.advance(1)
    weight = (energy / 1000.0) ** (usual.index + 1.0)
    checks = []
    for name, entries in rows.items():
        group = np.array([row[0] for row in entries], np.int64)
        light = np.array([row[1] for row in entries])
        for low, high in pairwise(_SIZES):
            mine = group[(light >= low) & (light < high)]
            if len(np.unique(mine)) < _FEWEST:
                continue
            share = partial(_share_inside, weight[mine], energy[mine] >= 1000.0 * edge)
            error = bootstrap(share, mine, 200)
            where = f"{low:g}–{high:g} p.e., {name} cleaning"
            quantity = f"{kind} from {edge:g} TeV: images kept"
            checks.append(Check("edge", quantity, where, share(np.arange(len(mine))), 1.0, error, AIM, len(mine)))
    return checks


def _share_inside(weight: Floats, inside: npt.NDArray[np.bool_], rows: npt.NDArray[np.int64]) -> float:
    return float(weight[rows][inside[rows]].sum() / weight[rows].sum())


def _sizes(images: npt.NDArray[np.float32], camera: CameraGeometry, cleaning: Cleaning) -> list[float]:
    """Return the cleaned light of images that have enough pixels."""
    if not len(images):
        return []
    mask = clean(images, camera, cleaning)
    light = np.where(mask, images, 0.0).sum(axis=1)
    return [float(one) for one, pixels in zip(light, mask.sum(axis=1), strict=True) if pixels >= _FEWEST]

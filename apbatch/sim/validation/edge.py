"""What a production lacks because its spectra begin at some energy.

Below the lowest energy of a spectrum showers are missing that would have given images: faint ones, and in their place
gammas and hadrons lack different ones, so that the edge itself tells classes apart. Here showers are thrown evenly in
the logarithm of the energy from a quarter of the lowest energy upward, weighted to the spectrum, and images are counted
by size: what part of a bin comes from below the edge. In no bin that is used should it be more than 2 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
            part.checks += edge_checks(kind, settings, edge_images(kind, settings, bank, size.edge, seed, task))
    return part


@dataclass(frozen=True)
class EdgeImages:
    """Images of showers about the lowest energy of a spectrum.

    Attributes
    ----------
    energy : ndarray of shape (n_showers,)
        GeV, evenly in its logarithm.
    images : dict
        By cleaning, of each image with enough pixels: number of its shower, and cleaned light, p.e.
    """

    energy: Floats
    images: dict[str, tuple[npt.NDArray[np.int64], Floats]]

    @classmethod
    def joined(cls, parts: Sequence[EdgeImages]) -> EdgeImages:
        """Return the images of all parts, each of which has showers of its own."""
        first = np.concatenate([[0], np.cumsum([len(part.energy) for part in parts])])[:-1]
        return cls(
            np.concatenate([part.energy for part in parts]),
            {
                name: (
                    np.concatenate([part.images[name][0] + start for part, start in zip(parts, first, strict=True)]),
                    np.concatenate([part.images[name][1] for part in parts]),
                )
                for name in _CLEANINGS
            },
        )


def edge_images(kind: str, settings: Production, bank: Bank | None, number: int, seed: int, task: Task) -> EdgeImages:
    """Simulate showers from a quarter of a spectrum's lowest energy to sixteen times it.

    Parameters
    ----------
    kind : str
        A key of `apbatch.sim.settings.PRIMARIES`.
    settings : Production
        Whose spectra and detector.
    bank : Bank or None
        Of hadronic interactions.
    number : int
        Of showers.
    seed : int
    task : Task
        Gets one for each shower.
    """
    edge = settings.spectrum_of(kind).energy_min
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
    return EdgeImages(
        energy,
        {
            name: (np.array([row[0] for row in entries], np.int64), np.array([row[1] for row in entries]))
            for name, entries in rows.items()
        },
    )


def edge_checks(kind: str, settings: Production, thrown: EdgeImages) -> list[Check]:
    """Return what share of the images of each bin of size comes from above the lowest energy.

    Parameters
    ----------
    kind : str
        A key of `apbatch.sim.settings.PRIMARIES`.
    settings : Production
        Whose spectra.
    thrown : EdgeImages
        Of this kind.
    """
    usual = settings.spectrum_of(kind)
    edge = usual.energy_min
    weight = (thrown.energy / 1000.0) ** (usual.index + 1.0)
    inside = thrown.energy >= 1000.0 * edge
    checks = []
    for name, (shower, light) in thrown.images.items():
        for low, high in pairwise(_SIZES):
            mine = shower[(light >= low) & (light < high)]
            if len(np.unique(mine)) < _FEWEST:
                continue
            share = partial(_share_inside, weight[mine], inside[mine])
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

"""First interactions for hadrons of given energies, made for a validation only."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from apbatch.sim.interactions import Events, load_first, run_generator
from apbatch.sim.primaries import Nuclear
from apbatch.sim.settings import PRIMARIES
from apbatch.sim.shower import FirstInteraction


def first_interactions(
    primary: str, energies: npt.NDArray[np.float64], rng: np.random.Generator
) -> list[FirstInteraction]:
    """Return a first interaction for each energy, GeV, of a hadron.

    Parameters
    ----------
    primary : str
        Such as ``proton``.
    energies : ndarray of float64, shape (n_showers,)
        GeV.
    rng : numpy.random.Generator

    Raises
    ------
    ApbatchError
        If the generator failed.
    """
    nucleons, charge, _ = PRIMARIES[primary]
    nuclei = [Nuclear(nucleons, charge, float(e) / nucleons, rng.random(), rng.random()) for e in energies]
    request = [
        {"nucleons": one.nucleons, "charge": one.charge, "energy": one.energy, "wounded": one.wounded} for one in nuclei
    ]
    with tempfile.TemporaryDirectory(prefix="apbatch-validation-") as folder:
        file = Path(folder, "first.npz")
        run_generator({"what": "first", "showers": request, "seed": int(rng.integers(1, 2**31))}, file)
        events, counts, sections = load_first(file)
    interactions, start = [], 0
    for one, count, section in zip(nuclei, counts, sections, strict=True):
        offset = events.offset[start : start + count + 1]
        rows = slice(offset[0], offset[-1])
        mine = Events(offset - offset[0], events.code[rows], events.charge[rows], events.momentum[rows])
        interactions.append(FirstInteraction(mine, float(section), one))
        start += int(count)
    return interactions

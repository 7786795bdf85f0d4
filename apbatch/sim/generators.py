"""Runs one hadronic event generator in this process, as ``python -m apbatch.sim.generators REQUEST.json OUT.npz``.

Generators keep their state in Fortran globals, print to standard output and write files into the working folder, so
each request gets a process and a scratch folder of its own; `apbatch.sim.interactions` starts them.

References
----------
SIBYLL 2.3d: F. Riehn et al., Phys. Rev. D 102 (2020) 063002. UrQMD: S. A. Bass et al., Prog. Part. Nucl. Phys. 41
(1998) 255; M. Bleicher et al., J. Phys. G 25 (1999) 1859. Interface: chromo, A. Fedynitch et al.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.sim.particles import BANK_PROJECTILES, codes_of, is_produced

Arrays = dict[str, npt.NDArray[Any]]

#: Secondaries below this total energy, GeV, are not kept: photons and neutral pions, other hadrons.
_KEEP_LIGHT, _KEEP_HADRON = 0.05, 1.0
#: Times the wanted number of events that is made at most to find those with new particles.
_TRIES = 3
#: Nitrogen, oxygen (with argon) by number of nuclei.
_AIR = (("N14", 0.785), ("O16", 0.215))


def _secondaries(event: Any) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return code, charge and (E, px, py, pz) of the forward particles of an event that are followed."""
    codes, charges = codes_of(event.pid)
    light = (codes == 0) | (codes == 1) | (codes == 11) | (codes == 12)
    keep = (codes >= 0) & (event.pz > 0) & (event.en > np.where(light, _KEEP_LIGHT, _KEEP_HADRON))
    momenta = np.column_stack([event.en, event.px, event.py, event.pz])[keep]
    return codes[keep], charges[keep], momenta.astype(np.float32)


def _pack(events: list[tuple[npt.NDArray[Any], ...]]) -> Arrays:
    counts = np.array([len(event[0]) for event in events], np.int64)
    return {
        "offset": np.concatenate([[0], np.cumsum(counts)]),
        "code": np.concatenate([event[0] for event in events] or [np.empty(0, np.int8)]),
        "charge": np.concatenate([event[1] for event in events] or [np.empty(0, np.int8)]),
        "momentum": np.concatenate([event[2] for event in events] or [np.empty((0, 4), np.float32)]),
    }


def _target(generator: str) -> Any:
    from chromo.kinematics import CompositeTarget

    return CompositeTarget(list(_AIR)) if generator == "sibyll" else "N14"


def _start(generator: str, kinematics: Any, seed: int) -> Any:
    from chromo import models

    return (models.Sibyll23d if generator == "sibyll" else models.UrQMD34)(kinematics, seed=seed)


def _producing(running: Any, count: int, projectile: int) -> list[tuple[npt.NDArray[Any], ...]]:
    """Return `count` events that made new particles, filled up with others where hardly any do (slow kaons)."""
    produced: list[tuple[npt.NDArray[Any], ...]] = []
    scattered: list[tuple[npt.NDArray[Any], ...]] = []
    for _ in range(_TRIES):
        for event in running(count):
            final = event.final_state()
            (produced if is_produced(final.pid, projectile) else scattered).append(_secondaries(final))
        if len(produced) >= count:
            return produced[:count]
    return (produced + scattered)[:count]


def bank(generator: str, energies: list[float], events: int, seed: int) -> Arrays:
    """Make a bank of interactions at given energies of each projectile, with production cross-sections, mb.

    Parameters
    ----------
    generator : str
        Name of the generator, such as ``sibyll``.
    energies : list of float
        Total energies in the laboratory, GeV.
    events : int
        Interactions at each energy of each projectile.
    seed : int
    """
    from chromo.constants import GeV
    from chromo.kinematics import FixedTarget, TotalEnergy

    interactions: list[tuple[npt.NDArray[Any], ...]] = []
    sections = np.zeros((len(BANK_PROJECTILES), len(energies)))
    running: Any = None
    for row, projectile in enumerate(BANK_PROJECTILES):
        for column, energy in enumerate(energies):
            kinematics = FixedTarget(TotalEnergy(energy * GeV), projectile, _target(generator))
            if running is None:
                running = _start(generator, kinematics, seed)
            running.kinematics = kinematics
            if generator == "sibyll":
                sections[row, column] = running.cross_section(kinematics).prod
            interactions.extend(_producing(running, events, projectile))
    return {**_pack(interactions), "sections": sections, "energies": np.array(energies)}


def first(showers: list[dict[str, float]], seed: int) -> Arrays:
    """Make the first interactions of nucleons in air by SIBYLL, each at its exact energy.

    Parameters
    ----------
    showers : list of dict
        `nucleons`, `charge` of the primary; `energy` of a nucleon, GeV; `wounded`, a quantile of their number.
    seed : int
        Of the generator.

    Returns
    -------
    dict
        Events of all showers one after another; `events`: how many each has; `sections` of the primary on air, mb.
    """
    from chromo.constants import GeV
    from chromo.kinematics import FixedTarget, TotalEnergy

    from apbatch.sim.primaries import wounded_nucleons

    interactions: list[tuple[npt.NDArray[Any], ...]] = []
    sections, counts = np.zeros(len(showers)), np.zeros(len(showers), np.int64)
    running: Any = None
    for index, shower in enumerate(showers):
        nucleons, charge = int(shower["nucleons"]), int(shower["charge"])
        energy = TotalEnergy(shower["energy"] * GeV)
        kinematics = FixedTarget(energy, 2212, _target("sibyll"))
        if running is None:
            running = _start("sibyll", kinematics, seed)
        running.kinematics = kinematics
        section = running.cross_section(kinematics).prod
        sections[index] = section
        if nucleons > 1:
            nucleus = 1_000_000_000 + 10_000 * charge + 10 * nucleons
            sections[index] = running.cross_section(FixedTarget(energy, nucleus, _target("sibyll"))).prod
        counts[index] = wounded_nucleons(nucleons, section / sections[index], shower["wounded"])
        done = 0
        while done < counts[index]:
            for event in running(1):
                final = event.final_state()
                if is_produced(final.pid, 2212):
                    interactions.append(_secondaries(final))
                    done += 1
    return {**_pack(interactions), "events": counts, "sections": sections}


def main(request_file: str, output: str) -> None:
    """Answer one request, whole or not at all."""
    warnings.simplefilter("ignore")  # chromo warns of neutral pions left undecayed, which the cascade decays
    request = json.loads(Path(request_file).read_text())
    what = request.pop("what")
    arrays = bank(**request) if what == "bank" else first(**request)
    with Path(output).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

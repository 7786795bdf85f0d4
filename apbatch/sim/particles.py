"""Particles of the hadronic cascade: codes, masses, lifetimes, and how generators' ids map onto them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

PHOTON, ELECTRON, MUON, PION, KAON, K_LONG, K_SHORT, PROTON, NEUTRON, LAMBDA, SIGMA, PI_ZERO, ETA = range(13)

#: Mass, GeV, by code.
MASSES = np.array(
    [0.0, 0.000511, 0.105658, 0.139570, 0.493677, 0.497611, 0.497611, 0.938272, 0.939565, 1.115683, 1.19370, 0.134977,
     0.547862]
)  # fmt: skip
#: Mean life times c, m, by code; 0 for what decays on the spot, infinite for what is stable here.
LIFETIMES = np.array(
    [np.inf, np.inf, 658.638, 7.8045, 3.711, 15.34, 0.026844, np.inf, np.inf, 0.0789, 0.0327, 0.0, 0.0]
)
#: Row of the interaction bank that stands for a hadron, by code; -1 for what does not interact.
PROJECTILES = np.array([-1, -1, -1, 1, 2, 2, 2, 0, 0, 0, 0, -1, -1])
#: Names of the bank's projectiles, as PDG ids.
BANK_PROJECTILES = (2212, 211, 321)

# (code, charge) by PDG id. Hyperons with more strangeness are carried as Lambda or Sigma of the same charge; charm,
# which the generators decay themselves, does not occur.
_CODES: dict[int, tuple[int, int]] = {
    22: (PHOTON, 0), 11: (ELECTRON, -1), -11: (ELECTRON, 1), 13: (MUON, -1), -13: (MUON, 1),
    211: (PION, 1), -211: (PION, -1), 321: (KAON, 1), -321: (KAON, -1), 130: (K_LONG, 0), 310: (K_SHORT, 0),
    2212: (PROTON, 1), -2212: (PROTON, -1), 2112: (NEUTRON, 0), -2112: (NEUTRON, 0),
    3122: (LAMBDA, 0), -3122: (LAMBDA, 0), 3212: (LAMBDA, 0), -3212: (LAMBDA, 0), 3322: (LAMBDA, 0), -3322: (LAMBDA, 0),
    3222: (SIGMA, 1), -3222: (SIGMA, -1), 3112: (SIGMA, -1), -3112: (SIGMA, 1), 3312: (SIGMA, -1), -3312: (SIGMA, 1),
    3334: (SIGMA, -1), -3334: (SIGMA, 1), 111: (PI_ZERO, 0), 221: (ETA, 0), 331: (ETA, 0),
}  # fmt: skip
_NEUTRINOS = frozenset((12, -12, 14, -14, 16, -16))


def codes_of(pids: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Return code and charge of PDG ids; code -1 for neutrinos, nuclei and what is not followed."""
    codes, charges = np.full(len(pids), -1, np.int8), np.zeros(len(pids), np.int8)
    for pid in np.unique(pids):
        if int(pid) in _CODES:
            rows = pids == pid
            codes[rows], charges[rows] = _CODES[int(pid)]
    return codes, charges


def is_produced(pids: npt.NDArray[Any], projectile: int) -> bool:
    """Return whether an event made new particles, i.e. is neither elastic nor quasi-elastic.

    The interaction length is that of production, so events that only scatter must not be in the bank.
    """
    mesons = pids[(np.abs(pids) < 1000) & (pids != 22)]
    if abs(projectile) > 1000:
        return len(mesons) > 0 or bool((pids < -1000).any())
    return len(mesons) != 1 or int(mesons[0]) != projectile

"""Events of the KASCADE array, the same as text and as an HDF5 table.

Sums: ``energy``, eV; ``electrons`` and ``muons``, of all events; ``runs``, how many.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from apbatch.formats.kascade import KascadeReader
from apbatch.sample.contents import Contents
from apbatch.sample.hdf5 import write_table
from apbatch.sample.showers import generator

FOLDER = "kascade"
#: Runs with their numbers of events, and when the first begins (s since 1970, 2008-04-11).
RUNS = {6402: 30, 6403: 20}
_START_S = 1_207_904_700


def write(folder: Path, seed: int) -> list[Contents]:
    """Write the files into `folder` / ``kascade``; return what they hold."""
    random = generator(seed, FOLDER)
    root = folder / FOLDER
    root.mkdir()
    run = np.repeat(list(RUNS), list(RUNS.values()))
    count = len(run)
    event = np.concatenate([np.arange(1, events + 1) for events in RUNS.values()])
    second = _START_S + np.cumsum(random.integers(1, 30, count))
    nanosecond = random.integers(0, 10_000_000, count) * 100
    energy = np.array([float(f"{value:.5e}") for value in 10 ** random.uniform(14.5, 16.5, count)])
    core = np.round(random.uniform(-100, 100, (count, 2)), 4)
    zenith, azimuth = np.round(random.uniform(0, 0.7, count), 6), np.round(random.uniform(0, 6.28, count), 5)
    electrons, muons = np.round(energy / 3e10, 1), np.round(energy / 1e11, 2)
    density_e, density_mu = np.round(random.uniform(0.1, 0.6, (2, count, 4)), 6)
    temperature, pressure = np.full(count, 10.0898), np.full(count, 984.061)
    with (root / "kascade.dat").open("w", encoding="ascii") as text:
        for i in range(count):
            densities = " ".join(f"{density_e[i, k]:g} {density_mu[i, k]:g}" for k in range(4))
            text.write(
                f"{run[i]} {event[i]} {second[i]} {nanosecond[i]} {energy[i]:.5e} {core[i, 0]:g} {core[i, 1]:g} "
                f"{zenith[i]:g} {azimuth[i]:g} {electrons[i]:.1f} {muons[i]:.2f} {densities} "
                f"{temperature[i]:g} {pressure[i]:g}\n"
            )
    columns = {
        "run_id": run.astype("<i4"), "event_id": event.astype("<i8"), "timestamp": second.astype("<i4"),
        "nanoseconds": nanosecond.astype("<u4"), "ext_timestamp": (second * 10**9 + nanosecond).astype("<u8"),
        "energy": energy, "core_pos": core, "zenith": zenith, "azimuth": azimuth, "Num_e": electrons, "Num_mu": muons,
        "dens_e": density_e, "dens_mu": density_mu, "P200": pressure, "T200": temperature,
    }  # fmt: skip
    write_table(root / "kascade.h5", "kascade/events", columns)
    sums = {
        "energy": float(energy.sum()),
        "electrons": round(float(electrons.sum()), 1),
        "muons": round(float(muons.sum()), 2),
        "runs": len(RUNS),
    }
    return [
        Contents(f"{FOLDER}/{name}", KascadeReader.name, count, int(run[0]), sums=sums)
        for name in ("kascade.dat", "kascade.h5")
    ]

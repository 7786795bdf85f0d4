"""Hadronic interactions: the first one of each proton at its exact energy, and a bank for all later ones.

The bank is made once and kept under the cache folder, addressed by its parameters and the generators' version.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from apbatch.config import cache
from apbatch.errors import ApbatchError, MissingSoftwareError
from apbatch.provenance import digest
from apbatch.sim.settings import BankModel

Floats = npt.NDArray[np.float64]

#: Changes of the bank's content or layout.
_VERSION = 2
#: Mean mass of air's nuclei over Avogadro's number: thickness, g/cm2, per inverse cross-section in mb.
AIR_MASS = 14.54 * 1.66053907e3


class Events(NamedTuple):
    """Interactions one after another; the secondaries of event i are rows offset[i] to offset[i+1]."""

    offset: npt.NDArray[np.int64]
    code: npt.NDArray[np.int8]
    charge: npt.NDArray[np.int8]
    momentum: npt.NDArray[np.float32]  # (n, 4): energy, px, py, pz, GeV, along the projectile


class Bank(NamedTuple):
    """Interactions by projectile, energy node and number, and interaction lengths.

    Attributes
    ----------
    log_energy : ndarray of shape (n_nodes,)
        ln of the projectile's total energy in GeV.
    start, number : ndarray of shape (3, n_nodes)
        First event and how many, for each projectile (nucleon, pion, kaon) and node.
    length : ndarray of shape (3, n_nodes)
        Interaction length, g/cm2.
    """

    log_energy: Floats
    start: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    length: Floats
    offset: npt.NDArray[np.int64]
    code: npt.NDArray[np.int8]
    charge: npt.NDArray[np.int8]
    momentum: npt.NDArray[np.float32]


def chromo_version() -> str:
    """Return the version of the generators' package.

    Raises
    ------
    MissingSoftwareError
        If it is not installed.
    """
    if importlib.util.find_spec("chromo") is None:
        raise MissingSoftwareError(
            "protons and nuclei need the hadronic event generators of the package 'chromo', which is not installed",
            remedy="pip install chromo, or simulate gammas only with --protons 0",
        )
    return importlib.metadata.version("chromo")


def package_path() -> str:
    """Return a ``PYTHONPATH`` by which a new process, whatever its folder, finds this package."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))


def run_generator(request: dict[str, Any], output: Path) -> None:
    """Answer a request of `apbatch.sim.generators` in a process of its own and put the result at `output`.

    Raises
    ------
    ApbatchError
        If the generator failed, with the end of what it printed.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="apbatch-generator-") as scratch:
        question, log = Path(scratch, "request.json"), Path(scratch, "log")
        question.write_text(json.dumps(request))
        # Beside the output, so that the rename can't cross file systems.
        partial = output.with_name(f".{output.name}.{os.getpid()}.{threading.get_ident()}.part").absolute()
        try:
            with log.open("wb") as printed:
                done = subprocess.run(
                    [sys.executable, "-m", "apbatch.sim.generators", str(question), str(partial)],
                    cwd=scratch,
                    env={**os.environ, "PYTHONPATH": package_path(), "OMP_NUM_THREADS": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
            if done.returncode != 0:
                tail = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
                raise ApbatchError(f"the event generator ended with status {done.returncode}: {tail}")
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)


def load_events(file: Path) -> tuple[Events, Floats]:
    """Return the events of a file and their cross-sections, mb."""
    with np.load(file) as content:
        return Events(*(content[name] for name in Events._fields)), content["sections"]


def load_first(file: Path) -> tuple[Events, npt.NDArray[np.int64], Floats]:
    """Return first interactions: events, how many each shower has, and cross-sections, mb."""
    with np.load(file) as content:
        return Events(*(content[name] for name in Events._fields)), content["events"], content["sections"]


def _requests(model: BankModel) -> dict[str, dict[str, Any]]:
    """Return one request a file: UrQMD's nodes in two halves of about equal time, and SIBYLL's."""
    low = [float(e) for e in np.geomspace(model.low_min, model.low_max, model.low_nodes)]
    high = [float(e) for e in np.geomspace(model.high_min, model.high_max, model.high_nodes)]
    half = (len(low) + 1) // 2
    parts = [("urqmd", low[:half]), ("urqmd", low[half:]), ("sibyll", high)]
    return {
        f"{index}-{name}.npz": {
            "what": "bank",
            "generator": name,
            "energies": energies,
            "events": model.low_events if name == "urqmd" else model.high_events,
            "seed": model.seed + index,
        }
        for index, (name, energies) in enumerate(parts)
        if energies
    }


def bank_folder(model: BankModel) -> Path:
    """Return where the bank with these parameters is kept."""
    key = digest({"version": _VERSION, "chromo": chromo_version(), "bank": model.model_dump()})
    return cache() / "sim" / f"bank-{key}"


def load_bank(model: BankModel, processes: int = 2) -> Bank:
    """Return the bank of hadronic interactions; what is not in the cache is made first.

    Parameters
    ----------
    model : BankModel
        Its size.
    processes : int
        Generators that run at the same time.

    Raises
    ------
    MissingSoftwareError, ApbatchError
        If chromo is missing, or a generator failed.
    """
    folder = bank_folder(model)
    requests = _requests(model)
    missing = [(name, request) for name, request in requests.items() if not (folder / name).is_file()]
    with ThreadPoolExecutor(max(1, processes)) as pool:
        list(pool.map(lambda item: run_generator(item[1], folder / item[0]), missing))
    return _join([folder / name for name in requests])


def _join(files: Sequence[Path]) -> Bank:
    energies: list[float] = []
    starts: list[npt.NDArray[np.int64]] = []
    numbers: list[npt.NDArray[np.int64]] = []
    sections: list[Floats] = []
    events: list[Events] = []
    first_event = first_row = 0
    for file in files:
        part, section = load_events(file)
        with np.load(file) as content:
            nodes = content["energies"]
        rows, columns = section.shape
        each = (len(part.offset) - 1) // (rows * columns)
        starts.append(first_event + each * np.arange(rows * columns).reshape(rows, columns))
        numbers.append(np.full((rows, columns), each))
        energies.extend(nodes)
        sections.append(section)
        events.append(part._replace(offset=part.offset + first_row))
        first_event += len(part.offset) - 1
        first_row += len(part.code)
    section = np.concatenate(sections, axis=1)
    # UrQMD gives no cross-section: below SIBYLL's first energy its value there is used (they hardly change there).
    lowest = section[:, [int(np.argmax(section[0] > 0))]]
    section = np.where(section > 0, section, lowest)
    offset = np.concatenate([part.offset[:-1] for part in events] + [events[-1].offset[-1:]])
    return Bank(
        log_energy=np.log(np.array(energies)),
        start=np.concatenate(starts, axis=1),
        number=np.concatenate(numbers, axis=1),
        length=AIR_MASS / section,
        offset=offset,
        code=np.concatenate([part.code for part in events]),
        charge=np.concatenate([part.charge for part in events]),
        momentum=np.concatenate([part.momentum for part in events]),
    )

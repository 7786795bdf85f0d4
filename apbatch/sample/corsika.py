"""CORSIKA: a file of particles in Fortran's records, and one of Cherenkov light as the IACT extension writes it.

Sums: ``energy``, of all showers, TeV; ``particles``, which lie at the observation level; ``photons``, which reach the
telescope.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from apbatch.formats.corsika import CorsikaReader
from apbatch.sample.contents import Contents
from apbatch.sample.eventio_writer import floats, part, string, top
from apbatch.sample.showers import Floats, generator

FOLDER = "corsika"
PARTICLE_RUN, IACT_RUN = 757, 758
PARTICLES, LIGHT = f"DAT{PARTICLE_RUN:06d}", f"run{IACT_RUN:06d}_gamma.corsika"
SHOWERS = 6
#: CORSIKA's version in the headers, numbers of a block, blocks of a record, and of particles in a block.
_VERSION, _WORDS, _BLOCKS, _IN_BLOCK = 7.5, 273, 21, 39
_GAMMA, _PROTON, _MUON = 1, 14, 6
_HEIGHT_CM, _TELESCOPE_CM = 67_500.0, 500.0

Block = npt.NDArray[np.float32]


def write(folder: Path, seed: int) -> list[Contents]:
    """Write the files into `folder` / ``corsika``; return what they hold."""
    (folder / FOLDER).mkdir()
    return [_particles(folder, seed), _light(folder, seed)]


def _named(name: bytes, values: dict[int, float]) -> Block:
    """Return a block that begins with a name; numbers by their place in the user's guide, from 1."""
    block = np.zeros(_WORDS, "<f4")
    for place, value in values.items():
        block[place - 1] = value
    block[:1] = np.frombuffer(name, "<f4")
    return block


def _run_header(run: int, limits: tuple[float, float]) -> Block:
    return _named(
        b"RUNH",
        {2: run, 3: 171028, 4: _VERSION, 5: 1, 6: _HEIGHT_CM, 16: -2.0, 17: limits[0], 18: limits[1], 93: SHOWERS},
    )


def _event_header(run: int, number: int, particle: int, energy_gev: float, height_m: float, angles: Floats) -> Block:
    zenith, azimuth = angles
    return _named(
        b"EVTH",
        {
            2: number, 3: particle, 4: energy_gev, 7: 100 * height_m, 10: energy_gev * float(np.cos(zenith)),
            11: zenith, 12: azimuth, 44: run, 45: 171028, 46: _VERSION, 47: 1, 48: _HEIGHT_CM, 58: -2.0, 98: 1,
        },
    )  # fmt: skip


def _draw(random: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    energy = np.round(10 ** random.uniform(3, 4.5, SHOWERS), 1)
    height = np.round(random.uniform(12_000, 30_000, SHOWERS))
    angles = np.round(random.uniform([0.0, -3.1], [0.5, 3.1], (SHOWERS, 2)), 4)
    return energy, height, angles


def _particles(folder: Path, seed: int) -> Contents:
    random = generator(seed, PARTICLES)
    energy, height, angles = _draw(random)
    blocks = [_run_header(PARTICLE_RUN, (1e3, 3.2e4))]
    total = 0
    for number in range(SHOWERS):
        blocks.append(_event_header(PARTICLE_RUN, number + 1, _PROTON, energy[number], height[number], angles[number]))
        many = int(random.integers(10, 120))
        total += many
        rows = np.zeros((-(-many // _IN_BLOCK) * _IN_BLOCK, 7), "<f4")
        rows[:many, 0] = 1000 * _MUON + 10 + 1  # particle, generation, level of observation
        rows[:many, 1:4] = random.normal([0, 0, 5], 1, (many, 3))
        rows[:many, 4:6] = random.normal(0, 10_000, (many, 2))
        rows[:many, 6] = random.uniform(5e4, 6e4, many)
        blocks += list(rows.reshape(-1, _WORDS))
        blocks.append(_named(b"EVTE", {2: number + 1, 6: many, 7: many}))
    blocks.append(_named(b"RUNE", {2: PARTICLE_RUN, 3: SHOWERS}))
    while len(blocks) % _BLOCKS:
        blocks.append(np.zeros(_WORDS, "<f4"))
    length = struct.pack("<i", 4 * _WORDS * _BLOCKS)
    records = np.stack(blocks).reshape(-1, _BLOCKS, _WORDS)
    (folder / FOLDER / PARTICLES).write_bytes(b"".join(length + record.tobytes() + length for record in records))
    sums = {"energy": float(energy.sum() / 1000), "particles": total}
    return Contents(f"{FOLDER}/{PARTICLES}", CorsikaReader.name, SHOWERS, PARTICLE_RUN, sums=sums)


def _counted(block: Block) -> bytes:
    return struct.pack("<i", len(block)) + block.tobytes()


def _light(folder: Path, seed: int) -> Contents:
    random = generator(seed, LIGHT)
    energy, height, angles = _draw(random)
    card = [f"RUNNR {IACT_RUN}", f"NSHOW {SHOWERS}", f"PRMPAR {_GAMMA}", f"TELESCOPE 0 0 0 {_TELESCOPE_CM:.0f}", "EXIT"]
    pieces = [
        top(1200, IACT_RUN, _counted(_run_header(IACT_RUN, (1e3, 3.2e4)))),
        top(1212, 0, struct.pack("<i", len(card)) + b"".join(string(line.encode()) for line in card)),
        top(1201, 0, struct.pack("<i", 1) + floats([0, 0, 0, _TELESCOPE_CM])),
    ]
    total = 0.0
    for number in range(SHOWERS):
        header = _event_header(IACT_RUN, number + 1, _GAMMA, energy[number], height[number], angles[number])
        bunches = np.zeros((int(random.integers(20, 80)), 8), "<i2")
        bunches[:, :2] = random.normal(0, 1500, (len(bunches), 2))  # mm
        bunches[:, 2:4] = random.normal(0, 300, (len(bunches), 2))
        bunches[:, 4:6] = random.integers([0, 5800], [300, 6200], (len(bunches), 2))
        bunches[:, 6], bunches[:, 7] = random.integers(100, 500, len(bunches)), 0  # hundredths of a photon, no colour
        photons = float(np.float32(bunches[:, 6].sum() / 100))
        total += photons
        content = struct.pack("<hhfi", 0, 0, photons, len(bunches)) + bunches.tobytes()
        pieces += [
            top(1202, number + 1, _counted(header)),
            top(1203, number + 1, struct.pack("<if", 1, 0.0) + floats([0.0, 0.0])),
            top(1204, number + 1, part(1205, 0, content, version=1000), nested=True),
            top(1209, number + 1, _counted(_named(b"EVTE", {2: number + 1}))),
        ]
    pieces.append(top(1210, IACT_RUN, _counted(_named(b"RUNE", {2: IACT_RUN, 3: SHOWERS})[:3])))
    (folder / FOLDER / LIGHT).write_bytes(b"".join(pieces))
    sums = {"energy": float(energy.sum() / 1000), "photons": total}
    return Contents(f"{FOLDER}/{LIGHT}", CorsikaReader.name, SHOWERS, IACT_RUN, sums=sums)

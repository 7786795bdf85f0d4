"""The hadronic cascade: nucleons, pions, kaons, hyperons and muons until they interact, decay or land.

Later interactions come from the bank: an event of a neighbouring energy node is taken at random (nearer nodes more
often), turned by a random azimuth, and its energies scaled; transverse momenta stay. Photons and electrons are handed
over to the electromagnetic cascade. Energies in GeV, lengths in m, thickness in g/cm2.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from apbatch.sim.atmosphere import density, depth, height_at
from apbatch.sim.cherenkov import emit
from apbatch.sim.electromagnetic import bend, deflect, turn
from apbatch.sim.interactions import Bank
from apbatch.sim.kernel import inner, kernel
from apbatch.sim.particles import (
    ELECTRON,
    ETA,
    K_LONG,
    K_SHORT,
    KAON,
    LAMBDA,
    LIFETIMES,
    MASSES,
    MUON,
    NEUTRON,
    PHOTON,
    PI_ZERO,
    PION,
    PROJECTILES,
    PROTON,
    SIGMA,
)
from apbatch.sim.scene import DEPOSITED, DROPPED, OVERFLOW, Record, Scene
from apbatch.sim.stream import Stream

Floats = npt.NDArray[np.float64]

#: Hadrons and muons below this total energy are dropped, GeV: they give no light, and little that does.
HADRON_CUT = 2.0
#: Muons below the threshold for light at the ground only lose energy, GeV.
MUON_CUT = 4.0
#: Electromagnetic particles below this are dropped, GeV.
LIGHT_CUT = 0.022
#: Ionisation of heavy particles, GeV per g/cm2; muons add 3e-6 of their energy by radiation.
_LOSS = 2.1e-3
_MUON_RADIATION = 3.0e-6
#: Longest step of a charged particle's light.
_STEP_THICKNESS, _STEP_LENGTH = 6.0, 500.0

#: Columns of a particle on the stack; the first nine have the electromagnetic cascade's layout after `CODE`.
CODE, CHARGE, ENERGY, X, Y, Z, UX, UY, UZ, PATH = range(10)
COLUMNS = 10
_STACK = 60_000
# Slots of `heap[-1]`, the stack's own bookkeeping.
_PENDING, _HANDED = 0, 1


@inner
def fly(scene: Scene, record: Record, particle: Floats, length: float, nucleons: float = 1.0) -> None:
    """Move a particle by `length`; a charged one gives light, loses energy, scatters and bends on the way.

    A step's light comes between the two halves of its scattering and bending. A nucleus of some `nucleons` is given as
    one of them with the charge of all.

    Parameters
    ----------
    scene : Scene
    record : Record
        Gets light and deposited energy.
    particle : ndarray of float64, shape (COLUMNS,)
        The particle, moved in place.
    length : float
        m.
    nucleons : float
        Nucleons of a nucleus.
    """
    code = int(particle[CODE])
    mass = MASSES[code]
    if particle[CHARGE] == 0.0:
        particle[X] += particle[UX] * length
        particle[Y] += particle[UY] * length
        particle[Z] += particle[UZ] * length
        particle[PATH] += length
        return
    left = length
    x_depth = depth(particle[Z], scene.air)
    charge2, charge_a_nucleon = particle[CHARGE] ** 2, particle[CHARGE] / nucleons
    while left > 1e-6 and particle[ENERGY] > mass * 1.05 and particle[UZ] < -0.02:
        rho = max(density(x_depth, scene.air), 1e-12)
        way = min(left, _STEP_LENGTH, 0.01 * _STEP_THICKNESS / rho)
        energy = particle[ENERGY]
        momentum = math.sqrt(max(1e-6, energy * energy - mass * mass))
        half = max(50.0 * way * rho, 5e-5)
        _scatter(record.stream, scene, particle, charge_a_nucleon, momentum, half, 0.5 * way)
        after = particle[Z] + particle[UZ] * way
        after_depth = depth(after, scene.air)
        thickness = (after_depth - x_depth) / -particle[UZ]
        middle = 0.5 * (x_depth + after_depth)
        emit(
            scene, record, particle[X], particle[Y], particle[Z], particle[UX], particle[UY], particle[UZ], way,
            density(middle, scene.air), (mass / energy) ** 2, particle[PATH], middle, charge2,
        )  # fmt: skip
        particle[X] += particle[UX] * way
        particle[Y] += particle[UY] * way
        particle[Z] = after
        particle[PATH] += way
        lost = _LOSS * thickness * charge2 / nucleons
        if code == MUON:
            lost += _MUON_RADIATION * energy * thickness
        lost = min(lost, energy - mass)
        particle[ENERGY] = energy - lost
        record.tally[DEPOSITED] += lost * nucleons
        _scatter(record.stream, scene, particle, charge_a_nucleon, momentum, half, 0.5 * way)
        x_depth = after_depth
        left -= way


@inner
def _scatter(
    stream: Stream, scene: Scene, particle: Floats, charge: float, momentum: float, thickness: float, length: float
) -> None:
    """Bend a particle along a length and scatter it in a thickness."""
    energy = particle[ENERGY]
    ux, uy, uz = bend(scene, particle[UX], particle[UY], particle[UZ], charge, momentum, length)
    particle[UX], particle[UY], particle[UZ] = deflect(stream, ux, uy, uz, momentum * momentum / energy, thickness)


@inner
def _push(
    heap: Floats, em_particles: Floats, state: Floats, parent: Floats, record: Record,
    code: int, charge: float, energy: float, px: float, py: float, pz: float,
) -> None:  # fmt: skip
    """Put a particle on the stack, or hand a photon or electron over; momentum is along the parent's direction."""
    p2 = px * px + py * py + pz * pz
    light = code in (PHOTON, ELECTRON)
    lowest = LIGHT_CUT if light else (MUON_CUT if code == MUON else (0.04 if code in (PI_ZERO, ETA) else HADRON_CUT))
    if energy < lowest or p2 <= 0.0:
        record.tally[DROPPED] += energy
        return
    p = math.sqrt(p2)
    across = math.sqrt(px * px + py * py)
    phi = math.atan2(py, px) if across > 0.0 else 0.0
    ux, uy, uz = turn(parent[UX], parent[UY], parent[UZ], across / p, pz / p, phi)
    count = int(state[_HANDED]) if light else int(state[_PENDING])
    room = em_particles if light else heap
    if count >= room.shape[0]:
        record.tally[OVERFLOW] = 1.0
        return
    row = room[count]
    row[CODE] = code
    row[CHARGE] = charge
    row[ENERGY] = energy
    row[X], row[Y], row[Z] = parent[X], parent[Y], parent[Z]
    row[UX], row[UY], row[UZ] = ux, uy, uz
    row[PATH] = parent[PATH]
    state[_HANDED if light else _PENDING] = count + 1


@inner
def momentum_in_decay(mass: float, m1: float, m2: float) -> float:
    """Return the momentum of the two products in the rest frame of a particle that decays.

    Parameters
    ----------
    mass : float
        Of the particle that decays, GeV.
    m1, m2 : float
        Of its products, GeV.

    Returns
    -------
    float
        GeV/c.
    """
    value = (mass * mass - (m1 + m2) ** 2) * (mass * mass - (m1 - m2) ** 2)
    return math.sqrt(max(0.0, value)) / (2.0 * mass)


@inner
def two_body(energy: float, mass: float, m1: float, m2: float, products: Floats) -> None:
    """Decay a particle of `energy` along z isotropically in its rest frame.

    Parameters
    ----------
    energy, mass, m1, m2 : float
        GeV.
    products : ndarray of shape (2, 4)
        Gets E, px, py, pz of both.
    """
    p = momentum_in_decay(mass, m1, m2)
    cosine = 2.0 * np.random.random() - 1.0
    phi = 2.0 * math.pi * np.random.random()
    across = p * math.sqrt(1.0 - cosine * cosine)
    gamma = max(1.0, energy / mass)
    boost = math.sqrt(gamma * gamma - 1.0)
    e1, e2 = math.sqrt(p * p + m1 * m1), math.sqrt(p * p + m2 * m2)
    products[0, 0] = gamma * e1 + boost * p * cosine
    products[0, 1], products[0, 2] = across * math.cos(phi), across * math.sin(phi)
    products[0, 3] = gamma * p * cosine + boost * e1
    products[1, 0] = gamma * e2 - boost * p * cosine
    products[1, 1], products[1, 2] = -products[0, 1], -products[0, 2]
    products[1, 3] = -gamma * p * cosine + boost * e2


@kernel
def three_body(energy: float, mass: float, m1: float, m2: float, m3: float, products: Floats) -> None:
    """Decay a particle of `energy` along z by phase space alone; `products` (3, 4) gets E, px, py, pz.

    The invariant mass of 2 and 3 has the density p1 p23, sampled by rejection; then two two-body decays.

    Parameters
    ----------
    energy : float
        Total energy of the particle, GeV.
    mass : float
        Its mass, GeV.
    m1, m2, m3 : float
        Masses of the products, GeV.
    products : ndarray of float64, shape (3, 4)
        Gets energy and momentum of each product, GeV.
    """
    low, high = m2 + m3, mass - m1
    most = momentum_in_decay(mass, m1, low) * momentum_in_decay(high, m2, m3)
    while True:
        pair = low + (high - low) * np.random.random()
        weight = momentum_in_decay(mass, m1, pair) * momentum_in_decay(pair, m2, m3)
        if np.random.random() * most < weight:
            break
    pair_products = np.empty((2, 4))
    two_body(energy, mass, m1, pair, pair_products)
    products[0] = pair_products[0]
    px, py, pz = pair_products[1, 1], pair_products[1, 2], pair_products[1, 3]
    p = math.sqrt(px * px + py * py + pz * pz)
    inner = np.empty((2, 4))
    two_body(pair_products[1, 0], pair, m2, m3, inner)
    across = math.sqrt(px * px + py * py)
    phi = math.atan2(py, px) if across > 0.0 else 0.0
    for index in range(2):
        qx, qy, qz = inner[index, 1], inner[index, 2], inner[index, 3]
        q = math.sqrt(qx * qx + qy * qy + qz * qz)
        q_across = math.sqrt(qx * qx + qy * qy)
        vx, vy, vz = 0.0, 0.0, 1.0
        if p > 0.0 and q > 0.0:
            ax, ay, az = turn(0.0, 0.0, 1.0, across / p, pz / p, phi)
            vx, vy, vz = turn(ax, ay, az, q_across / q, qz / q, math.atan2(qy, qx))
        products[index + 1, 0] = inner[index, 0]
        products[index + 1, 1], products[index + 1, 2], products[index + 1, 3] = vx * q, vy * q, vz * q


@inner
def _channel(code: int, charge: float) -> tuple[int, float, int, float, int, float]:
    """Draw a decay channel: code and charge of two or three products, code -1 for a neutrino, -2 for none.

    Branching ratios are the Particle Data Group's; rare channels are lumped with the nearest.
    """
    u = np.random.random()
    sign = 1.0 if np.random.random() < 0.5 else -1.0
    if code == PION:
        return MUON, charge, -1, 0.0, -2, 0.0
    if code == KAON:
        if u < 0.6356:
            return MUON, charge, -1, 0.0, -2, 0.0
        if u < 0.8426:
            return PION, charge, PI_ZERO, 0.0, -2, 0.0
        if u < 0.8984:
            return PION, charge, PION, charge, PION, -charge
        if u < 0.9160:
            return PION, charge, PI_ZERO, 0.0, PI_ZERO, 0.0
        if u < 0.9667:
            return PI_ZERO, 0.0, ELECTRON, charge, -1, 0.0
        return PI_ZERO, 0.0, MUON, charge, -1, 0.0
    if code == K_SHORT:
        if u < 0.692:
            return PION, 1.0, PION, -1.0, -2, 0.0
        return PI_ZERO, 0.0, PI_ZERO, 0.0, -2, 0.0
    if code == K_LONG:
        if u < 0.4055:
            return PION, sign, ELECTRON, -sign, -1, 0.0
        if u < 0.6759:
            return PION, sign, MUON, -sign, -1, 0.0
        if u < 0.8728:
            return PI_ZERO, 0.0, PI_ZERO, 0.0, PI_ZERO, 0.0
        return PION, 1.0, PION, -1.0, PI_ZERO, 0.0
    if code == LAMBDA:
        if u < 0.641:
            return PROTON, 1.0, PION, -1.0, -2, 0.0
        return NEUTRON, 0.0, PI_ZERO, 0.0, -2, 0.0
    if code == SIGMA:
        if charge > 0.0 and u < 0.5:
            return PROTON, 1.0, PI_ZERO, 0.0, -2, 0.0
        return NEUTRON, 0.0, PION, charge, -2, 0.0
    if code == ETA:
        if u < 0.40:
            return PHOTON, 0.0, PHOTON, 0.0, -2, 0.0
        if u < 0.727:
            return PI_ZERO, 0.0, PI_ZERO, 0.0, PI_ZERO, 0.0
        return PION, 1.0, PION, -1.0, PI_ZERO, 0.0
    if code == MUON:
        return ELECTRON, charge, -1, 0.0, -1, 0.0
    return PHOTON, 0.0, PHOTON, 0.0, -2, 0.0  # neutral pion


@kernel
def _decay(heap: Floats, em_particles: Floats, state: Floats, parent: Floats, record: Record, products: Floats) -> None:
    """Decay a particle where it is; products are pushed, neutrinos forgotten."""
    code = int(parent[CODE])
    c1, q1, c2, q2, c3, q3 = _channel(code, parent[CHARGE])
    m1 = MASSES[c1] if c1 >= 0 else 0.0
    m2 = MASSES[c2] if c2 >= 0 else 0.0
    if c3 == -2:
        two_body(parent[ENERGY], MASSES[code], m1, m2, products)
    else:
        m3 = MASSES[c3] if c3 >= 0 else 0.0
        three_body(parent[ENERGY], MASSES[code], m1, m2, m3, products)
    for index in range(2 if c3 == -2 else 3):
        c, q = (c1, q1) if index == 0 else ((c2, q2) if index == 1 else (c3, q3))
        if c < 0:
            record.tally[DROPPED] += products[index, 0]
            continue
        _push(
            heap, em_particles, state, parent, record, c, q, products[index, 0], products[index, 1], products[index, 2],
            products[index, 3],
        )  # fmt: skip


@kernel
def _interact(heap: Floats, em_particles: Floats, state: Floats, parent: Floats, record: Record, bank: Bank) -> None:
    """Replace a hadron by the secondaries of an event of the bank."""
    code = int(parent[CODE])
    row = PROJECTILES[code]
    log_energy = math.log(parent[ENERGY])
    node = 1
    while node < bank.log_energy.size - 1 and bank.log_energy[node] < log_energy:
        node += 1
    step = bank.log_energy[node] - bank.log_energy[node - 1]
    share = (log_energy - bank.log_energy[node - 1]) / step
    if np.random.random() > share:
        node -= 1
    event = bank.start[row, node] + int(np.random.random() * bank.number[row, node])
    scale = parent[ENERGY] / math.exp(bank.log_energy[node])
    phi = 2.0 * math.pi * np.random.random()
    cosine, sine = math.cos(phi), math.sin(phi)
    # Projectiles in the bank are positive (or neutral here, where charges of mesons average out).
    flip = -1.0 if parent[CHARGE] < 0.0 else 1.0
    if code in (K_LONG, K_SHORT, NEUTRON) and np.random.random() < 0.5:
        flip = -1.0
    for index in range(bank.offset[event], bank.offset[event + 1]):
        secondary = int(bank.code[index])
        energy = bank.momentum[index, 0] * scale
        px, py = bank.momentum[index, 1], bank.momentum[index, 2]
        longitudinal2 = energy * energy - MASSES[secondary] ** 2 - px * px - py * py
        if longitudinal2 <= 0.0:
            record.tally[DROPPED] += energy
            continue
        charge = float(bank.charge[index])
        if secondary not in (PROTON, NEUTRON):
            charge *= flip
        _push(
            heap, em_particles, state, parent, record, secondary, charge, energy, px * cosine - py * sine,
            px * sine + py * cosine, math.sqrt(longitudinal2),
        )  # fmt: skip


@kernel
def hadron_cascade(
    parent: Floats,
    code: npt.NDArray[np.int8],
    charge: npt.NDArray[np.int8],
    momentum: npt.NDArray[np.float32],
    bank: Bank,
    scene: Scene,
    record: Record,
) -> Floats:
    """Follow the secondaries of a first interaction and all that comes of them; return what is electromagnetic.

    Parameters
    ----------
    parent : ndarray of shape (10,)
        The primary where it interacts: code, charge, energy, place, direction, way gone.
    code, charge, momentum : ndarrays
        Secondaries: (n,), (n,), (n, 4), momentum along the primary.
    bank, scene, record :
        Later interactions; telescopes; storage.

    Returns
    -------
    ndarray of shape (n, 9)
        Photons and electrons for `electromagnetic.cascade`.
    """
    heap = np.empty((_STACK, COLUMNS))
    em_particles = np.empty((400_000, COLUMNS))
    state = np.zeros(2)
    products = np.empty((3, 4))
    particle = np.empty(COLUMNS)
    for index in range(code.size):
        _push(
            heap, em_particles, state, parent, record, int(code[index]), float(charge[index]),
            float(momentum[index, 0]), float(momentum[index, 1]), float(momentum[index, 2]), float(momentum[index, 3]),
        )  # fmt: skip
    tally = record.tally
    while state[_PENDING] > 0.0 and tally[OVERFLOW] == 0.0:
        state[_PENDING] -= 1.0
        particle[:] = heap[int(state[_PENDING])]
        kind = int(particle[CODE])
        if LIFETIMES[kind] == 0.0:
            _decay(heap, em_particles, state, particle, record, products)
            continue
        cosine = -particle[UZ]
        if cosine < 0.05:
            tally[DROPPED] += particle[ENERGY]
            continue
        mass = MASSES[kind]
        to_ground = (particle[Z] - scene.ground) / cosine
        way, fate = to_ground, 0
        row = PROJECTILES[kind]
        if row >= 0:
            length = np.interp(math.log(particle[ENERGY]), bank.log_energy, bank.length[row])
            reached = depth(particle[Z], scene.air) - length * math.log(np.random.random() + 1e-300) * cosine
            if reached < scene.ground_depth:
                way, fate = (particle[Z] - height_at(reached, scene.air)) / cosine, 1
        if LIFETIMES[kind] < 1e30:
            momentum_now = math.sqrt(max(0.0, particle[ENERGY] ** 2 - mass * mass))
            decay = -LIFETIMES[kind] * momentum_now / mass * math.log(np.random.random() + 1e-300)
            if decay < way:
                way, fate = decay, 2
        fly(scene, record, particle, way, 1.0)
        if fate == 0 or particle[ENERGY] < (mass * 1.05 if kind == MUON else HADRON_CUT):
            tally[DROPPED] += particle[ENERGY]
        elif fate == 1:
            _interact(heap, em_particles, state, particle, record, bank)
        else:
            _decay(heap, em_particles, state, particle, record, products)
    number = int(state[_HANDED])
    out = np.empty((number, 9))
    for index in range(number):
        out[index, 0] = em_particles[index, CHARGE]
        for column in range(1, 9):
            out[index, column] = em_particles[index, column + 1]
    return out

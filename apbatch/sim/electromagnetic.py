"""The electromagnetic cascade, particle by particle.

Pair production and bremsstrahlung after Bethe and Heitler with Butcher and Messel's screening functions, Compton
scattering after Klein and Nishina, ionisation with Sternheimer's density effect, delta rays, multiple scattering as a
Gaussian core and single Rutherford scatters, bending in the Earth's field. Energies in GeV, lengths in m, thickness
in g/cm2. Rates are sampled by null collisions: a constant rate above the true one, of which a part is rejected.

References
----------
J. C. Butcher and H. Messel, Nucl. Phys. 20 (1960) 15; Y. S. Tsai, Rev. Mod. Phys. 46 (1974) 815; W. R. Nelson et al.,
The EGS4 code system, SLAC-265 (1985); R. M. Sternheimer et al., At. Data Nucl. Data Tables 30 (1984) 261;
G. Moliere, Z. Naturforsch. 3a (1948) 78.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from apbatch.sim.atmosphere import RADIATION_LENGTH, REFRACTIVITY, density, depth, height_at
from apbatch.sim.cherenkov import emit
from apbatch.sim.kernel import inner, kernel
from apbatch.sim.scene import DEPOSITED, DROPPED, FIRST_HEIGHT, GROUND, OVERFLOW, PROFILE_STEP, STEPS, Record, Scene
from apbatch.sim.stream import Stream, point_in_disc, uniform

Floats = npt.NDArray[np.float64]

ELECTRON_MASS = 0.51099895e-3
#: Photons below this make no electron that gives light, GeV.
PHOTON_CUT = 0.022
#: Softer bremsstrahlung is a continuous loss, GeV.
SOFT_BREMSSTRAHLUNG = 0.015
#: Softer knock-on electrons are a continuous loss, GeV.
DELTA_CUT = 0.020

_Z_CHARGE = 7.37
_Z_OVER_A = 0.49919
_SCREEN = 136.0 / _Z_CHARGE ** (1.0 / 3.0) * ELECTRON_MASS
_F_HALF = (8.0 / 3.0 * math.log(_Z_CHARGE)) / 2.0
_COULOMB = 1.202 * (_Z_CHARGE / 137.036) ** 2  # Davies, Bethe, Maximon; 8 f_c beyond 50 MeV, half of it here
_F_HIGH = _F_HALF + 4.0 * _COULOMB
_NORM_LOW = 20.867 - _F_HALF
_NORM_HIGH = 20.867 - _F_HIGH
_KNOCK_ON = 0.153537e-3 * _Z_OVER_A  # 2 pi r_e^2 m N_A Z/A, GeV cm2/g
_COMPTON = _KNOCK_ON / (2.0 * ELECTRON_MASS)  # pi r_e^2 N_A Z/A, cm2/g
_CHI_C = 0.6547e-6  # chi_c^2 p^2 per thickness, GeV^2 cm2/g: 0.157 sum Z(Z+1)/A of air
_CHI_A = 7.67e-11  # Moliere's screening angle squared times p^2, GeV^2

#: Columns of a particle on the stack.
KIND, ENERGY, X, Y, Z, UX, UY, UZ, PATH = range(9)
COLUMNS = 9
_STACK = 20_000
#: Square of the threshold for light times the density, GeV^2 g/cm3.
_THRESHOLD = ELECTRON_MASS**2 / (2.0 * REFRACTIVITY)
_LOG_SOFT = math.log(SOFT_BREMSSTRAHLUNG)
# Ends of `loss_table` in ln(E/GeV): 1 MeV, and far above any shower.
_LOG_LOW, _LOG_TOP = math.log(1e-3), math.log(1.0e6)


@inner
def screening(delta: float) -> tuple[float, float]:
    """Return Butcher and Messel's screening functions phi1 and phi2."""
    if delta > 1.0:
        value = 21.12 - 4.184 * math.log(delta + 0.952)
        return value, value
    return 20.867 + delta * (-3.242 + 0.625 * delta), 20.209 + delta * (-1.930 - 0.086 * delta)


@inner
def pair_density(energy: float, share: float) -> float:
    """Return pairs per radiation length and per unit of the share of energy that one partner takes."""
    rest = share * (1.0 - share)
    phi1, phi2 = screening(_SCREEN / energy / rest)
    shift, norm = (_F_HIGH, _NORM_HIGH) if energy > 0.05 else (_F_HALF, _NORM_LOW)
    value = (1.0 - 2.0 * rest) * (phi1 - shift) + 2.0 / 3.0 * rest * (phi2 - shift)
    return value / norm if value > 0.0 else 0.0


@inner
def bremsstrahlung_density(energy: float, y: float) -> float:
    """Return photons per radiation length and per d(ln y), y being the photon's share of the energy."""
    if y >= 1.0:
        return 0.0
    phi1, phi2 = screening(_SCREEN / energy * y / (1.0 - y))
    shift, norm = (_F_HIGH, _NORM_HIGH) if energy > 0.05 else (_F_HALF, _NORM_LOW)
    value = (1.0 + (1.0 - y) ** 2) * (phi1 - shift) - 2.0 / 3.0 * (1.0 - y) * (phi2 - shift)
    return value / norm if value > 0.0 else 0.0


@inner
def turn(ux: float, uy: float, uz: float, sine: float, cosine: float, phi: float) -> tuple[float, float, float]:
    """Return the direction that makes an angle with (ux, uy, uz), at the azimuth `phi` round it.

    Parameters
    ----------
    ux, uy, uz : float
        A direction, a unit vector.
    sine, cosine : float
        Of the angle.
    phi : float
        Azimuth, rad.
    """
    a, b = sine * math.cos(phi), sine * math.sin(phi)
    across = math.sqrt(ux * ux + uy * uy)
    if across < 1e-9:
        return a, b, cosine if uz > 0.0 else -cosine
    vx = cosine * ux + (a * ux * uz - b * uy) / across
    vy = cosine * uy + (a * uy * uz + b * ux) / across
    vz = cosine * uz - a * across
    norm = 1.0 / math.sqrt(vx * vx + vy * vy + vz * vz)
    return vx * norm, vy * norm, vz * norm


@inner
def bend(
    scene: Scene, ux: float, uy: float, uz: float, charge: float, momentum: float, length: float
) -> tuple[float, float, float]:
    """Return the direction after a way in the Earth's field: dp/dl = 0.3 q u x B (GeV, T, m).

    Parameters
    ----------
    scene : Scene
        With the field, T.
    ux, uy, uz : float
        A direction, a unit vector.
    charge : float
        In units of the positron's.
    momentum : float
        GeV/c.
    length : float
        m.
    """
    k = 0.299792458 * charge * length / momentum
    vx = ux + k * (uy * scene.field_z - uz * scene.field_y)
    vy = uy + k * (uz * scene.field_x - ux * scene.field_z)
    vz = uz + k * (ux * scene.field_y - uy * scene.field_x)
    norm = 1.0 / math.sqrt(vx * vx + vy * vy + vz * vz)
    return vx * norm, vy * norm, vz * norm


@inner
def deflect(
    stream: Stream, ux: float, uy: float, uz: float, momentum_beta: float, thickness: float
) -> tuple[float, float, float]:
    """Return a direction after multiple scattering: a Gaussian core, and single Rutherford scatters in the tail.

    Single scatters beyond theta_c^2 = 5 chi_c^2 happen 1/5 times a step on average; the rest has the mean square
    chi_c^2 (ln(theta_c^2/chi_a^2) - 1). All are added as vectors, so that a thickness in several steps gives the
    distribution of that thickness in one.

    Parameters
    ----------
    stream : Stream
    ux, uy, uz : float
        A direction, a unit vector.
    momentum_beta : float
        Momentum times velocity, GeV.
    thickness : float
        g/cm2.
    """
    chi_c = _CHI_C * thickness / (momentum_beta * momentum_beta)
    core = chi_c * max(1.0, math.log(5.0 * _CHI_C / _CHI_A * thickness) - 1.0)
    a, b, square = point_in_disc(stream)
    size = math.sqrt(-core * math.log(square) / square)
    p, q, left = size * a, size * b, uniform(stream)
    while left > 0.8187308:  # exp(-1/5): a Poisson number
        a, b, square = point_in_disc(stream)
        size = math.sqrt(5.0 * chi_c) / square
        p, q = p + size * a, q + size * b
        left *= uniform(stream)
    angle2 = p * p + q * q
    if angle2 < 0.09:
        sine = 1.0 - angle2 * (1.0 / 6.0 - angle2 * (1.0 / 120.0))  # over the angle
        cosine = 1.0 - angle2 * (0.5 - angle2 * (1.0 / 24.0 - angle2 * (1.0 / 720.0)))
    else:
        angle = math.sqrt(angle2)
        sine, cosine = math.sin(min(angle, 1.5)) / angle, math.cos(min(angle, 1.5))
    p, q = p * sine, q * sine
    # Two unit vectors across the direction (T. Duff et al., J. Comput. Graph. Tech. 6 (2017) 1).
    sign = 1.0 if uz >= 0.0 else -1.0
    c = -1.0 / (sign + uz)
    d = ux * uy * c
    vx = cosine * ux + p * (1.0 + sign * ux * ux * c) + q * d
    vy = cosine * uy + p * sign * d + q * (sign + uy * uy * c)
    vz = cosine * uz - p * sign * ux - q * uy
    norm = 0.5 * (3.0 - (vx * vx + vy * vy + vz * vz))  # of a vector that is a unit vector but for rounding
    return vx * norm, vy * norm, vz * norm


def loss_table(points: int = 200) -> Floats:
    """Return the continuous loss of electrons, GeV per g/cm2, evenly in ln E from 1 MeV to 1,000 TeV.

    Ionisation up to `DELTA_CUT` and bremsstrahlung up to `SOFT_BREMSSTRAHLUNG`. The density effect is that of air at
    4e-4 g/cm3 (near the shower's maximum); between 1e-4 and 1e-3 it changes the loss by 3 %.
    """
    energies = np.exp(np.linspace(_LOG_LOW, _LOG_TOP, points))
    shift = 0.5 * math.log10(1.205e-3 / 4.0e-4)
    losses = np.empty(points)
    for index, energy in enumerate(energies):
        gamma2 = (energy / ELECTRON_MASS) ** 2 + 1.0
        limit = min(DELTA_CUT, 0.5 * energy)
        x = 0.5 * math.log10(gamma2 - 1.0) - shift
        effect = 0.0
        if x > 1.7418:
            effect = 4.6052 * x - 10.5961 + (0.1091 * (4.2759 - x) ** 3.3994 if x < 4.2759 else 0.0)
        logarithm = math.log(2.0 * ELECTRON_MASS * (gamma2 - 1.0) * limit / 85.7e-9**2)
        ionisation = _KNOCK_ON * (logarithm - 1.0 - effect)
        highest = min(1.0, SOFT_BREMSSTRAHLUNG / energy)
        y = (np.arange(200) + 0.5) / 200 * highest
        radiation = energy * highest * float(np.mean([bremsstrahlung_density(energy, share) for share in y]))
        losses[index] = ionisation + radiation / RADIATION_LENGTH
    return losses


@inner
def _push(
    stack: Floats, pending: int, kind: float, energy: float,
    x: float, y: float, z: float, ux: float, uy: float, uz: float, path: float,
) -> int:  # fmt: skip
    """Put a particle on the stack; return how many there are."""
    row = stack[pending]
    row[KIND], row[ENERGY], row[PATH] = kind, energy, path
    row[X], row[Y], row[Z] = x, y, z
    row[UX], row[UY], row[UZ] = ux, uy, uz
    return pending + 1


@inner
def _compton(stream: Stream, ratio: float) -> tuple[float, float, float]:
    """Draw a Compton scatter after Klein and Nishina.

    Parameters
    ----------
    stream : Stream
    ratio : float
        Mass of the electron over the photon's energy.

    Returns
    -------
    share, sine, cosine : float
        Of the energy that the photon keeps; of its angle.
    """
    # The share is from 1/(1+2/ratio) to 1, with the density 1/s + s times a factor that is at most 1.
    lowest = 1.0 / (1.0 + 2.0 / ratio)
    weight1 = -math.log(lowest)
    weight2 = 0.5 * (1.0 - lowest * lowest)
    while True:
        if uniform(stream) * (weight1 + weight2) < weight1:
            share = math.exp(-weight1 * uniform(stream))
        else:
            share = math.sqrt(lowest * lowest + (1.0 - lowest * lowest) * uniform(stream))
        t = ratio * (1.0 - share) / share
        sine2 = max(0.0, t * (2.0 - t))
        if uniform(stream) < 1.0 - share * sine2 / (1.0 + share * share):
            return share, math.sqrt(sine2), 1.0 - t


@inner
def _follow_photon(stack: Floats, pending: int, scene: Scene, record: Record) -> int:
    """Move the photon `stack[pending]` to where it interacts and push what it makes; return the number pending."""
    air, tally, stream, row = scene.air, record.tally, record.stream, stack[pending]
    energy, path = row[ENERGY], row[PATH]
    x, y, z, ux, uy, uz = row[X], row[Y], row[Z], row[UX], row[UY], row[UZ]
    if energy < PHOTON_CUT:
        tally[DROPPED] += energy
        return pending
    x_depth = depth(z, air)
    ratio = ELECTRON_MASS / energy
    compton = _COMPTON * RADIATION_LENGTH * ratio * (math.log(2.0 / ratio) + 0.5)
    total = 1.0 + compton
    while True:
        x_depth += math.log(uniform(stream) + 1e-300) * RADIATION_LENGTH / total * uz
        if x_depth >= scene.ground_depth:
            tally[GROUND] += energy
            return pending
        scattered = uniform(stream) * total < compton
        share = 0.0
        if not scattered:
            share = uniform(stream)
            if not (ratio < share < 1.0 - ratio) or uniform(stream) >= pair_density(energy, share):
                continue  # a null collision
        after = height_at(x_depth, air)
        way = (z - after) / -uz
        x, y, z, path = x + ux * way, y + uy * way, after, path + way
        if tally[FIRST_HEIGHT] < 0.0:
            tally[FIRST_HEIGHT] = z
        if not scattered:
            charge = 1.0 if uniform(stream) < 0.5 else -1.0
            low, high = min(share, 1.0 - share), max(share, 1.0 - share)
            # The smaller partner is followed first, so the stack stays short.
            pending = _push(stack, pending, charge, energy * high, x, y, z, ux, uy, uz, path)
            return _push(stack, pending, -charge, energy * low, x, y, z, ux, uy, uz, path)
        share, sine, cosine = _compton(stream, ratio)
        phi = 2.0 * math.pi * uniform(stream)
        recoil, photon = energy * (1.0 - share), energy * share
        if recoil > PHOTON_CUT:
            momentum = math.sqrt(recoil * (recoil + 2.0 * ELECTRON_MASS))
            s_e = min(1.0, photon * sine / momentum)
            vx, vy, vz = turn(ux, uy, uz, s_e, math.sqrt(1.0 - s_e * s_e), phi + math.pi)
            pending = _push(stack, pending, -1.0, recoil, x, y, z, vx, vy, vz, path)
        else:
            tally[DROPPED] += recoil
        if photon > PHOTON_CUT:
            vx, vy, vz = turn(ux, uy, uz, sine, cosine, phi)
            return _push(stack, pending, 0.0, photon, x, y, z, vx, vy, vz, path)
        tally[DROPPED] += photon
        return pending


@inner
def scatter(
    stream: Stream,
    scene: Scene,
    ux: float,
    uy: float,
    uz: float,
    charge: float,
    energy: float,
    thickness: float,
    length: float,
) -> tuple[float, float, float]:
    """Return an electron's direction after multiple scattering in a thickness, g/cm2, and bending along a length, m.

    Parameters
    ----------
    stream : Stream
    scene : Scene
        With the field, T.
    ux, uy, uz : float
        A direction, a unit vector.
    charge : float
        In units of the positron's.
    energy : float
        GeV.
    thickness : float
        g/cm2.
    length : float
        m.
    """
    ux, uy, uz = bend(scene, ux, uy, uz, charge, energy, length)
    return deflect(stream, ux, uy, uz, energy, thickness)


@inner
def _follow_electron(stack: Floats, pending: int, losses: Floats, scene: Scene, record: Record) -> int:
    """Step the electron or positron `stack[pending]` until it makes something, falls below threshold, or lands.

    A step's scattering and bending are done in two parts, before and after a random place of it, at which the light's
    line is tangent. Each part moves the particle along a path with one kink at a random place of the part, which gives
    the mean square displacement of a scattered path and its correlation with the direction (the random hinge of
    J. Baro et al., Nucl. Instrum. Methods B 100 (1995) 31). So directions and places of emission have the right
    variance for steps of any length.
    """
    air, tally, stream, row = scene.air, record.tally, record.stream, stack[pending]
    kind, energy, path = row[KIND], row[ENERGY], row[PATH]
    x, y, z, ux, uy, uz = row[X], row[Y], row[Z], row[UX], row[UY], row[UZ]
    x_depth = depth(z, air)
    log_step = (_LOG_TOP - _LOG_LOW) / (losses.size - 1)
    while True:
        rho = density(x_depth, air)
        if energy * energy * rho < _THRESHOLD:
            tally[DROPPED] += energy
            return pending
        tally[STEPS] += 1.0
        log_energy = math.log(energy)
        brems = 4.0 / 3.0 / RADIATION_LENGTH * max(0.0, log_energy - _LOG_SOFT)
        highest = 0.5 * energy if kind < 0.0 else energy
        delta = _KNOCK_ON * (1.0 / DELTA_CUT - 1.0 / highest) if highest > DELTA_CUT else 0.0
        total = brems + delta
        limit = scene.step * min(0.05 * RADIATION_LENGTH, 27.5 * energy, 2.0e4 * rho)  # the last: 200 m
        # The way to the next interaction; its logarithm is needed only where it can be shorter than the step.
        chance = uniform(stream)
        free = -math.log(1.0 - chance) / total if chance < limit * total else limit + 1.0
        thickness = min(free, limit)
        middle = x_depth - 0.5 * thickness * uz
        rho = density(middle, air)
        way = 0.01 * thickness / rho
        before = uniform(stream)
        vx, vy, vz = scatter(stream, scene, ux, uy, uz, kind, energy, before * thickness, before * way)
        if -vz < 0.05:  # sideways or upward: never seen
            tally[DROPPED] += energy
            return pending
        to_ground = (scene.ground - z) / vz
        landed = to_ground <= way
        if landed:
            if to_ground <= 0.0:
                tally[GROUND] += energy
                return pending
            thickness *= to_ground / way
            way = to_ground
        place = (log_energy - _LOG_LOW) / log_step
        cell = min(int(place), losses.size - 2)
        lost = (losses[cell] + (losses[cell + 1] - losses[cell]) * (place - cell)) * thickness
        gamma = (energy - 0.5 * lost) / ELECTRON_MASS
        level = int(middle / PROFILE_STEP)
        if level < record.profile.size:
            record.profile[level] += thickness * -vz / PROFILE_STEP
        kink = before * way * uniform(stream)
        emit(
            scene, record, x + kink * (ux - vx), y + kink * (uy - vy), z + kink * (uz - vz), vx, vy, vz, way, rho,
            1.0 / (gamma * gamma), path, middle, 1.0,
        )  # fmt: skip
        if lost >= energy:
            tally[DEPOSITED] += energy
            return pending
        tally[DEPOSITED] += lost
        if landed:
            tally[GROUND] += energy - lost
            return pending
        after = 1.0 - before
        wx, wy, wz = scatter(stream, scene, vx, vy, vz, kind, energy - lost, after * thickness, after * way)
        last = after * way * uniform(stream)
        between = way - kink - last
        x, y, z = (
            x + kink * ux + between * vx + last * wx,
            y + kink * uy + between * vy + last * wy,
            z + kink * uz + between * vz + last * wz,
        )
        path += way
        ux, uy, uz = wx, wy, wz
        energy -= lost
        if -uz < 0.05:
            tally[DROPPED] += energy
            return pending
        x_depth = depth(z, air)
        if free > limit:
            continue
        if uniform(stream) * total < brems:
            share = math.exp((_LOG_SOFT - log_energy) * uniform(stream))
            if uniform(stream) * 4.0 / 3.0 < bremsstrahlung_density(energy, share):
                photon = energy * share
                energy -= photon
                if tally[FIRST_HEIGHT] < 0.0:
                    tally[FIRST_HEIGHT] = z
                if photon > PHOTON_CUT:
                    # Both are pushed and the softer is followed first, so the stack stays short.
                    one, other = (kind, 0.0) if photon < energy else (0.0, kind)
                    high, low = max(photon, energy), min(photon, energy)
                    pending = _push(stack, pending, one, high, x, y, z, ux, uy, uz, path)
                    return _push(stack, pending, other, low, x, y, z, ux, uy, uz, path)
                tally[DROPPED] += photon
        else:
            knock = 1.0 / (1.0 / DELTA_CUT - uniform(stream) * (1.0 / DELTA_CUT - 1.0 / highest))
            if knock < energy:
                sine2 = min(1.0, 2.0 * ELECTRON_MASS * (1.0 / knock - 1.0 / energy))
                vx, vy, vz = turn(ux, uy, uz, math.sqrt(sine2), math.sqrt(1.0 - sine2), 2.0 * math.pi * uniform(stream))
                if pending + 3 > stack.shape[0]:
                    tally[OVERFLOW] = 1.0
                    return pending
                pending = _push(stack, pending, -1.0, knock, x, y, z, vx, vy, vz, path)
                energy -= knock


@kernel
def cascade(start: Floats, losses: Floats, scene: Scene, record: Record) -> int:
    """Follow photons, electrons and positrons, and all they make, to the ground or below the threshold for light.

    Parameters
    ----------
    start : ndarray of shape (n, 9)
        Kind (0 photon, -1 electron, +1 positron), energy, place, direction, way gone.
    losses : ndarray
        Of `loss_table`.
    scene, record : Scene, Record
        Telescopes; storage. `record.tally` gets the energy deposited, dropped below threshold, and at the ground.

    Returns
    -------
    int
        0, or 1 if the stack overflowed (which needs 20,000 particles pending at once).
    """
    stack = np.empty((_STACK, COLUMNS))
    tally = record.tally
    for entry in range(start.shape[0]):
        stack[0] = start[entry]
        pending = 1
        while pending > 0:
            pending -= 1
            if pending + 3 > _STACK or tally[OVERFLOW] > 0.0:
                tally[OVERFLOW] = 1.0
                return 1
            if -stack[pending, UZ] < 0.05:  # sideways or upward: never seen
                tally[DROPPED] += stack[pending, ENERGY]
            elif stack[pending, KIND] == 0.0:
                pending = _follow_photon(stack, pending, scene, record)
            else:
                pending = _follow_electron(stack, pending, losses, scene, record)
    return 0


@kernel
def seed_kernels(seed: int) -> None:
    """Seed the random numbers that the kernels draw from (they have a state of their own)."""
    np.random.seed(seed)

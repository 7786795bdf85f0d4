"""What is thrown: energies, arrival directions and telescopes round the axis, drawn alike for every primary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from apbatch.sim.detector.observatory import camera_frame
from apbatch.sim.settings import POINT_GAMMA, PRIMARIES, Production, Spectrum

Floats = npt.NDArray[np.float64]

GAMMA, ELECTRON = "gamma", "electron"


@dataclass(frozen=True)
class Throw:
    """One shower before it is simulated.

    Attributes
    ----------
    shower : int
        Number in the production; says nothing about the primary.
    primary : str
        Its kind: a key of `apbatch.sim.settings.PRIMARIES`.
    energy : float
        GeV.
    direction : ndarray of shape (3,)
        Of flight (downward), in the frame of `Scene`.
    pointing_zenith, pointing_azimuth : float
        Of the telescopes, deg.
    source : tuple of float
        Arrival direction in the camera, deg.
    tracked : tuple of float
        Place in the camera of the source that the telescopes observe, deg: gammas of the source come from there.
    telescopes : ndarray of shape (n_uses x n_telescopes of an array, 3)
        Places, m, use by use; the axis meets the observation level at (0, 0).
    seed : int
        Of the kernels.
    """

    shower: int
    primary: str
    energy: float
    direction: Floats
    pointing_zenith: float
    pointing_azimuth: float
    source: tuple[float, float]
    telescopes: Floats
    seed: int
    tracked: tuple[float, float] = (0.0, 0.0)


def primaries(settings: Production) -> list[str]:
    """Return the primary of each shower: a random order drawn from the production's seed."""
    kinds = np.array([primary for primary, number in settings.thrown.items() for _ in range(number)])
    rng = np.random.default_rng(np.random.SeedSequence([*settings.entropy, 2]))
    return [str(kind) for kind in rng.permutation(kinds)]


def energy_from(spectrum: Spectrum, share: float) -> float:
    """Return the energy, TeV, below which a `share` of the spectrum lies."""
    low, high = spectrum.energy_min, spectrum.energy_max
    if not spectrum.energies:
        return _power_law(low, high, spectrum.index, share)
    if low == high:
        return low
    inside = [energy for energy in spectrum.energies if low < energy < high]
    edges = [low, *inside, high]
    logs = np.interp(np.log(edges), np.log(spectrum.energies), np.log(spectrum.flux))
    pieces, indices = [], []
    for first, (e1, e2) in enumerate(pairwise(edges)):
        index = float((logs[first + 1] - logs[first]) / math.log(e2 / e1))
        mean = e1 * _integral(e2 / e1, index)
        pieces.append(math.exp(logs[first]) * mean)
        indices.append(index)
    below = np.concatenate([[0.0], np.cumsum(pieces)]) / sum(pieces)
    piece = min(int(np.searchsorted(below, share, side="right")) - 1, len(pieces) - 1)
    rest = (share - below[piece]) / (below[piece + 1] - below[piece])
    return _power_law(edges[piece], edges[piece + 1], indices[piece], float(rest))


def _power_law(low: float, high: float, index: float, share: float) -> float:
    power = index + 1.0
    if abs(power) < 1e-9:
        return float(low * (high / low) ** share)
    return float((low**power + share * (high**power - low**power)) ** (1.0 / power))


def _integral(ratio: float, index: float) -> float:
    """Return the integral of x^index from 1 to `ratio`."""
    power = index + 1.0
    return math.log(ratio) if abs(power) < 1e-9 else (ratio**power - 1.0) / power


def random_of(settings: Production, shower: int) -> np.random.Generator:
    """Return the random numbers of one shower: they depend on the seed and its number alone."""
    return np.random.default_rng(np.random.SeedSequence([*settings.entropy, 3, shower]))


def around(towards: Floats, frame: Floats, radius: Floats, turn: Floats, altitude: float) -> Floats:
    """Return places on the ground, shape (n, 3), at distances across an axis that meets the ground at (0, 0).

    Parameters
    ----------
    towards : ndarray of shape (3,)
        Up the axis.
    frame : ndarray of shape (3, 3)
        Of the camera: its first row says where angles across the axis count from.
    radius, turn : ndarray of shape (n,)
        Distance, m; angle, rad.
    altitude : float
        Of the ground, m.
    """
    across = np.cross(towards, frame[0])
    across /= np.linalg.norm(across)
    other = np.cross(across, towards)
    places = radius[:, None] * (np.cos(turn)[:, None] * across + np.sin(turn)[:, None] * other)
    places -= places[:, 2:] / towards[2] * towards
    places[:, 2] = altitude
    return np.asarray(places)


@dataclass(frozen=True)
class Nuclear:
    """How a nucleus takes part in its first interaction: the semi-superposition model.

    Attributes
    ----------
    nucleons, charge : int
    energy : float
        Of one nucleon, GeV.
    share : float
        Quantile of the depth, as a free path.
    wounded : float
        Quantile of the number of nucleons that interact there; the others fly on as free nucleons.

    References
    ----------
    J. Engel, T. K. Gaisser, P. Lipari and T. Stanev, Phys. Rev. D 46 (1992) 5013. A. Bialas, M. Bleszynski and
    W. Czyz, Nucl. Phys. B 111 (1976) 461: A sigma(p air) / sigma(A air) nucleons are wounded on average.
    """

    nucleons: int
    charge: int
    energy: float
    share: float
    wounded: float


def nuclear(settings: Production, shower: int, primary: str) -> Nuclear:
    """Return the first interaction's random numbers, which are a stream of their own for each shower.

    Parameters
    ----------
    settings : Production
    shower, primary : int, str
        Number of the shower, and what makes it.
    """
    nucleons, charge, _ = PRIMARIES[primary]
    energy = 1000.0 * energy_from(settings.spectrum_of(primary), random_of(settings, shower).random())
    rng = np.random.default_rng(np.random.SeedSequence([*settings.entropy, 6, shower]))
    return Nuclear(nucleons, charge, energy / nucleons, rng.random(), rng.random())


def wounded_nucleons(nucleons: int, section_ratio: float, share: float) -> int:
    """Return how many nucleons of a nucleus interact: binomial without zero, of the mean that Bialas et al. give.

    Parameters
    ----------
    nucleons : int
        Of the nucleus.
    section_ratio : float
        Cross-section of a nucleon over that of the nucleus, on air.
    share : float
        Quantile.
    """
    if nucleons == 1:
        return 1
    mean = max(1.0, nucleons * section_ratio)
    low, high = 1e-9, 1.0
    for _ in range(60):  # the chance of one nucleon for which the truncated mean is right
        chance = 0.5 * (low + high)
        if nucleons * chance / (1.0 - (1.0 - chance) ** nucleons) < mean:
            low = chance
        else:
            high = chance
    weights = [math.comb(nucleons, n) * chance**n * (1.0 - chance) ** (nucleons - n) for n in range(1, nucleons + 1)]
    below = np.cumsum(weights) / sum(weights)
    return min(int(np.searchsorted(below, share, side="right")) + 1, nucleons)


def throw(settings: Production, shower: int, primary: str, rng: np.random.Generator) -> Throw:
    """Draw one shower. The same numbers are drawn in the same order whatever the primary is.

    Parameters
    ----------
    settings : Production
    shower, primary : int, str
        Number of the shower, and what makes it.
    rng : numpy.random.Generator
        The shower's own, from `random_of`.
    """
    energy = 1000.0 * energy_from(settings.spectrum_of(primary), rng.random())
    azimuth = 360.0 * rng.random()
    frame = camera_frame(settings.site.zenith, azimuth)
    cosine = 1.0 - (1.0 - math.cos(math.radians(settings.cone))) * rng.random()
    sine, beta = math.sqrt(max(0.0, 1.0 - cosine * cosine)), 2.0 * math.pi * rng.random()
    towards = np.array([sine * math.cos(beta), sine * math.sin(beta), cosine]) @ frame
    source = (math.degrees(sine * math.cos(beta) / cosine), math.degrees(sine * math.sin(beta) / cosine))
    # Every shower has a source, whether it comes from there or not: the source says nothing of the primary.
    offset, beta = math.tan(math.radians(settings.source_offset)), 2.0 * math.pi * rng.random()
    tracked = (math.degrees(offset * math.cos(beta)), math.degrees(offset * math.sin(beta)))
    if primary == POINT_GAMMA:
        source = tracked
        towards = np.array([offset * math.cos(beta), offset * math.sin(beta), 1.0]) @ frame
        towards /= np.linalg.norm(towards)
    # Uniform in the plane across the axis, then along the axis down to the ground.
    radius = settings.core_max * np.sqrt(rng.random(settings.telescopes))
    turn = 2.0 * math.pi * rng.random(settings.telescopes)
    places = around(towards, frame, radius, turn, settings.site.altitude)
    places = (places[:, None, :] + np.array(settings.array)).reshape(-1, 3)
    seed = int(rng.integers(1, 2**31))
    return Throw(shower, primary, energy, -towards, settings.site.zenith, azimuth, source, places, seed, tracked)

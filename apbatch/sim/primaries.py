"""What is thrown: energies, arrival directions and telescopes round the axis, drawn alike for every primary."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.sim.scene import camera_frame
from apbatch.sim.settings import Production, Spectrum

Floats = npt.NDArray[np.float64]

GAMMA, PROTON = "gamma", "proton"


@dataclass(frozen=True)
class Throw:
    """One shower before it is simulated.

    Attributes
    ----------
    shower : int
        Number in the production; says nothing about the primary.
    primary : str
        `gamma` or `proton`.
    energy : float
        GeV.
    direction : ndarray of shape (3,)
        Of flight (downward), in the frame of `Scene`.
    pointing_azimuth : float
        Of the telescopes, deg.
    source : tuple of float
        Arrival direction in the camera, deg.
    telescopes : ndarray of shape (n_telescopes, 3)
        Places, m; the axis meets the observation level at (0, 0).
    seed : int
        Of the kernels.
    """

    shower: int
    primary: str
    energy: float
    direction: Floats
    pointing_azimuth: float
    source: tuple[float, float]
    telescopes: Floats
    seed: int


def primaries(settings: Production) -> list[str]:
    """Return the primary of each shower: a random order drawn from the production's seed."""
    kinds = np.array([GAMMA] * settings.gammas + [PROTON] * settings.protons)
    rng = np.random.default_rng(np.random.SeedSequence([settings.seed, 2]))
    return [str(kind) for kind in rng.permutation(kinds)]


def energy_from(spectrum: Spectrum, share: float) -> float:
    """Return the energy, TeV, below which a `share` of the power law lies."""
    power = spectrum.index + 1.0
    low, high = spectrum.energy_min, spectrum.energy_max
    if abs(power) < 1e-9:
        return float(low * (high / low) ** share)
    return float((low**power + share * (high**power - low**power)) ** (1.0 / power))


def random_of(settings: Production, shower: int) -> np.random.Generator:
    """Return the random numbers of one shower: they depend on the seed and its number alone."""
    return np.random.default_rng(np.random.SeedSequence([settings.seed, 3, shower]))


def throw(settings: Production, shower: int, primary: str, rng: np.random.Generator) -> Throw:
    """Draw one shower. The same numbers are drawn in the same order whatever the primary is."""
    spectrum = settings.gamma if primary == GAMMA else settings.proton
    energy = 1000.0 * energy_from(spectrum, rng.random())
    azimuth = 360.0 * rng.random()
    frame = camera_frame(settings.site.zenith, azimuth)
    cosine = 1.0 - (1.0 - math.cos(math.radians(settings.cone))) * rng.random()
    sine, beta = math.sqrt(max(0.0, 1.0 - cosine * cosine)), 2.0 * math.pi * rng.random()
    towards = np.array([sine * math.cos(beta), sine * math.sin(beta), cosine]) @ frame
    source = (math.degrees(sine * math.cos(beta) / cosine), math.degrees(sine * math.sin(beta) / cosine))
    # Uniform in the plane across the axis, then along the axis down to the ground.
    radius = settings.core_max * np.sqrt(rng.random(settings.telescopes))
    turn = 2.0 * math.pi * rng.random(settings.telescopes)
    across = np.cross(towards, frame[0])
    across /= np.linalg.norm(across)
    other = np.cross(across, towards)
    places = radius[:, None] * (np.cos(turn)[:, None] * across + np.sin(turn)[:, None] * other)
    places -= places[:, 2:] / towards[2] * towards
    places[:, 2] = settings.site.altitude
    seed = int(rng.integers(1, 2**31))
    return Throw(shower, primary, energy, -towards, azimuth, source, places, seed)

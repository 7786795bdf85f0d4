"""Longitudinal profiles and the lateral density of light against published parametrisations.

Electrons: Greisen's formula for the mean number of all electrons of a gamma shower, times the share of them above the
threshold for light by Nerling's energy spectra at the shower's age. Protons: a Gaisser-Hillas function is fitted to the
mean profile. Light: photons of 300 to 600 nm on the ground by the distance from a vertical shower. The edge of the pool
of light is where the highest ring of any height falls, h tan(theta); its outer fall is compared with the inner level.

References
----------
K. Greisen, Prog. Cosmic Ray Phys. 3 (1956) 1. F. Nerling et al., Astropart. Phys. 24 (2006) 421 (energy spectra, their
equation 8). T. K. Gaisser and A. M. Hillas, Proc. 15th ICRC (Plovdiv) 8 (1977) 353.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from apbatch.errors import MissingSoftwareError
from apbatch.progress import Task
from apbatch.sim.atmosphere import RADIATION_LENGTH, REFRACTIVITY, atmosphere_named, density, depth
from apbatch.sim.electromagnetic import ELECTRON_MASS
from apbatch.sim.interactions import load_bank
from apbatch.sim.primaries import GAMMA, Throw
from apbatch.sim.scene import PROFILE_STEP
from apbatch.sim.settings import DetectorModel, Production, SiteModel
from apbatch.sim.shower import Simulator
from apbatch.sim.validation import plots
from apbatch.sim.validation.blocks import first_interactions
from apbatch.sim.validation.check import Check, Part
from apbatch.sim.validation.sizes import Size

Floats = npt.NDArray[np.float64]

_TITLE = "Profiles and light on the ground against parametrisations"
_SITE = SiteModel(atmosphere="us-standard", altitude=2200.0, zenith=0.0, aerosol_depth=0.0, ozone_column=0.0)
_AIR = atmosphere_named(_SITE.atmosphere)
#: Counts photons, not photo-electrons.
_COUNTER = DetectorModel(
    wavelengths=(299.0, 300.0, 600.0, 601.0),
    quantum_efficiency=(0.0, 1.0, 1.0, 0.0),
    efficiency=1.0,
    facets=0,
    guide_angles=(0.0, 90.0),
    guide_acceptance=(1.0, 1.0),
    psf=0.0,
)
#: Energy where ionisation and bremsstrahlung lose as much, GeV.
_CRITICAL = 0.086


def greisen(depths: Floats, energy: float) -> tuple[Floats, Floats]:
    """Return the mean number of electrons of a gamma shower of `energy` (GeV) at depths (g/cm2), and the age."""
    t = np.maximum(depths / RADIATION_LENGTH, 1e-3)
    beta = math.log(energy / _CRITICAL)
    age = 3.0 * t / (t + 2.0 * beta)
    return 0.31 / math.sqrt(beta) * np.exp(t * (1.0 - 1.5 * np.log(age))), age


def share_above(threshold: float, age: float) -> float:
    """Return the share of a shower's electrons (of 1 MeV or more) above a threshold, GeV, after Nerling et al."""
    a1, a2 = 6.42522 - 1.53183 * age, 168.168 - 42.1368 * age
    logs = np.linspace(0.0, math.log(1e7), 4000)  # ln(E/MeV)
    energy = np.exp(logs)
    spectrum = energy / ((energy + a1) * (energy + a2) ** age)
    above = logs >= math.log(1000.0 * threshold)
    return float(spectrum[above].sum() / spectrum.sum())


def compare(size: Size, seed: int, task: Task) -> Part:
    """Simulate vertical gammas and protons and compare their profiles and their light on the ground.

    Parameters
    ----------
    size : Size
        How many showers.
    seed : int
    task : Task
        Shows progress.
    """
    part = Part(_TITLE, (__doc__ or "").split("\n\n", 1)[1].split("\n\nReferences")[0])
    radii = np.array([20.0, 50.0, 80.0, 100.0, 120.0, 140.0, 160.0, 200.0, 250.0, 300.0, 400.0])
    settings = Production(gammas=1, protons=1, site=_SITE, detector=_COUNTER, seed=seed)
    simulator = Simulator(settings)
    simulator.optics = simulator.optics._replace(pixel_at=np.zeros((1201, 1201), np.int16), n_pixels=1)
    middles = (np.arange(110) + 0.5) * PROFILE_STEP
    curves, lateral = [], []
    for energy in (500.0, 5000.0):
        profiles, counts = [], np.zeros(len(radii))
        for number in range(size.profiles if energy > 1000.0 else 4 * size.profiles):
            thrown = _vertical(energy, GAMMA, radii, seed * 1000 + number)
            record = simulator.follow(thrown)
            profiles.append(record.profile)
            counts += np.bincount(record.pixel[: int(record.number[0])], minlength=4 * len(radii)).reshape(4, -1).sum(0)
            task.advance(1)
        mean = np.mean(profiles, axis=0)
        electrons, age = greisen(middles, energy)
        thresholds = [ELECTRON_MASS / math.sqrt(2.0 * REFRACTIVITY * density(x, _AIR)) for x in middles]
        expected = electrons * [share_above(th, s) for th, s in zip(thresholds, age, strict=True)]
        label = f"gamma, {energy / 1000:g} TeV"
        curves.append((label, middles, mean, expected))
        spread = np.std(profiles, axis=0) / math.sqrt(len(profiles))
        top_here, top_there = int(np.argmax(_smooth(mean))), int(np.argmax(expected))
        error = float(spread[top_there] / mean[top_there])
        x_here, x_there = _maximum(middles, mean), _maximum(middles, expected)
        # The depth of a single shower's maximum scatters by about one and a half radiation lengths.
        scatter = 1.5 * RADIATION_LENGTH / math.sqrt(len(profiles)) / x_there
        reached = middles < depth(_SITE.altitude, _AIR)
        for quantity, here, there, uncertain, aim in (
            ("depth of the maximum, g/cm2", x_here, x_there, scatter, 0.05),
            ("electrons above threshold at the maximum", mean[top_here], expected[top_there], error, 0.1),
            ("the same, sum over depth", mean[reached].sum(), expected[reached].sum(), error, 0.1),
        ):
            part.checks.append(
                Check("profile", quantity, label, float(here), float(there), uncertain, aim, len(profiles))
            )
        area = 4 * len(profiles) * _COUNTER.mirror_area
        lateral.append((label, radii, counts / area / (energy / 1000.0)))
        part.checks += _pool(label, radii, counts / area, len(profiles))
    part.figures.append(
        (
            "Electrons above the threshold for light (points) and Greisen's times Nerling's (line)",
            plots.profiles(curves),
        )
    )
    part.figures.append(("Photons of 300–600 nm a square metre and TeV at 2200 m", plots.lateral(lateral)))
    _protons(part, settings, size, seed, middles, task)
    return part


def _protons(part: Part, settings: Production, size: Size, seed: int, middles: Floats, task: Task) -> None:
    try:
        bank = load_bank(settings.banks)
    except MissingSoftwareError as error:
        part.missing = f"protons are left out: {error}"
        return
    simulator = Simulator(settings, bank)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 12]))
    depths, curves = [], []
    number = 4 * size.profiles
    for energy in (1000.0, 10000.0):
        firsts = first_interactions("proton", np.full(number, energy), rng)
        profiles = []
        for index, first in enumerate(firsts):
            thrown = _vertical(energy, "proton", np.array([100.0]), seed * 1000 + index)
            profiles.append(simulator.follow(thrown, first).profile)
            task.advance(1)
        mean = np.mean(profiles, axis=0)
        fitted, values = gaisser_hillas_fit(middles[:78], mean[:78])
        curves.append((f"proton, {energy / 1000:g} TeV", middles, mean, np.append(fitted, np.full(32, np.nan))))
        depths.append(values[1])
    part.figures.append(
        ("Protons: mean profile (points) and the Gaisser–Hillas function fitted (line)", plots.profiles(curves))
    )
    # Heitler and Matthews: a decade of energy deepens a proton's maximum by 2.3 X0 less what multiplicity and the
    # cross-section take, 58 g/cm2 (J. Matthews, Astropart. Phys. 22 (2005) 387).
    part.checks.append(
        Check("profile", "proton: elongation a decade, g/cm2", "1 to 10 TeV", depths[1] - depths[0], 58.0,
              75.0 * math.sqrt(2.0 / number) / 58.0, 0.2, 2 * number)
    )  # fmt: skip


def gaisser_hillas_fit(x: Floats, n: Floats) -> tuple[Floats, tuple[float, float, float]]:
    """Fit N ((X-X0)/(Xm-X0))^((Xm-X0)/l) exp((Xm-X)/l) with X0 = 0 to a profile where it is above a tenth of its top.

    Returns
    -------
    fitted : ndarray
        The function at `x`.
    N, Xm, l : tuple of float
    """
    used = n > 0.1 * n.max()
    # With X0 = 0, ln n = c + a ln X - X / l: linear in c, a and 1/l.
    design = np.column_stack([np.ones(used.sum()), np.log(x[used]), -x[used]])
    weights = np.sqrt(n[used])
    (c, a, inverse), *_ = np.linalg.lstsq(design * weights[:, None], np.log(n[used]) * weights, rcond=None)
    top = a / inverse
    fitted = np.exp(c + a * np.log(x) - inverse * x)
    return fitted, (float(np.exp(c + a * np.log(top) - inverse * top)), float(top), float(1.0 / inverse))


def _pool(label: str, radii: Floats, light: Floats, number: int) -> list[Check]:
    """Compare where the pool of light ends with the largest ring that any height makes."""
    heights = np.arange(_SITE.altitude + 100.0, 30000.0, 50.0)
    angles = np.sqrt([2.0 * REFRACTIVITY * density(depth(float(h), _AIR), _AIR) for h in heights])
    edge = float(((heights - _SITE.altitude) * np.tan(angles)).max())
    # The edge: the steepest relative fall.
    slopes = np.diff(np.log(np.maximum(light, 1e-9))) / np.diff(radii)
    steepest = int(np.argmin(np.where(radii[1:] < 260.0, slopes, 0.0)))
    here = 0.5 * float(radii[steepest] + radii[steepest + 1])
    return [Check("light", "edge of the pool of light, m", label, here, edge, 10.0 / edge, 0.1, number)]


def _smooth(values: Floats) -> Floats:
    return np.convolve(values, np.ones(5) / 5.0, mode="same")


def _maximum(x: Floats, n: Floats) -> float:
    """Return where a parabola through the top of a profile has its maximum."""
    near = np.flatnonzero(n > 0.85 * n.max())
    square, linear, _ = np.polyfit(x[near], np.log(n[near]), 2)
    return float(-linear / (2.0 * square))


def _vertical(energy: float, primary: str, radii: Floats, seed: int) -> Throw:
    angles = np.arange(4) * 0.5 * math.pi
    places = np.array([(r * math.cos(a), r * math.sin(a), _SITE.altitude) for a in angles for r in radii])
    return Throw(0, primary, energy, np.array([0.0, 0.0, -1.0]), 0.0, 0.0, (0.0, 0.0), places, seed + 1)

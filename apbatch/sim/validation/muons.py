"""Rings of single muons against geometry.

A muon that comes down through the mirror, along the axis, gives a ring whose radius is the Cherenkov angle of the air
above the telescope and whose light is that of the last R/tan(theta) of its way. An ideal mirror shows the angle itself;
the facets magnify and blur it, as far as `apbatch.sim.detector.optics` says.

References
----------
G. Vacanti et al., Astropart. Phys. 2 (1994) 1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from apbatch.progress import Task
from apbatch.sim.atmosphere import RADIATION_LENGTH, REFRACTIVITY, atmosphere_named, density, depth
from apbatch.sim.detector.cameras import camera_of
from apbatch.sim.detector.observatory import Optics, make_scene
from apbatch.sim.electromagnetic import seed_kernels
from apbatch.sim.hadronic import fly
from apbatch.sim.particles import MASSES, MUON
from apbatch.sim.scene import make_record
from apbatch.sim.settings import DetectorModel, SiteModel
from apbatch.sim.validation import plots
from apbatch.sim.validation.check import Check, Part
from apbatch.sim.validation.sizes import Size

Floats = npt.NDArray[np.float64]

_TITLE = "Muon rings against geometry"
_SITE = SiteModel(atmosphere="us-standard", zenith=0.0, magnetic_field=(0.0, 0.0, 0.0))
_ENERGY = 50.0  # GeV
#: Cells of a camera that resolves the ring: 0.03 deg; as many as fit 16 bits.
_CELL, _HALF = 0.03, 90
#: Metres above the mirror where a muon starts.
_START = 600.0


def compare(size: Size, seed: int, task: Task) -> Part:
    """Simulate muons through the middle of the mirror.

    Parameters
    ----------
    size : Size
        How many muons.
    seed : int
    task : Task
        Shows progress.
    """
    part = Part(_TITLE, (__doc__ or "").split("\n\n", 1)[1].split("\n\nReferences")[0])
    air = atmosphere_named(_SITE.atmosphere)
    rho = density(depth(_SITE.altitude + 80.0, air), air)  # half-way up the light that is caught
    sin2 = 2.0 * REFRACTIVITY * rho - (MASSES[MUON] / _ENERGY) ** 2
    angle = math.degrees(math.asin(math.sqrt(sin2)))
    rings = {}
    mirror = math.sqrt(DetectorModel().mirror_area / math.pi)
    for name, detector in (
        ("ideal mirror", DetectorModel(facets=0, psf=0.0)),
        ("34 facets", DetectorModel(psf=0.0)),
    ):
        u, v, counts = _rings(detector, size.muons, seed, task)
        r = np.hypot(u, v)
        rings[name] = r
        radius, number = float(np.median(r)), size.muons
        error = float(1.25 * r.std() / math.sqrt(len(r)) / radius)
        magnified = 1.0 if detector.facets == 0 else 1.0239  # see the tests of the optics
        part.checks.append(
            Check("muons", "radius of the ring, deg", name, radius, angle * magnified, error, 0.02, number)
        )
        if detector.facets == 0:
            optics = Optics.of(_SITE, detector, camera_of(detector))
            light_per_metre = float(
                np.interp(_SITE.altitude + 80.0, np.arange(optics.light.size) * 100.0, optics.light)
            )
            expected = light_per_metre * sin2 * mirror / math.tan(math.radians(angle))
            part.checks.append(
                Check("muons", "photo-electrons of the ring", name, float(counts.mean()), expected,
                      float(counts.std() / math.sqrt(number) / expected), 0.05, number)
            )  # fmt: skip
    # What blurs the ring: scattering between the start and the air that is seen (Highland, one plane; half of that air
    # on average), the change of the angle along it, and the cells. The place on the mirror does not matter: the focus
    # is at infinity.
    path = mirror / math.tan(math.radians(angle))
    thickness = 100.0 * rho * (_START - path / 2.0)
    scatter = 13.6e-3 / _ENERGY * math.sqrt(thickness / RADIATION_LENGTH)
    scatter *= 1.0 + 0.038 * math.log(thickness / RADIATION_LENGTH)
    change = math.degrees(path / 8700.0 / 2.0 * math.tan(math.radians(angle)) / math.sqrt(12.0))
    width = math.sqrt(math.degrees(scatter) ** 2 + change**2 + _CELL**2 / 6.0)
    here = _core_width(rings["ideal mirror"])
    part.checks.append(
        Check("muons", "width of the ring, deg", "ideal mirror", here, width,
              1.0 / math.sqrt(2.0 * size.muons), 0.3, size.muons)
    )  # fmt: skip
    caption = f"Distance of photo-electrons from the muon of {_ENERGY:g} GeV; the line is the angle of the air"
    part.figures.append((caption, plots.rings(rings, angle)))
    return part


def _core_width(r: Floats) -> float:
    low, high = np.quantile(r, [0.158, 0.842])
    return float(0.5 * (high - low))


def _rings(detector: DetectorModel, muons: int, seed: int, task: Task) -> tuple[Floats, Floats, Floats]:
    n = 2 * _HALF + 1
    optics = Optics.of(_SITE, detector, camera_of(detector))
    optics = optics._replace(pixel_at=np.arange(n * n, dtype=np.int16).reshape(n, n), n_pixels=n * n)
    place = np.array([[0.0, 0.0, _SITE.altitude]])
    scene = make_scene(optics, _SITE, detector, place, 0.0)._replace(lut_step=_CELL)
    us, vs, counts = [], [], np.zeros(muons)
    for number in range(muons):
        record = make_record(20_000, seed * 1000 + number + 1)
        seed_kernels(seed * 1000 + number + 1)
        start = _SITE.altitude + _START
        muon = np.array([float(MUON), 1.0, _ENERGY, 0.0, 0.0, start, 0.0, 0.0, -1.0, 0.0])
        fly(scene, record, muon, _START, 1.0)
        count = int(record.number[0])
        column, row = np.divmod(record.pixel[:count], n)
        jitter = np.random.default_rng(number).random((2, count)) - 0.5
        us.append((column - _HALF + jitter[0]) * _CELL)
        vs.append((row - _HALF + jitter[1]) * _CELL)
        counts[number] = count
        task.advance(1)
    return np.concatenate(us), np.concatenate(vs), counts

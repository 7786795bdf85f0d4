"""Whether electrons' steps are short enough: light, width and length by distance when steps are halved.

Within a step an electron's light has one direction, while on its way it is scattered by more than the Cherenkov angle.
How that is done must not show in images. A beam of a hundred photons of 20 GeV each, straight down from one depth, has
next to no fluctuations of its own, so differences of a percent can be seen. Telescopes stand in rings round it; light
is the mean of a ring, width and length are moments of the mean image of a telescope, above a twentieth of its brightest
pixel. The reference are steps an eighth as long, by the same code.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from apbatch.camera.hillas import hillas
from apbatch.progress import Task
from apbatch.sim.atmosphere import height_at
from apbatch.sim.detector.cameras import camera_of
from apbatch.sim.detector.observatory import Optics, make_scene
from apbatch.sim.electromagnetic import cascade, loss_table, seed_kernels
from apbatch.sim.scene import FIRST_HEIGHT, make_record
from apbatch.sim.settings import DetectorModel, SiteModel
from apbatch.sim.validation.check import Check, Part
from apbatch.sim.validation.sizes import Size

Floats = npt.NDArray[np.float64]

_TITLE = "Light, width and length when electrons' steps are halved"
QUANTITIES = ("light", "width", "length")
#: How much halving steps may change any of them.
AIM = 0.01
#: Steps over the usual ones that are compared, and the reference.
STEPS, FINEST = (1.0, 0.5), 0.125
DISTANCES = (30.0, 60.0, 90.0, 120.0, 150.0, 200.0, 300.0)
_TELESCOPES = 12  # a ring
_PHOTONS, _ENERGY, _DEPTH = 100, 20.0, 120.0  # GeV; g/cm2
_SITE, _DETECTOR = SiteModel(zenith=0.0), DetectorModel(efficiency=1.0)
_GROUPS = 4


class Measured(NamedTuple):
    """Means and their standard errors, shape (3, n_distances): of `QUANTITIES` at `DISTANCES`."""

    mean: Floats
    error: Floats


def measure(step: float, beams: int, seed: int, task: Task | None = None) -> Measured:
    """Simulate beams with steps of a length.

    Parameters
    ----------
    step : float
        Longest steps over the usual ones.
    beams : int
        How many; at least 4.
    seed : int
    task : Task, optional
        Gets one for each beam.
    """
    camera = camera_of(_DETECTOR)
    angles = 2.0 * math.pi * np.arange(_TELESCOPES) / _TELESCOPES
    places = np.array([(r * math.cos(a), r * math.sin(a), _SITE.altitude) for r in DISTANCES for a in angles])
    scene = make_scene(Optics.of(_SITE, _DETECTOR, camera), _SITE, _DETECTOR, places, 0.0, step)
    losses = loss_table()
    start = np.zeros((_PHOTONS, 9))
    start[:, 1], start[:, 4], start[:, 7] = _ENERGY, height_at(_DEPTH, scene.air), -1.0
    record = make_record(4_000_000, seed)
    images = np.zeros((_GROUPS, len(places), camera.n_pixels))
    seed_kernels(seed)
    for beam in range(beams):
        record.number[0], record.tally[:] = 0, 0.0
        record.tally[FIRST_HEIGHT] = -1.0
        cascade(start, losses, scene, record)
        pixel = record.pixel[: int(record.number[0])]
        images[beam % _GROUPS] += np.bincount(pixel, minlength=images[0].size).reshape(images[0].shape)
        if task:
            task.advance(1)
    groups = []
    for image in images:
        mask = image > 0.05 * image.max(axis=1, keepdims=True)
        moments = hillas(image.astype(np.float32), camera, mask)
        groups.append(
            [
                quantity.reshape(len(DISTANCES), _TELESCOPES).mean(axis=1)
                for quantity in (image.sum(axis=1) * _GROUPS / beams, moments["width"], moments["length"])
            ]
        )
    values = np.array(groups)
    return Measured(values.mean(axis=0), values.std(axis=0, ddof=1) / math.sqrt(_GROUPS))


def compare(size: Size, seed: int, task: Task) -> Part:
    """Compare usual and halved steps with the finest.

    Parameters
    ----------
    size : Size
        How many showers.
    seed : int
    task : Task
        Shows progress.
    """
    part = Part(_TITLE, (__doc__ or "").split("\n\n", 1)[1])
    fine = measure(FINEST, size.beams, seed, task)
    for number, step in enumerate(STEPS, start=1):
        coarse = measure(step, size.beams, seed + 1000 * number, task)
        for quantity, name in enumerate(QUANTITIES):
            for place, distance in enumerate(DISTANCES):
                here, there = coarse.mean[quantity, place], fine.mean[quantity, place]
                error = math.hypot(coarse.error[quantity, place] / here, fine.error[quantity, place] / there)
                where = f"steps x {step:g}, {distance:g} m"
                part.checks.append(Check("steps", name, where, here, there, error, AIM, size.beams))
    return part

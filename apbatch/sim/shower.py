"""One shower from its primary to the images of the telescopes that triggered."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import camera_named
from apbatch.errors import ApbatchError
from apbatch.sim.atmosphere import TOP, depth, height_at
from apbatch.sim.electromagnetic import cascade, loss_table, seed_kernels
from apbatch.sim.hadronic import UZ, Z, fly, hadron_cascade
from apbatch.sim.interactions import AIR_MASS, Bank, Events
from apbatch.sim.particles import PROTON as PROTON_CODE
from apbatch.sim.primaries import GAMMA, Throw, random_of, throw
from apbatch.sim.response import Camera, digitise, integrate, triggered
from apbatch.sim.scene import FIRST_HEIGHT, OVERFLOW, Optics, Record, Scene, make_record, make_scene
from apbatch.sim.settings import Production

Floats = npt.NDArray[np.float64]

_CAPACITY, _MOST = 400_000, 30_000_000


@dataclass(frozen=True)
class FirstInteraction:
    """The first interaction of a proton: secondaries and the cross-section that sets its depth."""

    event: Events
    section: float  # mb


@dataclass(frozen=True)
class Shower:
    """What came of one throw.

    Attributes
    ----------
    thrown : Throw
        The primary.
    telescope : ndarray of shape (n,)
        Which of the telescopes triggered.
    images : ndarray of shape (n, n_pixels), float32
        Their images, p.e.
    first_height : float
        First interaction, m above sea level; NaN if there was none.
    record : Record
        Energy balance and profiles.
    """

    thrown: Throw
    telescope: npt.NDArray[np.int64]
    images: npt.NDArray[np.float32]
    first_height: float
    record: Record


class Simulator:
    """Everything that all showers of a production share: tables, camera, bank.

    Parameters
    ----------
    settings : Production
        The production.
    bank : Bank, optional
        Of hadronic interactions; needed for protons only.
    """

    def __init__(self, settings: Production, bank: Bank | None = None) -> None:
        self.settings = settings
        geometry = camera_named(settings.detector.camera)
        self.optics = Optics.of(settings.site, settings.detector, geometry)
        self.camera = Camera.of(geometry, settings.detector, settings.seed)
        self.losses = loss_table()
        self.bank = bank

    def run(self, shower: int, primary: str, first: FirstInteraction | None = None) -> Shower:
        """Simulate the shower with this number; the result depends on settings and number alone.

        Raises
        ------
        ApbatchError
            If it has more light than fits in memory.
        """
        rng = random_of(self.settings, shower)
        thrown = throw(self.settings, shower, primary, rng)
        interaction_share = rng.random()
        capacity = _CAPACITY
        while True:
            record = self._follow(thrown, first, interaction_share, capacity)
            if record.tally[OVERFLOW] == 0.0:
                break
            capacity *= 4
            if capacity > _MOST:
                raise ApbatchError(
                    f"shower {shower} ({primary}, {thrown.energy / 1000:.4g} TeV) makes more light than fits in memory",
                    remedy="lower the highest energy or the number of telescopes",
                )
        images, telescope = self._images(thrown, record, rng)
        height = float(record.tally[FIRST_HEIGHT])
        return Shower(thrown, telescope, images, height if height >= 0.0 else math.nan, record)

    def _follow(self, thrown: Throw, first: FirstInteraction | None, share: float, capacity: int) -> Record:
        site, detector = self.settings.site, self.settings.detector
        scene = make_scene(self.optics, site, detector, thrown.telescopes, thrown.pointing_azimuth)
        record = make_record(capacity)
        record.tally[FIRST_HEIGHT] = -1.0
        seed_kernels(thrown.seed)
        cosine = -float(thrown.direction[2])
        to_top = (TOP - site.altitude) / cosine
        place = np.array([0.0, 0.0, site.altitude]) - thrown.direction * to_top
        start = [thrown.energy, *place, *thrown.direction, 0.0]
        if thrown.primary == GAMMA:
            electromagnetic = np.array([[0.0, *start]])
        else:
            electromagnetic = self._proton(np.array([float(PROTON_CODE), 1.0, *start]), first, share, scene, record)
        cascade(electromagnetic, self.losses, scene, record)
        return record

    def _proton(
        self, proton: Floats, first: FirstInteraction | None, share: float, scene: Scene, record: Record
    ) -> Floats:
        if first is None or self.bank is None:
            raise ValueError("a proton needs its first interaction and the bank")
        cosine = -float(proton[UZ])
        reached = -math.log(1.0 - share) * AIR_MASS / first.section * cosine
        lands = reached >= depth(self.settings.site.altitude)
        end = self.settings.site.altitude if lands else height_at(reached)
        fly(scene, record, proton, (float(proton[Z]) - end) / cosine)
        if lands:
            return np.empty((0, 9))
        record.tally[FIRST_HEIGHT] = end
        event = first.event
        handed: Floats = hadron_cascade(proton, event.code, event.charge, event.momentum, self.bank, scene, record)
        return handed

    def _images(
        self, thrown: Throw, record: Record, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        n_telescopes, n_pixels = len(thrown.telescopes), self.optics.n_pixels
        count = int(record.number[0])
        pixel, time = record.pixel[:count], record.time[:count]
        detector = self.settings.detector
        signal = integrate(pixel, time, n_telescopes, n_pixels, detector.integration_window)
        images = digitise(signal, self.camera, detector, rng)
        fired = np.flatnonzero(triggered(images, self.camera, detector))
        return images[fired].astype(np.float32), fired

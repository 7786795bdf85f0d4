"""One shower from its primary to the images of the telescopes that triggered."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.errors import ApbatchError
from apbatch.sim.atmosphere import TOP, height_at
from apbatch.sim.detector.cameras import camera_of
from apbatch.sim.detector.observatory import Optics, make_scene
from apbatch.sim.detector.response import Camera, digitise, integrate, triggered
from apbatch.sim.electromagnetic import cascade, loss_table, seed_kernels
from apbatch.sim.hadronic import ENERGY, UZ, Z, fly, hadron_cascade
from apbatch.sim.interactions import AIR_MASS, Bank, Events
from apbatch.sim.particles import MASSES, NEUTRON
from apbatch.sim.particles import PROTON as PROTON_CODE
from apbatch.sim.primaries import ELECTRON, GAMMA, Nuclear, Throw, random_of, throw
from apbatch.sim.scene import FIRST_HEIGHT, OVERFLOW, Record, Scene, make_record
from apbatch.sim.settings import PRIMARIES, Production

Floats = npt.NDArray[np.float64]

_CAPACITY, _MOST = 400_000, 30_000_000


@dataclass(frozen=True)
class FirstInteraction:
    """The first interaction of a nucleus: secondaries of each nucleon that takes part, and what sets its depth."""

    events: Events
    section: float  # mb
    primary: Nuclear


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
    times : ndarray of shape (n, n_pixels), float32
        Mean arrival times, ns from the start of the integration window.
    first_height : float
        First interaction, m above sea level; NaN if there was none.
    record : Record
        Energy balance and profiles.
    """

    thrown: Throw
    telescope: npt.NDArray[np.int64]
    images: npt.NDArray[np.float32]
    times: npt.NDArray[np.float32]
    first_height: float
    record: Record


class Simulator:
    """Everything that all showers of a production share: tables, camera, bank.

    Parameters
    ----------
    settings : Production
        The production.
    bank : Bank, optional
        Of hadronic interactions; needed for protons and nuclei only.
    step : float
        Longest steps of electrons over the usual ones: less than 1 for tests of convergence.
    """

    def __init__(self, settings: Production, bank: Bank | None = None, step: float = 1.0) -> None:
        self.settings = settings
        self.step = step
        geometry = camera_of(settings.detector)
        self.optics = Optics.of(settings.site, settings.detector, geometry)
        self.camera = Camera.of(geometry, settings.detector, len(settings.array))
        self.losses = loss_table()
        self.bank = bank

    def run(self, shower: int, primary: str, first: FirstInteraction | None = None) -> Shower:
        """Simulate the shower with this number; the result depends on settings and number alone.

        Parameters
        ----------
        shower, primary : int, str
            Number of the shower, and what makes it.
        first : FirstInteraction, optional
            A hadron's first interaction.

        Raises
        ------
        ApbatchError
            If it has more light than fits in memory.
        """
        rng = random_of(self.settings, shower)
        thrown = throw(self.settings, shower, primary, rng)
        record = self.follow(thrown, first)
        images, times, telescope = self._images(thrown, record, rng)
        height = float(record.tally[FIRST_HEIGHT])
        return Shower(thrown, telescope, images, times, height if height >= 0.0 else math.nan, record)

    def images_of(
        self, thrown: Throw, rng: np.random.Generator, first: FirstInteraction | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return amplitudes and arrival times, shape (n_telescopes, n_pixels), of all telescopes, and which fired.

        Parameters
        ----------
        thrown : Throw
        rng : numpy.random.Generator
            Draws noise and electronics.
        first : FirstInteraction, optional
            A hadron's first interaction.
        """
        return self._measure(thrown, self.follow(thrown, first), rng)

    def follow(self, thrown: Throw, first: FirstInteraction | None = None) -> Record:
        """Simulate a throw up to the photo-electrons.

        Raises
        ------
        ApbatchError
            If it has more light than fits in memory.
        """
        capacity = _CAPACITY
        while True:
            record = self._follow(thrown, first, capacity)
            if record.tally[OVERFLOW] == 0.0:
                return record
            capacity *= 4
            if capacity > _MOST:
                raise ApbatchError(
                    f"shower {thrown.shower} ({thrown.primary}, {thrown.energy / 1000:.4g} TeV) makes more light than "
                    "fits in memory",
                    remedy="lower the highest energy or the number of telescopes",
                )

    def _follow(self, thrown: Throw, first: FirstInteraction | None, capacity: int) -> Record:
        site = self.settings.site.model_copy(update={"zenith": thrown.pointing_zenith})
        detector = self.settings.detector
        scene = make_scene(self.optics, site, detector, thrown.telescopes, thrown.pointing_azimuth, self.step)
        record = make_record(capacity, thrown.seed)
        record.tally[FIRST_HEIGHT] = -1.0
        seed_kernels(thrown.seed)
        cosine = -float(thrown.direction[2])
        to_top = (TOP - site.altitude) / cosine
        place = np.array([0.0, 0.0, site.altitude]) - thrown.direction * to_top
        start = [*place, *thrown.direction, 0.0]
        if PRIMARIES[thrown.primary].particle == GAMMA:
            electromagnetic = np.array([[0.0, thrown.energy, *start]])
        elif thrown.primary == ELECTRON:
            electromagnetic = np.array([[-1.0, thrown.energy, *start]])
        else:
            electromagnetic = self._nucleus(start, first, scene, record)
        cascade(electromagnetic, self.losses, scene, record)
        return record

    def _nucleus(self, start: list[float], first: FirstInteraction | None, scene: Scene, record: Record) -> Floats:
        """Fly a nucleus to its first interaction and follow what comes of it and of the nucleons left over."""
        if first is None or self.bank is None:
            raise ValueError("a proton or nucleus needs its first interaction and the bank")
        primary = first.primary
        # One nucleon stands for all: the same velocity, and so the same light but for the charge squared.
        nucleon = np.array([float(PROTON_CODE), float(primary.charge), primary.energy, *start])
        cosine = -float(nucleon[UZ])
        reached = -math.log(1.0 - primary.share) * AIR_MASS / first.section * cosine
        lands = reached >= scene.ground_depth
        end = self.settings.site.altitude if lands else height_at(reached, scene.air)
        fly(scene, record, nucleon, (float(nucleon[Z]) - end) / cosine, float(primary.nucleons))
        if lands:
            return np.empty((0, 9))
        record.tally[FIRST_HEIGHT] = end
        code, charge, momentum = first.events.code, first.events.charge, first.events.momentum
        left = primary.nucleons - (len(first.events.offset) - 1)
        if left:
            protons = round(left * primary.charge / primary.nucleons)
            energy = float(nucleon[ENERGY])
            along = [energy, 0.0, 0.0, math.sqrt(energy**2 - MASSES[PROTON_CODE] ** 2)]
            code = np.concatenate([code, np.repeat([PROTON_CODE, NEUTRON], [protons, left - protons]).astype(np.int8)])
            charge = np.concatenate([charge, np.repeat([1, 0], [protons, left - protons]).astype(np.int8)])
            momentum = np.concatenate([momentum, np.tile(np.array(along, np.float32), (left, 1))])
        em_particles: Floats = hadron_cascade(nucleon, code, charge, momentum, self.bank, scene, record)
        return em_particles

    def _images(
        self, thrown: Throw, record: Record, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        images, times, fired = self._measure(thrown, record, rng)
        together = fired.reshape(-1, len(self.settings.array)).sum(axis=1) >= self.settings.array_trigger
        rows = np.flatnonzero(fired & np.repeat(together, len(self.settings.array)))
        return images[rows], times[rows], rows

    def _measure(
        self, thrown: Throw, record: Record, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        n_telescopes, n_pixels = len(thrown.telescopes), self.optics.n_pixels
        count = int(record.number[0])
        pixel, time = record.pixel[:count], record.time[:count]
        detector = self.settings.detector
        light = integrate(pixel, time, n_telescopes, n_pixels, detector.integration_window)
        signals = digitise(light, self.camera, detector, rng)
        fired = triggered(signals.fired_at, self.camera, detector)
        times = signals.time + 0.5 * detector.integration_window
        return signals.amplitude.astype(np.float32), times.astype(np.float32), fired

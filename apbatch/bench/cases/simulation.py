"""Simulation cases: showers on one core, against the same cascades without any telescope to give light to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from apbatch.bench.case import Case, Operation
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.errors import ApbatchError, MissingSoftwareError, VerificationError
from apbatch.sim.chunks import ProductionPlan, Worker, make_block
from apbatch.sim.primaries import primaries, random_of, throw
from apbatch.sim.settings import Production, Spectrum
from apbatch.sim.shower import FirstInteraction, Simulator
from apbatch.sim.validation import steps

OURS, BARE, MEMORY = "apbatch", "cascade alone", "images in memory"
_ENERGIES = Spectrum(energy_min=2.0, energy_max=20.0, index=-2.0)
_BEAMS = 16
#: Images of the size of a run that stand for one shower.
_IMAGES_A_SHOWER = 100


def simulation_groups(setting: Setting) -> Iterator[Group]:
    """Yield the groups of the suite: gammas, protons, steps of electrons, and gammas into files."""
    showers = max(4, setting.size.images // _IMAGES_A_SHOWER)
    for primary in ("gamma", "proton"):
        settings = _settings(primary, showers)
        operation = Operation(
            "sim",
            f"{primary} showers",
            f"{showers} {primary} showers of 2 to 20 TeV (index -2, mean {_mean(settings):.1f} TeV) seen by "
            f"{settings.telescopes} telescopes, up to their images in memory, on one core. {BARE}: the same cascades "
            "with no telescope and no detector, which is what the physics costs.",
            "showers/s",
            float(showers),
            BARE,
            None,
            "cpu",
        )
        try:
            plan = _plan(settings, setting.scratch / f"sim-{primary}")
        except (MissingSoftwareError, ApbatchError) as reason:
            setting.left_out[f"{OURS}, {operation.name}"] = str(reason)
            continue
        yield Group(operation, [_Showers(operation, OURS, plan), _Showers(operation, BARE, plan)])
    operation = Operation(
        "sim",
        "steps of electrons",
        f"{_BEAMS} beams of 100 photons of 20 GeV over 84 telescopes, with the usual steps of electrons, half and an "
        "eighth of them. Light, width and length at seven distances must be those of the shortest steps to "
        f"{100 * steps.AIM:.0f} % and four standard errors.",
        "showers/s",
        float(100 * _BEAMS),
        None,
        None,
        "cpu",
    )
    finest = _Steps(operation, f"steps x {steps.FINEST:g}", steps.FINEST, None)
    yield Group(operation, [finest, *(_Steps(operation, f"steps x {one:g}", one, finest) for one in steps.STEPS)])
    settings = _settings("gamma", showers)
    operation = Operation(
        "sim",
        "gamma showers into files",
        f"The same gammas in chunks of {settings.showers_per_chunk} that are written whole, as a production writes "
        f"them. {MEMORY}: without files.",
        "showers/s",
        float(showers),
        MEMORY,
        None,
        "cpu",
    )
    plan = _plan(settings, setting.scratch / "sim-files")
    yield Group(operation, [_Files(operation, plan), _Showers(operation, MEMORY, plan)])


def _settings(primary: str, showers: int) -> Production:
    gammas = showers if primary == "gamma" else 0
    return Production(gammas=gammas, protons=showers - gammas, seed=2018, gamma=_ENERGIES, proton=_ENERGIES)


def _mean(settings: Production) -> float:
    kinds = primaries(settings)
    return (
        float(np.mean([throw(settings, n, kind, random_of(settings, n)).energy for n, kind in enumerate(kinds)])) / 1e3
    )


def _plan(settings: Production, folder: Path) -> ProductionPlan:
    plan = ProductionPlan(settings, folder)
    for block, showers in plan.blocks().items():
        make_block(plan, block, showers)
    return plan


class _Showers(Case):
    """Showers one after another in this process; without telescopes if it is the bare cascade."""

    def __init__(self, operation: Operation, peer: str, plan: ProductionPlan) -> None:
        super().__init__(operation, peer)
        self.plan = plan
        self.images = 0
        self.expected = -1

    def set_up(self) -> None:
        worker = Worker(self.plan)
        self.simulator: Simulator = worker.simulator
        settings = self.plan.settings
        self.throws = []
        self.firsts: list[FirstInteraction | None] = []
        for number, kind in enumerate(worker.kinds):
            thrown = throw(settings, number, kind, random_of(settings, number))
            if self.peer == BARE:
                thrown = type(thrown)(**{**thrown.__dict__, "telescopes": thrown.telescopes[:0]})
            self.throws.append(thrown)
            self.firsts.append(worker.first_of(number))

    def run(self) -> None:
        if self.peer == BARE:
            for thrown, first in zip(self.throws, self.firsts, strict=True):
                self.simulator.follow(thrown, first)
            return
        self.images = 0
        for thrown, first in zip(self.throws, self.firsts, strict=True):
            self.images += len(self.simulator.run(thrown.shower, thrown.primary, first).images)

    def check(self) -> None:
        if self.peer == BARE:
            return
        if self.expected < 0:
            self.expected = self.images
        if self.images == 0 or self.images != self.expected:
            raise VerificationError(f"{self.images} images, {self.expected} in the round before")


class _Steps(Case):
    """Beams of photons with steps of one length; `finest` has the shortest ones."""

    def __init__(self, operation: Operation, peer: str, step: float, finest: _Steps | None) -> None:
        super().__init__(operation, peer)
        self.step, self.finest = step, finest
        self.measured: steps.Measured | None = None

    def set_up(self) -> None:
        steps.measure(8.0, 4, 1)  # compiles, at little cost

    def run(self) -> None:
        self.measured = steps.measure(self.step, _BEAMS, int(1000 * self.step))

    def check(self) -> None:
        fine = self.finest.measured if self.finest else None
        if self.measured is None or fine is None:
            return
        off = np.abs(self.measured.mean / fine.mean - 1.0)
        # Errors of four groups scatter themselves: those of a quantity are taken together.
        error = np.sqrt(((self.measured.error**2 + fine.error**2) / fine.mean**2).mean(axis=1))
        wrong = np.argwhere(off > steps.AIM + 4.0 * error[:, None])
        if len(wrong):
            quantity, place = wrong[0]
            raise VerificationError(
                f"{steps.QUANTITIES[quantity]} at {steps.DISTANCES[place]:g} m moved by {off[quantity, place]:.1%} "
                f"(standard error {error[quantity]:.1%}) between steps x {self.step:g} and x {steps.FINEST:g}"
            )


class _Files(Case):
    """Chunks of a production, written and thrown away."""

    def __init__(self, operation: Operation, plan: ProductionPlan) -> None:
        super().__init__(operation, OURS)
        self.plan = plan

    def set_up(self) -> None:
        self.worker = Worker(self.plan)

    def prepare(self) -> None:
        shutil.rmtree(self.plan.folder / "chunks", ignore_errors=True)

    def run(self) -> None:
        for chunk in range(self.plan.chunks):
            self.worker.make(chunk)

    def check(self) -> None:
        if any(not self.plan.file_of(chunk).is_file() for chunk in range(self.plan.chunks)):
            raise VerificationError("a chunk is missing")

"""The simulation suite: its cases do their work, and what can't take part says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from apbatch.bench.cases import simulation
from apbatch.bench.runner import run_group
from apbatch.bench.samples import Sample
from apbatch.bench.sizes import BUILT_IN
from apbatch.bench.suite import Setting
from apbatch.bench.suites import SUITES
from apbatch.errors import MissingSoftwareError
from apbatch.sim.chunks import ProductionPlan
from apbatch.sim.settings import Production, Spectrum


class NoServers:
    def endpoint(self, server: str, name: str) -> str:
        raise AssertionError("no server is wanted")


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """Four gammas of little energy, four beams, and no generator of hadronic interactions."""
    plan = simulation._plan

    def without_protons(settings: Production, folder: Path) -> ProductionPlan:
        if settings.protons:
            raise MissingSoftwareError("chromo is not installed", remedy="pip install chromo")
        return plan(settings, folder)

    monkeypatch.setattr(simulation, "_plan", without_protons)
    monkeypatch.setattr(simulation, "_BEAMS", 4)
    monkeypatch.setattr(simulation, "_ENERGIES", Spectrum(energy_min=2.0, energy_max=2.5, index=-2.0))
    return Setting(BUILT_IN["smoke"].model_copy(update={"images": 400}), NoServers(), tmp_path)


@pytest.mark.campaign
def test_gammas_are_simulated_with_and_without_telescopes_and_into_files(setting: Setting) -> None:
    samples: list[Sample] = []
    groups = list(simulation.simulation_groups(setting))
    assert len(groups) + len(setting.left_out) == SUITES["sim"].operations
    assert "chromo" in setting.left_out["apbatch, proton showers"]
    for group in groups:
        run_group(group, 1, samples.append)
    assert {sample.error for sample in samples} == {None}
    assert {sample.peer for sample in samples} >= {simulation.OURS, simulation.BARE, simulation.MEMORY}
    assert all(sample.figure > 0 for sample in samples)


def test_a_case_without_images_is_out(setting: Setting) -> None:
    group = next(iter(simulation.simulation_groups(setting)))
    case = group.cases[0]
    case.expected = case.images = 0
    with pytest.raises(simulation.VerificationError, match="0 images"):
        case.check()

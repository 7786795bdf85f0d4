"""What is thrown: spectra, nuclei, point sources, arrays of telescopes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from apbatch.camera.instruments.registry import camera_named
from apbatch.sim import hadronic
from apbatch.sim.atmosphere import depth
from apbatch.sim.detector.observatory import Optics, camera_frame, make_scene
from apbatch.sim.electromagnetic import seed_kernels
from apbatch.sim.primaries import energy_from, nuclear, primaries, random_of, throw, wounded_nucleons
from apbatch.sim.scene import EMITTED, make_record
from apbatch.sim.settings import PRIMARIES, DetectorModel, Production, SiteModel, Spectrum
from apbatch.sim.shower import Simulator


def test_energies_follow_a_spectrum_given_at_points() -> None:
    energies, flux = (1.0, 4.0, 20.0, 100.0), (50.0, 3.0, 0.02, 0.004)
    spectrum = Spectrum(energy_min=2, energy_max=60, energies=energies, flux=flux)
    drawn = np.array([energy_from(spectrum, share) for share in (np.arange(20000) + 0.5) / 20000])
    assert (drawn.min() >= 2.0, drawn.max() <= 60.0) == (True, True)
    grid = np.geomspace(2, 60, 20001)
    density = np.exp(np.interp(np.log(grid), np.log(energies), np.log(flux)))
    below = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
    for cut in (3.0, 4.0, 10.0, 30.0):
        assert (drawn < cut).mean() == pytest.approx(np.interp(cut, grid, below) / below[-1], abs=1e-3)


@pytest.mark.parametrize("points", [{}, {"energies": (1, 10), "flux": (1, 0.1)}, {"energies": (5, 10), "flux": (1, 1)}])
def test_a_spectrum_of_one_energy_has_that_energy(points: dict[str, tuple[float, ...]]) -> None:
    spectrum = Spectrum.model_validate({"energy_min": 5, "energy_max": 5, **points})
    assert [energy_from(spectrum, share) for share in (0.0, 0.5, 0.999)] == pytest.approx([5.0] * 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"energies": (1, 2), "flux": (1,)},
        {"energies": (2, 1), "flux": (1, 1)},
        {"energies": (1, 100), "flux": (1, 0)},
        {"energies": (3, 100), "flux": (1, 1)},
    ],
)
def test_a_spectrum_that_makes_no_sense_is_refused(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValidationError):
        Spectrum.model_validate({"energy_min": 2, "energy_max": 60, **wrong})


@pytest.mark.parametrize(("nucleons", "ratio"), [(4, 0.57), (56, 0.164), (56, 0.01)])
def test_the_mean_number_of_wounded_nucleons_is_the_ratio_of_cross_sections(nucleons: int, ratio: float) -> None:
    numbers = [wounded_nucleons(nucleons, ratio, share) for share in (np.arange(4000) + 0.5) / 4000]
    assert (min(numbers) >= 1, max(numbers) <= nucleons) == (True, True)
    assert np.mean(numbers) == pytest.approx(max(1.0, nucleons * ratio), rel=0.02)


def test_a_proton_is_one_nucleon_whatever_the_draw() -> None:
    assert {wounded_nucleons(1, 1.0, share) for share in (0.0, 0.5, 0.999)} == {1}


def test_a_nucleon_of_iron_has_a_56th_of_the_energy() -> None:
    settings = Production(gammas=0, protons=0, iron_nuclei=5)
    energy = throw(settings, 2, "iron", random_of(settings, 2)).energy
    assert nuclear(settings, 2, "iron").energy == pytest.approx(energy / 56)


def test_iron_too_slow_for_the_generator_is_refused_but_only_if_it_is_thrown() -> None:
    slow = Spectrum(energy_min=2, energy_max=10)
    Production(iron=slow)
    with pytest.raises(ValidationError, match=r"iron.*4\.48 TeV"):
        Production(iron=slow, iron_nuclei=1)


def test_a_nucleus_gives_light_by_its_charge_squared_and_bends_by_its_rigidity() -> None:
    site, detector = SiteModel(zenith=0.0, magnetic_field=(0.0, 50.0, 0.0)), DetectorModel()
    optics = Optics.of(site, detector, camera_named("TAIGA-IACT01"))
    scene = make_scene(optics, site, detector, np.array([[5000.0, 0.0, site.altitude]]), 0.0)
    length, energy = 25000.0, 1e5
    bent = 0.299792458 * 50e-6 * length / energy  # rad, of a proton
    thickness = depth(60000.0 - length, scene.air) - depth(60000.0, scene.air)
    # Scattering in one plane (Highland); a nucleus of charge Z and A nucleons of this energy has Z/A of both.
    scattered = 13.6e-3 / energy * math.sqrt(thickness / 36.66) * (1.0 + 0.038 * math.log(thickness / 36.66))
    assert scattered < 0.05 * bent
    seed_kernels(5)
    light = {}
    for nucleons, charge, _ in PRIMARIES.values():
        if nucleons:
            record = make_record()
            particle = np.array([7.0, charge, energy, 0.0, 0.0, 60000.0, 0.0, 0.0, -1.0, 0.0])
            hadronic.fly(scene, record, particle, length, float(nucleons))
            light[charge] = record.tally[EMITTED]
            # `fly` scatters a nucleus as one nucleon, by 1/p alone.
            assert abs(particle[6]) == pytest.approx(bent * charge / nucleons, abs=4.0 * scattered)
    assert light[26] / light[1] == pytest.approx(676.0, rel=0.02)
    assert light[2] / light[1] == pytest.approx(4.0, rel=0.02)


def test_point_gammas_come_from_the_source_and_all_others_from_the_cone() -> None:
    settings = Production(cone=3.0, source_offset=1.22)
    thrown = {
        kind: [throw(settings, number, kind, random_of(settings, number)) for number in range(300)]
        for kind in ("point gamma", "gamma", "proton")
    }
    for one in thrown["point gamma"]:
        assert one.source == one.tracked
        pointing = camera_frame(one.pointing_zenith, one.pointing_azimuth)[2]
        assert math.degrees(math.acos(float(-one.direction @ pointing))) == pytest.approx(1.22, abs=1e-6)
    for kind in ("gamma", "proton"):
        assert len({one.source for one in thrown[kind]}) == 300
        assert not {one.source for one in thrown[kind]} & {one.tracked for one in thrown[kind]}
        # The source says nothing of the primary: it is the same draw for all.
        assert [one.tracked for one in thrown[kind]] == [one.tracked for one in thrown["point gamma"]]
    azimuth = np.array([math.atan2(one.tracked[1], one.tracked[0]) for one in thrown["proton"]])
    assert abs(np.exp(1j * azimuth).mean()) < 3.0 / math.sqrt(2.0 * 300) * math.sqrt(2.0)


def test_other_runs_of_a_seed_are_other_showers() -> None:
    one, other = Production(run=1), Production(run=2)
    assert throw(one, 3, "gamma", random_of(one, 3)).seed != throw(other, 3, "gamma", random_of(other, 3)).seed
    assert primaries(one) != primaries(other)


def test_an_array_keeps_its_shape_wherever_the_shower_falls() -> None:
    array = ((0.0, 0.0, 0.0), (120.0, 0.0, 5.0), (0.0, -80.0, 0.0))
    settings = Production(array=array, telescopes=4)
    places = throw(settings, 1, "gamma", random_of(settings, 1)).telescopes.reshape(4, 3, 3)
    assert places - places[:, :1] == pytest.approx(np.broadcast_to(array, (4, 3, 3)))
    assert len(np.unique(places[:, 0, 0])) == 4


def test_an_array_trigger_wants_several_telescopes_of_one_use() -> None:
    settings = Production(
        gammas=3, protons=0, telescopes=6, core_max=200.0, cone=1.0, array=((0, 0, 0), (100, 0, 0)), array_trigger=2,
        gamma=Spectrum(energy_min=3, energy_max=4, index=-2.6),
    )  # fmt: skip
    shower = Simulator(settings).run(0, "gamma")
    uses, counts = np.unique(shower.telescope // 2, return_counts=True)
    assert len(uses) > 0
    assert set(counts) == {2}
    assert shower.times.shape == shower.images.shape == (len(shower.telescope), 560)
    both = Simulator(settings.model_copy(update={"array_trigger": 1})).run(0, "gamma")
    assert set(shower.telescope) <= set(both.telescope)


def test_an_electron_makes_a_shower_like_a_gamma_of_its_energy() -> None:
    settings = Production(
        gammas=1, electrons=1, telescopes=1,
        gamma=Spectrum(energy_min=2, energy_max=2), electron=Spectrum(energy_min=2, energy_max=2),
    )  # fmt: skip
    simulator = Simulator(settings)
    light = {kind: np.mean([simulator.run(n, kind).record.tally[EMITTED] for n in range(6)]) for kind in
             ("gamma", "electron")}  # fmt: skip
    assert light["electron"] / light["gamma"] == pytest.approx(1.0, abs=0.12)
    assert simulator.run(1, "electron").first_height > 20000.0

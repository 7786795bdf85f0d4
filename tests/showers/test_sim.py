"""The air-shower Monte Carlo against hand-worked numbers, conservation laws and textbook behaviour."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest

from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import MissingSoftwareError, UsageError
from apbatch.sim import atmosphere, electromagnetic, hadronic, interactions
from apbatch.sim.detector.observatory import Optics, make_scene, pixel_table
from apbatch.sim.detector.response import Camera, Light, digitise, integrate, over_threshold, triggered
from apbatch.sim.interactions import AIR_MASS, Bank
from apbatch.sim.particles import MASSES, MUON, PI_ZERO, PION, PROTON, codes_of, is_produced
from apbatch.sim.primaries import energy_from, primaries, random_of, throw
from apbatch.sim.production import simulate
from apbatch.sim.scene import DEPOSITED, DROPPED, FIRST_HEIGHT, GROUND, Record, Scene, make_record
from apbatch.sim.settings import DetectorModel, Production, SiteModel, Spectrum, load_production
from apbatch.sim.stream import make_stream, uniform

SITE = SiteModel(atmosphere="us-standard", zenith=0.0, magnetic_field=(0.0, 0.0, 0.0))
DETECTOR, AIR = DetectorModel(), atmosphere.atmosphere_named(SITE.atmosphere)
CAMERA = "TAIGA-IACT01"


@pytest.fixture(scope="module")
def optics() -> Optics:
    return Optics.of(SITE, DETECTOR, camera_named(CAMERA))


def scene_with(optics: Optics, telescopes: list[tuple[float, float]]) -> Scene:
    places = np.array([(x, y, SITE.altitude) for x, y in telescopes])
    return make_scene(optics, SITE, DETECTOR, places, 0.0)


def gamma(energy: float, scene: Scene, seed: int) -> Record:
    record = make_record(seed=seed)
    record.tally[FIRST_HEIGHT] = -1.0
    electromagnetic.seed_kernels(seed)
    start = np.array([[0.0, energy, 0.0, 0.0, atmosphere.TOP, 0.0, 0.0, -1.0, 0.0]])
    electromagnetic.cascade(start, electromagnetic.loss_table(), scene, record)
    return record


ATMOSPHERES = pytest.mark.parametrize("name", ["us-standard", "tunka-winter"])


def test_depth_of_the_standard_atmosphere_at_sea_level_and_11_km() -> None:
    assert atmosphere.depth(0.0, AIR) == pytest.approx(1036.1, abs=0.1)
    # US standard atmosphere 1976: 226.32 hPa at 11 km, i.e. 230.8 g/cm2.
    assert atmosphere.depth(11000.0, AIR) == pytest.approx(230.8, rel=0.02)


def test_depth_and_density_of_the_winter_at_tunka_are_those_of_nrlmsise_00() -> None:
    winter = atmosphere.atmosphere_named("tunka-winter")
    # Densities of NRLMSISE-00, 51.8 N, 103.1 E, 15 January, kg/m3, and depths, their integral from above.
    for height, x, rho in ((0.0, 1034.34, 1.31076), (5000.0, 532.40, 0.75475), (10000.0, 250.09, 0.39525),
                           (20000.0, 51.931, 0.081413)):  # fmt: skip
        assert atmosphere.depth(height, winter) == pytest.approx(x, rel=0.003)
        assert atmosphere.density(x, winter) == pytest.approx(1e-3 * rho, rel=0.02)


@ATMOSPHERES
@pytest.mark.parametrize("height", [0.0, 675.0, 5000.0, 20000.0, 60000.0, 105000.0])
def test_height_and_depth_are_inverse(height: float, name: str) -> None:
    air = atmosphere.atmosphere_named(name)
    assert atmosphere.height_at(atmosphere.depth(height, air), air) == pytest.approx(height, rel=1e-6, abs=1e-3)


@ATMOSPHERES
@pytest.mark.parametrize("height", [100.0, 7000.0, 25000.0, 80000.0])
def test_density_is_the_slope_of_the_depth(height: float, name: str) -> None:
    air = atmosphere.atmosphere_named(name)
    slope = (atmosphere.depth(height - 1.0, air) - atmosphere.depth(height + 1.0, air)) / 200.0  # per cm
    assert atmosphere.density(atmosphere.depth(height, air), air) == pytest.approx(slope, rel=1e-4)


@ATMOSPHERES
def test_depth_has_no_steps_between_layers(name: str) -> None:
    air = atmosphere.atmosphere_named(name)
    for top, x in air[:4, :2]:
        assert atmosphere.depth(top - 1e-6, air) == pytest.approx(x, rel=1e-4)
        assert atmosphere.depth(top + 1e-6, air) == pytest.approx(x, rel=1e-9)


def test_ozone_takes_light_at_300_and_at_600_nm_as_its_column_and_cross_section_say() -> None:
    # Light from 30 km to sea level, straight down, crosses 93 % of 300 Dobson units after Green's formula (peak at
    # 20 km, 4.5 km): at 604.6 nm 1 - exp(-0.93 x 300 x 2.687e16 x 5.18e-21) = 3.8 %, at 302.15 nm 89 %.
    for wavelength, lost in ((604.613, 0.038), (302.15, 0.89)):
        curve = (wavelength - 0.02, wavelength - 0.01, wavelength + 0.01, wavelength + 0.02)
        detector = DetectorModel(wavelengths=curve, quantum_efficiency=(0.0, 1.0, 1.0, 0.0))
        without, with_ozone = (
            atmosphere.light_yield(SiteModel(altitude=0.0, zenith=0.0, ozone_column=column), detector)[300]
            for column in (0.0, 300.0)
        )
        assert 1.0 - with_ozone / without == pytest.approx(lost, rel=0.04)


def test_an_electron_below_the_cherenkov_threshold_gives_no_light_and_one_above_does(optics: Optics) -> None:
    from apbatch.sim.cherenkov import emit
    from apbatch.sim.scene import EMITTED

    x_depth = atmosphere.depth(5000.0, AIR)
    rho = atmosphere.density(x_depth, AIR)
    threshold = 1.0 / math.sqrt(2.0 * 2.83e-4 * rho / 1.225e-3)  # gamma at which n beta = 1
    for factor, lit in ((0.99, False), (1.01, True)):
        record = make_record()
        scene = scene_with(optics, [(50.0, 0.0)])
        emit(scene, record, 0.0, 0.0, 5000.0, 0.0, 0.0, -1.0, 10.0, rho, (threshold * factor) ** -2, 0.0, x_depth, 1.0)
        assert bool(record.tally[EMITTED] > 0.0) is lit


def test_forced_sampling_gives_the_light_that_tracing_every_photon_gives(optics: Optics) -> None:
    # A vertical track from 8000 m down to 6000 m; a mirror of radius R at the distance b catches, of the light made
    # at the height h, the share of the ring of radius (h - ground) tan(theta) that lies within R of it.
    from apbatch.sim.cherenkov import emit

    distance, scene = 100.0, scene_with(optics, [(100.0, 0.0)])
    scene = scene._replace(light=50.0 * scene.light)  # enough photons for a sharp comparison
    rng, expected = np.random.default_rng(1), 0.0
    steps = np.arange(8000.0, 6000.0, -10.0)
    record = make_record()
    electromagnetic.seed_kernels(3)
    for _ in range(60):
        for top in steps:
            x_depth = atmosphere.depth(top - 5.0, AIR)
            rho = atmosphere.density(x_depth, AIR)
            emit(scene, record, 0.0, 0.0, top, 0.0, 0.0, -1.0, 10.0, rho, 1e-9, 0.0, x_depth, 1.0)
    for top in steps:
        heights = top - 10.0 * rng.random(60000)
        sin2 = 2.0 * 2.83e-4 * atmosphere.density(atmosphere.depth(top - 5.0, AIR), AIR) / 1.225e-3
        ring = (heights - SITE.altitude) * math.tan(math.asin(math.sqrt(sin2)))
        phi = 2.0 * math.pi * rng.random(60000)
        hit = np.hypot(ring * np.cos(phi) - distance, ring * np.sin(phi)) < scene.radius
        yield_here = 50.0 * np.interp(top - 5.0, np.arange(optics.light.size) * 100.0, optics.light)
        expected += 60 * yield_here * sin2 * 10.0 * hit.mean()
    assert expected > 1000
    assert record.number[0] == pytest.approx(expected, abs=4.0 * math.sqrt(expected) + 0.03 * expected)


def test_energy_of_an_electromagnetic_shower_is_conserved(optics: Optics) -> None:
    record = gamma(500.0, scene_with(optics, [(100.0, 0.0)]), 7)
    assert record.tally[[DEPOSITED, DROPPED, GROUND]].sum() == pytest.approx(500.0, rel=1e-9)


def test_the_pair_cross_section_is_seven_ninths_of_a_radiation_length_at_high_energy() -> None:
    shares = (np.arange(2000) + 0.5) / 2000
    total = np.mean([electromagnetic.pair_density(1e5, share) for share in shares])
    assert total == pytest.approx(7.0 / 9.0, rel=0.01)


def test_bremsstrahlung_takes_one_energy_per_radiation_length() -> None:
    # Integral of k dN/dk at complete screening: 1 + a small term from the difference of the screening functions.
    shares = (np.arange(4000) + 0.5) / 4000
    loss = np.mean([electromagnetic.bremsstrahlung_density(1e5, share) for share in shares])
    assert loss == pytest.approx(1.0, rel=0.02)


def test_multiple_scattering_has_the_width_of_highlands_formula() -> None:
    stream = make_stream(1)
    down = np.array([electromagnetic.deflect(stream, 0.0, 0.0, -1.0, 1.0, 3.6) for _ in range(20000)])
    angles = np.hypot(down[:, 0], down[:, 1])
    # Half of all polar angles are below 1.177 sigma of one plane; Highland (1975) with the PDG's constants.
    highland = 13.6e-3 * math.sqrt(3.6 / 36.66) * (1.0 + 0.038 * math.log(3.6 / 36.66))
    assert np.median(angles) / 1.177 == pytest.approx(highland, rel=0.1)


@pytest.mark.parametrize("direction", [(0.0, 0.0, -1.0), (0.6, 0.0, -0.8), (0.36, -0.48, -0.8), (0.36, 0.48, 0.8)])
@pytest.mark.parametrize("momentum", [1.0, 0.01])
def test_a_deflection_has_a_gaussian_core_and_rutherfords_tail_and_no_azimuth_of_its_own(
    direction: tuple[float, float, float], momentum: float
) -> None:
    number, thickness = 40_000, 2.0
    stream, rng = make_stream(7), np.random.default_rng(8)
    after = np.array([electromagnetic.deflect(stream, *direction, momentum, thickness) for _ in range(number)])
    assert np.linalg.norm(after, axis=1) == pytest.approx(np.ones(number), abs=1e-6)
    # The same angles by numpy: two Gaussians, and a Poisson number of single scatters with a density ~ 1/theta^3.
    chi_c = 0.6547e-6 * thickness / momentum**2
    core = chi_c * (math.log(5.0 * 0.6547e-6 * thickness / 7.67e-11) - 1.0)
    plane = rng.normal(0.0, math.sqrt(0.5 * core), (number, 2))
    for row, single in enumerate(rng.poisson(0.2, number)):
        angle, turn = np.sqrt(5.0 * chi_c / rng.random(single)), 2.0 * math.pi * rng.random(single)
        plane[row] += [(angle * np.cos(turn)).sum(), (angle * np.sin(turn)).sum()]
    expected = np.minimum(np.hypot(*plane.T), 1.5)
    assert ks_2samp(np.arccos(np.clip(after @ direction, -1.0, 1.0)), expected).pvalue > 1e-4
    across = np.cross(direction, (1.0, 0.0, 0.0))
    across /= np.linalg.norm(across)
    azimuths = np.arctan2(after @ np.cross(direction, across), after @ across)
    assert kstest(azimuths / (2.0 * math.pi) + 0.5, "uniform").pvalue > 1e-4


def test_a_stream_is_that_of_blackman_and_vigna_and_even() -> None:
    stream, word = make_stream(5), (1 << 64) - 1
    one, two = (int(part) for part in stream)
    values = [uniform(stream) for _ in range(20_000)]
    for value in values[:1000]:
        assert value == ((one + two & word) >> 11) * 2.0**-53
        two ^= one
        one = ((one << 24 | one >> 40) ^ two ^ two << 16) & word
        two = (two << 37 | two >> 27) & word
    assert kstest(values, "uniform").pvalue > 1e-4
    assert not np.array_equal(make_stream(5), make_stream(6))


def test_the_shower_maximum_deepens_by_a_radiation_length_per_e_fold_of_energy(optics: Optics) -> None:
    scene = scene_with(optics, [(100.0, 0.0)])
    middles = (np.arange(110) + 0.5) * 10.0
    deepest = {}
    for energy, number in ((50.0, 160), (1600.0, 24)):
        records = [gamma(energy, scene, 100 + seed) for seed in range(number)]
        profile = sum(record.profile for record in records)
        near = slice(int(np.argmax(profile)) - 8, int(np.argmax(profile)) + 9)
        square, linear, _ = np.polyfit(middles[near], profile[near], 2)
        # Most of the scatter is that of the first pair: count from there, plus its mean depth of 9/7 X0.
        first = np.mean([atmosphere.depth(record.tally[FIRST_HEIGHT], AIR) for record in records])
        deepest[energy] = -linear / (2.0 * square) - first + 9.0 / 7.0 * 36.66
    # Greisen's maximum of all electrons is at X0 (ln(E/Ec) + 0.5); those over the threshold for light (21-80 MeV,
    # near Ec = 86.5 MeV) peak about a radiation length before it.
    for energy, maximum in deepest.items():
        assert -1.9 < maximum / 36.66 - (math.log(energy / 0.0865) + 0.5) < -0.4
    assert (deepest[1600.0] - deepest[50.0]) / (36.66 * math.log(32.0)) == pytest.approx(1.0, abs=0.15)


def test_light_falls_steeply_outside_the_ring_of_the_light_pool(optics: Optics) -> None:
    scene = scene_with(optics, [(distance, 0.0) for distance in (60.0, 110.0, 200.0, 300.0)])
    counts = np.zeros(4)
    for seed in range(12):
        record = gamma(1000.0, scene, 500 + seed)
        counts += np.bincount(record.pixel[: record.number[0]] // 560, minlength=4)
    assert 0.5 < counts[1] / counts[0] < 1.5  # flat inside about 120 m
    assert counts[2] < 0.5 * counts[1]
    assert counts[3] < 0.6 * counts[2]  # 0.44 falling with the square of the distance; twelve showers tell it to 0.05


def test_images_of_a_vertical_gamma_point_to_the_centre_and_lie_towards_the_shower(optics: Optics) -> None:
    scene = scene_with(optics, [(120.0, 0.0)])
    camera = camera_named(CAMERA)
    pixels = np.concatenate([(r := gamma(500.0, scene, s)).pixel[: r.number[0]] for s in range(20, 30)])
    x, y = camera.x[pixels].mean(), camera.y[pixels].mean()
    # The shower's maximum, some 8 km above, is seen 120/8000 rad from the vertical, to the south.
    expected = -scene.frame[:2, 0] * 120.0 / 8000.0 * 180.0 / math.pi
    assert (x, y) == pytest.approx(tuple(expected), abs=0.25)


@pytest.mark.parametrize(("mass", "m1", "m2"), [(0.13957, 0.105658, 0.0), (0.493677, 0.13957, 0.134977)])
def test_two_body_decays_conserve_energy_and_momentum(mass: float, m1: float, m2: float) -> None:
    products = np.empty((2, 4))
    electromagnetic.seed_kernels(2)
    hadronic.two_body(10.0, mass, m1, m2, products)
    assert products.sum(axis=0) == pytest.approx([10.0, 0.0, 0.0, math.sqrt(100.0 - mass**2)], abs=1e-9)
    masses = np.sqrt(np.maximum(products[:, 0] ** 2 - (products[:, 1:] ** 2).sum(axis=1), 0.0))
    assert masses == pytest.approx([m1, m2], abs=1e-5)


def test_three_body_decays_conserve_energy_and_momentum() -> None:
    products = np.empty((3, 4))
    electromagnetic.seed_kernels(4)
    for _ in range(20):
        hadronic.three_body(8.0, 0.497611, 0.13957, 0.13957, 0.134977, products)
        assert products.sum(axis=0) == pytest.approx([8.0, 0.0, 0.0, math.sqrt(64.0 - 0.497611**2)], abs=1e-6)


def quiet_bank() -> Bank:
    """A bank whose only event is a neutral pion with all of the energy, and interaction lengths of 100 g/cm2."""
    rows = np.zeros((3, 2), np.int64)
    return Bank(
        np.log([2.0, 1e5]), rows, rows + 1, np.full((3, 2), 100.0), np.array([0, 1]), np.array([PI_ZERO], np.int8),
        np.zeros(1, np.int8), np.array([[2.0, 0.0, 0.0, 1.99]], np.float32),
    )  # fmt: skip


def secondaries_of(optics: Optics, code: int, charge: int, energy: float, seed: int = 1) -> tuple[np.ndarray, Record]:
    """Follow one secondary, released downward at 10 km; return what went to the electromagnetic cascade."""
    record = make_record(seed=seed)
    electromagnetic.seed_kernels(seed)
    parent = np.array([PROTON, 1.0, 1e5, 0.0, 0.0, 10000.0, 0.0, 0.0, -1.0, 0.0])
    momentum = math.sqrt(energy**2 - MASSES[code] ** 2)
    handed = hadronic.hadron_cascade(
        parent, np.array([code], np.int8), np.array([charge], np.int8),
        np.array([[energy, 0.0, 0.0, momentum]], np.float32), quiet_bank(), scene_with(optics, [(50.0, 0.0)]), record,
    )  # fmt: skip
    return handed, record


def test_a_neutral_pion_hands_two_photons_with_its_energy_over(optics: Optics) -> None:
    handed, _ = secondaries_of(optics, PI_ZERO, 0, 50.0, seed=2)
    assert handed[:, 0].tolist() == [0.0, 0.0]
    assert handed[:, 1].sum() == pytest.approx(50.0, rel=1e-6)
    assert handed[:, 4].tolist() == [10000.0, 10000.0]


def test_a_muon_crosses_the_air_and_loses_2_mev_a_gram(optics: Optics) -> None:
    handed, record = secondaries_of(optics, MUON, -1, 100.0)
    passed = atmosphere.depth(SITE.altitude, AIR) - atmosphere.depth(10000.0, AIR)
    assert len(handed) == 0
    assert record.tally[DEPOSITED] == pytest.approx(passed * (2.1e-3 + 3e-6 * 99.0), rel=0.02)


def test_charged_pions_decay_or_interact_in_the_ratio_of_their_lengths(optics: Optics) -> None:
    # At 10 km the air has 4.13e-4 g/cm3; a pion of 20 GeV decays after 1118 m, i.e. 46 g/cm2 (the air thickens by
    # a sixth on the way), and interacts after 100 g/cm2.
    interacted = sum(len(secondaries_of(optics, PION, 1, 20.0, seed)[0]) > 0 for seed in range(1, 401))
    assert interacted / 400 == pytest.approx(46.0 * 1.08 / (46.0 * 1.08 + 100.0), abs=0.07)


def test_an_interaction_length_follows_from_the_cross_section() -> None:
    # 300 mb on air of mean mass 14.54: 80.5 g/cm2.
    assert pytest.approx(80.5, abs=0.1) == AIR_MASS / 300.0


def test_generators_ids_become_codes_with_charge_and_neutrinos_are_left_out() -> None:
    codes, charges = codes_of(np.array([22, -211, 2112, 14, 111, 1000070140]))
    assert MASSES[codes[1]] == pytest.approx(0.13957)
    assert charges.tolist() == [0, -1, 0, 0, 0, 0]
    assert (codes[[3, 5]] == -1).all()
    assert codes[4] >= 0


@pytest.mark.parametrize(
    ("pids", "projectile", "produced"),
    [([2212, 2112], 2212, False), ([2212, 111], 2212, True), ([211, 2212], 211, False), ([111, 2212], 211, True)],
)
def test_elastic_events_are_told_from_production(pids: list[int], projectile: int, produced: bool) -> None:
    assert is_produced(np.array(pids), projectile) is produced


def test_every_pixel_centre_is_in_its_own_pixel_and_far_places_in_none() -> None:
    camera = camera_named(CAMERA)
    table = pixel_table(camera)
    half = table.shape[0] // 2
    cells = np.round(np.column_stack([camera.x, camera.y]) / 0.012).astype(int) + half
    assert (table[cells[:, 0], cells[:, 1]] == np.arange(camera.n_pixels)).all()
    assert table[0, 0] == -1


def quiet() -> DetectorModel:
    return DetectorModel(night_sky=0.0, single_pe_spread=0.0, pedestal_noise=0.0, gain_spread=0.0, codes_per_pe=0.0)


def neighbours_of(same_cluster: bool) -> tuple[int, int]:
    camera = camera_named(CAMERA)
    for pixel in range(camera.n_pixels):
        for other in camera.neighbours[pixel]:
            if other >= 0 and (camera.cluster[pixel] == camera.cluster[other]) is np.bool_(same_cluster):
                return pixel, int(other)
    raise AssertionError("no such pair")


def light_of(hits: list[tuple[int, float]], n: int = 1) -> Light:
    """Photo-electrons by pixel and time, ns; a first one in a far pixel at 0 says where the window is."""
    pixel = np.array([hit[0] for hit in hits], np.int32)
    return integrate(pixel, np.array([hit[1] for hit in hits], np.float32), n, 560, 100.0)


@pytest.mark.parametrize(("same_cluster", "number", "fires"), [(True, 11, True), (True, 10, False), (False, 50, False)])
def test_the_trigger_wants_two_neighbours_of_one_cluster(same_cluster: bool, number: int, fires: bool) -> None:
    camera, (one, other) = Camera.of(camera_named(CAMERA), quiet()), neighbours_of(same_cluster)
    light = light_of([(pixel, 50.0) for pixel in (one, other) for _ in range(number)])
    signals = digitise(light, camera, quiet(), np.random.default_rng(1))
    assert triggered(signals.fired_at, camera, quiet()).tolist() == [fires]
    assert over_threshold(signals.amplitude, camera, quiet()).tolist() == [fires]


@pytest.mark.parametrize(
    ("lasts", "later", "fires"), [(10.0, 0.0, True), (27.0, 0.0, False), (10.0, 14.0, True), (10.0, 17.0, False)]
)
def test_light_must_come_within_15_ns_and_neighbours_must_fire_within_15_ns(
    lasts: float, later: float, fires: bool
) -> None:
    # Sixteen photo-electrons evenly in time: 9 or 10 of 27 ns are within 15.
    camera, (one, other) = Camera.of(camera_named(CAMERA), quiet()), neighbours_of(True)
    when = np.linspace(0.0, lasts, 16)
    light = light_of([(one, t) for t in when] + [(other, t + later) for t in when])
    signals = digitise(light, camera, quiet(), np.random.default_rng(1))
    assert signals.amplitude[0, one] == 16.0
    assert triggered(signals.fired_at, camera, quiet()).tolist() == [fires]


def test_one_bright_pixel_alone_does_not_trigger() -> None:
    camera = Camera.of(camera_named(CAMERA), quiet())
    signals = digitise(light_of([(100, 0.0)] * 1000), camera, quiet(), np.random.default_rng(1))
    assert not triggered(signals.fired_at, camera, quiet())[0]


def test_the_night_sky_helps_the_trigger() -> None:
    # Eight photo-electrons in two neighbours never pass 10 alone; with 6 of the sky in 15 ns they mostly do.
    camera, (one, other) = Camera.of(camera_named(CAMERA), quiet()), neighbours_of(True)
    light = light_of([(pixel, 0.0) for pixel in (one, other) for _ in range(8)])
    fired = {}
    for sky in (0.0, 0.4):
        detector = quiet().model_copy(update={"night_sky": sky})
        rng = np.random.default_rng(2)
        fired[sky] = np.mean([
            triggered(digitise(light, camera, detector, rng).fired_at, camera, detector)[0] for _ in range(40)
        ])  # fmt: skip
    assert fired[0.0] == 0.0
    assert fired[0.4] > 0.5


def test_without_noise_the_amplitude_is_the_number_of_photo_electrons() -> None:
    signal = np.arange(560, dtype=np.int64)[None, :]
    signals = digitise(
        Light.of_counts(signal), Camera.of(camera_named(CAMERA), quiet()), quiet(), np.random.default_rng(1)
    )
    assert (signals.amplitude == signal).all()


def test_noise_has_no_offset_and_the_spread_of_its_parts() -> None:
    light, detector = Light.of_counts(np.zeros((200, 560), np.int64)), DetectorModel(gain_spread=0.0)
    images = digitise(light, Camera.of(camera_named(CAMERA), detector), detector, np.random.default_rng(1)).amplitude
    assert images.mean() == pytest.approx(0.0, abs=0.03)
    # Compound Poisson: mean x (1 + spread^2), plus the electronics.
    assert images.std() == pytest.approx(math.sqrt(3.5 * (1.0 + 0.45**2) + 1.2**2), rel=0.01)


def test_light_outside_the_integration_window_is_lost() -> None:
    pixel = np.array([3, 3, 3, 560 + 5], np.int32)
    time = np.array([0.0, 4.0, 60.0, 900.0], np.float32)
    counts = integrate(pixel, time, 2, 560, 20.0).count
    assert (counts[0, 3], counts[1, 5], counts.sum()) == (2, 1, 3)


def test_both_primaries_are_thrown_from_the_same_random_numbers() -> None:
    spectrum = Spectrum(energy_min=2, energy_max=60, index=-2.6)
    settings = Production(gamma=spectrum, proton=spectrum)
    one = throw(settings, 5, "gamma", random_of(settings, 5))
    other = throw(settings, 5, "proton", random_of(settings, 5))
    assert (one.telescopes == other.telescopes).all()
    assert (one.direction == other.direction).all()
    assert (one.seed, one.energy, one.tracked) == (other.seed, other.energy, other.tracked)


def test_arrival_directions_fill_the_cone_and_telescopes_the_disc_across_the_axis() -> None:
    settings = Production(telescopes=4)
    thrown = [throw(settings, number, "gamma", random_of(settings, number)) for number in range(600)]
    offset = np.array([math.degrees(math.atan(math.hypot(*map(math.radians, one.source)))) for one in thrown])
    assert offset.max() <= 5.0
    assert np.mean(offset**2) == pytest.approx(12.5, rel=0.1)  # uniform in solid angle
    distance2 = []
    for one in thrown:
        axis = one.direction
        places = one.telescopes - np.array([0.0, 0.0, settings.site.altitude])
        distance2.extend(((places - np.outer(places @ axis, axis)) ** 2).sum(axis=1))
    assert max(distance2) <= 450.0**2 * 1.0001
    assert np.mean(distance2) == pytest.approx(450.0**2 / 2.0, rel=0.05)


def test_energies_follow_the_power_law() -> None:
    spectrum = Spectrum(energy_min=2, energy_max=60, index=-2.6)
    energies = np.array([energy_from(spectrum, share) for share in (np.arange(10000) + 0.5) / 10000])
    assert (energies.min() >= 2, energies.max() <= 60) == (True, True)
    expected = (2**-1.6 - 4**-1.6) / (2**-1.6 - 60**-1.6)
    assert (energies < 4).mean() == pytest.approx(expected, abs=1e-3)


def test_the_order_of_primaries_is_random_but_the_numbers_are_those_asked_for() -> None:
    kinds = primaries(Production(gammas=300, protons=700, seed=5))
    assert (kinds.count("gamma"), kinds.count("proton")) == (300, 700)
    assert 240 < sum(kind == "gamma" for kind in kinds[:1000:1][:500]) * 2 < 360


def test_protons_without_chromo_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "chromo" else found(name, *rest)

    monkeypatch.setattr(interactions.importlib.util, "find_spec", without)
    with pytest.raises(MissingSoftwareError, match=r"chromo.*pip install chromo.*--protons 0"):
        simulate(Production(gammas=1, protons=1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_settings_are_named_with_the_nearest_key(tmp_path: Path) -> None:
    file = tmp_path / "sim.yaml"
    file.write_text("gammas: 3\ndetector:\n  night_skye: 2 pe\n")
    with pytest.raises(UsageError, match=r"sim\.yaml:3.*night_skye.*night_sky"):
        load_production(file, {})


def test_values_of_the_command_line_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sim.yaml"
    file.write_text("seed: 3\ncone: 2 deg\nsite: {zenith: 20 deg}\n")
    production = load_production(file, {"seed": 9})
    assert (production.seed, production.cone, production.site.zenith) == (9, 2.0, 20.0)


def test_nothing_to_simulate_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to simulate"):
        load_production(None, {"gammas": 0, "protons": 0})

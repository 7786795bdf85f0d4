"""Reflector and light guides of the Monte Carlo against a plain ray tracer and geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest

from apbatch.camera.instruments.registry import camera_named
from apbatch.sim.detector.observatory import Optics, make_scene
from apbatch.sim.detector.optics import facet_centres, focus
from apbatch.sim.electromagnetic import seed_kernels
from apbatch.sim.scene import Scene
from apbatch.sim.settings import DetectorModel, SiteModel

SITE = SiteModel(zenith=20.0)


def scene_of(detector: DetectorModel) -> Scene:
    optics = Optics.of(SITE, detector, camera_named("TAIGA-IACT01"))
    return make_scene(optics, SITE, detector, np.zeros((1, 3)), 40.0)


def spots(detector: DetectorModel, x: float, y: float, number: int = 4000) -> np.ndarray:
    """Return u, v (deg) of photons from a direction (deg) in the camera; NaN for lost ones."""
    scene = scene_of(detector)
    towards = np.array([math.tan(math.radians(x)), math.tan(math.radians(y)), 1.0]) @ scene.frame
    w = -towards / np.linalg.norm(towards)
    seed_kernels(1)
    rows = np.array([focus(scene, *w) for _ in range(number)])
    return np.where(rows[:, 2:] < 0.0, np.nan, rows[:, :2])


def plain_trace(detector: DetectorModel, x: float, number: int) -> np.ndarray:
    """Trace rays from x degrees off the axis with vectors only; facets are pieces of spheres."""
    rng, f = np.random.default_rng(2), detector.focal_length
    centres = facet_centres(detector)[rng.integers(detector.facets, size=number)]
    axes = np.array([0.0, 0.0, 2.0 * f]) - centres
    axes /= np.linalg.norm(axes, axis=1)[:, None]
    curvature = centres + 2.0 * f * axes
    # Points of the plane through the facet's centre across its axis, carried along the axis onto the sphere.
    across = rng.normal(size=(number, 3))
    across -= (across * axes).sum(axis=1)[:, None] * axes
    across /= np.linalg.norm(across, axis=1)[:, None]
    r = 0.5 * detector.facet_diameter * np.sqrt(rng.random(number))[:, None]
    points = centres + across * r + axes * (2.0 * f - np.sqrt(4.0 * f * f - r * r))
    normals = (curvature - points) / (2.0 * f)
    ray = np.array([-math.sin(math.radians(x)), 0.0, -math.cos(math.radians(x))])
    out = ray - 2.0 * (normals @ ray)[:, None] * normals
    hit = points + out * ((f - points[:, 2]) / out[:, 2])[:, None]
    return np.degrees(-hit[:, :2] / f)


def test_an_ideal_mirror_images_a_direction_onto_its_place() -> None:
    seen = spots(DetectorModel(facets=0, psf=0.0), 2.0, -1.0, 10)
    assert np.allclose(seen, np.degrees(np.tan(np.radians([2.0, -1.0]))))


def test_the_facets_are_those_of_a_dish_of_4_3_metres_round_an_empty_middle() -> None:
    facets = facet_centres(DetectorModel())
    reach = np.hypot(facets[:, 0], facets[:, 1])
    assert len(facets) == 34
    assert reach.min() == pytest.approx(0.64)
    assert 2.0 * (reach.max() + 0.3) == pytest.approx(4.3, abs=0.2)
    # On a sphere of radius f round the focus.
    assert np.hypot(reach, 4.75 - facets[:, 2]) == pytest.approx(np.full(34, 4.75))


@pytest.mark.parametrize("angle", [0.0, 2.0, 4.0])
def test_spots_are_those_of_a_plain_ray_tracer(angle: float) -> None:
    detector = DetectorModel(psf=0.0, guide_angles=(0.0, 90.0), guide_acceptance=(1.0, 1.0))
    ours, plain = spots(detector, angle, 0.0), plain_trace(detector, angle, 20000)
    assert ours.mean(axis=0) == pytest.approx(plain.mean(axis=0), abs=0.01)
    assert ours.std(axis=0) == pytest.approx(plain.std(axis=0), rel=0.06)


def test_the_spot_grows_with_the_angle_and_most_along_it() -> None:
    near, far = (spots(DetectorModel(psf=0.0), angle, 0.0) for angle in (0.0, 4.0))
    assert near.std() < 0.03 * 1.1
    assert np.nanstd(far[:, 0]) > 1.2 * np.nanstd(far[:, 1]) > 1.2 * near.std()


def test_light_guides_cut_steep_light_and_keep_the_rest() -> None:
    # The edge of the dish, 2.2 m off the axis, is seen from the camera under 27 degrees.
    narrow = DetectorModel(guide_angles=(0.0, 18.0, 19.0, 90.0), guide_acceptance=(1.0, 1.0, 0.0, 0.0))
    lost = np.isnan(spots(narrow, 0.0, 0.0)[:, 0]).mean()
    facets = facet_centres(DetectorModel())
    steep = np.degrees(np.arctan2(np.hypot(facets[:, 0], facets[:, 1]), 4.75 - facets[:, 2]))
    assert lost == pytest.approx((steep > 18.5).mean(), abs=0.1)
    assert not np.isnan(spots(DetectorModel(), 0.0, 0.0)).any()


def test_a_davies_cotton_dish_spreads_arrival_by_its_depth() -> None:
    # From the vertex light goes f; from the rim, met d earlier, it goes to the focus f as well: late by 0 to d.
    scene = scene_of(DetectorModel(psf=0.0))
    seed_kernels(3)
    late = np.array([focus(scene, *(-scene.frame[2]))[2] for _ in range(2000)])
    depth = facet_centres(DetectorModel())[:, 2].max()
    assert late.max() - late.min() == pytest.approx(depth, rel=0.4)
    assert late.max() == pytest.approx(4.75, abs=0.1)

"""Disturbances of images do what they say."""

from __future__ import annotations

import numpy as np
import pytest

from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.study import disturbance as d
from apbatch.dl.study.examination import occluded

CAMERA = camera_named("TAIGA-IACT01")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).gamma(2, 4, (40, CAMERA.n_pixels)).astype(np.float32)


def spot(x: float, y: float) -> np.ndarray:
    away = np.hypot(CAMERA.x - x, CAMERA.y - y)
    return (500 * np.exp(-0.5 * (away / (1.2 * CAMERA.pitch)) ** 2)).astype(np.float32)[None]


def place(image: np.ndarray) -> tuple[float, float]:
    return float(image[0] @ CAMERA.x / image[0].sum()), float(image[0] @ CAMERA.y / image[0].sum())


def test_night_sky_adds_noise_and_no_light(images: np.ndarray) -> None:
    added = d.night_sky(images, CAMERA, 4.0) - images
    assert added.mean() == pytest.approx(0, abs=0.05)
    # A Poisson number of photo-electrons, each with a charge of relative width 0.45.
    assert added.var() == pytest.approx(4.0 * (1 + 0.45**2), rel=0.03)


def test_dead_pixels_are_the_same_in_all_images_and_as_many_as_asked(images: np.ndarray) -> None:
    dead = np.isnan(d.dead_pixels(images, CAMERA, 0.05))
    assert (dead == dead[0]).all()
    assert dead[0].sum() == round(0.05 * CAMERA.n_pixels)


def test_gain_errors_are_one_factor_a_pixel_of_the_given_spread(images: np.ndarray) -> None:
    factors = d.gain_errors(images, CAMERA, 0.15) / images
    assert factors.std(axis=0).max() < 1e-5
    assert factors[0].std() == pytest.approx(0.15, rel=0.1)


def test_the_same_seed_gives_the_same_images_and_another_does_not(images: np.ndarray) -> None:
    first, again, other = (d.night_sky(images, CAMERA, 1.0, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("degrees", [10, 30, 60, 90, 200])
def test_a_turn_moves_an_image_by_its_angle_and_keeps_its_light(degrees: float) -> None:
    image = spot(1.2, 0.4)
    turned = d.rotation(image, CAMERA, degrees)
    assert turned.sum() == pytest.approx(image.sum(), rel=0.05)
    # About the lattice point nearest to the middle of the camera, which is within a pitch of it.
    angle, start, end = np.radians(degrees), place(image), place(turned)
    expected = (
        start[0] * np.cos(angle) - start[1] * np.sin(angle),
        start[0] * np.sin(angle) + start[1] * np.cos(angle),
    )
    assert np.hypot(end[0] - expected[0], end[1] - expected[1]) < 1.1 * CAMERA.pitch


def test_six_turns_by_sixty_degrees_give_the_image_back_where_it_never_left_the_camera() -> None:
    image = spot(0.8, -0.5)
    turned = image
    for _ in range(6):
        turned = d.rotation(turned, CAMERA, 60)
    assert turned == pytest.approx(image, abs=0.5)


def test_images_of_the_same_camera_stay_as_they_are(images: np.ndarray) -> None:
    assert np.array_equal(d.onto_camera(images, CAMERA, CAMERA), images)


def test_images_of_a_finer_camera_keep_their_light_and_place() -> None:
    fact = camera_named("FACT")
    image = (300 * np.exp(-0.5 * (np.hypot(fact.x - 0.5, fact.y + 0.3) / 0.2) ** 2)).astype(np.float32)[None]
    moved = d.onto_camera(image, fact, CAMERA)
    assert np.nansum(moved) == pytest.approx(image.sum(), rel=0.02)
    x, y = place(np.nan_to_num(moved))
    assert np.hypot(x - 0.5, y + 0.3) < 0.2
    assert np.isnan(moved[0, np.argmax(np.hypot(CAMERA.x, CAMERA.y))])


def test_occlusion_darkens_a_pixel_and_its_neighbours_and_nothing_else(images: np.ndarray) -> None:
    copies = occluded(images[0], CAMERA.neighbours)
    for pixel in (0, 17, CAMERA.n_pixels - 1):
        dark = {pixel, *(n for n in CAMERA.neighbours[pixel].tolist() if n >= 0)}
        assert set(np.flatnonzero(copies[pixel] != images[0]).tolist()) == dark

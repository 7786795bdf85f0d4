"""The halo network: its layers against the kernels, and that its auxiliary outputs are gone when it is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apbatch.camera.cleaning import PRESETS, clean
from apbatch.camera.grid import from_grid, to_grid
from apbatch.camera.halo import CLEANINGS, LEVELS, RINGS, halo
from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.networks.export import to_onnx
from apbatch.dl.networks.models import build, without_auxiliary

keras = pytest.importorskip("keras")
CAMERA = camera_named("TAIGA-IACT01")


def images(number: int = 30) -> np.ndarray:
    """Ellipses well inside the camera, on noise, with light outside of them."""
    random = np.random.default_rng(3)
    made = random.normal(0, 1.6, (number, CAMERA.n_pixels))
    for image in made:
        x, y, axis = *random.uniform(-1.5, 1.5, 2), random.uniform(0, np.pi)
        along = (CAMERA.x - x) * np.cos(axis) + (CAMERA.y - y) * np.sin(axis)
        across = (CAMERA.y - y) * np.cos(axis) - (CAMERA.x - x) * np.sin(axis)
        image += random.poisson(60 * np.exp(-0.5 * ((along / 0.8) ** 2 + (across / 0.35) ** 2)))
        image[random.integers(CAMERA.n_pixels, size=6)] += 9
    return made.astype(np.float32)


def test_the_mask_inside_a_network_is_that_of_the_cleaning() -> None:
    from apbatch.dl.networks.halo_layers import TailCuts

    pixels = images()
    for rule in (*CLEANINGS, PRESETS["standard"]):
        mask = np.asarray(TailCuts(rule.picture, rule.boundary)(to_grid(pixels, CAMERA)))
        assert np.array_equal(from_grid(mask, CAMERA) > 0, clean(pixels, CAMERA, rule))


def test_the_halo_inside_a_network_is_that_of_the_kernels() -> None:
    """On the axial grid the camera is a lattice without the sky's small distortions: ellipses agree within 2 %."""
    from apbatch.dl.networks.halo_layers import HaloMoments
    from apbatch.dl.networks.layers import ImageMoments

    pixels = images()
    wanted = halo(pixels, CAMERA)
    found = np.asarray(HaloMoments()(to_grid(pixels, CAMERA)))
    for number, rule in enumerate(CLEANINGS):
        part = found[:, number * ImageMoments.FEATURES :]
        ending = f"{rule.picture:g}"
        assert np.exp(2 * part[:, 0] + 5) - 1 == pytest.approx(wanted[f"size_{ending}"], rel=1e-3)
        assert np.exp(part[:, 1] + 2) - 1 == pytest.approx(wanted[f"n_pixels_{ending}"], rel=1e-3)
        assert part[:, 3] * CAMERA.pitch == pytest.approx(wanted[f"width_{ending}"], rel=0.02, abs=1e-3)
        assert 2 * part[:, 4] * CAMERA.pitch == pytest.approx(wanted[f"length_{ending}"], rel=0.02)
    rings = found[:, len(CLEANINGS) * ImageMoments.FEATURES :].reshape(len(pixels), len(RINGS), 2, -1)
    same = []
    for ring in range(len(RINGS)):
        for number, part in enumerate(("along", "across")):
            start = f"ring_{ring + 1}_{part}"
            light, brightest, *counts = rings[:, ring, number].T
            ours = np.sign(light) * 5 * (np.exp(2 * np.abs(light)) - 1)
            same.append(np.isclose(ours, wanted[f"{start}_light"], rtol=1e-3, atol=1e-2))
            same.append(np.isclose(np.exp(2 * brightest) - 1, wanted[f"{start}_brightest"], rtol=1e-3))
            for level, count in zip(LEVELS, counts, strict=True):
                ours = np.exp(2 * count) - 1
                same.append(np.isclose(ours, wanted[f"{start}_above_{level:g}"], rtol=1e-3, atol=1e-3))
    # A pixel at the border of a ring may fall to the other side.
    assert np.mean(same) > 0.97


def test_an_image_without_light_has_finite_numbers() -> None:
    from apbatch.dl.networks.halo_layers import HaloMoments

    grids = np.zeros((3, 15, 15), np.float32)
    grids[1, 3, 4] = 1e6
    grids[2, 5:7, 5:7] = 50
    numbers = np.asarray(HaloMoments()(grids))
    assert np.isfinite(numbers).all() and np.abs(numbers).max() <= 5 and not numbers[:2].any()


def test_auxiliary_outputs_are_trained_and_then_taken_away(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    grids = np.random.default_rng(2).gamma(1, 3, (5, 15, 15)).astype(np.float32)
    model = build("halo-net", (15, 15), 0.5, 0.7, 1, {"filters": 4}, auxiliary=2)
    alone = without_auxiliary(model)
    both = np.asarray(model(grids))
    assert both.shape == (5, 3)
    assert np.asarray(alone(grids)) == pytest.approx(both[:, :1], abs=1e-6)
    alone.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.asarray(again(grids)) == pytest.approx(both[:, :1], abs=1e-6)
    assert to_onnx(tmp_path / "model.keras", tmp_path / "model.onnx").stat().st_size > 10_000  # compared with Keras


def test_targets_that_are_not_known_have_no_say_in_the_loss() -> None:
    """The step with a missing energy is the step without its output's loss, whatever the other images have."""
    from apbatch.dl.training.collective import collective_named
    from apbatch.dl.training.engines import engine

    grids = np.random.default_rng(2).gamma(1, 3, (4, 15, 15)).astype(np.float32)
    weights = np.ones(4, np.float32)
    labels = np.array([0, 1, 0, 1], np.float32)
    losses = {}
    for name, energy in (("known", 2.0), ("far", 5.0), ("missing", np.nan)):
        keras.utils.set_random_seed(1)
        model = build("halo-net", (15, 15), 0.5, 0.7, 1, {"filters": 4, "dropout": 0}, auxiliary=1)
        made = engine("tensorflow", model, 1e-3, True, collective_named("single"), (0.3,))
        targets = np.stack([labels, np.full(4, energy, np.float32)], axis=1)
        losses[name] = float(made.step(grids, targets, weights))
        assert all(np.isfinite(weight).all() for weight in made.weights())
    assert losses["missing"] < losses["known"] < losses["far"]
    assert losses["far"] - losses["known"] == pytest.approx(0.3 * 3.0, rel=0.2)

"""Networks by name: what a hexagonal convolution is, and that no network ties an image to its batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apbatch.camera.grid import from_grid, grid_of, to_grid
from apbatch.camera.hillas import hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.networks.export import to_onnx
from apbatch.dl.networks.models import build, check_grid, check_model, symmetrised
from apbatch.dl.training.data import symmetries, turned
from apbatch.errors import UsageError

#: Axial steps to the neighbours of a hexagon (q, r).
DIRECTIONS = ((1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1))
keras = pytest.importorskip("keras")
NAMES = ("talk-cnn", "hillas-cnn", "resnet", "hex-cnn", "halo-net")


def layer(strides: int = 1) -> Any:
    from apbatch.dl.networks.layers import HexConv2D

    made = HexConv2D(1, padding="same", use_bias=True, strides=strides)
    made.build((None, 31, 31, 1))
    made.set_weights([np.random.default_rng(1).normal(size=weight.shape) for weight in made.get_weights()])
    return made


def test_a_hexagonal_convolution_is_the_sum_over_a_pixel_and_its_six_neighbours() -> None:
    """Against a plain loop over the camera's pixels, neighbours found by their place on the sky."""
    camera = camera_named("TAIGA-IACT01")
    images = np.random.default_rng(2).normal(5, 2, (3, camera.n_pixels)).astype(np.float32)
    made = layer()
    grids = to_grid(images, camera)
    found = from_grid(np.asarray(made(grids[..., None]))[..., 0], camera)
    kernel, bias = made.get_weights()
    place = {(int(q), int(r)): p for p, (q, r) in enumerate(zip(camera.q, camera.r, strict=True))}
    expected = np.full_like(images, bias[0])
    for (q, r), p in place.items():
        expected[:, p] += kernel[1, 1, 0, 0] * images[:, p]
        for dq, dr in DIRECTIONS:
            neighbour = place.get((q + dq, r + dr))
            if neighbour is not None:
                distance = np.hypot(camera.x[neighbour] - camera.x[p], camera.y[neighbour] - camera.y[p])
                assert distance == pytest.approx(camera.pitch, rel=0.02)
                expected[:, p] += kernel[1 + dr, 1 + dq, 0, 0] * images[:, neighbour]
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_two_corners_that_are_no_neighbours_have_no_say() -> None:
    made = layer()
    images = np.random.default_rng(3).normal(size=(2, 31, 31, 1)).astype(np.float32)
    before = np.asarray(made(images))
    kernel, bias = made.get_weights()
    kernel[0, 0] = kernel[2, 2] = 99
    made.set_weights([kernel, bias])
    assert np.array_equal(before, np.asarray(made(images)))


@pytest.mark.parametrize("name", NAMES)
def test_the_score_of_an_image_does_not_depend_on_the_others_of_its_batch(name: str) -> None:
    model = build(name, (15, 15), 0.5, 0.7)
    grids = np.random.default_rng(4).gamma(1, 2, (8, 15, 15)).astype(np.float32)
    together = np.asarray(model(grids, training=name == "talk-cnn"))
    alone = np.concatenate([np.asarray(model(grids[i : i + 1], training=False)) for i in range(8)])
    assert together == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_network_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    model = build(name, (15, 15), 0.5, 0.7, outputs=3, options={"filters": 4})
    grids = np.random.default_rng(5).gamma(1, 2, (4, 15, 15)).astype(np.float32)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.asarray(again(grids)) == pytest.approx(np.asarray(model(grids)), abs=1e-6)
    assert model.output_shape == (None, 3)


def test_an_unknown_option_is_an_error_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        check_model("resnet", {"filter": 3})
    assert caught.value.nearest == "filters"


def test_an_option_that_is_no_number_is_an_error() -> None:
    with pytest.raises(UsageError, match="not a number"):
        check_model("resnet", {"filters": "many"})


def test_the_image_parameters_inside_a_network_are_those_of_the_image() -> None:
    """Against `hillas`, which ctapipe checks elsewhere, on the axial grid."""
    from apbatch.dl.networks.layers import ImageMoments

    camera = camera_named("TAIGA-IACT01")
    random = np.random.default_rng(6)
    images = np.zeros((40, camera.n_pixels), np.float32)
    for image in images:
        x, y, angle = *random.uniform(-0.4, 0.4, 2) * np.ptp(camera.x) / 2, random.uniform(0, np.pi)
        along = (camera.x - x) * np.cos(angle) + (camera.y - y) * np.sin(angle)
        across = (camera.y - y) * np.cos(angle) - (camera.x - x) * np.sin(angle)
        lean = 1 + 0.5 * np.tanh(along / camera.pitch)
        image += 60 * lean * np.exp(-((along / 3) ** 2 + across**2) / (2 * camera.pitch**2))
    level = 7.0
    oracle = hillas(images, camera, images > level)
    found = np.asarray(ImageMoments([0.0, level])(to_grid(images, camera)))[:, ImageMoments.FEATURES :]
    size, number, _, width, length, elongation = found.T[:6]
    assert np.exp(2 * size + 5) - 1 == pytest.approx(oracle["size"], rel=1e-4)
    assert np.exp(number + 2) - 1 == pytest.approx(oracle["n_pixels"], rel=1e-4)
    assert width * camera.pitch == pytest.approx(oracle["width"], rel=0.02)
    assert 2 * length * camera.pitch == pytest.approx(oracle["length"], rel=0.02)
    assert elongation == pytest.approx(width / (2 * length + 0.1) - 0.5, abs=1e-4)
    assert found[:, 8] == pytest.approx(oracle["con2"], rel=1e-4)
    assert found[:, 9] == pytest.approx(np.abs(oracle["skewness"]), abs=0.02)
    assert 3 * found[:, 11] + 3 == pytest.approx(oracle["kurtosis"], rel=0.02)


def test_an_image_without_light_has_no_parameters() -> None:
    from apbatch.dl.networks.layers import ImageMoments

    images = np.zeros((2, 15, 15), np.float32)
    images[1, 3, 4] = 1e6
    found = np.asarray(ImageMoments()(images))
    assert not found[0].any() and np.isfinite(found).all() and np.abs(found).max() <= 5


def test_a_network_that_knows_the_axial_grid_takes_no_other() -> None:
    check_grid("hillas-cnn", "axial")
    check_grid("talk-cnn", "bilinear")
    with pytest.raises(UsageError, match="axial grid only"):
        check_grid("hillas-cnn", "bilinear")


def test_image_parameters_go_into_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    build("hillas-cnn", (15, 15), 0.5, 0.7).save(tmp_path / "model.keras")
    assert to_onnx(tmp_path / "model.keras", tmp_path / "model.onnx").stat().st_size > 10_000  # compared with Keras


@pytest.mark.parametrize("name", ["talk-cnn", "hillas-cnn", "halo-net"])
def test_a_symmetric_network_scores_an_image_and_its_turned_forms_alike(name: str, tmp_path: Path) -> None:
    """Turned here by the pixels' places on the sky; the score is the mean of what the network says of all forms."""
    pytest.importorskip("onnxruntime")
    camera = camera_named("TAIGA-IACT01")
    tables = symmetries(grid_of(camera).occupied)
    images = np.random.default_rng(7).gamma(0.5, 6, (3, camera.n_pixels)).astype(np.float32)
    # A few pixels of the ragged rim have no counterpart.
    images[:, np.hypot(camera.x, camera.y) > 0.8 * np.abs(camera.x).max()] = 0
    grids = to_grid(images, camera)
    plain = build(name, grids.shape[1:], 0.5, 0.7, options={"filters": 4})
    model = symmetrised(plain, tables)
    forms = [turned(grids, tables, np.full(3, form)) for form in range(12)]
    each = np.stack([np.asarray(plain(form)) for form in forms])
    assert len(tables) == 12 and each.std(axis=0).min() > 1e-3
    assert np.asarray(model(grids)) == pytest.approx(each.mean(axis=0), abs=1e-4)
    middle = np.argmin(np.hypot(camera.x, camera.y))
    places = (camera.x - camera.x[middle]) + 1j * (camera.y - camera.y[middle])
    for turn in range(1, 6):
        away = np.abs(places[:, None] * np.exp(1j * np.pi * turn / 3) - places)
        inner = images[:, away.argmin(axis=1)] * (away.min(axis=1) < 0.3 * camera.pitch)
        assert inner.sum() == pytest.approx(images.sum(), rel=1e-5)
        assert np.asarray(model(to_grid(inner, camera))) == pytest.approx(np.asarray(model(grids)), abs=1e-4)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.asarray(again(grids)) == pytest.approx(np.asarray(model(grids)), abs=1e-5)
    assert to_onnx(tmp_path / "model.keras", tmp_path / "model.onnx").stat().st_size > 10_000  # compared with Keras


def test_a_symmetric_network_in_half_precision_is_not_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        plain = build("talk-cnn", (15, 15), 0.5, 0.7)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    symmetrised(plain, symmetries(np.ones((15, 15), bool))).save(tmp_path / "model.keras")
    with pytest.raises(UsageError, match="half precision"):
        to_onnx(tmp_path / "model.keras", tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["talk-cnn", "halo-net"])
def test_one_network_sees_every_telescope_and_a_symmetric_one_turns_all_planes(name: str, tmp_path: Path) -> None:
    from apbatch.dl.networks.scoring import load_model

    camera = camera_named("TAIGA-IACT01")
    rows, cols = grid_of(camera).rows, grid_of(camera).cols
    pixels = np.random.default_rng(4).gamma(0.5, 6.0, (12, camera.n_pixels)).astype(np.float32)
    # Turned about its middle, the rim of the camera does not fall onto itself.
    pixels[:, np.hypot(camera.x, camera.y) > 0.8 * np.abs(camera.x).max()] = 0
    planes = np.moveaxis(to_grid(pixels, camera).reshape(3, 4, rows, cols), 1, -1)
    keras.utils.set_random_seed(2)
    model = build(name, (rows, cols, 4), 1.0, 1.0, auxiliary=1, telescopes=2)
    alone = build(name, (rows, cols), 1.0, 1.0)
    # One network for both telescopes: no more weights than for one, but of the layer that puts them together.
    assert model.count_params() < 1.6 * alone.count_params()
    outputs = np.asarray(model(planes))
    for plane in range(4):
        changed = planes.copy()
        changed[..., plane] *= 0.5
        assert np.abs(np.asarray(model(changed)) - outputs).max() > 1e-6, plane
    tables = symmetries(grid_of(camera).occupied)
    mean = symmetrised(model, tables)
    turn = np.stack([turned(planes[..., plane], tables, np.full(3, 4)) for plane in range(4)], axis=-1)
    assert np.asarray(mean(turn)) == pytest.approx(np.asarray(mean(planes)), abs=1e-4)
    mean.save(tmp_path / "model.keras")
    assert np.asarray(load_model(tmp_path / "model.keras")(planes)) == pytest.approx(np.asarray(mean(planes)), abs=1e-5)

"""Networks by name: what a hexagonal convolution is, and that no network ties an image to its batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apbatch.camera.geometry import camera_named
from apbatch.camera.grid import from_grid, to_grid
from apbatch.dl.models import build, check_model
from apbatch.errors import UsageError

#: Axial steps to the neighbours of a hexagon (q, r).
DIRECTIONS = ((1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1))
keras = pytest.importorskip("keras")
NAMES = ("talk-cnn", "resnet", "hex-cnn")


def layer(strides: int = 1) -> Any:
    from apbatch.dl.layers import HexConv2D

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
    with pytest.raises(UsageError, match="no number"):
        check_model("resnet", {"filters": "many"})

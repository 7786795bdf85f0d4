"""Image parameters: what is true of every image."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.camera.hillas import PARAMETERS, hillas
from apbatch.camera.instruments.registry import camera_named

CAMERA = camera_named("TAIGA-IACT01")
Images = npt.NDArray[np.float32]
PIXELS = st.dictionaries(st.integers(0, CAMERA.n_pixels - 1), st.floats(0.5, 1e5, width=32), min_size=1, max_size=30)


def image_of(pixels: dict[int, float]) -> Images:
    image = np.zeros((1, CAMERA.n_pixels), np.float32)
    image[0, list(pixels)] = list(pixels.values())
    return image


@settings(max_examples=60, deadline=None)
@given(PIXELS)
def test_parameters_stay_in_their_ranges(pixels: dict[int, float]) -> None:
    found = {name: column[0] for name, column in hillas(image_of(pixels), CAMERA).items()}
    assert 0 <= found["width"] <= found["length"]
    assert 0 < found["con1"] <= found["con2"] <= 1 + 1e-12
    assert 0 <= found["leakage"] <= 1 + 1e-12
    assert 1 <= found["n_islands"] <= found["n_pixels"] == len(pixels)
    if not math.isnan(found["psi"]):
        assert -90 < found["psi"] <= 90
        assert 0 <= found["alpha"] <= 90
        assert 0 <= found["miss"] <= found["distance"] * (1 + 1e-12)
        assert found["kurtosis"] >= found["skewness"] ** 2 + 1 - 1e-6  # true of every distribution


@settings(max_examples=40, deadline=None)
@given(PIXELS, st.sampled_from([2.0**-6, 0.5, 4.0, 1024.0]))
def test_more_light_of_the_same_form_changes_only_the_size(pixels: dict[int, float], factor: float) -> None:
    one, other = hillas(image_of(pixels), CAMERA), hillas(image_of(pixels) * np.float32(factor), CAMERA)
    assert other["size"][0] == pytest.approx(one["size"][0] * factor)
    for name in set(PARAMETERS) - {"size"}:
        assert other[name][0] == pytest.approx(one[name][0], rel=1e-9, abs=1e-9, nan_ok=True), name


@settings(max_examples=20, deadline=None)
@given(st.lists(PIXELS, min_size=2, max_size=6))
def test_images_of_a_batch_do_not_meet(several: list[dict[int, float]]) -> None:
    images = np.concatenate([image_of(pixels) for pixels in several])
    whole = hillas(images, CAMERA)
    for row in range(len(images)):
        alone = hillas(images[row : row + 1], CAMERA)
        for name in PARAMETERS:
            assert np.array_equal(alone[name], whole[name][row : row + 1], equal_nan=True), name


def test_an_axis_through_the_source_has_alpha_0_and_one_across_it_90() -> None:
    first, second = 100, int(CAMERA.neighbours[100][0])
    image = image_of({first: 20.0, second: 20.0})
    ends = np.array([[CAMERA.x[first], CAMERA.y[first]], [CAMERA.x[second], CAMERA.y[second]]])
    along = (ends[1] - ends[0]) / CAMERA.pitch
    across = np.array([-along[1], along[0]])
    ahead, beside = (hillas(image, CAMERA, source=tuple(ends.mean(axis=0) + 0.5 * way)) for way in (along, across))
    assert (ahead["alpha"][0], ahead["miss"][0]) == pytest.approx((0, 0), abs=1e-5)
    assert (beside["alpha"][0], beside["miss"][0]) == pytest.approx((90, 0.5), abs=1e-5)
    assert (ahead["azwidth"][0], beside["azwidth"][0]) == pytest.approx((0, CAMERA.pitch / 2), abs=1e-7)


def moments_in_fractions(image: npt.NDArray[np.float32]) -> tuple[Fraction, Fraction, Fraction]:
    """Second moments of an image without any rounding: xx, yy, xy about the centre of gravity."""
    lit = np.flatnonzero(image > 0)
    weight = [Fraction(float(value)) for value in image[lit]]
    x, y = ([Fraction(float(value)) for value in places[lit]] for places in (CAMERA.x, CAMERA.y))
    size = sum(weight)
    cog_x, cog_y = (sum(w * place for w, place in zip(weight, places, strict=True)) / size for places in (x, y))
    dx, dy = [place - cog_x for place in x], [place - cog_y for place in y]
    products = ((dx, dx), (dy, dy), (dx, dy))
    xx, yy, xy = (sum(w * a * b for w, a, b in zip(weight, p, q, strict=True)) / size for p, q in products)
    return xx, yy, xy


def line_of(start: int, direction: int, length: int) -> list[int]:
    """Pixels one after the other on a straight line."""
    q, r = int(CAMERA.q[start]), int(CAMERA.r[start])
    dq, dr = ((1, 0), (0, 1), (-1, 1))[direction]
    found = (np.flatnonzero((q + k * dq == CAMERA.q) & (r + k * dr == CAMERA.r)) for k in range(length))
    return [int(pixel[0]) for pixel in found if len(pixel)]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, CAMERA.n_pixels - 1), st.integers(0, 2), st.integers(1, 12), st.floats(1e-3, 1.0),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_nearly_degenerate_images_agree_with_exact_arithmetic(
    start: int, direction: int, length: int, faint: float, seed: int
) -> None:
    """Pixels on a line, with and without one faint pixel beside it: there rounding would show."""
    line = line_of(start, direction, length)
    rng = np.random.default_rng(seed)
    beside = int(CAMERA.neighbours[line[0]][rng.integers(2)])
    for extra in ({}, {beside: faint}):
        image = image_of({**{pixel: float(rng.uniform(5, 500)) for pixel in line}, **extra})
        found = {name: column[0] for name, column in hillas(image, CAMERA).items()}
        with localcontext() as context:
            context.prec = 60
            xx, yy, xy = (Decimal(v.numerator) / Decimal(v.denominator) for v in moments_in_fractions(image[0]))
            span = (((xx - yy) / 2) ** 2 + xy * xy).sqrt()
            large, small = (xx + yy) / 2 + span, (xx + yy) / 2 - span
            smallest = Decimal("1e-10") * Decimal(CAMERA.pitch) ** 2
            length_exact = float(large.sqrt()) if large > smallest else 0.0
            width_exact = float(small.sqrt()) if small > smallest else 0.0
        assert found["length"] == pytest.approx(length_exact, rel=1e-9)
        assert found["width"] == pytest.approx(width_exact, rel=1e-5)

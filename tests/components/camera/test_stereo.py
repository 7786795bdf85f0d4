"""Several telescopes: exact geometry comes back exactly, nonsense is told by its reason (ctapipe: see its own file)."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from apbatch.camera.pointing import camera_vectors, separation, sky_to_camera, to_angles, to_vectors
from apbatch.camera.stereo import FOUND, NO_LIGHT, ONE_IMAGE, PARALLEL, Images, reconstruct
from apbatch.errors import UsageError

ARRAY = np.array([[0, 0, 5], [100, 20, 0], [-60, 110, -3], [-90, -80, 10], [40, -130, 0]], float)


def seen(
    direction: tuple[float, float],
    core: tuple[float, float],
    height: float,
    pointing: tuple[float, float] = (70.0, 180.0),
    telescopes: np.ndarray = ARRAY,
    event: int = 1,
    axes: str = "horizontal",
) -> Images:
    """Return perfect images: the centre of gravity at the maximum, the axis towards the shower's direction."""
    towards = to_vectors(*direction)
    maximum = np.array([*core, 0.0]) + towards * (height / towards[2])
    n = len(telescopes)
    cog = np.array(sky_to_camera(*to_angles(maximum - telescopes), *pointing, axes=axes))
    source = np.array(sky_to_camera(*direction, *pointing, axes=axes))
    psi = np.degrees(np.arctan2(*(source[:, None] - cog)[::-1]))
    ones = np.ones(n)
    return Images(
        np.full(n, event), *cog, psi, 100 * ones, 0.3 * ones, 0.1 * ones, *(np.full(n, a) for a in pointing),
        *telescopes.T,
    )  # fmt: skip


def joined(*parts: Images) -> Images:
    return Images(*(np.concatenate([getattr(part, name.name) for part in parts]) for name in fields(Images)))


def taken(images: Images, rows: object) -> Images:
    return Images(*(getattr(images, name.name)[rows] for name in fields(Images)))


@settings(deadline=None, max_examples=60)
@given(
    st.floats(-2, 2), st.floats(-2, 2), st.floats(-150, 150), st.floats(-150, 150), st.floats(4e3, 2e4),
    st.floats(30, 89.5), st.floats(0, 360), st.sampled_from(["horizontal", "vertical"]),
)  # fmt: skip
def test_an_exact_shower_comes_back(dx, dy, core_x, core_y, height, altitude, azimuth, axes):
    direction = tuple(float(part) for part in to_angles(camera_vectors(dx, dy, altitude, azimuth)))
    assume(min(np.hypot(*(ARRAY[:, :2] - (core_x, core_y)).T)) > 5)
    images = seen(direction, (core_x, core_y), height, (altitude, azimuth), axes=axes)
    found = reconstruct(images, axes=axes)
    assert found.reason.tolist() == [FOUND] and found.n_images.tolist() == [len(ARRAY)]
    assert separation(found.altitude, found.azimuth, *direction)[0] < 1e-5
    assert found.uncertainty[0] < 1e-3
    assert (found.core_x[0], found.core_y[0]) == pytest.approx((core_x, core_y), abs=0.1)
    assert found.h_max[0] == pytest.approx(height, rel=1e-5)


def test_two_telescopes_are_enough_and_their_one_crossing_has_no_spread():
    images = seen((70.5, 181.0), (30, 40), 9000, telescopes=ARRAY[1:3])
    found = reconstruct(images)
    assert found.reason[0] == FOUND and found.uncertainty[0] < 1e-6
    assert (found.core_x[0], found.core_y[0]) == pytest.approx((30, 40), abs=0.01)


def test_telescopes_may_point_in_different_directions():
    parts = [
        seen((70.5, 181.0), (30, 40), 9000, (70 + k * 0.4, 180 - k * 0.5), ARRAY[k : k + 1]) for k in range(len(ARRAY))
    ]
    found = reconstruct(joined(*parts))
    assert separation(found.altitude, found.azimuth, 70.5, 181.0)[0] < 1e-6
    assert (found.core_x[0], found.core_y[0]) == pytest.approx((30, 40), abs=0.01)


def test_events_do_not_mix_and_order_does_not_matter():
    first = seen((70.5, 181.0), (30, 40), 9000, event=9)
    second = seen((69.0, 179.0), (-20, 60), 7000, event=-3)
    both = joined(first, second)
    shuffled = taken(both, np.random.default_rng(3).permutation(2 * len(ARRAY)))
    alone = [reconstruct(second), reconstruct(first)]
    for found in (reconstruct(both), reconstruct(shuffled)):
        assert found.event.tolist() == [-3, 9]
        for name in ("altitude", "azimuth", "core_x", "core_y", "h_max"):
            wanted = np.concatenate([getattr(one, name) for one in alone])
            np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-9)


def test_bright_and_narrow_images_count_for_more():
    images = seen((70.5, 181.0), (30, 40), 9000)
    wrong = images.psi.copy()
    wrong[0] += 20
    off = {}
    for weight in (0.01, 1.0, 100.0):
        size = images.size.copy()
        size[0] *= weight
        found = reconstruct(replace(images, psi=wrong, size=size))
        off[weight] = separation(found.altitude, found.azimuth, 70.5, 181.0)[0]
    assert off[0.01] < off[1.0] < off[100.0]
    assert found.uncertainty[0] > 0.01


def plain_direction(images: Images) -> tuple[np.ndarray, float]:
    """The mean of crossings, pair by pair."""
    psi = np.radians(images.psi)
    one = camera_vectors(images.cog_x, images.cog_y, images.altitude, images.azimuth)
    x, y = images.cog_x + np.cos(psi), images.cog_y + np.sin(psi)
    normal = np.cross(one, camera_vectors(x, y, images.altitude, images.azimuth))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    weight = images.size * images.length / images.width
    total, crossings = np.zeros(3), []
    for a, b in combinations(range(len(psi)), 2):
        cross = np.cross(normal[a], normal[b])
        cross = -cross if cross[2] < 0 else cross
        total += weight[a] * weight[b] * cross
        crossings.append(cross / np.linalg.norm(cross))
    total /= np.linalg.norm(total)
    return total, float(np.degrees(np.mean([np.arccos(min(1.0, total @ cross)) for cross in crossings])))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_images_with_errors_give_the_weighted_mean_of_crossings(seed):
    random = np.random.default_rng(seed)
    exact = seen((70.5, 181.0), (30, 40), 9000)
    n = len(ARRAY)
    images = replace(
        exact,
        psi=exact.psi + random.normal(0, 5, n),
        size=random.uniform(50, 500, n),
        width=random.uniform(0.05, 0.2, n),
    )
    found = reconstruct(images)
    direction, spread = plain_direction(images)
    altitude, azimuth = to_angles(direction)
    assert separation(found.altitude, found.azimuth, altitude, azimuth)[0] < 1e-9
    assert found.uncertainty[0] == pytest.approx(spread, abs=1e-5)


def test_core_and_height_are_least_squares():
    exact = seen((70.5, 181.0), (30, 40), 9000, (80.0, 180.0))
    images = replace(exact, psi=exact.psi + np.array([3, -2, 1, -4, 2.0]), cog_x=exact.cog_x + 0.01 * np.arange(5))
    found = reconstruct(images)
    psi = np.radians(images.psi)
    sight = camera_vectors(images.cog_x, images.cog_y, 80.0, 180.0)
    further = camera_vectors(images.cog_x + np.cos(psi), images.cog_y + np.sin(psi), 80.0, 180.0)
    normal = np.cross(sight, further)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    plain = np.linalg.lstsq(normal[:, :2], (normal * ARRAY).sum(axis=1), rcond=None)[0]
    np.testing.assert_allclose([found.core_x[0], found.core_y[0]], plain, rtol=1e-6)

    def sum_of_squares(point: np.ndarray) -> float:
        away = point - ARRAY
        return float(((away - (away * sight).sum(axis=1, keepdims=True) * sight) ** 2).sum())

    # The best point of each height, by plain least squares: the height found is that of the best of all.
    def best_at(height: float) -> float:
        rows = np.vstack([np.eye(3) - np.outer(s, s) for s in sight])
        right = np.concatenate([(np.eye(3) - np.outer(s, s)) @ p for s, p in zip(sight, ARRAY, strict=True)])
        solution = np.linalg.lstsq(rows[:, :2], right - rows[:, 2] * height, rcond=None)[0]
        return sum_of_squares(np.array([*solution, height]))

    best = best_at(found.h_max[0])
    assert best < best_at(found.h_max[0] + 10) and best < best_at(found.h_max[0] - 10)


def test_one_image_is_told_as_such():
    found = reconstruct(seen((70.5, 181.0), (30, 40), 9000, telescopes=ARRAY[:1]))
    assert found.reason.tolist() == [ONE_IMAGE] and found.n_images.tolist() == [1]
    assert np.isnan([found.altitude, found.azimuth, found.uncertainty, found.core_x, found.core_y, found.h_max]).all()


@pytest.mark.parametrize(
    ("column", "value"),
    [("size", 0.0), ("size", np.nan), ("width", 0.0), ("psi", np.nan), ("cog_x", np.inf), ("altitude", np.nan)],
)
def test_useless_images_do_not_count(column, value):
    images = seen((70.5, 181.0), (30, 40), 9000)
    spoilt = getattr(images, column).copy()
    spoilt[[1, 3]] = value
    found = reconstruct(replace(images, **{column: spoilt}))
    assert found.n_images.tolist() == [3] and found.reason.tolist() == [FOUND]
    assert separation(found.altitude, found.azimuth, 70.5, 181.0)[0] < 1e-6
    spoilt[:] = value
    nothing = reconstruct(replace(images, **{column: spoilt}))
    assert nothing.reason.tolist() == [NO_LIGHT] and nothing.n_images.tolist() == [0]
    assert np.isnan(nothing.altitude).all()


def test_parallel_axes_cross_nowhere():
    images = seen((70.0, 180.0), (0, 0), 9000, telescopes=np.array([[10, 0, 0], [60, 0, 0], [100, 0, 0]], float))
    found = reconstruct(images)  # all telescopes and the shower in one plane
    assert found.reason.tolist() == [PARALLEL]
    assert np.isnan([found.altitude, found.core_x, found.h_max]).all()


def test_two_telescopes_on_one_place_cross_nowhere():
    images = seen((70.5, 181.0), (30, 40), 9000, telescopes=ARRAY[[1, 1]])
    assert reconstruct(images).reason.tolist() == [PARALLEL]


def test_no_images_give_no_events():
    found = reconstruct(taken(seen((70.5, 181.0), (30, 40), 9000), slice(0, 0)))
    assert len(found.event) == len(found.altitude) == len(found.reason) == 0


def test_columns_that_do_not_fit_and_unknown_words_are_refused():
    images = seen((70.5, 181.0), (30, 40), 9000)
    with pytest.raises(UsageError, match="'psi' is of shape"):
        reconstruct(replace(images, psi=images.psi[:2]))
    with pytest.raises(UsageError, match="no projection"):
        reconstruct(images, projection="mercator")
    with pytest.raises(UsageError, match="no camera axes"):
        reconstruct(images, axes="diagonal")

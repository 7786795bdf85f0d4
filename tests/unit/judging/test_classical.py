"""The box of cuts on scaled width and length: known boxes, exhaustive search, and no look at the test set."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from apbatch.dl.judging import box_cuts as classical
from apbatch.dl.judging.box_cuts import _EDGES, Features, fit
from apbatch.errors import UsageError


def images(n: int = 3000, seed: int = 0, contrast: float = 1.5) -> tuple[Features, np.ndarray]:
    random = np.random.default_rng(seed)
    gamma = random.random(n) < 0.5
    size = 60 * np.exp(random.exponential(1, n))
    shift = np.where(gamma, 0, contrast)
    width = (0.1 + 0.02 * np.log10(size)) * (1 + 0.1 * (random.normal(size=n) + shift))
    length = (0.2 + 0.08 * np.log10(size)) * (1 + 0.1 * (random.normal(size=n) + shift))
    return Features(size, width, length), gamma


def test_scaled_width_and_length_of_gammas_have_mean_zero_and_rms_one_at_every_size() -> None:
    known, gamma = images()
    width, length = fit(known, gamma).scaled(known)
    for chosen in np.array_split(np.flatnonzero(gamma)[np.argsort(known.size[gamma])], 4):
        for values in (width[chosen], length[chosen]):
            assert abs(values.mean()) < 0.15
            assert values.std() == pytest.approx(1, abs=0.12)


def test_the_box_is_the_best_of_all_boxes() -> None:
    """Against a plain loop over every box of the same edges."""
    known, gamma = images(500)
    box = fit(known, gamma, efficiency_min=0.2, hadrons_min=20)
    width, length = box.scaled(known)
    best = 0.0
    inside = {
        (low, high): [(values >= low) & (values < high) for values in (width, length)]
        for low, high in itertools.combinations(_EDGES[::2], 2)
    }
    for one, other in itertools.product(inside.values(), inside.values()):
        kept = one[0] & other[1]
        efficiency, left = kept[gamma].mean(), kept[~gamma].sum()
        if efficiency >= 0.2 and left >= 20:
            best = max(best, efficiency / np.sqrt(left / (~gamma).sum()))
    assert box.quality >= best - 1e-9
    mine = classical._distance(width, box.width_range) <= 0
    mine &= classical._distance(length, box.length_range) <= 0
    assert mine[gamma].mean() / np.sqrt(mine[~gamma].mean()) == pytest.approx(box.quality, rel=1e-6)


def test_a_score_above_a_half_is_inside_the_box() -> None:
    known, gamma = images()
    box = fit(known, gamma)
    width, length = box.scaled(known)
    inside = (width > box.width_range[0]) & (width < box.width_range[1])
    inside &= (length > box.length_range[0]) & (length < box.length_range[1])
    assert np.array_equal(box.score(known) > 0.5, inside)


def test_wide_hadrons_are_cut_from_above() -> None:
    known, gamma = images(contrast=2.0)
    box = fit(known, gamma)
    assert box.width_range[1] < 1.5 and box.length_range[1] < 1.5


def test_classes_that_are_alike_give_no_quality_on_other_images() -> None:
    known, gamma = images(contrast=0.0)
    others, truth = images(seed=1, contrast=0.0)
    kept = fit(known, gamma).score(others) > 0.5
    assert kept[truth].mean() / np.sqrt(max(kept[~truth].mean(), 1e-9)) < 1.15


def test_scores_of_an_image_do_not_depend_on_the_other_images() -> None:
    known, gamma = images()
    box = fit(known, gamma)
    alone = Features(known.size[:1], known.width[:1], known.length[:1])
    assert box.score(alone)[0] == box.score(known)[0]


def test_scores_are_finite_between_zero_and_one_for_any_image() -> None:
    known, gamma = images()
    wild = Features(np.array([1e-3, 1e9]), np.array([1e-9, 1e6]), np.array([1e-9, 1e6]))
    scores = fit(known, gamma).score(wild)
    assert np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()


def test_a_missing_class_is_an_error() -> None:
    known, gamma = images(50)
    with pytest.raises(UsageError, match="gammas and hadrons"):
        fit(known, np.ones_like(gamma))


def test_an_image_without_light_is_in_no_box_and_spoils_no_other() -> None:
    random = np.random.default_rng(4)
    size, width = 10 ** random.uniform(2, 3, 400), random.normal(0.1, 0.01, 400)
    gamma = np.arange(400) % 2 == 0
    width[~gamma] += 0.05
    images = Features(size, width, 2 * width)
    dark = Features(np.append(size, 0.0), np.append(width, np.nan), np.append(2 * width, np.nan))
    cut = fit(dark, np.append(gamma, True))
    assert np.array_equal(cut.score(dark)[:-1], fit(images, gamma).score(images))
    assert cut.score(dark)[-1] == 0.0

"""Q, its errors and its cut against hand-worked numbers and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.dl.judging.q_factor import bootstrap, curve, passed, roc


def test_q_is_the_hand_worked_number() -> None:
    """8 of 10 gammas and 4 of 100 hadrons left: Q = 0.8 / sqrt(0.04) = 4."""
    scores = np.array([0.9] * 8 + [0.1] * 2 + [0.9] * 4 + [0.1] * 96)
    gamma = np.arange(110) < 10
    known = curve(scores, gamma, np.array([0.5]))
    assert known.quality[0] == pytest.approx(4.0)
    assert (known.gammas[0], known.hadrons[0]) == (8, 4)


def test_counting_error_is_the_hand_worked_number() -> None:
    """(dQ/Q)^2 = (1 - 0.8)/8 + (1 - 0.04)/(4 * 4) = 0.085."""
    scores = np.array([0.9] * 8 + [0.1] * 2 + [0.9] * 4 + [0.1] * 96)
    known = curve(scores, np.arange(110) < 10, np.array([0.5]))
    assert known.error[0] == pytest.approx(4 * np.sqrt(0.085))


def test_counting_error_is_the_spread_of_repeated_experiments() -> None:
    random = np.random.default_rng(1)
    gammas, hadrons = random.binomial(400, 0.6, 4000), random.binomial(900, 0.1, 4000)
    spread = np.std(gammas / 400 / np.sqrt(hadrons / 900))
    scores = np.array([0.9] * 240 + [0.1] * 160 + [0.9] * 90 + [0.1] * 810)
    known = curve(scores, np.arange(1300) < 400, np.array([0.5]))
    assert known.error[0] == pytest.approx(spread, rel=0.05)


def test_without_a_hadron_left_there_is_no_q() -> None:
    known = curve(np.array([0.9, 0.1]), np.array([True, False]), np.array([0.5]))
    assert np.isnan(known.quality[0])


def test_no_cut_means_q_of_one() -> None:
    known = curve(np.random.default_rng(0).uniform(0.01, 1, 50), np.arange(50) < 20)
    assert known.quality[0] == pytest.approx(1.0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 1))
def test_passed_counts_scores_above_the_cut(scores: list[float], cut: float) -> None:
    assert passed(np.array(scores), np.array([cut]))[0] == sum(score > cut for score in scores)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), min_size=2, max_size=30))
def test_auc_is_that_of_scikit_learn(pairs: list[tuple[float, bool]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, gamma = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    if gamma.any() and not gamma.all():
        assert roc(scores, gamma)[2] == pytest.approx(metrics.roc_auc_score(gamma, scores))


def test_bootstrap_spread_agrees_with_counting_where_every_shower_has_one_image() -> None:
    random = np.random.default_rng(3)
    scores, gamma = random.random(1500), np.arange(1500) < 600
    scores[gamma] = scores[gamma] ** 0.5
    drawn = bootstrap(scores, gamma, np.arange(1500), resamples=600)
    at = 100  # a cut of 0.5
    assert np.nanstd(drawn.quality[:, at]) == pytest.approx(curve(scores, gamma).error[at], rel=0.15)


def test_bootstrap_spread_grows_where_images_of_a_shower_are_copies() -> None:
    """Nine copies of each image carry no more information: the error must be that of one copy, not a third of it."""
    random = np.random.default_rng(3)
    scores, gamma = random.random(400), np.arange(400) < 200
    once = bootstrap(scores, gamma, np.arange(400), resamples=500)
    copied = bootstrap(np.repeat(scores, 9), np.repeat(gamma, 9), np.repeat(np.arange(400), 9), resamples=500)
    assert np.nanstd(copied.quality[:, 100]) == pytest.approx(np.nanstd(once.quality[:, 100]), rel=0.15)


def test_the_band_ends_where_most_resamples_have_no_hadron() -> None:
    scores, gamma = np.array([0.9, 0.9, 0.1, 0.1, 0.1]), np.array([True, True, False, False, False])
    drawn = bootstrap(scores, gamma, np.arange(5), resamples=100)
    low, high = drawn.band(drawn.quality)
    assert np.isnan(low[100]) and np.isnan(high[100])
    assert np.isfinite(low[0])

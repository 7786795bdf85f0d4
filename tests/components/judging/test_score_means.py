"""The mean of the scores of several methods."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from apbatch.dl.judging.q_factor import roc
from apbatch.dl.judging.score_means import _fit, choose_mean
from apbatch.errors import UsageError


def members(n: int = 600, seed: int = 1, bend: float = 1.0) -> tuple[list[np.ndarray], np.ndarray]:
    """Two methods that err independently; the scores of one are bent by a power, so that logits mean little."""
    random = np.random.default_rng(seed)
    gamma = random.random(n) < 0.5
    logits = 1.2 * (2 * gamma - 1) + random.normal(0, 2, (2, n))
    scores = 1 / (1 + np.exp(-logits))
    scores[1] **= bend
    return list(scores), gamma


def test_weights_are_those_of_a_logistic_regression_and_the_mean_is_better_than_either() -> None:
    both, gamma = members(n=4000)
    both[1] = expit(0.5 * logit(both[1]) + 0.3)  # one method exaggerates less, and is shifted
    mean = choose_mean(both, gamma)
    scores = mean.of(both)
    assert roc(scores, gamma)[2] > max(roc(own, gamma)[2] for own in both) + 0.02
    peer = LogisticRegression(C=1e6, class_weight="balanced").fit(logit(np.array(both)).T, gamma)
    mean = _fit("logits", both, gamma)
    assert mean.weights == pytest.approx(peer.coef_[0], rel=0.02)
    assert mean.constant == pytest.approx(peer.intercept_[0], abs=0.02)
    assert choose_mean(both, gamma).of([own[::-1] for own in both]) == pytest.approx(scores[::-1])


def test_a_method_that_says_nothing_has_next_to_no_weight_and_one_that_says_the_opposite_none() -> None:
    both, gamma = members(n=4000)
    noise = np.random.default_rng(5).random(4000)
    for useless in (noise, 1 - both[0]):
        mean = choose_mean([both[0], useless], gamma)
        assert mean.weights[1] < 0.1 * mean.weights[0]
        assert roc(mean.of([both[0], useless]), gamma)[2] >= roc(both[0], gamma)[2] - 0.002
    assert mean.weights[1] == 0


def test_scores_that_are_no_probabilities_are_brought_together_by_their_ranks() -> None:
    both, gamma = members(bend=60.0)
    mean = choose_mean(both, gamma)
    assert mean.kind == "ranks"
    ranks = np.array([(rankdata(own) - 0.5) / len(gamma) for own in both])
    assert logit(mean.of(both)) == pytest.approx(np.array(mean.weights) @ logit(ranks) + mean.constant)


def test_classes_that_one_method_parts_without_an_error_and_images_without_a_score_leave_weights_finite() -> None:
    both, gamma = members()
    perfect = np.where(gamma, 0.9, 0.1)
    both[1][:5] = np.nan
    mean = choose_mean([perfect, both[1]], gamma)
    assert np.isfinite(mean.weights).all() and mean.weights[0] < 1e3
    assert roc(mean.of([perfect, both[1]])[5:], gamma[5:])[2] == 1


@pytest.mark.parametrize("bend", [1.0, 60.0])
def test_the_score_of_an_image_does_not_depend_on_the_others(bend: float) -> None:
    both, gamma = members(bend=bend)
    mean = choose_mean(both, gamma)
    assert mean.of([own[5:6] for own in both]) == pytest.approx(mean.of(both)[5:6])


@pytest.mark.parametrize("bend", [1.0, 60.0])
def test_scores_of_0_and_1_have_a_mean_and_an_image_without_a_score_has_none(bend: float) -> None:
    both, gamma = members(bend=bend)
    mean = choose_mean(both, gamma)
    both[0][:3] = 0.0, 1.0, np.nan
    scores = mean.of(both)
    assert ((scores[:2] >= 0) & (scores[:2] <= 1)).all() and np.isnan(scores[2]) and np.isfinite(scores[3:]).all()


def test_what_cannot_be_brought_together_is_refused() -> None:
    both, gamma = members()
    mean = choose_mean(both, gamma)
    for wrong in (both[:1], [both[0], both[1][1:]]):
        with pytest.raises(UsageError, match="different images"):
            mean.of(wrong)
    with pytest.raises(UsageError, match="two methods"):
        choose_mean(both[:1], gamma)
    with pytest.raises(UsageError, match="differ in number"):
        choose_mean(both, gamma[1:])

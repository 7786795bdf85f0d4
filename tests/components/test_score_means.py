"""The mean of the scores of several methods."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import rankdata

from apbatch.dl.judging.q_factor import roc
from apbatch.dl.judging.score_means import choose_mean
from apbatch.errors import UsageError


def members(n: int = 600, seed: int = 1, bend: float = 1.0) -> tuple[list[np.ndarray], np.ndarray]:
    """Two methods that err independently; the scores of one are bent by a power, so that logits mean little."""
    random = np.random.default_rng(seed)
    gamma = random.random(n) < 0.5
    logits = 1.2 * (2 * gamma - 1) + random.normal(0, 2, (2, n))
    scores = 1 / (1 + np.exp(-logits))
    scores[1] **= bend
    return list(scores), gamma


def test_a_mean_of_logits_is_the_plain_one_and_better_than_either() -> None:
    both, gamma = members()
    mean = choose_mean(both, gamma)
    scores = mean.of(both)
    assert roc(scores, gamma)[2] > max(roc(own, gamma)[2] for own in both) + 0.02
    if mean.kind == "logits":
        assert logit(scores) == pytest.approx(np.mean(logit(both), axis=0))
    assert mean.of([own[::-1] for own in both]) == pytest.approx(scores[::-1])


def test_scores_that_are_no_probabilities_are_brought_together_by_their_ranks() -> None:
    both, gamma = members(bend=60.0)
    mean = choose_mean(both, gamma)
    assert mean.kind == "ranks"
    wanted = np.mean([(rankdata(own) - 0.5) / len(gamma) for own in both], axis=0)
    assert mean.of(both) == pytest.approx(wanted)


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

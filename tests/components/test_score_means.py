"""The mean of the scores of several methods."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import rankdata

from apbatch.dl.judging.q_factor import roc
from apbatch.dl.judging.score_means import mean_scores
from apbatch.errors import UsageError


def members(n: int = 600, seed: int = 1, bend: float = 1.0) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """Two methods that err independently; the scores of one are bent by a power, so that logits mean little."""
    random = np.random.default_rng(seed)
    gamma = random.random(n) < 0.5
    logits = 1.2 * (2 * gamma - 1) + random.normal(0, 2, (2, n))
    scores = 1 / (1 + np.exp(-logits))
    scores[1] **= bend
    return [{"validation": own, "test": own[::-1].copy()} for own in scores], gamma


def test_a_mean_of_logits_is_the_plain_one_and_better_than_either() -> None:
    both, gamma = members()
    scores, kind = mean_scores(both, gamma)
    single = [roc(own["validation"], gamma)[2] for own in both]
    assert roc(scores["validation"], gamma)[2] > max(single) + 0.02
    if kind == "logits":
        assert logit(scores["validation"]) == pytest.approx(np.mean([logit(own["validation"]) for own in both], axis=0))
    assert scores["test"] == pytest.approx(scores["validation"][::-1])


def test_scores_that_are_no_probabilities_are_brought_together_by_their_ranks() -> None:
    both, gamma = members(bend=60.0)
    scores, kind = mean_scores(both, gamma)
    assert kind == "ranks"
    wanted = np.mean([(rankdata(own["validation"]) - 0.5) / len(gamma) for own in both], axis=0)
    assert scores["validation"] == pytest.approx(wanted)
    assert ((scores["test"] >= 0) & (scores["test"] <= 1)).all()


def test_the_score_of_an_image_does_not_depend_on_the_others_of_the_test_set() -> None:
    both, gamma = members(bend=60.0)
    few = [{"validation": own["validation"], "test": own["test"][:3]} for own in both]
    assert mean_scores(few, gamma)[0]["test"] == pytest.approx(mean_scores(both, gamma)[0]["test"][:3])


def test_scores_of_0_and_1_have_finite_logits() -> None:
    both, gamma = members()
    both[0]["test"][:2] = 0.0, 1.0
    scores, _ = mean_scores(both, gamma)
    assert np.isfinite(scores["test"]).all()


@pytest.mark.parametrize("fault", ["one", "other images", "labels"])
def test_what_cannot_be_brought_together_is_refused(fault: str) -> None:
    both, gamma = members()
    if fault == "one":
        both = both[:1]
    elif fault == "other images":
        both[1]["test"] = both[1]["test"][1:]
    else:
        gamma = gamma[1:]
    with pytest.raises(UsageError):
        mean_scores(both, gamma)

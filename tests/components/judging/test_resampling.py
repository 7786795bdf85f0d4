"""The paired bootstrap: its errors are those of repeated experiments, and pairing finds what is common."""

from __future__ import annotations

import numpy as np
import pytest

from apbatch.dl.judging.q_factor import bootstrap
from apbatch.dl.judging.resampling import Interval, Resamples, compare


def events(seed: int, showers: int = 400, images: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Passes of two methods that mostly agree, alike within a shower."""
    random = np.random.default_rng(seed)
    shower = np.repeat(np.arange(showers), images)
    gamma = shower < showers // 2
    chance = np.repeat(random.beta(2, 2, showers), images)
    level = random.random(len(shower))
    first = level < np.where(gamma, 0.3 + 0.6 * chance, 0.4 * chance)
    second = level < np.where(gamma, 0.25 + 0.6 * chance, 0.4 * chance)
    return gamma, shower, first, second


def q(gamma: np.ndarray, passed: np.ndarray) -> float:
    return passed[gamma].mean() / np.sqrt(passed[~gamma].mean())


def test_the_first_entry_is_q_of_the_events_as_they_are() -> None:
    gamma, shower, first, _ = events(1)
    assert Resamples(gamma, shower, 50).q_factors(first)[0] == pytest.approx(q(gamma, first))


def test_the_error_is_the_spread_of_repeated_experiments() -> None:
    repeated = []
    for seed in range(300):
        gamma, _, first, _ = events(seed)
        repeated.append(q(gamma, first))
    errors = []
    for seed in range(8):
        gamma, shower, first, _ = events(seed)
        found = Resamples(gamma, shower, 400, seed).q_factors(first)
        interval = Interval.of(found[0], found[1:])
        assert interval is not None
        errors.append(interval.error)
    assert np.mean(errors) == pytest.approx(np.std(repeated), rel=0.15)


def test_it_agrees_with_the_bootstrap_of_the_curves() -> None:
    gamma, shower, first, _ = events(2)
    mine = Resamples(gamma, shower, 2000).q_factors(first)[1:].std()
    other = bootstrap(first.astype(float), gamma, shower, 2000, cuts=np.array([0.5])).quality[:, 0].std()
    assert mine == pytest.approx(other, rel=0.08)


def test_a_paired_difference_is_known_better_than_its_parts() -> None:
    gamma, shower, first, second = events(3)
    draws = Resamples(gamma, shower, 1000)
    a, b = draws.q_factors(first), draws.q_factors(second)
    found = compare(a, b)
    assert found is not None
    assert found.difference.error < 0.6 * np.hypot(a[1:].std(), b[1:].std())
    assert found.ratio.value == pytest.approx(q(gamma, first) / q(gamma, second))
    assert found.sigma > 2


def test_a_method_against_itself_is_no_difference() -> None:
    gamma, shower, first, _ = events(4)
    found = compare(*[Resamples(gamma, shower, 200).q_factors(first)] * 2)
    assert found is not None
    assert (found.p_value, found.ratio.value, found.difference.value) == (1.0, 1.0, 0.0)


def test_false_alarms_are_as_rare_as_the_p_value_says() -> None:
    """Two methods that are equally good: p below 0.1 in about a tenth of the experiments."""
    alarms = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        shower, gamma = np.arange(600), np.arange(600) < 300
        passes = [random.random(600) < np.where(gamma, 0.7, 0.3) for _ in range(2)]
        draws = Resamples(gamma, shower, 300, seed)
        found = compare(draws.q_factors(passes[0]), draws.q_factors(passes[1]))
        assert found is not None
        alarms += found.p_value < 0.1
    assert 8 <= alarms <= 36


def test_without_hadrons_left_there_is_no_comparison() -> None:
    gamma, shower, first, _ = events(5)
    draws = Resamples(gamma, shower, 100)
    assert compare(draws.q_factors(first), draws.q_factors(first & gamma)) is None


def test_the_spread_of_trainings_is_in_the_error() -> None:
    """Five trainings whose Q differs by 0.2: the mean's error is their standard error."""
    values = np.array([1.8, 1.9, 2.0, 2.1, 2.2])
    gamma, shower, _, _ = events(6)
    draws = Resamples(gamma, shower, 20_000)
    joined = draws.over_seeds([np.full(20_001, value) for value in values])
    assert joined[0] == pytest.approx(2.0)
    assert joined[1:].std() == pytest.approx(values.std(ddof=1) / np.sqrt(5), rel=0.03)


def test_one_training_is_taken_as_it_is() -> None:
    gamma, shower, first, _ = events(7)
    draws = Resamples(gamma, shower, 50)
    found = draws.q_factors(first)
    assert np.array_equal(draws.over_seeds([found]), found)


def test_sigma_and_the_p_value_tell_the_same_where_both_are_known() -> None:
    """A difference of nearly normal resamples: two-sided p from counting, sigma from the error."""
    normal = np.random.default_rng(8).normal(0.2, 0.1, 20_001)
    normal[0] = 0.2
    found = compare(1 + normal, np.ones(20_001))
    assert found is not None
    assert found.sigma == pytest.approx(2.0, abs=0.03)
    assert found.p_value == pytest.approx(0.0455, rel=0.15)

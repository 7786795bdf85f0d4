"""Li-Ma significance against gammapy, and the choice of a cut for a stated observation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apbatch.dl.judging.observation import Observation, choose, hadrons_needed, hours_needed, li_ma, price

#: (n_on, n_off, alpha, significance) as WStatCountsStatistic.sqrt_ts of gammapy 2.1 prints it.
GAMMAPY = [
    (18, 97, 1 / 12, 2.8424260320458745),
    (120, 160, 0.5, 3.314701380621544),
    (10, 0, 0.2, 5.986250026900072),
    (5, 60, 0.1, -0.40194005655442544),
    (0, 12, 0.25, -2.314183491329294),
    (4000, 19000, 0.2, 2.9320771711654583),
    (37, 21, 1.0, 2.1146043700005337),
    (13, 11, 0.5, 2.09283236849328),
]


@pytest.mark.parametrize(("n_on", "n_off", "alpha", "expected"), GAMMAPY)
def test_significance_is_that_of_gammapy(n_on: int, n_off: int, alpha: float, expected: float) -> None:
    assert float(li_ma(n_on, n_off, alpha)) == pytest.approx(expected, rel=1e-9)


def test_without_counts_there_is_no_significance() -> None:
    assert float(li_ma(0, 0, 0.3)) == 0.0


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.05, 2))
def test_the_sign_is_that_of_the_excess(n_on: int, n_off: int, alpha: float) -> None:
    assert np.sign(li_ma(n_on, n_off, alpha)) in (0.0, np.sign(n_on - alpha * n_off))


def test_a_faint_source_on_much_background_is_as_significant_as_q_says() -> None:
    """With S << B and alpha to 0 the significance is Q S / sqrt(B)."""
    faint = Observation(hours=100, background_rate=1e5, signal_to_background=1e-3, alpha=1e-4)
    plain, cut = faint.significance(1.0, 1.0), faint.significance(0.5, 0.04)
    assert cut / plain == pytest.approx(0.5 / np.sqrt(0.04), rel=0.02)


def scored(n: int = 40_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    gamma = np.arange(n) < n // 2
    return 1 / (1 + np.exp(-random.normal(np.where(gamma, 1.2, -1.2), 1.2))), gamma


def test_a_bright_source_wants_a_looser_cut_than_a_faint_one() -> None:
    scores, gamma = scored()
    cuts = [
        choose(scores, gamma, Observation(signal_to_background=ratio), hadrons_min=100).cut for ratio in (1e-3, 0.1, 3)
    ]
    assert cuts[0] > cuts[1] > cuts[2]


def test_the_chosen_cut_leaves_as_many_hadrons_as_it_must() -> None:
    scores, gamma = scored()
    for least in (50, 500, 5000):
        cut = choose(scores, gamma, Observation(signal_to_background=1e-4), hadrons_min=least).cut
        assert (scores[~gamma] > cut).sum() >= least


def test_if_no_cut_leaves_enough_everything_is_kept() -> None:
    scores, gamma = scored(200)
    assert choose(scores, gamma, Observation(), hadrons_min=5000).cut == 0.0


def test_the_best_cut_has_no_price_and_a_far_one_has() -> None:
    scores, gamma = scored()
    observation = Observation(signal_to_background=0.01)
    chosen = choose(scores, gamma, observation, hadrons_min=100).cut
    paid = price(scores, gamma, chosen, observation, hadrons_min=100)
    assert 0.95 < paid["chosen"] <= 1
    assert paid["relative"][0] < 0.7
    known = [value for value in paid["relative"] if value is not None]
    assert max(known) == pytest.approx(1.0)


def test_hours_to_five_sigma_are_where_five_sigma_are_reached() -> None:
    observation = Observation(hours=3)
    hours = hours_needed((0.6, 0.02), observation)
    longer = observation.model_copy(update={"hours": hours})
    assert float(longer.significance(0.6, 0.02)) == pytest.approx(5.0)


def test_a_cut_that_leaves_the_hadrons_needed_leaves_enough_of_another_draw() -> None:
    """Of showers with one to ten images each, which pass together: the number expected fails in every second draw."""
    random = np.random.default_rng(6)

    def draw(showers: int) -> tuple[np.ndarray, np.ndarray]:
        shower = np.repeat(np.arange(showers), random.integers(1, 11, showers))
        return random.uniform(size=showers)[shower] + 0.01 * random.normal(size=len(shower)), shower

    kept = []
    for _ in range(200):
        (scores, shower), (others, _) = draw(800), draw(2800)
        needed = hadrons_needed(scores, shower, len(scores) / len(others), 200)
        cut = np.sort(scores)[-needed]
        kept.append(int((others >= cut).sum()))
    assert np.mean(np.array(kept) >= 200) > 0.96
    assert np.median(kept) < 600


def test_where_every_shower_has_one_image_the_hadrons_needed_are_those_of_two_poisson_counts() -> None:
    scores = np.linspace(0, 1, 2000)
    needed = hadrons_needed(scores, np.arange(2000), 0.5, 100)
    expected = needed / 0.5
    assert 100 <= expected - 2 * np.sqrt(needed * (1 / 0.5**2 + 1 / 0.5)) < 102
    assert hadrons_needed(scores[:20], np.arange(20), 0.5, 100) == 20

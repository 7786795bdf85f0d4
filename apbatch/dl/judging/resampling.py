"""Comparisons of methods on the same events: a paired bootstrap over whole showers, and over training seeds.

Every method sees the same resamples, so what the draw of showers adds to all of them alike cancels in a difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.dl.judging.q_factor import Flags, Floats

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A value with its error.

    Attributes
    ----------
    value : float
    error : float
        Standard deviation of the resamples.
    low, high : float
        Central interval of 95 %.
    """

    value: float
    error: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, samples: Floats) -> Interval | None:
        """Summarise resamples; None if the value or over a twentieth of the resamples is no number."""
        usable = samples[np.isfinite(samples)]
        if not math.isfinite(value) or len(usable) < 0.95 * len(samples):
            return None
        low, high = np.quantile(usable, [0.025, 0.975])
        return cls(float(value), float(usable.std()), float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """One method against another.

    Attributes
    ----------
    ratio, difference : Interval
    p_value : float
        Two-sided: how often resamples fall on the other side of no difference, twice; not below 1 / (resamples + 1).
    sigma : float
        The difference over its error: also where no resample falls on the other side, so that p is only a limit.
    """

    ratio: Interval
    difference: Interval
    p_value: float
    sigma: float


class Resamples:
    """Draws of showers with replacement, the same for everything that is compared.

    Parameters
    ----------
    gamma : ndarray of bool, shape (n_events,)
    shower : ndarray of int64, shape (n_events,)
        Images of one shower are drawn together.
    resamples : int
    seed : int
    """

    def __init__(self, gamma: Flags, shower: Ints, resamples: int = 1000, seed: int = 0) -> None:
        random = np.random.default_rng([seed, 17])
        self.n = resamples
        self._gamma = gamma
        self._members: dict[bool, tuple[Ints, int, Floats]] = {}
        for kind in (True, False):
            _, numbers = np.unique(shower[gamma == kind], return_inverse=True)
            count = int(numbers.max()) + 1
            weights = random.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
            self._members[kind] = (numbers.astype(np.int64), count, weights)
        self._random = random

    def shares(self, passed: Flags, among: Flags | None = None) -> tuple[Floats, Floats]:
        """Return the share of gammas and of hadrons that passed, shape (1 + resamples,); first the events as they are.

        Parameters
        ----------
        passed : ndarray of bool, shape (n_events,)
        among : ndarray of bool, shape (n_events,), optional
            Only these events count, such as a bin of size.
        """
        by_kind = []
        for kind in (True, False):
            numbers, count, weights = self._members[kind]
            of = self._gamma == kind
            counts = np.ones(int(of.sum())) if among is None else among[of].astype(np.float64)
            total = np.bincount(numbers, counts, count)
            left = np.bincount(numbers, counts * passed[of], count)
            with np.errstate(divide="ignore", invalid="ignore"):
                shares = np.concatenate([[left.sum() / total.sum()], (weights @ left) / (weights @ total)])
            by_kind.append(shares)
        return by_kind[0], by_kind[1]

    def q_factors(self, passed: Flags, among: Flags | None = None) -> Floats:
        """Return Q of a cut, shape (1 + resamples,): first of the events as they are; NaN where no hadron is left."""
        gammas, hadrons = self.shares(passed, among)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(hadrons > 0, gammas / np.sqrt(hadrons), np.nan)

    def over_seeds(self, samples: Sequence[Floats]) -> Floats:
        """Join the trainings of one method, each of shape (1 + resamples,), to their mean with the spread of seeds.

        Each resample draws trainings with replacement as well. The deviation is stretched by sqrt(n / (n - 1)), as
        the bootstrap of n values is too narrow by that; with one training its share in the error is not known.
        """
        table = np.stack(samples)
        mean = table.mean(axis=0)
        n = len(samples)
        if n == 1:
            return np.asarray(mean)
        picked = self._random.integers(n, size=(n, table.shape[1]))
        means = np.take_along_axis(table, picked, axis=0).mean(axis=0)
        joined = mean + math.sqrt(n / (n - 1)) * (means - mean)
        joined[0] = mean[0]
        return np.asarray(joined)


def compare(first: Floats, second: Floats) -> Comparison | None:
    """Compare two methods by their resamples, shape (1 + resamples,) each; None if one of them has no Q."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = Interval.of(first[0] / second[0], first[1:] / second[1:])
    differences = first[1:] - second[1:]
    difference = Interval.of(first[0] - second[0], differences)
    if ratio is None or difference is None:
        return None
    usable = differences[np.isfinite(differences)]
    smaller = min(int((usable <= 0).sum()), int((usable >= 0).sum()))
    p_value = min(1.0, 2 * (smaller + 1) / (len(usable) + 1))
    sigma = difference.value / difference.error if difference.error > 0 else 0.0
    return Comparison(ratio, difference, p_value, sigma)

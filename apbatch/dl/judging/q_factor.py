"""The quality factor Q = gamma efficiency / sqrt(hadron efficiency) and its errors.

Images of one shower are alike, so errors come from a bootstrap that draws whole showers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

#: Cuts on a score that lies in 0…1; the last one is just below 1.
SCORE_CUTS: Floats = np.linspace(0, 1, 201)[:-1]


@dataclass(frozen=True)
class Curve:
    """What each cut leaves; all arrays of shape (n_cuts,).

    Attributes
    ----------
    gammas, hadrons : ndarray of int
        Events with a score above the cut.
    gamma_efficiency, hadron_efficiency, quality : ndarray
        Quality is NaN where no hadron is left.
    error : ndarray
        One standard deviation of the quality from counting events as if they were independent.
    """

    cuts: Floats
    gammas: npt.NDArray[np.int64]
    hadrons: npt.NDArray[np.int64]
    gamma_efficiency: Floats
    hadron_efficiency: Floats
    quality: Floats
    error: Floats


def passed(scores: Floats, cuts: Floats = SCORE_CUTS) -> npt.NDArray[np.int64]:
    """Return how many scores are above each cut, shape (n_cuts,)."""
    return len(scores) - np.searchsorted(np.sort(scores), cuts, side="right")


def curve(scores: Floats, gamma: Flags, cuts: Floats = SCORE_CUTS) -> Curve:
    """Compute efficiencies and Q for each cut.

    Parameters
    ----------
    scores : ndarray of shape (n_events,)
    gamma : ndarray of bool, shape (n_events,)
        With both classes.
    cuts : ndarray of shape (n_cuts,)
        An event passes a cut if its score is above it.

    Examples
    --------
    >>> scores, gamma = np.array([0.9, 0.8, 0.6, 0.1]), np.array([True, True, False, False])
    >>> curve(scores, gamma, cuts=np.array([0.0, 0.5])).quality.round(2)
    array([1.  , 1.41])
    """
    n_gamma, n_hadron = int(gamma.sum()), int((~gamma).sum())
    gammas, hadrons = passed(scores[gamma], cuts), passed(scores[~gamma], cuts)
    gamma_efficiency, hadron_efficiency = gammas / n_gamma, hadrons / n_hadron
    with np.errstate(divide="ignore", invalid="ignore"):
        quality = np.where(hadrons > 0, gamma_efficiency / np.sqrt(hadron_efficiency), np.nan)
        relative = (1 - gamma_efficiency) / gammas + (1 - hadron_efficiency) / (4 * hadrons)
        error = np.where((hadrons > 0) & (gammas > 0), quality * np.sqrt(relative), np.nan)
    return Curve(cuts, gammas, hadrons, gamma_efficiency, hadron_efficiency, quality, error)


@dataclass(frozen=True)
class Bootstrap:
    """Resampled results, shape (n_resamples, n_cuts): quality, efficiencies, and gammas and hadrons rightly told."""

    quality: Floats
    gammas: Floats
    hadrons_rejected: Floats
    gamma_efficiency: Floats
    hadron_efficiency: Floats

    def band(self, values: Floats, level: float = 0.68) -> tuple[Floats, Floats]:
        """Return the central interval at each cut; NaN where over half of the resamples have no hadron left."""
        usable = np.isfinite(values).mean(axis=0) >= 0.5
        filled = np.where(usable, values, 0.0)
        low, high = np.nanquantile(filled, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return np.where(usable, low, np.nan), np.where(usable, high, np.nan)


def bootstrap(
    scores: Floats,
    gamma: Flags,
    shower: npt.NDArray[np.int64],
    resamples: int = 400,
    seed: int = 0,
    cuts: Floats = SCORE_CUTS,
) -> Bootstrap:
    """Draw showers with replacement, separately for gammas and hadrons, and compute all curves again.

    Parameters
    ----------
    scores : ndarray of shape (n_events,)
    gamma : ndarray of bool, shape (n_events,)
    shower : ndarray of int64, shape (n_events,)
        Number of the shower of each event.
    resamples : int
        Drawings.
    seed : int
    cuts : ndarray of shape (n_cuts,)
    """
    random = np.random.default_rng(seed)
    efficiency: dict[bool, Floats] = {}
    totals: dict[bool, Floats] = {}
    for kind in (True, False):
        rows = gamma == kind
        _, numbers = np.unique(shower[rows], return_inverse=True)
        n_showers = int(numbers.max()) + 1
        above = scores[rows][:, None] > cuts[None, :]
        table = np.zeros((n_showers, len(cuts) + 1))
        np.add.at(table, numbers, np.column_stack([np.ones(len(above)), above]))
        weighted = random.multinomial(n_showers, np.full(n_showers, 1 / n_showers), size=resamples) @ table
        totals[kind], efficiency[kind] = np.maximum(weighted[:, :1], 1), weighted[:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        leaking = efficiency[False] / totals[False]
        quality = np.where(efficiency[False] > 0, efficiency[True] / totals[True] / np.sqrt(leaking), np.nan)
    rejected = totals[False] - efficiency[False]
    return Bootstrap(quality, efficiency[True], rejected, efficiency[True] / totals[True], leaking)


def roc(scores: Floats, gamma: Flags) -> tuple[Floats, Floats, float]:
    """Return hadron efficiency, gamma efficiency and the area under the curve; equal scores count half."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    gammas = np.concatenate([[0], np.cumsum(gamma[order])[ends]]) / max(int(gamma.sum()), 1)
    hadrons = np.concatenate([[0], np.cumsum(~gamma[order])[ends]]) / max(int((~gamma).sum()), 1)
    area = float(np.sum(np.diff(hadrons) * (gammas[1:] + gammas[:-1]) / 2))
    return hadrons, gammas, area

"""Which cut an observation needs: the expected significance of a source, and what a wrongly chosen cut costs.

Q is the figure of merit of a faint source on a large background. With little background left the significance of Li
and Ma (1983) is what counts; it stays finite where Q does not, so the choice does not run to the last hadron.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from apbatch.dl.judging.q_factor import SCORE_CUTS, Flags, Floats, curve


class Observation(BaseModel):
    """What is looked at, and for how long.

    Attributes
    ----------
    hours : float
        Time on the source.
    background_rate : float
        Hadron images an hour in the signal region that pass the selection, before any cut on a score.
    signal_to_background : float
        Gamma images for each of these hadron images.
    alpha : float
        Exposure of the signal region over that of the background region.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    hours: float = Field(default=20.0, gt=0)
    background_rate: float = Field(default=500.0, gt=0)
    signal_to_background: float = Field(default=0.01, gt=0)
    alpha: float = Field(default=0.2, gt=0)

    def significance(self, gamma_efficiency: Any, hadron_efficiency: Any) -> Floats:
        """Return the Li-Ma significance of the expected counts after a cut, for arrays of efficiencies."""
        background = self.hours * self.background_rate * np.asarray(hadron_efficiency, np.float64)
        signal = self.hours * self.background_rate * self.signal_to_background * np.asarray(gamma_efficiency)
        return li_ma(signal + background, background / self.alpha, self.alpha)


def li_ma(n_on: Any, n_off: Any, alpha: Any) -> Floats:
    """Return the significance of an excess, negative for a deficit; 0 without any count.

    Parameters
    ----------
    n_on, n_off : array_like
        Counts on and off the source; need not be whole, so that expected counts can be given.
    alpha : array_like
        Exposure on over exposure off.

    Notes
    -----
    T. Li and Y. Ma, ApJ 272 (1983) 317, equation 17, doi:10.1086/161295.
    """
    n_on, n_off, alpha = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in (n_on, n_off, alpha)))
    total = n_on + n_off
    with np.errstate(divide="ignore", invalid="ignore"):
        on = np.where(n_on > 0, n_on * np.log((1 + alpha) / alpha * n_on / total), 0.0)
        off = np.where(n_off > 0, n_off * np.log((1 + alpha) * n_off / total), 0.0)
    # Rounding may take the sum a little below 0 where there is no excess at all.
    return np.asarray(np.sign(n_on - alpha * n_off) * np.sqrt(2 * np.maximum(on + off, 0.0)))


@dataclass(frozen=True)
class Choice:
    """A cut and why it was taken.

    Attributes
    ----------
    at : int
        Place in `SCORE_CUTS`.
    cut : float
    significance : ndarray of shape (n_cuts,)
        Expected on the events of the choice, NaN where the cut was not allowed.
    """

    at: int
    cut: float
    significance: Floats


def choose(
    scores: Floats,
    gamma: Flags,
    observation: Observation,
    hadrons_min: int,
    efficiency_min: float = 0.1,
    cuts: Floats = SCORE_CUTS,
) -> Choice:
    """Choose the cut with the highest expected significance, on events that are not the test set.

    The hadron efficiency is taken one standard deviation of its counting error high, so that the choice is not drawn
    to a place where hadrons are missing by chance. Cuts that leave fewer than `hadrons_min` hadrons, or less than
    `efficiency_min` of the gammas, are not allowed; if none is allowed, everything is kept (the cut at 0).

    Parameters
    ----------
    scores : ndarray of shape (n_events,)
        0…1, high for gammas.
    gamma : ndarray of bool, shape (n_events,)
    observation : Observation
        What the cut is chosen for.
    hadrons_min : int
        Fewest hadrons that a cut may leave.
    efficiency_min : float
        Smallest share of gammas that a cut may keep.
    cuts : ndarray of shape (n_cuts,)
        Cuts to choose from.
    """
    points = curve(scores, gamma, cuts)
    allowed = (points.hadrons >= hadrons_min) & (points.gamma_efficiency >= efficiency_min)
    n_hadron = int((~gamma).sum())
    careful = (points.hadrons + np.sqrt(np.maximum(points.hadrons, 1))) / n_hadron
    significance = np.where(allowed, observation.significance(points.gamma_efficiency, careful), np.nan)
    at = int(np.nanargmax(significance)) if allowed.any() else 0
    return Choice(at, float(cuts[at]), significance)


def hadrons_needed(scores: Floats, shower: npt.NDArray[np.int64], share: float, hadrons_min: int) -> int:
    """Return how many hadrons a cut must leave of these, so that another set surely keeps `hadrons_min` of its own.

    Telescopes see a shower alike, so that its images pass together and counts scatter more than those of a Poisson
    process: their variance is the sum over showers of the squares of the images that pass. Two standard deviations of
    both sets' counts are allowed for.

    Parameters
    ----------
    scores : ndarray of shape (n_hadrons,)
        Of the hadrons of the set on which the cut is chosen.
    shower : ndarray of int64, shape (n_hadrons,)
        The shower of each.
    share : float
        How many hadrons this set has for one of the other set.
    hadrons_min : int
        What the other set is to keep.

    Returns
    -------
    int
        All of them where the set is too small to be sure.
    """
    order = np.argsort(-scores, kind="stable")
    earlier = np.zeros(len(order))
    passed: Counter[int] = Counter()
    for place, name in enumerate(shower[order].tolist()):
        earlier[place] = passed[name]
        passed[name] += 1
    variance = np.cumsum(2 * earlier + 1)  # a shower's square grows so with one image more
    expected = np.arange(1, len(order) + 1) / share
    unsure = expected - 2 * np.sqrt(variance * (1 / share**2 + 1 / share)) < hadrons_min
    return min(int(np.flatnonzero(unsure).max(initial=-1)) + 2, len(order))


def price(
    scores: Floats, gamma: Flags, choice: float, observation: Observation, hadrons_min: int, cuts: Floats = SCORE_CUTS
) -> dict[str, Any]:
    """Return what other cuts would have cost on these events: expected significance relative to the best cut.

    Parameters
    ----------
    scores : ndarray of shape (n_events,)
        0…1, high for gammas.
    gamma : ndarray of bool, shape (n_events,)
    choice : float
        The cut that was chosen.
    observation : Observation
    hadrons_min : int
        Fewest hadrons that a cut may leave.
    cuts : ndarray of shape (n_cuts,)

    Returns
    -------
    dict
        ``cuts`` and ``relative`` (None where fewer than `hadrons_min` hadrons are left: not known); ``chosen``,
        ``middle`` (the cut at 0.5) and ``best`` (the cut, found on these events, so that it is a bound).
    """
    points = curve(scores, gamma, cuts)
    significance = observation.significance(points.gamma_efficiency, points.hadron_efficiency)
    usable = points.hadrons >= hadrons_min
    highest = float(np.max(significance[usable])) if usable.any() else float(significance[0])
    relative = significance / max(highest, 1e-12)

    def at(cut: float) -> float | None:
        place = int(np.argmin(np.abs(cuts - cut)))
        return float(relative[place]) if usable[place] else None

    return {
        "cuts": cuts.tolist(),
        "relative": [float(value) if use else None for value, use in zip(relative, usable, strict=True)],
        "chosen": at(choice),
        "middle": at(0.5),
        "best": float(cuts[int(np.argmax(np.where(usable, significance, -np.inf)))]),
        "significance": highest,
    }


def hours_needed(efficiencies: tuple[float, float], observation: Observation, goal: float = 5.0) -> float:
    """Return after how many hours the expected significance reaches `goal`: it grows with the root of the time.

    Parameters
    ----------
    efficiencies : tuple of float
        Of gammas and of hadrons.
    observation : Observation
    goal : float
        Significance, standard deviations.

    Returns
    -------
    float
        h; infinite if the expected significance is not above 0.
    """
    reached = float(observation.significance(*(np.asarray(value) for value in efficiencies)))
    return float("inf") if reached <= 0 else observation.hours * (goal / reached) ** 2

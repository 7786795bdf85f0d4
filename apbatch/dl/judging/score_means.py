"""The weighted mean of several methods' scores: what none of them knows alone.

Scores of different methods are not on one scale, and not equally good. Two means put them on one: of their logits, and
of the logits of their ranks among the scores of the validation set, so that a single image can be scored as well. A
logistic regression on the validation set weighs the methods, and the mean with the larger area under the curve there is
taken; the test set has no say.

References
----------
D. H. Wolpert, Neural Networks 5 (1992) 241 (stacked generalisation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from apbatch.dl.judging.q_factor import roc
from apbatch.errors import UsageError

Floats = npt.NDArray[np.float64]
#: Scores nearer to 0 or 1 are taken for this near: their logits would outvote all others.
_NEAREST = 1e-6
#: Keeps weights finite where a method parts the classes of the validation set without an error.
_RIDGE = 1e-4


@dataclass(frozen=True)
class ScoreMean:
    """A weighted mean of the scores of several methods.

    Attributes
    ----------
    kind : str
        ``logits`` or ``ranks``.
    references : tuple of ndarray, each of shape (n_validation,)
        Of each method, its scores of the validation set in rising order: what ranks are counted among.
    weights : tuple of float
        Of each method; none is negative.
    constant : float
        What is added to the weighted sum, which is the logit of the mean score.
    """

    kind: Literal["logits", "ranks"]
    references: tuple[Floats, ...]
    weights: tuple[float, ...]
    constant: float

    def of(self, members: Sequence[Floats]) -> Floats:
        """Return mean scores in 0…1, shape (n_images,).

        Parameters
        ----------
        members : sequence of ndarray, each of shape (n_images,)
            Scores in 0…1 of each method, in the order of `references`; NaN where an image has none.

        Raises
        ------
        UsageError
            If they are not of as many methods, or of different images.
        """
        if len(members) != len(self.references) or len({len(scores) for scores in members}) != 1:
            raise UsageError("the methods of a mean scored different images")
        pairs = zip(members, self.references, strict=True)
        table = np.array([_on_one_scale(self.kind, scores, reference) for scores, reference in pairs])
        return np.asarray(expit(np.asarray(self.weights) @ table + self.constant))


def choose_mean(references: Sequence[Floats], gamma: npt.NDArray[np.bool_]) -> ScoreMean:
    """Return the mean with the larger area under the curve on the validation set.

    Parameters
    ----------
    references : sequence of ndarray, each of shape (n_validation,)
        Scores in 0…1 of each method.
    gamma : ndarray of bool, shape (n_validation,)
        Labels.

    Raises
    ------
    UsageError
        If there are fewer than two methods, or scores and labels differ in number.
    """
    if len(references) < 2:
        raise UsageError("a mean needs the scores of two methods")
    if any(len(scores) != len(gamma) for scores in references):
        raise UsageError("scores and labels of the validation set differ in number")
    return max(
        (_fit("logits", references, gamma), _fit("ranks", references, gamma)),
        key=lambda mean: roc(mean.of(references), gamma)[2],
    )


def _fit(kind: Literal["logits", "ranks"], references: Sequence[Floats], gamma: npt.NDArray[np.bool_]) -> ScoreMean:
    """Return the mean whose weights make the labels of the validation set most likely, both classes counting alike."""
    ordered = tuple(np.sort(scores) for scores in references)
    table = np.array([_on_one_scale(kind, *pair) for pair in zip(references, ordered, strict=True)])
    scored = np.isfinite(table).all(axis=0)
    table, gamma = table[:, scored], gamma[scored]
    sign = np.where(gamma, 1.0, -1.0)
    share = np.where(gamma, 0.5 / max(gamma.sum(), 1), 0.5 / max((~gamma).sum(), 1))

    def loss(values: Floats) -> tuple[float, Floats]:
        margin = sign * (values[:-1] @ table + values[-1])
        slope = -share * sign * expit(-margin)
        weights = values[:-1]
        wrong = float(share @ np.logaddexp(0, -margin)) + _RIDGE * float(weights @ weights)
        return wrong, np.append(table @ slope + 2 * _RIDGE * weights, slope.sum())

    n = len(references)
    start, bounds = np.append(np.full(n, 1 / n), 0.0), [(0.0, None)] * n + [(None, None)]
    *weights, constant = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x.tolist()
    return ScoreMean(kind, ordered, tuple(weights), constant)


def _on_one_scale(kind: Literal["logits", "ranks"], scores: Floats, ordered: Floats) -> Floats:
    shares = scores if kind == "logits" else _ranks(scores, ordered)
    inside = np.clip(shares, _NEAREST, 1 - _NEAREST)
    return np.asarray(np.log(inside / (1 - inside)))


def _ranks(scores: Floats, ordered: Floats) -> Floats:
    """Return the share of the reference that lies below each score, ties counting half."""
    below = np.searchsorted(ordered, scores) + np.searchsorted(ordered, scores, side="right")
    return np.asarray(np.where(np.isnan(scores), np.nan, below / (2 * len(ordered))))

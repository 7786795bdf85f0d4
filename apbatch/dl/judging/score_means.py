"""The mean of several methods' scores: what none of them knows alone.

Scores of different methods are not on one scale. Two means put them on one: of their logits, and of their ranks among
the scores of the validation set, so that a single image can be scored as well. The one with the larger area under the
curve on the validation set is taken; the test set has no say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from apbatch.dl.judging.q_factor import roc
from apbatch.errors import UsageError

Floats = npt.NDArray[np.float64]
#: Scores nearer to 0 or 1 are taken for this near: their logits would outvote all others.
_NEAREST = 1e-6


@dataclass(frozen=True)
class ScoreMean:
    """A mean of the scores of several methods.

    Attributes
    ----------
    kind : str
        ``logits`` or ``ranks``.
    references : tuple of ndarray, each of shape (n_validation,)
        Of each method, its scores of the validation set in rising order: what ranks are counted among.
    """

    kind: Literal["logits", "ranks"]
    references: tuple[Floats, ...]

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
        if self.kind == "ranks":
            pairs = zip(members, self.references, strict=True)
            return np.asarray(np.mean([_ranks(scores, reference) for scores, reference in pairs], axis=0))
        return np.asarray(1 / (1 + np.exp(-np.mean([_logits(scores) for scores in members], axis=0))))


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
    ordered = tuple(np.sort(scores) for scores in references)
    return max(
        (ScoreMean("logits", ordered), ScoreMean("ranks", ordered)),
        key=lambda mean: roc(mean.of(references), gamma)[2],
    )


def _logits(scores: Floats) -> Floats:
    inside = np.clip(scores, _NEAREST, 1 - _NEAREST)
    return np.asarray(np.log(inside / (1 - inside)))


def _ranks(scores: Floats, ordered: Floats) -> Floats:
    """Return the share of the reference that lies below each score, ties counting half."""
    below = np.searchsorted(ordered, scores) + np.searchsorted(ordered, scores, side="right")
    return np.asarray(np.where(np.isnan(scores), np.nan, below / (2 * len(ordered))))

"""The mean of several methods' scores: what none of them knows alone.

Scores of different methods are not on one scale. Two means put them on one: of their logits, and of their ranks among
the scores of the validation set, so that a single image can be scored as well. The one with the larger area under the
curve on the validation set is taken; the test set has no say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from apbatch.dl.judging.q_factor import roc
from apbatch.errors import UsageError

Floats = npt.NDArray[np.float64]
#: Splits that are scored.
_VALIDATION = "validation"
#: Scores nearer to 0 or 1 are taken for this near: their logits would outvote all others.
_NEAREST = 1e-6


def mean_scores(members: Sequence[Mapping[str, Floats]], gamma: npt.NDArray[np.bool_]) -> tuple[dict[str, Floats], str]:
    """Return the mean of the scores of several methods.

    Parameters
    ----------
    members : sequence of mapping
        Of each method, its scores in 0…1 by split, in the same order of images; ``validation`` is one of the splits.
    gamma : ndarray of bool, shape (n_validation,)
        Labels of the validation set.

    Returns
    -------
    scores : dict of str to ndarray
        In 0…1, by split.
    kind : str
        ``logits`` or ``ranks``: which mean was taken.

    Raises
    ------
    UsageError
        If there are fewer than two methods, or they did not score the same images.
    """
    if len(members) < 2:
        raise UsageError("a mean needs the scores of two methods")
    splits = {split: len(values) for split, values in members[0].items()}
    for other in members[1:]:
        if {split: len(values) for split, values in other.items()} != splits:
            raise UsageError("the methods of a mean scored different images")
    if splits.get(_VALIDATION) != len(gamma):
        raise UsageError("scores and labels of the validation set differ in number")
    means: dict[str, Callable[[Floats, Floats], Floats]] = {"logits": _logits, "ranks": _ranks}
    best: tuple[float, dict[str, Floats], str] | None = None
    for kind, scaled in means.items():
        scores = {
            split: np.mean([scaled(member[split], member[_VALIDATION]) for member in members], axis=0)
            for split in splits
        }
        if kind == "logits":
            scores = {split: 1 / (1 + np.exp(-values)) for split, values in scores.items()}
        area = roc(scores[_VALIDATION], gamma)[2]
        if best is None or area > best[0]:
            best = area, scores, kind
    assert best is not None
    return best[1], best[2]


def _logits(scores: Floats, reference: Floats) -> Floats:
    inside = np.clip(scores, _NEAREST, 1 - _NEAREST)
    return np.asarray(np.log(inside / (1 - inside)))


def _ranks(scores: Floats, reference: Floats) -> Floats:
    """Return the share of the reference that lies below each score, ties counting half."""
    ordered = np.sort(reference)
    return np.asarray(
        (np.searchsorted(ordered, scores) + np.searchsorted(ordered, scores, side="right")) / (2 * len(ordered))
    )

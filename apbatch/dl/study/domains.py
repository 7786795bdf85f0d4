"""Whether images of two origins can be told apart: a test of the domain that networks were trained in.

Boosted trees are trained to tell our images from others of the same kind of shower, on images that they did not see.
An area under the curve of 0.5 says that image parameters know no difference; what a network makes of the others is then
what it makes of ours. Spectra and distances may differ, so images are compared size by size, and size is no feature.

References
----------
D. Lopez-Paz and M. Oquab, Revisiting classifier two-sample tests, arXiv:1610.06545.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from apbatch.dl.judging.q_factor import roc
from apbatch.dl.judging.rivals import ensembles

Floats = npt.NDArray[np.float64]
#: Image parameters that are compared: what a shower looks like, not where it lies nor how bright it is.
_SHAPE = ("width", "length", "con1", "con2", "n_pixels", "skewness", "kurtosis", "n_islands")
#: Bins of log10 of the size in which both have equal numbers.
_BINS = 12
_FOLDS = 5
#: Fewest images of each origin.
FEWEST = 100


def told_apart(
    ours: Mapping[str, Floats], theirs: Mapping[str, Floats], seed: int = 1, resamples: int = 200
) -> dict[str, float] | None:
    """Return how well image parameters tell two origins apart, at equal distributions of size.

    Parameters
    ----------
    ours, theirs : mapping of str to ndarray, shape (n_images,)
        Image parameters after the same cleaning.
    seed : int
        Of the draw of images and of the folds.
    resamples : int
        Of the bootstrap.

    Returns
    -------
    dict or None
        ``auc`` with ``low`` and ``high`` (95 %), and ``images`` of each origin; None if there are too few.
    """
    random = np.random.default_rng(seed)
    first, second = _matched(ours["size"], theirs["size"], random)
    if len(first) < FEWEST:
        return None
    features = np.concatenate([_shapes(ours, first), _shapes(theirs, second)])
    foreign = np.arange(len(features)) >= len(first)
    fold, scores = random.permutation(len(features)) % _FOLDS, np.zeros(len(features))
    for left_out in range(_FOLDS):
        trees = ensembles().HistGradientBoostingClassifier(max_iter=100, learning_rate=0.06, random_state=seed)
        trees.fit(features[fold != left_out], foreign[fold != left_out])
        scores[fold == left_out] = trees.predict_proba(features[fold == left_out])[:, 1]
    draws = []
    for _ in range(resamples):
        rows = random.integers(len(scores), size=len(scores))
        if 0 < foreign[rows].sum() < len(rows):
            draws.append(roc(scores[rows], foreign[rows])[2])
    low, high = np.quantile(draws, [0.025, 0.975])
    auc = float(roc(scores, foreign)[2])
    return {"auc": auc, "low": float(low), "high": float(high), "images": float(len(first))}


def _shapes(columns: Mapping[str, Floats], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return what a shower looks like, shape (n_rows, n_features), NaN where a number is not defined."""
    values = {name: columns[name][rows].astype(np.float64) for name in _SHAPE}
    with np.errstate(divide="ignore", invalid="ignore"):
        values["elongation"] = values["width"] / values["length"]
    values["skewness"] = np.abs(values["skewness"])  # its sign is that of an axis without a head
    table = np.column_stack(list(values.values()))
    return np.where(np.isfinite(table), table, np.nan).astype(np.float32)


def _matched(
    ours: Floats, theirs: Floats, random: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return rows of both, as many of each in every bin of size."""
    usable = [np.flatnonzero(np.isfinite(size) & (size > 0)) for size in (ours, theirs)]
    if not len(usable[0]) or not len(usable[1]):
        return usable[0][:0], usable[1][:0]
    edges = np.quantile(np.log10(theirs[usable[1]]), np.linspace(0, 1, _BINS + 1)[1:-1])
    bins = [np.searchsorted(edges, np.log10(size[rows])) for size, rows in zip((ours, theirs), usable, strict=True)]
    picked: tuple[list[npt.NDArray[np.int64]], list[npt.NDArray[np.int64]]] = ([], [])
    for number in range(_BINS):
        here = [rows[which == number] for rows, which in zip(usable, bins, strict=True)]
        least = min(len(rows) for rows in here)
        for rows, kept in zip(here, picked, strict=True):
            kept.append(random.permutation(rows)[:least])
    return np.concatenate(picked[0]), np.concatenate(picked[1])

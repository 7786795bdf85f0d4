"""Direction as a feature, where gammas come from a source that the telescopes observe: alpha and miss for every method.

A gamma's image points to the place of the source in the camera, a hadron's anywhere. Box and trees take the angle and
the distance between image and source as further image parameters. A network sees the image alone, so its score and the
direction are put together by boosted trees that are fitted on the validation set, in folds of whole showers: no image
is scored by trees that saw its shower, and the test set has no say.

References
----------
A. M. Hillas, 19th ICRC (1985) 3, 445 (miss); P. T. Reynolds et al., ApJ 404 (1993) 206 (alpha).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from apbatch.dl.files import read_parquet
from apbatch.dl.judging.rivals import ensembles

Floats = npt.NDArray[np.float64]
Columns = dict[str, Floats]
#: Image parameters that tell the direction, deg.
DIRECTION = ("alpha", "miss", "distance")
#: Columns of a set with the place of the observed source in the camera, deg.
OBSERVED = ("observed_x", "observed_y")
#: What is put together with a network's score, of the image after each of the cleanings.
BESIDE = (*DIRECTION, "size", "length", "width")
_FOLDS = 5
#: Scores nearer to 0 or 1 are taken for this near.
_NEAREST = 1e-6


def observed_places(files: Path, split: str) -> tuple[Floats, Floats] | None:
    """Return the place of the observed source in the camera, image by image.

    Parameters
    ----------
    files : pathlib.Path
        The folder ``set`` of a blind analysis.
    split : str
        ``train``, ``validation`` or ``test``.

    Returns
    -------
    x, y : ndarray of float64, shape (n_images,), or None
        deg; None if gammas of the set come from anywhere.
    """
    place = files / f"{split}.parquet"
    if not set(OBSERVED) <= set(pq.read_schema(place).names):
        return None
    table = read_parquet(place, list(OBSERVED))
    x, y = (np.asarray(table[name].to_numpy(), np.float64) for name in OBSERVED)
    return x, y


def towards(columns: Mapping[str, Floats], x: Floats, y: Floats) -> Columns:
    """Return image parameters with those of the direction measured from a source.

    Parameters
    ----------
    columns : mapping of str to ndarray, shape (n_images,)
        As of `apbatch.camera.hillas.hillas`; those of the halo, such as ``alpha_7``, are measured anew as well.
    x, y : ndarray, shape (n_images,)
        Place of the source in the camera, deg.

    Returns
    -------
    dict of str to ndarray
        All columns; ``distance`` of the centre of gravity from the source, ``miss`` of the axis from it, ``alpha`` in
        [0, 90] and ``azwidth``, deg. An image without an axis has NaN.
    """
    result = dict(columns)
    for name in columns:
        stem, dash, ending = name.partition("_")
        if stem != "alpha":
            continue
        end = dash + ending
        from_x, from_y = x - columns[f"cog_x{end}"], y - columns[f"cog_y{end}"]
        psi = np.radians(columns[f"psi{end}"])
        across = np.abs(np.cos(psi) * from_y - np.sin(psi) * from_x)
        along = np.abs(np.cos(psi) * from_x + np.sin(psi) * from_y)
        alpha = np.arctan2(across, along)
        result |= {
            f"distance{end}": np.hypot(from_x, from_y),
            f"miss{end}": across,
            f"alpha{end}": np.degrees(alpha),
            f"azwidth{end}": np.hypot(columns[f"length{end}"] * np.sin(alpha), columns[f"width{end}"] * np.cos(alpha)),
        }
    return result


def with_direction(
    scores: Mapping[str, Floats],
    columns: Mapping[str, Mapping[str, Floats]],
    gamma: npt.NDArray[np.bool_],
    shower: npt.NDArray[Any],
    seed: int = 1,
) -> dict[str, Floats]:
    """Put the scores of a network and the direction together.

    Parameters
    ----------
    scores : mapping of str to ndarray, shape (n_images,)
        In 0…1, of ``validation`` and other splits.
    columns : mapping of str to mapping
        By split, what stands beside the score: image parameters towards the source (`towards`), the same of each split.
    gamma : ndarray of bool, shape (n_validation,)
    shower : ndarray, shape (n_validation,)
        Number of the shower: images of one are in one fold.
    seed : int

    Returns
    -------
    dict of str to ndarray
        Scores in 0…1. An image of the validation set is scored by the trees that did not see its shower, others by
        the mean of all trees.
    """
    tables = {split: _table(values, columns[split]) for split, values in scores.items()}
    rows = tables["validation"]
    showers, number = np.unique(shower, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(showers))[number] % _FOLDS
    result = {split: np.zeros(len(values)) for split, values in scores.items()}
    weights = np.where(gamma, 0.5 / gamma.mean(), 0.5 / (1 - gamma.mean()))
    for left_out in range(_FOLDS):
        inside, outside = fold != left_out, fold == left_out
        trees = ensembles().HistGradientBoostingClassifier(
            learning_rate=0.06, max_iter=120, max_leaf_nodes=12, min_samples_leaf=40, l2_regularization=1.0,
            random_state=seed,
        ).fit(rows[inside], gamma[inside], sample_weight=weights[inside])  # fmt: skip
        result["validation"][outside] = trees.predict_proba(rows[outside])[:, 1]
        for split in scores.keys() - {"validation"}:
            result[split] += trees.predict_proba(tables[split])[:, 1] / _FOLDS
    return result


def _table(scores: Floats, columns: Mapping[str, Floats]) -> npt.NDArray[np.float32]:
    inside = np.clip(scores, _NEAREST, 1 - _NEAREST)
    more = [np.asarray(values, np.float64) for _, values in sorted(columns.items())]
    table = np.column_stack([np.log(inside / (1 - inside)), *more])
    return np.where(np.isfinite(table), table, np.nan).astype(np.float32)

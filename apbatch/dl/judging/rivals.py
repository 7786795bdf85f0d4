"""Classical rivals of the networks: boosted trees and a random forest on image parameters, boosted trees on the halo.

They see what a careful analysis of the last generation sees: size, shape, place and concentration of the image, with
width and length scaled by those of gammas of the same size. Times, numbers and truth are not among the features.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning_rule import NONE
from apbatch.dl.judging.halo_trees import HALO_TREES, rings, split_by_cleaning, telescopes_of
from apbatch.errors import MissingSoftwareError, UsageError, nearest_word

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

#: What the trees may look at, of the columns that an image has.
COLUMNS = (
    "size", "width", "length", "distance", "cog_x", "cog_y", "con1", "con2", "n_pixels", "skewness", "kurtosis",
    "n_islands", "leakage",
)  # fmt: skip
METHODS = ("trees", "forest", HALO_TREES)


def check_method(name: str) -> None:
    """Raise a UsageError with the nearest known name if there is no such method."""
    if name not in METHODS:
        raise UsageError(
            f"unknown method '{name}'", nearest=nearest_word(name, METHODS), remedy=f"methods are {', '.join(METHODS)}"
        )


def takes(method: str, cleaning: str) -> bool:
    """Return whether a method can work with images of a cleaning: a halo is in uncleaned ones only."""
    return method != HALO_TREES or cleaning == NONE


def matrix(columns: Mapping[str, npt.NDArray[Any]], features: Sequence[str] = ()) -> npt.NDArray[np.float32]:
    """Return features of shape (n_images, n_features) from columns of image parameters.

    Width x length over size (how dense the light is) and their ratio are added: trees cut along axes only.

    Parameters
    ----------
    columns : mapping of str to ndarray, shape (n_images,)
    features : sequence of str
        Image parameters beside `COLUMNS`, such as ``alpha`` and ``miss`` where the source is a point.

    Raises
    ------
    UsageError
        If one of them, the size, width or length is missing.
    """
    values = {name: np.asarray(columns[name], np.float64) for name in (*COLUMNS, *features) if name in columns}
    for name in ("size", "width", "length", *features):
        if name not in values:
            raise UsageError(f"there is no image parameter '{name}'", nearest=nearest_word(name, columns))
    with np.errstate(divide="ignore", invalid="ignore"):
        area = values["width"] * values["length"]
        values["density"] = np.log10(values["size"] / area)
        values["elongation"] = values["width"] / values["length"]
        values["size"] = np.log10(values["size"])
    table = np.column_stack(list(values.values()))
    return np.where(np.isfinite(table), table, np.nan).astype(np.float32)


def features_of(
    method: str, columns: Mapping[str, npt.NDArray[Any]], features: Sequence[str] = ()
) -> npt.NDArray[np.float32]:
    """Return what a method looks at, shape (n_images, n_features); for halo trees after each cleaning, by telescope.

    Parameters
    ----------
    method : str
        ``trees``, ``forest`` or ``halo-trees``.
    columns : mapping of str to ndarray, shape (n_images,)
        Image parameters.
    features : sequence of str
        Further columns, as of `matrix`.

    Raises
    ------
    UsageError
        As `matrix`.
    """
    if method != HALO_TREES:
        return matrix(columns, features)
    tables: list[npt.NDArray[Any]] = []
    for telescope in telescopes_of(columns):
        tables += [matrix(own, features) for own in split_by_cleaning(telescope)]
        tables.append(rings(telescope))
    return np.column_stack(tables).astype(np.float32)


def classifier(method: str, seed: int) -> Any:
    """Return an untrained classifier of scikit-learn.

    Raises
    ------
    UsageError
        If there is no such method.
    MissingSoftwareError
        If scikit-learn is not installed.
    """
    check_method(method)
    ensemble = ensembles()
    if method != "forest":
        return ensemble.HistGradientBoostingClassifier(
            learning_rate=0.08,
            max_iter=600,
            max_leaf_nodes=24,
            min_samples_leaf=40,
            l2_regularization=1.0,
            early_stopping=True,
            validation_fraction=0.15,
            n_iter_no_change=20,
            random_state=seed,
        )
    return ensemble.RandomForestClassifier(
        n_estimators=300, min_samples_leaf=5, max_features="sqrt", class_weight="balanced", random_state=seed, n_jobs=2
    )


def ensembles() -> Any:
    """Return scikit-learn's module of trees, on threads that sleep while they wait.

    By default they spin, which beside other work made a fit take eight times as long.

    Raises
    ------
    MissingSoftwareError
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when the library is loaded
    try:
        from sklearn import ensemble
    except ImportError as error:
        raise MissingSoftwareError("scikit-learn is not installed", remedy="pip install 'apbatch[dl]'") from error
    return ensemble


def fit_and_score(
    method: str,
    train: Mapping[str, npt.NDArray[Any]],
    gamma: Flags,
    others: Mapping[str, Mapping[str, npt.NDArray[Any]]],
    seed: int = 1,
    features: Sequence[str] = (),
) -> dict[str, Floats]:
    """Fit on the training images and score others, both classes weighing the same.

    Parameters
    ----------
    method : str
        ``trees`` (histogram gradient boosting), ``forest``, or ``halo-trees`` (boosting on the halo).
    train : mapping of str to ndarray
        Columns of image parameters.
    gamma : ndarray of bool, shape (n_images,)
    others : mapping
        By name of the split, columns of image parameters.
    seed : int
    features : sequence of str
        As of `matrix`.

    Returns
    -------
    dict of str to ndarray
        Scores in 0…1 by name of the split.

    Raises
    ------
    UsageError
        If a class is missing.
    """
    rival = fit(method, train, gamma, seed, features)
    return {split: score(rival, columns) for split, columns in others.items()}


@dataclass(frozen=True)
class Rival:
    """A fitted classifier of scikit-learn, and what it looks at (`features_of`)."""

    method: str
    features: tuple[str, ...]
    model: Any


def fit(
    method: str, train: Mapping[str, npt.NDArray[Any]], gamma: Flags, seed: int = 1, features: Sequence[str] = ()
) -> Rival:
    """Fit a classifier on columns of image parameters, both classes weighing the same.

    Parameters
    ----------
    method : str
        ``trees``, ``forest`` or ``halo-trees``.
    train : mapping of str to ndarray, shape (n_images,)
        Image parameters.
    gamma : ndarray of bool, shape (n_images,)
        With both classes, else a UsageError is raised.
    seed : int
    features : sequence of str
        Further columns, as of `matrix`.
    """
    if not gamma.any() or gamma.all():
        raise UsageError("trees need gammas and hadrons to be fitted on")
    weights = np.where(gamma, 0.5 / gamma.mean(), 0.5 / (1 - gamma.mean()))
    table = _filled(features_of(method, train, features))
    return Rival(method, tuple(features), classifier(method, seed).fit(table, gamma, sample_weight=weights))


def score(rival: Rival, columns: Mapping[str, npt.NDArray[Any]]) -> Floats:
    """Return scores in 0…1 of a fitted classifier."""
    table = _filled(features_of(rival.method, columns, rival.features))
    return np.asarray(rival.model.predict_proba(table)[:, 1], np.float64)


def _filled(table: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A forest takes no NaN; a value far outside is a branch of its own, for both methods alike."""
    return np.nan_to_num(table, nan=-999.0)


def estimate_energy(
    train: Mapping[str, npt.NDArray[Any]],
    energy: Floats,
    others: Mapping[str, Mapping[str, npt.NDArray[Any]]],
    seed: int = 1,
) -> dict[str, Floats]:
    """Estimate energies (TeV) by boosted trees on image parameters of gammas: the energy of bins for both classes.

    A hadron has no gamma energy; an analysis sorts it by what it would be taken for, and so does this.

    Parameters
    ----------
    train : mapping of str to ndarray, shape (n_images,)
        Image parameters of gammas.
    energy : ndarray of float64, shape (n_images,)
        Their energies, TeV; others than positive finite ones are left out.
    others : mapping
        By name of the split, columns of image parameters.
    seed : int
    """
    usable = np.isfinite(energy) & (energy > 0)
    model = ensembles().HistGradientBoostingRegressor(
        learning_rate=0.08, max_iter=250, max_leaf_nodes=16, min_samples_leaf=30, random_state=seed
    )
    model.fit(matrix(train)[usable], np.log10(energy[usable]))
    return {split: np.asarray(10 ** model.predict(matrix(columns)), np.float64) for split, columns in others.items()}

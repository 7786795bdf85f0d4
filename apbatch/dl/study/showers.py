"""Energy and direction of gammas from one image: a network and boosted trees, judged on the opened test gammas.

Resolution and bias are given by bins of true energy. The trees are the classical rival: image parameters, among them
the axis of the image and its skewness, from which a single telescope has its direction.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.instruments.registry import camera_named
from apbatch.config import TrainingSettings
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind import protocol
from apbatch.dl.files import read_parquet, write_json
from apbatch.dl.judging import rivals
from apbatch.dl.networks.treatment import parameters
from apbatch.dl.study.methods import title_of
from apbatch.dl.study.settings import ShowersSettings
from apbatch.dl.training import launch
from apbatch.dl.training.data import load_pixels
from apbatch.dl.training.hyperparameters import Hyperparameters
from apbatch.dl.training.spec import SHOWER_OUTPUTS, TrainSpec
from apbatch.errors import FormatError

Floats = npt.NDArray[np.float64]
_LABELS = ("energy", "source_x", "source_y")


def estimate(folder: Path, output: Path, settings: ShowersSettings, training: TrainingSettings | None = None) -> Path:
    """Train on gammas, estimate the test gammas, and judge both methods.

    Parameters
    ----------
    folder : pathlib.Path
        A blind analysis, unsealed.
    output : pathlib.Path
        Folder of the training and of ``showers.json``.
    settings : ShowersSettings
    training : TrainingSettings, optional
        What computes.

    Returns
    -------
    pathlib.Path
        ``showers.json``.

    Raises
    ------
    UsageError
        If the labels are still sealed.
    FormatError
        If the truth has no energy and direction.
    """
    training = training or TrainingSettings()
    blind_set = blind.open_set(folder)
    labels = protocol.open_labels(blind_set).labels
    spec = TrainSpec(
        data=blind_set.files,
        output=output / "training",
        task="showers",
        treatments=settings.cleanings,
        model=settings.model,
        options=settings.options,
        seed=settings.seed,
        **training.network(),
        **settings.model_dump(include=set(Hyperparameters.model_fields)),
    )
    trained = launch.train(spec, training.collective, training.ranks)
    if not set(_LABELS) <= set(labels.column_names):
        raise FormatError("the truth has no energy and direction", where=str(folder))
    truth = {row["id"]: row for row in labels.to_pylist() if row["gamma"] and row["energy"]}
    true = np.array([[row[name] for name in _LABELS] for row in truth.values()], np.float64)
    edges = np.quantile(true[:, 0], np.linspace(0, 1, settings.energy_bins + 1))
    entries = []
    predictions = read_parquet(trained / "predictions.parquet")
    for treatment in spec.treatments:
        for method, estimates in (
            (settings.model, _of_network(predictions, treatment, truth)),
            ("trees", _of_trees(blind_set, treatment, truth)),
        ):
            entries.append(
                {
                    "method": method,
                    "title": title_of(method),
                    "treatment": treatment,
                    "bins": [_judged(estimates, true, low, high) for low, high in itertools.pairwise(edges)],
                    "whole": _judged(estimates, true, edges[0], edges[-1]),
                }
            )
    place = output / "showers.json"
    write_json(place, {"edges": edges.tolist(), "gammas": len(true), "entries": entries})
    return place


def _of_network(predictions: pa.Table, treatment: str, truth: dict[str, Any]) -> Floats:
    """Return energy (TeV) and direction (deg), shape (n, 3), in the order of the truth."""
    rows = {
        row["id"]: [10 ** row[SHOWER_OUTPUTS[0]], row[SHOWER_OUTPUTS[1]], row[SHOWER_OUTPUTS[2]]]
        for row in predictions.to_pylist()
        if row["split"] == "test" and row["treatment"] == treatment
    }
    return np.array([rows[name] for name in truth], np.float64)


def _of_trees(blind_set: blind.BlindSet, treatment: str, truth: dict[str, Any]) -> Floats:
    """Fit a regression on training gammas for each number."""
    ensembles = rivals.ensembles()
    camera = camera_named(blind_set.manifest["camera"])
    train = read_parquet(blind_set.files / "train.parquet", ["gamma", *_LABELS])
    gamma = np.asarray(train["gamma"].to_numpy(zero_copy_only=False), bool)
    labels = np.column_stack([train[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in _LABELS])[gamma]
    labels[:, 0] = np.log10(labels[:, 0])
    columns = _features(parameters(load_pixels(blind_set.files, blind_set.manifest, "train")[gamma], camera, treatment))
    ids = read_parquet(blind_set.files / "test.parquet", ["id"])["id"].to_pylist()
    row_of = {name: row for row, name in enumerate(ids)}
    targets = load_pixels(blind_set.files, blind_set.manifest, "test")[np.array([row_of[name] for name in truth])]
    features = _features(parameters(targets, camera, treatment))
    estimates = []
    for column in range(3):
        model = ensembles.HistGradientBoostingRegressor(
            learning_rate=0.08, max_iter=300, max_leaf_nodes=20, min_samples_leaf=30, random_state=1
        )
        estimates.append(model.fit(columns, labels[:, column]).predict(features))
    return np.column_stack([10 ** estimates[0], estimates[1], estimates[2]])


def _features(columns: dict[str, Floats]) -> npt.NDArray[np.float32]:
    """Add the axis to the features of the trees: as a vector along the skewness, and by twice its angle."""
    angle = np.radians(np.nan_to_num(columns["psi"]))
    lean = np.nan_to_num(columns["skewness"]) * np.nan_to_num(columns["length"])
    more = [np.cos(2 * angle), np.sin(2 * angle), lean * np.cos(angle), lean * np.sin(angle)]
    return np.column_stack([rivals.matrix(columns), *more]).astype(np.float32)


def _judged(estimate: Floats, true: Floats, low: float, high: float) -> dict[str, Any]:
    """Return bias and resolution of energy (relative) and direction (deg) for gammas of these energies.

    Energy: median and half of the central 68 % of (E' - E) / E. Direction: the angle within which 68 % lie, and the
    median offset along x and y.
    """
    use = (true[:, 0] >= low) & (true[:, 0] <= high)
    if use.sum() < 5:
        return {"gammas": int(use.sum()), "low": float(low), "high": float(high), "energy_bias": None}
    relative = estimate[use, 0] / true[use, 0] - 1
    quantiles = np.quantile(relative, [0.16, 0.5, 0.84])
    offset = estimate[use, 1:] - true[use, 1:]
    return {
        "gammas": int(use.sum()),
        "low": float(low),
        "high": float(high),
        "energy_bias": float(quantiles[1]),
        "energy_resolution": float((quantiles[2] - quantiles[0]) / 2),
        "angle_68": float(np.quantile(np.hypot(*offset.T), 0.68)),
        "direction_bias": [float(value) for value in np.median(offset, axis=0)],
    }

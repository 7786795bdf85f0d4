"""What the frozen scores are worth, once the labels are open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from apbatch.dl.blind.blind_set import open_set
from apbatch.dl.blind.protocol import open_labels
from apbatch.dl.files import read_json, read_parquet, write_json
from apbatch.dl.judging.q_factor import CUTS, FEW_HADRONS, best_cut, bootstrap, curve, roc
from apbatch.dl.judging.score_table import CNN
from apbatch.dl.judging.score_table import CUTS as SIMPLE
from apbatch.errors import UsageError
from apbatch.provenance import provenance

#: Q as shown in A. Kryukov's talk at VLVNT 2018, by method and treatment; other events, so no goal, a comparison.
TALK = {(SIMPLE, "none"): 1.76, (SIMPLE, "cleaned"): 1.70, (CNN, "none"): 1.48, (CNN, "cleaned"): 2.99}
TITLES = {SIMPLE: "simple 2-D technique", CNN: "CNN (TensorFlow)"}
_BINS = 40


class EvaluationSettings(BaseModel):
    """How scores are judged.

    Attributes
    ----------
    hadrons_min : int
        Fewest hadrons of the validation set that the chosen cut must leave.
    efficiency_min : float
        Smallest share of the validation set's gammas that it must keep.
    resamples : int
        Bootstrap resamples.
    seed : int
        Of the bootstrap.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hadrons_min: int = Field(default=30, ge=1)
    efficiency_min: float = Field(default=0.1, ge=0, lt=1)
    resamples: int = Field(default=400, ge=50, le=20000)
    seed: int = Field(default=0, ge=0)


class Result(BaseModel):
    """One method with one treatment of the images; lists have one entry a cut, or a bin of the score.

    Attributes
    ----------
    cut : float
        Chosen on the validation set.
    quality, quality_error : float
        Q on the test set at that cut, and the standard deviation of its bootstrap; None where no hadron is left.
    correct_gammas, correct_hadrons : list of int
        Gammas above and hadrons not above each cut.
    """

    method: str
    variant: str
    title: str
    talk: float | None
    cut: float
    quality: float | None
    quality_error: float | None
    gamma_efficiency: float
    hadron_efficiency: float
    gammas_left: int
    hadrons_left: int
    few_hadrons: bool
    auc: float
    auc_validation: float
    quality_validation: float | None
    cuts: list[float]
    q: list[float | None]
    q_low: list[float | None]
    q_high: list[float | None]
    correct_gammas: list[int]
    correct_gammas_low: list[float]
    correct_gammas_high: list[float]
    correct_hadrons: list[int]
    roc_hadrons: list[float]
    roc_gammas: list[float]
    bins: list[float]
    gammas_in_bin: list[int]
    hadrons_in_bin: list[int]


class Evaluation(BaseModel):
    """Everything that the report says.

    Attributes
    ----------
    events : dict
        Numbers of gammas and hadrons in each split, the test set's included.
    gamma_fraction : float
        The proportion that was sealed.
    curves : dict
        Learning curves by variant, one entry an epoch.
    blind : dict
        Commitment, hashes and the ledger.
    """

    cleaning: str
    events: dict[str, dict[str, int]]
    cut_flow: list[dict[str, Any]]
    gamma_fraction: float
    showers: dict[str, int]
    results: list[Result]
    curves: dict[str, list[dict[str, float]]]
    training: dict[str, Any]
    blind: dict[str, Any]
    settings: EvaluationSettings
    provenance: dict[str, Any]


def evaluate(
    folder: Path, training: Path | None = None, settings: EvaluationSettings | None = None, output: Path | None = None
) -> Evaluation:
    """Compare the frozen scores with the opened labels.

    Parameters
    ----------
    folder : pathlib.Path
        A blind analysis that was unsealed.
    training : pathlib.Path, optional
        Output of `apbatch.dl.training.launch.train`, for the learning curves.
    output : pathlib.Path, optional
        Folder in which ``evaluation.json`` is kept.

    Raises
    ------
    UsageError
        If the labels are still sealed.
    VerificationError
        If the scores are not those that were frozen.
    """
    settings = settings or EvaluationSettings()
    blind = open_set(folder)
    opened = open_labels(blind)
    labels, scores = opened.labels, opened.scores
    known = read_parquet(blind.files / "validation.parquet", ["id", "gamma", "shower"])
    results = []
    for method, variant in _methods(scores):
        chosen = scores.filter(pc.and_(pc.equal(scores["method"], method), pc.equal(scores["variant"], variant)))
        of = {
            split: _joined(chosen.filter(pc.equal(chosen["split"], split)), truth)
            for split, truth in (("validation", known), ("test", labels))
        }
        results.append(_judge(method, variant, of["validation"], of["test"], settings))
    record = read_json(training / "trained.json") if training is not None else {}
    gamma = np.asarray(labels["gamma"].to_numpy(zero_copy_only=False), bool)
    test = {"events": len(gamma), "gammas": int(gamma.sum()), "hadrons": int((~gamma).sum())}
    showers = labels["shower"].to_numpy()
    evaluation = Evaluation(
        cleaning=blind.manifest["cleaning"],
        events={**blind.manifest["events"], "test": test},
        cut_flow=blind.manifest["cut_flow"],
        gamma_fraction=float(gamma.mean()),
        showers={"gamma": len(np.unique(showers[gamma])), "hadron": len(np.unique(showers[~gamma]))},
        results=results,
        curves={name: run["curves"] for name, run in record.get("variants", {}).items()},
        training={key: value for key, value in record.items() if key != "variants"},
        blind={**opened.record, "files": blind.manifest["files"]},
        settings=settings,
        provenance=provenance("evaluate", {"blind": read_json(folder / "origin.json")}, settings.model_dump()),
    )
    if output is not None:
        write_json(output / "evaluation.json", evaluation.model_dump(mode="json"))
    return evaluation


def _methods(scores: pa.Table) -> list[tuple[str, str]]:
    """Return methods and treatments in the order of the table: simple technique first, uncleaned first."""
    found = {(row["method"], row["variant"]) for row in scores.select(["method", "variant"]).to_pylist()}
    methods, variants = [SIMPLE, CNN], ["none", "cleaned"]

    def place(pair: tuple[str, str]) -> tuple[int, str, int, str]:
        method, variant = pair
        return (
            methods.index(method) if method in methods else len(methods),
            method,
            variants.index(variant) if variant in variants else len(variants),
            variant,
        )

    return sorted(found, key=place)


def _joined(
    scores: pa.Table, truth: pa.Table
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return scores, labels and showers in the order of the truth."""
    by_id = dict(zip(scores["id"].to_pylist(), scores["score"].to_pylist(), strict=True))
    values = np.array([by_id[name] for name in truth["id"].to_pylist()], np.float64)
    gamma = np.asarray(truth["gamma"].to_numpy(zero_copy_only=False), bool)
    return values, gamma, np.asarray(truth["shower"].to_numpy(), np.int64)


def _judge(
    method: str,
    variant: str,
    validation: tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.int64]],
    test: tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.int64]],
    settings: EvaluationSettings,
) -> Result:
    scores, gamma, shower = test
    cuts = CUTS
    if min(scores.min(), validation[0].min()) < 0 or max(scores.max(), validation[0].max()) > 1:
        raise UsageError(f"scores of '{method}' are not between 0 and 1", remedy="map them there, the order kept")
    cut = best_cut(validation[0], validation[1], settings.hadrons_min, settings.efficiency_min)
    at = int(np.argmin(np.abs(cuts - cut)))
    known, known_validation = curve(scores, gamma), curve(validation[0], validation[1])
    drawn = bootstrap(scores, gamma, shower, settings.resamples, settings.seed)
    q_low, q_high = drawn.band(drawn.quality)
    n_low, n_high = drawn.band(drawn.gammas)
    hadrons, gammas, auc = roc(scores, gamma)
    thin = np.unique(np.linspace(0, len(hadrons) - 1, 200).astype(int))
    edges = np.linspace(0, 1, _BINS + 1)
    usable = drawn.quality[np.isfinite(drawn.quality[:, at]), at]
    return Result(
        method=method,
        variant=variant,
        title=TITLES.get(method, method),
        talk=TALK.get((method, variant)),
        cut=cut,
        quality=_number(known.quality[at]),
        quality_error=float(usable.std()) if len(usable) > 1 and np.isfinite(known.quality[at]) else None,
        gamma_efficiency=float(known.gamma_efficiency[at]),
        hadron_efficiency=float(known.hadron_efficiency[at]),
        gammas_left=int(known.gammas[at]),
        hadrons_left=int(known.hadrons[at]),
        few_hadrons=bool(known.hadrons[at] < FEW_HADRONS),
        auc=auc,
        auc_validation=roc(validation[0], validation[1])[2],
        quality_validation=_number(known_validation.quality[at]),
        cuts=cuts.tolist(),
        q=[_number(value) for value in known.quality],
        q_low=[_number(value) for value in q_low],
        q_high=[_number(value) for value in q_high],
        correct_gammas=known.gammas.tolist(),
        correct_gammas_low=n_low.tolist(),
        correct_gammas_high=n_high.tolist(),
        correct_hadrons=(int((~gamma).sum()) - known.hadrons).tolist(),
        roc_hadrons=hadrons[thin].tolist(),
        roc_gammas=gammas[thin].tolist(),
        bins=edges.tolist(),
        gammas_in_bin=np.histogram(scores[gamma], edges)[0].tolist(),
        hadrons_in_bin=np.histogram(scores[~gamma], edges)[0].tolist(),
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

"""What the scores of a study are worth: the table with its errors, differences with their significance, bins, costs.

All of it is on the opened test set; every cut was chosen on the validation set. Errors hold the draw of showers (a
bootstrap over whole showers, the same for all methods) and the spread of the trainings; not the Monte Carlo's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from apbatch.camera.registry import camera_named
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind import protocol
from apbatch.dl.files import read_json, read_parquet, write_json
from apbatch.dl.judging import rivals
from apbatch.dl.judging.observation import Observation, choose, hours_needed, price
from apbatch.dl.judging.q_factor import CUTS, Flags, Floats, bootstrap, curve, roc
from apbatch.dl.judging.resampling import Comparison, Interval, Resamples, compare
from apbatch.dl.networks.treatment import parameters
from apbatch.dl.study.trainings import SIMPLE, method_of
from apbatch.dl.training.data import load_pixels
from apbatch.errors import FormatError
from apbatch.provenance import provenance

#: Q as printed in the talk: method and cleaning. Its cleaning is taken to be the standard one.
TALK = {
    (SIMPLE, "none"): 1.76, ("torch", "none"): 1.74, ("talk-cnn", "none"): 1.48,
    (SIMPLE, "standard"): 1.70, ("torch", "standard"): 2.55, ("talk-cnn", "standard"): 2.99,
}  # fmt: skip
TITLES = {
    SIMPLE: "simple 2-D technique",
    "trees": "boosted trees",
    "forest": "random forest",
    "talk-cnn": "the talk's CNN",
    "hillas-cnn": "CNN and image parameters",
    "resnet": "residual network",
    "hex-cnn": "hexagonal network",
}
#: Methods that see image parameters, not images.
CLASSICAL = (SIMPLE, "trees", "forest")
_MEAN = "+"


class Goal(BaseModel):
    """A ratio of Q that the best network is to have over a rival.

    One rule decides: *reached* if the interval of 95 % of the ratio lies above the goal, *missed* if it lies below,
    else *undecided*.

    Attributes
    ----------
    over : str
        Method of the rival; of several rows the one with the highest validation Q.
    ratio : float
    cleaning : str, optional
        Only for images with this cleaning; by default for each cleaning, and for the best of all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    over: str = SIMPLE
    ratio: float = Field(default=1.0, gt=0)
    cleaning: str | None = None


class StudyEvaluationSettings(BaseModel):
    """How scores are judged.

    Attributes
    ----------
    observation : Observation
        For which the cut is chosen.
    hadrons_min : int
        Hadrons that must be left of the test set after a cut; Q of a cut that leaves fewer is not quoted.
    efficiency_min : float
        Smallest share of the gammas that a cut may keep.
    resamples : int
        Of the paired bootstrap.
    bins : int
        Bins of energy, size and zenith, of equal numbers of test gammas.
    goals : tuple of Goal
        Verdicts that the report gives.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    observation: Observation = Observation()
    hadrons_min: int = Field(default=200, ge=1)
    efficiency_min: float = Field(default=0.1, ge=0, lt=1)
    resamples: int = Field(default=1000, ge=100, le=20000)
    bins: int = Field(default=4, ge=1, le=20)
    goals: tuple[Goal, ...] = ()
    seed: int = Field(default=0, ge=0)


def rule_of(settings: StudyEvaluationSettings) -> dict[str, Any]:
    """Return what decides cuts and verdicts, plain JSON: frozen with the scores, before anybody sees a label."""
    return settings.model_dump(mode="json", include={"observation", "hadrons_min", "efficiency_min", "goals"})


@dataclass(frozen=True)
class _Events:
    """One split: labels, showers, and rows of ids."""

    place: dict[str, int]
    gamma: Flags
    shower: npt.NDArray[np.int64]


@dataclass
class _Row:
    """One method with one treatment: scores of each training, cuts, and the joined resamples of Q."""

    method: str
    variant: str
    validation: list[Floats]
    test: list[Floats]
    cuts: list[float]
    passed: list[Flags]
    quality: Floats
    validation_quality: float

    @property
    def cuts_nothing(self) -> bool:
        """Whether every training's cut keeps every event, so that Q is 1 and no measurement."""
        return all(bool(passed.all()) for passed in self.passed)


def evaluate(folder: Path, output: Path, settings: StudyEvaluationSettings | None = None) -> dict[str, Any]:
    """Judge the frozen scores of a study.

    Parameters
    ----------
    folder : pathlib.Path
        The blind analysis, unsealed.
    output : pathlib.Path
        Folder in which ``study.json`` is kept.

    Returns
    -------
    dict
        Plain JSON: ``rows`` (one a method and treatment), ``verdicts`` (what the study set out to reach), ``events``.

    Raises
    ------
    UsageError
        If the labels are still sealed.
    VerificationError, FormatError
    """
    settings = settings or StudyEvaluationSettings()
    made = blind.open_set(folder)
    opened = protocol.open_labels(made)
    labels, scores = opened.labels, opened.scores
    known = {"validation": read_parquet(made.files / "validation.parquet", ["id", "gamma", "shower"]), "test": labels}
    events = {split: _events(table) for split, table in known.items()}
    test = events["test"]
    draws = Resamples(test.gamma, test.shower, settings.resamples, settings.seed)
    rows = [
        _row(method, variant, trainings, events, draws, settings)
        for (method, variant), trainings in _grouped(scores, events).items()
    ]
    bins = _bins(made, labels, settings.bins)
    by_name = {(row.method, row.variant): row for row in rows}
    result = {
        "rows": [_told(row, by_name, events, draws, bins, settings) for row in rows],
        "verdicts": _verdicts(rows, settings.goals),
        "orders": _orders(rows),
        "bins": [{"name": name, "unit": unit, "edges": edges} for name, unit, edges, _ in bins],
        "events": {
            **made.manifest["events"],
            "test": {
                "events": len(test.gamma),
                "gammas": int(test.gamma.sum()),
                "hadrons": int((~test.gamma).sum()),
            },
        },
        "showers": {
            "gammas": len(np.unique(test.shower[test.gamma])),
            "hadrons": len(np.unique(test.shower[~test.gamma])),
        },
        "cut_flow": made.manifest["cut_flow"],
        "settings": settings.model_dump(mode="json"),
        "blind": {
            **opened.record,
            "judged_as_frozen": opened.record["rule"] == rule_of(settings),
        },
        "provenance": provenance(
            "study", {"blind": read_json(folder / "origin.json")}, settings.model_dump(mode="json")
        ),
    }
    write_json(output / "study.json", result)
    return result


def _events(table: pa.Table) -> _Events:
    ids = table["id"].to_pylist()
    gamma = np.asarray(table["gamma"].to_numpy(zero_copy_only=False), bool)
    return _Events({name: row for row, name in enumerate(ids)}, gamma, np.asarray(table["shower"].to_numpy(), np.int64))


def _grouped(scores: pa.Table, events: dict[str, _Events]) -> dict[tuple[str, str], dict[str, list[Floats]]]:
    """Return for each method and treatment the scores of its trainings, in the order of the events.

    Where a network, or trees, were trained several times, the mean of the scores is one more method, named with a plus.
    """
    found: dict[tuple[str, str], dict[str, list[Floats]]] = {}
    label = pc.binary_join_element_wise(scores["method"], scores["variant"], "\x1f")
    for name in sorted(pc.unique(label).to_pylist(), key=_order):
        method, variant = name.split("\x1f")
        chosen = scores.filter(pc.equal(label, name))
        trainings = found.setdefault((method_of(method)[0], variant), {"validation": [], "test": []})
        for split, known in events.items():
            part = chosen.filter(pc.equal(chosen["split"], split))
            values = np.full(len(known.gamma), np.nan)
            values[[known.place[key] for key in part["id"].to_pylist()]] = part["score"].to_numpy()
            if np.nanmin(values) < 0 or np.nanmax(values) > 1 or np.isnan(values).any():
                raise FormatError(f"scores of '{method}', '{variant}' are not one in 0…1 for each event")
            trainings[split].append(values)
    means = {
        (method + _MEAN, variant): {split: [np.mean(values, axis=0)] for split, values in trainings.items()}
        for (method, variant), trainings in found.items()
        if len(trainings["test"]) > 1
    }
    return found | means


def _order(name: str) -> tuple[int, str, int, str]:
    method, variant = name.split("\x1f")
    known = list(TITLES)
    base, seed = method_of(method)
    return (known.index(base) if base in known else len(known), base, seed, variant)


def _row(
    method: str,
    variant: str,
    trainings: dict[str, list[Floats]],
    events: dict[str, _Events],
    draws: Resamples,
    settings: StudyEvaluationSettings,
) -> _Row:
    validation, test = events["validation"], events["test"]
    # So many hadrons of the validation set that the test set keeps enough, and a tenth more for chance.
    share = (~validation.gamma).sum() / (~test.gamma).sum()
    least = int(np.ceil(1.1 * settings.hadrons_min * share))
    cuts, passed, joined, qualities = [], [], [], []
    for of_validation, of_test in zip(trainings["validation"], trainings["test"], strict=True):
        choice = choose(of_validation, validation.gamma, settings.observation, least, settings.efficiency_min)
        cuts.append(choice.cut)
        passed.append(of_test > choice.cut)
        joined.append(draws.quality(passed[-1]))
        qualities.append(float(curve(of_validation, validation.gamma).quality[choice.at]))
    return _Row(
        method,
        variant,
        trainings["validation"],
        trainings["test"],
        cuts,
        passed,
        draws.over_seeds(joined),
        float(np.mean(qualities)),
    )


def _told(
    row: _Row,
    by_name: dict[tuple[str, str], _Row],
    events: dict[str, _Events],
    draws: Resamples,
    bins: list[tuple[str, str, list[float], npt.NDArray[np.int64]]],
    settings: StudyEvaluationSettings,
) -> dict[str, Any]:
    test = events["test"]
    shares = [draws.shares(passed) for passed in row.passed]
    kept = draws.over_seeds([share[0] for share in shares])
    leaking = draws.over_seeds([share[1] for share in shares])
    left = [int((passed & ~test.gamma).sum()) for passed in row.passed]
    quoted = min(left) >= settings.hadrons_min
    cleaning = row.variant.partition(":")[0]
    against = {}
    for rival in (SIMPLE, "trees"):
        # A mean is compared with a mean, where there is one.
        alike = by_name.get((rival + _MEAN, cleaning)) if row.method.endswith(_MEAN) else None
        other = alike or by_name.get((rival, cleaning))
        if other is not None and _base(other) != _base(row):
            against[rival] = _plain(compare(row.quality, other.quality)) if quoted else None
    with np.errstate(divide="ignore"):
        rejection = 1 / leaking
    means = row.test[0] if len(row.test) == 1 else np.mean(row.test, axis=0)
    efficiencies = float(kept[0]), float(leaking[0])
    return {
        "method": row.method,
        "title": title_of(row.method),
        "variant": row.variant,
        "cleaning": cleaning,
        "talk": TALK.get((row.method, row.variant)),
        "trainings": [
            {
                "cut": cut,
                "quality": _number(draws.quality(passed)[0]),
                "gamma_efficiency": float(passed[test.gamma].mean()),
                "hadrons_left": number,
                "auc": roc(scores, test.gamma)[2],
            }
            for cut, passed, number, scores in zip(row.cuts, row.passed, left, row.test, strict=True)
        ],
        "quoted": quoted,
        "cuts_nothing": row.cuts_nothing,
        "hadrons_left": float(np.mean(left)),
        "quality": _plain(Interval.of(row.quality[0], row.quality[1:])) if quoted else None,
        "quality_validation": _number(row.validation_quality),
        "gamma_efficiency": _plain(Interval.of(kept[0], kept[1:])),
        "hadron_rejection": _plain(Interval.of(rejection[0], rejection[1:])) if quoted else None,
        "auc": float(np.mean([roc(scores, test.gamma)[2] for scores in row.test])),
        "significance": float(settings.observation.significance(*efficiencies)) if quoted else None,
        "hours": _number(hours_needed(efficiencies, settings.observation)) if quoted else None,
        "against": against,
        "curve": _curve(means, test, settings),
        "price": price(row.test[0], test.gamma, row.cuts[0], settings.observation, settings.hadrons_min),
        "bins": {name: _binned(row, draws, test.gamma, numbers, len(edges) - 1) for name, _, edges, numbers in bins},
    }


def _curve(scores: Floats, test: _Events, settings: StudyEvaluationSettings) -> dict[str, Any]:
    """Return Q, gamma efficiency and hadron rejection against the cut with their bands (68 %), thinned to 101 cuts."""
    thin = slice(0, len(CUTS), 2)
    known = curve(scores, test.gamma)
    drawn = bootstrap(scores, test.gamma, test.shower, min(settings.resamples, 400), settings.seed)
    enough = known.hadrons >= 10
    hadrons = int((~test.gamma).sum())
    told: dict[str, Any] = {
        "cuts": CUTS[thin].tolist(),
        "hadrons_left": known.hadrons[thin].tolist(),
        "gammas_left": known.gammas[thin].tolist(),
    }
    leaking = drawn.hadron_efficiency
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, value, samples in (
            ("quality", known.quality, drawn.quality),
            ("gamma_efficiency", known.gamma_efficiency, drawn.gamma_efficiency),
            ("hadron_rejection", hadrons / known.hadrons, np.where(leaking > 0, 1 / leaking, np.nan)),
        ):
            low, high = drawn.band(samples)
            for suffix, values in (("", value), ("_low", low), ("_high", high)):
                told[name + suffix] = [
                    _number(number) if use else None for number, use in zip(values[thin], enough[thin], strict=True)
                ]
    return told


def _binned(
    row: _Row, draws: Resamples, gamma: Flags, numbers: npt.NDArray[np.int64], n_bins: int, least: int = 10
) -> list[dict[str, Any]]:
    """Return Q in each bin at the cut of the whole; None where fewer than `least` hadrons of a bin are left."""
    told = []
    for number in range(n_bins):
        among = numbers == number
        left = [int((passed & among & ~gamma).sum()) for passed in row.passed]
        quality = draws.over_seeds([draws.quality(passed, among) for passed in row.passed])
        kept = draws.over_seeds([draws.shares(passed, among)[0] for passed in row.passed])
        told.append(
            {
                "gammas": int((among & gamma).sum()),
                "hadrons": int((among & ~gamma).sum()),
                "hadrons_left": float(np.mean(left)),
                "quality": _plain(Interval.of(quality[0], quality[1:])) if min(left) >= least else None,
                "gamma_efficiency": _plain(Interval.of(kept[0], kept[1:])),
            }
        )
    return told


def _bins(
    made: blind.BlindSet, labels: pa.Table, n_bins: int
) -> list[tuple[str, str, list[float], npt.NDArray[np.int64]]]:
    """Return name, unit, edges and the bin of each test event, in the order of the labels; -1 where not known."""
    train = read_parquet(made.files / "train.parquet")
    gamma = np.asarray(train["gamma"].to_numpy(zero_copy_only=False), bool)
    camera = camera_named(made.manifest["camera"])
    columns = {
        split: parameters(load_pixels(made.files, made.manifest, split), camera, "standard")
        for split in ("train", "test")
    }
    ids = read_parquet(made.files / "test.parquet", ["id"])["id"].to_pylist()
    row_of = {name: row for row, name in enumerate(ids)}
    order = np.array([row_of[name] for name in labels["id"].to_pylist()])
    is_gamma = np.asarray(labels["gamma"].to_numpy(zero_copy_only=False), bool)
    values = {("size", "p.e."): columns["test"]["size"][order]}
    if "energy" in train.column_names:
        of_gammas = {name: column[gamma] for name, column in columns["train"].items()}
        energy = train["energy"].to_numpy().astype(np.float64)[gamma]
        values["energy", "TeV"] = rivals.estimate_energy(of_gammas, energy, {"test": columns["test"]})["test"][order]
    if "zenith" in labels.column_names:
        zenith = labels["zenith"].to_numpy(zero_copy_only=False).astype(np.float64)
        if np.isfinite(zenith).all() and np.ptp(zenith) > 1:
            values["zenith", "deg"] = zenith
    found = []
    for (name, unit), value in values.items():
        edges = np.quantile(value[is_gamma], np.linspace(0, 1, n_bins + 1))
        edges[0], edges[-1] = min(edges[0], value.min()), max(edges[-1], value.max())
        numbers = np.clip(np.searchsorted(edges, value, side="right") - 1, 0, n_bins - 1)
        found.append((name, unit, [float(edge) for edge in edges], numbers))
    return found


def _verdicts(rows: Sequence[_Row], goals: Sequence[Goal]) -> list[dict[str, Any]]:
    """Judge the goals, for each cleaning and over all; the best are picked by their validation Q."""
    cleanings: list[str | None] = list(dict.fromkeys(row.variant for row in rows if ":" not in row.variant))
    return [
        verdict
        for cleaning in [*cleanings, None]
        for goal in goals
        if goal.cleaning in (None, cleaning)
        if (verdict := _verdict(rows, goal, cleaning)) is not None
    ]


def _verdict(rows: Sequence[_Row], goal: Goal, cleaning: str | None) -> dict[str, Any] | None:
    """Judge one goal for one cleaning, or None for the best of all; None where a side is missing."""

    def best(of: Sequence[_Row]) -> _Row | None:
        return max(of, key=lambda row: row.validation_quality, default=None)

    here = [row for row in rows if cleaning is None or row.variant == cleaning]
    network = best([row for row in here if _base(row) not in CLASSICAL and ":" not in row.variant])
    rival = best([row for row in here if _base(row) == goal.over])
    if network is None or rival is None:
        return None
    comparison = compare(network.quality, rival.quality)
    return {
        "cleaning": cleaning,
        "network": f"{title_of(network.method)}, {network.variant}",
        "rival": f"{title_of(rival.method)}, {rival.variant}",
        "rival_cuts_nothing": rival.cuts_nothing,
        "goal": goal.ratio,
        "comparison": _plain(comparison),
        "verdict": verdict_of(comparison, goal.ratio),
    }


def verdict_of(comparison: Comparison | None, goal: float) -> str:
    """Return whether a ratio of Q reaches a goal: what its interval of 95 % says, and nothing else."""
    if comparison is None:
        return "undecided"
    return "reached" if comparison.ratio.low > goal else "missed" if comparison.ratio.high < goal else "undecided"


def _orders(rows: Sequence[_Row]) -> list[dict[str, Any]]:
    """Compare every method's treatments with its first one: does cleaning, or another grid, help?"""
    first: dict[str, _Row] = {}
    told = []
    for row in rows:
        base = first.setdefault(row.method, row)
        if row is not base:
            told.append(
                {
                    "title": title_of(row.method),
                    "variant": row.variant,
                    "base": base.variant,
                    "comparison": _plain(compare(row.quality, base.quality)),
                }
            )
    return told


def _base(row: _Row) -> str:
    """Return the method whose trainings a row is, or is the mean of."""
    return row.method.removesuffix(_MEAN)


def title_of(method: str) -> str:
    """Return what a method is called in words."""
    base = method.removesuffix(_MEAN)
    title = TITLES.get(base, base)
    return f"{title}, mean of its trainings" if method.endswith(_MEAN) else title


def _plain(value: Interval | Comparison | None) -> dict[str, Any] | None:
    return None if value is None else asdict(value)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

"""What the scores of a study are worth: the table with its errors, differences with their significance, bins, costs.

All of it is on the opened test set; every cut was chosen on the validation set. Errors hold the draw of showers (a
bootstrap over whole showers, the same for all methods) and the spread of the trainings; not the Monte Carlo's own.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind import protocol
from apbatch.dl.files import read_json, read_parquet, write_json
from apbatch.dl.judging import rivals
from apbatch.dl.judging.observation import hours_needed, price
from apbatch.dl.judging.q_factor import SCORE_CUTS, Flags, Floats, bootstrap, curve, roc
from apbatch.dl.judging.resampling import Comparison, Interval, Resamples, compare
from apbatch.dl.networks.treatment import images_of, parameters, sky_of
from apbatch.dl.study.methods import MEAN, RIVALS, TALK, base_of, title_of
from apbatch.dl.study.rows import Events, Row, events_of, rows_of
from apbatch.dl.study.settings import JudgingSettings
from apbatch.dl.study.verdicts import orders_of, verdicts_on
from apbatch.dl.training.data import load_pixels
from apbatch.provenance import provenance

#: Edges of the histograms of scores.
SCORE_BINS = np.linspace(0, 1, 41)


def evaluate(folder: Path, output: Path, settings: JudgingSettings | None = None) -> dict[str, Any]:
    """Judge the frozen scores of a study.

    Parameters
    ----------
    folder : pathlib.Path
        The blind analysis, unsealed.
    output : pathlib.Path
        Folder in which ``study.json`` is kept.
    settings : JudgingSettings, optional

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
    settings = settings or JudgingSettings()
    blind_set = blind.open_set(folder)
    opened = protocol.open_labels(blind_set)
    labels, scores = opened.labels, opened.scores
    tables = {
        "validation": read_parquet(blind_set.files / "validation.parquet", ["id", "gamma", "shower"]),
        "test": labels,
    }
    events = {split: events_of(table) for split, table in tables.items()}
    test = events["test"]
    draws = Resamples(test.gamma, test.shower, settings.resamples, settings.bootstrap_seed)
    rows = rows_of(scores, events, draws, settings)
    bins = _bins(blind_set, labels, settings.bins)
    by_name = {(row.method, row.treatment): row for row in rows}
    result = {
        "rows": [_numbers_of(row, by_name, events, draws, bins, settings) for row in rows],
        "verdicts": verdicts_on(rows, settings.goals),
        "orders": orders_of(rows),
        "bins": [{"name": name, "unit": unit, "edges": edges} for name, unit, edges, _ in bins],
        "events": {
            **blind_set.manifest["events"],
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
        "learning": _learning(output),
        "score_bins": SCORE_BINS.tolist(),
        "night_sky": blind_set.manifest.get("night_sky"),
        "cut_flow": blind_set.manifest["cut_flow"],
        "settings": settings.model_dump(mode="json"),
        "blind": {
            **opened.record,
            "judged_as_frozen": opened.record["rule"] == settings.rule(),
        },
        "provenance": provenance(
            "study", {"blind": read_json(folder / "origin.json")}, settings.model_dump(mode="json")
        ),
    }
    write_json(output / "study.json", result)
    return result


def _numbers_of(
    row: Row,
    by_name: dict[tuple[str, str], Row],
    events: dict[str, Events],
    draws: Resamples,
    bins: list[tuple[str, str, list[float], npt.NDArray[np.int64]]],
    settings: JudgingSettings,
) -> dict[str, Any]:
    test = events["test"]
    shares = [draws.shares(passed) for passed in row.passed]
    gammas = draws.over_seeds([share[0] for share in shares])
    hadrons = draws.over_seeds([share[1] for share in shares])
    left = [int((passed & ~test.gamma).sum()) for passed in row.passed]
    images = images_of(row.treatment)
    against = {}
    for rival in RIVALS:
        # A mean is compared with a mean, and with what saw the same planes, where there is one.
        names = [rival + MEAN, rival] if row.method.endswith(MEAN) else [rival]
        pairs = product(names, dict.fromkeys((row.treatment, images)))
        other = next((by_name[pair] for pair in pairs if pair in by_name), None)
        if other is not None and base_of(other.method) != base_of(row.method):
            against[rival] = _plain(compare(row.quality, other.quality)) if row.quoted and other.quoted else None
    with np.errstate(divide="ignore"):
        rejection = 1 / hadrons
    means = row.test[0] if len(row.test) == 1 else np.mean(row.test, axis=0)
    efficiencies = float(gammas[0]), float(hadrons[0])
    return {
        "method": row.method,
        "title": title_of(row.method),
        "treatment": row.treatment,
        "images": images,
        "sky": sky_of(row.treatment),
        "talk": TALK.get((row.method, row.treatment)),
        "trainings": [
            {
                "cut": cut,
                "quality": _number(draws.q_factors(passed)[0]),
                "gamma_efficiency": float(passed[test.gamma].mean()),
                "hadrons_left": number,
                "auc": roc(scores, test.gamma)[2],
            }
            for cut, passed, number, scores in zip(row.cuts, row.passed, left, row.test, strict=True)
        ],
        "quoted": row.quoted,
        "cuts_nothing": row.cuts_nothing,
        "hadrons_left": float(np.mean(left)),
        "quality": _plain(Interval.of(row.quality[0], row.quality[1:])) if row.quoted else None,
        "quality_validation": _number(row.validation_quality),
        "gamma_efficiency": _plain(Interval.of(gammas[0], gammas[1:])),
        "hadron_rejection": _plain(Interval.of(rejection[0], rejection[1:])) if row.quoted else None,
        "auc": float(np.mean([roc(scores, test.gamma)[2] for scores in row.test])),
        "significance": float(settings.observation.significance(*efficiencies)) if row.quoted else None,
        "hours": _number(hours_needed(efficiencies, settings.observation)) if row.quoted else None,
        "against": against,
        "curve": _curve(means, test, settings),
        "roc": _roc(means, test.gamma),
        "scores": {
            "gammas": np.histogram(means[test.gamma], SCORE_BINS)[0].tolist(),
            "hadrons": np.histogram(means[~test.gamma], SCORE_BINS)[0].tolist(),
        },
        "price": price(row.test[0], test.gamma, row.cuts[0], settings.observation, settings.hadrons_min),
        "bins": {name: _binned(row, draws, test.gamma, numbers, len(edges) - 1) for name, _, edges, numbers in bins},
    }


def _curve(scores: Floats, test: Events, settings: JudgingSettings) -> dict[str, Any]:
    """Return Q, gamma efficiency and hadron rejection against the cut with their bands (68 %), thinned to 101 cuts."""
    thin = slice(0, len(SCORE_CUTS), 2)
    points = curve(scores, test.gamma)
    band = bootstrap(scores, test.gamma, test.shower, min(settings.resamples, 400), settings.bootstrap_seed)
    enough = points.hadrons >= 10
    hadrons = int((~test.gamma).sum())
    content: dict[str, Any] = {
        "cuts": SCORE_CUTS[thin].tolist(),
        "hadrons_left": points.hadrons[thin].tolist(),
        "gammas_left": points.gammas[thin].tolist(),
    }
    leaking = band.hadron_efficiency
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, value, samples in (
            ("quality", points.quality, band.quality),
            ("gamma_efficiency", points.gamma_efficiency, band.gamma_efficiency),
            ("hadron_rejection", hadrons / points.hadrons, np.where(leaking > 0, 1 / leaking, np.nan)),
        ):
            low, high = band.band(samples)
            for suffix, values in (("", value), ("_low", low), ("_high", high)):
                content[name + suffix] = [
                    _number(number) if use else None for number, use in zip(values[thin], enough[thin], strict=True)
                ]
    return content


def _roc(scores: Floats, gamma: Flags) -> dict[str, list[float]]:
    """Return hadron and gamma efficiency at all cuts, thinned to at most 200 points."""
    hadrons, gammas, _ = roc(scores, gamma)
    thin = np.unique(np.linspace(0, len(hadrons) - 1, 200).astype(int))
    return {"hadrons": hadrons[thin].tolist(), "gammas": gammas[thin].tolist()}


def _learning(output: Path) -> list[dict[str, Any]]:
    """Return the learning curves of the trainings of a study, one entry a network."""
    curves = []
    for record in sorted((output / "trainings").glob("*/trained.json")):
        content = read_json(record)
        curves += [
            {
                "method": content["spec"]["model"],
                "training": content["spec"]["seed"],
                "treatment": treatment,
                "parameters": content["parameters"],
                "ranks": content["ranks"],
                "epochs": run["curves"],
            }
            for treatment, run in content["treatments"].items()
        ]
    return curves


def _binned(
    row: Row, draws: Resamples, gamma: Flags, numbers: npt.NDArray[np.int64], n_bins: int, least: int = 10
) -> list[dict[str, Any]]:
    """Return Q in each bin at the cut of the whole; None where fewer than `least` hadrons of a bin are left."""
    content = []
    for number in range(n_bins):
        among = numbers == number
        left = [int((passed & among & ~gamma).sum()) for passed in row.passed]
        quality = draws.over_seeds([draws.q_factors(passed, among) for passed in row.passed])
        gammas = draws.over_seeds([draws.shares(passed, among)[0] for passed in row.passed])
        content.append(
            {
                "gammas": int((among & gamma).sum()),
                "hadrons": int((among & ~gamma).sum()),
                "hadrons_left": float(np.mean(left)),
                "quality": _plain(Interval.of(quality[0], quality[1:])) if min(left) >= least else None,
                "gamma_efficiency": _plain(Interval.of(gammas[0], gammas[1:])),
            }
        )
    return content


def _bins(
    blind_set: blind.BlindSet, labels: pa.Table, n_bins: int
) -> list[tuple[str, str, list[float], npt.NDArray[np.int64]]]:
    """Return name, unit, edges and the bin of each test event, in the order of the labels; -1 where not known."""
    train = read_parquet(blind_set.files / "train.parquet")
    gamma = np.asarray(train["gamma"].to_numpy(zero_copy_only=False), bool)
    camera = camera_named(blind_set.manifest["camera"])
    columns = {
        split: parameters(load_pixels(blind_set.files, blind_set.manifest, split), camera, "standard")
        for split in ("train", "test")
    }
    ids = read_parquet(blind_set.files / "test.parquet", ["id"])["id"].to_pylist()
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
    quantities = []
    for (name, unit), value in values.items():
        edges = np.quantile(value[is_gamma], np.linspace(0, 1, n_bins + 1))
        edges[0], edges[-1] = min(edges[0], value.min()), max(edges[-1], value.max())
        numbers = np.clip(np.searchsorted(edges, value, side="right") - 1, 0, n_bins - 1)
        quantities.append((name, unit, [float(edge) for edge in edges], numbers))
    return quantities


def _plain(value: Interval | Comparison | None) -> dict[str, Any] | None:
    return None if value is None else asdict(value)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

"""The report of a run: one HTML page for people, one JSON file with every sample for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import jinja2

from apbatch.bench.plots import svg
from apbatch.bench.samples import read_run
from apbatch.bench.statistics import Ratio, Result, advice, results, three_digits
from apbatch.bench.suites import SUITES
from apbatch.localfiles import write_whole


def write_report(folder: Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json`` into the folder of a run; return their paths.

    Raises
    ------
    NotFoundError, UsageError
        If there is no run, or it is damaged.
    """
    run = read_run(folder)
    measurements = results(run)
    suites = {name: suite for name, suite in SUITES.items() if name in {one.operation.suite for one in measurements}}
    page, data = folder / "report.html", folder / "report.json"
    loads = [sample.load for sample in run.samples] or [0.0]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("apbatch.bench", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["figure"] = three_digits
    environment.filters["interval"] = interval_text
    text = environment.get_template("report.html.j2").render(
        about=run.about,
        results=measurements,
        plots={result.operation: svg(result) for result in measurements},
        suites=suites,
        limits=list(dict.fromkeys(limit for suite in suites.values() for limit in suite.limits)),
        advice=advice(measurements, [pair for suite in suites.values() for pair in suite.choices]),
        samples=len(run.samples),
        load=(min(loads), max(loads)),
    )
    write_whole(page, text)
    content = {
        "about": run.about,
        "results": [_plain(result) for result in measurements],
        "samples": [asdict(sample) for sample in run.samples],
    }
    write_whole(data, json.dumps(content, indent=1, default=str))
    return page, data


def rows(folder: Path) -> list[dict[str, object]]:
    """Return the medians of a run as flat records, for the command line."""
    return [
        {
            "suite": result.operation.suite,
            "operation": result.operation.name,
            "peer": figure.peer,
            "median": round(figure.median, 3),
            "lowest": round(figure.low, 3),
            "highest": round(figure.high, 3),
            "unit": result.operation.unit,
            "ratio to": _ratio(result.ratios_to, figure.peer, figure.ratio),
            "times": _ratio(result.operation.baseline_of(figure.peer), figure.peer, figure.gain),
            "samples": len(figure.values),
        }
        for result in results(read_run(folder))
        for figure in result.figures
    ]


def interval_text(ratio: Ratio) -> str:
    """Return the interval that a ratio lies in."""
    return f"{three_digits(ratio.low)} to {three_digits(ratio.high)}"


def _ratio(to: str | None, peer: str, value: Ratio | None) -> str | None:
    if to is None or value is None or peer == to:
        return None
    return f"{three_digits(value.median)} ({interval_text(value)}) {to}"


def _plain(result: Result) -> dict[str, object]:
    content = asdict(result)
    content["operation"]["higher_is_better"] = result.operation.higher_is_better
    return content

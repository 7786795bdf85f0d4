"""The last quality of each run, as this home keeps it for those who look at nights and runs: small files of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from apbatch.localfiles import write_whole
from apbatch.quality.monitor import Status
from apbatch.quality.runs import Rate, RunQuality

#: Points of a run's curve of rates.
_POINTS = 60
_LARGEST = 2**20


def keep_quality(folder: Path, runs: Sequence[RunQuality], output_url: str) -> None:
    """Keep the quality of runs; that of an earlier look at the same run is replaced.

    Parameters
    ----------
    folder : Path
        A home.
    runs : sequence of RunQuality
    output_url : str
        Where the tables and the page are.
    """
    for quality in runs:
        experiment, run, telescope = quality.run
        path = _folder(folder, experiment) / f"{run}-{telescope}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(_record(quality, output_url), allow_nan=False) + "\n")


def kept_quality(folder: Path, experiment: str, run: int) -> list[dict[str, Any]]:
    """Return what is kept of a run, one a telescope: its summary, and `gains`, `rates`, `made`, `output`.

    Parameters
    ----------
    folder : Path
        A home.
    experiment : str
    run : int
    """
    records = []
    for path in sorted(_folder(folder, experiment).glob(f"{run}-*.json")):
        with suppress(OSError, ValueError):  # one that is damaged is written again by the next look at the run
            if path.stat().st_size <= _LARGEST:
                records.append(json.loads(path.read_text(encoding="utf-8")))
    return [record for record in records if isinstance(record, dict)]


def _folder(folder: Path, experiment: str) -> Path:
    return folder / "quality" / f"experiment-{quote(experiment, safe='')}"


def _record(quality: RunQuality, output_url: str) -> dict[str, Any]:
    return {
        **quality.summary,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "output": output_url,
        "gains": {gain: _gain(quality, gain) for gain in quality.gains},
        "rates": _curve(quality.rates[0]),
    }


def _gain(quality: RunQuality, gain: str) -> dict[str, float | None]:
    """Return the middle pedestal and spread of the good pixels."""
    channels, good = quality.gains[gain], quality.status[gain] == Status.GOOD
    values = {"pedestal": channels.level[good], "spread": channels.spread[good]}
    return {
        name: round(float(np.nanmedian(column)), 3) if np.isfinite(column).any() else None
        for name, column in values.items()
    }


def _curve(rate: Rate) -> list[tuple[str, float]]:
    """Return times and event rates, 1/s; neighbouring bins are one where there are many."""
    together = -(-len(rate.count) // _POINTS) or 1
    places = np.arange(0, len(rate.count), together)
    if not len(places):
        return []
    count, seconds = np.add.reduceat(rate.count, places), np.add.reduceat(rate.seconds, places)
    return [
        (datetime.fromtimestamp(start / 1e9, UTC).isoformat(timespec="seconds"), round(number / length, 4))
        for start, number, length in zip(rate.start[places].tolist(), count.tolist(), seconds.tolist(), strict=True)
        if length > 0
    ]

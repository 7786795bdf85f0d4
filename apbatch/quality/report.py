"""What a look at runs leaves: tables in Parquet, every number of the summaries in JSON, one page with plots."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from apbatch.errors import FormatError, UsageError
from apbatch.provenance import provenance
from apbatch.quality.monitor import HIT_SIGMA
from apbatch.quality.runs import RunQuality, pixel_table, rate_table
from apbatch.storage.backends import open_store
from apbatch.storage.store import Store

#: The last file that is written: with it, the folder is complete.
SUMMARY = "quality.json"
#: Runs that get a page; the tables hold all.
MOST_DRAWN = 30


def write_quality(
    runs: Sequence[RunQuality], output_url: str, inputs: Sequence[str], bin_s: float, losses: Mapping[str, int]
) -> None:
    """Write ``pixels.parquet``, ``rates.parquet``, ``report.html`` and, last, ``quality.json`` into a folder.

    Parameters
    ----------
    runs : sequence of RunQuality
    output_url : str
        URL of a folder that holds nothing or an earlier report.
    inputs : sequence of str
        URLs of the files, for the record of origin.
    bin_s : float
        Width of a bin of time, s.
    losses : mapping of str to int
        What was passed over, by reason.

    Raises
    ------
    UsageError
        If the folder holds something else.
    ServerError
    """
    store = open_store(output_url)
    _need_own_folder(store)
    store.remove(SUMMARY)
    _write_table(store, "pixels.parquet", pixel_table(runs))
    _write_table(store, "rates.parquet", rate_table(runs))
    with store.publish("report.html") as file:
        file.write(page(runs, bin_s, losses).encode())
    summary = {
        "runs": [quality.summary for quality in runs],
        "losses": dict(losses),
        "provenance": provenance("quality", list(inputs), {"bin": bin_s}),
    }
    with store.publish(SUMMARY) as file:
        file.write((json.dumps(summary, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def is_complete(output_url: str) -> bool:
    """Tell whether a folder was written to its end."""
    return open_store(output_url).info(SUMMARY) is not None


def written(output_url: str) -> int:
    """Return the bytes of the folder's files."""
    return sum(entry.size for entry in open_store(output_url).entries(""))


def read_summary(output_url: str) -> dict[str, Any]:
    """Return what ``quality.json`` holds.

    Raises
    ------
    NotFoundError
        If there is none.
    FormatError
        If it is damaged.
    """
    with open_store(output_url).open(SUMMARY) as stream:
        try:
            summary: dict[str, Any] = json.loads(stream.read())
        except ValueError as error:
            raise FormatError(f"not JSON: {error}", where=f"{output_url}/{SUMMARY}") from error
    return summary


def page(runs: Sequence[RunQuality], bin_s: float, losses: Mapping[str, int]) -> str:
    """Return the page as HTML that needs no other file.

    Parameters
    ----------
    runs : sequence of RunQuality
    bin_s : float
        Width of a bin of time, s.
    losses : mapping of str to int
        What was passed over, by reason.
    """
    environment = Environment(
        loader=PackageLoader("apbatch.quality", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    rows = [_row(quality) for quality in runs[:MOST_DRAWN]]
    more = len(runs) - len(rows)
    losses = {**losses, **({"more runs are in the tables only": more} if more > 0 else {})}
    template = environment.get_template("report.html.j2")
    return template.render(runs=rows, bin_s=f"{bin_s:g}", losses=losses, hit_sigma=f"{HIT_SIGMA:g}")


def _row(quality: RunQuality) -> dict[str, Any]:
    from apbatch.quality import plots  # matplotlib is slow to import

    first = next(iter(quality.gains))
    channels, status = quality.gains[first], quality.status[first]
    worst = [
        {
            "status": str(status[pixel]),
            "pixel": pixel,
            "cluster": int(quality.camera.cluster[pixel]),
            "number": int(quality.camera.number[pixel]),
            "level": float(channels.level[pixel]),
            "spread": float(channels.spread[pixel]),
            "drift": float(channels.drift[pixel]),
            "hits": float(channels.hits[pixel]),
        }
        for pixel in plots.worst_channels(channels, status)
    ]
    start = quality.summary["start_ns"]
    return {
        "summary": quality.summary,
        "raw": first != "whole",
        "start": datetime.fromtimestamp(start / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if start else "",
        "rates": Markup(plots.rate_curves(quality)),
        "maps": {gain: plots.camera_maps(quality, gain) for gain in quality.gains},
        "history": plots.level_history(quality, first),
        "worst": worst,
    }


def _need_own_folder(store: Store) -> None:
    here = store.info("")
    names = {entry.path for entry in store.entries("")} if here is not None and here.is_directory else set()
    ours = {"pixels.parquet", "rates.parquet", "report.html", SUMMARY}
    if (here is not None and not here.is_directory) or names - ours:
        raise UsageError("this folder holds something else, so nothing is written into it", where=store.url)


def _write_table(store: Store, name: str, table: pa.Table) -> None:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    with store.publish(name) as file:
        file.write(sink.getvalue())

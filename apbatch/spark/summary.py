"""What a step on Spark did: counts, losses, and what it took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from apbatch.datasets.commit import SplitRecord
from apbatch.spark.jobs import Meter


@dataclass(frozen=True)
class StepSummary:
    """What a step did.

    Attributes
    ----------
    images : int
        Images in the output.
    seconds : float
    losses : dict
        What was passed over, by reason: files, records or images.
    problems : list of str
        Some of it in words, with file and place.
    images_a_second : float
        Of those that this call worked on; what an earlier run had finished does not count.
    bytes_read, bytes_written : int
        Input and output of all splits.
    tasks : int
        Tasks of Spark in this call.
    retries : int
        Attempts that failed and were repeated.
    resumed : int
        Splits that an earlier run had finished.
    peak_mb : int
        Most memory of one of Spark's Python workers, 10⁶ bytes.
    pixels : dict
        How many pixels of images were mended or marked missing.
    """

    images: int
    seconds: float
    losses: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    images_a_second: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    tasks: int = 0
    retries: int = 0
    resumed: int = 0
    peak_mb: int = 0
    pixels: dict[str, int] = field(default_factory=dict)


def summed(
    records: Sequence[SplitRecord],
    meter: Meter,
    started: float,
    seconds: float,
    losses: dict[str, int],
    problems: list[str],
    pixels: dict[str, int],
) -> StepSummary:
    """Return the summary of a step from the records of its splits.

    Parameters
    ----------
    records : sequence of SplitRecord
    meter : Meter
    started : float
        When the step began, as `time.monotonic` counts.
    seconds : float
        What the last Spark job took.
    losses : dict of str to int
        What was passed over, by reason.
    problems : list of str
        The first of them, in words.
    pixels : dict of str to int
        Pixels that were mended or left out.
    """
    new = sum(meter.counters[-1].value[:1]) if meter.counters else 0
    return StepSummary(
        sum(record.images for record in records),
        time.monotonic() - started,
        losses,
        problems,
        images_a_second=round(new / max(seconds, 1e-6), 1),
        bytes_read=sum(record.bytes_read for record in records),
        bytes_written=sum(part.bytes for record in records for part in record.parts.values()),
        tasks=meter.tasks,
        retries=meter.retries,
        resumed=meter.resumed,
        peak_mb=max((record.peak_bytes for record in records), default=0) // 10**6,
        pixels=pixels,
    )

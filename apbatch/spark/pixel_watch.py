"""The first pass that tells how strong the noise of each pixel is, and which pixels are not as the others.

The measure is that of the quality page (`apbatch.quality.monitor`): median and median absolute deviation, which light
in a few images does not move. Raw files are looked at in ADC codes in their own first pass
(`apbatch.spark.inputs.surveys`), in the high gain; all others in p.e., in stretches of a batch of images, whose spreads
are averaged over a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from apbatch.camera.geometry import CameraGeometry, Floats
from apbatch.chain.pixel_states import PixelState, RunKey, by_run
from apbatch.datasets.commit import DatasetCommit
from apbatch.errors import FormatError, UsageError
from apbatch.formats.images import from_binary
from apbatch.quality.monitor import BOARD, ChannelMonitor, Channels, Status, in_pixel_order, status_of
from apbatch.spark.bulk import AnySplit, read_split, run_tasks
from apbatch.spark.inputs.events import EventSplit, Factors, run_of
from apbatch.spark.inputs.sources import RAW, Source
from apbatch.spark.inputs.surveys import Survey
from apbatch.spark.jobs import Meter

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_NOTE = "pixels"
#: If fewer of the pixels of a run move at all, its images were cleaned before, or hold no noise.
_LEAST_ALIVE = 0.5
#: Sums of all runs of a telescope, for those too short to tell.
_ANY_RUN = -1

#: Experiment, run, telescope, and the sums of a monitor.
_Seen = tuple[RunKey, Floats]


def watch_pixels(
    spark: SparkSession,
    job: DatasetCommit,
    splits: Sequence[AnySplit],
    sources: Sequence[Source],
    surveys: Mapping[str, Survey],
    camera: CameraGeometry,
    factors: Factors,
    meter: Meter,
) -> dict[RunKey, PixelState]:
    """Determine noise and state of the pixels of all runs, once for a job; the result is kept with it.

    Parameters
    ----------
    spark : SparkSession
    job : DatasetCommit
    splits : sequence
        Splits of the job.
    sources : sequence of Source
    surveys : mapping of str to Survey
        Of raw files, by URL.
    camera : CameraGeometry
    factors : mapping
        Conversion factors by table and cluster, codes per p.e.
    meter : Meter

    Raises
    ------
    UsageError
        If the images hold no noise.
    FormatError
        If there are too few images in every run.
    ServerError
    """
    note = job.note(_NOTE)
    if note is not None:
        return {
            (experiment, run, telescope): PixelState(np.array(noise, np.float64), np.array(status))
            for experiment, run, telescope, noise, status in note
        }
    states = of_surveys([one for one in sources if one.format == RAW], surveys, camera, factors)
    whole = [split for split in splits if not isinstance(split, EventSplit)]
    answers = run_tasks(spark, whole, Watch(camera), "noise of pixels", meter)
    states |= of_images([one for answer in answers for one in answer], camera)
    if not states:
        raise FormatError(
            "there are too few images to know the noise of pixels",
            where=next(iter(job.outputs.values())),
            remedy="clean by levels in p.e., and keep bad pixels",
        )
    job.keep(_NOTE, [[*run, state.noise.tolist(), state.status.tolist()] for run, state in states.items()])
    return states


@dataclass(frozen=True)
class Watch:
    """What a task of the first pass does with a split of whole images: sent to the workers."""

    camera: CameraGeometry

    def __call__(self, split: AnySplit) -> list[_Seen]:
        """Return the sums of each run of the split, and of all runs of each telescope together.

        What can't be read is told by the pass that makes something of it.
        """
        monitors: dict[RunKey, ChannelMonitor] = {}
        for batch in read_split(split, self.camera, {}, []):
            pixels = np.asarray(from_binary(batch.column("image")), np.float32)
            one_bin = np.zeros(len(pixels), np.int64)
            together: dict[RunKey, list[Any]] = {}
            for run, rows in by_run(batch):
                monitors.setdefault(run, ChannelMonitor(self.camera.n_pixels)).add(one_bin[rows], pixels[rows])
                together.setdefault((run[0], _ANY_RUN, run[2]), []).append(rows)
            for run, parts in together.items():
                rows = np.sort(np.concatenate(parts))
                monitors.setdefault(run, ChannelMonitor(self.camera.n_pixels)).add(one_bin[rows], pixels[rows])
        return [(run, sums) for run, monitor in monitors.items() for sums in monitor.sums.values()]


def of_images(sums_of_runs: Sequence[_Seen], camera: CameraGeometry) -> dict[RunKey, PixelState]:
    """Return the state of the pixels of each run from what tasks saw; runs too short to tell are left out.

    Raises
    ------
    UsageError
        If no run is left because the pixels hold no noise.
    """
    monitors: dict[RunKey, ChannelMonitor] = {}
    for run, sums in sums_of_runs:
        monitors.setdefault(run, ChannelMonitor(camera.n_pixels)).merge(ChannelMonitor.of_sums({0: sums}))
    states: dict[RunKey, PixelState] = {}
    still: RunKey | None = None
    for run, monitor in monitors.items():
        if run[1] == _ANY_RUN:
            continue
        channels = monitor.result()
        if not np.isfinite(channels.spread).any():
            channels = monitors[run[0], _ANY_RUN, run[2]].result()
        finite = channels.spread[np.isfinite(channels.spread)]
        if not len(finite):
            continue
        if (finite > 0).mean() < _LEAST_ALIVE:
            still = run
            continue
        states[run] = PixelState(channels.spread, status_of(channels, camera.cluster))
    if still is not None and not states:
        experiment, number, telescope = still
        raise UsageError(
            "most pixels hold no noise: the images were cleaned before",
            where=f"{experiment}, run {number}, telescope {telescope}",
            remedy="clean them by levels in p.e., and keep bad pixels",
        )
    return states


def of_surveys(
    sources: Sequence[Source], surveys: Mapping[str, Survey], camera: CameraGeometry, factors: Factors
) -> dict[RunKey, PixelState]:
    """Return the state of the pixels of each run of raw files.

    Parameters
    ----------
    sources : sequence of Source
        Raw files.
    surveys : mapping of str to Survey
        By URL.
    camera : CameraGeometry
    factors : mapping
        Conversion factors by table and cluster, codes per p.e.
    """
    runs: dict[RunKey, list[Source]] = {}
    for source in sources:
        runs.setdefault((source.experiment, run_of(source), source.telescope), []).append(source)
    clusters = set(np.unique(camera.cluster).tolist())
    states = {}
    for run, files in runs.items():
        monitors: dict[int, ChannelMonitor] = {}
        codes = np.full((camera.n_pixels, 2), np.nan)
        for source in files:
            survey = surveys[source.url]
            for text, records in survey.records.items():
                cluster = int(text)
                if cluster not in clusters:
                    continue
                spread, hits = np.array(survey.noise[text])
                monitor = monitors.setdefault(cluster, ChannelMonitor(2 * BOARD))
                monitor.add_counted(0, records, *(_row(one) for one in (np.array(survey.pedestal[text]), spread, hits)))
                pixels = camera.index(np.full(BOARD, cluster), 2 * np.arange(BOARD))
                table = factors.get((source.calibration.get("factors", ""), cluster))
                if table is not None:
                    codes[pixels[pixels >= 0]] = table[pixels >= 0]
        if monitors:
            results = {cluster: monitor.result() for cluster, monitor in monitors.items()}
            states[run] = _in_photo_electrons(in_pixel_order(results, camera), codes, camera)
    return states


def _in_photo_electrons(gains: Mapping[str, Channels], codes: Floats, camera: CameraGeometry) -> PixelState:
    """Return the state of pixels by their high gain, by the low one where the high one has no factor."""
    usable = np.isfinite(codes) & (codes > 0)
    spread = np.stack([gains["high"].spread, gains["low"].spread], axis=1)
    noise = np.divide(spread, codes, out=np.full(codes.shape, np.nan), where=usable)
    status = status_of(gains["high"], camera.cluster)
    return PixelState(
        np.where(usable[:, 0], noise[:, 0], noise[:, 1]),
        np.where(usable.any(axis=1), status, Status.ABSENT.value),
    )


def _row(values: Floats) -> Floats:
    """Return channels and gains as a monitor has them: all high gains, then all low ones."""
    return np.ascontiguousarray(values.T).reshape(-1)

"""Quality of runs: rates, pedestals, pixels that are not as the others, missing clusters, losses.

Raw files are looked at as they are, in ADC codes, so that no calibration hides a fault; files and datasets of images in
photo-electrons. One Spark task looks at one file; what comes back is small. A run's files are put together by event
number, as `clean` does.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.calibration import QUARTERS
from apbatch.camera.geometry import CameraGeometry, Ints
from apbatch.camera.instruments.registry import camera_named
from apbatch.config import home
from apbatch.datasets import dataset
from apbatch.errors import ApbatchError, FormatError, UsageError
from apbatch.formats.images import camera_in, camera_of, from_binary
from apbatch.formats.parquet import open_parquet, reading
from apbatch.formats.reader import ImageReader, readers
from apbatch.formats.taiga.raw import read_records
from apbatch.formats.taiga.raw_names import parse_name
from apbatch.formats.text.lines import Problems
from apbatch.quality.file_quality import NO_TIME, FileQuality, RunKey, clusters_there, since_1970, time_bins
from apbatch.quality.monitor import ChannelMonitor
from apbatch.quality.records import keep_quality
from apbatch.quality.report import write_quality, written
from apbatch.quality.runs import quality_of_runs
from apbatch.spark.bulk import run_tasks
from apbatch.spark.inputs.guard import guarded
from apbatch.spark.inputs.opening import fails_for_all, open_input
from apbatch.spark.inputs.reading import labelled
from apbatch.spark.inputs.sources import RAW, Source
from apbatch.spark.inputs.splits import files_of
from apbatch.spark.jobs import Meter
from apbatch.spark.summary import StepSummary
from apbatch.storage.backends import open_store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Format of a part file of a dataset of images; no reader's name.
PART = "dataset"
#: Records whose amplitudes are held at a time, and images.
_RECORDS, _IMAGES = 65_536, 8_192


@dataclass(frozen=True, eq=False)
class MeasureFile:
    """What a task does with a file: sent to the workers."""

    bin_s: float

    def __call__(self, source: Source) -> FileMeasurement:
        """Measure the file; what can't be read gives its reason."""
        answer = measure_file(source, self.bin_s)
        size = files_of([source])[source.url][0]
        return FileMeasurement((), size, answer) if isinstance(answer, str) else FileMeasurement(tuple(answer), size)


@dataclass(frozen=True, eq=False)
class FileMeasurement:
    """What was seen in a file, its bytes, and why it could not be read."""

    files: tuple[FileQuality, ...]
    bytes_read: int
    problem: str | None = None

    @property
    def images(self) -> int:
        """Records or images."""
        return sum(len(one.event) for one in self.files)


def watch(
    spark: SparkSession, sources: Sequence[Source], bin_s: float, meter: Meter
) -> tuple[list[FileQuality], dict[str, int]]:
    """Measure files on Spark's workers, each in a task of its own.

    Parameters
    ----------
    spark : SparkSession
    sources : sequence of Source
    bin_s : float
        Width of a bin of time, s.
    meter : Meter
        Counts tasks, records and bytes.

    Returns
    -------
    files : list of FileQuality
    losses : dict
        Files that could not be read, by reason.

    Raises
    ------
    UsageError
        Without files.
    FormatError
        If not one could be read.
    ServerError
        If a store does not work.
    """
    if not sources:
        raise UsageError("there are no input files", remedy="select files that hold camera images")
    answers: list[FileMeasurement] = run_tasks(spark, sources, MeasureFile(bin_s), "quality", meter)
    files = [one for answer in answers for one in answer.files]
    unreadable = [answer.problem for answer in answers if answer.problem is not None]
    if not files:
        raise FormatError(f"not one file could be read{': ' + unreadable[0] if unreadable else ''}")
    if unreadable:
        files[0].problems += unreadable
    return files, {"unreadable files": len(unreadable)} if unreadable else {}


def image_sources(url: str) -> list[Source]:
    """Return the part files of a dataset of images as sources.

    Raises
    ------
    NotFoundError
        If there is no complete dataset.
    UsageError
        If it is of something else.
    """
    sidecar = dataset.info(url)
    if sidecar.get("kind") != "images":
        raise UsageError("not a dataset of images", where=url)
    store, camera = open_store(url), str(sidecar.get("camera"))
    return [Source(store.url_of(name), PART, "", camera=camera) for name in dataset.part_files(url)]


def measure_file(source: Source, bin_s: float) -> list[FileQuality] | str:
    """Measure one file; what can't be read gives its reason."""
    try:
        return list(_raw(source, bin_s) if source.format == RAW else _whole(source, bin_s))
    except ApbatchError as error:
        if fails_for_all(error):
            raise  # the store, not the file, is at fault: Spark tries again
        text = str(error)
        return text if source.url in text else f"{source.url}: {text}"


def _raw(source: Source, bin_s: float) -> Iterator[FileQuality]:
    named, problems = parse_name(source.url), Problems()
    run = (source.experiment, source.run if source.run is not None else named.run or 0, source.telescope)
    camera = camera_named(str(source.camera))
    by_cluster: dict[int, FileQuality] = {}
    parts: dict[int, list[tuple[Ints, Ints]]] = {}
    with open_input(source.url) as stream:
        for records in read_records(stream, problems, _RECORDS):
            for cluster in np.unique(records["cluster"]).tolist():
                mine = records[records["cluster"] == cluster]
                none = np.empty(0, np.int64)
                file = by_cluster.setdefault(
                    cluster, FileQuality(run, camera, cluster, ChannelMonitor(64), none, none, none)
                )
                time = since_1970(mine["time"], named.night)
                codes = mine["adc"].transpose(0, 2, 1).reshape(len(mine), -1) / QUARTERS
                file.channels.add(time_bins(time, bin_s), codes)
                file.losses["records without a time"] += int((time == NO_TIME).sum())
                parts.setdefault(cluster, []).append((mine["event"].astype(np.int64), time))
    if not by_cluster:
        raise FormatError("no whole record", where=source.url)
    for cluster, file in by_cluster.items():
        event, file.time = (np.concatenate(columns) for columns in zip(*parts[cluster], strict=True))
        file.event, file.clusters = event, np.ones(len(event), np.int64)
    if problems.count:
        first = by_cluster[min(by_cluster)]
        first.losses["damaged places in files"] += problems.count
        first.problems += [f"{source.url} at byte {one.offset}: {one.reason}" for one in problems.kept[:5]]
    yield from by_cluster.values()


def _whole(source: Source, bin_s: float) -> Iterator[FileQuality]:
    by_run: dict[RunKey, FileQuality] = {}
    parts: dict[RunKey, list[tuple[Ints, ...]]] = {}
    for batch in guarded(_image_batches, source, size=files_of([source])[source.url][0]):
        camera = camera_in(batch.schema) if camera_of(batch.schema) else camera_named(str(source.camera))
        pixels = _pixels(batch, camera, source.url)
        time = batch.column("time_ns" if "time_ns" in batch.schema.names else "time").cast(pa.int64())
        times = np.asarray(time.fill_null(NO_TIME).to_numpy(zero_copy_only=False), np.int64)
        event = np.asarray(batch.column("event").to_numpy(zero_copy_only=False), np.int64)
        there = clusters_there(pixels, camera)
        whose = list(zip(*(batch.column(name).to_pylist() for name in ("experiment", "run", "telescope")), strict=True))
        for run in dict.fromkeys(whose):
            rows = np.array([one == run for one in whose])
            none = np.empty(0, np.int64)
            file = by_run.setdefault(
                run, FileQuality(run, camera, 0, ChannelMonitor(camera.n_pixels), none, none, none)
            )
            file.channels.add(time_bins(times[rows], bin_s), pixels[rows])
            file.losses["images without a time"] += int((times[rows] == NO_TIME).sum())
            for number, count in zip(np.unique(camera.cluster).tolist(), there[rows].sum(axis=0).tolist(), strict=True):
                file.by_cluster[number] = file.by_cluster.get(number, 0) + count
            parts.setdefault(run, []).append((event[rows], times[rows], there[rows].sum(axis=1)))
    for run, file in by_run.items():
        file.event, file.time, file.clusters = (np.concatenate(columns) for columns in zip(*parts[run], strict=True))
        yield file


def _image_batches(source: Source) -> Generator[pa.RecordBatch, None, None]:
    with open_input(source.url) as stream:
        if source.format != PART:
            reader = readers()[source.format]
            assert isinstance(reader, ImageReader)
            yield from (labelled(batch, source) for batch in reader.images(stream, source.url, _IMAGES))
            return
        columns = ["experiment", "run", "event", "telescope", "time_ns", "image"]
        with reading(source.url):
            yield from open_parquet(stream, source.url).iter_batches(_IMAGES, columns=columns, use_threads=False)


def _pixels(batch: pa.RecordBatch, camera: CameraGeometry, where: str) -> npt.NDArray[np.float32]:
    try:
        pixels = np.asarray(from_binary(batch.column("image")), np.float32)
    except ValueError as error:
        raise FormatError(str(error), where=where) from error
    if batch.num_rows and pixels.shape[1] != camera.n_pixels:
        raise FormatError(f"images of {pixels.shape[1]} pixels, {camera.name} has {camera.n_pixels}", where=where)
    return pixels.reshape(batch.num_rows, camera.n_pixels)


def check_quality(
    spark: SparkSession, sources: Sequence[Source], output_url: str, bin_s: float = 10.0
) -> tuple[list[dict[str, Any]], StepSummary]:
    """Measure runs, write tables, a summary and a page into a folder, and keep the summaries in this home.

    Parameters
    ----------
    spark : SparkSession
    sources : sequence of Source
        Raw files, files of images, or the part files of a dataset (`image_sources`).
    output_url : str
        See `apbatch.quality.report.write_quality`.
    bin_s : float
        Width of a bin of time, s.

    Returns
    -------
    runs : list of dict
        The summary of each run.
    summary : StepSummary
        Of the step; its `images` are events, its rate is that of records.

    Raises
    ------
    UsageError, FormatError, ServerError
    """
    if not 0.001 <= bin_s <= 86_400:
        raise UsageError(f"a bin of {bin_s:g} s makes no sense", remedy="choose between 1 ms and a day")
    started, meter = time.monotonic(), Meter()
    files, unreadable = watch(spark, sources, bin_s, meter)
    seconds = time.monotonic() - started
    runs = quality_of_runs(files, bin_s)
    write_quality(runs, output_url, [source.url for source in sources], bin_s, unreadable)
    keep_quality(home(), runs, output_url)
    summaries = [quality.summary for quality in runs]
    losses = Counter(unreadable)
    for run in summaries:
        losses.update(run["losses"])
    records, read, _ = meter.counters[-1].value
    return summaries, StepSummary(
        sum(run["events"] for run in summaries),
        time.monotonic() - started,
        dict(losses),
        [problem for run in summaries for problem in run["problems"]],
        images_a_second=round(records / max(seconds, 1e-6), 1),
        bytes_read=read,
        bytes_written=written(output_url),
        tasks=meter.tasks,
        retries=meter.retries,
    )

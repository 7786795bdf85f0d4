"""The bulk steps on Spark: clean, parameters, grid.

Each writes one dataset: into a hidden folder beside it, which gets its name when everything is there. A job that
was killed leaves nothing that looks complete, and the same call again replaces what it left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apbatch.camera.calibration import factors_of_cluster
from apbatch.camera.cleaning import check_thresholds, tailcuts_name
from apbatch.camera.geometry import CameraGeometry, camera_named
from apbatch.camera.grid import grid_of
from apbatch.camera.hillas import PARAMETERS
from apbatch.errors import ApbatchError, FormatError, UsageError, nearest_word
from apbatch.formats import dataset
from apbatch.formats.reader import ImageReader, readers
from apbatch.formats.taiga_calibration import read_factors
from apbatch.index.catalogue import EVENT_KEYS
from apbatch.provenance import provenance
from apbatch.spark import steps
from apbatch.spark.jobs import LossCounter, Worker, arrow_map, write_parquet
from apbatch.spark.reading import (
    REPEATED_RECORD,
    RawCalibration,
    read_images,
    read_raw,
)
from apbatch.spark.session import BATCH_IMAGES
from apbatch.spark.sources import RAW, Source, image_formats
from apbatch.storage.store import open_url

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from apbatch.index.catalogue import Catalogue

__all__ = ["Source", "StepSummary", "clean", "grid", "parameters", "register_events"]

#: Tasks for each core, so that a slow file does not keep the others waiting.
_TASKS_A_CORE = 3
#: Rows written to the catalogue in one go.
_EVENTS_A_WRITE = 5000


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
    """

    images: int
    seconds: float
    losses: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def clean(
    spark: SparkSession,
    sources: Sequence[Source],
    output_url: str,
    *,
    picture: float,
    boundary: float,
    min_neighbours: int = 0,
) -> StepSummary:
    """Read, calibrate and clean images: a dataset of images with the mask of a tail-cut cleaning.

    Parameters
    ----------
    spark : SparkSession
    sources : sequence of Source
        Files, all of the same camera.
    output_url : str
        Where the dataset goes; one that is there is replaced.
    picture, boundary : float
        Thresholds, p.e.
    min_neighbours : int
        How many neighbours of a picture pixel must be in the picture.

    Returns
    -------
    StepSummary

    Raises
    ------
    UsageError
        Without sources, with senseless thresholds, or if the sources do not fit together.
    FormatError
        If not one image could be read.
    ServerError
        If Spark or a store fails.
    """
    started = time.monotonic()
    check_thresholds(picture, boundary, min_neighbours)
    camera = _camera_of(sources)
    losses = LossCounter(spark)
    frames = []
    raw = [source for source in sources if source.format == RAW]
    whole = [source for source in sources if source.format != RAW]
    if raw:
        frames.append(_raw_images(spark, raw, camera, losses))
    if whole:
        frames.append(_whole_images(spark, whole, camera, losses))
    images = frames[0].union(frames[1]) if len(frames) > 1 else frames[0]
    frame = arrow_map(images, _Clean(losses, camera, picture, boundary, min_neighbours), steps.CLEANED)
    name = tailcuts_name(picture, boundary)
    content = {"kind": "images", "camera": camera.name, "cleaning": name}
    settings = {"picture": picture, "boundary": boundary, "min_neighbours": min_neighbours}
    made = provenance("clean", [source.url for source in sources], settings)
    return _write(spark, frame, output_url, "clean", content, made, losses, started)


def parameters(spark: SparkSession, images_url: str, output_url: str) -> StepSummary:
    """Compute image parameters: two rows an image, without cleaning and with it.

    Raises
    ------
    NotFoundError
        If there is no complete dataset of images.
    UsageError, FormatError, ServerError
    """
    started = time.monotonic()
    known, camera = _images(images_url, output_url)
    losses = LossCounter(spark)
    frame = arrow_map(
        spark.read.parquet(_spark_url(images_url)),
        _Parametrise(losses, camera, known["cleaning"]),
        steps.PARAMETER_ROWS,
    )
    content = {"kind": "parameters", "camera": camera.name, "cleaning": known["cleaning"], "images_url": images_url}
    made = provenance("parameters", [images_url], {})
    return _write(spark, frame, output_url, "parameters", content, made, losses, started, rows_an_image=2)


def grid(spark: SparkSession, images_url: str, output_url: str, method: str = "axial") -> StepSummary:
    """Map images onto a square grid, whole and cleaned.

    Raises
    ------
    NotFoundError
        If there is no complete dataset of images.
    UsageError, FormatError, ServerError
    """
    started = time.monotonic()
    known, camera = _images(images_url, output_url)
    shape = grid_of(camera, method)
    losses = LossCounter(spark)
    frame = arrow_map(spark.read.parquet(_spark_url(images_url)), _Grid(losses, camera, method), steps.GRIDS)
    content = {
        "kind": "grids",
        "camera": camera.name,
        "cleaning": known["cleaning"],
        "images_url": images_url,
        "method": method,
        "grid_shape": [shape.rows, shape.cols],
        "rows": shape.rows,
        "cols": shape.cols,
    }
    made = provenance("grid", [images_url], {"method": method})
    return _write(spark, frame, output_url, "grid", content, made, losses, started)


def register_events(catalogue: Catalogue, parameters_url: str) -> int:
    """Write image parameters into the catalogue, with the URL of the images they describe.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    NotFoundError, FormatError, UsageError
    """
    known = dataset.info(parameters_url)
    if known.get("kind") != "parameters":
        raise UsageError("not a dataset of image parameters", where=parameters_url)
    table = dataset.read_table(parameters_url, [*EVENT_KEYS, *PARAMETERS])
    url = pa.array([known.get("images_url")] * table.num_rows, pa.string())
    table = table.append_column("dataset", url).combine_chunks()
    return sum(catalogue.upsert_events(batch) for batch in table.to_batches(max_chunksize=_EVENTS_A_WRITE))


class _Clean(Worker):
    def __init__(
        self, losses: LossCounter, camera: CameraGeometry, picture: float, boundary: float, min_neighbours: int
    ) -> None:
        super().__init__(losses)
        self.camera, self.picture, self.boundary, self.min_neighbours = camera, picture, boundary, min_neighbours

    def work(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return steps.cleaned(
            batch, self.camera, picture=self.picture, boundary=self.boundary, min_neighbours=self.min_neighbours
        )


class _Parametrise(Worker):
    def __init__(self, losses: LossCounter, camera: CameraGeometry, cleaning: str) -> None:
        super().__init__(losses)
        self.camera, self.cleaning = camera, cleaning

    def work(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return steps.parametrised(batch, self.camera, self.cleaning)


class _Grid(Worker):
    def __init__(self, losses: LossCounter, camera: CameraGeometry, method: str) -> None:
        super().__init__(losses)
        self.camera, self.method = camera, method

    def work(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return steps.gridded(batch, self.camera, self.method)


class _ReadImages(Worker):
    def __init__(self, losses: LossCounter, camera: CameraGeometry) -> None:
        super().__init__(losses)
        self.camera = camera

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for source in _sources_in(batches):
            yield from read_images(source, self.camera, self.losses, BATCH_IMAGES)


class _ReadRaw(Worker):
    def __init__(self, losses: LossCounter, calibration: RawCalibration) -> None:
        super().__init__(losses)
        self.calibration = calibration

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for source in _sources_in(batches):
            yield from read_raw(source, self.calibration, self.losses)


class _Assemble(Worker):
    """Records come ordered by event; the last event of a batch may go on in the next one and waits for it."""

    def __init__(self, losses: LossCounter, camera: CameraGeometry) -> None:
        super().__init__(losses)
        self.camera = camera

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        waiting: pa.RecordBatch | None = None
        for batch in batches:
            if not batch.num_rows:
                continue
            here = batch if waiting is None else pa.concat_batches([waiting, batch])
            last = _start_of_last(here)
            if last:
                yield self._made(here.slice(0, last))
            waiting = here.slice(last)
        if waiting is not None:
            yield self._made(waiting)

    def _made(self, records: pa.RecordBatch) -> pa.RecordBatch:
        images, repeated = steps.assembled(records, self.camera)
        if repeated:
            key = f"{records.column('run')[0]}/{records.column('event')[0]}"
            text = f"run/event {key} and following: {repeated} records of a cluster that had the event already"
            self.losses.lose(key, REPEATED_RECORD, repeated, text)
        return images


def _start_of_last(records: pa.RecordBatch) -> int:
    """Return the row at which the last event starts."""
    other = np.zeros(records.num_rows, bool)
    for name in steps.KEYS:
        column = records.column(name)
        other |= pc.not_equal(column, column[-1]).to_numpy(zero_copy_only=False)
    return int(np.flatnonzero(other)[-1]) + 1 if other.any() else 0


def _sources_in(batches: Iterator[pa.RecordBatch]) -> Iterator[Source]:
    for batch in batches:
        for text in batch.column("source").to_pylist():
            yield Source(**json.loads(text))


def _sources_frame(spark: SparkSession, sources: Sequence[Source]) -> DataFrame:
    tasks = min(len(sources), _TASKS_A_CORE * spark.sparkContext.defaultParallelism)
    rows = [(json.dumps(asdict(source)),) for source in sources]
    return spark.createDataFrame(rows, "source string").coalesce(1).repartition(tasks)


def _whole_images(
    spark: SparkSession, sources: Sequence[Source], camera: CameraGeometry, losses: LossCounter
) -> DataFrame:
    return arrow_map(_sources_frame(spark, sources), _ReadImages(losses, camera), steps.IMAGES)


def _raw_images(
    spark: SparkSession, sources: Sequence[Source], camera: CameraGeometry, losses: LossCounter
) -> DataFrame:
    calibration = RawCalibration(camera, _factors(sources))
    records = arrow_map(_sources_frame(spark, sources), _ReadRaw(losses, calibration), steps.RECORDS)
    # All records of an event meet in one task. A count given here keeps Spark from merging small partitions.
    tasks = _TASKS_A_CORE * spark.sparkContext.defaultParallelism
    met = records.repartition(tasks, *steps.KEYS).sortWithinPartitions(*steps.KEYS, "cluster", "time_ns")
    return arrow_map(met, _Assemble(losses, camera), steps.IMAGES)


def _factors(sources: Sequence[Source]) -> dict[tuple[str, int], Any]:
    """Read the tables of factors once, here: workers on other machines need not reach them."""
    found = {}
    for path in sorted({source.calibration.get("factors", "") for source in sources}):
        if not path:
            raise UsageError(
                "raw files can't be calibrated without conversion factors",
                where=next(source.url for source in sources if not source.calibration.get("factors")),
                remedy="name them in the site's YAML file: calibration: {factors: FILE}",
            )
        table = read_factors(Path(path.removeprefix("file://")))
        for cluster in sorted(set(table["cluster"].tolist())):
            found[path, cluster] = factors_of_cluster(
                table["cluster"], table["channel"], table["codes_per_pe"], cluster
            )
    return found


def _camera_of(sources: Sequence[Source]) -> CameraGeometry:
    """Return the one camera of all sources.

    Raises
    ------
    UsageError
    """
    if not sources:
        raise UsageError("there are no input files", remedy="select files that hold camera images")
    formats = image_formats()
    for source in sources:
        if source.format not in formats:
            raise UsageError(
                f"no images can be made of the format '{source.format}'",
                where=source.url,
                nearest=nearest_word(source.format, formats),
                remedy=f"formats with images are {', '.join(formats)}",
            )
    names = sorted({source.camera for source in sources if source.camera})
    if not names:
        names = [_first_camera(sources)]
    if len(names) > 1:
        raise UsageError(
            f"the input files are of several cameras: {', '.join(names)}", remedy="make one dataset for each camera"
        )
    return camera_named(names[0])


def _first_camera(sources: Sequence[Source]) -> str:
    """Look into the files for the first one that names its camera."""
    from apbatch.formats.images import camera_of

    for source in sources:
        reader = readers().get(source.format)
        if not isinstance(reader, ImageReader):
            continue
        try:
            with open_url(source.url) as stream:
                batch = next(iter(reader.images(stream, source.url, 1)), None)
        except FormatError:
            continue
        if batch is not None and (name := camera_of(batch.schema)):
            return name
    raise UsageError("no input file tells its camera", where=sources[0].url, remedy="name it: camera: NAME in the site")


def _images(images_url: str, output_url: str) -> tuple[dict[str, Any], CameraGeometry]:
    """Return sidecar and camera of a dataset of images."""
    if images_url.rstrip("/") == output_url.rstrip("/"):
        raise UsageError("input and output are the same dataset", where=output_url)
    known = dataset.info(images_url)
    if known.get("kind") != "images" or not isinstance(known.get("cleaning"), str):
        raise UsageError("not a dataset of cleaned images", where=images_url, remedy="make one with jobs/clean.py")
    return known, camera_named(str(known.get("camera")))


def _spark_url(url: str) -> str:
    # AFS is a folder to every machine that has it mounted.
    return f"file://{url.removeprefix('afs://')}" if url.startswith("afs://") else url


def _write(
    spark: SparkSession,
    frame: DataFrame,
    output_url: str,
    title: str,
    content: Mapping[str, Any],
    made: Mapping[str, Any],
    losses: LossCounter,
    started: float,
    rows_an_image: int = 1,
) -> StepSummary:
    """Write a dataset beside its place, then move it there."""
    parent, name = dataset.parent_of(output_url)
    part = f"{parent}/.{name}.unfinished"
    dataset.remove(part)
    try:
        write_parquet(spark, frame, _spark_url(part), title)
        images = dataset.count_rows(part) // rows_an_image
        counted, problems = losses.result()
        if not images:
            reason = f": {problems[0]}" if problems else ""
            raise FormatError(f"not one image could be read{reason}", where=output_url)
        dataset.write_info(part, {**content, "images": images, "losses": counted, "provenance": dict(made)})
        dataset.replace(part, output_url)
    except ApbatchError:
        dataset.remove(part)
        raise
    return StepSummary(images, time.monotonic() - started, counted, problems)

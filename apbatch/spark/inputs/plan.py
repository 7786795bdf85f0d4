"""What a step will do: the camera and calibration of its sources, and how they are cut into tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from apbatch.camera.calibration import factors_of_cluster
from apbatch.camera.cleaning import Cleaning
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.instruments.registry import camera_named
from apbatch.datasets import dataset
from apbatch.datasets.commit import Loss
from apbatch.datasets.image_rows import schema_in
from apbatch.errors import ApbatchError, FormatError, UsageError, nearest_word
from apbatch.formats.embedded import Telescopes
from apbatch.formats.images import camera_in, camera_of, telescopes_in
from apbatch.formats.parser_process import parse_apart
from apbatch.formats.reader import ImageReader, readers
from apbatch.formats.taiga.calibration import read_factors
from apbatch.spark.bulk import AnySplit
from apbatch.spark.inputs.events import SHRINK, Factors, event_splits, surveyed_urls
from apbatch.spark.inputs.opening import fails_for_all, open_input
from apbatch.spark.inputs.reading import read_piece
from apbatch.spark.inputs.sources import RAW, Source, image_formats
from apbatch.spark.inputs.splits import (
    BLOCK_BYTES,
    FEWEST_BYTES,
    Piece,
    dataset_files,
    file_splits,
    files_of,
    split_bytes,
)
from apbatch.spark.inputs.surveys import Survey, joined, look_through, survey_tasks
from apbatch.storage.tokens import ShownTokens

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Files that are opened in search of one that names its camera.
_LOOKED_INTO = 100


def splits_of(
    sources: Sequence[Source],
    camera: CameraGeometry,
    factors: Factors,
    sizes: Mapping[str, tuple[int, int]],
    target: int,
    surveyed: Callable[[Sequence[str]], dict[str, Survey]],
) -> tuple[list[AnySplit], list[Loss]]:
    """Cut sources into splits; raw files need a first pass, which `surveyed` makes.

    Parameters
    ----------
    sources : sequence of Source
    camera : CameraGeometry
    factors : mapping
        Conversion factors by table and cluster, codes per p.e.
    sizes : mapping
        By URL, bytes and time of change of each file.
    target : int
        Bytes of input for each split.
    surveyed : callable
        URLs of raw files to their surveys.

    Returns
    -------
    splits : list
    losses : list of Loss
    """
    splits: list[AnySplit] = list(file_splits([one for one in sources if one.format != RAW], sizes, target))
    raw = [source for source in sources if source.format == RAW]
    if not raw:
        return splits, []
    surveys = surveyed(surveyed_urls(raw))
    events, lost = event_splits(raw, surveys, camera, factors, max(FEWEST_BYTES, target // SHRINK), len(splits))
    return [*splits, *events], lost


def plan_frames(
    spark: SparkSession, sources: Sequence[Source]
) -> tuple[list[AnySplit], CameraGeometry, Factors, list[Loss]]:
    """Cut sources into splits for DataFrames; what a job keeps for its restart is not kept.

    Raises
    ------
    UsageError, ServerError
    """
    camera, _ = camera_of_sources(sources)
    factors = factors_of_sources(sources)
    sizes = files_of(sources)
    target = split_bytes(sum(size for size, _ in sizes.values()), spark.sparkContext.defaultParallelism, BLOCK_BYTES)

    def surveyed(urls: Sequence[str]) -> dict[str, Survey]:
        tasks, token = survey_tasks(urls), ShownTokens.of_this_process()

        def survey(task: Any) -> Any:
            token.take_over()
            return look_through(task)

        parts = spark.sparkContext.parallelize(tasks, len(tasks)).map(survey).collect()
        return {survey.url: survey for survey in joined(parts)}

    splits, lost = splits_of(sources, camera, factors, sizes, target, surveyed)
    return splits, camera, factors, lost


def dataset_of_images(url: str) -> tuple[dict[str, Any], CameraGeometry, Telescopes]:
    """Return sidecar, camera and places of telescopes of a dataset of cleaned images.

    Raises
    ------
    NotFoundError
        If there is no complete dataset.
    UsageError, FormatError
        If it is another one.
    """
    sidecar = dataset.info(url)
    if sidecar.get("kind") != "images" or not isinstance(sidecar.get("cleaning"), str):
        raise UsageError("not a dataset of cleaned images", where=url, remedy="make one: apbatch clean")
    schema = dataset.schema(url)
    if camera_of(schema) != sidecar.get("camera"):  # of yesterday: the name is in the sidecar only
        return sidecar, camera_named(str(sidecar.get("camera"))), {}
    return sidecar, camera_in(schema), telescopes_in(schema)


def factor_key(factors: Factors) -> list[Any]:
    """Return tables of factors as JSON-like content, to be hashed."""
    return [[path, cluster, table.tolist()] for (path, cluster), table in sorted(factors.items())]


def factors_of_sources(sources: Sequence[Source]) -> dict[tuple[str, int], Any]:
    """Read the tables of factors of raw files once, in the driver: workers on other machines need not reach them.

    Raises
    ------
    UsageError, NotFoundError, FormatError
    """
    factors = {}
    sources = [source for source in sources if source.format == RAW]
    for path in sorted({source.calibration.get("factors", "") for source in sources}):
        if not path:
            raise UsageError(
                "raw files can't be calibrated without conversion factors",
                where=next(source.url for source in sources if not source.calibration.get("factors")),
                remedy="name them in the site's YAML file: calibration: {factors: FILE}",
            )
        table = read_factors(Path(path.removeprefix("file://")))
        for cluster in sorted(set(table["cluster"].tolist())):
            factors[path, cluster] = factors_of_cluster(
                table["cluster"], table["channel"], table["codes_per_pe"], cluster
            )
    return factors


def camera_of_sources(sources: Sequence[Source]) -> tuple[CameraGeometry, Telescopes]:
    """Return the one camera of all sources, and where its telescopes stand as far as the files tell.

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
        schema = _first_schema(sources)
        if schema is None:
            raise UsageError(
                "no input file tells its camera", where=sources[0].url, remedy="name it: camera: NAME in the site"
            )
        names = [camera_of(schema)]
    if len(names) > 1:
        raise UsageError(
            f"the input files are of several cameras: {', '.join(names)}", remedy="make one dataset for each camera"
        )
    if any(source.format == RAW for source in sources):
        return camera_named(names[0]), {}
    # What a file says of its camera counts more than what is known of the name here.
    schema = _first_schema([source for source in sources if source.camera == names[0]] or sources, names[0])
    if schema is None or camera_of(schema) not in ("", names[0]):
        return camera_named(names[0]), {}
    return camera_in(schema), telescopes_in(schema)


def need_times(cleaning: Cleaning, sources: Sequence[Source], camera: CameraGeometry) -> None:
    """Refuse a cleaning that needs the times of pixels where the images have none, before any work.

    The first image that can be read of the first files tells; single images without are left out by the tasks.

    Parameters
    ----------
    cleaning : Cleaning
    sources : sequence of Source
    camera : CameraGeometry

    Raises
    ------
    UsageError
        With the remedy.
    """
    if cleaning.time_limit is None:
        return
    without: str | None = None
    for source in sources[:_LOOKED_INTO]:
        there = False if source.format == RAW else _has_times(source, camera)
        if there:
            return
        if there is not None:
            without = without or source.url
    if without is not None:
        raise UsageError(
            f"the cleaning {cleaning.name} needs the times of pixels, and these images have none",
            where=without,
            remedy="clean without a time limit; simtel and FACT files have times",
        )


def check_sources(cleaning: Cleaning, sources: Sequence[Source]) -> None:
    """Find what would be refused later, before Spark starts: sources that do not fit together or lack times.

    Raises
    ------
    UsageError, ServerError
    """
    if cleaning.time_limit is not None or not sources:
        need_times(cleaning, sources, camera_of_sources(sources)[0])


def check_dataset(cleaning: Cleaning | None, url: str) -> None:
    """Find what would be refused later of a dataset of images that may be cleaned anew, before Spark starts.

    Raises
    ------
    NotFoundError, UsageError, FormatError
    """
    _, camera, _ = dataset_of_images(url)
    if cleaning is not None:
        need_times(cleaning, dataset_files(url)[0], camera)


def _has_times(source: Source, camera: CameraGeometry) -> bool | None:
    """Tell whether the first image of a file has times; None if it can't be read: its task will say why."""
    try:
        first: pa.RecordBatch | None = parse_apart(_first_image, source, camera, size=0)
    except FormatError:
        return None
    return None if first is None else first.column("peak_time").null_count < first.num_rows


def _first_image(source: Source, camera: CameraGeometry) -> pa.RecordBatch | None:
    return next(iter(read_piece(Piece(source, 0), camera, [], 1)), None)


def _first_schema(sources: Sequence[Source], camera: str | None = None) -> pa.Schema | None:
    """Look into the files for the first image whose schema names a camera: the one that is wanted, if any has it."""
    other_camera = None
    for source in sources[:_LOOKED_INTO]:
        reader = readers().get(source.format)
        if not isinstance(reader, ImageReader):
            continue
        try:
            size, _ = files_of([source])[source.url]
            schema: pa.Schema | None = parse_apart(_schema_of, source, camera, size=size)
        except ApbatchError as error:
            if fails_for_all(error):
                raise
            continue  # its task will say what is wrong with it
        if schema is not None and camera_of(schema):
            if camera in (None, camera_of(schema)):
                return schema
            other_camera = other_camera or schema
    return other_camera


def _schema_of(source: Source, camera: str | None) -> pa.Schema | None:
    """Return the schema of the first image of a file, or of its first one of the camera that is wanted."""
    reader = readers()[source.format]
    assert isinstance(reader, ImageReader)
    with open_input(source.url) as stream:
        if source.rows:  # of a Parquet file: its footer tells
            return schema_in(stream, source.url)
        schemas = (batch.schema for batch in reader.images(stream, source.url, 1))
        try:
            first = next(schemas, None)
            if source.camera is not None and first is not None and camera not in (None, camera_of(first)):
                # A file may hold images of several cameras.
                return next((other for other in schemas if camera_of(other) == camera), first)
        except (ApbatchError, OSError, MemoryError):
            raise
        except Exception as error:  # a hole of a plug-in
            raise FormatError(f"the reader failed: {type(error).__name__}: {error}", where=source.url) from error
        return first

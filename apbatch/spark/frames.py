"""The steps as functions from DataFrame to DataFrame, for interactive work: the same kernels, pixels through the JVM.

For example::

    images = read_images(spark, sources)
    parameters = parametrise(clean(images, camera, cleaning_of("standard")), camera, "tailcuts-14-7")
    parameters.where("size > 100").groupBy("run").count().show()

What comes out of a step crosses from Python to the JVM, pixels too, and back if Spark has something to do between two
steps; that costs several times the kernels. Steps that follow one another are one pass, and nothing crosses between.
`apbatch.spark.saving.save` makes a dataset of a frame without its pixels passing through the JVM.
"""

from __future__ import annotations

import base64
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.accumulators import AccumulatorParam

from apbatch.camera.cleaning import Cleaning
from apbatch.camera.geometry import CameraGeometry
from apbatch.chain import steps
from apbatch.datasets.commit import Loss
from apbatch.errors import UsageError
from apbatch.spark.bulk import AnySplit, read_split
from apbatch.spark.connect.process import one_thread, settle
from apbatch.spark.inputs.events import Factors
from apbatch.spark.inputs.plan import dataset_of_images, plan_frames
from apbatch.spark.inputs.reading import DAMAGED_IMAGES
from apbatch.spark.inputs.splits import dataset_files, file_splits, split_bytes
from apbatch.spark.jobs import tally
from apbatch.storage.tokens import ShownTokens

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from apbatch.spark.inputs.sources import Source

_Lost = dict[Loss, None]
_Work = Callable[[pa.RecordBatch], pa.RecordBatch]
_Stage = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
#: Attribute of a DataFrame that was made here: what it was made from, and the stages since.
_CHAIN = "_apbatch_stages"


class _Union(AccumulatorParam[_Lost]):  # type: ignore[misc]  # no types there
    """A union, so that a task which Spark runs twice counts once."""

    def zero(self, value: _Lost) -> _Lost:
        return {}

    def addInPlace(self, value1: _Lost, value2: _Lost) -> _Lost:  # noqa: N802  Spark's name
        value1.update(value2)
        return value1


class LossCounter:
    """Counts what is passed over; shared with workers by Spark."""

    def __init__(self, spark: SparkSession) -> None:
        self._lost = spark.sparkContext.accumulator({}, _Union())

    def add(self, losses: list[Loss]) -> None:
        """Count losses."""
        if losses:
            self._lost.add(dict.fromkeys(losses))

    def result(self) -> tuple[dict[str, int], list[str]]:
        """Return the losses by reason, and the problems in words, of what Spark has worked out so far."""
        return tally(self._lost.value)


def read_images(spark: SparkSession, sources: Sequence[Source], losses: LossCounter | None = None) -> DataFrame:
    """Return the images of files, calibrated: a DataFrame of the columns of `apbatch.chain.steps.IMAGES`.

    Parameters
    ----------
    spark : SparkSession
    sources : sequence of Source
    losses : LossCounter, optional
        Takes what was passed over.

    Raises
    ------
    UsageError
        Without sources, or if they do not fit together.
    ServerError
        If Spark or a store fails.
    """
    splits, camera, factors, plan_losses = plan_frames(spark, sources)
    if losses is not None:
        losses.add(plan_losses)
    return _read(spark, splits, camera, factors, steps.IMAGES, losses)


def read_dataset(spark: SparkSession, url: str, losses: LossCounter | None = None) -> DataFrame:
    """Return the images of a dataset with their masks: a DataFrame of the columns of `apbatch.chain.steps.CLEANED`.

    ``spark.read.parquet`` gives the same rows, read by Spark: then every pixel crosses from the JVM to Python. Here
    Python reads them, and what a step that follows makes of them is all that crosses.

    Parameters
    ----------
    spark : SparkSession
    url : str
        URL of the dataset.
    losses : LossCounter, optional
        Takes what was passed over.

    Raises
    ------
    NotFoundError, UsageError, FormatError
        If there is no complete dataset of cleaned images.
    """
    _, camera, _ = dataset_of_images(url)
    sources, files = dataset_files(url)
    target = split_bytes(sum(size for size, _ in files.values()), spark.sparkContext.defaultParallelism)
    return _read(spark, file_splits(sources, files, target), camera, {}, steps.CLEANED, losses)


def _read(
    spark: SparkSession,
    splits: Sequence[AnySplit],
    camera: CameraGeometry,
    factors: Factors,
    schema: pa.Schema,
    losses: LossCounter | None,
) -> DataFrame:
    token = ShownTokens.of_this_process()

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        token.take_over()
        for batch in batches:
            for text in batch.column("split").to_pylist():
                lost: list[Loss] = []
                yield from read_split(pickle.loads(base64.b64decode(text)), camera, factors, lost)
                if losses is not None:
                    losses.add(lost)

    rows = [(base64.b64encode(pickle.dumps(split)).decode(),) for split in splits]
    frame = spark.createDataFrame(spark.sparkContext.parallelize(rows, max(1, len(rows))), "split string")
    return chained(frame, read, schema)


def clean(
    images: DataFrame,
    camera: CameraGeometry,
    cleaning: Cleaning,
    *,
    noise: steps.Noise | None = None,
    losses: LossCounter | None = None,
) -> DataFrame:
    """Add the mask of a cleaning: `IMAGES` to `CLEANED`; by ``sigma`` with the noise of each pixel, p.e.

    Parameters
    ----------
    images : DataFrame
    camera : CameraGeometry
    cleaning : Cleaning
    noise : ndarray of shape (n_pixels,), optional
        p.e.
    losses : LossCounter, optional
        Takes what was passed over.

    Raises
    ------
    UsageError
        If the noise is missing.
    """
    if cleaning.method == "sigma" and noise is None:
        raise UsageError(f"the cleaning {cleaning.name} needs the noise of pixels", remedy="give noise=, p.e.")
    return _mapped(images, lambda batch: steps.cleaned(batch, camera, cleaning, noise), steps.CLEANED, camera, losses)


def parametrise(
    images: DataFrame,
    camera: CameraGeometry,
    cleaning: str,
    losses: LossCounter | None = None,
    *,
    more: tuple[str, ...] = (),
) -> DataFrame:
    """Compute image parameters, two rows an image, with some of `FAMILIES`: `CLEANED` to `steps.parameter_rows`.

    Parameters
    ----------
    images : DataFrame
    camera : CameraGeometry
    cleaning : str
        Name of the cleaning that made the masks.
    losses : LossCounter, optional
        Takes what was passed over.
    more : tuple of str
        Further `FAMILIES` of parameters.
    """
    schema = steps.parameter_rows(more)
    return _mapped(images, lambda batch: steps.parametrised(batch, camera, cleaning, more=more), schema, camera, losses)


def grid(
    images: DataFrame, camera: CameraGeometry, method: str = "axial", losses: LossCounter | None = None
) -> DataFrame:
    """Map images onto a grid, whole and cleaned: `CLEANED` to `GRIDS`.

    Parameters
    ----------
    images : DataFrame
    camera : CameraGeometry
    method : str
        One of `apbatch.camera.grid.METHODS`.
    losses : LossCounter, optional
        Takes what was passed over.
    """
    return _mapped(images, lambda batch: steps.gridded(batch, camera, method), steps.GRIDS, camera, losses)


def _mapped(
    frame: DataFrame, work: _Work, schema: pa.Schema, camera: CameraGeometry, losses: LossCounter | None
) -> DataFrame:
    def on_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            good, damaged = steps.usable(batch, camera)
            if damaged and losses is not None:
                text = f"{damaged} images without pixels or not of the {camera.n_pixels} pixels of {camera.name}"
                losses.add([Loss("", DAMAGED_IMAGES, damaged, text)])
            if good.num_rows:
                yield work(good)

    return chained(frame, on_batches, schema)


def chained(frame: DataFrame, stage: _Stage, schema: pa.Schema) -> DataFrame:
    """Apply a stage; if the frame is itself made by stages, all of them become one, and no pixel crosses between.

    Parameters
    ----------
    frame : DataFrame
    stage : callable
        Batches of one schema to batches of another.
    schema : pyarrow.Schema
        Of the result.
    """
    base, before = getattr(frame, _CHAIN, (frame, ()))
    stages: tuple[_Stage, ...] = (*before, stage)

    def all_stages(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        one_thread()
        for one in stages:
            batches = one(batches)
        yield from batches
        settle()

    result = base.mapInArrow(all_stages, spark_schema(schema))
    setattr(result, _CHAIN, (base, stages))
    return result


def spark_schema(schema: pa.Schema) -> str:
    """Return an Arrow schema as Spark writes schemas."""
    names: dict[Any, str] = {
        pa.string(): "string",
        pa.int64(): "bigint",
        pa.int32(): "int",
        pa.float32(): "float",
        pa.float64(): "double",
    }
    return ", ".join(f"`{field.name}` {names.get(field.type, 'binary')}" for field in schema)

"""DataFrames made datasets by the workers: Spark's own writer would take every pixel into the Java machine.

For example::

    save(grid(cleaned, camera), "hdfs://…/grids", camera, "tailcuts-14-7")
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from apbatch.camera.geometry import CameraGeometry
from apbatch.chain import steps
from apbatch.chain.recipe import Recipe
from apbatch.datasets.commit import DatasetCommit, Part, SplitRecord, Staging
from apbatch.datasets.part_files import PartWriter
from apbatch.errors import FormatError, UsageError
from apbatch.formats.embedded import Telescopes
from apbatch.provenance import provenance
from apbatch.spark.frames import LossCounter, chained
from apbatch.spark.jobs import Meter, run_job
from apbatch.spark.one_pass import sidecars
from apbatch.spark.summary import StepSummary
from apbatch.storage.backends import open_store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_RECORD = pa.schema([pa.field("record", pa.string())])
#: Columns by which a dataset is known.
_MARKS = {"images": {"image", "mask"}, "parameters": {"cleaning", "size"}, "grids": {"grid", "grid_cleaned"}}


def save(
    frame: DataFrame,
    url: str,
    camera: CameraGeometry,
    cleaning: str,
    *,
    method: str = "axial",
    images_url: str | None = None,
    telescopes: Telescopes | None = None,
    losses: LossCounter | None = None,
) -> StepSummary:
    """Write a DataFrame of cleaned images, parameters or grids as a dataset, one part file for each of its partitions.

    If the frame is made of the steps of `apbatch.spark.frames`, its pixels never leave Python. Of any other frame they
    come from the Java machine once. The dataset appears in one move when all is written, and takes the place of an
    older one; if the program is killed before, the work begins anew.

    Parameters
    ----------
    frame : DataFrame
        With the columns of `CLEANED`, `PARAMETER_ROWS` (and `FAMILIES`) or `GRIDS`, as `apbatch.chain.steps` has them;
        others are left out.
    url : str
        Where the dataset goes.
    camera : CameraGeometry
    cleaning : str
        Name of the cleaning that made the masks.
    method : str
        Of the grid.
    images_url : str, optional
        The dataset of images that parameters or grids were made of, so that events point to their images.
    telescopes : mapping, optional
        Where telescopes stand.
    losses : LossCounter, optional
        What was passed over until now goes into the sidecar.

    Raises
    ------
    UsageError
        If columns are missing, or another program is writing the same dataset.
    FormatError
        If the frame has no row.
    ServerError
        If Spark or a store fails.
    """
    started = time.monotonic()
    role = _role_of(frame.columns)
    families = steps.FAMILIES if role == "parameters" else {}
    more = tuple(name for name, units in families.items() if units.keys() <= set(frame.columns))
    recipe = Recipe(camera, (role,), cleaning, None, method, telescopes or {}, more)
    with DatasetCommit({role: url}, secrets.token_hex(16)) as job:
        write = _Write(job.staging, recipe)
        meter = Meter()
        with run_job(frame.sparkSession, f"save {role}", None, meter):
            rows = chained(frame, write, _RECORD).collect()
        records = [SplitRecord.from_json(row["record"]) for row in rows]
        if not any(record.parts for record in records):
            job.discard()
            raise FormatError("there is not one row to write", where=url)
        count = sum(record.images for record in records)
        counted, problems = losses.result() if losses is not None else ({}, [])
        origin = provenance("save", [images_url] if images_url else [], {"method": method} if role == "grids" else {})
        content = sidecars(recipe, url if role == "images" else images_url)[role]
        job.commit(records, {role: {**content, "images": count, "losses": counted, "provenance": origin}})
    return StepSummary(
        count,
        time.monotonic() - started,
        counted,
        problems,
        images_a_second=round(count / max(time.monotonic() - started, 1e-6), 1),
        bytes_written=sum(part.bytes for record in records for part in record.parts.values()),
        tasks=meter.tasks,
        retries=meter.retries,
    )


def _role_of(columns: list[str]) -> str:
    """Return which dataset has these columns.

    Raises
    ------
    UsageError
    """
    schemas = {"images": steps.CLEANED, "parameters": steps.PARAMETER_ROWS, "grids": steps.GRIDS}
    for role, marks in _MARKS.items():
        if marks <= set(columns):
            lacking = [name for name in schemas[role].names if name not in columns]
            if lacking:
                raise UsageError(f"a dataset of {role} needs the columns {', '.join(lacking)} as well")
            return role
    raise UsageError(
        f"these columns are neither cleaned images nor parameters nor grids: {', '.join(columns)}",
        remedy="save what clean, parametrise or grid return, or some of its rows",
    )


class _Write:
    """What a task does with a partition: it writes it, and returns one small row."""

    def __init__(self, staging: Staging, recipe: Recipe) -> None:
        self._staging, self._cleaning = staging, recipe.cleaning
        ((self._role, self._schema),) = recipe.schemas().items()

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        started, task = time.monotonic(), TaskContext.get()
        assert task is not None  # this runs in a task
        name = self._staging.attempt(task.partitionId())
        parts: dict[str, Part] = {}
        images = 0
        with ExitStack() as stack:
            writer: PartWriter | None = None
            for batch in batches:
                columns = {key: batch.column(key) for key in self._schema.names}
                if writer is None:  # a partition without a row leaves no file
                    part = PartWriter(open_store(self._staging.outputs[self._role]), f"{name}.parquet", self._schema)
                    writer = stack.enter_context(part.writing())
                writer.write(steps.conform(columns, batch.num_rows, self._schema))
                images += self._images(batch)
        if writer is not None:
            parts[self._role] = writer.part()
        record = SplitRecord(task.partitionId(), images, parts, 0, [], time.monotonic() - started)
        yield pa.RecordBatch.from_arrays([pa.array([record.to_json()])], schema=_RECORD)

    def _images(self, batch: pa.RecordBatch) -> int:
        """Count images: of parameters there is a row for each cleaning."""
        if self._role != "parameters":
            return int(batch.num_rows)
        return int(pc.sum(pc.equal(batch.column("cleaning"), self._cleaning)).as_py() or 0)

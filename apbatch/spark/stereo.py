"""Showers out of the images of several telescopes: rows of image parameters brought together by event.

Rows are a few hundred bytes an image, so nothing is shuffled: the driver reads the footers of the part files, cuts the
event numbers into ranges, and each task reads, of every dataset, the row groups that may hold its events. An event is
reconstructed in one task, whatever the datasets its telescopes are in.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apbatch.camera.pointing import AXES, Axes
from apbatch.camera.stereo import REASONS, Images, reconstruct
from apbatch.datasets import dataset
from apbatch.datasets.commit import DatasetCommit, Loss, SplitRecord, Staging
from apbatch.datasets.part_files import PartWriter
from apbatch.errors import FormatError, UsageError, nearest_word
from apbatch.formats.embedded import Telescopes
from apbatch.formats.images import telescopes_in
from apbatch.formats.parquet import open_parquet, reading
from apbatch.formats.parser_process import parse_apart
from apbatch.provenance import digest, provenance, versions
from apbatch.spark.bulk import run_splits
from apbatch.spark.inputs.guard import guarded
from apbatch.spark.inputs.splits import dataset_files
from apbatch.spark.jobs import Meter, tally
from apbatch.spark.summary import StepSummary, summed
from apbatch.storage.backends import open_store, open_url

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Reasons of losses.
NO_POINTING = "images of telescopes whose pointing is not known"
REPEATED_IMAGE = "images of a telescope that had the event already"

_EVENT = ("experiment", "run", "event")
_MEASURED = ("cog_x", "cog_y", "psi", "size", "length", "width")
_POINTING = ("pointing_altitude", "pointing_azimuth")
_COLUMNS = [*_EVENT, "telescope", "cleaning", *_MEASURED, *_POINTING]
#: One row an event. Direction in deg, core and height in m; null where it is not defined, with the reason.
SHOWERS = pa.schema(
    [
        pa.field("experiment", pa.string()),
        pa.field("run", pa.int64()),
        pa.field("event", pa.int64()),
        pa.field("n_images", pa.int64()),
        *(pa.field(name, pa.float64()) for name in ("altitude", "azimuth", "uncertainty", "core_x", "core_y", "h_max")),
        pa.field("reason", pa.string()),
    ]
)
#: Rows of image parameters a task takes.
_ROWS_A_TASK = 400_000
_ROLE = "showers"


@dataclass(frozen=True)
class Groups:
    """Row groups of a part file that may hold events of a task."""

    url: str
    groups: tuple[int, ...]
    telescopes: Telescopes


@dataclass(frozen=True)
class RangeSplit:
    """A range of event numbers, `first` up to and without `stop`, in all datasets."""

    number: int
    first: int
    stop: int
    parts: tuple[Groups, ...]
    bytes: int
    hosts: tuple[str, ...] = field(default=(), compare=False)


def stereo(
    spark: SparkSession,
    parameters_urls: Sequence[str],
    output_url: str,
    *,
    size_min: float = 0.0,
    axes: Axes = "vertical",
) -> StepSummary:
    """Reconstruct direction, core and height of the maximum of every event.

    Parameters
    ----------
    spark : SparkSession
    parameters_urls : sequence of str
        Datasets of image parameters, such as one for each camera; all of the same cleaning.
    output_url : str
        Where the dataset of showers goes; one that is there is replaced.
    size_min : float
        Images with less light do not count, p.e.
    axes : str
        How the cameras are mounted (`apbatch.camera.pointing`): as in files of sim_telarray by default.

    Returns
    -------
    StepSummary
        Its `images` are events.

    Raises
    ------
    NotFoundError
        If a dataset is not there.
    UsageError
        If a dataset is another one, telescopes stand nowhere, or cleanings differ.
    FormatError
        If there is not one event.
    ServerError
        If Spark or a store fails; the same call goes on with what is not finished.
    """
    started = time.monotonic()
    if not parameters_urls:
        raise UsageError("there are no datasets of image parameters", remedy="make them: apbatch parameters")
    cleaning, telescopes_of = _checked(parameters_urls, output_url)
    sizes = {url: size for folder in parameters_urls for url, size in dataset_files(folder)[1].items()}
    splits = range_splits({url: telescopes for folder, telescopes in telescopes_of.items() for url in _files(folder)})
    if axes not in AXES:
        raise UsageError(f"unknown axes '{axes}'", nearest=nearest_word(axes, AXES), remedy=" or ".join(AXES))
    settings = {"cleaning": cleaning, "size_min": size_min, "axes": axes}
    key = digest([versions(), "stereo", settings, sorted(sizes.items()), _ROWS_A_TASK])
    meter = Meter()
    with DatasetCommit({_ROLE: output_url}, key) as job:
        work = Reconstruction(job.staging, cleaning, size_min, axes)
        start = time.monotonic()
        records = run_splits(spark, splits, work, job, "stereo", meter)
        seconds = time.monotonic() - start
        counted, problems = tally([loss for record in records for loss in record.losses])
        events = sum(record.images for record in records)
        if not events:
            job.discard()
            raise FormatError("there is not one event", where=", ".join(parameters_urls))
        origin = provenance("stereo", list(parameters_urls), settings)
        content = {"kind": "showers", "cleaning": cleaning, "events": events, "losses": counted, "provenance": origin}
        job.commit(records, {_ROLE: content})
    return summed(records, meter, started, seconds, counted, problems, {})


def _checked(urls: Sequence[str], output_url: str) -> tuple[str, dict[str, Telescopes]]:
    """Return the cleaning of all datasets, and where the telescopes of each stand."""
    telescopes_of: dict[str, Telescopes] = {}
    cleanings = set()
    for url in urls:
        if url.rstrip("/") == output_url.rstrip("/"):
            raise UsageError("input and output are the same dataset", where=url)
        about = dataset.info(url)
        if about.get("kind") != "parameters" or not isinstance(about.get("cleaning"), str):
            raise UsageError("not a dataset of image parameters", where=url, remedy="make one: apbatch parameters")
        schema = dataset.schema(url)
        lacking = [name for name in _COLUMNS if name not in schema.names]
        if lacking:
            raise UsageError(f"there is no column '{lacking[0]}'", where=url, remedy="make the dataset again")
        telescopes_of[url] = telescopes_in(schema)
        if not telescopes_of[url]:
            raise UsageError(
                "where its telescopes stand is not known", where=url, remedy="the format of its images must tell"
            )
        cleanings.add(str(about["cleaning"]))
    if len(cleanings) > 1:
        raise UsageError(f"the datasets are of several cleanings: {', '.join(sorted(cleanings))}")
    return cleanings.pop(), telescopes_of


def _files(folder: str) -> list[str]:
    return [source.url for source in dataset_files(folder)[0]]


def range_splits(files: dict[str, Telescopes], rows_a_task: int = _ROWS_A_TASK) -> list[RangeSplit]:
    """Cut the event numbers of part files into ranges of about `rows_a_task` rows.

    Raises
    ------
    FormatError
        If a part file is damaged.
    """
    groups: list[tuple[int, int, int, int, str, int]] = []  # first, last, rows, bytes, file, row group
    for url in files:
        groups += parse_apart(_groups_of, url, size=0, where=url)
    if not groups:
        return []
    groups.sort()
    edges, rows = [groups[0][0]], 0
    for low, _, count, *_ in groups:
        if rows >= rows_a_task and low > edges[-1]:
            edges.append(low)
            rows = 0
        rows += count
    edges.append(max(group[1] for group in groups) + 1)
    splits: list[RangeSplit] = []
    for first, stop in pairwise(edges):
        mine = [group for group in groups if group[0] < stop and group[1] >= first]
        parts = tuple(
            Groups(url, tuple(group[5] for group in mine if group[4] == url), telescopes)
            for url, telescopes in files.items()
            if any(group[4] == url for group in mine)
        )
        splits.append(RangeSplit(len(splits), first, stop, parts, sum(group[3] for group in mine)))
    return splits


def _groups_of(url: str) -> list[tuple[int, int, int, int, str, int]]:
    """Return first and last event, rows, bytes, file and number of the row groups of a file."""
    groups = []
    with open_url(url) as stream:
        footer = open_parquet(stream, url).metadata
    place = footer.schema.names.index("event")
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        limits = group.column(place).statistics
        if group.num_rows == 0:
            continue
        if limits is None or not limits.has_min_max:  # of another program: it may hold any event
            low, high = -(2**63), 2**63 - 2
        else:
            low, high = int(limits.min), int(limits.max)
        groups.append((low, high, group.num_rows, group.total_byte_size, url, number))
    return groups


def _tables(url: str, groups: Sequence[int]) -> Generator[pa.Table, None, None]:
    with open_url(url) as stream, reading(url):
        yield open_parquet(stream, url).read_row_groups(list(groups), _COLUMNS, use_threads=False)


@dataclass
class Reconstruction:
    """What a task does with a range of events: sent to the workers."""

    staging: Staging
    cleaning: str
    size_min: float
    axes: Axes

    def __call__(self, split: RangeSplit) -> SplitRecord:
        """Read, reconstruct, write; return the record, which is kept beside the part as well.

        Raises
        ------
        FormatError
            If a part file is damaged.
        """
        started = time.monotonic()
        losses: list[Loss] = []
        name = self.staging.attempt(split.number)
        showers = showers_of(rows_of(split, self.cleaning, self.size_min), split, losses, self.axes)
        parts = {}
        if showers.num_rows:
            store = open_store(self.staging.outputs[_ROLE])
            with PartWriter(store, f"{name}.parquet", SHOWERS).writing() as writer:
                writer.write(showers)
            parts[_ROLE] = writer.part()
        seconds = time.monotonic() - started
        record = SplitRecord(split.number, showers.num_rows, parts, split.bytes, losses, seconds)
        self.staging.keep_record(name, record)
        return record


def rows_of(split: RangeSplit, cleaning: str, size_min: float) -> pa.Table:
    """Read the rows of a split, with `x`, `y`, `z` of their telescopes (NaN where one stands nowhere).

    Parameters
    ----------
    split : RangeSplit
    cleaning : str
        Rows of this one are read.
    size_min : float
        Images with less light are left out, p.e.
    """
    tables = []
    for part in split.parts:
        table = pa.concat_tables(guarded(_tables, part.url, part.groups, size=split.bytes))
        inside = pc.and_(pc.greater_equal(table["event"], split.first), pc.less(table["event"], split.stop))
        enough = pc.greater_equal(table["size"], size_min)
        table = table.filter(pc.and_(pc.and_(inside, enough), pc.equal(table["cleaning"], cleaning)))
        nowhere = (np.nan, np.nan, np.nan)
        numbers = table["telescope"].to_numpy()
        place = {one: part.telescopes.get(one, nowhere) for one in np.unique(numbers).tolist()}
        standing = np.array([place[one] for one in numbers.tolist()], np.float64).reshape(-1, 3)
        for axis, values in zip("xyz", standing.T, strict=True):
            table = table.append_column(axis, pa.array(np.ascontiguousarray(values)))
        tables.append(table.replace_schema_metadata(None))
    return pa.concat_tables(tables)


def showers_of(rows: pa.Table, split: RangeSplit, losses: list[Loss], axes: Axes) -> pa.RecordBatch:
    """Reconstruct the events of rows of image parameters.

    Parameters
    ----------
    rows : Table
        The columns of image parameters that are used, and `x`, `y`, `z` of the telescope (m).
    split : RangeSplit
        Which events they are, for what is said of losses.
    losses : list of Loss
        Takes what was passed over.
    axes : str
        How the cameras are mounted (`apbatch.camera.pointing`).

    Returns
    -------
    RecordBatch of schema `SHOWERS`
        In the order of experiment, run and event; one row for each event that has an image.
    """
    rows = rows.sort_by([(name, "ascending") for name in (*_EVENT, "telescope")]).combine_chunks()
    where = f"events {split.first} to {split.stop - 1}"
    fresh = _starts(rows, (*_EVENT, "telescope"))
    if not fresh.all():
        repeated = int((~fresh).sum())
        losses.append(Loss(where, REPEATED_IMAGE, repeated, f"{where}: {repeated} {REPEATED_IMAGE}"))
        rows = rows.filter(pa.array(fresh))
    starts = _starts(rows, _EVENT)
    values: dict[str, npt.NDArray[Any]] = {
        name: np.asarray(rows[name].cast(pa.float64()).fill_null(np.nan).to_numpy(), np.float64)
        for name in (*_MEASURED, *_POINTING, "x", "y", "z")
    }
    lost = int(np.isnan(values["pointing_altitude"] + values["pointing_azimuth"] + values["x"]).sum())
    if lost:
        losses.append(Loss(where, NO_POINTING, lost, f"{where}: {lost} {NO_POINTING}"))
    result = reconstruct(
        Images(
            event=np.cumsum(starts, dtype=np.int64),
            **{name: values[name] for name in _MEASURED},
            altitude=values["pointing_altitude"],
            azimuth=values["pointing_azimuth"],
            telescope_x=values["x"],
            telescope_y=values["y"],
            telescope_z=values["z"],
        ),
        axes=axes,
    )
    heads = rows.filter(pa.array(starts))
    numbers = {name: getattr(result, name) for name in SHOWERS.names if name not in (*_EVENT, "n_images", "reason")}
    arrays = [
        *(heads[name].combine_chunks().cast(SHOWERS.field(name).type) for name in _EVENT),
        pa.array(result.n_images),
        *(pa.array(column, mask=np.isnan(column)) for column in numbers.values()),
        pa.array([REASONS[code] for code in result.reason.tolist()], pa.string()),
    ]
    arrays = [array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array for array in arrays]
    return pa.RecordBatch.from_arrays(arrays, schema=SHOWERS)


def _starts(rows: pa.Table, names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Tell which rows differ from the one before them in one of these columns."""
    other = np.ones(rows.num_rows, bool)
    if rows.num_rows:
        other[1:] = False
    for name in names:
        column = rows[name].combine_chunks()
        if rows.num_rows > 1:
            other[1:] |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return other

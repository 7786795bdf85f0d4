"""The bulk path: Spark hands out splits, workers read, work and write, and only small records come back.

No pixel passes through the JVM. A worker opens the stores itself, works on whole batches, and publishes its part
files; `apbatch.datasets.commit` makes one dataset of them.
"""

from __future__ import annotations

import pickle
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyarrow as pa

from apbatch.camera.geometry import CameraGeometry
from apbatch.chain import steps
from apbatch.chain.pixel_states import Tally
from apbatch.chain.recipe import Recipe
from apbatch.datasets.commit import DatasetCommit, Loss, Part, SplitRecord, Staging
from apbatch.datasets.image_rows import only_wanted
from apbatch.datasets.part_files import PartWriter
from apbatch.spark.connect.process import one_thread, settle
from apbatch.spark.connect.session import BATCH_IMAGES
from apbatch.spark.inputs.events import EventSplit, Factors, read_events
from apbatch.spark.inputs.reading import DAMAGED_IMAGES, read_piece
from apbatch.spark.inputs.splits import Split
from apbatch.spark.inputs.surveys import Survey, joined, look_through, survey_tasks
from apbatch.spark.jobs import Meter, run_job
from apbatch.storage.backends import open_store
from apbatch.storage.tokens import ShownTokens

if TYPE_CHECKING:
    from pyspark import RDD
    from pyspark.sql import SparkSession

AnySplit = Split | EventSplit


class Numbered(Protocol):
    """A split of any kind of work."""

    @property
    def number(self) -> int:
        """Of the split in its job."""
        ...


Task = TypeVar("Task")


def read_split(
    split: AnySplit, camera: CameraGeometry, factors: Factors, losses: list[Loss], batch_size: int = BATCH_IMAGES
) -> Iterator[pa.RecordBatch]:
    """Read the images of a split, whatever its kind: batches of `IMAGES` (`CLEANED` from a dataset), none empty.

    Parameters
    ----------
    split : Split, EventSplit or RangeSplit
    camera : CameraGeometry
    factors : mapping
        Conversion factors by table and cluster, codes per p.e.
    losses : list of Loss
        Takes what was passed over.
    batch_size : int
        Most images of a batch.
    """
    if isinstance(split, EventSplit):
        only = split.files[0].source.only  # the same for all files of a run
        if only and not any(split.first <= event < split.stop for _, event, _ in only):
            return
        built = read_events(split, camera, factors, losses, batch_size)
        batches: Iterable[pa.RecordBatch] = (only_wanted(batch, only) for batch in built)
    else:
        batches = (batch for piece in split.pieces for batch in read_piece(piece, camera, losses, batch_size))
    damaged = 0
    for batch in batches:
        good, lost = steps.usable(batch, camera)
        damaged += lost
        if good.num_rows:
            yield good
    if damaged:
        where = split_name(split)
        text = f"{where}: {damaged} images without pixels or not of the {camera.n_pixels} pixels of {camera.name}"
        losses.append(Loss(where, DAMAGED_IMAGES, damaged, text))


def split_name(split: AnySplit) -> str:
    """Return the URL of the first file of a split."""
    return split.files[0].source.url if isinstance(split, EventSplit) else split.pieces[0].source.url


@dataclass
class Work:
    """What a task does with a split: sent to the workers."""

    staging: Staging
    recipe: Recipe
    factors: Factors = field(default_factory=dict)

    def __call__(self, split: AnySplit) -> SplitRecord:
        """Read, work, write; return the record, which is kept beside the parts as well.

        Raises
        ------
        ServerError
            If a store does not work; Spark tries the task again.
        """
        started = time.monotonic()
        losses: list[Loss] = []
        images, tally = 0, Tally()
        name = self.staging.attempt(split.number)
        writers: dict[str, PartWriter] = {}
        with ExitStack() as stack:
            for read in read_split(split, self.recipe.camera, self.factors, losses):
                batch = self.recipe.preparation(read, self.recipe.camera, tally)
                if not batch.num_rows:
                    continue
                if not writers:  # a split without an image leaves no file
                    for role, schema in self.recipe.schemas().items():
                        writer = PartWriter(open_store(self.staging.outputs[role]), f"{name}.parquet", schema)
                        writers[role] = stack.enter_context(writer.writing())
                for role, rows in self.recipe.make(batch).items():
                    writers[role].write(rows)
                images += batch.num_rows
        parts: dict[str, Part] = {role: writer.part() for role, writer in writers.items()}
        seconds, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        losses += tally.losses(split_name(split))
        record = SplitRecord(split.number, images, parts, split.bytes, losses, seconds, peak, dict(tally.pixels))
        self.staging.keep_record(name, record)
        return record


def run_splits(
    spark: SparkSession,
    splits: Sequence[Numbered],
    work: Callable[[Any], SplitRecord],
    job: DatasetCommit,
    title: str,
    meter: Meter,
) -> list[SplitRecord]:
    """Do the work on all splits that are not done yet; return the records of all.

    Parameters
    ----------
    spark : SparkSession
    splits : sequence
        With a `number` each.
    work : callable
        A split to its record; sent to the workers.
    job : DatasetCommit
    title : str
        Shown with the progress.
    meter : Meter
        Counts tasks, images and bytes.

    Raises
    ------
    ServerError
        If a task failed too often. What is finished stays, and the same call goes on from there.
    """
    done = job.finished([split.number for split in splits])
    meter.resumed = len(done)
    left = [split for split in splits if split.number not in done]
    new = run_tasks(spark, left, work, title, meter)
    for record in new:
        done.setdefault(record.split, record)
    return [done[number] for number in sorted(done)]


def run_surveys(spark: SparkSession, urls: Sequence[str], job: DatasetCommit, meter: Meter) -> dict[str, Survey]:
    """Survey raw files once for a job; the surveys are kept with it.

    Parameters
    ----------
    spark : SparkSession
    urls : sequence of str
    job : DatasetCommit
    meter : Meter

    Returns
    -------
    dict of str to Survey
        By URL.

    Raises
    ------
    ServerError
    """
    note = job.note("survey")
    if note is None:
        parts = run_tasks(spark, survey_tasks(urls), look_through, "survey", meter)
        note = [survey.to_json() for survey in joined(parts)]
        job.keep("survey", note)
    return {one.url: one for one in map(Survey.from_json, note)}


def run_tasks(
    spark: SparkSession, tasks: Sequence[Task], work: Callable[[Task], Any], title: str, meter: Meter
) -> list[Any]:
    """Call `work` for each of `tasks` on Spark's workers, one Spark task each, in this order.

    Parameters
    ----------
    spark : SparkSession
    tasks : sequence
    work : callable
        Sent to the workers.
    title : str
        Shown with the progress.
    meter : Meter
        Counts tasks, images and bytes.

    Returns
    -------
    list
        What `work` returned, in the order of the tasks.

    Raises
    ------
    ServerError
    """
    if not tasks:
        return []
    counter, token = meter.counter(spark), ShownTokens.of_this_process()

    def partition(tasks: Iterator[Task]) -> Iterator[Any]:
        one_thread()
        token.take_over()
        for task in tasks:
            result = work(task)
            counter.add(result)
            yield result
        settle()

    with run_job(spark, title, len(tasks), meter):
        return list(_placed(spark, tasks).mapPartitions(partition).collect())


def _placed(spark: SparkSession, tasks: Sequence[Task]) -> RDD[Task]:
    """Return the tasks as partitions of an RDD, each with the hosts where it had better run."""
    context = spark.sparkContext
    hosts_of = [getattr(task, "hosts", ()) for task in tasks]
    if not any(hosts_of):
        return context.parallelize(tasks, len(tasks))
    # PySpark's parallelize takes no places; Spark's own makeRDD does.
    from pyspark.rdd import RDD
    from pyspark.serializers import CPickleSerializer

    jvm = context._jvm
    pairs = jvm.java.util.ArrayList()
    for task, named in zip(tasks, hosts_of, strict=True):
        hosts = jvm.java.util.ArrayList()
        for host in named:
            hosts.add(host)
        pairs.add(jvm.scala.Tuple2(pickle.dumps(task), _seq(jvm, hosts)))
    kind = jvm.scala.reflect.ClassTag.apply(jvm.java.lang.Class.forName("[B"))
    java_rdd = context._jsc.sc().makeRDD(_seq(jvm, pairs), kind)
    return RDD(java_rdd.toJavaRDD(), context, CPickleSerializer())


def _seq(jvm: Any, items: Any) -> Any:
    return jvm.scala.jdk.javaapi.CollectionConverters.asScala(items).toSeq()


def largest_first(splits: Iterable[AnySplit]) -> list[AnySplit]:
    """Order splits for Spark, which starts tasks in order: a large one that starts last would run alone."""
    return sorted(splits, key=lambda split: (-split.bytes, split.number))

"""A production of the Monte Carlo as a Spark job: tasks make the same chunks that local processes would.

A shower's result depends on the settings and its number alone, so neither the number of tasks nor the machine that
ran one shows in the files. A task makes one chunk after another, each written whole; what is there is not made again,
so a job that was killed goes on where it was, with Spark or without. Workers must see the production's folder, and
processors must be of one kind for equal bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from apbatch.errors import ApbatchError
from apbatch.sim.chunks import ProductionPlan, Worker
from apbatch.sim.production import ProductionSummary, simulate
from apbatch.sim.settings import Production
from apbatch.spark.jobs import Meter, run_job
from apbatch.spark.summary import StepSummary

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Tasks for each core: chunks cost unequal times.
_TASKS_A_CORE = 4


def simulate_on(spark: SparkSession, settings: Production, output: Path) -> tuple[ProductionSummary, StepSummary]:
    """Make a production with the executors of a session; see `apbatch.sim.production.simulate`.

    Parameters
    ----------
    spark : SparkSession
    settings : Production
    output : Path
        Folder on a file system that all workers share.

    Returns
    -------
    ProductionSummary, StepSummary
        What the production holds; what this call did.

    Raises
    ------
    UsageError, MissingSoftwareError
        As `simulate`.
    ServerError
        If Spark fails.
    ApbatchError
        If workers wrote where this process does not see it.
    """
    began, meter = time.monotonic(), Meter()

    def make(plan: ProductionPlan, chunks: list[int]) -> Iterator[int]:
        context = spark.sparkContext
        slices = min(len(chunks), _TASKS_A_CORE * context.defaultParallelism)
        # Chunks one after another go to different tasks: with any number of tasks all end at about the same time.
        order = [chunk for first in range(slices) for chunk in chunks[first::slices]]
        with run_job(spark, "simulate", slices, meter):
            counts = context.parallelize(order, slices).mapPartitions(_Task(plan)).collect()
        lost = [chunk for chunk in chunks if not plan.file_of(chunk).is_file()]
        if lost:
            raise ApbatchError(
                f"{len(lost)} chunks are not where the workers should have written them",
                where=str(plan.folder),
                remedy="choose a folder on a file system that all workers share",
            )
        yield from counts

    production = simulate(settings, output.absolute(), make=make)
    step = StepSummary(
        images=sum(production.images.values()),
        seconds=time.monotonic() - began,
        tasks=meter.tasks,
        retries=meter.retries,
    )
    return production, step


class _Task:
    """Makes the chunks of one partition; goes to workers."""

    def __init__(self, plan: ProductionPlan) -> None:
        self.plan = plan

    def __call__(self, chunks: Iterable[int]) -> Iterator[int]:
        worker = _worker_of(self.plan)
        for chunk in chunks:
            yield worker.make(chunk)


_workers: dict[str, Worker] = {}


def _worker_of(plan: ProductionPlan) -> Worker:
    """Return this process' worker for a plan: Spark keeps its processes, so tables and kernels are loaded once."""
    key = f"{plan.folder} {plan.settings!r}"
    if key not in _workers:
        _workers.clear()
        _workers[key] = Worker(plan)
    return _workers[key]

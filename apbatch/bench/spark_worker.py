"""A process that does what a peer of the suite `spark` is asked for: without Spark, or as Spark's driver.

It reads one JSON request a line (`operation`, `input`, `output`), answers with one JSON line (`images`, `rows`), and
ends with its input. The first line it writes says that it is ready.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.camera.cleaning import PRESETS, Cleaning
from apbatch.camera.geometry import camera_named
from apbatch.formats import dataset
from apbatch.formats.images import camera_of
from apbatch.spark import steps
from apbatch.spark.bulk import Recipe
from apbatch.spark.session import BATCH_IMAGES
from apbatch.spark.writing import ROW_GROUP_BYTES, parquet_options

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PLAIN, BULK, FRAMES = "plain process", "bulk", "DataFrames"
ONE_PASS, PARAMETERS, THROUGH_THE_JVM = "one pass", "parameters", "parameters through the JVM"
ROLES = ("images", "parameters", "grids")
RULE = PRESETS["standard"]
CLEANING = RULE.name

#: Reads the folder `input`, writes below the folder `output`, returns the number of images.
_Work = Callable[[Path, Path], int]


def plain_works() -> dict[str, _Work]:
    """Return what one process does with pyarrow and the steps, each file after the other."""
    return {ONE_PASS: _plain_one_pass, PARAMETERS: _plain_parameters}


def _plain_one_pass(source: Path, target: Path) -> int:
    def batches(path: Path) -> Iterator[pa.RecordBatch]:
        for batch in pq.ParquetFile(path).iter_batches(BATCH_IMAGES, use_threads=False):
            yield steps.images_of(batch)

    return _plain(source, target, batches, ROLES, RULE)


def _plain_parameters(source: Path, target: Path) -> int:
    def batches(path: Path) -> Iterator[pa.RecordBatch]:
        yield from pq.ParquetFile(path).iter_batches(BATCH_IMAGES, columns=steps.CLEANED.names, use_threads=False)

    return _plain(source, target, batches, ("parameters",), None)


def _plain(
    source: Path,
    target: Path,
    batches: Callable[[Path], Iterator[pa.RecordBatch]],
    roles: tuple[str, ...],
    rule: Cleaning | None,
) -> int:
    images = 0
    for path in sorted(source.glob("*.parquet")):
        camera = camera_named(camera_of(pq.read_schema(path)))
        recipe = Recipe(camera, roles, CLEANING, rule)
        schemas = recipe.schemas()
        with ExitStack() as stack:
            writers, waiting = {}, dict[str, list[pa.RecordBatch]]()
            for role in roles:
                (target / role).mkdir(parents=True, exist_ok=True)
                file = target / role / path.name
                options = parquet_options(schemas[role])
                writers[role] = stack.enter_context(pq.ParquetWriter(file, schemas[role], **options))
                waiting[role] = []

            def flush(role: str) -> None:
                table = pa.Table.from_batches(waiting[role], schemas[role])  # noqa: B023 - called within the round
                writers[role].write_table(table, row_group_size=max(1, table.num_rows))  # noqa: B023
                waiting[role].clear()  # noqa: B023

            for batch in batches(path):
                images += batch.num_rows
                for role, made in recipe.make(batch).items():
                    waiting[role].append(made)
                    if sum(one.nbytes for one in waiting[role]) >= ROW_GROUP_BYTES:
                        flush(role)
            for role in roles:
                flush(role)
    return images


def spark_works(spark: SparkSession, kind: str) -> dict[str, _Work]:
    """Return what the bulk path or the DataFrames do."""
    from apbatch.spark import frames, pipeline
    from apbatch.spark.sources import sources_at

    def one_pass(source: Path, target: Path) -> int:
        outputs = {role: f"file://{target}/{role}" for role in ROLES}
        found = sources_at([f"file://{source}"])
        return pipeline.images(spark, found, outputs, RULE).images

    def parameters(source: Path, target: Path) -> int:
        return pipeline.parameters(spark, f"file://{source}", f"file://{target}/parameters").images

    def through_the_jvm(source: Path, target: Path) -> int:
        camera = camera_named(str(dataset.info(f"file://{source}")["camera"]))
        made = frames.parametrise(spark.read.parquet(f"file://{source}"), camera, CLEANING)
        made.write.mode("overwrite").parquet(f"file://{target}/parameters")
        return int(spark.read.parquet(f"file://{target}/parameters").count()) // 2

    def in_frames(source: Path, target: Path) -> int:
        camera = camera_named(str(dataset.info(f"file://{source}")["camera"]))
        made = frames.parametrise(frames.read_dataset(spark, f"file://{source}"), camera, CLEANING)
        made.write.mode("overwrite").parquet(f"file://{target}/parameters")
        return int(spark.read.parquet(f"file://{target}/parameters").count()) // 2

    def clean_in_frames(source: Path, target: Path) -> int:
        camera = camera_named(camera_of(pq.read_schema(next(source.glob("*.parquet")))))
        images = frames.read_images(spark, sources_at([f"file://{source}"]))
        cleaned = frames.clean(images, camera, RULE)
        cleaned.write.mode("overwrite").parquet(f"file://{target}/images")
        cleaned = spark.read.parquet(f"file://{target}/images")
        frames.parametrise(cleaned, camera, CLEANING).write.mode("overwrite").parquet(f"file://{target}/parameters")
        frames.grid(cleaned, camera).write.mode("overwrite").parquet(f"file://{target}/grids")
        return int(cleaned.count())

    if kind == FRAMES:
        return {ONE_PASS: clean_in_frames, PARAMETERS: in_frames, THROUGH_THE_JVM: through_the_jvm}
    return {ONE_PASS: one_pass, PARAMETERS: parameters}


def main() -> None:
    """Serve requests; the arguments are the kind of peer and Spark's master."""
    kind, master = sys.argv[1:3]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Spark prints is no answer
    with ExitStack() as stack:
        if kind == PLAIN:
            pa.set_cpu_count(1)
            pa.set_io_thread_count(1)
            works = plain_works()
        else:
            from apbatch.config import SparkSettings
            from apbatch.spark.session import close, session

            spark = session(SparkSettings(master=master), "bench")
            stack.callback(close, spark)
            spark.sparkContext.parallelize([0], 1).map(lambda number: number).collect()  # a Python worker is there
            works = spark_works(spark, kind)
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            target = Path(request["output"])
            images = works[request["operation"]](Path(request["input"]), target)
            print(json.dumps({"images": images}), file=answers, flush=True)
            if request.get("remove"):
                shutil.rmtree(target, ignore_errors=True)


if __name__ == "__main__":
    main()

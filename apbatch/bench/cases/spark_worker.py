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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.camera.cleaning import PRESETS, Cleaning
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.instruments.registry import camera_named
from apbatch.chain import steps
from apbatch.chain.recipe import Recipe
from apbatch.datasets.part_files import ROW_GROUP_BYTES, PartWriter
from apbatch.formats.images import camera_of
from apbatch.formats.parquet import parquet_options
from apbatch.spark.connect.session import BATCH_IMAGES
from apbatch.storage.backends import open_store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PLAIN, VERIFIED, BULK, FRAMES = "plain process", "plain process with verified files", "bulk", "DataFrames"
ONE_PASS, PARAMETERS = "one pass", "parameters"
#: The same, with Spark's own reader of datasets and writer.
BY_SPARK = " by Spark"
ROLES = ("images", "parameters", "grids")
RULE = PRESETS["standard"]
CLEANING = RULE.name

#: Reads the folder `input`, writes below the folder `output`, returns the number of images.
_Work = Callable[[Path, Path], int]
_Write = Callable[[pa.RecordBatch], None]


def plain_works(verified: bool = False) -> dict[str, _Work]:
    """Return what one process does with pyarrow and the steps, each file after the other.

    Parameters
    ----------
    verified : bool
        Whether part files are hashed, forced to the disk, verified and renamed, as the bulk path does it.
    """

    def one_pass(source: Path, target: Path) -> int:
        def batches(path: Path) -> Iterator[pa.RecordBatch]:
            for batch in pq.ParquetFile(path).iter_batches(BATCH_IMAGES, use_threads=False):
                yield steps.images_of(batch)

        return _plain(source, target, batches, ROLES, RULE, verified)

    def parameters(source: Path, target: Path) -> int:
        def batches(path: Path) -> Iterator[pa.RecordBatch]:
            yield from pq.ParquetFile(path).iter_batches(BATCH_IMAGES, columns=steps.CLEANED.names, use_threads=False)

        return _plain(source, target, batches, ("parameters",), None, verified)

    return {ONE_PASS: one_pass, PARAMETERS: parameters}


def _plain(
    source: Path,
    target: Path,
    batches: Callable[[Path], Iterator[pa.RecordBatch]],
    roles: tuple[str, ...],
    rule: Cleaning | None,
    verified: bool,
) -> int:
    images = 0
    for path in sorted(source.glob("*.parquet")):
        camera = camera_named(camera_of(pq.read_schema(path)))
        recipe = Recipe(camera, roles, CLEANING, rule)
        writing = _verified if verified else _bare
        with ExitStack() as stack:
            write = {
                role: stack.enter_context(writing(target / role, path.name, schema))
                for role, schema in recipe.schemas().items()
            }
            for batch in batches(path):
                images += batch.num_rows
                for role, rows in recipe.make(batch).items():
                    write[role](rows)
    return images


@contextmanager
def _verified(folder: Path, name: str, schema: pa.Schema) -> Iterator[_Write]:
    with PartWriter(open_store(f"file://{folder}"), name, schema).writing() as writer:
        yield writer.write


@contextmanager
def _bare(folder: Path, name: str, schema: pa.Schema) -> Iterator[_Write]:
    """Write the same Parquet without hash, fsync and rename."""
    folder.mkdir(parents=True, exist_ok=True)
    waiting: list[pa.RecordBatch] = []
    with pq.ParquetWriter(folder / name, schema, **parquet_options(schema)) as writer:

        def flush() -> None:
            table = pa.Table.from_batches(waiting, schema)
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            waiting.clear()

        def write(batch: pa.RecordBatch) -> None:
            waiting.append(batch)
            if sum(one.nbytes for one in waiting) >= ROW_GROUP_BYTES:
                flush()

        yield write
        flush()


def spark_works(spark: SparkSession, kind: str) -> dict[str, _Work]:
    """Return what the bulk path or the DataFrames do."""
    from apbatch.spark import frames, pipeline
    from apbatch.spark.inputs.sources import sources_at
    from apbatch.spark.saving import save

    def one_pass(source: Path, target: Path) -> int:
        outputs = {role: f"file://{target}/{role}" for role in ROLES}
        inputs = sources_at([f"file://{source}"])
        return pipeline.images(spark, inputs, outputs, RULE).images

    def parameters(source: Path, target: Path) -> int:
        return pipeline.parameters(spark, f"file://{source}", f"file://{target}/parameters").images

    def camera_in(source: Path) -> CameraGeometry:
        return camera_named(camera_of(pq.read_schema(next(source.glob("*.parquet")))))

    def frame_parameters(source: Path, target: Path) -> int:
        camera = camera_in(source)
        frame = frames.parametrise(frames.read_dataset(spark, f"file://{source}"), camera, CLEANING)
        return save(frame, f"file://{target}/parameters", camera, CLEANING).images

    def frame_parameters_by_spark(source: Path, target: Path) -> int:
        frame = frames.parametrise(spark.read.parquet(f"file://{source}"), camera_in(source), CLEANING)
        frame.write.mode("overwrite").parquet(f"file://{target}/parameters")
        return int(spark.read.parquet(f"file://{target}/parameters").count()) // 2

    def frame_one_pass(source: Path, target: Path) -> int:
        camera = camera_in(source)
        cleaned = frames.clean(frames.read_images(spark, sources_at([f"file://{source}"])), camera, RULE)
        save(frames.parametrise(cleaned, camera, CLEANING), f"file://{target}/parameters", camera, CLEANING)
        save(frames.grid(cleaned, camera), f"file://{target}/grids", camera, CLEANING)
        return save(cleaned, f"file://{target}/images", camera, CLEANING).images

    def frame_one_pass_by_spark(source: Path, target: Path) -> int:
        camera = camera_in(source)
        cleaned = frames.clean(frames.read_images(spark, sources_at([f"file://{source}"])), camera, RULE)
        cleaned.write.mode("overwrite").parquet(f"file://{target}/images")
        frames.parametrise(cleaned, camera, CLEANING).write.mode("overwrite").parquet(f"file://{target}/parameters")
        frames.grid(cleaned, camera).write.mode("overwrite").parquet(f"file://{target}/grids")
        return int(spark.read.parquet(f"file://{target}/images").count())

    if kind == FRAMES:
        return {
            ONE_PASS: frame_one_pass,
            PARAMETERS: frame_parameters,
            ONE_PASS + BY_SPARK: frame_one_pass_by_spark,
            PARAMETERS + BY_SPARK: frame_parameters_by_spark,
        }
    return {ONE_PASS: one_pass, PARAMETERS: parameters}


def main() -> None:
    """Serve requests; the arguments are the kind of peer and Spark's master."""
    kind, master = sys.argv[1:3]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Spark prints is no answer
    with ExitStack() as stack:
        if kind in (PLAIN, VERIFIED):
            pa.set_cpu_count(1)
            pa.set_io_thread_count(1)
            works = plain_works(kind == VERIFIED)
        else:
            from apbatch.config import SparkSettings
            from apbatch.spark.connect.session import close, session

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

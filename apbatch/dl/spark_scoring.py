"""Scoring of whole datasets on Spark, and scores among the events.

A task is a part file: the worker reads its images, scores them with the networks and trees that came with the task, and
writes one part of the result. Pixels never pass through the JVM. Keras' own `predict` does the work, on one core
a task.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.camera.instruments.registry import camera_named
from apbatch.datasets import dataset
from apbatch.dl.files import read_json, sha256, table_bytes
from apbatch.errors import ApbatchError, FormatError, ServerError, UsageError
from apbatch.formats.images import IMAGE_KEY, from_binary
from apbatch.formats.parquet import open_parquet
from apbatch.index.events.columns import EVENT_KEYS
from apbatch.provenance import digest, provenance
from apbatch.storage.backends import open_store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from apbatch.index.events.store import EventStore

_ROWS = 4096


class Scorer(Protocol):
    """What gives images a score; it is sent to workers."""

    def scores(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return scores in 0…1, shape (n_images,), of images of shape (n_images, n_pixels), p.e."""


class ScoreSource(Protocol):
    """Where a scorer comes from: `TrainedNetwork`, or `apbatch.dl.study.study_method.StudyMethod`."""

    @property
    def camera(self) -> str:
        """Name of the camera whose images it scores."""

    @property
    def identity(self) -> str:
        """Hash of all that shapes the scores."""

    @property
    def record(self) -> dict[str, Any]:
        """What the sidecar keeps; ``model`` and ``treatment`` name the scores among the events."""

    def scorer(self) -> Scorer:
        """Return what scores; it may take a while to make."""


class TrainedNetwork:
    """A network of a training.

    Parameters
    ----------
    training : pathlib.Path
        Output of `apbatch.dl.training.launch.train`.
    treatment : str, optional
        Which of the training's treatments, if there are several.

    Raises
    ------
    UsageError, FormatError, NotFoundError
        As `apbatch.dl.networks.scoring.Network.of_training`.
    """

    def __init__(self, training: Path, treatment: str | None = None) -> None:
        from apbatch.dl.networks.scoring import Network

        network = Network.of_training(training, treatment)
        content = read_json(training / "trained.json")
        self._network = network
        self.camera = network.camera.name
        self.record: dict[str, Any] = {
            "model": content["spec"]["model"],
            "treatment": network.treatment.name,
            "seed": content["spec"]["seed"],
            "sha256": sha256(network.place),
            "identity": content["identity"],
            "training": str(training),
        }
        self.identity = digest([content["identity"], network.treatment.name, sha256(network.place)])

    def scorer(self) -> Scorer:
        """Return the network."""
        from apbatch.dl.networks.scoring import PackedNetwork

        return PackedNetwork.of(self._network)


@dataclass(frozen=True)
class ScoredPart:
    """What a worker made of one part file: rows, how many had no measured pixel, and the seconds of the scorer."""

    name: str
    rows: int
    without_pixels: int
    seconds: float


@dataclass(frozen=True)
class ScoringJob:
    """What a worker needs: where the images are, where scores go, and what scores."""

    images_url: str
    output_url: str
    scorer: Scorer
    camera: str

    def __call__(self, part: str) -> ScoredPart:
        """Score one part file and write its scores, if it has images."""
        _use_one_core()
        n_pixels = camera_named(self.camera).n_pixels
        source = open_store(self.images_url)
        rows = lost = 0
        spent = 0.0
        tables = []
        with source.open(part) as stream:
            try:
                for batch in open_parquet(stream, source.url_of(part)).iter_batches(
                    _ROWS, columns=[*IMAGE_KEY, "image"]
                ):
                    if not batch.num_rows:
                        continue
                    images = np.asarray(from_binary(batch.column("image")), np.float32)
                    if images.shape[1] != n_pixels:
                        raise FormatError(f"images of {images.shape[1]} pixels, not of {self.camera}")
                    usable = np.isfinite(images).any(axis=1) & ~np.isinf(images).any(axis=1)
                    started = time.monotonic()
                    scores = self.scorer.scores(np.where(usable[:, None], images, 0))
                    spent += time.monotonic() - started
                    rows += batch.num_rows
                    lost += int((~usable).sum())
                    columns = {name: batch.column(name) for name in IMAGE_KEY}
                    tables.append(pa.table({**columns, "score": pa.array(np.where(usable, scores, np.nan))}))
            except (pa.ArrowException, OSError, ValueError, KeyError) as error:
                raise FormatError(f"not readable images: {str(error)[:200]}", where=source.url_of(part)) from error
        if tables:
            with open_store(self.output_url).publish(part) as file:
                file.write(table_bytes(pa.concat_tables(tables)))
        return ScoredPart(part, rows, lost, spent)


@cache
def _use_one_core() -> None:
    """Keep TensorFlow to one core: Spark runs as many tasks as it was given cores."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        pass  # TensorFlow runs here already: in one process, in tests


def score_dataset(spark: SparkSession, images_url: str, source: ScoreSource, output_url: str) -> dict[str, Any]:
    """Score a dataset of images; the result is a dataset with the keys of the images and a ``score``, NaN where none.

    Parameters
    ----------
    spark : SparkSession
    images_url : str
        Dataset of images, as the step `clean` makes it.
    source : ScoreSource
        Where the scorer comes from.
    output_url : str
        Where the dataset goes. If the same was made there already, nothing is done; a killed run is done again.

    Returns
    -------
    dict
        ``images``, ``without_pixels``, ``seconds``, ``scoring_seconds`` (summed over workers).

    Raises
    ------
    UsageError, FormatError, NotFoundError
        If the scorer and the images do not fit, or another dataset is there, before Spark starts any task.
    ServerError
        If a task failed.
    """
    sidecar = dataset.info(images_url)
    if sidecar.get("kind") != "images":
        raise UsageError("not a dataset of images", where=images_url)
    camera = camera_named(str(sidecar["camera"]))
    if camera.name != source.camera:
        raise UsageError(f"the images are of {camera.name}, the scores are made for {source.camera}", where=images_url)
    parts = dataset.part_files(images_url)
    identity = digest([images_url, sidecar, source.identity])
    if dataset.is_complete(output_url):
        earlier = dataset.info(output_url)
        if earlier.get("identity") != identity:
            raise UsageError("another dataset is there already", where=output_url, remedy="choose another output")
        return dict(earlier["summary"])
    job = ScoringJob(images_url, output_url, source.scorer(), camera.name)
    started = time.monotonic()
    try:
        context = spark.sparkContext
        scored: list[ScoredPart] = context.parallelize(parts, max(1, len(parts))).mapPartitions(_Each(job)).collect()
    except Exception as error:  # py4j's and pyspark's own; the last line says what a worker said
        causes = [line for line in str(error).splitlines() if "apbatch.errors" in line or "Error:" in line]
        raise ServerError(
            f"scoring failed: {causes[-1][:300] if causes else str(error)[:300]}", where=images_url
        ) from error
    seconds = time.monotonic() - started
    summary = {
        "images": sum(part.rows for part in scored),
        "without_pixels": sum(part.without_pixels for part in scored),
        "seconds": round(seconds, 3),
        "scoring_seconds": round(sum(part.seconds for part in scored), 3),
    }
    content = {
        "kind": "scores",
        "identity": identity,
        "summary": summary,
        "images_url": images_url,
        "network": source.record,
        # These and no others: a killed run of other images, or another scorer, may have left its own here.
        "files": [{"name": part.name} for part in scored if part.rows],
        **provenance("score", [images_url], source.record),
    }
    dataset.write_info(output_url, content)
    with open_store(output_url).publish(dataset.SUCCESS):
        pass
    return summary


@dataclass(frozen=True)
class _Each:
    job: ScoringJob

    def __call__(self, parts: Iterator[str]) -> Iterator[ScoredPart]:
        for part in parts:
            yield self.job(part)


def register_scores(events: EventStore, scores_url: str) -> int:
    """Write scores into the store of events: a row an image beside its image parameters, with the parameter `score`.

    The row's `cleaning` names the network, such as ``score-resnet-soft``, since image parameters of one cleaning are
    replaced as a whole: ``apbatch find --events "cleaning = 'score-resnet-soft' and score > 0.8"``.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    UsageError, NotFoundError, FormatError
    """
    sidecar = dataset.info(scores_url)
    if sidecar.get("kind") != "scores":
        raise UsageError("not a dataset of scores", where=scores_url)
    network = sidecar["network"]
    table = dataset.read_table(scores_url)
    name = f"score-{network['model']}-{network['treatment']}"
    table = table.append_column("cleaning", pa.array([name] * table.num_rows))
    table = table.append_column("dataset", pa.array([sidecar["images_url"]] * table.num_rows))
    table = table.select([*EVENT_KEYS, "dataset", "score"]).combine_chunks()
    try:
        return events.upsert(table.to_batches())
    except ApbatchError as error:
        error.where = error.where or scores_url
        raise

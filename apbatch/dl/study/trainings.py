"""The study: every method on the same blind set of images, several trainings each, with all treatments of the images.

It trains, scores, freezes and unseals; `apbatch.dl.study.evaluation` says what the scores are worth. Each training has
a folder of its own and is done once, so that a killed study goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from apbatch.camera.registry import camera_named
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind import protocol
from apbatch.dl.files import read_json, read_parquet, write_table
from apbatch.dl.judging import box_cuts as classical
from apbatch.dl.judging import rivals
from apbatch.dl.networks.models import check_grid, check_model
from apbatch.dl.networks.treatment import parameters, treatment_named
from apbatch.dl.training import launch
from apbatch.dl.training.data import load_pixels
from apbatch.dl.training.device import Device
from apbatch.dl.training.spec import TrainSpec
from apbatch.errors import FormatError, UsageError
from apbatch.progress import say

SIMPLE = "cuts"
#: Between the name of a method and the number of its training in tables of scores.
_SEED = "#"
Columns = dict[str, npt.NDArray[np.float64]]


class StudySettings(BaseModel):
    """What is compared.

    Attributes
    ----------
    cleanings : tuple of str
        See `apbatch.dl.networks.treatment`.
    models : dict
        Networks by name, with their options.
    grids : tuple of str
        Further grids on which `grid_model` is trained, with the first of the cleanings.
    rivals : tuple of str
        See `apbatch.dl.judging.rivals`.
    symmetric : bool
        As in `apbatch.dl.training.spec.TrainSpec`.
    seeds : int
        Trainings of each network and each tree; they differ in their random start and the order of the images.
    backend, device, mixed_precision
        As in `apbatch.dl.training.spec.TrainSpec`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cleanings: tuple[str, ...] = Field(default=("none", "soft", "standard"), min_length=1)
    models: dict[str, dict[str, int | float]] = Field(
        default={"talk-cnn": {}, "resnet": {}, "hex-cnn": {}}, min_length=1
    )
    grids: tuple[str, ...] = ()
    grid_model: str = "talk-cnn"
    rivals: tuple[str, ...] = ("trees", "forest")
    seeds: int = Field(default=3, ge=1, le=20)
    epochs: int = Field(default=12, ge=1)
    batch_size: int = Field(default=64, ge=1)
    epoch_min: int = Field(default=6000, ge=0)
    learning_rate: float = Field(default=2e-3, gt=0)
    patience: int | None = Field(default=None, ge=1)
    symmetric: bool = False
    backend: Literal["tensorflow", "torch"] = "tensorflow"
    device: Device = "auto"
    mixed_precision: bool = False

    def check(self) -> None:
        """Raise a UsageError for anything unknown, before anything is trained."""
        for name, options in self.models.items():
            check_model(name, options)
        check_model(self.grid_model)
        if self.grids and self.grid_model not in self.models:
            raise UsageError(f"the model of the grids, '{self.grid_model}', is not among the models")
        for grid in self.grids:
            check_grid(self.grid_model, grid)
        for name in self.rivals:
            rivals.check_method(name)
        for name in (*self.cleanings, *(f"{self.cleanings[0]}:{grid}" for grid in self.grids)):
            treatment_named(name)

    def trainings(self, files: Path, output: Path) -> Iterator[tuple[str, TrainSpec]]:
        """Yield the name of each training and its specification."""
        for seed in range(1, self.seeds + 1):
            for name, options in self.models.items():
                more = tuple(f"{self.cleanings[0]}:{grid}" for grid in self.grids if name == self.grid_model)
                yield (
                    f"{name}{_SEED}{seed}",
                    TrainSpec(
                        data=files,
                        output=output / f"{name}-{seed}",
                        variants=self.cleanings + more,
                        model=name,
                        options=options,
                        seed=seed,
                        **self.model_dump(include=set(TrainSpec.model_fields)),  # epochs and the like
                    ),
                )


def method_of(name: str) -> tuple[str, int]:
    """Return the method and the number of the training of a name in a table of scores."""
    method, _, seed = name.partition(_SEED)
    return method, int(seed or 1)


def run(
    folder: Path,
    output: Path,
    settings: StudySettings,
    rule: dict[str, Any],
    collective: Literal["auto", "single", "horovod"] = "auto",
    ranks: int = 2,
) -> Path:
    """Train, score, freeze the scores and open the labels; what an earlier call finished is used.

    Parameters
    ----------
    folder : pathlib.Path
        A blind analysis whose set holds images of a camera.
    output : pathlib.Path
        Folder of trainings and scores.
    rule : dict
        How the scores will be judged: frozen with them.

    Returns
    -------
    pathlib.Path
        ``scores.parquet`` as it was frozen.

    Raises
    ------
    UsageError
        For unknown names, a set of grids, or labels that are open already for other scores.
    ApbatchError
        If a training fails; the message names its log.
    """
    settings.check()
    made = blind.open_set(folder)
    frozen = output / "scores.parquet"
    protocol.check_takes(made, frozen, again=made.open)
    planned = list(settings.trainings(made.files, output / "trainings"))
    images = {split: load_pixels(made.files, made.manifest, split) for split in ("train", "validation", "test")}
    tables = list(_classical(made, images, output / "classical", settings))
    launch.train_all([spec for _, spec in planned], collective, ranks)
    for name, spec in planned:
        predictions = read_parquet(spec.output / "predictions.parquet", ["variant", "split", "id", "score"])
        tables.append(predictions.add_column(0, "method", pa.array([name] * predictions.num_rows)))
    scores = pa.concat_tables(tables).combine_chunks()
    write_table(frozen, scores)
    protocol.submit(folder, frozen, again=made.open, rule=rule)
    protocol.unseal(folder)
    return frozen


def _classical(
    made: blind.BlindSet, images: dict[str, npt.NDArray[np.float32]], output: Path, settings: StudySettings
) -> Iterator[pa.Table]:
    """Yield the scores of the simple technique and its rivals; each is kept in a file of its own."""
    camera = camera_named(made.manifest["camera"])
    gamma = np.asarray(read_parquet(made.files / "train.parquet", ["gamma"])["gamma"].to_numpy(zero_copy_only=False))
    ids = {
        split: read_parquet(made.files / f"{split}.parquet", ["id"])["id"].combine_chunks()
        for split in ("validation", "test")
    }
    methods = [(SIMPLE, 1)] + [(name, seed) for name in settings.rivals for seed in range(1, settings.seeds + 1)]
    for cleaning in settings.cleanings:
        columns: dict[str, Columns] = {}
        for method, seed in methods:
            place = output / f"{method}-{seed}-{cleaning}.parquet"
            if not place.exists():
                say(f"study: {method}, {cleaning}, {seed}")
                columns = columns or {split: parameters(pixels, camera, cleaning) for split, pixels in images.items()}
                others = {split: columns[split] for split in ids}
                found = (
                    _box(columns["train"], gamma, others)
                    if method == SIMPLE
                    else rivals.fit_and_score(method, columns["train"], gamma, others, seed)
                )
                name = method if method == SIMPLE else f"{method}{_SEED}{seed}"
                rows = [_rows(name, cleaning, split, ids[split], found[split]) for split in ids]
                write_table(place, pa.concat_tables(rows))
            yield read_parquet(place)


def _box(train: Columns, gamma: npt.NDArray[np.bool_], others: dict[str, Columns]) -> Columns:
    def features(columns: Columns) -> classical.Features:
        return classical.Features(columns["size"], columns["width"], columns["length"])

    box = classical.fit(features(train), gamma)
    return {split: box.score(features(columns)) for split, columns in others.items()}


def _rows(method: str, variant: str, split: str, ids: Any, scores: npt.NDArray[np.float64]) -> pa.Table:
    n = len(ids)
    return pa.table(
        {
            "method": pa.array([method] * n),
            "variant": pa.array([variant] * n),
            "split": pa.array([split] * n),
            "id": ids,
            "score": pa.array(scores, pa.float64()),
        }
    )


def networks(output: Path) -> list[tuple[str, str, int, Path]]:
    """Return the trained networks of a study: model, treatment, training, and the file of the Keras model.

    Raises
    ------
    FormatError
        If there is none.
    """
    found = []
    for record in sorted((output / "trainings").glob("*/trained.json")):
        content = read_json(record)
        name, seed = content["spec"]["model"], int(content["spec"]["seed"])
        found += [(name, variant, seed, record.parent / variant / "model.keras") for variant in content["variants"]]
    if not found:
        raise FormatError("there are no trained networks", where=str(output))
    return found

"""The study: every method on the same blind set of images, several trainings each, with all treatments of the images.

It trains, scores, freezes and unseals; `apbatch.dl.study.evaluation` says what the scores are worth. Each training has
a folder of its own and is done once, so that a killed study goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apbatch.camera.cleaning import clean
from apbatch.camera.cleaning_rule import NONE, PRESETS
from apbatch.camera.hillas import hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.config import TrainingSettings
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind import protocol
from apbatch.dl.files import read_json, read_parquet, write_table
from apbatch.dl.judging import box_cuts, rivals
from apbatch.dl.judging.direction import BESIDE, DIRECTION, observed_places, towards, with_direction
from apbatch.dl.judging.halo_trees import HALO_TREES, with_partners
from apbatch.dl.judging.score_means import choose_mean
from apbatch.dl.networks.treatment import (
    PARTNERS,
    Treatment,
    cleaning_of,
    images_of,
    parameters,
    treatment_named,
)
from apbatch.dl.study.methods import BOX, training_name
from apbatch.dl.study.settings import StudySettings
from apbatch.dl.training import launch
from apbatch.dl.training.data import load_partners, load_pixels
from apbatch.errors import FormatError
from apbatch.progress import say

Columns = dict[str, npt.NDArray[np.float64]]


def run(
    folder: Path,
    output: Path,
    settings: StudySettings,
    rule: dict[str, Any],
    training: TrainingSettings | None = None,
    ranks: int | None = None,
) -> Path:
    """Train, score, freeze the scores and open the labels; what an earlier call finished is used.

    Parameters
    ----------
    folder : pathlib.Path
        A blind analysis.
    output : pathlib.Path
        Folder of trainings and scores.
    settings : StudySettings
    rule : dict
        How the scores will be judged (`JudgingSettings.rule`): frozen with them.
    training : TrainingSettings, optional
        What computes.
    ranks : int, optional
        Those of `training` by default.

    Returns
    -------
    pathlib.Path
        ``scores.parquet`` as it was frozen.

    Raises
    ------
    UsageError
        For unknown names, or labels that are open already for other scores.
    ApbatchError
        If a training fails; the message names its log.
    """
    settings.check()
    training = training or TrainingSettings()
    blind_set = blind.open_set(folder)
    frozen = output / "scores.parquet"
    protocol.check_takes(blind_set, frozen, again=blind_set.open)
    planned = list(settings.trainings(blind_set.files, output / "trainings", training.network()))
    tables = list(_by_parameters(blind_set, output / "parameters", settings))
    launch.train_all([spec for _, spec in planned], training.collective, ranks or training.ranks)
    for name, spec in planned:
        predictions = read_parquet(spec.output / "predictions.parquet", ["treatment", "split", "id", "score"])
        tables.append(predictions.add_column(0, "method", pa.array([name] * predictions.num_rows)))
    if observed_places(blind_set.files, "train") is not None:
        learned = pa.concat_tables(tables[-len(planned) :])
        tables[-len(planned) :] = list(_towards_source(blind_set, learned))
    tables += list(_means(blind_set, pa.concat_tables(tables), settings))
    write_table(frozen, pa.concat_tables(tables).combine_chunks())
    protocol.submit(folder, frozen, again=blind_set.open, rule=rule)
    protocol.unseal(folder)
    return frozen


def _by_parameters(blind_set: blind.BlindSet, output: Path, settings: StudySettings) -> Iterator[pa.Table]:
    """Yield the scores of the methods that see image parameters; each is kept in a file of its own."""
    camera = camera_named(blind_set.manifest["camera"])
    gamma = np.asarray(
        read_parquet(blind_set.files / "train.parquet", ["gamma"])["gamma"].to_numpy(zero_copy_only=False)
    )
    ids = {
        split: read_parquet(blind_set.files / f"{split}.parquet", ["id"])["id"].combine_chunks()
        for split in ("validation", "test")
    }
    splits = ("train", "validation", "test")
    places = {split: observed_places(blind_set.files, split) for split in splits}
    direction = places["train"] is not None
    methods = [(BOX, 1)] + [(name, seed) for name in settings.rivals for seed in range(1, settings.seeds + 1)]
    for treatment in (*settings.cleanings, *settings.sky_treatments, *settings.plane_treatments):
        rule = treatment_named(treatment)
        columns: dict[str, Columns] = {}
        for method, seed in methods:
            if not _takes(method, rule):
                continue
            kept = output / f"{method}-{seed}-{treatment}.parquet"
            if not kept.exists():
                say(f"study: {method}, {treatment}, {seed}")
                for split in () if columns else splits:
                    images = [load_pixels(blind_set.files, blind_set.manifest, split, rule.sky)]
                    if PARTNERS in rule.planes:
                        images += load_partners(blind_set.files, blind_set.manifest, split)
                    each, place = [parameters(pixels, camera, treatment) for pixels in images], places[split]
                    if place is not None:  # telescopes look at one point, so that it is the same place in each camera
                        each = [towards(own, *place) for own in each]
                    columns[split] = with_partners(each[0], each[1:])
                others = {split: columns[split] for split in ids}
                scores = (
                    box_cuts.fit_and_score(columns["train"], gamma, others, direction=direction)
                    if method == BOX
                    else rivals.fit_and_score(
                        method, columns["train"], gamma, others, seed, DIRECTION[:2] if direction else ()
                    )
                )
                name = method if method == BOX else training_name(method, seed)
                rows = [_rows(name, treatment, split, ids[split], scores[split]) for split in ids]
                write_table(kept, pa.concat_tables(rows))
            yield read_parquet(kept)


def _takes(method: str, rule: Treatment) -> bool:
    """Return whether a method of image parameters can be judged on a treatment for more than on the images alone."""
    if rule.planes:
        return method == HALO_TREES and rule.planes == (PARTNERS,)
    return rivals.takes(method, rule.cleaning)


def _towards_source(blind_set: blind.BlindSet, learned: pa.Table) -> Iterator[pa.Table]:
    """Yield the scores of networks put together with the direction of the image, after each cleaning it still allows.

    Soft cleaning keeps all that the standard one does, and where the sky is bright the latter tells the axis better.
    """
    camera = camera_named(blind_set.manifest["camera"])
    splits = ("validation", "test")
    ids = {split: read_parquet(blind_set.files / f"{split}.parquet", ["id"])["id"].combine_chunks() for split in splits}

    @cache
    def directions(sky: float, cleanings: tuple[str, ...]) -> dict[str, Columns]:
        columns: dict[str, Columns] = {}
        for split in splits:
            place = observed_places(blind_set.files, split)
            assert place is not None
            pixels = load_pixels(blind_set.files, blind_set.manifest, split, sky)
            for cleaning in cleanings:
                image = towards(hillas(pixels, camera, clean(pixels, camera, PRESETS[cleaning])), *place)
                columns.setdefault(split, {}).update({f"{name}_{cleaning}": image[name] for name in BESIDE})
        return columns

    labels = read_parquet(blind_set.files / "validation.parquet", ["gamma", "shower"])
    gamma, shower = (np.asarray(labels[name].to_numpy(zero_copy_only=False)) for name in ("gamma", "shower"))
    for method in pc.unique(learned["method"]).to_pylist():
        mine = learned.filter(pc.equal(learned["method"], method))
        for treatment in pc.unique(mine["treatment"]).to_pylist():
            plain = {split: scores_of(mine, method, treatment, split, ids[split]) for split in ids}
            cleanings = ("standard",) if cleaning_of(treatment) == "standard" else ("soft", "standard")
            beside = directions(treatment_named(treatment).sky, cleanings)
            scores = with_direction(plain, beside, gamma, shower)
            yield from (_rows(method, treatment, split, ids[split], scores[split]) for split in ids)


def scores_of(table: pa.Table, method: str, treatment: str, split: str, ids: Any) -> npt.NDArray[np.float64]:
    """Return the scores that a training gave the images of a split, shape (n_images,).

    Parameters
    ----------
    table : pa.Table
        Columns method, treatment, split, id, score.
    method : str
        The training's name there, such as ``resnet#1``.
    treatment, split : str
    ids : pa.Array
        Names of the images, in the order that is wanted.
    """
    mine = (pc.field("method") == method) & (pc.field("treatment") == treatment) & (pc.field("split") == split)
    own = table.filter(mine).combine_chunks()
    return np.asarray(own["score"].take(pc.index_in(ids, own["id"].combine_chunks())).to_numpy(), np.float64)


def _means(blind_set: blind.BlindSet, scored: pa.Table, settings: StudySettings) -> Iterator[pa.Table]:
    """Yield the scores of the means, one for each training of their members, of uncleaned images under each sky.

    With planes beside the image, members that do not see them are those of the images alone.
    """
    splits = ("validation", "test")
    ids = {split: read_parquet(blind_set.files / f"{split}.parquet", ["id"])["id"].combine_chunks() for split in splits}
    gamma = read_parquet(blind_set.files / "validation.parquet", ["gamma"])["gamma"].to_numpy(zero_copy_only=False)

    treatments = (NONE, *settings.sky_treatments, *settings.plane_treatments)
    pairs = pc.unique(pc.binary_join_element_wise(scored["method"], scored["treatment"], "\x1f")).to_pylist()
    for (name, members), treatment, seed in product(settings.means.items(), treatments, range(1, settings.seeds + 1)):
        names = [training_name(member, seed) for member in members]
        own = [treatment if f"{one}\x1f{treatment}" in pairs else images_of(treatment) for one in names]
        if treatment not in own:
            continue
        each = {
            split: [scores_of(scored, *pair, split, ids[split]) for pair in zip(names, own, strict=True)]
            for split in splits
        }
        mean = choose_mean(each["validation"], np.asarray(gamma, bool))
        parts = ", ".join(f"{weight:.2f} {member}" for weight, member in zip(mean.weights, members, strict=True))
        say(f"study: {name} {seed}, {treatment}, is the mean of the {mean.kind} with the weights {parts}")
        for split in splits:
            yield _rows(training_name(name, seed), treatment, split, ids[split], mean.of(each[split]))


def _rows(method: str, treatment: str, split: str, ids: Any, scores: npt.NDArray[np.float64]) -> pa.Table:
    n = len(ids)
    return pa.table(
        {
            "method": pa.array([method] * n),
            "treatment": pa.array([treatment] * n),
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
    files = []
    for record in sorted((output / "trainings").glob("*/trained.json")):
        content = read_json(record)
        name, seed = content["spec"]["model"], int(content["spec"]["seed"])
        files += [(name, which, seed, record.parent / which / "model.keras") for which in content["treatments"]]
    if not files:
        raise FormatError("there are no trained networks", where=str(output))
    return files

"""What can be known before the first step: every fault of the data or of earlier checkpoints is found here.

The launcher asks before it starts any process, so that a user waits for no TensorFlow to hear of a missing class;
each rank asks again, since it reads the files itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.dl.files import read_parquet
from apbatch.dl.training.checkpoint import Checkpoint, read_checkpoint
from apbatch.dl.training.data import Floats, Images, Turning, load, load_cleaned, parts_of, steps_of
from apbatch.dl.training.shards import Shards
from apbatch.dl.training.spec import TrainSpec, identity_of
from apbatch.errors import FormatError, UsageError


@dataclass(frozen=True)
class PendingTraining:
    """One network to be trained: its data, and where it stands.

    Attributes
    ----------
    checkpoint : pathlib.Path
        Where its state is kept.
    images : dict
        By split.
    targets : dict
        What the outputs of the network should be for the training and validation images, shape (n, n_outputs).
    values : ndarray of float32
        Training images as `turning` takes them: the camera's pixels after cleaning.
    turning : Turning
        How a batch is turned and put on the grid.
    shards : Shards, optional
        Where training images are read from disk; `images` and `values` then hold those of the first row group.
    earlier : Checkpoint, optional
        What a killed run left.
    """

    treatment: str
    identity: str
    checkpoint: Path
    images: dict[str, Images]
    targets: dict[str, Floats]
    values: Floats
    turning: Turning
    shards: Shards | None
    earlier: Checkpoint | None


def check(spec: TrainSpec, manifest: dict[str, Any], ranks: int) -> list[PendingTraining]:
    """Load and check everything.

    Parameters
    ----------
    spec : TrainSpec
    manifest : dict
        Manifest of the set.
    ranks : int

    Raises
    ------
    FormatError
        For a broken image or checkpoint.
    UsageError
        For a missing class, too few images, or a checkpoint of another model.
    """
    runs = []
    for treatment in spec.treatments:
        identity = f"{identity_of(spec, manifest)}-{treatment}"
        shards = Shards(spec.data, manifest, treatment) if spec.stream else None
        images = {split: load(spec.data, manifest, split, treatment) for split in ("validation", "test")}
        images["train"] = load(spec.data, manifest, "train", treatment) if shards is None else _first(shards, spec.data)
        values = images["train"].pixels
        # A direction would have to be turned with its image.
        turning = Turning.of(manifest, treatment, spec.augment and spec.task == "separation")
        if shards is None:
            values = load_cleaned(spec.data, manifest, "train", treatment)
        for split in ("train", "validation"):
            gamma = images[split].gamma
            assert gamma is not None
            for there, name in ((gamma.any(), "gammas"), ((~gamma).any(), "hadrons")):
                if not there:
                    where = str(spec.data / f"{split}.parquet")
                    raise UsageError(f"there are no {name} in the {split} set", where=where)
        targets = {split: images[split].gamma for split in ("train", "validation")}
        labels = {split: _labels(gamma) for split, gamma in targets.items()}
        if spec.auxiliary:
            more = {split: _auxiliary(spec.data / f"{split}.parquet", list(spec.auxiliary)) for split in labels}
            labels = {split: np.concatenate([labels[split], more[split]], axis=1) for split in labels}
        if shards is not None:
            shards.steps(spec.batch_size, parts_of(ranks))
        if spec.task == "showers" and shards is not None:
            raise UsageError("a training of the task 'showers' takes its images from memory", remedy="stream: false")
        if spec.task == "showers":
            for split in ("train", "validation"):
                images[split], labels[split], use = _showers(spec.data / f"{split}.parquet", images[split])
                values = values[use] if split == "train" else values
        steps_of(len(images["train"].ids), spec.batch_size, parts_of(ranks))
        place = spec.output / treatment / "checkpoint.npz"
        runs.append(
            PendingTraining(
                treatment, identity, place, images, labels, values, turning, shards, read_checkpoint(place, identity)
            )
        )
    return runs


def _first(shards: Shards, files: Path) -> Images:
    """Look at every image once, keep the first row group, and all labels."""
    pixels = shards.grids(shards.read(0))
    for group in range(1, len(shards.rows)):
        shards.read(group)
    gamma = read_parquet(files / "train.parquet", ["gamma"])["gamma"].to_numpy(zero_copy_only=False)
    return Images(shards.ids, pixels, np.asarray(gamma, bool))


def _labels(gamma: npt.NDArray[np.bool_] | None) -> Floats:
    assert gamma is not None
    return gamma.astype(np.float32)[:, None]


def _auxiliary(place: Path, names: list[str]) -> Floats:
    """Return the auxiliary targets of a split, of the order of 1, shape (n, n_names); NaN where the truth is not known.

    Raises
    ------
    FormatError
        If the set does not hold the truth of its training images.
    """
    table = read_parquet(place, names)
    targets = []
    for name in names:
        values = table[name].to_numpy(zero_copy_only=False).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log10(values) if name == "energy" else values / 100.0
        targets.append(np.where(np.isfinite(values), values, np.nan))
    return np.column_stack(targets).astype(np.float32)


def _showers(place: Path, images: Images) -> tuple[Images, Floats, npt.NDArray[np.bool_]]:
    """Return the gammas of a split, the logarithm of their energy and their direction, and which they are.

    Raises
    ------
    FormatError
        If the set does not hold the truth of its training images.
    """
    table = read_parquet(place, ["energy", "source_x", "source_y"])
    columns = [table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in table.column_names]
    with np.errstate(divide="ignore", invalid="ignore"):
        truth = np.column_stack([np.log10(columns[0]), columns[1], columns[2]])
    assert images.gamma is not None
    use = images.gamma & np.isfinite(truth).all(axis=1)
    if not use.any():
        raise FormatError("no gamma has an energy and a direction", where=str(place))
    ids = [name for name, keep in zip(images.ids, use, strict=True) if keep]
    return Images(ids, images.pixels[use], images.gamma[use]), truth[use].astype(np.float32), use

"""What can be known before the first step: every fault of the data or of earlier checkpoints is found here.

The launcher asks before it starts any process, so that a user waits for no TensorFlow to hear of a missing class;
each rank asks again, since it reads the files itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apbatch.dl.checkpoint import Checkpoint, read_checkpoint
from apbatch.dl.data import Images, load, parts_of, steps_of
from apbatch.dl.spec import TrainSpec, identity_of
from apbatch.errors import UsageError


@dataclass(frozen=True)
class Run:
    """One network to be trained: its data, and where it stands.

    Attributes
    ----------
    checkpoint : pathlib.Path
        Where its state is kept.
    images : dict
        By split.
    earlier : Checkpoint, optional
        What a killed run left.
    """

    variant: str
    identity: str
    checkpoint: Path
    images: dict[str, Images]
    earlier: Checkpoint | None


def check(spec: TrainSpec, manifest: dict[str, Any], ranks: int) -> list[Run]:
    """Load and check everything.

    Raises
    ------
    FormatError
        For a broken image or checkpoint.
    UsageError
        For a missing class, too few images, or a checkpoint of another model.
    """
    runs = []
    for variant in spec.variants:
        identity = f"{identity_of(spec, manifest)}-{variant}"
        images = {split: load(spec.data, manifest, split, variant) for split in ("train", "validation", "test")}
        for split in ("train", "validation"):
            gamma = images[split].gamma
            assert gamma is not None
            for there, name in ((gamma.any(), "gammas"), ((~gamma).any(), "hadrons")):
                if not there:
                    where = str(spec.data / f"{split}.parquet")
                    raise UsageError(f"there are no {name} in the {split} set", where=where)
        steps_of(len(images["train"].ids), spec.batch_size, parts_of(ranks))
        place = spec.output / variant / "checkpoint.npz"
        runs.append(Run(variant, identity, place, images, read_checkpoint(place, identity)))
    return runs

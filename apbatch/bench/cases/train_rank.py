"""One rank of the measurement of ranks: ``python -m apbatch.bench.cases.train_rank FOLDER KIND MODEL IMAGES BATCH``.

KIND is ``single``, ``horovod``, or ``apart-0`` and ``apart-1`` for two that do what two ranks do, each for itself.

It builds its network once and then trains an epoch whenever the suite asks, by a file in the folder, since a launcher
of ranks passes nothing on by a pipe.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from apbatch.dl.networks.models import build
from apbatch.dl.training.collective import Collective, Single, collective_named
from apbatch.dl.training.data import load, parts_of, scale_of
from apbatch.dl.training.engines import engine

#: Files of a measurement: asked for by the suite, answered by each rank, and the last one.
ASKED, DONE, END = "asked-{number}", "done-{number}-{rank}", "end"
ISOLATED = "apart"
_WAIT_S = 0.002


class Isolated(Single):
    """One of two ranks that keep their gradients for themselves."""

    size = 2

    def __init__(self, rank: int) -> None:
        self.rank = rank


def main(arguments: list[str]) -> int:
    """Answer until the file `END` is there, or the folder is gone."""
    folder, kind, name, images, batch = Path(arguments[0]), *arguments[1:3], int(arguments[3]), int(arguments[4])
    base, _, rank = kind.partition("-")
    collective: Collective = Isolated(int(rank)) if base == ISOLATED else collective_named(kind)
    manifest = json.loads((folder.parent / "manifest.json").read_text())
    train = load(folder.parent, manifest, "train", "soft")
    assert train.gamma is not None
    targets, weights = train.gamma.astype(np.float32)[:, None], np.ones(len(train.ids), np.float32)
    model = build(name, (train.pixels.shape[1], train.pixels.shape[2]), *scale_of(train))
    # Every rank holds what rank 0 holds.
    model.set_weights(collective.broadcast(model.get_weights()))
    trainer = engine("tensorflow", model, 1e-3, True, collective)
    share = batch // parts_of(collective.size) * (parts_of(collective.size) // collective.size)
    first = collective.rank * share
    trainer.step(train.pixels[:share], targets[:share], weights[:share])  # compiles
    number = 0
    while True:
        (folder / DONE.format(number=number, rank=collective.rank)).touch()
        number += 1
        while not (folder / ASKED.format(number=number)).exists():
            if (folder / END).exists() or not folder.exists():
                return 0
            time.sleep(_WAIT_S)
        order = np.random.default_rng(number).permutation(images).reshape(-1, batch)[:, first : first + share]
        for rows in order:
            trainer.step(train.pixels[rows], targets[rows], weights[rows])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

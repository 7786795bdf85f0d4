"""Ranks that go on after a kill: what rank 0 alone has read of the past counts for all of them."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from apbatch.dl.training import loop
from apbatch.dl.training.checkpoint import Checkpoint

#: Of the validation set after each epoch: the first is the best.
LOSSES = (0.40, 0.50, 0.55, 0.52, 0.60)


class Engine:
    """Weights that tell the epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def weights(self) -> list[Any]:
        return [np.array([self.epoch])]

    def state(self) -> list[Any]:
        return [np.zeros(1)]

    def restore(self, weights: list[Any], state: list[Any]) -> None:
        self.epoch = int(weights[0][0])


class Ranks:
    """Two threads that wait for each other, as ranks do."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=20)
        self.sent: list[Any] = []

    def of(self, rank: int) -> Any:
        def broadcast(arrays: list[Any]) -> list[Any]:
            if rank == 0:
                self.sent = list(arrays)
            self.barrier.wait()
            received = [np.array(array) for array in self.sent]
            self.barrier.wait()
            return received

        return SimpleNamespace(rank=rank, size=2, broadcast=broadcast)


@pytest.mark.parametrize("patience", [None, 3])
@pytest.mark.parametrize("done", [0, 2, 3])
def test_every_rank_ends_with_the_weights_of_the_best_epoch_also_after_a_kill(
    tmp_path: Path, done: int, patience: int | None
) -> None:
    ranks = Ranks()
    ended: dict[int, tuple[int, int]] = {}

    def work(rank: int) -> None:
        trainer = object.__new__(loop.Trainer)
        curves = [{"validation_loss": loss} for loss in LOSSES[:done]]
        earlier = Checkpoint("x", done, [np.array([done])], [np.zeros(1)], [np.array([min(done, 1)])], curves)
        engine = Engine()
        trainer._engine, trainer._collective = engine, ranks.of(rank)  # type: ignore[assignment]
        trainer._spec = SimpleNamespace(epochs=5, patience=patience, auxiliary={}, symmetric=False)  # type: ignore[assignment]
        trainer._run = SimpleNamespace(  # type: ignore[assignment]
            identity="x", treatment="none", checkpoint=tmp_path / "checkpoint", earlier=earlier if done else None,
            turning=SimpleNamespace(cell_tables=list),
        )  # fmt: skip

        def epoch(number: int) -> dict[str, float]:
            ranks.barrier.wait()  # an epoch's reductions
            engine.epoch = number + 1
            return {"validation_loss": LOSSES[number]}

        trainer._epoch = epoch  # type: ignore[method-assign]
        try:
            ended[rank] = (trainer.fit().epoch, engine.epoch)
        except BaseException:
            ranks.barrier.abort()
            raise

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == dict.fromkeys((0, 1), (4 if patience else 5, 1))

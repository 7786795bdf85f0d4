"""One rank of a training run: ``python -m apbatch.dl.training.loop SPEC.json single|horovod``.

A step takes one global batch, split over the ranks, and the gradients are averaged: one rank or several make the
same steps up to rounding. Random numbers depend on seed and epoch alone, so a restart repeats what was lost.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.dl.blind.blind_set import read_manifest
from apbatch.dl.files import write_json, write_table
from apbatch.dl.networks.models import build, symmetrised, without_auxiliary
from apbatch.dl.networks.planes import planes_of_a_telescope
from apbatch.dl.networks.treatment import treatment_named
from apbatch.dl.training.checkpoint import Checkpoint
from apbatch.dl.training.collective import Collective, collective_named
from apbatch.dl.training.data import Floats, order_of, parts_of, scale_of
from apbatch.dl.training.device import take
from apbatch.dl.training.engines import engine, repeatable
from apbatch.dl.training.prefetch import ahead
from apbatch.dl.training.preflight import PendingTraining, check
from apbatch.dl.training.ranks import rank_of_this_process
from apbatch.dl.training.spec import TrainSpec, identity_of, read_spec
from apbatch.errors import ApbatchError, UsageError
from apbatch.localfiles import locked, write_whole
from apbatch.provenance import versions

#: Lines of rank 0 that begin so are for the launcher.
MARK = "@apbatch "
_PREDICT = 256
#: Steps over which the learning rate rises to its full value: new weights take no large steps on noise.
_WARM_UP = 200


def tell(event: str, **content: Any) -> None:
    """Tell the launcher what happened."""
    print(MARK + json.dumps({"event": event, **content}), flush=True)


def run(spec: TrainSpec, collective: Collective) -> None:
    """Train every treatment, or go on with it, and score the validation and test sets.

    Raises
    ------
    ApbatchError
        For data or checkpoints that don't fit, before anything is trained.
    """
    device = take(spec.device, spec.backend)
    repeatable(spec.backend)
    manifest = read_manifest(spec.data)
    tables, summary = [], {}
    for run in check(spec, manifest, collective.size):  # everything is checked before the first is trained
        start = time.monotonic()
        trainer = Trainer(spec, collective, run)
        state = trainer.fit()
        numbers = {split: trainer.predict(run.images[split].pixels) for split in ("validation", "test")}
        tables += [_scores(spec, run.treatment, split, run.images[split].ids, numbers[split]) for split in numbers]
        if collective.rank == 0:
            trainer.save(spec.output / run.treatment / "model.keras")
            summary[run.treatment] = {
                "curves": state.curves,
                "validation": trainer.judged(numbers["validation"]),
                "seconds": round(time.monotonic() - start, 2),
            }
    if collective.rank == 0:
        write_table(spec.output / "predictions.parquet", pa.concat_tables(tables))
        write_json(
            spec.output / "trained.json",
            {
                "identity": identity_of(spec, manifest),
                "camera": manifest["camera"],
                "spec": spec.model_dump(mode="json"),
                "files": manifest["files"],
                "commitment": manifest["commitment"],
                "ranks": collective.size,
                "device": device,
                "treatments": summary,
                "parameters": trainer.n_parameters,
                "versions": versions(),
            },
        )
        tell("done")


def _scores(spec: TrainSpec, treatment: str, split: str, ids: list[str], numbers: Floats) -> pa.Table:
    n = len(ids)
    return pa.table(
        {
            "method": pa.array([spec.model] * n),
            "treatment": pa.array([treatment] * n),
            "split": pa.array([split] * n),
            "id": pa.array(ids, pa.string()),
            **{name: pa.array(numbers[:, at].astype(np.float64)) for at, name in enumerate(spec.outputs)},
        }
    )


class Trainer:
    """A model, its optimizer and its data on one rank."""

    def __init__(self, spec: TrainSpec, collective: Collective, run: PendingTraining) -> None:
        import keras

        self._spec, self._collective, self._run = spec, collective, run
        self._train, self._validation = run.images["train"], run.images["validation"]
        train = self._train
        keras.utils.set_random_seed(spec.seed)
        if spec.mixed_precision:
            keras.mixed_precision.set_global_policy("mixed_bfloat16")
        shape, rule = train.pixels.shape[1:], treatment_named(run.treatment)
        telescopes = shape[2] // planes_of_a_telescope(rule) if rule.planes else 1
        mean, spread = scale_of(train)
        self._targets = run.targets["train"]
        self._classify = spec.task == "separation"
        weights = tuple(spec.auxiliary.values())
        self._outputs = self._targets.shape[1] - len(weights)
        model = build(spec.model, shape, mean, spread, self._outputs, spec.options, len(weights), telescopes)
        self._engine = engine(spec.backend, model, spec.learning_rate, self._classify, collective, weights)
        self.n_parameters = int(model.count_params())
        self._weights = np.ones(len(train.ids), np.float32)
        if self._classify:  # both classes weigh the same in the loss, whatever their numbers
            gamma = self._targets[:, 0]
            self._weights = np.where(gamma > 0, 0.5 / gamma.mean(), 0.5 / (1 - gamma.mean())).astype(np.float32)

    def fit(self) -> Checkpoint:
        """Train to the end, from the checkpoint if there is one; the network then is the best epoch's."""
        spec, collective, run = self._spec, self._collective, self._run
        # What counts is what rank 0 read; the others may run where its files are not.
        earlier = run.earlier if collective.rank == 0 else None
        state = earlier or Checkpoint(
            run.identity, 0, self._engine.weights(), self._engine.state(), self._engine.weights()
        )
        progress = collective.broadcast([np.array([state.epoch, int(state.finished)])])[0]
        state.epoch, state.finished = int(progress[0]), bool(progress[1])
        self._engine.restore(collective.broadcast(state.weights), collective.broadcast(state.optimizer))
        state.best = collective.broadcast(state.best)
        if collective.rank == 0 and state.epoch:
            tell("resumed", treatment=run.treatment, epoch=state.epoch, epochs=spec.epochs)
        while state.epoch < spec.epochs and not state.finished:
            entry = self._epoch(state.epoch)
            state.epoch += 1
            state.curves.append(entry)
            # Rank 0 decides for all of them: after a kill no other rank has the losses of the epochs before.
            improved, finished = collective.broadcast([np.array(_verdict(state.curves, spec), np.int64)])[0]
            if improved:
                state.best = self._engine.weights()
            state.finished = bool(finished)
            state.weights, state.optimizer = self._engine.weights(), self._engine.state()
            if collective.rank == 0:
                state.write(run.checkpoint)
                tell("epoch", treatment=run.treatment, epoch=state.epoch, epochs=spec.epochs, **entry)
        self._engine.restore(state.best, state.optimizer)
        if spec.auxiliary:
            self._engine.finish(without_auxiliary(self._engine.model))
        tables = run.turning.cell_tables()
        if spec.symmetric and len(tables) > 1:
            self._engine.finish(symmetrised(self._engine.model, tables))
        return state

    def _epoch(self, epoch: int) -> dict[str, float]:
        spec, collective = self._spec, self._collective
        start = time.monotonic()
        # A cosine from the full rate to a hundredth of it: the last epochs settle.
        phase = 0.5 * (1 + np.cos(np.pi * epoch / spec.epochs))
        rate = spec.learning_rate * (0.01 + 0.99 * phase)
        self._engine.set_rate(rate)
        losses: list[SupportsFloat] = []
        images = 0
        for pixels, rows in ahead(self._batches(epoch), 2):
            if epoch == 0:
                self._engine.set_rate(rate * min(1.0, (len(losses) + 1) / _WARM_UP))
            losses.append(self._engine.step(pixels, self._targets[rows], self._weights[rows]))
            images += len(rows) * collective.size
        total, steps = sum(map(float, losses)), len(losses)
        loss = float(collective.sum_array(np.array([total], np.float32))[0]) / collective.size / max(steps, 1)
        if not np.isfinite(loss):
            raise ApbatchError("training diverged: the loss is not a number", remedy="a smaller learning_rate")
        validation = self.judged(self.predict(self._validation.pixels))
        seconds = time.monotonic() - start
        return {
            "loss": loss,
            **validation,
            "learning_rate": float(rate),
            "images_per_s": round(images / seconds, 1),
            "seconds": round(seconds, 3),
        }

    def _batches(self, epoch: int) -> Iterator[tuple[Floats, npt.NDArray[np.int64]]]:
        """Yield this rank's share of each batch of an epoch, turned: pixels and rows of the set."""
        spec, collective = self._spec, self._collective
        parts = parts_of(collective.size)
        random, turning = np.random.default_rng([spec.seed, epoch, 2]), self._run.turning
        n_turns = len(turning.tables)
        if self._run.shards is None:
            order = order_of(len(self._train.ids), epoch, spec.seed, spec.batch_size, parts, spec.epoch_min)
            turns = random.integers(n_turns, size=order.shape)
            share = order.shape[1] // collective.size
            mine = slice(collective.rank * share, (collective.rank + 1) * share)
            for rows, turn in zip(order[:, mine], turns[:, mine], strict=True):
                yield turning(self._run.values[rows], turn), rows
            return
        own = parts // collective.size
        own_parts = range(collective.rank * own, (collective.rank + 1) * own)
        for values, rows, places in self._run.shards.batches(epoch, spec.seed, spec.batch_size, parts, own_parts):
            yield turning(values, random.integers(n_turns, size=spec.batch_size)[places]), rows

    def judged(self, outputs: Floats) -> dict[str, float]:
        """Return the loss of the validation set and what a person understands: AUC, or errors of the outputs."""
        targets = self._run.targets["validation"]
        if self._classify:
            scores, gamma = outputs[:, 0], targets[:, 0] > 0
            clipped = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
            loss = -0.5 * (np.log(clipped[gamma]).mean() + np.log1p(-clipped[~gamma]).mean())
            return {"validation_loss": float(loss), "validation_auc": _auc(scores, gamma)}
        error = np.abs(outputs.astype(np.float64) - targets)
        huber = np.where(error < 1, 0.5 * error**2, error - 0.5)
        return {"validation_loss": float(huber.mean()), "validation_error": float(np.median(error))}

    def predict(self, pixels: Floats) -> Floats:
        """Return scores in 0…1 (or the numbers) of images, shape (n, n_outputs).

        Ranks take blocks in turn; each gets the numbers of all.
        """
        numbers = np.zeros((len(pixels), self._outputs), np.float32)
        # Blocks do not depend on the number of ranks, so neither do the last bits of the scores.
        mine = range(self._collective.rank * _PREDICT, len(pixels), self._collective.size * _PREDICT)
        for start in mine:
            block = slice(start, start + _PREDICT)
            outputs = self._engine.outputs(pixels[block])[:, : self._outputs]
            numbers[block] = 1 / (1 + np.exp(-outputs)) if self._classify else outputs
        return self._collective.sum_array(numbers)

    def save(self, path: Path) -> None:
        """Save the Keras model in one move."""
        part = path.with_name(".model.part.keras")
        self._engine.model.save(part)
        write_whole(path, part.read_bytes())
        part.unlink()


def _verdict(curves: list[dict[str, float]], spec: TrainSpec) -> tuple[bool, bool]:
    """Return whether the last of these epochs is the best so far, and whether it is the last of all."""
    losses = [entry["validation_loss"] for entry in curves]
    since_best = len(losses) - 1 - int(np.argmin(losses))
    return since_best == 0, len(losses) == spec.epochs or (spec.patience is not None and since_best >= spec.patience)


def _auc(scores: Floats, gamma: npt.NDArray[np.bool_]) -> float:
    """Return the probability that a gamma scores above a hadron, ties counting half."""
    _, ranks, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = (np.cumsum(counts) - (counts - 1) / 2)[ranks]
    n_gamma, n_hadron = int(gamma.sum()), int((~gamma).sum())
    return float((mean_rank[gamma].sum() - n_gamma * (n_gamma + 1) / 2) / (n_gamma * n_hadron))


def _end_with(launcher: int) -> None:
    """End this rank when the launcher is gone, however it died: a restart must not meet an orphan."""

    def watch() -> None:
        while True:
            time.sleep(1)
            try:
                os.kill(launcher, 0)
            except ProcessLookupError:
                os._exit(70)
            except PermissionError:
                return

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> int:
    """Run one rank; an error is left for the launcher in ``error-RANK.json``."""
    spec = read_spec(Path(arguments[0]))
    if os.environ.get("APBATCH_LAUNCHER"):
        _end_with(int(os.environ["APBATCH_LAUNCHER"]))
    rank = rank_of_this_process()
    refusal = UsageError("another process trains into this folder", where=str(spec.output))
    try:
        with locked(spec.output / ".lock", lambda _: refusal) if rank == 0 else nullcontext():
            run(spec, collective_named(arguments[1]))
    except ApbatchError as error:
        content = {"kind": type(error).__name__, "what": error.what, "where": error.where, "remedy": error.remedy}
        write_json(spec.output / f"error-{rank}.json", {**content, "nearest": error.nearest})
        print(f"apbatch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

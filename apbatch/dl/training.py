"""One rank of a training run: ``python -m apbatch.dl.training SPEC.json single|horovod``; see `apbatch.dl.launch`.

A step takes one global batch, split over the ranks, and the gradients are averaged: one rank or several make the
same steps up to rounding. Random numbers depend on seed and epoch alone, so a restart repeats what was lost.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.dl.blind import read_manifest
from apbatch.dl.checkpoint import Checkpoint
from apbatch.dl.collective import Collective, collective_named
from apbatch.dl.data import Floats, Images, order_of, parts_of, scale_of, symmetries, turned
from apbatch.dl.files import write_bytes, write_json, write_table
from apbatch.dl.models import build
from apbatch.dl.preflight import Run, check
from apbatch.dl.spec import TrainSpec, identity_of, read_spec
from apbatch.errors import ApbatchError, UsageError
from apbatch.provenance import versions

#: Lines of rank 0 that begin so are for the launcher.
MARK = "@apbatch "
_PREDICT = 256


def tell(event: str, **content: Any) -> None:
    """Tell the launcher what happened."""
    print(MARK + json.dumps({"event": event, **content}), flush=True)


def run(spec: TrainSpec, collective: Collective) -> None:
    """Train every variant, or go on with it, and score the validation and test sets.

    Raises
    ------
    ApbatchError
        For data or checkpoints that don't fit, before anything is trained.
    """
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    manifest = read_manifest(spec.data)
    tables, summary = [], {}
    for run in check(spec, manifest, collective.size):  # everything is checked before the first is trained
        start = time.monotonic()
        trainer = Trainer(spec, collective, run)
        state = trainer.fit()
        for split in ("validation", "test"):
            scores = trainer.predict(run.images[split].pixels)
            tables.append(_scores("cnn", run.variant, split, run.images[split].ids, scores))
        if collective.rank == 0:
            trainer.save(spec.output / run.variant / "model.keras")
            summary[run.variant] = {"curves": state.curves, "seconds": round(time.monotonic() - start, 2)}
    if collective.rank == 0:
        write_table(spec.output / "predictions.parquet", pa.concat_tables(tables))
        write_json(
            spec.output / "trained.json",
            {
                "identity": identity_of(spec, manifest),
                **{name: manifest[name] for name in ("camera",) if name in manifest},
                "spec": spec.model_dump(mode="json"),
                "ranks": collective.size,
                "variants": summary,
                "parameters": trainer.n_parameters,
                "versions": versions(),
            },
        )
        tell("done")


def _scores(method: str, variant: str, split: str, ids: list[str], scores: Floats) -> pa.Table:
    n = len(ids)
    return pa.table(
        {
            "method": pa.array([method] * n),
            "variant": pa.array([variant] * n),
            "split": pa.array([split] * n),
            "id": pa.array(ids, pa.string()),
            "score": pa.array(scores.astype(np.float64)),
        }
    )


class Trainer:
    """A model, its optimizer and its data on one rank."""

    def __init__(self, spec: TrainSpec, collective: Collective, run: Run) -> None:
        import keras
        import tensorflow as tf

        self._spec, self._collective, self._run = spec, collective, run
        self._train, self._validation = run.images["train"], run.images["validation"]
        train = self._train
        keras.utils.set_random_seed(spec.seed)
        _, rows, cols = train.pixels.shape
        shape = rows, cols
        mean, spread = scale_of(train)
        self._model = model = build(spec.model, shape, mean, spread, options=spec.options)
        self._optimizer = optimizer = keras.optimizers.Adam(spec.learning_rate)
        optimizer.build(model.trainable_variables)
        self.n_parameters = int(model.count_params())
        # Both classes weigh the same in the loss, whatever their numbers.
        gamma = self._labels(train)
        self._weights = np.where(gamma > 0, 0.5 / gamma.mean(), 0.5 / (1 - gamma.mean())).astype(np.float32)
        seen = (np.abs(train.pixels) > 0).any(axis=0)
        self._symmetries = symmetries(seen) if spec.augment else np.arange(seen.size)[None]

        own = parts_of(collective.size) // collective.size

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[
                tf.TensorSpec((None, *shape), tf.float32),
                tf.TensorSpec((None,), tf.float32),
                tf.TensorSpec((None,), tf.float32),
            ]
        )
        def step(pixels: Any, labels: Any, weights: Any) -> Any:
            # A tower for each part: the sums are the same whether one rank holds two parts or two ranks one each.
            towers = []
            for part in zip(*(tf.split(values, own) for values in (pixels, labels, weights)), strict=True):
                with tf.GradientTape() as tape:
                    logits = model(part[0], training=True)[:, 0]
                    losses = tf.nn.sigmoid_cross_entropy_with_logits(part[1], logits)
                    loss = tf.reduce_mean(losses * part[2])
                towers.append([loss, *tape.gradient(loss, model.trainable_variables)])
            loss, *gradients = [tf.add_n(values) / own for values in zip(*towers, strict=True)]
            optimizer.apply(collective.mean(gradients), model.trainable_variables)
            return loss

        @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.float32)])  # type: ignore[untyped-decorator]
        def score(pixels: Any) -> Any:
            return tf.sigmoid(model(pixels, training=False)[:, 0])

        self._step, self._score = step, score

    @staticmethod
    def _labels(images: Images) -> Floats:
        assert images.gamma is not None
        return images.gamma.astype(np.float32)

    def fit(self) -> Checkpoint:
        """Train to the end, from the checkpoint if there is one; the best epoch's weights are set at the end."""
        spec, collective, run = self._spec, self._collective, self._run
        # What counts is what rank 0 read; the others may run where its files are not.
        earlier = run.earlier if collective.rank == 0 else None
        state = earlier or Checkpoint(run.identity, 0, self._weights_now(), self._optimizer_now(), self._weights_now())
        progress = collective.broadcast([np.array([state.epoch, int(state.finished)])])[0]
        state.epoch, state.finished = int(progress[0]), bool(progress[1])
        self._set(collective.broadcast(state.weights), collective.broadcast(state.optimizer))
        state.best = collective.broadcast(state.best)
        if collective.rank == 0 and state.epoch:
            tell("resumed", variant=run.variant, epoch=state.epoch, epochs=spec.epochs)
        while state.epoch < spec.epochs and not state.finished:
            entry = self._epoch(state.epoch)
            state.epoch += 1
            # Every rank has the same validation loss, so all of them decide alike.
            losses = [past["validation_loss"] for past in state.curves]
            if not losses or entry["validation_loss"] < min(losses):
                state.best = self._weights_now()
            state.curves.append(entry)
            losses.append(entry["validation_loss"])
            since_best = len(losses) - 1 - int(np.argmin(losses))
            state.finished = state.epoch == spec.epochs or (spec.patience is not None and since_best >= spec.patience)
            state.weights, state.optimizer = self._weights_now(), self._optimizer_now()
            if collective.rank == 0:
                state.write(run.checkpoint)
                tell("epoch", variant=run.variant, epoch=state.epoch, epochs=spec.epochs, **entry)
        self._set(state.best, state.optimizer)
        return state

    def _epoch(self, epoch: int) -> dict[str, float]:
        spec, collective = self._spec, self._collective
        start = time.monotonic()
        # A cosine from the full rate to a hundredth of it: the last epochs settle.
        phase = 0.5 * (1 + np.cos(np.pi * epoch / spec.epochs))
        rate = spec.learning_rate * (0.01 + 0.99 * phase)
        self._optimizer.learning_rate.assign(rate)
        n_train = len(self._train.ids)
        order = order_of(n_train, epoch, spec.seed, spec.batch_size, parts_of(collective.size), spec.epoch_min)
        turns = np.random.default_rng([spec.seed, epoch, 2]).integers(len(self._symmetries), size=order.shape)
        share = order.shape[1] // collective.size
        mine = slice(collective.rank * share, (collective.rank + 1) * share)
        labels = self._labels(self._train)
        total = 0.0
        for rows, turn in zip(order[:, mine], turns[:, mine], strict=True):
            pixels = turned(self._train.pixels[rows], self._symmetries, turn)
            total += float(self._step(pixels, labels[rows], self._weights[rows]))
        loss = float(collective.sum_array(np.array([total], np.float32))[0]) / collective.size / len(order)
        if not np.isfinite(loss):
            raise ApbatchError("training diverged: the loss is no number", remedy="a smaller learning_rate")
        scores = self.predict(self._validation.pixels)
        gamma = self._labels(self._validation) > 0
        clipped = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
        validation = -0.5 * (np.log(clipped[gamma]).mean() + np.log1p(-clipped[~gamma]).mean())
        seconds = time.monotonic() - start
        return {
            "loss": loss,
            "validation_loss": float(validation),
            "validation_auc": _auc(scores, gamma),
            "learning_rate": float(rate),
            "images_per_s": round(order.size / seconds, 1),
            "seconds": round(seconds, 3),
        }

    def predict(self, pixels: Floats) -> Floats:
        """Score images, shape (n, rows, cols): ranks take blocks in turn; each gets the scores of all."""
        scores = np.zeros(len(pixels), np.float32)
        # Blocks do not depend on the number of ranks, so neither do the last bits of the scores.
        mine = range(self._collective.rank * _PREDICT, len(pixels), self._collective.size * _PREDICT)
        for start in mine:
            block = slice(start, start + _PREDICT)
            scores[block] = self._score(pixels[block]).numpy()
        return self._collective.sum_array(scores)

    def save(self, path: Path) -> None:
        """Save the Keras model in one move."""
        part = path.with_name(".model.part.keras")
        self._model.save(part)
        write_bytes(path, part.read_bytes())
        part.unlink()

    def _weights_now(self) -> list[npt.NDArray[Any]]:
        return [np.array(weight) for weight in self._model.get_weights()]

    def _optimizer_now(self) -> list[npt.NDArray[Any]]:
        return [np.asarray(variable.numpy()) for variable in self._optimizer.variables]

    def _set(self, weights: list[npt.NDArray[Any]], optimizer: list[npt.NDArray[Any]]) -> None:
        self._model.set_weights(weights)
        for variable, value in zip(self._optimizer.variables, optimizer, strict=True):
            variable.assign(value)


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
    rank = int(os.environ.get("HOROVOD_RANK", "0"))
    try:
        with (spec.output / ".lock").open("w") as lock:
            if rank == 0:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise UsageError("another process trains into this folder", where=str(spec.output)) from error
            run(spec, collective_named(arguments[1]))
    except ApbatchError as error:
        content = {"kind": type(error).__name__, "what": error.what, "where": error.where, "remedy": error.remedy}
        write_json(spec.output / f"error-{rank}.json", {**content, "nearest": error.nearest})
        print(f"apbatch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

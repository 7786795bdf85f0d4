"""What a training step is on each of Keras' back-ends. The loop, the data and the checkpoints know nothing of it.

TensorFlow runs on any number of ranks; PyTorch on one. Both take the same Keras model, the same optimizer and the
same numpy arrays, and make the same steps up to rounding.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, SupportsFloat

import numpy as np
import numpy.typing as npt

from apbatch.dl.training.collective import Collective
from apbatch.dl.training.data import Floats, parts_of
from apbatch.errors import MissingSoftwareError, UsageError

BACKENDS = ("tensorflow", "torch")
Arrays = list[npt.NDArray[Any]]


class Engine(ABC):
    """A model and its optimizer on one rank.

    Parameters
    ----------
    model : keras.Model
    learning_rate : float
    classify : bool
        Cross-entropy of a logit against 0 or 1; otherwise the Huber loss of all outputs.
    collective : Collective
    auxiliary : sequence of float
        Of a classification, the weights of the Huber losses of the outputs after the first; a target of NaN has none.
    """

    def __init__(
        self,
        model: Any,
        learning_rate: float,
        classify: bool,
        collective: Collective,
        auxiliary: Sequence[float] = (),
    ) -> None:
        import keras

        self.model, self._classify, self._collective = model, classify, collective
        self._auxiliary = tuple(auxiliary)
        self._dropouts = [layer for layer in model._flatten_layers() if getattr(layer, "seed_generator", None)]
        self.optimizer = keras.optimizers.Adam(learning_rate)
        self.optimizer.build(model.trainable_variables)

    def _draw_for(self, part: int, parts: int) -> None:
        """Have dropout draw by the number of the step and of the part of the batch, not by what was drawn before.

        So masks are the same on one rank and on two, and those of a training that goes on are those it would have had.

        Parameters
        ----------
        part : int
            Of the whole batch, from 0.
        parts : int
            How many there are.
        """
        from keras import ops

        number = ops.cast(self.optimizer.iterations * parts + part, "uint32")
        for layer in self._dropouts:
            state = layer.seed_generator.state
            state.assign(ops.stack([state[0], number]))

    @abstractmethod
    def step(self, pixels: Floats, targets: Floats, weights: Floats) -> SupportsFloat:
        """Take one step on this rank's share of a batch; return its loss.

        A graphics processor need not be done with the step yet: it is when the loss is made a number.

        Parameters
        ----------
        pixels : ndarray of float32, shape (n_images, rows, cols)
            p.e.
        targets : ndarray of float32, shape (n_images, n_outputs)
            NaN where an auxiliary target is not known.
        weights : ndarray of float32, shape (n_images,)
        """

    @abstractmethod
    def outputs(self, pixels: Floats) -> Floats:
        """Return the numbers of the model, shape (n, n_outputs)."""

    def finish(self, model: Any) -> None:
        """Hold a network that was made of the trained one; it is asked, and no longer trained."""
        self.model = model

    def weights(self) -> Arrays:
        """Return the weights of the model."""
        return [np.array(weight) for weight in self.model.get_weights()]

    def state(self) -> Arrays:
        """Return the state of the optimizer."""
        from keras import ops

        return [np.array(ops.convert_to_numpy(variable)) for variable in self.optimizer.variables]

    def restore(self, weights: Arrays, state: Arrays) -> None:
        """Set weights and the state of the optimizer."""
        self.model.set_weights(weights)
        for variable, value in zip(self.optimizer.variables, state, strict=True):
            variable.assign(value)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate."""
        self.optimizer.learning_rate.assign(rate)


class TensorFlowEngine(Engine):
    """Compiled steps; gradients are averaged over the ranks."""

    def __init__(
        self,
        model: Any,
        learning_rate: float,
        classify: bool,
        collective: Collective,
        auxiliary: Sequence[float] = (),
    ) -> None:
        import tensorflow as tf

        super().__init__(model, learning_rate, classify, collective, auxiliary)
        parts = parts_of(collective.size)
        own = parts // collective.size
        optimizer, shape, n_outputs = self.optimizer, model.input_shape[1:], model.output_shape[-1]

        def loss_of(outputs: Any, targets: Any, weights: Any) -> Any:
            if classify:
                crossed = tf.nn.sigmoid_cross_entropy_with_logits(targets[:, 0], outputs[:, 0])
                for number, share in enumerate(self._auxiliary, start=1):
                    target = targets[:, number]
                    there = tf.math.is_finite(target)
                    # What is not known is replaced before the difference: the gradient of a choice knows both sides.
                    crossed += share * huber(outputs[:, number] - tf.where(there, target, outputs[:, number]))
                return tf.reduce_mean(crossed * weights)
            return tf.reduce_mean(tf.reduce_mean(huber(outputs - targets), axis=1) * weights)

        def huber(difference: Any) -> Any:
            error = tf.abs(difference)
            return tf.where(error < 1, 0.5 * error**2, error - 0.5)

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[
                tf.TensorSpec((None, *shape), tf.float32),
                tf.TensorSpec((None, n_outputs), tf.float32),
                tf.TensorSpec((None,), tf.float32),
            ]
        )
        def step(pixels: Any, targets: Any, weights: Any) -> Any:
            # A tower for each part: the sums are the same whether one rank holds two parts or two ranks one each.
            towers = []
            split = zip(*(tf.split(values, own) for values in (pixels, targets, weights)), strict=True)
            for number, part in enumerate(split, start=collective.rank * own):
                self._draw_for(number, parts)
                with tf.GradientTape() as tape:
                    loss = loss_of(model(part[0], training=True), part[1], part[2])
                towers.append([loss, *tape.gradient(loss, model.trainable_variables)])
            loss, *gradients = [tf.add_n(values) / own for values in zip(*towers, strict=True)]
            optimizer.apply(collective.mean(gradients), model.trainable_variables)
            return loss

        self._step = step
        self._compile()

    def _compile(self) -> None:
        import tensorflow as tf

        model = self.model

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)]
        )
        def outputs(pixels: Any) -> Any:
            return tf.cast(model(pixels, training=False), tf.float32)

        self._outputs = outputs

    def finish(self, model: Any) -> None:
        """Hold another network."""
        super().finish(model)
        self._compile()

    def step(self, pixels: Floats, targets: Floats, weights: Floats) -> SupportsFloat:
        """Take one step."""
        return self._step(pixels, targets, weights)  # type: ignore[no-any-return]

    def outputs(self, pixels: Floats) -> Floats:
        """Return the numbers of the model."""
        return np.asarray(self._outputs(pixels).numpy(), np.float32)


class TorchEngine(Engine):
    """Eager steps in one process, on the whole batch."""

    def __init__(
        self,
        model: Any,
        learning_rate: float,
        classify: bool,
        collective: Collective,
        auxiliary: Sequence[float] = (),
    ) -> None:
        if collective.size != 1:
            raise UsageError("PyTorch trains in one process", remedy="--collective single, or the TensorFlow back-end")
        super().__init__(model, learning_rate, classify, collective, auxiliary)

    def step(self, pixels: Floats, targets: Floats, weights: Floats) -> SupportsFloat:
        """Take one step."""
        import torch

        self.model.zero_grad()
        self._draw_for(0, 1)
        images, labels, weight = (self._there(values) for values in (pixels, targets, weights))
        outputs = self.model(images, training=True)
        if self._classify:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], labels[:, 0], weight=weight)
            for number, share in enumerate(self._auxiliary, start=1):
                target = torch.where(torch.isfinite(labels[:, number]), labels[:, number], outputs[:, number].detach())
                errors = torch.nn.functional.huber_loss(outputs[:, number], target, reduction="none")
                loss = loss + share * (errors * weight).mean()
        else:
            huber = torch.nn.functional.huber_loss(outputs, labels, reduction="none").mean(dim=1)
            loss = (huber * weight).mean()
        loss.backward()
        variables = self.model.trainable_variables
        gradients = [variable.value.grad for variable in variables]
        with torch.no_grad():
            self.optimizer.apply(gradients, variables)
        return loss.detach()  # type: ignore[no-any-return]

    def outputs(self, pixels: Floats) -> Floats:
        """Return the numbers of the model."""
        import torch

        with torch.no_grad():
            return np.asarray(self.model(self._there(pixels), training=False).float().cpu().numpy(), np.float32)

    def _there(self, values: Floats) -> Any:
        """Return an array as a tensor where the model is."""
        import torch

        where = self.model.trainable_variables[0].value.device
        return torch.as_tensor(np.ascontiguousarray(values)).to(where, non_blocking=True)


def repeatable(backend: str) -> None:
    """Have a back-end add up in one order, so that a training repeated on one device gives the same bits."""
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        return
    import torch

    # cuBLAS wants to be told before its first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # It also fills new memory with NaN, for the sake of programs that read what they never wrote: a kernel for each.
    torch.utils.deterministic.fill_uninitialized_memory = False


def engine(
    backend: str,
    model: Any,
    learning_rate: float,
    classify: bool,
    collective: Collective,
    auxiliary: Sequence[float] = (),
) -> Engine:
    """Return the engine of a back-end for a model that was built under it.

    Parameters
    ----------
    backend : str
        ``tensorflow`` or ``torch``.
    model : keras.Model
    learning_rate : float
    classify : bool
        Whether the first output is a logit; else all are estimated by a Huber loss.
    collective : Collective
        The ranks.
    auxiliary : sequence of float
        Weights of further outputs in the loss.

    Raises
    ------
    MissingSoftwareError
        If Keras runs on another back-end, or PyTorch is missing.
    """
    import keras

    if keras.backend.backend() != backend:
        raise MissingSoftwareError(
            f"Keras runs on {keras.backend.backend()}, not on {backend}", remedy=f"set KERAS_BACKEND={backend}"
        )
    kind = TensorFlowEngine if backend == "tensorflow" else TorchEngine
    return kind(model, learning_rate, classify, collective, auxiliary)

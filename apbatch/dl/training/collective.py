"""What parallel training needs of the ranks: who am I, how many are we, share, average. The loop knows no more.

Horovod is behind this interface since it is no longer developed; another back-end replaces it by one class here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.errors import MissingSoftwareError, UsageError


class Collective(ABC):
    """The ranks of one training run.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        How many processes there are.
    """

    rank: int
    size: int

    @abstractmethod
    def broadcast(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Return the arrays of rank 0 on every rank; shapes and types must agree."""

    @abstractmethod
    def mean(self, tensors: Sequence[Any]) -> list[Any]:
        """Return the average over the ranks of each TensorFlow tensor; may be called inside a `tf.function`."""

    def sum_array(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the sum over the ranks of a numpy array."""
        (mean,) = self.mean([array])
        return np.asarray(mean, np.float32) * np.float32(self.size)


class Single(Collective):
    """One process."""

    rank, size = 0, 1

    def broadcast(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Return the arrays themselves."""
        return list(arrays)

    def mean(self, tensors: Sequence[Any]) -> list[Any]:
        """Return the tensors themselves."""
        return list(tensors)


class Horovod(Collective):
    """Ranks of Horovod, talking over MPI or Gloo (`apbatch.dl.training.ranks`)."""

    def __init__(self) -> None:
        try:
            import horovod.tensorflow as hvd
        except ImportError as error:
            raise MissingSoftwareError("Horovod is not installed", remedy="make .venv/.ready with g++ there") from error
        hvd.init()
        self._hvd = hvd
        self.rank, self.size = hvd.rank(), hvd.size()

    def broadcast(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Send the arrays of rank 0 to every rank."""
        # np.asarray keeps the shape of scalars, which ascontiguousarray would not.
        return [
            np.asarray(self._hvd.broadcast(np.asarray(array, order="C"), root_rank=0, name=f"broadcast.{number}"))
            for number, array in enumerate(arrays)
        ]

    def mean(self, tensors: Sequence[Any]) -> list[Any]:
        """Average over the ranks in one grouped, hence fused, reduction."""
        return list(self._hvd.grouped_allreduce(list(tensors), op=self._hvd.Average))


def collective_named(name: str) -> Collective:
    """Return the back-end with this name, ready.

    Raises
    ------
    UsageError
        If there is none.
    MissingSoftwareError
        If its library is not installed.
    """
    if name == "single":
        return Single()
    if name == "horovod":
        return Horovod()
    raise UsageError(f"unknown collective '{name}'", remedy="single or horovod")

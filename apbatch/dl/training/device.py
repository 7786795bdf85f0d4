"""Where a network computes: on the processor, or on a graphics processor, one for each rank of a machine."""

from __future__ import annotations

import os
from typing import Literal

from apbatch.errors import MissingSoftwareError

Device = Literal["auto", "cpu", "gpu"]


def environment_of(device: Device) -> dict[str, str]:
    """Return what must be set before a back-end is imported, so that it leaves graphics processors alone."""
    return {"CUDA_VISIBLE_DEVICES": "-1"} if device == "cpu" else {}


def take(device: Device, backend: str) -> str:
    """Make a back-end of Keras compute on a device; return its name for people.

    ``auto`` takes a graphics processor where the back-end finds one. Ranks of one machine take one each, in turn.

    Raises
    ------
    MissingSoftwareError
        If a graphics processor is wanted and the back-end finds none.
    """
    name = None
    if device != "cpu":
        name = _tensorflow_gpu(_local_rank()) if backend == "tensorflow" else _torch_gpu()
    if name is None and device == "gpu":
        raise MissingSoftwareError(
            f"{backend} finds no graphics processor",
            remedy="look at nvidia-smi; install a build with CUDA (pip install 'tensorflow[and-cuda]', or torch); "
            "or train with device: auto",
        )
    return name or "cpu"


def _local_rank() -> int:
    """Return the number of this rank on its machine, as Horovod's launcher or MPI's says; 0 in one process."""
    return int(os.environ.get("HOROVOD_LOCAL_RANK") or os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK") or 0)


def _tensorflow_gpu(local: int) -> str | None:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    mine = gpus[local % len(gpus)]
    tf.config.set_visible_devices(mine, "GPU")
    # Without it the first of several trainings side by side takes all memory.
    tf.config.experimental.set_memory_growth(mine, True)
    return str(tf.config.experimental.get_device_details(mine).get("device_name", mine.name))


def _torch_gpu() -> str | None:
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None

"""What a Python process of Spark is told around its tasks."""

from __future__ import annotations

import gc

import pyarrow as pa

#: More objects than a task leaves behind: packages were loaded.
_LOADED = 20_000


def one_thread() -> None:
    """Use one core: Spark runs as many tasks as it was given."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def settle() -> None:
    """Take what this process has loaded out of Python's search for garbage.

    Spark's workers search for it after every task: with numba loaded that is a tenth of a second each time.
    """
    if len(gc.get_objects()) > _LOADED:
        gc.collect()
        gc.freeze()

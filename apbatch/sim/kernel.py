"""The decorator of every compiled function of the Monte Carlo."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from apbatch.camera.kernels.decorators import compiled

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile a function with numba; the machine code is cached until any file of `sim` changes.

    `fastmath` lets sums be reordered: results repeat bit for bit on one kind of processor, not across kinds.
    """
    return compiled(function, fastmath=True)


def inner(function: Function) -> Function:
    """As `kernel`, for what kernels call for each step: part of its caller; references are not counted.

    Neither it nor anything it calls may allocate.
    """
    return compiled(function, fastmath=True, forceinline=True, _nrt=False)

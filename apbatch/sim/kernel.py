"""The decorator of every compiled function of the Monte Carlo."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile a function with numba; the machine code is cached beside the module.

    The cache of a function notices changes of its own file only: after editing what it calls, clear ``__pycache__``.
    `fastmath` lets sums be reordered: results repeat bit for bit on one kind of processor, not across kinds.
    """
    return cast(Function, numba.njit(cache=True, fastmath=True)(function))

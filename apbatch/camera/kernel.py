"""The decorator of every compiled function on images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile a function with numba, without the interpreter's lock; the machine code is cached beside the module.

    No `fastmath`: it would take comparisons with NaN, by which missing pixels are told, for granted.
    """
    return cast(Function, numba.njit(cache=True, nogil=True)(function))

"""The decorator of every compiled function on images."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

try:
    import numba
except ImportError as error:  # also of a numba that refuses the installed numpy
    raise ImportError(f"numba can't be imported ({error}); remedy: pip install 'apbatch[images]'") from error

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile a function with numba, without the interpreter's lock; the machine code is cached beside the module.

    No `fastmath`: it would take comparisons with NaN, by which missing pixels are told, for granted. Division by zero
    gives infinity or NaN, as in numpy.
    """
    return compiled(function)


def inner(function: Function) -> Function:
    """As `kernel`, for what other kernels call for each block or image; it allocates nothing.

    It is part of its caller, since a call with many arrays costs more than its work, and does not count references to
    arrays, which its callers hold: the counting alone took a third of the time.
    """
    return compiled(function, forceinline=True, _nrt=False)


def subroutine(function: Function) -> Function:
    """As `inner`, for what is needed seldom: it stays a function of its own and leaves its caller short."""
    return compiled(function, _nrt=False)


def compiled(function: Function, **options: bool) -> Function:
    """Compile with further options of numba; the machine code is cached until a file of the same concern changes.

    A concern is a folder of `apbatch` with all that is in it. For decorators such as those above.
    """
    dispatcher = numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    # Code of one module is compiled into functions of others. numba looks at a function's own file alone when it asks
    # whether its cached code is out of date, so here the stamp is that of all files of the concern.
    file: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if hasattr(file, "_source_stamp"):
        file._source_stamp = _stamp(_concern(Path(function.__code__.co_filename).parent))
        file._load_index = _or_nothing(file._load_index)
    return cast(Function, dispatcher)


def _or_nothing(load: Callable[[], Any]) -> Callable[[], Any]:
    """Return what loads an index of cached code, or an empty one: an old index may name classes that are no more."""

    def loaded() -> Any:
        try:
            return load()
        except (AttributeError, ImportError, EOFError, pickle.UnpicklingError):
            return {}

    return loaded


def _concern(folder: Path) -> Path:
    """Return the folder of the highest level below the package, or the folder itself outside of a package."""
    while (folder.parent.parent / "__init__.py").exists():
        folder = folder.parent
    return folder


@cache
def _stamp(folder: Path) -> tuple[float, int]:
    files: list[Any] = [path.stat() for path in folder.rglob("*.py")]
    return max((file.st_mtime for file in files), default=0.0), sum(file.st_size for file in files)

"""Foreign files under Spark: none may stop a job, whatever its parser makes of it.

The first attempt of a task parses in the worker itself, at full speed, under limits of time and memory that the kernel
keeps. A file that breaks them, or the parser, costs that worker, and Spark tries the task again: further attempts parse
each file in a process of its own, where the guilty one is found, and lost alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from apbatch.errors import FormatError
from apbatch.formats.limits import MEMORY_BYTES, memory_limit, seconds_for, timed
from apbatch.formats.parser_process import stream_apart


def guarded(read: Callable[..., Generator[Any, None, Any]], *arguments: Any, size: int) -> Generator[Any, None, Any]:
    """Yield and return what `read` does, guarded within a task of Spark; elsewhere as it is.

    Parameters
    ----------
    read : callable
        A generator function of a module, which reads one file.
    *arguments
        What it takes; pickled where it runs in another process.
    size : int
        Bytes that are read, by which the time is limited.

    Raises
    ------
    FormatError
        If the file takes too much memory; in further attempts, if it takes too much time or ends its process.
    """
    attempt = _attempt()
    if attempt is None:
        return (yield from read(*arguments))
    if attempt:
        return (yield from stream_apart(read, *arguments, size=size))
    return (yield from timed(_in_memory(read(*arguments)), seconds_for(size)))


def _attempt() -> int | None:
    """Return how often the task that runs here was tried before; None outside of tasks."""
    from pyspark import TaskContext

    context = TaskContext.get()
    return context.attemptNumber() if context is not None else None


def _in_memory(items: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
    while True:
        try:
            with memory_limit(MEMORY_BYTES):
                item = next(items)
        except StopIteration as end:
            return end.value
        except MemoryError as error:
            raise FormatError(f"it takes more than {MEMORY_BYTES >> 20} MB of memory to read") from error
        yield item

"""Limits of time and memory around code that parses foreign files, kept by the kernel.

A library in C that believes a damaged count never returns to the interpreter: neither an exception nor a thread stops
it. The kernel's alarm ends the whole process, so this is for processes that may end: `apbatch.formats.parser_process`,
and Spark's workers, whose tasks are then tried again.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

#: Seconds for a file of no size, and bytes a second for larger ones.
LIMIT_S, BYTES_A_SECOND = 120.0, 1 << 20
#: Memory that the parsing of a file may take beyond what the process has.
MEMORY_BYTES = 2 << 30
#: The shortest alarm: one of no time would be none.
_SHORTEST_S = 1e-3

Item = TypeVar("Item")
Result = TypeVar("Result")


def seconds_for(size: int) -> float:
    """Return how long the parsing of a file may take.

    Parameters
    ----------
    size : int
        Bytes of the file.
    """
    return LIMIT_S + size / BYTES_A_SECOND


def timed(items: Generator[Item, None, Result], limit_s: float) -> Generator[Item, None, Result]:
    """Pass on what a generator yields and returns; if its own work takes longer in all, this process ends by SIGALRM.

    The time that the receiver takes between two items does not count.
    """
    left = limit_s
    try:
        while True:
            signal.setitimer(signal.ITIMER_REAL, max(left, _SHORTEST_S))
            try:
                item = next(items)
            except StopIteration as end:
                result: Result = end.value
                return result
            finally:
                left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
            yield item
    finally:
        items.close()


@contextmanager
def memory_limit(more_bytes: int) -> Iterator[None]:
    """Let this process take no more memory than it has and `more_bytes`; what asks for more gets a `MemoryError`."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit_memory(more_bytes)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def limit_memory(more_bytes: int) -> None:
    """Do what `memory_limit` does, until it is done again."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = in_use + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))

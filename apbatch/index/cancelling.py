"""Ending a query that nobody waits for any more: back-ends say how theirs is ended, whoever serves says when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

from apbatch.errors import CancelledQueryError

_Row = TypeVar("_Row")
_CURRENT: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)


class Cancellation:
    """What can be ended of one request, in whichever threads it runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[Callable[[], None]] = []
        self.is_cancelled = False

    def cancel(self) -> bool:
        """End the queries that run, and let no other one begin; return whether any ran."""
        with self._lock:  # what has ended meanwhile is out of the list, and no other query of its connection is hit
            self.is_cancelled = True
            for end in self._running:
                end()
            return bool(self._running)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Take queries of this context, and of threads that are given it, as those of the request."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    @contextmanager
    def running(self, end: Callable[[], None]) -> Iterator[None]:
        """Run a query that `end` ends from another thread.

        Raises
        ------
        CancelledQueryError
            If nobody waits for it.
        """
        with self._lock:
            if self.is_cancelled:
                raise CancelledQueryError("the query was cancelled")
            self._running.append(end)
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(end)


def interruptible(rows: Iterable[_Row]) -> Iterator[_Row]:
    """Yield rows until nobody waits for them: a back-end that can't be told to end a query then reads no further page.

    Raises
    ------
    CancelledQueryError
        If the request in which the first row was asked for is cancelled.
    """
    current = _CURRENT.get()
    for row in rows:
        if current is not None and current.is_cancelled:
            raise CancelledQueryError("the query was cancelled")
        yield row


def raise_if_cancelled() -> None:
    """Let no further statement begin of a request that nobody waits for.

    Raises
    ------
    CancelledQueryError
        If the request is cancelled.
    """
    current = _CURRENT.get()
    if current is not None and current.is_cancelled:
        raise CancelledQueryError("the query was cancelled")


def cancellable(end: Callable[[], None]) -> AbstractContextManager[None]:
    """Run a query that can be ended, if it belongs to a request."""
    current = _CURRENT.get()
    return _NO_REQUEST if current is None else current.running(end)


_NO_REQUEST: AbstractContextManager[None] = nullcontext()

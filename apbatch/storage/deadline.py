"""A time limit of our own on every call to a server: some clients wait for ever for a server that is gone.

The call runs in a helper thread. When it does not answer in time the helper is left behind (it is a daemon, so it
does not hold up the end of the process) and the caller gets an error at once.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, BinaryIO, TypeVar

from apbatch.errors import ServerError

Result = TypeVar("Result")

#: Default limit of one call. Longer than the 30 s that HDFS and AFS clients may need to get over a dead server
#: among several, shorter than the minute for which an AFS client hangs on its only one.
LIMIT_S = 45.0


class Heart:
    """Given to a long call: each beat tells that it is getting on, and the limit starts anew."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.given_up = False

    def beat(self) -> None:
        """Report progress.

        Raises
        ------
        ServerError
            If nobody waits any more.
        """
        if self.given_up:
            raise ServerError("nobody waits for this call any more")
        self.last = time.monotonic()


class _Job:
    def __init__(self, call: Callable[[Heart], Any]) -> None:
        self._call = call
        self.heart = Heart()
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        _own.heart = self.heart
        try:
            self.result = self._call(self.heart)
        except BaseException as error:  # hdfs-native panics are no `Exception`
            self.error = error
        finally:
            _own.heart = None
            self.done.set()


class _Helper:
    """A daemon thread that runs one job after the other."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=self._serve, args=(self._jobs,), daemon=True, name="time-limited").start()

    @staticmethod
    def _serve(jobs: SimpleQueue[_Job | None]) -> None:
        while (job := jobs.get()) is not None:
            job.run()
            del job  # a kept job would keep its result alive while the thread waits

    def start(self, job: _Job) -> None:
        self._jobs.put(job)

    def __del__(self) -> None:
        self._jobs.put(None)


_own = threading.local()


def nothing() -> None:
    """Do nothing."""


def watched(
    call: Callable[[Heart], Result], limit_s: float, where: str, meanwhile: Callable[[], object] = nothing
) -> Result:
    """Run ``call(heart)`` and return its result; fail if `limit_s` pass without its end or a beat of the heart.

    Within a call that is watched already it is run at once, as a part of that: each has its time, and none of them
    begins once the whole was given up.

    Parameters
    ----------
    call : callable
        Is given the heart, which it beats whenever something happened.
    limit_s : float
        Seconds from one beat to the next, and to the end.
    where : str
        What does not answer, for the error.
    meanwhile : callable
        Run here, once, while the call is on its way: it must be short.

    Raises
    ------
    ServerError
        If the time is over. The call itself may still end later, unseen.
    BaseException
        Whatever the call raised.
    """
    outer: Heart | None = getattr(_own, "heart", None)
    if outer is not None:
        outer.beat()
        meanwhile()
        part = call(outer)
        outer.beat()
        return part
    job = _Job(call)
    helper: _Helper | None = getattr(_own, "helper", None)
    if helper is None or helper.pid != os.getpid():  # none yet, or it stayed behind in the process that forked us
        helper = _own.helper = _Helper()
    helper.start(job)
    meanwhile()
    while not job.done.wait(max(0.0, job.heart.last + limit_s - time.monotonic())):
        if time.monotonic() - job.heart.last >= limit_s:
            _own.helper = None
            job.heart.given_up = True
            raise ServerError(f"no answer within {limit_s:g} s", where=where, remedy="is the server up?")
    if job.error is not None:
        raise job.error
    result: Result = job.result
    return result


def within(limit_s: float, where: str, call: Callable[..., Result], *arguments: Any) -> Result:
    """Run ``call(*arguments)`` and return its result; fail if it takes longer than `limit_s`.

    Parameters
    ----------
    limit_s : float
        Seconds.
    where : str
        What does not answer, for the error.
    call : callable
    *arguments : object
        Of the call.

    Raises
    ------
    ServerError
        If the time is over.
    BaseException
        Whatever the call raised.
    """
    return watched(lambda _: call(*arguments), limit_s, where)


class TimedReader(io.RawIOBase):
    """A raw stream each of whose calls has a time limit; wrap it in `io.BufferedReader`."""

    def __init__(self, inner: BinaryIO, limit_s: float, where: str) -> None:
        self._inner, self._limit_s, self._where = inner, limit_s, where

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: D102
        block = within(self._limit_s, self._where, self._inner.read, len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:  # noqa: D102
        return self._inner.seek(offset, whence)

    def tell(self) -> int:  # noqa: D102
        return self._inner.tell()

    def close(self) -> None:  # noqa: D102
        if not self.closed:
            super().close()
            within(self._limit_s, self._where, self._inner.close)

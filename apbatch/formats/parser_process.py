"""Processes that parse one file after another, so that no file can stop or kill those who read it.

Parsers in C (HDF5, ROOT, Parquet, EventIO) believe what they read: one damaged count may cost all memory or all time,
or end the process. Here that ends a process of its own, which has a limit of memory, and of time for each file that
its own kernel alarm keeps. It is started when the first such file comes, and serves all that follow.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from types import GeneratorType
from typing import Any, BinaryIO, Literal

import apbatch
from apbatch.errors import ApbatchError, FormatError
from apbatch.formats import limits

#: Files after which a process is replaced: libraries keep some memory of each.
_FILES = 2000
_LENGTH = struct.Struct("<Q")
_REMEDY = "copy the file again; if it is whole, report it with the file"

#: What an answer is: one of several items, the result that ends them, an error, or that memory was too little.
_Kind = Literal["item", "result", "error", "memory"]


def parse_apart(work: Callable[..., Any], *arguments: Any, size: int, where: str | None = None) -> Any:
    """Return what `work` makes of a file in a process of its own.

    Parameters
    ----------
    work : callable
        A function of a module; it, its arguments and its result are pickled.
    *arguments
    size : int
        Bytes of the file, by which its time is limited.
    where : str, optional
        Name of the file, for the error.

    Raises
    ------
    FormatError
        If the file ended the process, or took too much time or memory.
    Exception
        What `work` raises.
    """
    stream = stream_apart(work, *arguments, size=size, where=where)
    while True:
        try:
            next(stream)
        except StopIteration as end:
            return end.value


def stream_apart(
    work: Callable[..., Any], *arguments: Any, size: int, where: str | None = None
) -> Generator[Any, None, Any]:
    """Yield what the generator `work` yields in a process of its own, and return what it returns: see `parse_apart`.

    Parameters
    ----------
    work : callable
        A function of a module that yields; it, its arguments and what it yields are pickled.
    *arguments
    size : int
        Bytes of the file, by which its time is limited.
    where : str, optional
        Name of the file, for the error.
    """
    process = _waiting.take()
    try:
        return (yield from process.run(work, *arguments, size=size, where=where))
    finally:
        _waiting.give_back(process)


class ParserProcess:
    """A process that parses files, one at a time."""

    def __init__(self) -> None:
        # What Spark shipped to this process must be had there as well.
        path = [str(Path(apbatch.__file__).parents[1]), *sys.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, path)))}
        environment |= {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
        self.files = 0
        self._busy = False
        self._started_in = dict(os.environ)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "apbatch.formats.parser_process", str(limits.MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def run(
        self, work: Callable[..., Any], *arguments: Any, size: int, where: str | None = None
    ) -> Generator[Any, None, Any]:
        """Do what `stream_apart` does.

        Parameters
        ----------
        work : callable
            A function of a module that yields; it, its arguments and what it yields are pickled.
        *arguments
        size : int
            Bytes of the file, by which its time is limited.
        where : str, optional
            Name of the file, for the error.
        """
        self.files += 1
        limit_s = limits.seconds_for(size)
        self._busy = True
        try:
            _send(self._process.stdin, (work, arguments, limit_s))
            while True:
                kind, value = _receive(self._process.stdout)
                if kind != "item":
                    break
                yield value
        except (EOFError, BrokenPipeError) as error:
            raise FormatError(self._end(limit_s), where=where, remedy=_REMEDY) from error
        self._busy = False
        if kind == "memory":
            self.close()
            what = f"it takes more than {limits.MEMORY_BYTES >> 20} MB of memory to read"
            raise FormatError(what, where=where, remedy=_REMEDY)
        if kind == "error":
            raise value
        return value

    def _end(self, limit_s: float) -> str:
        code = self._process.wait()
        self.close()
        if code == -signal.SIGALRM:
            return f"it takes more than {limit_s:.0f} s to read"
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        return f"its parser was ended by it ({how})"

    @property
    def usable(self) -> bool:
        """Whether it can take another file: it lives, waits, is not worn out, and has the settings of this process."""
        if self._busy or self.files >= _FILES or self._started_in != dict(os.environ):
            return False
        return self._process.poll() is None

    def close(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()
        self._process.kill()
        self._process.wait()


class _Waiting:
    """Processes that wait for the next file, kept until this program ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: list[ParserProcess] = []

    def take(self) -> ParserProcess:
        with self._lock:
            process = self._processes.pop() if self._processes else None
        if process is not None and not process.usable:
            process.close()
            process = None
        return process or ParserProcess()

    def give_back(self, process: ParserProcess) -> None:
        if process.usable:
            with self._lock:
                self._processes.append(process)
        else:
            process.close()

    def close(self) -> None:
        with self._lock:
            processes, self._processes = self._processes, []
        for process in processes:
            process.close()

    def forget(self) -> None:
        """Leave the processes to the program of which this one is a copy."""
        self._lock, self._processes = threading.Lock(), []


_waiting = _Waiting()
atexit.register(_waiting.close)
os.register_at_fork(after_in_child=_waiting.forget)


def _send(stream: Any, message: Any) -> None:
    """Write a message for another process of this program."""
    content = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def _receive(stream: Any) -> Any:
    """Read the next message.

    Raises
    ------
    EOFError
        If the other process has ended.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return pickle.loads(content)


def _serve(requests: BinaryIO, answers: BinaryIO, memory_bytes: int) -> None:
    """Do the work that is asked for, until the program that asks ends."""
    from apbatch.formats.reader import readers

    readers()
    limits.limit_memory(memory_bytes)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel ends it, even within a library that never returns
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that asks decides
    while True:
        try:
            work, arguments, limit_s = _receive(requests)
        except EOFError:
            return
        answer: tuple[_Kind, Any]
        try:
            steps = limits.timed(_steps(work, arguments), limit_s)
            while True:
                try:
                    item = next(steps)
                except StopIteration as end:
                    answer = "result", end.value
                    break
                _send(answers, ("item", item))
        except MemoryError:
            answer = "memory", None
        except (ApbatchError, OSError) as error:
            answer = "error", error
        except Exception as error:
            answer = "error", _portable(error)
        _send(answers, answer)


def _steps(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Generator[Any, None, Any]:
    result = work(*arguments)
    return (yield from result) if isinstance(result, GeneratorType) else result


def _portable(error: Exception) -> Exception:
    """Return an error that the other process can be given."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    # What a library prints must not come between the answers.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _serve(sys.stdin.buffer, channel, int(sys.argv[1]))

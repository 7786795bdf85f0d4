"""Processes that parse one file after another, so that no file can stop or kill those who read it.

Parsers in C (HDF5, ROOT, Parquet, EventIO) believe what they read: one damaged count may cost all memory or all time,
or end the process. Here that ends a process of its own, which has a limit of memory, and of time for each file that
its own kernel alarm keeps. It is started when the first such file comes, and serves all that follow.
"""

from __future__ import annotations

import atexit
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import apbatch
from apbatch.errors import FormatError
from apbatch.ingest.description import UNKNOWN, Description, content_of, describe
from apbatch.ingest.walk import Entry

#: Seconds for a file of no size, and bytes a second for larger ones.
LIMIT_S, BYTES_A_SECOND = 120.0, 1 << 20
#: Memory of a process beyond what it has when it is ready.
MEMORY_BYTES = 2 << 30
#: Files after which a process is replaced: libraries keep some memory of each.
_FILES = 2000
_LENGTH = struct.Struct("<Q")
_REMEDY = "copy the file again; if it is whole, report it with the file"


class ParserProcess:
    """A process that describes files, one at a time."""

    def __init__(self) -> None:
        environment = dict(os.environ)
        package = str(Path(apbatch.__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
        environment |= {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
        self.files = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "apbatch.ingest.parsing", str(MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def describe(self, entry: Entry, root: bytes, known_format: str | None) -> Description:
        """Do what `apbatch.ingest.description.describe` does.

        Raises
        ------
        FileChangedError
        OSError
        FormatError
            If the process ended over the file, or its memory did.
        """
        self.files += 1
        limit_s = LIMIT_S + entry.size / BYTES_A_SECOND
        try:
            send(self._process.stdin, (entry, root, known_format, limit_s))
            answer = receive(self._process.stdout)
        except (EOFError, BrokenPipeError) as error:
            raise FormatError(self._end(limit_s), remedy=_REMEDY) from error
        if isinstance(answer, MemoryError):
            self.close()
            raise FormatError(f"it takes more than {MEMORY_BYTES >> 20} MB of memory to read", remedy=_REMEDY)
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, Description)
        return answer

    def _end(self, limit_s: float) -> str:
        code = self._process.wait()
        self.close()
        if code == -signal.SIGALRM:
            return f"it takes more than {limit_s:.0f} s to read"
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        return f"its parser was ended by it ({how})"

    @property
    def usable(self) -> bool:
        """Whether it can take another file."""
        return self._process.poll() is None and self.files < _FILES

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
        return process if process is not None and process.usable else ParserProcess()

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


def describe_apart(entry: Entry, root: bytes, known_format: str | None) -> Description:
    """Describe a file in a process of its own; one that ends the process is described by how it did.

    Raises
    ------
    FileChangedError
    OSError
    """
    process = _waiting.take()
    try:
        return process.describe(entry, root, known_format)
    except FormatError as error:
        return Description(known_format or UNKNOWN, content_of(entry, root), None, error)
    finally:
        _waiting.give_back(process)


def send(stream: Any, message: Any) -> None:
    """Write a message for another process of this program."""
    content = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def receive(stream: Any) -> Any:
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
    """Describe the files that are asked for, until the program that asks ends."""
    from apbatch.formats.reader import readers

    readers()
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + memory_bytes, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel ends it, even within a library that never returns
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that asks decides
    while True:
        try:
            entry, root, known_format, limit_s = receive(requests)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        answer: Any
        try:
            answer = describe(entry, root, known_format)
        except MemoryError:
            answer = MemoryError()
        except Exception as error:
            answer = error
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(answers, answer)


if __name__ == "__main__":
    # What a library prints must not come between the answers.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _serve(sys.stdin.buffer, channel, int(sys.argv[1]))

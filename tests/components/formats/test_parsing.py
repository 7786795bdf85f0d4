"""Files that would take all time or memory, or end the process that reads them, end one of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apbatch.errors import FormatError
from apbatch.formats import limits, parser_process
from apbatch.formats.parser_process import ParserProcess, parse_apart, stream_apart
from apbatch.ingest.reading.description import describe
from apbatch.ingest.reading.parsing import describe_apart
from apbatch.ingest.walk import Entry
from apbatch.storage.hashing import hash_stream
from apbatch.storage.store import Checksums

#: What a library in C may do with a damaged file, by the name of the file. Put before the program of the process.
_MISCHIEF = """
import ctypes, sys
from apbatch.formats.kascade import KascadeReader

def metadata(self, stream, name):
    if "forever" in name:
        pause = ctypes.PyDLL(None).pause  # holds the lock of the interpreter, as a parser in C does
        while True:
            pause()
    if "crash" in name:
        ctypes.string_at(0)
    if "abort" in name:
        ctypes.CDLL(None).abort()
    if "memory" in name:
        return bytearray(64 << 30)
    if "chatter" in name:
        print("a library says something", flush=True)
    return whole(self, stream, name)

whole, KascadeReader.metadata = KascadeReader.metadata, metadata
sys.argv = ["parsing", sys.argv[1]]
import runpy
runpy.run_module("apbatch.formats.parser_process", run_name="__main__")
"""


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[ParserProcess]:
    real = subprocess.Popen

    def started(command: list[str], **more: Any) -> Any:
        return real([command[0], "-c", _MISCHIEF, command[-1]], **more)

    monkeypatch.setattr(parser_process.subprocess, "Popen", started)  # type: ignore[attr-defined]
    monkeypatch.setattr(parser_process, "_waiting", parser_process._Waiting())
    one = ParserProcess()
    parser_process._waiting.give_back(one)
    yield one
    parser_process._waiting.close()


def entry(folder: Path, name: str, events: int = 3) -> Entry:
    path = folder / name
    line = "6402 {} 1207904712 80208000 1.0e15 0.5 0.5 0.3 0.1 4.2 3.9 " + "0 " * 8 + "12.5 1003.1\n"
    path.write_text("".join(line.format(number) for number in range(events)))
    status = path.stat()
    return Entry(name, os.fsencode(path), status.st_size, status.st_mtime_ns)


def test_a_file_is_described_as_here(process: ParserProcess, tmp_path: Path) -> None:
    one = entry(tmp_path, "kascade.txt")
    description = describe_apart(one, os.fsencode(tmp_path), None)
    assert description.metadata is not None
    assert (description.format, description.metadata.events, description.content.size) == ("kascade", 3, one.size)
    with (tmp_path / "kascade.txt").open("rb") as stream:
        checksums = hash_stream(stream)
    content = description.content
    assert Checksums(content.checksum, content.adler32, content.size) == checksums


@pytest.mark.parametrize(
    ("name", "reason"),
    [("crash.txt", "SIGSEGV"), ("abort.txt", "SIGABRT"), ("memory.txt", "MB of memory")],
)
def test_a_file_that_ends_its_process_is_set_aside_and_the_next_is_read(
    process: ParserProcess, tmp_path: Path, name: str, reason: str
) -> None:
    description = describe_apart(entry(tmp_path, name), os.fsencode(tmp_path), "kascade")
    assert description.format == "kascade" and description.metadata is None
    assert reason in str(description.failure)
    assert description.content.checksum  # so that it is not read again until it changes
    next_one = describe_apart(entry(tmp_path, "kascade.txt"), os.fsencode(tmp_path), None)
    assert next_one.metadata is not None and next_one.metadata.events == 3


def test_a_file_that_takes_for_ever_is_given_up(
    process: ParserProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe_apart(entry(tmp_path, "kascade.txt"), os.fsencode(tmp_path), None)  # what is imported first takes time
    monkeypatch.setattr(limits, "LIMIT_S", 1.0)
    started = time.monotonic()
    description = describe_apart(entry(tmp_path, "forever.txt"), os.fsencode(tmp_path), None)
    assert "more than 1 s" in str(description.failure)
    assert time.monotonic() - started < 60


def test_what_a_library_prints_is_no_answer(process: ParserProcess, tmp_path: Path) -> None:
    description = describe_apart(entry(tmp_path, "chatter.txt"), os.fsencode(tmp_path), None)
    assert description.metadata is not None and description.metadata.events == 3


def test_errors_of_the_file_cross_the_border(process: ParserProcess, tmp_path: Path) -> None:
    one = entry(tmp_path, "kascade.txt")
    (tmp_path / "kascade.txt").unlink()
    with pytest.raises(FileNotFoundError):
        parse_apart(describe, one, os.fsencode(tmp_path), None, size=one.size)


def test_settings_that_change_are_those_of_the_next_file(
    process: ParserProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parse_apart(os.getenv, "APBATCH_HOME", size=0) == os.environ["APBATCH_HOME"]
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path))
    assert parse_apart(os.getenv, "APBATCH_HOME", size=0) == str(tmp_path)


def test_a_process_that_was_killed_is_replaced(process: ParserProcess, tmp_path: Path) -> None:
    one = entry(tmp_path, "kascade.txt")
    os.kill(process._process.pid, signal.SIGKILL)
    with pytest.raises(FormatError, match="SIGKILL"):
        next(process.run(describe, one, os.fsencode(tmp_path), None, size=one.size))
    description = describe_apart(one, os.fsencode(tmp_path), None)
    assert description.metadata is not None


def numbers(count: int, tired: bool = False) -> Iterator[int]:
    """A generator that a process of its own runs."""
    yield from range(count)
    if tired:
        raise MemoryError
    return count  # type: ignore[return-value] # a generator's


def test_items_come_one_by_one_and_the_result_at_the_end(process: ParserProcess) -> None:
    stream, items = stream_apart(numbers, 3, size=0), []
    while True:
        try:
            items.append(next(stream))
        except StopIteration as end:
            assert (items, end.value) == ([0, 1, 2], 3)
            break
    with pytest.raises(FormatError, match="MB of memory"):
        list(stream_apart(numbers, 2, True, size=0))
    assert list(stream_apart(numbers, 2, size=0)) == [0, 1]


def test_a_stream_that_is_left_spoils_no_other(process: ParserProcess) -> None:
    stream = stream_apart(numbers, 100_000, size=0)
    assert next(stream) == 0
    stream.close()
    assert list(stream_apart(numbers, 2, size=0)) == [0, 1]


def test_the_time_of_the_receiver_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[float] = []

    def setitimer(which: int, seconds: float) -> tuple[float, float]:
        armed.append(seconds)
        return (armed[-2] - 4.0 if not seconds else 0.0, 0.0)  # each step takes four seconds

    monkeypatch.setattr(signal, "setitimer", setitimer)
    assert list(limits.timed((number for number in range(2)), 10.0)) == [0, 1]
    assert armed == [10.0, 0, 6.0, 0, 2.0, 0]


def test_more_memory_than_allowed_is_refused_and_the_limit_goes() -> None:
    with pytest.raises(MemoryError), limits.memory_limit(64 << 20):
        bytearray(256 << 20)
    assert len(bytearray(128 << 20)) == 128 << 20

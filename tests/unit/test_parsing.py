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
from apbatch.ingest import parsing
from apbatch.ingest.parsing import ParserProcess, describe_apart
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
runpy.run_module("apbatch.ingest.parsing", run_name="__main__")
"""


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[ParserProcess]:
    real = subprocess.Popen

    def started(command: list[str], **more: Any) -> Any:
        return real([command[0], "-c", _MISCHIEF, command[-1]], **more)

    monkeypatch.setattr(parsing.subprocess, "Popen", started)  # type: ignore[attr-defined]
    monkeypatch.setattr(parsing, "_waiting", parsing._Waiting())
    one = ParserProcess()
    parsing._waiting.give_back(one)
    yield one
    parsing._waiting.close()


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
    monkeypatch.setattr(parsing, "LIMIT_S", 1.0)
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
        process.describe(one, os.fsencode(tmp_path), None)


def test_a_process_that_was_killed_is_replaced(process: ParserProcess, tmp_path: Path) -> None:
    one = entry(tmp_path, "kascade.txt")
    os.kill(process._process.pid, signal.SIGKILL)
    with pytest.raises(FormatError, match="SIGKILL"):
        process.describe(one, os.fsencode(tmp_path), None)
    description = describe_apart(one, os.fsencode(tmp_path), None)
    assert description.metadata is not None

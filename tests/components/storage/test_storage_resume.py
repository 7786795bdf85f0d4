"""Large files whose copy broke off: the next one goes on, and what it publishes is compared whole as ever."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from apbatch.errors import ServerError
from apbatch.storage import names, publishing, transfer
from apbatch.storage.backends import open_store
from apbatch.storage.hashing import hash_blocks
from apbatch.storage.local import LocalStore
from apbatch.storage.transfer import SourceChangedError

STEP = 100_000
DATA = random.Random(5).randbytes(30 * STEP)
EXPECTED = hash_blocks([DATA])


@pytest.fixture(autouse=True)
def small_files_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "RESUMED_BYTES", 20 * STEP)
    monkeypatch.setattr(transfer, "READ_BYTES", STEP)
    monkeypatch.setattr(transfer, "_PAUSES_S", (0.0,))
    monkeypatch.setattr(publishing, "_WORTH_BYTES", STEP)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    one = open_store(tmp_path.as_uri())
    assert isinstance(one, LocalStore)
    return one


class Source:
    """A file that counts what is read of it, and may break."""

    def __init__(self, data: bytes = DATA, breaks: tuple[int, ...] = ()) -> None:
        self._data, self._breaks, self.read_bytes = data, list(breaks), 0

    def open(self) -> BinaryIO:
        outer, limit = self, self._breaks.pop(0) if self._breaks else None

        class Stream(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if limit is not None and self.tell() >= limit:
                    raise ServerError("the line broke")
                block = super().read(size)
                outer.read_bytes += len(block)
                return block

            def readinto(self, room: Any) -> int:
                block = self.read(len(room))
                room[: len(block)] = block
                return len(block)

        return Stream(self._data)


def parts(store: LocalStore, folder: str = "d") -> list[Path]:
    return [path for path in (store.root / folder).iterdir() if names.is_part(path.name)]


def leave_part(store: LocalStore, data: bytes, content: str = EXPECTED.blake3, name: str = "f") -> Path:
    """Have another process begin a file and be killed."""
    program = "import sys; from apbatch.storage import names; print(names.new_part(sys.argv[1], sys.argv[2]))"
    done = subprocess.run([sys.executable, "-c", program, name, content], capture_output=True, text=True, check=True)
    path = store.root / "d" / done.stdout.strip()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def copy(store: LocalStore, source: Source, path: str = "d/f") -> None:
    assert transfer.transfer(source.open, store, path, EXPECTED) == EXPECTED
    assert (store.root / path).read_bytes() == DATA and parts(store) == []


def test_what_a_killed_writer_left_is_not_read_from_the_source_again(store: LocalStore) -> None:
    leave_part(store, DATA[: 17 * STEP + 123])
    leave_part(store, DATA[: 2 * STEP])
    source = Source()
    copy_to = store.root / "d" / "f"
    assert transfer.transfer(source.open, store, "d/f", EXPECTED) == EXPECTED
    assert copy_to.read_bytes() == DATA
    assert source.read_bytes == len(DATA) - 17 * STEP - 123


@pytest.mark.parametrize(
    "spoil",
    [lambda data: b"\1" + data[1:], lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: bytes(len(data)),
     lambda data: data + DATA],
    ids=["first byte", "last byte", "holes", "too long"],
)  # fmt: skip
def test_a_part_with_a_wrong_byte_is_found_out_and_begun_anew(
    store: LocalStore, spoil: Callable[[bytes], bytes]
) -> None:
    leave_part(store, spoil(DATA[: 17 * STEP]))
    copy(store, Source())


def test_a_line_that_breaks_costs_only_what_comes_after(store: LocalStore) -> None:
    source = Source(breaks=(9 * STEP, 20 * STEP))
    copy(store, source)
    assert source.read_bytes == len(DATA)


def test_a_living_writers_part_is_left_alone(store: LocalStore) -> None:
    part = names.new_part("f", EXPECTED.blake3)
    try:
        (store.root / "d").mkdir()
        (store.root / "d" / part).write_bytes(DATA[: 17 * STEP])
        source = Source()
        transfer.transfer(source.open, store, "d/f", EXPECTED)
        assert source.read_bytes == len(DATA) and [path.name for path in parts(store)] == [part]
    finally:
        names.end_part(part)


def test_parts_of_other_files_and_contents_are_left_alone(store: LocalStore) -> None:
    leave_part(store, DATA[: 17 * STEP], name="f.001")
    leave_part(store, DATA[: 17 * STEP], content="0" * 64)
    leave_part(store, DATA[: 17 * STEP], name=f"f.of-{EXPECTED.blake3[:16]}")
    source = Source()
    transfer.transfer(source.open, store, "d/f", EXPECTED)
    assert source.read_bytes == len(DATA) and len(parts(store)) == 3


def test_a_source_that_changed_leaves_no_part(store: LocalStore) -> None:
    changed = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(SourceChangedError):
        transfer.transfer(Source(changed).open, store, "d/f", EXPECTED)
    with pytest.raises(SourceChangedError):
        transfer.transfer(Source(DATA + b"more").open, store, "d/f", EXPECTED)
    assert parts(store) == [] and store.info("d/f") is None


def test_of_a_small_file_and_of_few_bytes_nothing_is_kept(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for data, breaks in ((DATA[: 3 * STEP], (2 * STEP,) * 9), (DATA, (0,) * 9)):
        with pytest.raises(ServerError, match="broke"):
            transfer.transfer(Source(data, breaks).open, store, "d/f", hash_blocks([data]))
        assert parts(store) == []


def test_parts_that_could_be_gone_on_with_are_kept_for_three_days(store: LocalStore, tmp_path: Path) -> None:
    young, old, plain = (leave_part(store, b"x" * 9, content=text) for text in ("a" * 64, "b" * 64, ""))
    for part, days in ((young, 2.9), (old, 3.1), (plain, 0.0)):
        seconds = part.stat().st_mtime - days * 86_400
        os.utime(part, (seconds, seconds))
    with open_store(tmp_path.as_uri()).publish("d/other") as publication:
        publication.write(b"other")
    assert parts(store) == [young]

"""Blocks on their way to the disk: they wait for readers to pause, and not for ever."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any, cast

import pytest

from apbatch.access import keeping
from apbatch.access.blocks import Digests
from apbatch.access.cache import BlockCache
from apbatch.access.keeping import Keeper
from tests.waits import PATIENCE_S

NONE = cast(Digests, None)


class Disk:
    """Takes the place of a cache: which blocks came, and by which thread."""

    def __init__(self) -> None:
        self.blocks: list[int] = []
        self.threads: list[str] = []
        self.came = threading.Semaphore(0)

    def put(self, digests: Digests, block: int, data: bytes) -> None:
        self.blocks.append(block)
        self.threads.append(threading.current_thread().name)
        self.came.release()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def keeper(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """One whose readers never pause, as long as one has asked."""
    monkeypatch.setattr(keeping, "_PAUSE_S", 1e6)
    monkeypatch.setattr(keeping, "_LONGEST_S", 1e6)
    keeper = Keeper(cast(BlockCache, disk))
    keeper.note_reader()
    return keeper


def keep(keeper: Keeper, *blocks: int) -> list[int]:
    """Have blocks kept; return where those are noted whose locks were released."""
    released: list[int] = []
    for block in blocks:
        lock = ExitStack()
        lock.callback(released.append, block)
        keeper.keep(NONE, block, b"", lock)
    return released


def test_blocks_wait_while_a_reader_asks_and_closing_writes_them(keeper: Keeper, disk: Disk) -> None:
    released = keep(keeper, 1, 2, 3)
    assert disk.blocks == released == []
    keeper.close()
    assert disk.blocks == released == [1, 2, 3]


@pytest.mark.parametrize(("name", "value"), [("_PAUSE_S", 0.0), ("_LONGEST_S", 0.0), ("MANY", 0)])
def test_blocks_are_written_when_readers_pause_or_one_waited_long_or_many_wait(
    keeper: Keeper, disk: Disk, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    monkeypatch.setattr(keeping, name, value)
    keep(keeper, 1)
    assert disk.came.acquire(timeout=PATIENCE_S)
    assert disk.blocks == [1] and disk.threads == ["keep-blocks"]
    keeper.close()


def test_who_brings_one_too_many_writes_it(keeper: Keeper, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "MOST_WAITING", 1)
    released = keep(keeper, 1, 2)
    assert (disk.blocks, disk.threads, released) == ([2], [threading.current_thread().name], [2])
    keeper.close()
    assert disk.blocks == [2, 1]


def test_what_comes_after_the_end_is_written_at_once(keeper: Keeper, disk: Disk) -> None:
    keeper.close()
    assert keep(keeper, 1) == disk.blocks == [1]

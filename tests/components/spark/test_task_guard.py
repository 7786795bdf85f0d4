"""A file that takes all time or memory, or ends its process, is lost alone: what a task of Spark does about it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator

import pytest

from apbatch.errors import FormatError
from apbatch.formats import limits
from apbatch.spark.inputs import guard
from apbatch.spark.inputs.guard import guarded


def read(kind: str) -> Generator[int, None, str]:
    """Read a file of one kind."""
    yield 1
    if kind == "abort":
        os.abort()
    if kind == "memory":
        bytearray(8 << 40)
    while kind == "forever":
        pass
    yield 2
    return "read"


def taken(stream: Generator[int, None, str]) -> tuple[list[int], str]:
    items: list[int] = []
    while True:
        try:
            items.append(next(stream))
        except StopIteration as end:
            return items, end.value


@pytest.mark.parametrize("attempt", [None, 0, 1])
def test_a_whole_file_is_read(monkeypatch: pytest.MonkeyPatch, attempt: int | None) -> None:
    monkeypatch.setattr(guard, "_attempt", lambda: attempt)
    assert taken(guarded(read, "whole", size=10)) == ([1, 2], "read")


@pytest.mark.parametrize("attempt", [0, 1])
def test_a_file_that_takes_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch, attempt: int) -> None:
    monkeypatch.setattr(guard, "_attempt", lambda: attempt)
    with pytest.raises(FormatError, match="MB of memory"):
        taken(guarded(read, "memory", size=10))


@pytest.mark.parametrize(("kind", "reason"), [("abort", "SIGABRT"), ("forever", "more than 2 s")])
def test_what_ends_the_worker_is_found_in_the_next_attempt(
    monkeypatch: pytest.MonkeyPatch, kind: str, reason: str
) -> None:
    monkeypatch.setattr(limits, "LIMIT_S", 2.0)
    monkeypatch.setattr(guard, "_attempt", lambda: 1)
    with pytest.raises(FormatError, match=reason):
        taken(guarded(read, kind, size=10))


def test_the_first_attempt_ends_by_an_alarm() -> None:
    program = (
        "from tests.components.spark.test_task_guard import guard, limits, read, taken\n"
        "limits.LIMIT_S, guard._attempt = 0.5, lambda: 0\n"
        "taken(guard.guarded(read, 'forever', size=0))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -14

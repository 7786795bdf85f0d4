"""Work done ahead by a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apbatch.dl.training.prefetch import ahead
from tests.waits import PATIENCE_S, until


@given(st.lists(st.integers()), st.integers(1, 5))
def test_items_come_in_order_and_all_of_them(items: list[int], depth: int) -> None:
    assert list(ahead(iter(items), depth)) == items


def test_the_next_item_is_made_while_the_last_is_in_use() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        made.set()
        yield 2

    stream = ahead(items())
    assert next(stream) == 1
    assert made.wait(PATIENCE_S)
    assert list(stream) == [2]


def test_an_error_reaches_the_one_who_waits_after_what_came_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    stream = ahead(items())
    assert next(stream) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


def test_a_caller_who_stops_early_leaves_no_thread_behind() -> None:
    ended = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    before = threading.active_count()
    stream = ahead(items(), 2)
    assert next(stream) == 1
    stream.close()
    until(lambda: threading.active_count() <= before)
    assert threading.active_count() == before
    assert ended.wait(PATIENCE_S)

"""One range of bytes, as RFC 9110 (section 14) has it."""

from __future__ import annotations

import pytest

from apbatch.access.serving.ranges import requested_range

TAG = '"t"'


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        ("bytes=0-9", (206, 0, 10)), ("bytes=10-", (206, 10, 5000)), ("bytes=-5", (206, 4995, 5000)),
        ("Bytes=0-0", (206, 0, 1)), ("bytes=4999-", (206, 4999, 5000)), ("bytes=0-5000", (206, 0, 5000)),
        ("bytes=0-9223372036854775807", (206, 0, 5000)), (f"bytes=0-{'9' * 4000}", (206, 0, 5000)),
        (f"bytes=-{'9' * 40}", (206, 0, 5000)), (f"bytes={'0' * 30}7-8", (206, 7, 9)),
        ("bytes=5000-", (416, 0, 0)), ("bytes=-0", (416, 0, 0)), (f"bytes={'9' * 40}-", (416, 0, 0)),
        ("bytes=9-3", (200, 0, 5000)), ("bytes=0-1,5-6", (200, 0, 5000)), ("bytes=-", (200, 0, 5000)),
        ("bytes=a-b", (200, 0, 5000)), ("lines=1-2", (200, 0, 5000)), ("bytes=\u0661-2", (200, 0, 5000)),
        ("", (200, 0, 5000)),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_range_is_served_cut_passed_over_or_refused(wanted: str, answer: tuple[int, int, int]) -> None:
    assert requested_range({"range": wanted}, TAG, 5000) == answer


def test_a_range_of_another_version_is_the_whole() -> None:
    assert requested_range({"range": "bytes=0-1", "if-range": TAG}, TAG, 9) == (206, 0, 2)
    assert requested_range({"range": "bytes=0-1", "if-range": '"other"'}, TAG, 9) == (200, 0, 9)
    assert requested_range({"range": "bytes=0-1", "if-range": f"W/{TAG}"}, f"W/{TAG}", 9) == (200, 0, 9)


def test_an_empty_file_has_no_range() -> None:
    assert requested_range({"range": "bytes=0-"}, TAG, 0) == (416, 0, 0)
    assert requested_range({}, TAG, 0) == (200, 0, 0)

"""Names of any bytes as texts of the catalogue, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apbatch.index.names import to_name, to_text
from apbatch.index.records import is_text


@given(st.binary(max_size=40) | st.text(alphabet="\\x5c8faä0", max_size=12).map(str.encode))
def test_every_name_comes_back_and_its_text_can_be_stored(content: bytes) -> None:
    name = content.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    text = to_text(name)
    assert is_text(text)
    assert to_name(text) == name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain", "plain"), (b"a\\b", "a\\b"), (b"\xff", "\\xff"), (b"r\xe9sum\xe9", "r\\xe9sum\\xe9"),
        (b"\\xff", "\\x5cxff"), (b"\\x5c", "\\x5cx5c"), (b"\\x41", "\\x41"), ("ä".encode(), "ä"),
    ],
)  # fmt: skip
def test_only_what_must_be_escaped_is(name: bytes, text: str) -> None:
    assert to_text(name.decode("utf-8", "surrogateescape")) == text

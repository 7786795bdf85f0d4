"""Files are YAML 1.2: values are what they look like, and what is refused names line and column."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from apbatch.errors import UsageError
from apbatch.yamlfile import dump_yaml, load_model, read_yaml


def read(folder: Path, text: str | bytes) -> Any:
    file = folder / "f.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(file)[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0123", 123),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("+7", 7),
        ("-0", 0),
        ("22:00:52", "22:00:52"),
        ("190:20:30.15", "190:20:30.15"),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("1e3", 1000.0),
        ("6.0E-3", 0.006),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("0b101", "0b101"),
        ("1.2.3", "1.2.3"),
        ("~", None),
        ("", None),
        ("null", None),
        ("'0123'", "0123"),
        ('"no"', "no"),
        ("!!str 0123", "0123"),
        ("!!int '7'", 7),
        ("! 12", "12"),
        ("=", "="),
        ("2017-10-28", date(2017, 10, 28)),
        ("2017-10-28 22:00:52", datetime(2017, 10, 28, 22, 0, 52)),
        ("2017-10-28T22:00:52Z", datetime(2017, 10, 28, 22, 0, 52, tzinfo=UTC)),
        ("2017-1-2", "2017-1-2"),
        (".inf", math.inf),
    ],
)
def test_a_value_is_what_the_core_schema_says(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, f"k: {text}\n")["k"]
    assert (found, type(found)) == (value, type(value))


def test_keys_are_the_words_that_are_written(tmp_path: Path) -> None:
    assert read(tmp_path, "on: 1\nno: 2\n0123: 3\n2017-10-28: 4\n") == {"on": 1, "no": 2, "0123": 3, "2017-10-28": 4}


def test_merge_keys_give_what_is_not_said_otherwise_with_their_own_lines(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b\n  z: 3\n  y: 9\nc:\n  y: 5\n  <<: *a\nd: {<<: [*a, *b], w: 0}\n"
    file = tmp_path / "f.yaml"
    file.write_text(text)
    content, lines = read_yaml(file)
    assert content["c"] == {"x": 1, "y": 5}
    assert content["d"] == {"w": 0, "x": 1, "y": 2, "z": 3}
    assert (lines[("c", "y")], lines[("c", "x")], lines[("d", "z")]) == (6, 1, 3)


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("a: 1\nb: {x: 1, x: 2}\n", ":2:11", "'x' is given twice (first on line 2)"),
        ("a: 1\n? [1, 2]\n: x\n", ":2:3", "a key must be a plain word"),
        ("{a: b}: c\n", ":1:1", "a key must be a plain word"),
        ("a: &a [1, *a]\n", ":1:11", "*a stands for nothing before it"),
        ("a:\n  <<: 3\n", ":2:3", "<< takes a mapping"),
        ("a: !!python/object:os.system x\n", ":1:4", "has no meaning here"),
        ("a: !color red\n", ":1:4", "has no meaning here"),
        ("a: !!int x\n", ":1:4", "'x' is not an int"),
        ("a: 2017-13-45\n", ":1:4", "month"),
        ("a: 1e999\n", ":1:4", "too large"),
        ("a: " + "9" * 5000 + "\n", ":1:4", "limit"),
        ("%YAML 1.1\n---\na: no\n", ":2:1", "leave the %YAML line out"),
        ("a: 1\n---\nb: 2\n", ":2:1", "a second document"),
        ("a: [" + "[" * 100 + "]" * 100 + "]\n", ":1:", "levels"),
        ("a: b: c\n", ":1:5", "mapping values are not allowed"),
        ("a: 'b\n", ":2:1", ""),
        ("\tx: 1\n", ":1:1", ""),
        ("a: \x07\n", "", "special characters"),
    ],
)
def test_what_is_refused_is_named_with_line_and_column(tmp_path: Path, text: str, place: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert f"f.yaml{place}" in str(caught.value.where)
    assert reason in caught.value.what


def test_few_aliases_can_not_fill_the_memory(tmp_path: Path) -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    with pytest.raises(UsageError, match="values"):
        read(tmp_path, f"a0: &a0 [x]\n{levels}")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\n") == {"a": 1}


def test_a_number_where_text_is_wanted_is_to_be_quoted(tmp_path: Path) -> None:
    class Wanted(BaseModel):
        name: str

    file = tmp_path / "f.yaml"
    file.write_text("name: 0123\n")
    with pytest.raises(UsageError, match=r"f\.yaml:1: name: text is wanted, and 123 is not: put it into quotes"):
        load_model(file, Wanted)


SCALARS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(["no", "0123", "1e3", ".5e3", "22:00:52", "<<", "=", "~", "", "2017-10-28", "- x", "#", "a: b"]),
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.dates(),
    st.datetimes(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.from_regex(r"\A[a-z_]{1,8}\Z"), st.one_of(SCALARS, st.lists(SCALARS)), min_size=1))
def test_what_is_written_is_read_as_it_was(tmp_path: Path, content: dict[str, Any]) -> None:
    assert read(tmp_path, dump_yaml(content)) == content


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("ab:-?[]{}&*!|>'\"%@` \n\t#,<~01\x85\ufeff"))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    try:
        read(tmp_path, text)
    except UsageError as error:
        assert "f.yaml" in str(error.where)

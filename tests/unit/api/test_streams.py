"""Lines of JSON written by columns are those that `json` writes value by value."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from apbatch.api.streams import FORMS, plain

_WRITE = next(form.write for form in FORMS if form.name == "ndjson")
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_TIMES = st.datetimes(timezones=st.just(UTC))
COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "plain": (pa.string(), st.sampled_from(["a", "é", ""])),
    'a "name"': (pa.string(), _TEXTS),
    "count": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "number": (pa.float64(), st.floats()),
    "flag": (pa.bool_(), st.booleans()),
    "night": (pa.date32(), st.dates()),
    "second": (pa.timestamp("us", "UTC"), _TIMES.map(lambda time: time.replace(microsecond=0))),
    "moment": (pa.timestamp("us", "UTC"), _TIMES),
    "empty": (pa.null(), st.none()),
}
ROWS = st.lists(st.tuples(*(st.none() | values for _, values in COLUMNS.values())), max_size=5)


@given(rows=ROWS, start=st.integers(0, 2))
def test_lines_are_those_of_json(rows: list[tuple[Any, ...]], start: int) -> None:
    schema = pa.schema([(name, kind) for name, (kind, _) in COLUMNS.items()])
    arrays = [pa.array([row[number] for row in rows], kind) for number, kind in enumerate(schema.types)]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema).slice(
        start
    )  # whose texts begin in the middle of a buffer
    assert _WRITE is not None
    written = b"".join(_WRITE(schema, [batch])).decode()
    assert written == "".join(json.dumps(plain(row), ensure_ascii=False) + "\n" for row in batch.to_pylist())


def test_days_and_moments_at_the_ends_of_the_calendar() -> None:
    values = {
        "night": [date.min, date.max],
        "moment": [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)],
    }
    batch = pa.RecordBatch.from_pydict(
        values, pa.schema([("night", pa.date32()), ("moment", pa.timestamp("us", "UTC"))])
    )
    assert _WRITE is not None
    lines = [json.loads(line) for line in b"".join(_WRITE(batch.schema, [batch])).splitlines()]
    assert lines == [
        {"night": one.isoformat(), "moment": time.isoformat()} for one, time in zip(*values.values(), strict=True)
    ]

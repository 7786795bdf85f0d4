"""Pages: the same rows in the same order on every back-end, whatever the size of a page and what is written between."""

from __future__ import annotations

import random
import secrets
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cmp_to_key
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apbatch.errors import UsageError
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord, State
from apbatch.index.parser import parse_search
from apbatch.index.query import (
    And,
    Between,
    Compare,
    Cone,
    In,
    IsNull,
    Like,
    Not,
    Or,
    Order,
    Query,
    Search,
    matches,
    of_registered,
)  # fmt: skip
from tests.contract.conftest import CASSANDRA, POSTGRES, record

_TIMES = [datetime(2017, 10, 28, tzinfo=UTC) + timedelta(microseconds=us) for us in (0, 1, 999, 1_000_000)]
#: Values by attribute, so that records and conditions meet.
_VALUES: dict[str, list[Any]] = {
    "run": [1, 2, 2**62], "events": [0, 5, 1000], "size": [0, 1, 100], "night": [date(2017, 10, 28), date(2018, 1, 1)],
    "telescope": [1, 2], "time_start": _TIMES, "format": ["taiga-raw", "other"], "reason": ["ä", "z"],
    "zenith": [0.0, 29.9, 30.0, 1e-300], "azimuth": [0.0, 0.1, 180.0, 359.9],
    "label": ["x", "xy", "X", "%", "", "a_b", "long" * 500, "\\", "🔭", "é", "e\u0301"],
    "simulated": [True, False], "calibrated": [date(1, 1, 1), date(9999, 12, 31)], "seed": [2**62, 2**62 + 1, -1],
    "shifted": _TIMES,
}  # fmt: skip
_DECLARED = ("zenith", "azimuth", "label", "simulated", "calibrated", "seed", "shifted")
_PATTERNS = ["x%", "%", "_", "a\\_b", "\\%", "%y", "lo%g", "X", "\\", "\\\\", "1%.0%", "é"]
_TEXTS = ("label", "format", "reason", "source")


def _some(names: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(_VALUES[name]) for name in names})


_records = st.lists(
    st.builds(
        lambda common, attributes, state: {**common, "attributes": attributes, "state": state},
        _some(tuple(name for name in _VALUES if name not in _DECLARED)), _some(_DECLARED),
        st.sampled_from([State.REGISTERED, State.REGISTERED, State.LISTED, State.QUARANTINED, State.MISSING]),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@st.composite
def _leaves(draw: st.DrawFn) -> Query:
    name = draw(st.sampled_from(list(_VALUES)))
    value = st.sampled_from(_VALUES[name])
    if draw(st.integers(0, 9)) == 0:
        return Cone(
            ("azimuth", "zenith"), (draw(st.sampled_from([0.0, 359.5])), 30.0), draw(st.sampled_from([0.2, 20.0]))
        )
    kind = draw(st.sampled_from(["compare", "between", "in", "null", "like"]))
    if kind == "compare":
        signs = ("=", "!=") if name == "simulated" else ("=", "!=", "<", "<=", ">", ">=")
        operator: Any = draw(st.sampled_from(signs))
        number = draw(value)
        if name in ("run", "events", "seed", "size") and draw(st.booleans()):
            number = draw(st.sampled_from([0.5, 4.99, -1.5, 1e30]))
        return Compare(name, operator, number)
    if kind == "between" and name != "simulated":
        return Between(name, draw(value), draw(value))
    if kind == "in":
        return In(name, tuple(draw(st.lists(value, min_size=1, max_size=3))))
    if kind == "like":
        name = draw(st.sampled_from(_TEXTS))
        return Like(
            name, draw(st.sampled_from(["x%", "%", "_", "a\\_b", "\\%", "%y", "lo%g", "X", "\\", "\\\\", "1%.0%", "é"]))
        )
    return IsNull(name)


_queries = st.recursive(
    _leaves(),
    lambda part: st.one_of(
        part.map(Not),
        st.lists(part, min_size=1, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(part, min_size=1, max_size=3).map(lambda parts: Or(tuple(parts))),
    ),
    max_leaves=6,
)
_orders = st.lists(
    st.builds(Order, st.sampled_from([name for name in _VALUES if name != "simulated"]), st.booleans()), max_size=3
)


def _sorted(records: list[FileRecord], order: tuple[Order, ...]) -> list[FileRecord]:
    """The definition of an order: a missing value is the least, path decides."""

    def compare(one: FileRecord, other: FileRecord) -> int:
        for key in (*order, Order("path")):
            left, right = one.flat().get(key.name), other.flat().get(key.name)
            if left == right:
                continue
            less = left is None or (right is not None and left < right)
            return (-1 if less else 1) * (-1 if key.descending else 1)
        return 0

    return sorted(records, key=cmp_to_key(compare))


@pytest.mark.parametrize("whole", ["sqlite", POSTGRES], indirect=True)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(_records, _queries, _orders, st.integers(1, 5), st.none() | st.integers(1, 6))
def test_random_queries_over_random_records_mean_what_python_says(
    whole: Catalogue, many: list[dict[str, Any]], query: Query, order: list[Order], size: int, limit: int | None
) -> None:
    check_a_search(whole, many, query, order, size, limit)


@pytest.mark.parametrize("whole", [CASSANDRA], indirect=True)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(_records, _queries, _orders, st.integers(1, 5), st.none() | st.integers(1, 6))
def test_so_do_some_of_them_in_cassandra(
    whole: Catalogue, many: list[dict[str, Any]], query: Query, order: list[Order], size: int, limit: int | None
) -> None:
    check_a_search(whole, many, query, order, size, limit)


def check_a_search(
    whole: Catalogue, many: list[dict[str, Any]], query: Query, order: list[Order], size: int, limit: int | None
) -> None:
    experiment = f"E{secrets.token_hex(4)}"
    records = [record(experiment, f"{n}.00{n % 3}", **changes) for n, changes in enumerate(many)]
    assert whole.upsert(records).refusals == ()
    asked = And((Compare("experiment", "=", experiment), query))
    search = Search(asked, tuple(order), limit)
    expected = [r for r in records if matches(of_registered(asked), r.flat())]
    wanted = [r.path for r in _sorted(expected, tuple(order))][:limit]
    try:
        columns = ("path", *_VALUES)
        pages, cursor = [], None
        while True:
            page = whole.select_batch(search, columns, cursor, size)
            assert page.batch.num_rows <= size
            pages.append(page.batch)
            if (cursor := page.cursor) is None:
                break
        table = pa.Table.from_batches(pages)
        assert table["path"].to_pylist() == wanted
        by_path = {r.path: r.flat() for r in records}
        for row in table.to_pylist():
            assert row == {name: by_path[row["path"]].get(name) for name in columns}
        found, cursor = [], None
        while True:
            of_records = whole.select_records(search, cursor, size)
            found += of_records.records
            if (cursor := of_records.cursor) is None:
                break
        assert [replace(r, revision=0) for r in found] == [r for path in wanted for r in records if r.path == path]
        assert whole.count(asked) == {None: len(expected)}
        for name in ("night", "label", "simulated", "format"):
            counts: dict[Any, int] = {}
            for r in expected:
                counts[r.flat().get(name)] = counts.get(r.flat().get(name), 0) + 1
            assert whole.count(asked, name) == counts
        whole.explain(search)
    finally:
        whole.remove([r.path for r in records])


def test_a_plan_tells_how_many_rows_are_read_or_that_it_can_not(whole: Catalogue, experiment: str) -> None:
    whole.upsert([record(experiment, f"{n:04}", night=date(2017, 10, 1 + n % 20)) for n in range(1_500)])
    every = And((Compare("experiment", "=", experiment), Compare("mtime_ns", ">", 0)))
    sorted_by_size = Search(every, order=(Order("size", descending=True),))
    few = whole.rows_read(Search(Compare("path", "=", f"/{experiment}/site/0007")))
    many = whole.rows_read(sorted_by_size)
    whole.remove([f"/{experiment}/site/{n:04}" for n in range(1_500)])
    assert few is None or few <= 1_000
    assert many is not None and many > 0  # PostgreSQL knows little of a table that is new
    assert (whole.rows_read(parse_search("", whole.attributes())) or 0) <= 1_000  # each row that is read is shown


def test_what_is_written_between_pages_neither_doubles_nor_hides(whole: Catalogue, experiment: str) -> None:
    whole.upsert(record(experiment, f"{n:02}") for n in range(0, 40, 2))
    search = Search(Compare("experiment", "=", experiment))
    first = whole.select_batch(search, ["source"], size=10)
    whole.upsert(record(experiment, f"{n:02}") for n in range(1, 40, 2))
    whole.remove([f"/{experiment}/site/00"])
    rest = whole.select_batch(search, ["source"], first.cursor, size=100)
    seen = first.batch.column(0).to_pylist() + rest.batch.column(0).to_pylist()
    assert seen == [f"{n:02}" for n in range(0, 20, 2)] + [f"{n:02}" for n in range(19, 40)]


def test_a_cursor_serves_its_own_question_only(whole: Catalogue, experiment: str) -> None:
    whole.upsert(record(experiment, f"{n}") for n in range(4))
    search = Search(Compare("experiment", "=", experiment))
    cursor = whole.select_batch(search, ["path"], size=2).cursor
    assert cursor is not None
    other = replace(search, order=(Order("size"),))
    with pytest.raises(UsageError, match="another question"):
        whole.select_batch(other, ["path"], cursor)
    with pytest.raises(UsageError, match="another question"):
        whole.entries(f"/{experiment}", cursor)
    for forged in ("", "x", "Ωmega", cursor[:-3], cursor + "A", "WzFd", "e30", "A" * 200_000, "W1tbW1tb" * 3000):
        with pytest.raises(UsageError):
            whole.select_batch(search, ["path"], forged)


def test_an_unknown_column_or_order_names_the_nearest(whole: Catalogue, experiment: str) -> None:
    search = Search(Compare("experiment", "=", experiment))
    with pytest.raises(UsageError, match="did you mean 'zenith'"):
        whole.select_batch(search, ["zenit"])
    with pytest.raises(UsageError, match="did you mean 'night'"):
        whole.select_batch(replace(search, order=(Order("nigth"),)), ["path"])


def test_a_listing_comes_in_the_order_of_a_sorted_walk(whole: Catalogue, experiment: str) -> None:
    sources = ["a", "a.b", "a/b", "a/c/d", "a0", "ab", "ä", "🔭", "b/x", "A"]
    states = [State.MISSING, State.LISTED, State.QUARANTINED, *[State.REGISTERED] * 7]
    whole.upsert(record(experiment, s, state=state) for s, state in zip(sources, states, strict=True))
    seen, cursor = [], None
    while True:
        page = whole.listing(f"{experiment}-site", cursor=cursor, size=3)
        seen += page.batch.to_pylist()
        if (cursor := page.cursor) is None:
            break
    assert [row["source"] for row in seen] == sorted(sources, key=str.encode)
    assert seen[0].keys() == {"path", "source", "size", "mtime_ns", "state", "format", "checksum"}
    below = whole.listing(f"{experiment}-site", "a", columns=("source", "state")).batch.to_pylist()
    assert [row["source"] for row in below] == ["a/b", "a/c/d"]
    assert whole.listing("no site").batch.num_rows == 0


def test_entries_of_a_large_folder_come_by_pages(whole: Catalogue, experiment: str) -> None:
    names = sorted(f"{n}" for n in range(1200))
    whole.upsert(record(experiment, f"d/{name}") for name in names[::2])
    whole.upsert(record(experiment, f"d/{name}/f") for name in names[1::2])
    seen, cursor = [], None
    while True:
        page = whole.entries(f"/{experiment}/site/d", cursor, limit=100)
        assert len(page.entries) <= 100
        seen += [entry.name for entry in page.entries]
        if (cursor := page.cursor) is None:
            break
    assert seen == names


def test_names_of_the_greatest_length_and_of_odd_characters_are_kept(whole: Catalogue, experiment: str) -> None:
    noise = random.Random(6).randbytes(2000).hex()
    deep = "/".join(noise[n * 250 : (n + 1) * 250] for n in range(14))  # no compression makes that short
    odd = [
        "%41_",
        "100%",
        "a'b\"c",
        "; drop table file; --",
        "?",
        "$1",
        "%s",
        "{}",
        "\\x41",
        "new\nline",
        "\u202e",
        " ",
    ]
    whole.upsert(record(experiment, name) for name in (deep, *odd))
    assert {r.source for r in whole.of_site(f"{experiment}-site")} == {deep, *odd}
    for name in (deep, *odd):
        (file,) = whole.select(Compare("path", "=", f"/{experiment}/site/{name}"))
        assert file.source == name
        parent, _, last = f"/{experiment}/site/{name}".rpartition("/")
        assert last in [entry.name for entry in whole.entries(parent).entries]
    assert whole.remove([f"/{experiment}/site/{deep}"]) == 1
    assert {r.source for r in whole.of_site(f"{experiment}-site")} == set(odd)


@pytest.mark.parametrize("name", ["a\0b", "\udcff", "../x", "a//b", "", ".", "x" * 5000])
def test_a_path_that_can_be_none_is_refused_and_the_others_are_written(
    whole: Catalogue, experiment: str, name: str
) -> None:
    report = whole.upsert([record(experiment, "good"), record(experiment, name), record(experiment, "also")])
    assert report.written == 2 and [refusal.record.source for refusal in report.refusals] == [name]


INJECTIONS = ["' or 1 = 1 --", "'; drop table file; --", '"; delete from file; --', "x\\'; --", "%(a)s", "${x}", "$1"]


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_field_is_read_as_a_statement(whole: Catalogue, experiment: str, text: str) -> None:
    evil = record(
        experiment, text, site=f"{experiment}{text}", checksum=text, adler32=text, format=text, reason=text,
        attributes={"label": text},
    )  # fmt: skip
    other = record(f"{experiment}{text}", attributes={"label": "x"})
    whole.upsert([evil, other, record(experiment, "kept")])
    mine = Compare("experiment", "=", experiment)
    (found,) = whole.select(And((Compare("label", "=", text), mine)))
    assert replace(found, revision=0) == evil
    assert whole.get(other.path) is not None
    for name in ("site", "checksum", "format", "experiment", "place", "source"):
        assert list(whole.select(And((Compare(name, "=", text + "x"), mine)))) == []
    assert whole.listing(f"{experiment}{text}").batch.num_rows == 1
    assert whole.count(mine, "format") == {text: 1, "taiga-raw": 1}
    assert whole.remove([evil.path, other.path]) == 2
    assert [r.source for r in whole.select(mine)] == ["kept"]

"""The query language: what is written, what it means, and how mistakes are told."""

from __future__ import annotations

import random
import re
import time
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.attributes import COMMON
from apbatch.index.parser import names_in, parse, parse_search
from apbatch.index.query import (
    And,
    Between,
    Compare,
    Cone,
    Everything,
    In,
    IsNull,
    Like,
    Not,
    Or,
    Order,
    Query,
    Search,
    is_like,
    matches,
    normalise,
    of_registered,
    written,
)  # fmt: skip

KNOWN = {
    **COMMON,
    "zenith": Attribute("zenith", "number", "zenith angle", "deg"),
    "energy": Attribute("energy", "number", "energy", "TeV"),
    "label": Attribute("label", "string", "text"),
    "simulated": Attribute("simulated", "boolean", "flag"),
}


def read(text: str) -> Query:
    return parse(text, KNOWN)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", Everything()),
        (" \n", Everything()),
        ("events > 1000", Compare("events", ">", 1000)),
        ("EVENTS >= -5", Compare("events", ">=", -5)),
        ("label = 'it''s'", Compare("label", "=", "it's")),
        ('label == "a \'b\'"', Compare("label", "=", "a 'b'")),
        ("label <> 'x'", Compare("label", "!=", "x")),
        ("simulated = TRUE", Compare("simulated", "=", True)),
        ("night = 2017-10-28", Compare("night", "=", date(2017, 10, 28))),
        ("night = '2017-10-28'", Compare("night", "=", date(2017, 10, 28))),
        ("time_start < 2017-10-28T16:30", Compare("time_start", "<", datetime(2017, 10, 28, 16, 30, tzinfo=UTC))),
        ("time_start < '2017-10-28 16:30:01.5Z'",
         Compare("time_start", "<", datetime(2017, 10, 28, 16, 30, 1, 500000, tzinfo=UTC))),
        ("time_start < '2017-10-28T16:30:00+08:00'",
         Compare("time_start", "<", datetime(2017, 10, 28, 8, 30, tzinfo=UTC))),
        ("zenith < 30 deg", Compare("zenith", "<", 30.0)),
        ("zenith < 30deg", Compare("zenith", "<", 30.0)),
        ("energy > 2e3 GeV", Compare("energy", ">", 2.0)),
        ("energy > 2eV", Compare("energy", ">", 2e-12)),
        ("size > 1.5 kB", Compare("size", ">", 1500)),
        ("zenith between 10 and 20 deg", Between("zenith", 10.0, 20.0)),
        ("zenith BETWEEN 0 deg AND 3.141592653589793 rad", Between("zenith", 0.0, 180.0)),
        ("zenith not between 10 and 20", Not(Between("zenith", 10.0, 20.0))),
        ("run in (1, 2 ,3)", In("run", (1, 2, 3))),
        ("run not in (1)", Not(In("run", (1,)))),
        ("path like '/a/%'", Like("path", "/a/%")),
        ("path not like '/a/%'", Not(Like("path", "/a/%"))),
        ("zenith is null", IsNull("zenith")),
        ("zenith is not null", Not(IsNull("zenith"))),
        ("run = 1 or run = 2 and not events = 3",
         Or((Compare("run", "=", 1), And((Compare("run", "=", 2), Not(Compare("events", "=", 3))))))),
        ("(run = 1 or run = 2) and events = 3",
         And((Or((Compare("run", "=", 1), Compare("run", "=", 2))), Compare("events", "=", 3)))),
        ("label = '((((( not and or'", Compare("label", "=", "((((( not and or")),
    ],
)  # fmt: skip
def test_a_query_is_read_as_written(text: str, tree: Query) -> None:
    got = read(text)
    assert got == tree or _close(got, tree)


def _close(got: Any, wanted: Any) -> bool:
    return isinstance(got, Between | Compare) and all(
        getattr(got, name) == (pytest.approx(value) if isinstance(value, float) else value)
        for name, value in ((name, getattr(wanted, name)) for name in wanted.__slots__)
    )


@pytest.mark.parametrize(
    ("text", "column", "told"),
    [
        ("experiment = 'a' and zenit < 3", 22, "unknown attribute 'zenit'; did you mean 'zenith'?"),
        ("zenith < 30 kg", 10, "can't be converted to 'deg'"),
        ("zenith < 30 dge", 10, "unknown unit 'dge'"),
        ("events > 3 deg", 10, "plain number"),
        ("zenith < 'x'", 10, "'zenith' is a number, which 'x' is not"),
        ("night = 3", 9, "a date such as 2017-10-28"),
        ("night = 2017-13-01", 9, "'2017-13-01' is not a date"),
        ("label = 3", 9, "text in quotes"),
        ("label = x", 9, "text goes in quotes"),
        ("simulated > true", 11, "no order"),
        ("events like 'x'", 1, "'like' is for text"),
        ("events >", 9, "ends too early"),
        ("events", 7, "ends too early"),
        ("(events > 1", 12, "ends too early"),
        ("events > 1)", 11, "')' is not expected here"),
        ("label = 'x", 9, "a string is not closed"),
        ("run = 1 adn events = 2", 9, "did you mean 'and'?"),
        ("label = 'x' adn events = 2", 13, "did you mean 'and'?"),
        ("label lke 'x'", 7, "did you mean 'like'?"),
        ("state = 'quarantned'", 9, "did you mean 'quarantined'?"),
        ("state = 'archivd'", 9, "did you mean 'archived'?"),
        ("run = 99999999999999999999", 7, "too large"),
        ("run = 1e30", 7, "too large"),
        ("zenith = 1e999", 10, "too large"),
        ("run = 1; drop table file", 8, "';' is not expected here"),
        ("run in ()", 9, "')' is not expected here"),
        ("label = 'a' \x1b[31m", 13, r"'\x1b' is not expected here"),
        ("label = 'a\udcff'", 11, "not valid Unicode"),
        ("label =\n 3", 10, "text in quotes"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, column: int, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert caught.value.where == f"query, column {column}"
    assert told in str(caught.value)
    assert all(char.isprintable() for char in str(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        "label = '" + "x" * 10_000_000 + "'",
        "(" * 60 + "run = 1" + ")" * 60,
        "(" * 30_000 + "run = 1" + ")" * 30_000,
        "not " * 20_000 + "run = 1",
        "run = 1" + " or run = 1" * 8000,
        "run in (" + "1," * 20_000 + "1)",
        "label like '" + "%a" * 5000 + "'",
        "run = " + "9" * 50_000,
        "\0" * 1000,
        "run = 1 " + "\x00\x1b" * 100,
        "'" * 99_999,
    ],
    ids=range(11),
)
def test_a_hostile_query_is_refused_at_once_and_in_short(text: str) -> None:
    start = time.process_time()
    with pytest.raises(UsageError) as caught:
        read(text)
    assert time.process_time() - start < 5
    assert len(str(caught.value)) < 300


def test_fifty_levels_are_read() -> None:
    assert read("not (" * 45 + "run = 1" + ")" * 45) is not None


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_refused_as_a_users_error(text: str) -> None:
    try:
        read(text)
    except UsageError as error:
        assert error.where is None or re.fullmatch(r"query, column \d+", error.where)


words = st.sampled_from([*KNOWN, "and", "or", "not", "in", "(", ")", ",", "=", "<", "'a'", "3", "deg", "2017-10-28"])


@given(st.lists(words, max_size=12).map(" ".join))
@settings(max_examples=200, deadline=None)
def test_any_order_of_right_words_is_read_or_refused_as_a_users_error(text: str) -> None:
    try:
        read(text)
    except UsageError as error:
        assert error.where is None or re.fullmatch(r"query, column \d+", error.where)


def test_a_missing_value_is_neither_below_nor_above() -> None:
    for text in ("zenith < 30", "not zenith < 30", "zenith != 30", "zenith not in (3)", "label not like 'x'"):
        assert not matches(normalise(read(text)), {"zenith": None})


def test_quarantined_files_are_left_out_unless_state_is_named() -> None:
    quarantined = {"state": "quarantined", "run": 1}
    assert not matches(of_registered(read("run = 1")), quarantined)
    assert matches(of_registered(read("run = 1 and state != 'missing'")), quarantined)


@given(st.text("ab%_\n", max_size=8), st.text("ab%_\n", max_size=8))
@settings(max_examples=300, deadline=None)
def test_like_is_what_a_regular_expression_says(text: str, pattern: str) -> None:
    regex = "".join({"%": ".*", "_": "."}.get(char, re.escape(char)) for char in pattern)
    assert is_like(text, pattern) == (re.fullmatch(regex, text, re.DOTALL) is not None)


def test_like_takes_no_exponential_time() -> None:
    start = time.process_time()
    assert not is_like("a" * 5000, "%a" * 200 + "%b")
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "text",
    [
        "", "label = 'it''s \n' and (run = 1 or not (zenith >= 1e-300 or run in (1, -2)))", "simulated = true",
        "time_start between '2017-10-28T16:30:00.000001' and 2017-11-01", "night != 2017-10-28 or path like '%\"'",
        "not (zenith is null)", "(run = 1 or run = 2) or run = 3",
    ],
)  # fmt: skip
def test_a_query_written_out_reads_the_same(text: str) -> None:
    assert read(written(read(text))) == read(text)


leaves = st.sampled_from(
    ["run = 1", "run != 2", "events < 5", "events >= 5", "zenith between 1 and 2", "run in (1, 3)", "label like 'x%'",
     "label is null", "zenith is not null"]
)  # fmt: skip
queries = st.recursive(
    leaves,
    lambda part: st.one_of(
        part.map(lambda a: f"not ({a})"),
        st.tuples(part, part).map(lambda ab: f"({ab[0]}) and ({ab[1]})"),
        st.tuples(part, part).map(lambda ab: f"({ab[0]}) or ({ab[1]})"),
    ),
    max_leaves=6,
)
rows = st.fixed_dictionaries(
    {
        "run": st.none() | st.integers(1, 3),
        "events": st.none() | st.sampled_from([4, 5]),
        "zenith": st.none() | st.sampled_from([0.5, 1.0, 3.0]),
        "label": st.none() | st.sampled_from(["x", "xy", "y"]),
    }
)


@given(queries, rows)
@settings(max_examples=200, deadline=None)
def test_a_query_means_what_sqlite_says(text: str, row: dict[str, Any]) -> None:
    import sqlite3

    columns = ", ".join(f"? as {name}" for name in row)
    sql = f"select count(*) from (select {columns}) where {text}"
    with sqlite3.connect(":memory:") as connection:
        (found,) = connection.execute(sql, tuple(row.values())).fetchone()
    assert matches(normalise(read(text)), row) == bool(found)


ANGLES = {**KNOWN, "azimuth": Attribute("azimuth", "number", "azimuth", "deg")}


def day(number: int, hour: int = 0) -> datetime:
    return datetime(2017, 10, number, hour, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("time_start = 2017-10-28", And((Compare("time_start", ">=", day(28)), Compare("time_start", "<", day(29))))),
        ("time_start != '2017-10-28'", Or((Compare("time_start", "<", day(28)), Compare("time_start", ">=", day(29))))),
        ("time_start > 2017-10-28", Compare("time_start", ">=", day(29))),
        ("time_start >= 2017-10-28", Compare("time_start", ">=", day(28))),
        ("time_start < 2017-10-28", Compare("time_start", "<", day(28))),
        ("time_start <= 2017-10-28", Compare("time_start", "<", day(29))),
        ("time_start between 2017-10-28 and 2017-10-29",
         And((Compare("time_start", ">=", day(28)), Compare("time_start", "<", day(30))))),
        ("time_start > 2017-10-28T12:00+02:00", Compare("time_start", ">", day(28, 10))),
        ("time_start > 2017-10-28T12:00-0130", Compare("time_start", ">", datetime(2017, 10, 28, 13, 30, tzinfo=UTC))),
        ("time_start <= 9999-12-31", Not(IsNull("time_start"))),
        ("size > 2 kB", Compare("size", ">", 2000)),
        ("size > 2 KB", Compare("size", ">", 2000)),
        ("zenith < 30°", Compare("zenith", "<", 30.0)),
        ("zenith < 30 degrees", Compare("zenith", "<", 30.0)),
    ],
)  # fmt: skip
def test_days_offsets_and_spellings_of_units(text: str, query: Query) -> None:
    assert parse(text, KNOWN) == query


@pytest.mark.parametrize(
    ("text", "where", "order", "limit"),
    [
        ("", Everything(), (), None),
        ("limit 3", Everything(), (), 3),
        ("run = 1 order by night DESC, events asc, path limit 10", Compare("run", "=", 1),
         (Order("night", True), Order("events"), Order("path")), 10),
        ("ORDER  BY zenith", Everything(), (Order("zenith"),), None),
    ],
)  # fmt: skip
def test_an_order_and_a_limit_end_a_search(
    text: str, where: Query, order: tuple[Order, ...], limit: int | None
) -> None:
    assert parse_search(text, KNOWN) == Search(where, order, limit)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("events = null", 10, "write 'events is null'"),
        ("events != NULL", 11, "write 'events is not null'"),
        ("night = 2017-02-30", 9, "day is out of range"),
        ("order by nigth", 10, "did you mean 'night'"),
        ("run = 1 limit 0", 15, "a limit of 0"),
        ("cone(label, zenith, 1, 2, 3)", 6, "'label' is not an angle"),
        ("cone(azimuth, zenith, 1, 2, 181 deg)", 29, "from 0 to 180"),
        ("cone(azimuth, zenith, 1 m, 2, 3)", 23, "can't be converted"),
    ],
)
def test_mistakes_of_these_are_told_with_their_place(text: str, column: int, message: str) -> None:
    with pytest.raises(UsageError, match=f"column {column}: .*{message}"):
        parse_search(text, ANGLES)


@pytest.mark.parametrize("text", ["run = 1 limit 2", "run = 1 order by night", "order by night"])
def test_a_condition_has_no_order(text: str) -> None:
    with pytest.raises(UsageError, match="without order and limit"):
        parse(text, KNOWN)


def test_a_cone_is_what_spherical_trigonometry_says() -> None:
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    draw = random.Random(1)
    for _ in range(200):
        at, radius = (draw.uniform(0, 360), draw.uniform(0, 90)), draw.uniform(0, 60)
        where = (at[0] + draw.uniform(-70, 70), min(90.0, max(0.0, at[1] + draw.uniform(-70, 70))))
        away = SkyCoord(at[0], 90 - at[1], unit=u.deg).separation(SkyCoord(where[0], 90 - where[1], unit=u.deg)).deg
        query = parse_search(f"cone({at[0]}, {at[1]} deg, {radius}°)", ANGLES).where
        assert query == Cone(("azimuth", "zenith"), at, radius)
        assert matches(query, {"azimuth": where[0], "zenith": where[1]}) == bool(away <= radius)
        assert parse(written(query), ANGLES) == query
        equatorial = Cone(("ra", "dec"), (at[0], 90 - at[1]), radius)
        assert equatorial.holds(where[0], 90 - where[1]) == bool(away <= radius)


def test_ten_thousand_malformed_queries_end_in_a_clear_error_or_a_query() -> None:
    draw = random.Random(2)
    good = [
        "zenith < 30 deg and label like 'x%' or not (run in (1, 2) and events is null) order by night desc limit 3",
        "cone(azimuth, zenith, 1 deg, 2°, 0.5 rad) and time_start between 2017-10-28T16:30:00+01:00 and 2017-11-01",
        "night = '2017-10-28' and simulated = true and size >= 1.5e3 kB and path not like '/a\\%_%'",
    ]
    odd = ["'", '"', "(", ")", "\\", "null", "9" * 400, "1e999", "-", "\0", "\udcff", "°", "%", ";", "--", "limit"]
    odd += [
        "cone(",
        "order by",
        "between",
        "in",
        ",",
        "2017-13-45",
        "T25:61",
        "+99:99",
        "\n",
        "🔭",
        "=",
        "is",
        "not",
        " ",
    ]
    for _ in range(10_000):
        text = draw.choice(good)
        for _ in range(draw.randint(1, 4)):
            place, length = draw.randrange(len(text) + 1), draw.choice([0, 0, 1, 3, 12])
            text = text[:place] + draw.choice([*odd, ""]) + text[place + length :]
        try:
            parse_search(text, ANGLES)
        except UsageError as error:
            assert error.what


def test_the_names_in_a_query_are_those_of_its_attributes() -> None:
    assert names_in("experiment = 'TAIGA-SIM' and format = 'apbatch-images'") == {"experiment", "format"}

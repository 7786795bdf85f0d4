"""ADQL against SQLite: what TAP answers is SQL, so that a database that never saw the catalogue can judge it."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import OWNER
from apbatch.api.tap.adql import parse_adql
from apbatch.api.tap.answer import answer
from apbatch.api.tap.request import Tap
from apbatch.api.tap.tables import Table
from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.service import record

_BASE = "http://127.0.0.1/tap"
_FORMATS = ("taiga-raw", "apbatch-images", "A_b%c", "a\\b", "it's", "Ünïcode")


@dataclass
class Both:
    """TAP over a catalogue, and a plain table of SQLite with the same rows."""

    tables: dict[str, Table]
    plain: sqlite3.Connection

    def adql(self, text: str) -> list[tuple[Any, ...]]:
        """Answer by the service's own way."""
        statement = parse_adql(text, {name: table.attributes for name, table in self.tables.items()})
        _, batches = answer(self.tables[statement.table], statement)
        return [tuple(map(_plain, row.values())) for batch in batches for row in batch.to_pylist()]

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """Answer by SQLite."""
        return [tuple(row) for row in self.plain.execute(text)]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S")
    return value.isoformat() if isinstance(value, date) else value


def _distance(one: float | None, two: float | None, three: float, four: float) -> float | None:
    """Angle between two directions, degrees, by vectors: another formula than the catalogue's."""
    if one is None or two is None:
        return None
    vectors = [
        (math.cos(math.radians(y)) * math.cos(math.radians(x)), math.cos(math.radians(y)) * math.sin(math.radians(x)),
         math.sin(math.radians(y)))
        for x, y in ((one, two), (three, four))
    ]  # fmt: skip
    product = math.fsum(a * b for a, b in zip(*vectors, strict=True))
    return math.degrees(math.acos(max(-1.0, min(1.0, product))))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with SqliteCatalogue(f"sqlite:///{tmp_path_factory.mktemp('adql')}/c.sqlite") as catalogue:
        catalogue.declare([
            Attribute("zenith", "number", "zenith angle", "deg"), Attribute("pointing_ra", "number", "pointing", "deg"),
            Attribute("pointing_dec", "number", "pointing", "deg"), Attribute("good", "boolean", "quality"),
            Attribute("target", "string", "what was observed"),
        ])  # fmt: skip
        records = []
        for number in range(60):
            attributes: dict[str, Any] = {"pointing_ra": number * 7.0 % 360, "pointing_dec": number * 3.0 - 89}
            attributes |= {} if number % 5 == 0 else {"zenith": number / 7}
            attributes |= {} if number % 4 == 0 else {"good": number % 3 == 0}
            attributes |= {} if number % 3 == 0 else {"target": ("Crab", "Mrk 501")[number % 2]}
            changes: dict[str, Any] = {"attributes": attributes, "format": _FORMATS[number % len(_FORMATS)]}
            changes |= {"events": None} if number % 6 == 0 else {}
            changes |= {"size": number * 333}
            records.append(record(number, ("taiga", "secret")[number % 2], **changes))
        catalogue.upsert(records)
        plain = sqlite3.connect(":memory:", check_same_thread=False)
        plain.execute("PRAGMA case_sensitive_like = ON")
        plain.create_function("distance", 4, _distance, deterministic=True)
        names = [name for name in catalogue.attributes() if name not in ("revision", "reason")]
        for name in ("files", "obscore"):
            plain.execute(f"CREATE TABLE {name} ({', '.join(map(json.dumps, _names(name, names)))})")
        for one in records:
            row = {**one.flat()}
            row["place"] = row.get("place") or row["path"]
            row = {name: _plain(row.get(name)) for name in names}
            row["good"] = None if row["good"] is None else int(row["good"])
            plain.execute(f"INSERT INTO files VALUES ({', '.join('?' * len(names))})", [row[name] for name in names])
            values = _observation(one.flat())
            plain.execute(f"INSERT INTO obscore VALUES ({', '.join('?' * len(values))})", list(values.values()))
        policy = Policy(lambda: (None, None), catalogue)  # type: ignore[arg-type, return-value]
        yield Both(Tap(Guard(catalogue, None, policy, OWNER), False, _BASE).tables(), plain)


def _names(table: str, names: list[str]) -> list[str]:
    return names if table == "files" else list(_observation({}))


def _observation(row: dict[str, Any]) -> dict[str, Any]:
    """ObsCore of a file, written down once more from the standard and the documentation."""
    time = row.get("time_start")
    since = None if time is None else (time - datetime(1858, 11, 17, tzinfo=UTC)).total_seconds() / 86400
    return {
        "obs_id": row.get("path"), "obs_collection": row.get("experiment"), "target_name": row.get("target"),
        "calib_level": 2 if row.get("format") == "apbatch-images" else 0, "dataproduct_type": "event", "em_min": None,
        "access_estsize": math.ceil(row.get("size", 0) / 1000), "s_ra": row.get("pointing_ra"),
        "s_dec": row.get("pointing_dec"), "t_min": since, "instrument_name": row.get("format"),
    }  # fmt: skip


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_numbers = st.one_of(
    st.integers(-5, 20_000).map(str), st.floats(-10, 100, allow_nan=False).map(repr), st.sampled_from(["1e3", "-.5"])
)
_texts = st.one_of(st.sampled_from((*_FORMATS, "Crab", "TAIGA", "")), st.text("aAb%_\\'ü", max_size=4)).map(_quoted)
_patterns = st.text("aAbcgirtw%_\\-'ü", max_size=6).map(_quoted)
_days = st.dates(date(2017, 9, 28), date(2017, 10, 25)).map(lambda day: _quoted(day.isoformat()))
_moments = st.integers(0, 59).map(lambda minute: f"'2017-10-01T20:{minute:02d}:00'")
_KINDS = {
    "files": {
        **dict.fromkeys(("size", "events", "zenith", '"size"'), _numbers),
        **dict.fromkeys(("format", "target"), _texts),
        "night": _days, "time_start": _moments, "f.run": _numbers,
    },
    "obscore": {
        **dict.fromkeys(("access_estsize", "calib_level", "s_dec", "em_min"), _numbers),
        **dict.fromkeys(("target_name", "instrument_name", "dataproduct_type"), _texts),
        "t_min": st.floats(58027.8, 58027.9).map(repr),
    },
}  # fmt: skip
_OPERATORS = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="])


@st.composite
def _conditions(draw: st.DrawFn, table: str, depth: int = 3) -> tuple[str, str]:
    """A condition as ADQL, and as SQL where that differs."""
    kind = draw(st.integers(0, 3 if depth else 0))
    if kind == 1:
        (one, plain), word = draw(_conditions(table, depth - 1)), draw(st.sampled_from(["NOT", "not"]))
        return f"{word} ({one})", f"NOT ({plain})"
    if kind > 1:
        parts = draw(st.lists(_conditions(table, depth - 1), min_size=2, max_size=3))
        word = " AND " if kind == 2 else " or "
        return word.join(f"({one})" for one, _ in parts), word.join(f"({plain})" for _, plain in parts)
    name = draw(st.sampled_from([*_KINDS[table], "cone"]))
    if name == "cone":
        return draw(_cones(table))
    value, negated = _KINDS[table][name], draw(st.sampled_from(["", "NOT "]))
    forms = [f"{name} {draw(_OPERATORS)} {draw(value)}", f"{name} {negated}BETWEEN {draw(value)} AND {draw(value)}",
             f"{name} {negated}IN ({', '.join(draw(st.lists(value, min_size=1, max_size=3)))})",
             f"{name} IS {negated}NULL"]  # fmt: skip
    if value is _texts:
        forms.append(f"{name} {negated}LIKE {draw(_patterns)}")
    text = draw(st.sampled_from(forms))
    return text, text


@st.composite
def _cones(draw: st.DrawFn, table: str) -> tuple[str, str]:
    names = "pointing_ra, pointing_dec" if table == "files" else "s_ra, s_dec"
    ra, dec = draw(st.integers(-90, 360)), draw(st.integers(-90, 90))
    radius = draw(st.sampled_from([0.37, 9.3, 61.7, 113.9]))
    system = draw(st.sampled_from(["", "'ICRS', "]))
    circle = draw(st.sampled_from([f"{ra}, {dec}", f"POINT({system}{ra}, {dec})"]))
    inside = draw(st.sampled_from(["= 1", "= 0", "<> 1"]))
    sign = "<=" if inside == "= 1" else ">"
    return (
        f"CONTAINS(POINT({system}{names}), CIRCLE({system}{circle}, {radius})) {inside}",
        f"distance({names}, {ra}, {dec}) {sign} {radius}",
    )


_QUICK = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@_QUICK
@given(data=st.data(), table=st.sampled_from(["files", "obscore"]))
def test_conditions_find_the_rows_that_sqlite_finds(both: Both, data: st.DataObject, table: str) -> None:
    condition, plain = data.draw(_conditions(table))
    key = {"files": "path", "obscore": "obs_id"}[table]
    rows = both.adql(f"SELECT {key} FROM {table} AS f WHERE {condition}")
    assert sorted(rows) == sorted(both.sql(f"SELECT {key} FROM {table} AS f WHERE {plain}"))


@_QUICK
@given(data=st.data(), table=st.sampled_from(["files", "obscore"]))
def test_groups_have_the_counts_that_sqlite_counts(both: Both, data: st.DataObject, table: str) -> None:
    condition, plain = data.draw(_conditions(table, 1))
    names = {
        "files": ("night", "format", "target", "experiment"),
        "obscore": ("calib_level", "target_name", "access_estsize", "obs_collection", "dataproduct_type", "em_min"),
    }
    groups = data.draw(st.lists(st.sampled_from(names[table]), max_size=2, unique=True))
    counted = data.draw(st.sampled_from(["*", *names[table]]))
    listed = "".join(f"{name}, " for name in groups)
    by = f" GROUP BY {', '.join(groups)}" if groups else ""
    text = f"SELECT {listed}COUNT({counted}) AS n FROM {table} f WHERE {{}}{by}"
    assert sorted(both.adql(text.format(condition)), key=repr) == sorted(both.sql(text.format(plain)), key=repr)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT TOP 7 path, size FROM files ORDER BY night DESC, size",
        "SELECT TOP 7 access_estsize FROM obscore ORDER BY dataproduct_type, access_estsize DESC",
        "SELECT TOP 7 obs_id FROM obscore ORDER BY em_min, t_min DESC, obs_id DESC",
        "SELECT DISTINCT target FROM files ORDER BY 1 DESC",
        "SELECT DISTINCT format, experiment FROM files ORDER BY format, experiment",
        "SELECT night, COUNT(*) AS n, COUNT(zenith) FROM files GROUP BY night ORDER BY n DESC, night",
        "SELECT TOP 3 night FROM files GROUP BY night ORDER BY COUNT(zenith) DESC, night DESC",
        "SELECT COUNT(*), COUNT(events), COUNT(*) FROM files WHERE 5000 > size -- a comment; ' and more",
        "SELECT TOP 0 path FROM files",
        "SELECT path FROM files WHERE format LIKE 'a\\%' ORDER BY path",
        *(
            f"SELECT obs_id FROM obscore WHERE access_estsize {condition} ORDER BY obs_id"
            for condition in ("<= 5.5", "< 5.5", ">= 5.5", "> 5.5", "= 5.5", "<> 6", "IN (5.5, 6)", "BETWEEN 4.5 AND 6")
        ),
    ],
)
def test_statements_give_the_rows_of_sqlite_in_the_same_order(both: Both, text: str) -> None:
    top = text.split()[2] if " TOP " in text else "-1"
    plain = text.replace(f"TOP {top} ", "").partition("--")[0] + f" LIMIT {top}"
    assert both.adql(text) == both.sql(plain)


def test_labels_are_told_apart_and_stars_are_all_columns(both: Both) -> None:
    tables = {name: table.attributes for name, table in both.tables.items()}
    text = 'SELECT COUNT(*), COUNT(night), night AS "Night", night AS n FROM files GROUP BY night'
    statement = parse_adql(text, tables)
    assert [item.label for item in statement.items] == ["count", "count_2", "Night", "n"]
    everything = parse_adql("select f.* from APBATCH.Files as f", tables)
    assert [item.label for item in everything.items] == list(tables["apbatch.files"])


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("SELECT path FROM files WHERE zenit < 3", "no column 'zenit'", "line 1, column 30"),
        ("SELECT path\nFROM file", "no table 'file'", "line 2, column 6"),
        ("SELECT path FROM files JOIN events ON 1=1", "JOIN is not served", "line 1, column 24"),
        ("SELECT MAX(size) FROM files", "MAX is not served", "line 1, column 11"),
        ("SELECT path FROM files WHERE abs(zenith) < 1", "function abs", "line 1, column 33"),
        ("SELECT path FROM files WHERE size < 'a'", "'size' is an integer", "line 1, column 37"),
        ("SELECT path FROM files WHERE night = '2017-13-01'", "'night' is a date", "line 1, column 38"),
        ("SELECT path FROM files WHERE size LIKE 'a'", "'like' is for text", "line 1, column 30"),
        ("SELECT path FROM files WHERE path = 'a", "not closed", "line 1, column 37"),
        ("SELECT path FROM files WHERE", "too early", "line 1, column 29"),
        ("SELECT path, COUNT(*) FROM files GROUP BY night", "neither grouped", "line 1, column 8"),
        ("SELECT path FROM files ORDER BY 2", "no column 2", "line 1, column 33"),
        ("SELECT g.path FROM files f", "not the table", "line 1, column 8"),
        ("SELECT path FROM files; DROP TABLE files", "not expected", "line 1, column 25"),
        ("SELECT path FROM files WHERE path = 'a' UNION SELECT path FROM files", "UNION is not served", "column 41"),
        ("SELECT path FROM files WHERE size > 1e999", "too large", "line 1, column 37"),
        ("SELECT path FROM files WHERE CONTAINS(POINT(ra, dec), CIRCLE(1, 2, 3)) = 1", "no column 'ra'", "column 45"),
        ("SELECT obs_id FROM obscore WHERE CONTAINS(POINT(s_ra, s_dec), CIRCLE(1, 2, 200)) = 1", "radius", "column 76"),
        ("SELECT obs_id FROM obscore WHERE access_url LIKE 'http%'", "searched whole", "QUERY"),
        ("SELECT obs_id FROM obscore ORDER BY access_estsize, obs_id", "last key", "QUERY"),
        ("SELECT obs_id FROM obscore ORDER BY access_url", "can't be ordered by", "QUERY"),
        ("SELECT TOP -1 path FROM files", "TOP -1", "line 1, column 12"),
        ("", "too early", "QUERY"),
    ],
)  # fmt: skip
def test_errors_name_the_place(both: Both, text: str, what: str, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        both.adql(text)
    assert what in str(caught.value) and where in str(caught.value.where)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT path FROM files WHERE " + "(" * 3000 + "size = 1" + ")" * 3000,
        "SELECT path FROM files WHERE " + "NOT " * 3000 + "size = 1",
        "SELECT path FROM files WHERE size = 1" + " OR size = 1" * 1500,
        "SELECT path FROM files WHERE size IN (1" + ",1" * 9000 + ")",
        "SELECT path" + ", path" * 2500 + " FROM files",
        "SELECT path FROM files WHERE path LIKE '" + "%a" * 5000 + "'",
        "SELECT path FROM files WHERE path = '" + "a" * 30_000 + "'",
        "SELECT \ud800 FROM files",
        "SELECT path FROM files WHERE " + "(" * 9000,
    ],
    ids=["parentheses", "not", "or", "in", "columns", "like", "long", "surrogate", "open"],
)
def test_statements_that_would_be_bombs_are_refused(both: Both, text: str) -> None:
    with pytest.raises(UsageError):
        both.adql(text)


_ANY_WORDS = [
    "SELECT", "TOP", "3", "*", "path", ",", "FROM", "files", "WHERE", "size", "<", "(", ")", "'a'", "NOT", "IN", "AND",
    "COUNT", "GROUP", "BY", "ORDER", "POINT", "CONTAINS", '"size"', ";", "--", "ü", "1e5", ".", "AS", "\n", "\x00",
]  # fmt: skip


@_QUICK
@given(words=st.lists(st.sampled_from(_ANY_WORDS), max_size=14))
def test_any_words_are_answered_or_refused_as_usage(both: Both, words: list[str]) -> None:
    for text in (" ".join(words), "SELECT path FROM files WHERE " + " ".join(words)):
        try:
            both.adql(text)
        except UsageError as error:
            assert str(error.where).startswith("QUERY")


def test_an_identifier_finds_its_file_again(both: Both) -> None:
    for column in ("obs_publisher_did", "access_url"):
        for path, address in both.adql(f"SELECT obs_id, {column} FROM obscore WHERE access_estsize < 3"):
            assert both.adql(f"SELECT obs_id FROM obscore WHERE {column} = {_quoted(address)}") == [(path,)]
            assert (path,) not in both.adql(f"SELECT obs_id FROM obscore WHERE NOT {column} IN ({_quoted(address)})")

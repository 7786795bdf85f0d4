"""One suite for every catalogue: SQLite always, Cassandra on a real node."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import Replica, State
from apbatch.index.parser import parse
from apbatch.index.query import Search, matches, of_registered
from tests.contract.conftest import DECLARED, record


def found(catalogue: Catalogue, text: str) -> list[str]:
    return [r.source for r in catalogue.select(parse(text, catalogue.attributes()))]


def names(catalogue: Catalogue, folder: str) -> list[tuple[str, str]]:
    """Names and kinds of all entries of a folder, three a page."""
    found: list[tuple[str, str]] = []
    cursor: str | None = None
    while True:
        page = catalogue.entries(folder, cursor, limit=3)
        found += [(entry.name, entry.kind) for entry in page.entries]
        if (cursor := page.cursor) is None:
            return found


def test_a_record_comes_back_as_it_was(catalogue: Catalogue, experiment: str) -> None:
    original = record(
        experiment, run=7, night=date(2017, 10, 28), time_start=datetime(2017, 10, 28, 16, 1, 2, 345678, tzinfo=UTC),
        telescope=1, cluster=21, events=10_000, reason="none",
        attributes={
            "zenith": 30.5, "label": "ü '%\n", "simulated": True, "calibrated": date(2017, 9, 30), "seed": 2**62 + 1,
            "shifted": datetime(999, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        },
    )  # fmt: skip
    catalogue.upsert([original])
    back = catalogue.get(original.path)
    assert back is not None and back.revision > 0
    assert replace(back, revision=0) == original


def test_what_is_not_there_is_none(catalogue: Catalogue, experiment: str) -> None:
    assert catalogue.get(f"/{experiment}/nothing") is None


def test_a_second_upsert_replaces_and_doubles_nothing(catalogue: Catalogue, experiment: str) -> None:
    catalogue.upsert([record(experiment, night=date(2017, 1, 1), run=1, attributes={"zenith": 1.0})])
    catalogue.upsert([record(experiment, night=date(2017, 1, 2), run=2, size=312)])
    (only,) = catalogue.select(parse(f"experiment = '{experiment}'", catalogue.attributes()))
    assert (only.size, only.night, only.run, dict(only.attributes)) == (312, date(2017, 1, 2), 2, {})
    assert found(catalogue, f"experiment = '{experiment}' and night = 2017-01-01") == []
    assert found(catalogue, f"experiment = '{experiment}' and run = 1") == []


QUERIES = [
    "",
    "events > 1000",
    "events between 10 and 1000",
    "zenith < 30 deg",
    "zenith < 0.5 rad and label = 'x'",
    "label like 'x%'",
    "not label = 'x'",
    "not (zenith < 30 or events > 1000)",
    "zenith is null",
    "zenith is not null and events != 5",
    "night = 2017-10-28",
    "night between 2017-10-01 and 2017-10-31",
    "night > 2017-10-28 or events = 5",
    "night in (2017-10-28, 2017-11-01)",
    "run = 3",
    "run in (1, 3) and not events in (5, 6)",
    "simulated = true",
    "size > 100 byte and path like '%.001'",
    "state = 'quarantined'",
    "state != 'registered'",
    "time_start > 2017-10-28T00:00",
    "time_start <= '2017-10-28T01:00:00.000499'",
    "shifted > '2017-10-28T00:00:00.000999' and seed > 1",
    "shifted in ('2017-10-28T00:00:00.000999', '2017-10-28T00:00:00.001001')",
    "seed = 4611686018427387905 and calibrated >= 2017-10-29",
    "label = '' or label in ('x', 'xy')",
    "label >= 'x' and label <= 'xy'",
    f"label = '{'long' * 500}'",
    "events > 5.5 and events < 1000.5",
    "events > 5 and events > 6 and events <= 1001 and events < 5000",
    "night = 2017-10-28 and events between 5 and 10 and zenith >= 29.9",
    "night in (2017-10-28, 2017-10-29) and label = 'x'",
]

values = st.builds(
    dict,
    run=st.none() | st.integers(1, 4),
    night=st.none() | st.sampled_from([date(2017, 10, 28), date(2017, 10, 29), date(2017, 11, 1)]),
    events=st.none() | st.sampled_from([5, 6, 10, 1000, 1001]),
    size=st.sampled_from([1, 100, 101]),
    state=st.sampled_from([State.REGISTERED, State.REGISTERED, State.QUARANTINED, State.MISSING]),
    time_start=st.none() | st.sampled_from([datetime(2017, 10, 28, 1, 0, 0, us, tzinfo=UTC) for us in (0, 499, 500)]),
    attributes=st.fixed_dictionaries(
        {},
        optional={
            "zenith": st.sampled_from([0.0, 29.9, 30.0, 60.0]),
            "label": st.sampled_from(["x", "xy", "X", "%", "", "long" * 500]),
            "simulated": st.booleans(),
            "calibrated": st.sampled_from([date(2017, 10, 28), date(2017, 10, 29)]),
            "seed": st.sampled_from([2**62, 2**62 + 1]),
            "shifted": st.sampled_from(
                [datetime(2017, 10, 28, 0, 0, 0, us, tzinfo=UTC) for us in (0, 999, 1000, 1001)]
            ),
        },
    ),
)


def test_a_night_that_is_asked_for_twice_gives_what_either_wants(catalogue: Catalogue, experiment: str) -> None:
    sizes = {f"{n:02}.001": {"events": n % 5, "size": n % 7, "night": date(2017, 10, 28)} for n in range(35)}
    catalogue.upsert(record(experiment, name, **changes) for name, changes in sizes.items())
    night = f"experiment = '{experiment}' and night = 2017-10-28"
    query = parse(
        f"({night} and events = 1) or ({night} and size = 2) or ({night} and events = 3)", catalogue.attributes()
    )
    got = [r.source for r in catalogue.select(query)]
    assert got == [name for name, one in sizes.items() if one["events"] in (1, 3) or one["size"] == 2]
    assert catalogue.count(query) == {None: len(got)}
    search, pages, cursor = Search(parse(f"{night} and events between 1 and 3", catalogue.attributes())), [], None
    while not pages or cursor is not None:
        page = catalogue.select_batch(search, ("source",), cursor, 4)
        cursor, pages = page.cursor, [*pages, page.batch["source"].to_pylist()]
    assert list(chain(*pages)) == [name for name, one in sizes.items() if 1 <= one["events"] <= 3] and len(pages) == 6


@pytest.mark.parametrize("text", QUERIES)
def test_select_and_count_agree_with_the_definition(catalogue: Catalogue, text: str) -> None:
    # the definition: test each record by itself
    experiment = f"E{secrets.token_hex(4)}"
    query = parse(f"experiment = '{experiment}'" + (f" and ({text})" if text else ""), catalogue.attributes())

    @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(values, min_size=1, max_size=8))
    def check(many: list[dict[str, object]]) -> None:
        records = [record(experiment, f"{n}.00{n % 3}", **changes) for n, changes in enumerate(many)]
        catalogue.upsert(records)
        wanted = [r.path for r in records if matches(of_registered(query), r.flat())]
        try:
            assert [r.path for r in catalogue.select(query)] == wanted
            assert sum(catalogue.count(query).values()) == len(wanted)
            by_night = catalogue.count(query, "night")
            assert sum(by_night.values()) == len(wanted)
            assert set(by_night) == {r.night for r in records if r.path in wanted}
        finally:
            catalogue.remove([r.path for r in records])

    check()


def test_a_condition_on_an_index_needs_no_experiment(catalogue: Catalogue, experiment: str) -> None:
    run = secrets.randbelow(2**60)
    catalogue.upsert([record(experiment, "a", run=run), record(experiment, "b", run=run + 1)])
    assert found(catalogue, f"run = {run}") == ["a"]
    assert found(catalogue, f"run > {run - 1} and run <= {run + 1} and size = 156") == ["a", "b"]


def test_nights_need_no_experiment(catalogue: Catalogue, experiment: str) -> None:
    year = 3000 + secrets.randbelow(5000)  # of this test alone
    nights = {"a": date(year, 1, 1), "b": date(year, 1, 15), "c": date(year, 2, 1)}
    catalogue.upsert([record(experiment, name, night=night) for name, night in nights.items()])
    assert found(catalogue, f"night between {year}-01-01 and {year}-01-31") == ["a", "b"]
    assert found(catalogue, f"night in ({year}-01-15, {year}-02-01)") == ["b", "c"]
    assert found(catalogue, f"night > {year}-01-15 and night <= {year}-12-31") == ["c"]


def test_no_whole_run_matches_a_broken_number(catalogue: Catalogue, experiment: str) -> None:
    catalogue.upsert([record(experiment, run=7)])
    assert found(catalogue, f"experiment = '{experiment}' and run = 7.5") == []
    assert found(catalogue, f"experiment = '{experiment}' and run < 7.5") == ["a.001"]


def test_a_path_pattern_searches_below_its_folder(catalogue: Catalogue, experiment: str) -> None:
    catalogue.upsert([record(experiment, name) for name in ("n1/a", "n1/b", "n2/a", "n10/a")])
    assert found(catalogue, f"path like '/{experiment}/site/n1/%'") == ["n1/a", "n1/b"]
    assert found(catalogue, f"path like '/{experiment}/site/n1%'") == ["n1/a", "n1/b", "n10/a"]
    assert found(catalogue, f"path = '/{experiment}/site/n2/a'") == ["n2/a"]


def test_limit_takes_the_first_by_path(catalogue: Catalogue, experiment: str) -> None:
    catalogue.upsert([record(experiment, name) for name in "cab"])
    query = parse(f"experiment = '{experiment}'", catalogue.attributes())
    assert [r.source for r in catalogue.select(query, limit=2)] == ["a", "b"]


def test_folders_list_their_entries(catalogue: Catalogue, experiment: str) -> None:
    catalogue.upsert([record(experiment, name) for name in ("d/a", "d/e/b", "c")])
    assert names(catalogue, f"/{experiment}/site") == [("c", "file"), ("d", "folder")]
    assert names(catalogue, f"/{experiment}/site/d/") == [("a", "file"), ("e", "folder")]
    assert (experiment, "folder") in names(catalogue, "/")
    assert names(catalogue, f"/{experiment}/nowhere") == []


def test_removing_files_removes_folders_left_empty(catalogue: Catalogue, experiment: str) -> None:
    catalogue.upsert([record(experiment, "d/e/a"), record(experiment, "b")])
    catalogue.remove([f"/{experiment}/site/d/e/a"])
    assert names(catalogue, f"/{experiment}/site") == [("b", "file")]


def test_changes_come_once_each_in_order(catalogue: Catalogue, experiment: str) -> None:
    catalogue.upsert([record(experiment, "a"), record(experiment, "b")])
    seen = [change for change in catalogue.all_changes(0) if change.key.startswith(f"/{experiment}/")]
    last = max(change.revision for change in seen)
    assert sorted(change.key for change in seen) == [f"/{experiment}/site/a", f"/{experiment}/site/b"]
    assert len({change.revision for change in seen}) == 2  # one revision for a whole batch would lose changes
    catalogue.upsert([record(experiment, "a", size=1)])
    (change,) = [change for change in catalogue.all_changes(last) if change.key.startswith(f"/{experiment}/")]
    assert change.key == f"/{experiment}/site/a" and change.record is not None and change.record.size == 1


def test_replicas_are_kept_by_url_and_go_with_their_file(catalogue: Catalogue, experiment: str) -> None:
    file = record(experiment)
    catalogue.upsert([file])
    copy = Replica(file.path, "hdfs://h/x", "hdfs", "c", datetime(2026, 1, 1, tzinfo=UTC))
    catalogue.add_replicas([copy])
    catalogue.add_replicas([replace(copy, checksum="d")])
    assert catalogue.replicas([file.path]) == {file.path: [replace(copy, checksum="d")]}
    catalogue.remove([file.path])
    assert catalogue.replicas([file.path]) == {file.path: []}


def test_a_changed_file_keeps_its_replicas(catalogue: Catalogue, experiment: str) -> None:
    file = record(experiment)
    catalogue.upsert([file])
    catalogue.add_replicas([Replica(file.path, "u", "local", "c", datetime(2026, 1, 1, tzinfo=UTC))])
    catalogue.upsert([replace(file, size=3)])
    assert len(catalogue.replicas([file.path])[file.path]) == 1
    assert catalogue.remove_replicas([(file.path, "u")]) == 1
    assert catalogue.replicas([file.path])[file.path] == []


def test_a_name_keeps_its_type_and_unit(catalogue: Catalogue) -> None:
    with pytest.raises(UsageError, match="zenith"):
        catalogue.declare([Attribute("zenith", "number", "x", "rad")])
    with pytest.raises(UsageError, match="events"):
        catalogue.declare([Attribute("events", "string", "x")])


def test_an_undeclared_attribute_is_refused(catalogue: Catalogue, experiment: str) -> None:
    report = catalogue.upsert([record(experiment, attributes={"colour": "red"}), record(experiment, "b")])
    (refusal,) = report.refusals
    assert refusal.record.source == "a.001" and refusal.reason == "attribute 'colour' was not declared"
    assert report.written == 1 and found(catalogue, f"experiment = '{experiment}'") == ["b"]
    assert catalogue.upsert([refusal.quarantined()]).refusals == ()
    assert found(catalogue, f"experiment = '{experiment}' and state = 'quarantined'") == ["a.001"]


@pytest.mark.parametrize(
    "attributes",
    [{"zenith": "30"}, {"label": 3}, {"seed": 2.5}, {"seed": True}, {"seed": 2**63}, {"simulated": 1},
     {"calibrated": datetime(2017, 1, 1, tzinfo=UTC)}, {"label": "\udcff"}, {"label": "a\0b"},
     {"zenith": float("inf")}],
    ids=str,
)  # fmt: skip
def test_a_value_of_another_type_is_refused(
    catalogue: Catalogue, experiment: str, attributes: dict[str, object]
) -> None:
    (refusal,) = catalogue.upsert([record(experiment, attributes=attributes)]).refusals
    assert f"'{next(iter(attributes))}' is" in refusal.reason
    assert catalogue.get(f"/{experiment}/site/a.001") is None


def test_what_is_no_number_is_missing(catalogue: Catalogue, experiment: str) -> None:
    catalogue.upsert([record(experiment, attributes={"zenith": float("nan"), "label": None})])
    assert found(catalogue, f"experiment = '{experiment}' and zenith is null and label is null") == ["a.001"]
    assert found(catalogue, f"experiment = '{experiment}' and not zenith = 3") == []


def test_names_of_any_characters_are_kept(catalogue: Catalogue, experiment: str) -> None:
    odd = ["a b", "ä\u0301", "new\nline", "quote'\"", "%41_", "x" * 250, "\x1b[31m", "🔭"]
    catalogue.upsert([record(experiment, f"d/{name}") for name in odd])
    assert [name for name, _ in names(catalogue, f"/{experiment}/site/d")] == sorted(odd)
    for name in odd:
        assert catalogue.get(f"/{experiment}/site/d/{name}") is not None
    assert found(catalogue, f"experiment = '{experiment}' and source = 'd/new\nline'") == ["d/new\nline"]


def test_long_texts_are_kept(catalogue: Catalogue, experiment: str) -> None:
    deep = "/".join(["folder" * 30] * 20)
    long = [record(experiment, f"{deep}/{n}", attributes={"label": f"{n}" * 30_000}) for n in range(6)]
    catalogue.upsert(long)
    catalogue.upsert(long)
    assert [replace(r, revision=0) for r in catalogue.of_site(f"{experiment}-site")] == long
    assert found(catalogue, f"experiment = '{experiment}' and label like '3%'") == [f"{deep}/3"]
    catalogue.remove([file.path for file in long])
    assert list(catalogue.of_site(f"{experiment}-site")) == []


def test_a_name_that_is_no_text_is_not_there(catalogue: Catalogue) -> None:
    assert catalogue.get("/a/\udcff") is None
    catalogue.remove(["/a/\udcff"])


def test_zero_is_found_whatever_its_sign(catalogue: Catalogue, experiment: str) -> None:
    catalogue.upsert(
        [record(experiment, "a", attributes={"zenith": -0.0}), record(experiment, "b", attributes={"zenith": 0})]
    )
    for condition in ("zenith = 0", "zenith >= 0", "zenith <= -0", "zenith = -0"):
        assert found(catalogue, f"experiment = '{experiment}' and {condition}") == ["a", "b"]


def test_files_are_counted_by_any_attribute(catalogue: Catalogue, experiment: str) -> None:
    labels = ["x", "x", "y", None]
    catalogue.upsert([record(experiment, f"{n}", attributes={"label": a}) for n, a in enumerate(labels)])
    query = parse(f"experiment = '{experiment}'", catalogue.attributes())
    assert catalogue.count(query, "label") == {None: 1, "x": 2, "y": 1}
    assert catalogue.count(query, "site") == {f"{experiment}-site": 4}
    with pytest.raises(UsageError, match="did you mean 'label'"):
        catalogue.count(query, "lable")


def test_what_nothing_matches_counts_zero(catalogue: Catalogue, experiment: str) -> None:
    query = parse(f"experiment = '{experiment}'", catalogue.attributes())
    assert catalogue.count(query) == {None: 0}
    assert catalogue.count(query, "night") == {}


def test_many_values_and_many_conditions_are_answered(catalogue: Catalogue, experiment: str) -> None:
    catalogue.upsert([record(experiment, run=7)])
    many = ", ".join(map(str, range(5000)))
    assert found(catalogue, f"experiment = '{experiment}' and run in ({many})") == ["a.001"]
    assert found(catalogue, f"experiment = '{experiment}' and (run = 7" + " or run = 8" * 400 + ")") == ["a.001"]
    assert found(catalogue, f"experiment = '{experiment}' and run = 7.5") == []


def test_files_of_a_site_come_in_every_state(catalogue: Catalogue, experiment: str) -> None:
    catalogue.upsert([record(experiment, "a"), record(experiment, "b", state=State.MISSING)])
    assert sorted(r.source for r in catalogue.of_site(f"{experiment}-site")) == ["a", "b"]


def test_sqlite_rows_are_what_sqlite3_reads(new_url: Callable[[str], str], experiment: str) -> None:
    import sqlite3

    sqlite_url = new_url("sqlite")
    with open_catalogue(sqlite_url) as catalogue:
        catalogue.declare(DECLARED)
        catalogue.upsert([record(experiment, events=11, attributes={"zenith": 2.5})])
    connection = sqlite3.connect(Path(sqlite_url.removeprefix("sqlite:///")))
    (number,) = connection.execute("select number from experiment where name = ?", (experiment,)).fetchone()
    statement = f"select file.events, zenith from file join attributes_{number} using (id) where experiment = ?"
    assert list(connection.execute(statement, (experiment,))) == [(11, 2.5)]


@pytest.mark.cassandra
def test_cassandra_refuses_what_needs_every_row(cassandra: str) -> None:
    with open_catalogue(f"{cassandra}/refuse_{secrets.token_hex(4)}") as catalogue:
        catalogue.declare(DECLARED)
        for text in ("zenith is null", "label like '%x'", "zenith != 30 or experiment = 'TAIGA'", "simulated = true"):
            with pytest.raises(UsageError, match="only by reading every file"):
                list(catalogue.select(parse(text, catalogue.attributes())))


@pytest.mark.cassandra
def test_cqlsh_reads_what_was_registered(cassandra: str, cqlsh: Callable[[str], str], experiment: str) -> None:
    keyspace = f"cql_{secrets.token_hex(4)}"
    with open_catalogue(f"{cassandra}/{keyspace}") as catalogue:
        catalogue.declare(DECLARED)
        catalogue.upsert([record(experiment, night=date(2017, 10, 28), events=4321, attributes={"zenith": 2.5})])
    text = cqlsh(
        f"SELECT path, events, zenith FROM {keyspace}.file_by_night WHERE experiment = '{experiment}' AND zenith < 30"
    )
    assert "4321" in text and "2.5" in text and "(1 rows)" in text

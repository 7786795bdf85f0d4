"""One suite for every store of events: Parquet always, servers where they can be had."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.events.backends import open_events
from apbatch.index.events.columns import EVENT_KEYS, POINTER
from apbatch.index.events.store import EventStore, Order
from apbatch.index.parser import parse
from apbatch.index.query import Query, matches, normalise

DECLARED = (
    Attribute("energy", "number", "energy of the primary", "TeV"),
    Attribute("primary", "string", "primary particle"),
    Attribute("electrons", "integer", "number of electrons"),
    Attribute("simulated", "boolean", "whether it is simulated"),
)


@pytest.fixture(
    scope="module",
    params=[
        "parquet",
        pytest.param("hdfs", marks=pytest.mark.hdfs),
        pytest.param("cassandra", marks=pytest.mark.cassandra),
        pytest.param("postgres", marks=pytest.mark.postgres),
    ],
)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventStore]:
    if request.param == "parquet":
        url = f"file://{tmp_path_factory.mktemp('events')}/it's [a] 100% store"
    else:
        url = f"{request.getfixturevalue(request.param).rstrip('/')}/events_{secrets.token_hex(4)}"
    with open_events(url) as store:
        store.declare(DECLARED)
        yield store


@pytest.fixture
def experiment() -> str:
    """A name of its own for each test, so that tests share a store without meeting."""
    return f"E{secrets.token_hex(4)}"


def of(store: EventStore, experiment: str, text: str = "") -> Query:
    """A query of the events of one experiment."""
    return parse(f"experiment = '{experiment}'" + (f" and ({text})" if text else ""), store.attributes())


def events(experiment: str, **columns: Sequence[object]) -> pa.RecordBatch:
    n = len(columns["event"])
    keys = {"experiment": [experiment] * n, "run": [1] * n, "telescope": [1] * n, "cleaning": ["none"] * n}
    return pa.RecordBatch.from_pydict({**keys, **columns})


def rows(store: EventStore, query: Query, columns: Sequence[str] | None = None, **more: Any) -> list[dict[str, Any]]:
    return [row for batch in store.select(query, columns, **more) for row in batch.to_pylist()]


def test_events_are_replaced_whole_by_key_and_searched(store: EventStore, experiment: str) -> None:
    store.upsert(events(experiment, event=[2, 1, 30_001], width=[0.3, 0.1, float("nan")], length=[1.0, 2.0, 3.0]))
    store.upsert(events(experiment, event=[2], width=[0.2]))
    found = rows(store, of(store, experiment), ["width", "length"])
    assert [(row["event"], row["width"], row["length"]) for row in found] == [
        (1, 0.1, 2.0), (2, 0.2, None), (30_001, None, 3.0)
    ]  # fmt: skip
    (row,) = rows(store, of(store, experiment, "run = 1 and width between 0.15 deg and 0.25 deg"), ["width"])
    assert (row["event"], row["width"]) == (2, 0.2)


def test_the_last_of_several_events_with_one_key_counts(store: EventStore, experiment: str) -> None:
    batches = [events(experiment, event=[2, 1, 2], width=[0.1, 0.2, 0.3]), events(experiment, event=[1], width=[0.4])]
    assert store.upsert(batches) == 4
    assert [row["width"] for row in rows(store, of(store, experiment), ["width"])] == [0.4, 0.3]
    assert store.count(of(store, experiment)) == {None: 2}


def test_a_second_load_changes_nothing(store: EventStore, experiment: str) -> None:
    batch = events(experiment, event=list(range(100)), width=[n / 7 for n in range(100)])
    store.upsert(batch)
    before = rows(store, of(store, experiment))
    store.upsert(batch)
    assert rows(store, of(store, experiment)) == before and len(before) == 100


def test_numbers_are_exact_and_what_is_none_is_null(store: EventStore, experiment: str) -> None:
    numbers = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, float("nan"), float("inf"), float("-inf"), None]
    store.upsert(events(experiment, event=list(range(8)), size=numbers))
    found = rows(store, of(store, experiment), ["size"])
    assert [row["size"] for row in found] == [0.1 + 0.2, 5e-324, 1.7976931348623157e308, 0.0, None, None, None, None]
    assert str(found[3]["size"]) == "0.0"
    (batch,) = store.select(of(store, experiment), ["size"])
    assert batch.schema.field("size").type == pa.float64() and batch.schema.field("telescope").type == pa.int32()
    assert [row["event"] for row in rows(store, of(store, experiment, "size is null"))] == [4, 5, 6, 7]
    assert [row["event"] for row in rows(store, of(store, experiment, "size = 0"))] == [3]
    assert [row["event"] for row in rows(store, of(store, experiment, "not size > 1e308"))] == [0, 1, 3]


def test_values_of_every_type_come_back(store: EventStore, experiment: str) -> None:
    moment = datetime(2017, 10, 28, 11, 59, 59, 123456, tzinfo=UTC)
    batch = events(
        experiment, event=[1, 2], run=[2**62, -(2**62)], time=pa.array([moment, None], pa.timestamp("us", "UTC")),
        nanoseconds=[789, None], primary=["it's \"ü\"\n%_\\", None], electrons=[2**62 + 1, None],
        simulated=[True, None], energy=[12.5, None],
    )  # fmt: skip
    store.upsert(batch)
    second, first = rows(
        store, of(store, experiment), ["time", "nanoseconds", "night", "primary", "electrons", "simulated", "energy"]
    )
    assert (first["time"], first["nanoseconds"], first["night"]) == (moment, 789, date(2017, 10, 27))
    assert first["primary"] == 'it\'s "ü"\n%_\\'
    assert (first["electrons"], first["simulated"], first["energy"], first["run"]) == (2**62 + 1, True, 12.5, 2**62)
    assert all(second[name] is None for name in ("time", "nanoseconds", "night", "primary", "electrons", "simulated"))
    (found,) = rows(store, of(store, experiment, "time = 2017-10-28T11:59:59.123456 and simulated = true"))
    assert found["event"] == 1
    (found,) = rows(store, of(store, experiment, "electrons = 4611686018427387905 and energy > 12000 GeV"))
    assert found["event"] == 1


def test_times_are_kept_to_the_nanosecond(store: EventStore, experiment: str) -> None:
    stamps = pa.array([1_207_942_415_000_001_999, -1], pa.int64()).cast(pa.timestamp("ns", "UTC"))
    store.upsert(events(experiment, event=[1, 2], time=stamps))
    one, two = rows(store, of(store, experiment), ["time", "nanoseconds"])
    assert (one["time"].microsecond, one["nanoseconds"]) == (1, 999)
    assert (two["time"], two["nanoseconds"]) == (datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), 999)


def test_events_come_by_run_event_telescope_and_cleaning(store: EventStore, experiment: str) -> None:
    keys = [(2, 1, 1, "a"), (1, 70_000, 1, "a"), (1, 3, 2, "a"), (1, 3, 1, "b"), (1, 3, 1, "a"), (1, -1, 1, "a"),
            (1, 3, 1, "B"), (1, 3, 1, "ä"), (1, 3, 1, "z"), (1, 3, 1, "")]  # fmt: skip
    run, event, telescope, cleaning = zip(*keys, strict=True)
    store.upsert(events(experiment, event=event, run=run, telescope=telescope, cleaning=cleaning))
    found = rows(store, of(store, experiment), [])
    assert [tuple(row[name] for name in EVENT_KEYS[1:]) for row in found] == sorted(keys)
    where = of(store, experiment, "run = 1 and (cleaning = 'a' and event > 3 or cleaning = 'ä')")
    assert [row["event"] for row in rows(store, where)] == [3, 70_000]


def test_an_event_points_to_its_image(store: EventStore, experiment: str) -> None:
    pointer = {"dataset": ["u"], "image_file": ["part-0.parquet"], "image_row_group": [2], "image_row": [7]}
    store.upsert(events(experiment, event=[1], width=[0.3], **pointer))
    store.upsert(events(experiment, event=[2], width=[0.3]))
    table = pa.Table.from_batches(store.select(of(store, experiment), ()))
    assert table.schema.names == [*EVENT_KEYS, *POINTER]
    assert table.select(POINTER).to_pylist() == [
        {name: values[0] for name, values in pointer.items()}, dict.fromkeys(POINTER)
    ]  # fmt: skip
    assert [row["event"] for row in rows(store, of(store, experiment, "image_row = 7"), ["width"])] == [1]


QUERIES = [
    "", "run = 2", "run in (1, 3) and event < 5000", "event between 4095 and 4096", "event >= 8192 or run = 1",
    "width < 0.2 deg and cleaning = 'tailcuts-14-7'", "not width < 0.2", "width is null", "run > 1.5", "run != 2",
    "event = 4096 or event = -1", "size > 200 pe and (run = 1 or width > 12 arcmin)", "run = 1 and run = 2",
    "cleaning like '%cuts-14_7'", "not cleaning like 'tail%'", "primary is null and not event in (-1, 8192)",
    "primary = 'it''s' or primary = 'x'' or 1=1 --'", "night = 2017-10-28 or night is null", "run = 1.5 or run = 3",
    "time < 2017-10-28T12:00:00.5 and simulated = true", "not (run = 1 or energy > 3)", "energy in (1, 2, 7)",
    "primary like '%''%' or primary like '\\%'", "electrons > 9007199254740992.0", "electrons in (9007199254740993)",
    "dataset is not null",
]  # fmt: skip


def sample(experiment: str) -> list[dict[str, Any]]:
    start = datetime(2017, 10, 28, 11, 59, 59, tzinfo=UTC)
    made: list[dict[str, Any]] = []
    for run in (1, 2, 3):
        for n, (event, width) in enumerate(((-1, 0.1), (4095, 0.2), (4096, None), (8192, 0.3))):
            for cleaning in ("none", "tailcuts-14-7"):
                time = None if n == 2 else start + timedelta(seconds=run * n / 2)
                night = None if time is None else (time - timedelta(hours=12)).date()
                made.append({
                    "experiment": experiment, "run": run, "event": event, "telescope": 1, "cleaning": cleaning,
                    "width": width, "size": 100.0 * event, "time": time, "night": night,
                    "primary": [None, "it's", "gamma", "\\100%"][n], "energy": [1.0, None, 2.0, 7.0][n],
                    "electrons": [2**53, 2**53 + 1, None, 5][n], "simulated": [True, False, None, True][n],
                    "dataset": None,
                })  # fmt: skip
    return made


def loaded(store: EventStore, made: list[dict[str, Any]]) -> None:
    """Write rows in two goes, so that several parts hold them."""
    for half in (made[::2], made[1::2]):
        if half:
            store.upsert(pa.Table.from_pylist(half).to_batches())


def keys_of(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in EVENT_KEYS) for row in found]


@pytest.fixture(scope="module")
def filled(store: EventStore) -> list[dict[str, Any]]:
    made = sample(f"F{secrets.token_hex(4)}")
    loaded(store, made)
    return made


@pytest.mark.parametrize("text", QUERIES)
def test_queries_mean_what_python_says(store: EventStore, filled: list[dict[str, Any]], text: str) -> None:
    query = of(store, filled[0]["experiment"], text)
    expected = sorted(keys_of([row for row in filled if matches(normalise(query), row)]))
    assert keys_of(rows(store, query, ())) == expected
    assert store.count(query) == {None: len(expected)}


def test_counts_by_a_column(store: EventStore, filled: list[dict[str, Any]]) -> None:
    query = of(store, filled[0]["experiment"], "run < 3")
    assert store.count(query, "run") == {1: 8, 2: 8}
    assert store.count(query, "primary") == {None: 4, "\\100%": 4, "gamma": 4, "it's": 4}
    assert store.count(query, "simulated") == {None: 4, False: 4, True: 8}
    nights = store.count(query, "night")
    assert nights == {None: 4, date(2017, 10, 27): 6, date(2017, 10, 28): 6}
    with pytest.raises(UsageError, match=r"nights.*did you mean 'night'"):
        store.count(query, "nights")


@pytest.mark.parametrize("name", ["energy", "primary", "time", "electrons", "run", "simulated"])
@pytest.mark.parametrize("descending", [False, True])
def test_results_come_in_an_order_in_which_null_is_least(
    store: EventStore, filled: list[dict[str, Any]], name: str, descending: bool
) -> None:
    query = of(store, filled[0]["experiment"])
    ordered = sorted(filled, key=lambda row: [row[key] for key in EVENT_KEYS])
    valued = sorted((row for row in ordered if row[name] is not None), key=lambda row: row[name], reverse=descending)
    missing = [row for row in ordered if row[name] is None]
    ordered = [*valued, *missing] if descending else [*missing, *valued]
    order = [Order(name, descending)]
    expected = [(row[name], *key) for row, key in zip(ordered, keys_of(ordered), strict=True)]
    whole = rows(store, query, [name], order=order)
    assert [(row[name], *key) for row, key in zip(whole, keys_of(whole), strict=True)] == expected
    some = rows(store, query, [], order=order, limit=5)
    assert keys_of(some) == [key[1:] for key in expected[:5]]
    assert paged(store, query, 5, order) == [key[1:] for key in expected]


def paged(store: EventStore, query: Query, size: int, order: Sequence[Order] = ()) -> list[tuple[Any, ...]]:
    found, cursor = [], None
    while True:
        page = store.page(query, [], size=size, cursor=cursor, order=order)
        found += keys_of(page.events.to_pylist())
        cursor = page.cursor
        if cursor is None:
            return found


def test_pages_make_the_whole_result(store: EventStore, filled: list[dict[str, Any]]) -> None:
    query = of(store, filled[0]["experiment"], "width is not null")
    whole = keys_of(rows(store, query, ()))
    for size in (1, 7, len(whole), 100):
        assert paged(store, query, size) == whole


def test_a_cursor_is_of_its_query(store: EventStore, filled: list[dict[str, Any]]) -> None:
    query = of(store, filled[0]["experiment"])
    cursor = store.page(query, size=2).cursor
    assert cursor is not None
    with pytest.raises(UsageError, match="another query"):
        store.page(of(store, "other"), size=2, cursor=cursor)
    for wrong in ("", "x", "W10", cursor[:-4], "' or 1=1", "ü", "A" * 200_000, "W" * 3000):
        with pytest.raises(UsageError, match="cursor"):
            store.page(query, size=2, cursor=wrong)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "width": st.sampled_from([None, 0.1, 0.2, -0.0, 1e300]),
    "energy": st.sampled_from([None, 1.0, 2.5]),
    "primary": st.sampled_from([None, "", "gamma", "it's", "%", "_", "\\", "GAMMA", "\U0001f52d", "\uffff"]),
    "electrons": st.sampled_from([None, 0, 2**53, 2**53 + 1, 2**63 - 1, -(2**63) + 1]),
    "simulated": st.sampled_from([None, True, False]),
    "time": st.sampled_from([None, *(datetime(2017, 10, 28, 12, 0, 0, us, tzinfo=UTC) for us in (0, 1, 999_999))]),
}
KEYS = {
    "run": st.sampled_from([1, 2, 2**62]),
    "event": st.sampled_from([-5, 0, 1, 4095, 4096]),
    "telescope": st.sampled_from([0, 1]),
    "cleaning": st.sampled_from(["none", "b'c"]),
}
OPERATORS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])


def leaves() -> st.SearchStrategy[Query]:
    def of_column(name: str, strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Query]:
        value = strategy.filter(lambda value: value is not None)
        whole = st.sampled_from([1.5, 4095.0, 9007199254740992.0, 1e300, -1e300])
        operators = st.sampled_from(["=", "!="]) if name == "simulated" else OPERATORS
        compared = value | whole if name in ("run", "event", "electrons") else value
        choices = [
            st.builds(q.Compare, st.just(name), operators, compared),
            st.builds(q.IsNull, st.just(name)),
            st.builds(lambda values: q.In(name, tuple(values)), st.lists(compared, min_size=1, max_size=40)),
        ]
        if name != "simulated":
            choices.append(st.builds(q.Between, st.just(name), compared, compared))
        if name in ("primary", "cleaning"):
            patterns = st.text("ag%_\\'\U0001f52d", max_size=4)
            choices.append(st.builds(q.Like, st.just(name), patterns))
        return st.one_of(choices)

    return st.one_of([of_column(name, strategy) for name, strategy in {**KEYS, **VALUES}.items()])


def trees() -> st.SearchStrategy[Query]:
    return st.recursive(
        leaves(),
        lambda part: st.one_of(
            st.builds(q.Not, part),
            st.builds(lambda parts: q.And(tuple(parts)), st.lists(part, min_size=1, max_size=3)),
            st.builds(lambda parts: q.Or(tuple(parts)), st.lists(part, min_size=1, max_size=3)),
        ),
        max_leaves=6,
    )


def test_random_queries_of_random_events_mean_what_python_says(store: EventStore) -> None:
    # the definition: test each event by itself
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(
        st.lists(st.fixed_dictionaries({**KEYS, **VALUES}), min_size=1, max_size=12),
        st.lists(trees(), min_size=1, max_size=6),
    )
    def check(made: list[dict[str, Any]], queries: list[Query]) -> None:
        experiment = f"H{secrets.token_hex(4)}"
        for row in made:
            row |= {"experiment": experiment}
        unique = {tuple(row[name] for name in EVENT_KEYS): row for row in [*made[::2], *made[1::2]]}
        loaded(store, made)
        for tree in queries:
            query = q.And((q.Compare("experiment", "=", experiment), tree))
            expected = sorted(key for key, row in unique.items() if matches(normalise(query), row))
            assert keys_of(rows(store, query, ())) == expected
            assert paged(store, query, 3) == expected
            assert store.count(query) == {None: len(expected)}

    check()


def test_events_are_removed_by_query(store: EventStore, experiment: str) -> None:
    loaded(store, sample(experiment))
    before = rows(store, of(store, experiment))
    assert store.remove(of(store, experiment, "width < 0.25 or primary = 'gamma'")) == 18
    assert rows(store, of(store, experiment)) == [row for row in before if row["event"] == 8192]
    assert store.remove(of(store, experiment, "run = 77")) == 0
    assert store.remove(of(store, experiment)) == 6
    assert store.count(of(store, experiment)) == {None: 0}


def test_parameters_are_known_with_units(store: EventStore, experiment: str) -> None:
    store.upsert(events(experiment, event=[1], depth=[1.0]))
    known = store.attributes()
    assert known["width"].unit == "deg" and known["size"].unit == "pe" and known["energy"].unit == "TeV"
    assert (known["depth"].type, known["primary"].type) == ("number", "string")
    assert set(EVENT_KEYS) | set(POINTER) <= set(known)


def test_a_name_keeps_its_type_and_unit(store: EventStore) -> None:
    with pytest.raises(UsageError, match=r"'energy' is declared as number in TeV"):
        store.declare([Attribute("energy", "number", "x", "GeV")])
    with pytest.raises(UsageError, match=r"'time' is declared as time"):
        store.declare([Attribute("time", "number", "x", "s")])
    for wrong in ('x"; DROP TABLE events; --', "Größe", "", "select; ", "and", "a" * 60):
        with pytest.raises(UsageError, match="is not a name for an attribute"):
            store.declare([Attribute(wrong, "number", "x")])


@pytest.mark.parametrize("name", ["it's", 'a"b', "../x", "a/b", "x'; DROP TABLE event; --", "ü" * 200, "*?[a]", " "])
def test_experiments_of_any_name_are_kept(store: EventStore, name: str) -> None:
    experiment = f"{name}{secrets.token_hex(4)}"
    store.upsert(events(experiment, event=[1], cleaning=[name], primary=[name]))
    where = q.Compare("experiment", "=", experiment)
    (found,) = rows(store, where, ["primary"])
    assert (found["experiment"], found["cleaning"], found["primary"]) == (experiment, name, name)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"telescope": [None]}, "'telescope' without gaps"),
        ({"run": ["x"]}, "'run' is string, not int64"),
        ({"event": [1.5]}, "'event' is not int64"),
        ({"event": [float("nan")]}, "'event' holds what is not a whole number"),
        ({"telescope": [2**40]}, "'telescope' is not int32"),
        ({"event": pa.array([2**63 + 5], pa.uint64())}, "'event' is not int64"),
        ({"experiment": [7]}, "'experiment' is int64, not a string"),
        ({"cleaning": ["a\0b"]}, "has a NUL"),
        ({"width": ["wide"]}, "it is a number"),
        ({"colour": ["red"]}, "a parameter that is not declared is a number"),
        ({"Colour": [1.0]}, "is not a name for an attribute"),
        ({"time": [17]}, "'time' is int64, not a time"),
        ({"time": pa.array([2**62], pa.timestamp("us", "UTC"))}, "before the year 1000 or after 9998"),
        ({"night": pa.array([2**30], pa.date32())}, "before the year 1000 or after 9998"),
        ({"primary": [3]}, "not a string"),
    ],
    ids=[
        "no-telescope",
        "run-is-text",
        "half-an-event",
        "event-is-nan",
        "telescope-above-int32",
        "event-above-int64",
        "experiment-is-a-number",
        "nul",
        "width-is-text",
        "parameter-is-text",
        "capital-letter",
        "time-is-a-number",
        "time-too-late",
        "night-too-late",
        "primary-is-a-number",
    ],
)
def test_wrong_events_are_refused_and_change_nothing(
    store: EventStore, experiment: str, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        store.upsert(
            [
                events(experiment, event=[5]),
                pa.RecordBatch.from_pydict({**events(experiment, event=[1]).to_pydict(), **columns}),
            ]
        )
    assert "colour" not in store.attributes()
    assert store.count(of(store, experiment)) == {None: 0}


def test_events_without_a_key_are_refused(store: EventStore, experiment: str) -> None:
    with pytest.raises(UsageError, match="'telescope' without gaps"):
        store.upsert(events(experiment, event=[1]).drop_columns(["telescope"]))


def test_no_events_are_no_error(store: EventStore, experiment: str) -> None:
    assert store.upsert([]) == 0 and store.upsert(events(experiment, event=[])) == 0
    assert rows(store, of(store, experiment)) == [] and store.page(of(store, experiment)).cursor is None


def test_unknown_names_are_refused_with_the_nearest(store: EventStore, experiment: str) -> None:
    with pytest.raises(UsageError, match="did you mean 'width'"):
        list(store.select(of(store, experiment), ["widht"]))
    with pytest.raises(UsageError, match="did you mean 'energy'"):
        list(store.select(of(store, experiment), order=[Order("enregy")]))
    with pytest.raises(UsageError, match="unknown attribute 'colour'"):
        list(store.select(q.And((of(store, experiment), q.Compare("colour", "=", 1)))))


def test_explain_says_what_is_read(store: EventStore, filled: list[dict[str, Any]]) -> None:
    assert "parts" in (text := store.explain(of(store, filled[0]["experiment"]))) or "event" in text

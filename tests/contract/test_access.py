"""Every door of the guard, on every back-end, shows what plain evaluation of the rules says: no more and no less."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import ANYONE, OWNER
from apbatch.index import query as q
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.events.backends import open_events
from apbatch.index.files import Entry, FileRecord, State
from apbatch.index.narrowing import narrowed
from tests.contract.conftest import CASSANDRA, DECLARED, POSTGRES

FOLDERS = ("/t", "/t/raw", "/t/raw/n1", "/t_", "/f/a%b", "/")
TODAY = date(2020, 6, 1)
EXAMPLES = {"sqlite": 60, "postgres": 12, "cassandra": 4}


@pytest.fixture(scope="module", params=["sqlite", POSTGRES, CASSANDRA])
def backend(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> Iterator[tuple[str, Catalogue]]:
    with open_catalogue(new_url(request.param)) as catalogue:
        catalogue.declare(DECLARED)
        yield request.param, catalogue


@st.composite
def records(draw: st.DrawFn) -> list[FileRecord]:
    found = {}
    for number in range(draw(st.integers(1, 10))):
        site, experiment = draw(st.sampled_from("ab")), draw(st.sampled_from(("TAIGA", "FACT")))
        folder, name = draw(st.sampled_from(FOLDERS)), draw(st.sampled_from(("f", "g", "raw")))
        state = draw(st.sampled_from((State.REGISTERED, State.REGISTERED, State.LISTED, State.MISSING)))
        path = f"/{experiment}/{site}/{number % 5}"
        found[path] = FileRecord(
            path=path, site=site, source=str(number % 5), size=draw(st.integers(1, 3)), mtime_ns=number, format="x",
            checksum="" if state is State.LISTED else draw(st.sampled_from("xyz")), adler32="0", experiment=experiment,
            state=state, night=draw(st.sampled_from((None, date(2018, 6, 1), date(2018, 6, 2)))),
            place=f"{folder.rstrip('/')}/{name}",
            attributes=draw(st.sampled_from(({}, {"zenith": 20.0}, {"zenith": 40.0, "label": "dark"}))),
        )  # fmt: skip
    return list(found.values())


def rule(below: tuple[str, ...], query: str, embargo: str | None, may: str) -> dict[str, Any]:
    return {"who": "anyone", "may": may, "below": list(below), "query": query, "embargo": embargo}


RULES = st.lists(
    st.builds(
        rule,
        st.lists(st.sampled_from(FOLDERS[:-1]), max_size=2).map(tuple),
        st.sampled_from(
            ("", "size < 3", "experiment = 'TAIGA'", "zenith < 30 deg or label = 'dark'",
             "not (site = 'a' and size = 1)",
             "state = 'registered' and place like '/t/%'", "place not like '/t/raw/%'", "zenith is null")
        ),
        st.sampled_from((None, None, "2 years after night")),
        st.sampled_from(("metadata", "data")),
    ),
    max_size=3,
)  # fmt: skip


def policy_of(rules: list[dict[str, Any]], catalogue: Catalogue) -> Policy:
    import json

    text = json.dumps({"rules": [{"name": str(number), **one} for number, one in enumerate(rules)]})
    return Policy(lambda: (text, Path("policy.yaml")), catalogue, lambda: TODAY)


def walk(guard: Guard, folder: str = "") -> Iterator[tuple[str, Entry]]:
    cursor: str | None = None
    while True:
        page = guard.entries(folder, cursor, limit=2)
        for entry in page.entries:
            yield f"{folder}/{entry.name}", entry
            if entry.kind == "folder":
                yield from walk(guard, f"{folder}/{entry.name}")
        if (cursor := page.cursor) is None:
            return


def plain_tree(owner: Guard, condition: q.Query) -> dict[str, Entry]:
    """The tree as it must be seen: files by plain evaluation of what the owner sees, folders above them."""
    seen: dict[str, Entry] = {}
    for path, entry in walk(owner):
        sources = [one for one in owner.sources(path) if q.matches(condition, one.flat())]
        if entry.kind == "file" and sources:
            first = sources[0]
            seen[path] = replace(
                entry, size=first.size, mtime_ns=first.mtime_ns, state=first.state, checksum=first.checksum
            )
            while path := path.rpartition("/")[0]:
                seen[path] = Entry(path.rpartition("/")[2], "folder")
    return seen


def once(owner: Guard, condition: q.Query, asked: q.Query) -> list[FileRecord]:
    """Files that a search must give: of each entry the first source that matches both."""
    wanted = q.of_registered(asked)
    entries = [path for path, entry in walk(owner) if entry.kind == "file"]
    groups = [owner.sources(path) for path in entries]
    hidden = owner.select(q.Compare("state", "=", "missing"))
    groups += [[record] for record in hidden]
    found = []
    for group in groups:
        matching = [one for one in group if q.matches(wanted, one.flat()) and q.matches(condition, one.flat())]
        found += matching[:1]
    return sorted(found, key=lambda one: one.path)


ASKED = (
    q.Everything(),
    q.Compare("experiment", "=", "TAIGA"),
    q.And((q.Compare("state", "=", "missing"), q.Compare("site", "=", "a"))),
    q.Or((q.Compare("site", "=", "a"), q.Compare("size", "<", 2))),
)  # fmt: skip


def check(catalogue: Catalogue, files: list[FileRecord], rules: list[dict[str, Any]]) -> None:
    since = catalogue.revision()
    catalogue.upsert(files)
    policy = policy_of(rules, catalogue)
    owner, guard = Guard(catalogue, None, policy, OWNER), Guard(catalogue, None, policy, ANYONE)
    condition = q.normalise(policy.metadata(ANYONE) or q.Everything())
    held = list(catalogue.get_many(file.path for file in files).values())
    visible = {one.path for one in held if q.matches(condition, one.flat())}
    tree = plain_tree(owner, condition)
    assert dict(walk(guard)) == tree
    for path, _ in walk(owner):
        assert guard.entry(path) == tree.get(path)
        assert [one.path for one in guard.sources(path)] == [
            one.path for one in owner.sources(path) if one.path in visible
        ]
    for asked in ASKED:
        expected = once(owner, condition, asked)
        assert [one.path for one in guard.select(asked)] == [one.path for one in expected]
        assert guard.count(asked) == {None: len(expected)}
        for by in ("site", "night", "zenith"):
            assert guard.count(asked, by) == Counter(one.flat().get(by) for one in expected)
    assert set(guard.get_many(file.path for file in files)) == visible
    assert {change.key for change in _all_changes(guard, since)} == visible
    assert {path for one in guard.conflicts()[0] for path in one.entries} <= visible
    data = q.normalise(policy.data(ANYONE) or q.Everything())
    for record in held:
        explained = policy.explain(ANYONE, record)
        assert explained.sees is (record.path in visible)
        assert explained.reads is guard.may_read(record) is q.matches(data, record.flat())


def _all_changes(guard: Guard, since: int) -> Iterator[Any]:
    while page := guard.changes(since, limit=3):
        yield from page
        since = page[-1].revision


def test_all_doors_equal_plain_evaluation(backend: tuple[str, Catalogue]) -> None:
    name, catalogue = backend

    @settings(max_examples=EXAMPLES[name], deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(records(), RULES)
    def run(files: list[FileRecord], rules: list[dict[str, Any]]) -> None:
        try:
            check(catalogue, files, rules)
        finally:
            catalogue.remove([file.path for file in files])

    run()


@given(st.sampled_from(("/t/%", "/t\\_/%", "/t_/%", "/f/a\\%b/%", "%", "/t/raw/n1/f", "/t/r%/f", "\\/t/%")),
       st.sampled_from(("", *FOLDERS[:-1])), st.sampled_from("fg"), st.booleans(), st.booleans())  # fmt: skip
def test_a_narrowed_condition_holds_where_the_whole_does(
    pattern: str, folder: str, name: str, negated: bool, equal: bool
) -> None:
    part: q.Query = q.Compare("place", "=", pattern) if equal else q.Like("place", pattern)
    whole = q.normalise(q.Or((q.And((q.Not(part) if negated else part, q.Compare("size", "=", 1))), q.NOTHING)))
    for size, below in product((1, 2), ("", "/raw", "/raw/n1")):
        values = {"place": f"{folder}{below}/{name}", "size": size}
        assert q.matches(narrowed(whole, folder), values) == q.matches(whole, values)


def test_a_folder_decides_a_condition_on_places_alone() -> None:
    below = q.Like("place", "/t/raw/%")
    assert narrowed(below, "/t/raw") == narrowed(below, "/t/raw/n1") == q.Everything()
    assert narrowed(below, "/f") == narrowed(below, "/t/raw2") == q.NOTHING
    assert narrowed(below, "/t") == narrowed(below, "") == below
    assert narrowed(q.And((below, q.Compare("size", "=", 1))), "/t/raw") == q.Compare("size", "=", 1)


def test_event_searches_equal_plain_evaluation(tmp_path: Path) -> None:
    keys = product(("TAIGA", "FACT"), (1, 2), (date(2018, 6, 1), date(2018, 6, 2)), (1, 2))
    rows = [
        {"experiment": experiment, "run": run, "event": number, "telescope": 1, "cleaning": "none", "night": night,
         "file": f"/{experiment}/a/{run}"}
        for number, (experiment, run, night, _) in enumerate(keys)
    ]  # fmt: skip
    with open_events(f"file://{tmp_path}/e") as store, open_catalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:
        catalogue.declare(DECLARED)
        store.upsert(pa.RecordBatch.from_pylist(rows))

        @settings(max_examples=15, deadline=None, derandomize=True)
        @given(RULES)
        def run(rules: list[dict[str, Any]]) -> None:
            policy = policy_of(rules, catalogue)
            check_events(Guard(catalogue, store, policy, ANYONE), rows)

        run()


def check_events(guard: Guard, rows: list[dict[str, Any]]) -> None:
    condition = q.normalise(guard.policy.events(ANYONE) or q.Everything())
    data = q.normalise(guard.policy.data(ANYONE) or q.Everything())
    seen = [row for row in rows if q.matches(condition, row)]
    got = [row["event"] for batch in guard.events_batches() for row in batch.to_pylist()]
    assert sorted(got) == [row["event"] for row in seen]
    assert guard.events_count(by="night") == Counter(row["night"] for row in seen)
    assert guard.events_count() == {None: len(seen)}
    page = guard.events_page(q.Compare("experiment", "=", "TAIGA"), size=1000).events
    assert page.num_rows == sum(row["experiment"] == "TAIGA" for row in seen)
    for row in seen:  # no event comes from a file that is closed, whatever else that file may be
        file = {"experiment": row["experiment"], "night": row["night"], "run": row["run"], "path": row["file"]}
        for place, size, site in product(("/t/raw/n1/f", "/f/a%b/g"), (1, 3), "ab"):
            assert q.matches(data, {"place": place, "size": size, "site": site, "state": "registered", **file})

"""The one door: what is not seen is not there, whichever way somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import ANYONE, OWNER, Principal
from apbatch.errors import NotFoundError
from apbatch.index import query as q
from apbatch.index.catalogue import Catalogue
from apbatch.index.changes import ChangeKind
from apbatch.index.contents import Content
from apbatch.index.descriptions import Description, DescriptionKind
from apbatch.index.files import FileRecord, Replica, State
from apbatch.index.sql.sqlite import SqliteCatalogue

RULES = """
rules:
  - {name: raw, who: anyone, may: metadata, below: /taiga/raw}
  - {name: small, who: {users: ann}, may: data, query: "size < 10"}
"""
ANN = Principal("ann")


def record(path: str, size: int = 1, **changes: object) -> FileRecord:
    experiment, site, source = path.removeprefix("/").split("/", 2)
    base = FileRecord(
        path=path, site=site, source=source, size=size, mtime_ns=1, checksum=f"c{size}", adler32="0", format="x",
        experiment=experiment,
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with SqliteCatalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:
        yield catalogue


def guard(catalogue: Catalogue, who: Principal = ANYONE, text: str | None = RULES) -> Guard:
    return Guard(catalogue, None, Policy(lambda: (text, Path("policy.yaml")), catalogue), who)


def names(guard: Guard, folder: str) -> list[str]:
    return [entry.name for entry in guard.entries(folder).entries]


def test_folders_show_only_where_they_hold_something_seen(catalogue: Catalogue) -> None:
    catalogue.upsert([record("/taiga/raw/d/f", 50), record("/taiga/sim/d/g", 5), record("/fact/a/b/c/h", 70)])
    assert (names(guard(catalogue), ""), names(guard(catalogue), "/taiga")) == (["taiga"], ["raw"])
    assert names(guard(catalogue, ANN), "/taiga") == ["raw", "sim"]
    assert names(guard(catalogue, OWNER), "/") == ["fact", "taiga"]
    assert guard(catalogue).entry("/fact/a") is None and guard(catalogue).entry("/fact/a/b/c/h") is None
    assert guard(catalogue, text=None).entries("").entries == [] and guard(catalogue, text=None).entry("") is not None


def test_searches_and_counts_are_of_what_is_seen(catalogue: Catalogue) -> None:
    catalogue.upsert([record("/taiga/raw/f", 50), record("/taiga/sim/g", 5), record("/fact/a/h", 70)])
    for who, expected in ((ANYONE, ["/taiga/raw/f"]), (ANN, ["/taiga/raw/f", "/taiga/sim/g"])):
        door = guard(catalogue, who)
        assert [file.path for file in door.select(q.Everything())] == expected
        assert door.count(q.Everything()) == {None: len(expected)}
        assert door.count(q.Everything(), "experiment") == {"taiga": len(expected)}
        assert sum(batch.num_rows for batch in door.batches(q.Everything(), ["path"])) == len(expected)
        assert list(door.get_many(["/taiga/raw/f", "/taiga/sim/g", "/fact/a/h"])) == expected
        assert [change.key for change in door.changes(0)] == expected


def test_a_rule_about_states_does_not_ask_for_other_states(catalogue: Catalogue) -> None:
    catalogue.upsert([record("/taiga/raw/f"), record("/taiga/raw/m", state=State.MISSING)])
    door = guard(catalogue, text="rules: [{name: a, who: anyone, may: data, query: \"state != 'quarantined'\"}]")
    assert [file.path for file in door.select(q.Everything())] == ["/taiga/raw/f"]
    assert door.count(q.Compare("state", "=", "missing")) == {None: 1}


def test_what_may_not_be_read_answers_as_what_is_not_there(catalogue: Catalogue) -> None:
    catalogue.upsert([record("/taiga/raw/f", 50), record("/taiga/sim/g", 5), record("/fact/a/h", 70)])
    messages = set()
    for path in ("/taiga/raw/f", "/fact/a/h", "/nothing", "/taiga"):
        with pytest.raises(NotFoundError) as refused:
            guard(catalogue, ANN).readable(path)
        messages.add(refused.value.what)
    assert len(messages) == 1
    assert [file.path for file in guard(catalogue, ANN).readable("/taiga/sim/g")] == ["/taiga/sim/g"]
    assert guard(catalogue, ANN).may_read(record("/fact/a/x", 9)) and not guard(catalogue, ANN).may_read(
        record("/f/a/x", 10)
    )


def test_an_entry_shows_its_first_source_that_is_seen(catalogue: Catalogue) -> None:
    same = {"place": "/all/f", "checksum": "c"}
    catalogue.upsert([record("/e/a/f", 7, mtime_ns=1, **same), record("/e/b/f", 7, mtime_ns=2, **same)])
    text = "rules: [{name: b, who: anyone, may: data, query: \"site = 'b'\"}]"
    door = guard(catalogue, text=text)
    entry = door.entry("/all/f")
    assert entry is not None and entry.mtime_ns == 2 and door.entries("/all").entries == [entry]
    assert [file.site for file in door.sources("/all/f")] == ["b"]
    assert door.count(q.Everything(), "site") == {"b": 1}


def test_hashes_and_copies_are_those_of_files_that_are_seen(catalogue: Catalogue) -> None:
    checksum, other = "a" * 64, "b" * 64
    catalogue.upsert([record("/taiga/raw/f", checksum=checksum), record("/fact/a/h", 70, checksum=other)])
    catalogue.put_contents(Content(one, 0, "0", b"", b"", b"") for one in (checksum, other))
    when = datetime(2020, 1, 1, tzinfo=UTC)
    catalogue.add_replicas(Replica(path, "file:///r", "local", "c", when) for path in ("/taiga/raw/f", "/fact/a/h"))
    door = guard(catalogue)
    assert door.content(checksum) is not None and door.content(other) is None and door.content("c" * 64) is None
    assert {path: len(held) for path, held in door.replicas(["/taiga/raw/f", "/fact/a/h"]).items()} == {
        "/taiga/raw/f": 1, "/fact/a/h": 0,
    }  # fmt: skip
    kinds = [(change.kind, change.key) for change in door.changes(0) if change.kind is ChangeKind.REPLICA_ADDED]
    assert kinds == [(ChangeKind.REPLICA_ADDED, "/taiga/raw/f")]


def test_a_conflict_shows_where_a_file_that_is_seen_has_a_name_of_its_own(catalogue: Catalogue) -> None:
    catalogue.upsert([record("/e/a/f", 7, place="/all/f"), record("/e/b/f", 70, place="/all/f")])
    (conflict,), _ = guard(catalogue, ANN).conflicts()  # what it conflicts with is hidden
    assert (conflict.place, dict(conflict.entries)) == ("/all/f", {"/e/a/f": "/all/f@a"})
    assert [entry.name for entry in guard(catalogue, ANN).entries("/all").entries] == ["f@a"]
    catalogue.remove(["/e/a/f", "/e/b/f"])
    catalogue.upsert([record("/e/a/g", 7, place="/all/g"), record("/e/b/g", 8, place="/all/g")])
    catalogue.upsert([record("/e/c/g", 70, place="/all/g")])
    assert guard(catalogue, ANN).conflicts(limit=1) == guard(catalogue, ANN).conflicts()
    ((conflict,), cursor) = guard(catalogue, ANN).conflicts()
    assert (dict(conflict.entries), cursor) == ({"/e/a/g": "/all/g@a", "/e/b/g": "/all/g@b"}, None)
    assert guard(catalogue).conflicts() == ([], None)


def test_the_feed_goes_on_past_what_is_not_seen(catalogue: Catalogue) -> None:
    catalogue.upsert([record(f"/fact/a/{number}", 70) for number in range(5)])
    catalogue.put_description(Description(DescriptionKind.SITE, "a", "name: a"))
    catalogue.upsert([record("/taiga/raw/f")])
    door = guard(catalogue)
    assert [change.key for change in door.changes(0, limit=2)] == ["/taiga/raw/f"]
    assert door.changes(catalogue.revision()) == []
    read, last = door.changes_read(0, limit=2)
    assert read == [] and last > 0
    text = "rules: [{name: a, who: anyone, may: data, query: \"path like '/taiga/%' and size < 10\"}]"
    by_path = guard(catalogue, text=text.replace(" and size < 10", ""))
    partly = guard(catalogue, text=text)
    since = catalogue.revision()
    catalogue.remove(["/taiga/raw/f", "/fact/a/1"])
    assert [(change.kind, change.key) for change in by_path.changes(since)] == [(ChangeKind.GONE, "/taiga/raw/f")]
    assert partly.changes(since) == []

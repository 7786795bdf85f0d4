"""One statement an answer, composed for what stood at the last one: what others changed meanwhile is seen too."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from apbatch.formats.reader import Attribute
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.parser import parse, parse_search
from apbatch.index.query import Search
from tests.contract.conftest import POSTGRES, record

Pair = tuple[Catalogue, Catalogue]


@pytest.fixture(params=["sqlite", POSTGRES])
def pair(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> Iterator[Pair]:
    """Two programs on one catalogue in SQL."""
    url = new_url(request.param)
    with open_catalogue(url) as reader, open_catalogue(url) as writer:
        yield reader, writer


def paths(catalogue: Catalogue, text: str) -> list[str]:
    return [file.path for file in catalogue.select(parse(text, catalogue.attributes()))]


def test_attributes_that_another_declares_are_seen_at_once(pair: Pair) -> None:
    reader, writer = pair
    writer.declare([Attribute("zenith", "number", "z", "deg")])
    writer.upsert([record("E", "a", attributes={"zenith": 1.0})])
    search = Search(parse("experiment = 'E'", reader.attributes()))
    (file,) = reader.select(search)
    assert file.attributes == {"zenith": 1.0}
    writer.declare([Attribute("label", "string", "a text")])
    writer.upsert([record("E", "b", attributes={"zenith": 2.0, "label": "x"})])
    assert [dict(file.attributes) for file in reader.select(search)] == [{"zenith": 1.0}, {"zenith": 2.0, "label": "x"}]
    file = reader.get("/E/site/b")  # type: ignore[assignment]
    assert file.attributes == {"zenith": 2.0, "label": "x"}
    writer.declare([Attribute("seed", "integer", "a number")])
    writer.upsert([record("E", "c", attributes={"seed": 3})])
    assert reader.select_batch(search, ("path", "seed")).batch.column("seed").to_pylist() == [None, None, 3]
    writer.declare([Attribute("night_number", "integer", "a number")])
    writer.upsert([record("E", "d", attributes={"night_number": 3})])
    assert reader.count(search.where, by="night_number") == {None: 3, 3: 1}
    assert reader.attributes()["night_number"].type == "integer"


def test_a_second_source_of_a_content_does_not_count_twice(pair: Pair) -> None:
    reader, writer = pair
    writer.upsert([record("E", "a", place="/E/x")])
    assert reader.count(parse("", reader.attributes())) == {None: 1}
    writer.upsert([record("E", "b", path="/E/other/b", site="other", place="/E/x")])
    assert reader.count(parse("", reader.attributes())) == {None: 1}
    assert reader.count(parse("site = 'other'", reader.attributes())) == {None: 1}
    assert paths(reader, "experiment = 'E'") == ["/E/site/a"]
    assert paths(reader, "site = 'other'") == ["/E/other/b"]
    writer.remove(["/E/site/a"])
    assert paths(reader, "experiment = 'E'") == ["/E/other/b"]


def test_the_first_files_of_an_empty_catalogue_are_found(pair: Pair) -> None:
    reader, writer = pair
    assert paths(reader, "experiment = 'E'") == []
    writer.upsert([record("E", "a")])
    assert paths(reader, "experiment = 'E'") == ["/E/site/a"]


@pytest.mark.parametrize("experiments", [3, 12])
def test_each_file_has_the_attributes_of_its_experiment(pair: Pair, experiments: int) -> None:
    reader, writer = pair
    names = ("zenith", "azimuth", "altitude")
    writer.declare([Attribute(name, "number", "an angle", "deg") for name in names])
    written = {f"/E{n:02}/site/a": {names[n % 3]: float(n), names[(n + 1) % 3]: -float(n)} for n in range(experiments)}
    writer.upsert(record(path[1:4], "a", attributes=attributes) for path, attributes in written.items())
    for _ in range(2):  # what stands is known at the second time
        assert {path: dict(file.attributes) for path, file in reader.get_many(written).items()} == written
        assert {file.path: dict(file.attributes) for file in reader.select(parse("", reader.attributes()))} == written
        some = parse("experiment in ('E01', 'E02') and (zenith > -9 or azimuth > -9)", reader.attributes())
        assert {file.path: dict(file.attributes) for file in reader.select(some)} == {
            path: attributes for path, attributes in written.items() if path[1:4] in ("E01", "E02")
        }


def test_pages_in_an_order_of_attributes_go_on_after_their_keys(pair: Pair) -> None:
    reader, writer = pair
    writer.declare([Attribute("zenith", "number", "z", "deg"), Attribute("label", "string", "a text")])
    for experiment in ("E", "F"):
        writer.upsert(
            record(experiment, f"{n}", run=n % 3, attributes={"zenith": float(n % 4), "label": f"{n}"} if n % 5 else {})
            for n in range(20)
        )
    query = parse_search("run >= 0 order by zenith desc, run", reader.attributes())
    whole = [file.path for file in reader.select_records(query).records]
    assert len(whole) == 40
    by_pages, cursor = [], None
    while True:
        page = reader.select_records(query, cursor, 7)
        by_pages += [(file.path, file.attributes.get("label")) for file in page.records]
        if (cursor := page.cursor) is None:
            break
    assert [path for path, _ in by_pages] == whole
    assert all(label == (path[8:] if int(path[8:]) % 5 else None) for path, label in by_pages)


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
def test_an_answer_is_one_statement(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pair
    writer.declare([Attribute("zenith", "number", "z", "deg")])
    writer.upsert(record("E", f"{n}", attributes={"zenith": float(n)}) for n in range(5))
    query = parse("experiment = 'E' and zenith >= 1", reader.attributes())
    asked: list[str] = []

    def answers() -> list[Any]:
        return [
            reader.get("/E/site/1"),
            reader.get_many(["/E/site/1", "/E/site/2"]),
            reader.select_records(Search(query), size=3).records,
            reader.select_batch(Search(query), ("path", "zenith")).batch.to_pylist(),
            reader.count(query, by="state"),
            reader.entries("/E/site").entries,
            reader.entry("/E/site/1"),
            reader.sources("/E/site/1"),
            reader.listing("E-site").batch.to_pylist(),
            reader.attributes(),
            reader.revision(),
        ]

    before = answers()
    database = reader._db  # type: ignore[attr-defined]
    ask = database.ask

    def counted(statement: str, values: Any) -> Any:
        asked.append(statement)
        return ask(statement, values)

    def no_transaction() -> AbstractContextManager[Any]:
        raise AssertionError("a transaction costs two more answers")

    monkeypatch.setattr(database, "ask", counted)
    monkeypatch.setattr(database, "read", no_transaction)
    assert answers() == before
    assert len(asked) == len(before)


def test_names_that_an_index_does_not_tell_apart_come_in_order(pair: Pair) -> None:
    reader, writer = pair
    folder = "/E/" + "/".join(["long" * 30] * 4)
    names = [f"{'n' * 160}{secrets.token_hex(8)}" for _ in range(30)]
    names += [name + "x" for name in names[:3]] + ["a" * (640 - len(folder) - 1), "a" * (640 - len(folder))]
    writer.upsert(record("E", f"{n}", place=f"{folder}/{name}") for n, name in enumerate(names))
    writer.upsert([record("E", "deep", place=f"{folder}/{names[0]}y/deep")])
    expected = sorted([*names, f"{names[0]}y"])
    for size in (1000, 4, 1):
        listed, cursor = [], None
        while True:
            page = reader.entries(folder, cursor, size)
            listed += [entry.name for entry in page.entries]
            if (cursor := page.cursor) is None:
                break
        assert listed == expected

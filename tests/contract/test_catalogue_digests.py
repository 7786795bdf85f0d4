"""Digests of listings: always those of the rows, whatever was written, by whom, and wherever a process was killed."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.digests import digest_of
from apbatch.index.files import FileRecord, State
from apbatch.index.sql import digests as sql_digests
from tests.contract.conftest import POSTGRES, record


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_digests, "_FILES", 4)


def kept_of(catalogue: Catalogue, site: str, below: str = "") -> list[tuple[int, int, bytes | None]]:
    """Files, registered ones and digest of each stretch, after these were compared with the listing itself."""
    parts = list(catalogue.digests(site, below))
    start, end = (f"{below}/", f"{below}0") if below else ("", None)
    assert [part.first for part in parts] == [start, *(part.following for part in parts[:-1])]
    assert parts[-1].following == end
    rows = 0
    for part in parts:
        page = catalogue.listing(site, below, since=part.first, until=part.following)
        listed = [row for row in page.batch.to_pylist() if row["state"] != State.MISSING]
        rows += page.batch.num_rows
        if part.digest is None:
            continue
        assert {row["state"] for row in listed} <= {State.REGISTERED, State.LISTED}
        assert (part.files, part.registered) == (len(listed), sum(row["state"] == State.REGISTERED for row in listed))
        assert part.digest == digest_of(*([row[name] for row in listed] for name in ("source", "size", "mtime_ns")))
    assert rows == catalogue.listing(site, below).batch.num_rows
    return [(part.files, part.registered, part.digest) for part in parts]


def test_digests_follow_every_change(whole: Catalogue, experiment: str) -> None:
    draw = random.Random(19)
    site = f"{experiment}-site"
    names = [f"{folder}{n}" for folder in ("", "a/", "a/b/", "a-/", "ä/", "b" * 600 + "/") for n in range(9)]
    held: dict[str, FileRecord] = {}
    for _ in range(12):
        some = draw.sample(names, draw.randint(1, 8))
        if draw.random() < 0.3:
            whole.remove([held.pop(name).path for name in some if name in held])
        else:
            states = (State.REGISTERED,) * 6 + (State.LISTED, State.MISSING, State.QUARANTINED)
            records = [record(experiment, name, size=draw.randrange(3), state=draw.choice(states)) for name in some]
            held.update(zip(some, records, strict=True))
            whole.upsert(records)
        kept_of(whole, site)
        kept_of(whole, site, draw.choice(["a", "a/b", "no"]))


def test_listings_begin_and_end_between_sources(whole: Catalogue, experiment: str) -> None:
    names = ["a", "a/b", "a/c", "ab", "b/c", "é"]
    whole.upsert([record(experiment, name) for name in names])
    for since in ("", "a", "a/bb", "b", "é"):
        for until in ("a", "a/c", "b/", "é", None):
            for size in (1, 2, 100):
                found, cursor = [], None
                while True:
                    page = whole.listing(
                        f"{experiment}-site", columns=("source",), since=since, until=until, cursor=cursor, size=size
                    )
                    found += page.batch.column(0).to_pylist()
                    if (cursor := page.cursor) is None:
                        break
                assert found == [name for name in names if name >= since and (until is None or name < until)]


@pytest.mark.parametrize("backend", ["sqlite", POSTGRES])
def test_a_file_moved_to_another_source_drops_both_digests(
    new_url: Callable[[str], str], backend: str, experiment: str
) -> None:
    with open_catalogue(new_url(backend)) as catalogue:
        files = [record(experiment, f"{n}") for n in range(9)]
        catalogue.upsert(files)
        before = kept_of(catalogue, f"{experiment}-site")
        assert len(before) == 3 and all(digest for _, _, digest in before)
        catalogue.upsert([replace(files[0], source="9")])
        after = kept_of(catalogue, f"{experiment}-site")
        assert [digest in [one[2] for one in before] for _, _, digest in after] == [False, True, False]


def test_a_catalogue_of_schema_3_gets_its_digests(tmp_path: Path, experiment: str) -> None:
    path = tmp_path / "c.sqlite"
    with open_catalogue(f"sqlite:///{path}") as catalogue:
        catalogue.upsert([record(experiment, f"{n}") for n in range(9)])
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE listing_digest")
        connection.execute("PRAGMA user_version = 3")
    with open_catalogue(f"sqlite:///{path}") as catalogue:
        assert [files for files, _, _ in kept_of(catalogue, f"{experiment}-site")] == [4, 4, 1]


@pytest.mark.postgres
def test_a_catalogue_of_schema_3_in_postgresql_gets_its_digests(new_url: Callable[[str], str], experiment: str) -> None:
    url = new_url("postgres")
    with open_catalogue(url) as catalogue:
        catalogue.upsert([record(experiment, f"{n}") for n in range(9)])
        with catalogue._db.write() as session:  # type: ignore[attr-defined]
            session.run("DROP TABLE listing_digest")
            session.run("UPDATE counter SET value = 3 WHERE name = 'version'")
    with open_catalogue(url) as catalogue:
        assert [files for files, _, _ in kept_of(catalogue, f"{experiment}-site")] == [4, 4, 1]

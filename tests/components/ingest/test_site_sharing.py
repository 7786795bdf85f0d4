"""Sites of several homes are the same through the catalogue; places, leases, archived files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from apbatch.errors import NotFoundError
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.digests import ListingDigest
from apbatch.index.files import Replica, State
from apbatch.index.leases import is_dead, leased, this_process
from apbatch.index.parser import parse_search
from apbatch.index.query import Everything
from apbatch.ingest.comparison import COLUMNS, Alike, compare
from apbatch.ingest.scan import ingest
from apbatch.ingest.site import Site
from apbatch.ingest.sites import add_site, load_site, publish_site, remove_site, share_sites, sites
from apbatch.ingest.walk import Stretch
from tests.unit.formats.test_formats_taiga_raw import record


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with open_catalogue(f"sqlite:///{tmp_path}/catalogue.sqlite") as opened:
        yield opened


class Home:
    """One host: a home of its own, the catalogue of all."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch, catalogue: Catalogue) -> None:
        self._path, self._patch, self._catalogue = path, patch, catalogue

    def enter(self) -> None:
        self._patch.setenv("APBATCH_HOME", str(self._path))
        share_sites(self._catalogue, "the catalogue")

    def add(self, tmp_path: Path, text: str = "") -> None:
        file = tmp_path / "one.yaml"
        file.write_text(f"name: one\nexperiment: TAIGA\nroot: {tmp_path}\n{text}")
        add_site(file)
        self.enter()


def test_what_one_host_adds_changes_and_removes_reaches_the_other(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Home(tmp_path / "here", monkeypatch, catalogue)
    there = Home(tmp_path / "there", monkeypatch, catalogue)
    here.enter()
    here.add(tmp_path)
    there.enter()
    assert load_site("one").experiment == "TAIGA" and load_site("one").exclude == ()
    there.add(tmp_path, "exclude: ['*.tmp']\npreferred: true\n")
    here.enter()
    assert load_site("one").exclude == ("*.tmp",) and load_site("one").preferred
    remove_site(catalogue, "one")
    there.enter()
    with pytest.raises(NotFoundError):
        load_site("one")
    here.enter()
    assert sites() == []


def test_a_description_that_is_none_changes_nothing_here(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from apbatch.index.descriptions import DescriptionKind

    here = Home(tmp_path / "here", monkeypatch, catalogue)
    here.enter()
    here.add(tmp_path)
    (held,) = catalogue.descriptions(DescriptionKind.SITE)
    for text in ("root: [", "name: two\nexperiment: X\nroot: /\n", ""):
        catalogue.put_description(replace(held, text=text))
        here.enter()
        assert load_site("one").root == str(tmp_path)


def site(root: Path, name: str = "s", **more: Any) -> Site:
    return Site.model_validate({"name": name, "experiment": "TAIGA", "root": str(root), **more})


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(catalogue: Catalogue, folder: str) -> list[str]:
    return [entry.name for entry in catalogue.entries(folder).entries]


def test_two_sites_share_places_and_conflicts_show_both(tmp_path: Path, catalogue: Catalogue) -> None:
    put(tmp_path / "a" / "raw" / "28107001.001", record())
    put(tmp_path / "a" / "raw" / "28107001.002", record(2))
    put(tmp_path / "b" / "281017" / "28107001.001", record())
    put(tmp_path / "b" / "281017" / "28107001.002", record(3))
    one = site(tmp_path / "a", "a", tree={"raw": "/taiga/raw/2017-10-28"})
    other = site(tmp_path / "b", "b", tree={"{night:%d%m%y}/{file}": "/taiga/raw/{night:%Y-%m-%d}/{file}"})
    ingest(one, catalogue)
    ingest(other, catalogue)
    folder = "/taiga/raw/2017-10-28"
    assert names(catalogue, folder) == ["28107001.001", "28107001.002@a", "28107001.002@b"]
    assert [one.site for one in catalogue.sources(f"{folder}/28107001.001")] == ["a", "b"]
    assert catalogue.count(Everything()) == {None: 3}
    ingest(other.model_copy(update={"preferred": True}), catalogue)
    assert names(catalogue, folder) == ["28107001.001", "28107001.002", "28107001.002@a"]
    assert [one.site for one in catalogue.sources(f"{folder}/28107001.002")] == ["b"]
    before = catalogue.revision()
    ingest(other.model_copy(update={"preferred": True}), catalogue)
    assert catalogue.revision() == before
    put(tmp_path / "b" / "281017" / "28107001.002", record(2))  # the copy is mended
    ingest(other.model_copy(update={"preferred": True}), catalogue)
    assert names(catalogue, folder) == ["28107001.001", "28107001.002"]


@pytest.mark.parametrize(
    ("tree", "source", "place"),
    [
        ("/taiga/raw", "a/b", "/taiga/raw/a/b"),
        ({"a": "/x", "": "/y"}, "a/b", "/x/b"),
        ({"a": "/x", "": "/y"}, "ab/c", "/y/ab/c"),
        ({"a": "/x"}, "ab/c", "/taiga/s/ab/c"),
        ({"{n:int}/*": "/x/{n:04d}"}, "7/f", "/x/0007"),
        ({"{d:%d%m%y}/{f}": "/x/{d}/{f}"}, "300217/f", "/taiga/s/300217/f"),
        ({"**/{f}.dat": "/x/{f}"}, "a/b/c.dat", "/x/c"),
        ({"{f}": "/x/{f}"}, "a/b", "/taiga/s/a/b"),
    ],
)
def test_places(tree: Any, source: str, place: str) -> None:
    assert site(Path("/"), tree=tree).place_of(source) == place


@pytest.mark.parametrize("tree", ["x", "/x/", "/x/../y", {"a": "/x/{b}"}, {"{a}": "/{b}"}, {"{a}": "/{a:05d}"}])
def test_places_that_are_none_are_refused(tree: Any) -> None:
    with pytest.raises(ValueError):
        site(Path("/"), tree=tree)


def test_a_night_begins_when_the_site_says(tmp_path: Path, catalogue: Catalogue) -> None:
    moment = datetime(2017, 10, 28, 6, tzinfo=UTC)
    assert str(site(tmp_path).night_of(moment)) == "2017-10-27"
    assert str(site(tmp_path, night_begins="05:00").night_of(moment)) == "2017-10-28"
    with pytest.raises(ValueError, match="time of day"):
        site(tmp_path, night_begins="noon")


def test_listing_comes_first_and_a_query_says_what_is_read(tmp_path: Path, catalogue: Catalogue) -> None:
    for day in ("271017", "281017"):
        put(tmp_path / "r" / day / f"{day[:2]}107001.001", record())
    one = site(tmp_path / "r", attributes=[{"pattern": "{night:%d%m%y}/*"}])
    summary = ingest(one, catalogue, list_only=True)
    assert (summary.listed, summary.registered, summary.bytes_read) == (2, 0, 0)
    assert {(r.state, r.format, str(r.night)) for r in catalogue.of_site("s")} == {
        (State.LISTED, "unknown", "2017-10-27"),
        (State.LISTED, "unknown", "2017-10-28"),
    }
    assert [entry.state for entry in catalogue.entries("/taiga/s/271017").entries] == [State.LISTED]
    search = parse_search("night = 2017-10-27", catalogue.attributes())
    assert ingest(one, catalogue, complete=search).registered == 1
    assert [r.state for r in catalogue.of_site("s")] == [State.REGISTERED, State.LISTED]
    assert ingest(one, catalogue).registered == 1


def test_newest_nights_are_read_first(tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    from apbatch.ingest import completion

    days = ("011017", "301116", "281017", "150217")
    for day in days:
        put(tmp_path / "r" / day / f"{day[:2]}107001.001", record())
    order: list[str] = []
    real = completion.examine

    def noted(site: Site, entry: Any, format: str) -> Any:
        order.append(entry.source[:6])
        return real(site, entry, format)

    monkeypatch.setattr(completion, "examine", noted)
    ingest(site(tmp_path / "r", attributes=[{"pattern": "{night:%d%m%y}/*"}]), catalogue, threads=1)
    assert order == ["281017", "011017", "150217", "301116"]


def test_files_registered_without_hashes_of_blocks_are_completed_on_request(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    put(tmp_path / "r" / "28107001.001", record())
    one = site(tmp_path / "r")
    ingest(one, catalogue)
    (held,) = catalogue.of_site("s")
    with open_catalogue(f"sqlite:///{tmp_path}/other.sqlite") as older:  # what an older version left
        older.declare(catalogue.attributes()[name] for name in held.attributes)
        older.upsert([held])
        assert ingest(one, older).bytes_read == 0 and not older.has_contents([held.checksum])
        assert ingest(one, older, complete=parse_search("", older.attributes())).bytes_read == held.size
        assert older.has_contents([held.checksum])
        assert ingest(one, older, complete=parse_search("", older.attributes())).bytes_read == 0


def test_a_removed_file_with_a_replica_stays_in_the_tree_and_says_so(tmp_path: Path, catalogue: Catalogue) -> None:
    for part in (1, 2, 3):
        put(tmp_path / "r" / f"28107001.00{part}", record(part))
    one = site(tmp_path / "r")
    ingest(one, catalogue)
    with_replica, with_an_old_one, _ = catalogue.of_site("s")
    now = datetime.now(UTC)
    good = Replica(with_replica.path, "file:///r/1", "local", with_replica.checksum, now)
    catalogue.add_replicas([good, Replica(with_an_old_one.path, "file:///r/2", "local", "0" * 64, now)])
    for part in (1, 2):
        (tmp_path / "r" / f"28107001.00{part}").unlink()
    summary = ingest(one, catalogue)
    assert (summary.archived, summary.missing) == (1, 1)
    assert [(e.name, e.state) for e in catalogue.entries("/taiga/s").entries] == [
        ("28107001.001", State.ARCHIVED),
        ("28107001.003", State.REGISTERED),
    ]
    assert catalogue.sources(with_replica.path)[0].checksum == with_replica.checksum
    assert catalogue.count(Everything()) == {None: 1}  # a query means what is at its site
    catalogue.remove_replicas([(good.path, good.url)])
    assert ingest(one, catalogue).missing == 1
    put(tmp_path / "r" / "28107001.001", record(1))
    os.utime(tmp_path / "r" / "28107001.001", ns=(0, with_replica.mtime_ns))
    summary = ingest(one, catalogue)  # back as it was: nothing is read
    assert (summary.registered, summary.bytes_read) == (1, 0)


def test_a_lease_of_a_process_that_ended_is_taken_over_at_once(catalogue: Catalogue) -> None:
    code = "from apbatch.index.leases import this_process; print(this_process())"
    holder = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert is_dead(holder) and not is_dead(this_process())
    world = holder.rpartition(" ")[2]
    assert not is_dead(holder.replace(world, f"0{world}"))  # of another system: nothing is known of it
    catalogue.acquire("work", holder, 3600.0)
    with leased(catalogue, "work") as keeper:
        assert keeper.lease.holder == this_process()


class _Rows:
    """A catalogue that only lists, `number` files in pages of 10,000."""

    def __init__(self, number: int) -> None:
        self._number = number

    def digests(self, site: str, below: str) -> Iterator[ListingDigest]:
        yield ListingDigest()

    def listing(self, site: str, below: str, *, columns: Any, since: str, until: str | None, cursor: str | None) -> Any:
        import pyarrow as pa

        from apbatch.index.pages import Page

        start = int(cursor or 0)
        end = min(self._number, start + 10_000)
        numbers = range(start, end)
        arrays = [[f"/p/{n:09}" for n in numbers], [f"{n:09}" for n in numbers], list(numbers), list(numbers),
                  ["registered"] * len(numbers)]  # fmt: skip
        batch = pa.RecordBatch.from_arrays([pa.array(one) for one in arrays], names=list(COLUMNS))
        return Page(batch, str(end) if end < self._number else None)


def test_a_walk_and_a_listing_are_compared_in_constant_memory() -> None:
    import tracemalloc

    def stretches(number: int) -> Iterator[Stretch]:
        for start in range(0, number, 10_007):
            numbers = [n for n in range(start, min(number, start + 10_007)) if n % 30_011 != 5]
            yield Stretch([f"{n:09}" for n in numbers], numbers, [n + (n % 40_009 == 7) for n in numbers])

    peaks = []
    for number in (20_000, 160_000):
        tracemalloc.start()
        alike, kinds = 0, []
        for step in compare(stretches(number), _Rows(number), "s"):  # type: ignore[arg-type]
            if isinstance(step, Alike):
                alike += step.files
            else:
                kinds.append((step.kind, int(step.source)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        wanted = sorted(
            [("gone", n) for n in range(5, number, 30_011)] + [("changed", n) for n in range(7, number, 40_009)]
        )
        assert sorted(kinds) == wanted
        assert alike == number - len(wanted)
    assert peaks[1] < 1.3 * peaks[0]


def test_two_records_of_one_file_are_both_compared() -> None:
    class Rows(_Rows):
        def listing(
            self, site: str, below: str, *, columns: Any, since: str, until: str | None, cursor: str | None
        ) -> Any:
            import pyarrow as pa

            from apbatch.index.pages import Page

            rows = [
                ("/a/x", "x", 1, 1, "registered"),
                ("/b/x", "x", 1, 1, "registered"),
                ("/a/y", "y", 1, 1, "missing"),
            ]
            arrays = [pa.array(list(column)) for column in zip(*rows, strict=True)]
            return Page(pa.RecordBatch.from_arrays(arrays, names=list(COLUMNS)), None)

    steps = list(compare(iter([Stretch(["x"], [1], [1])]), Rows(0), "s"))  # type: ignore[arg-type]
    assert [getattr(step, "kind", "alike") for step in steps] == ["alike", "alike", "gone"]


def test_a_site_that_is_ingested_is_known_to_all(tmp_path: Path, catalogue: Catalogue) -> None:
    one = site(tmp_path)
    publish_site(catalogue, one)
    before = catalogue.revision()
    publish_site(catalogue, one)
    assert catalogue.revision() == before

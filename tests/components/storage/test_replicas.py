"""Replicas on real folders and a real catalogue: rules, pruning that keeps the last good copy, verification."""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from apbatch.access.sources import sources_of
from apbatch.cli.main import application, run_command
from apbatch.errors import ServerError, UsageError
from apbatch.index.files import FileRecord, Replica, State
from apbatch.index.leases import LeaseHeldError
from apbatch.index.query import Compare, Everything
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.ingest.replicas.checking import CheckedCopy, Finding, Rate, check
from apbatch.ingest.replicas.mirror import mirror
from apbatch.ingest.replicas.pruning import LEASE, Pruned, PrunedReplica, prune
from apbatch.ingest.replicas.rules import ReplicaRules, load_rules
from apbatch.ingest.replicas.upkeep import Upkeep
from apbatch.storage.backends import open_store
from apbatch.storage.hashing import hash_blocks
from apbatch.storage.local import LocalStore
from apbatch.storage.store import Checksums

TONIGHT = date(2018, 1, 31)


class Place:
    """A site on disk that is registered, and two stores.

    Attributes
    ----------
    catalogue : SqliteCatalogue
    root : pathlib.Path
    near, far : LocalStore
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.root = folder, folder / "data"
        self.root.mkdir()
        (home / "sites").mkdir(parents=True)
        (home / "sites" / "s.yaml").write_text(f"name: s\nexperiment: E\nroot: {self.root}\n")
        self.catalogue = SqliteCatalogue(f"sqlite:///{home}/catalogue.sqlite")
        self.near, self.far = (_store(folder / name) for name in ("near", "far"))

    def add(self, number: int, state: State = State.REGISTERED, content: bytes | None = None) -> FileRecord:
        """Register a file of the night that is `number` days before `TONIGHT`."""
        data = random.Random(number).randbytes(1000 + number) if content is None else content
        path = self.root / f"f{number:04d}"
        path.write_bytes(data)
        sums = hash_blocks([data])
        record = FileRecord(
            path=f"/e/s/{path.name}", site="s", source=path.name, size=len(data), mtime_ns=path.stat().st_mtime_ns,
            checksum=sums.blake3, adler32=sums.adler32, format="x", experiment="E", state=state,
            night=TONIGHT - timedelta(days=number),
        )  # fmt: skip
        self.catalogue.upsert([record])
        return record

    def rules(self, text: str) -> ReplicaRules:
        """Compile rules; NEAR and FAR stand for the stores."""
        file = self.folder / "replicas.yaml"
        file.write_text(text.replace("NEAR", self.near.url).replace("FAR", self.far.url))
        return load_rules(file, self.catalogue.attributes(), night=TONIGHT)

    def copies(self, store: LocalStore) -> set[str]:
        """Names of the files in a store."""
        return {path.name for path in store.root.rglob("*") if path.is_file()}

    def recorded(self, record: FileRecord) -> set[str]:
        return {one.url for one in self.catalogue.replicas([record.path])[record.path]}


def _store(folder: Path) -> LocalStore:
    folder.mkdir()
    store = open_store(folder.as_uri())
    assert isinstance(store, LocalStore)
    return store


@pytest.fixture
def place(home: Path, tmp_path: Path) -> Iterator[Place]:
    one = Place(tmp_path, home)
    yield one
    one.catalogue.close()


RECENT = "rules: [{name: recent, query: \"experiment = 'E'\", nights: 3, to: NEAR}]"


def test_a_rule_of_the_last_nights_wants_those_and_no_older_one(place: Place) -> None:
    for number in range(6):
        place.add(number)
    upkeep = Upkeep(place.catalogue, place.rules(RECENT))
    upkeep.finish()
    assert place.copies(place.near) == {"f0000", "f0001", "f0002"}
    assert upkeep.sums[0]["rule"] == "recent" and upkeep.sums[0]["copied"] == 3


def test_what_fell_out_of_the_rules_is_pruned_and_the_rest_stays(place: Place) -> None:
    records = [place.add(number) for number in range(6)]
    mirror(place.catalogue, Everything(), place.near)
    mirror(place.catalogue, Everything(), place.far)
    upkeep = Upkeep(place.catalogue, place.rules(RECENT), prune=True)
    upkeep.finish()
    assert place.copies(place.near) == {"f0000", "f0001", "f0002"}
    assert len(place.copies(place.far)) == 6, "a store that no rule names was touched"
    assert place.recorded(records[5]) == {place.far.url_of(records[5].path)}
    assert upkeep.sums[1]["removed"] == 3 and not upkeep.failed
    assert upkeep.sums[1]["bytes removed"] == sum(record.size for record in records[3:])


def test_a_dry_run_says_the_same_and_writes_nothing(place: Place) -> None:
    for number in range(6):
        place.add(number)
    mirror(place.catalogue, Compare("night", "<", TONIGHT), place.near)
    before, revision = place.copies(place.near), place.catalogue.revision()
    upkeep = Upkeep(place.catalogue, place.rules(RECENT), prune=True, dry_run=True)
    outcomes = [(one.path, str(one.outcome)) for one in upkeep.run()]
    assert place.copies(place.near) == before and place.catalogue.revision() == revision
    assert [path for path, outcome in outcomes if outcome == "would be copied"] == ["/e/s/f0000"]
    assert {path for path, outcome in outcomes if outcome == "would be removed"} == {
        f"/e/s/f{number:04d}" for number in (3, 4, 5)
    }


def pruned(place: Place, rules: str = RECENT) -> dict[str, PrunedReplica]:
    return {one.url: one for one in prune(place.catalogue, place.rules(rules))}


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("fault", ["gone", "damaged", "archived"])
def test_the_last_good_copy_is_never_removed(place: Place, fault: str) -> None:
    """The site's file is gone, rotten, or given up: then the replica that no rule wants is all there is."""
    record = place.add(9)
    mirror(place.catalogue, Everything(), place.near)
    match fault:
        case "gone":
            (place.root / record.source).unlink()
        case "damaged":
            damage(place.root / record.source)
        case "archived":
            (place.root / record.source).unlink()
            place.add(9, State.ARCHIVED)
            (place.root / record.source).unlink()
    (one,) = pruned(place).values()
    assert one.outcome is Pruned.KEPT
    assert place.copies(place.near) == {"f0009"} and place.recorded(record) == {one.url}


def test_another_replica_must_be_right_by_its_bytes_not_by_its_record(place: Place) -> None:
    record = place.add(9)
    mirror(place.catalogue, Everything(), place.near)
    mirror(place.catalogue, Everything(), place.far)
    (place.root / record.source).unlink()
    copy = place.far.root / record.path.lstrip("/")
    good = copy.read_bytes()
    damage(copy)
    assert pruned(place)[place.near.url_of(record.path)].outcome is Pruned.KEPT
    copy.write_bytes(good)
    assert pruned(place)[place.near.url_of(record.path)].outcome is Pruned.REMOVED
    assert place.copies(place.near) == set() and place.copies(place.far) == {"f0009"}


BOTH = f"{RECENT}\nretired: [{{to: FAR}}]"


def test_of_two_unwanted_copies_without_a_source_one_stays(place: Place) -> None:
    record = place.add(9)
    mirror(place.catalogue, Everything(), place.near)
    mirror(place.catalogue, Everything(), place.far)
    (place.root / record.source).unlink()
    outcomes = sorted(one.outcome.value for one in pruned(place, BOTH).values())
    assert outcomes == [Pruned.KEPT.value, Pruned.REMOVED.value]
    assert len(place.copies(place.near) | place.copies(place.far)) == 1
    assert [one.outcome for one in pruned(place, BOTH).values()] == [Pruned.KEPT], "a second run removed it"


def test_one_file_under_two_urls_is_one_copy(place: Place) -> None:
    record = place.add(9)
    mirror(place.catalogue, Everything(), place.near)
    (place.folder / "link").symlink_to(place.near.root)
    linked = open_store((place.folder / "link").as_uri())
    mirror(place.catalogue, Everything(), linked)
    assert len(place.recorded(record)) == 2
    (place.root / record.source).unlink()
    rules = RECENT.replace("NEAR", linked.url)
    assert [one.outcome for one in pruned(place, rules).values()] == [Pruned.KEPT]
    assert place.copies(place.near) == {"f0009"}


def test_a_store_that_lies_over_the_site_loses_no_file(place: Place) -> None:
    """A link makes the replica of a file the file itself."""
    record = place.add(9)
    (place.near.root / "e").mkdir()
    (place.near.root / "e" / "s").symlink_to(place.root)
    mirror(place.catalogue, Everything(), place.near)
    assert len(place.recorded(record)) == 1
    assert [one.outcome for one in pruned(place).values()] == [Pruned.KEPT]
    assert (place.root / record.source).exists()


def test_of_a_good_and_a_marked_copy_the_good_one_stays(place: Place) -> None:
    record = place.add(9)
    for store in (place.near, place.far):
        mirror(place.catalogue, Everything(), store)
        (place.root / record.source).rename(place.root / "away")
        damage(store.root / record.path.lstrip("/")) if store is place.near else None
        list(check(place.catalogue, Everything()))
        (place.root / "away").rename(place.root / record.source)
    (place.root / record.source).unlink()
    found = pruned(place, BOTH)
    assert found[place.near.url_of(record.path)].outcome is Pruned.REMOVED
    assert found[place.far.url_of(record.path)].outcome is Pruned.KEPT


def test_a_record_of_nothing_is_forgotten(place: Place) -> None:
    record = place.add(9)
    mirror(place.catalogue, Everything(), place.near)
    place.near.remove(record.path)
    assert [one.outcome for one in pruned(place).values()] == [Pruned.FORGOTTEN]
    assert place.recorded(record) == set()


def test_a_url_that_no_rule_would_write_is_left_alone_whatever_the_catalogue_says(place: Place, tmp_path: Path) -> None:
    record = place.add(9)
    precious = tmp_path / "near" / "precious"
    precious.write_bytes((place.root / record.source).read_bytes())
    urls = (precious.as_uri(), f"{place.near.url}/e/s/../../precious")
    place.catalogue.add_replicas(
        [Replica(record.path, url, "local", record.checksum, datetime.now(UTC)) for url in urls]
    )
    assert pruned(place) == {} and precious.exists()


def test_nothing_is_pruned_while_a_rule_is_not_fulfilled(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.add(9)
    mirror(place.catalogue, Everything(), place.near)
    missing = place.add(0)
    (place.root / missing.source).unlink()
    upkeep = Upkeep(place.catalogue, place.rules(RECENT), prune=True)
    upkeep.finish()
    assert upkeep.failed and place.copies(place.near) == {"f0009"}
    assert "nothing is pruned" in capsys.readouterr().err


def test_two_prunes_do_not_go_on_at_once(place: Place) -> None:
    place.catalogue.acquire(LEASE, "another host, process 1", 60.0)
    with pytest.raises(LeaseHeldError, match="another host"):
        pruned(place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [{name: a, query: 'x = 1', to: NEAR}]", "replicas.yaml:1, query, column 1: rule 'a': unknown"),
        ("rules:\n- {name: a, query: '', to: hfds}", "replicas.yaml:2: rule 'a': unknown target 'hfds'"),
        ("rules:\n- {name: a, query: '', to: NEAR}\n- {name: a, query: '', to: NEAR}", "two rules are called 'a'"),
        ("rules:\n- {name: a, query: '', to: NEAR, nigths: 3}", "did you mean 'nights'"),
        ("rules: [{name: a, query: '', to: NEAR, nights: 0}]", "nights"),
        ("rules: []", "rules"),
        ("retired: [{to: NEAR}]", "'rules' is missing"),
    ],
    ids=range(7),
)
def test_wrong_rules_are_refused_with_their_place(place: Place, text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        place.rules(text)
    assert message in str(raised.value)


def test_the_rules_that_come_with_the_program_are_valid(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from apbatch.ingest.replicas import rules as module
    from apbatch.ingest.replicas.stores import target_store

    monkeypatch.setattr(module, "target_store", lambda to, settings: target_store("local"))
    path = Path(__file__).resolve().parents[3] / "conf" / "replicas.yaml"
    assert len(load_rules(path, place.catalogue.attributes()).rules) == 2


# verification


def findings(place: Place, **options: Any) -> dict[str, CheckedCopy]:
    return {one.copy: one for one in check(place.catalogue, Everything(), **options)}


def test_every_kind_of_damage_is_reported_and_passed_over_by_readers(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [place.add(number) for number in range(5)]
    mirror(place.catalogue, Everything(), place.near)
    paths = [place.near.root / record.path.lstrip("/") for record in records]
    paths[0].unlink()
    damage(paths[1])
    paths[2].write_bytes(b"short")
    hashing = LocalStore._hash

    def broken(self: LocalStore, path: str) -> Checksums:
        if path.endswith("f0003"):
            raise ServerError("Input/output error")
        return hashing(self, path)

    monkeypatch.setattr(LocalStore, "_hash", broken)
    found = findings(place)
    urls = [place.near.url_of(record.path) for record in records]
    wanted = [Finding.MISSING, Finding.CONTENT, Finding.SIZE, Finding.UNREADABLE, Finding.RIGHT]
    assert [found[url].finding for url in urls] == wanted
    assert found[urls[1]].checksum == blake3(paths[1].read_bytes()).hexdigest()
    replicas = place.catalogue.replicas([record.path for record in records])
    for record, finding in zip(records, wanted, strict=True):
        readable = sources_of([record], replicas[record.path], openers=())
        assert len(readable) == (finding is Finding.RIGHT)
    monkeypatch.undo()
    monkeypatch.setenv("APBATCH_HOME", str(place.folder / "home"))
    summary = mirror(place.catalogue, Everything(), place.near)
    assert summary.counts == {"copied": 3, "recorded": 1, "there already": 1}, "f0003 was not damaged after all"
    assert {one.finding for one in findings(place).values()} == {Finding.RIGHT}


def test_sources_are_read_too_if_wanted(place: Place) -> None:
    records = [place.add(number) for number in range(4)]
    (place.root / records[0].source).unlink()
    damage(place.root / records[1].source)
    (place.root / records[2].source).write_bytes(b"longer" * 1000)
    assert findings(place) == {}
    found = findings(place, sources=True)
    wanted = [Finding.MISSING, Finding.CONTENT, Finding.SIZE, Finding.RIGHT]
    assert [found[f"s:{record.source}"].finding for record in records] == wanted
    assert "apbatch ingest s --again" in str(found[f"s:{records[1].source}"].reason)


def test_a_store_that_does_not_answer_marks_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [place.add(number) for number in range(3)]
    mirror(place.catalogue, Everything(), place.near)
    before = place.catalogue.replicas([record.path for record in records])

    def silent(self: LocalStore, path: str) -> None:
        raise ServerError("no answer")

    monkeypatch.setattr(LocalStore, "_info", silent)
    assert {one.finding for one in findings(place).values()} == {Finding.NOT_CHECKED}
    assert place.catalogue.replicas([record.path for record in records]) == before


def test_files_of_which_only_replicas_are_left_are_verified(place: Place) -> None:
    record = place.add(1)
    mirror(place.catalogue, Everything(), place.near)
    place.add(1, State.ARCHIVED)
    damage(place.near.root / record.path.lstrip("/"))
    assert [one.finding for one in findings(place).values()] == [Finding.CONTENT]


def test_a_verification_that_is_stopped_goes_on_where_it_was(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apbatch.ingest.replicas.checking._PAGE", 3)
    for number in range(10):
        place.add(number)
    mirror(place.catalogue, Everything(), place.near)
    position = tmp_path / "position.json"
    stopped = list(itertools.islice(check(place.catalogue, Everything(), position=position), 5))
    rest = [one.path for one in check(place.catalogue, Everything(), position=position, resume=True)]
    assert {one.path for one in stopped} | set(rest) == {f"/e/s/f{number:04d}" for number in range(10)}
    assert len(rest) == 7, "it began anew, or left something out"
    assert not position.exists()
    position.write_text(json.dumps({"search": "another", "cursor": "x"}))
    assert len(list(check(place.catalogue, Everything(), position=position, resume=True))) == 10


def test_what_was_found_right_lately_is_passed_over(place: Place) -> None:
    for number in range(3):
        place.add(number)
    mirror(place.catalogue, Everything(), place.near)
    assert findings(place, older_than=timedelta(days=1)) == {}
    assert len(findings(place, older_than=timedelta(0))) == 3


def test_the_rate_is_kept_by_all_threads_together() -> None:
    rate = Rate(10e6)
    begin = time.monotonic()
    threads = [threading.Thread(target=lambda: [rate.take(100_000) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begin >= 0.19  # 2 MB but the last piece of 0.1 MB


# the commands


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any, str]:
    status = run_command(application(), arguments=[*arguments, "--format", "json"])
    shown = capsys.readouterr()
    return status, json.loads(shown.out) if shown.out else None, shown.err


def test_the_commands_say_it_all_in_json_and_by_their_status(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    tonight = (datetime.now(UTC) - timedelta(hours=12)).date()
    for number in range(4):
        record = place.add(number)
        if number < 2:
            place.catalogue.upsert([replace(record, night=tonight - timedelta(days=number))])
    rules = place.folder / "replicas.yaml"
    rules.write_text(RECENT.replace("NEAR", place.near.url))
    status, sums, _ = run("mirror", "--rules", str(rules), "--prune", capsys=capsys)
    assert (status, sums[0]["copied"], sums[1]["files"]) == (0, 2, 0)
    status, files, _ = run("mirror", "experiment = 'E'", "--to", place.near.url, "--files", capsys=capsys)
    assert status == 0 and sorted(file["outcome"] for file in files) == ["copied"] * 2 + ["there already"] * 2
    damage(place.near.root / "e/s/f0002")
    status, found, said = run("verify", "", capsys=capsys)
    assert status == 1 and [one["path"] for one in found] == ["/e/s/f0002"] and "3 right" in said
    status, files, _ = run("mirror", "--rules", str(rules), "--prune", "--files", capsys=capsys)
    assert status == 0 and {file["outcome"] for file in files} == {"there already", "removed"}
    status, found, _ = run("verify", "", "--sources", "--all", "--rate", "100", capsys=capsys)
    assert status == 0 and len(found) == 6 and {one["finding"] for one in found} == {"right"}


@pytest.mark.parametrize(
    "arguments",
    [["mirror"], ["mirror", "x = 1"], ["mirror", "--to", "local"], ["mirror", "", "--to", "local", "--prune"],
     ["mirror", "", "--rules", "r.yaml"], ["mirror", "--rules", "r.yaml", "--to", "local"]],
    ids=range(6),
)  # fmt: skip
def test_what_makes_no_sense_is_refused(place: Place, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(application(), arguments=arguments) == 2
    assert "Traceback" not in capsys.readouterr().err

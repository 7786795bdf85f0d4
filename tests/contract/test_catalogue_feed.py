"""The feed of changes, copies, hashes, leases and descriptions."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from apbatch.errors import UsageError
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.changes import KEEP_DAYS, Change, ChangeKind, StaleReaderError
from apbatch.index.contents import BLOCK, Content
from apbatch.index.descriptions import Description, DescriptionKind
from apbatch.index.files import FileRecord, Replica, State
from apbatch.index.leases import LeaseHeldError, LeaseLostError, leased
from tests.contract.conftest import CASSANDRA, POSTGRES, record
from tests.waits import PATIENCE_S, until

_WHEN = datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)


def told(catalogue: Catalogue, since: int, limit: int = 3) -> list[Change]:
    """All changes after a revision, read by small pages; each revision once and in order."""
    changes: list[Change] = []
    while page := catalogue.changes(changes[-1].revision if changes else since, limit):
        assert len(page) <= limit
        changes += page
    revisions = [change.revision for change in changes]
    assert revisions == sorted(set(revisions))
    return changes


def test_every_kind_of_change_is_told_once_in_order(whole: Catalogue, experiment: str) -> None:
    start = whole.revision()
    a, b = record(experiment, "a"), record(experiment, "b")
    whole.upsert([a, b])
    first = whole.revision()
    assert [(c.kind, c.key) for c in told(whole, start)] == [(ChangeKind.NEW, a.path), (ChangeKind.NEW, b.path)]
    whole.upsert([replace(a, size=1)])
    whole.add_replicas([Replica(b.path, "u1", "local", "c", _WHEN), Replica(b.path, "u2", "local", "c", _WHEN)])
    whole.remove_replicas([(b.path, "u1"), (b.path, "never there")])
    whole.upsert([replace(b, state=State.MISSING)])
    whole.remove([a.path])
    whole.put_description(Description(DescriptionKind.SITE, experiment, "root: /x"))
    whole.put_description(Description(DescriptionKind.POLICY, experiment, "rules: []"))
    whole.remove_description(DescriptionKind.POLICY, experiment)
    changes = told(whole, first)
    assert [(c.kind.value, c.key, c.detail) for c in changes] == [
        ("replica-added", b.path, "u2"), ("replica-removed", b.path, "u1"), ("gone", b.path, ""), ("gone", a.path, ""),
        ("site", experiment, ""), ("policy", experiment, "removed"),
    ]  # fmt: skip
    assert changes[2].record is not None and changes[2].record.state is State.MISSING
    assert changes[3].record is None
    # a reader that saw nothing yet learns of the present
    of_files = [c for c in told(whole, 0) if c.key == b.path]
    assert [c.kind for c in of_files] == [ChangeKind.REPLICA_ADDED, ChangeKind.REPLICA_REMOVED, ChangeKind.GONE]
    assert told(whole, whole.revision()) == []


def test_a_change_since_the_reader_saw_the_file_is_no_new_file(whole: Catalogue, experiment: str) -> None:
    file = record(experiment)
    whole.upsert([file])
    seen = whole.revision()
    whole.upsert([replace(file, size=1)])
    (change,) = told(whole, seen)
    assert change.kind is ChangeKind.CHANGED and change.record is not None and change.record.size == 1
    assert [c.kind for c in told(whole, seen - 1)] == [ChangeKind.NEW]


@pytest.mark.parametrize(
    ("batch", "kind"),
    [
        ("new files", ChangeKind.NEW),
        ("changed files", ChangeKind.CHANGED),
        ("missing files", ChangeKind.GONE),
        ("removed files", ChangeKind.GONE),
        ("added replicas", ChangeKind.REPLICA_ADDED),
        ("renewed replicas", ChangeKind.REPLICA_ADDED),
        ("removed replicas", ChangeKind.REPLICA_REMOVED),
        ("renamed files", ChangeKind.CHANGED),
    ],
)
def test_each_change_of_a_batch_has_a_revision_of_its_own(
    whole: Catalogue, experiment: str, batch: str, kind: ChangeKind
) -> None:
    """A reader by pages goes on from the last revision of a page: of two changes under one it would miss the second."""
    files = [record(experiment, name) for name in "abc"]
    others = [replace(file, path=f"{file.path} at t", site="t", checksum="d") for file in files]
    copies = [Replica(file.path, "u", "local", "c", _WHEN) for file in files]
    if batch != "new files":
        whole.upsert(files)
    if batch in ("renewed replicas", "removed replicas"):
        whole.add_replicas(copies)
    before = whole.revision()
    match batch:
        case "new files":
            whole.upsert(files)
        case "changed files":
            whole.upsert([replace(file, size=1) for file in files])
        case "missing files":
            whole.upsert([replace(file, state=State.MISSING) for file in files])
        case "removed files":
            whole.remove([file.path for file in files])
        case "added replicas" | "renewed replicas":
            whole.add_replicas(copies)
        case "removed replicas":
            whole.remove_replicas([(copy.path, copy.url) for copy in copies])
        case "renamed files":  # other content at the same places: each of both sites gets another name
            whole.upsert([replace(other, place=file.place) for other, file in zip(others, files, strict=True)])
    paths = {file.path for file in files}
    for limit in (1, 2, 1000):
        changes = [change for change in told(whole, before, limit) if change.key in paths]
        assert sorted((change.kind, change.key) for change in changes) == sorted((kind, path) for path in paths)
        assert all(before < change.revision <= whole.revision() for change in changes)
    held = [file.revision for file in whole.get_many([file.path for file in [*files, *others]]).values()]
    assert len(set(held)) == len(held)
    whole.upsert([record(experiment, "later")])  # takes no revision that the batch has
    assert len(told(whole, before)) == len(changes) + 1 + 3 * (batch == "renamed files")


def test_the_feed_stays_in_order_when_clocks_jump(
    whole: Catalogue, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of this host, and that of the database where it is asked for one, goes back an hour and on again."""
    start, present, expected = whole.revision(), time.time(), []
    database = getattr(whole, "_db", None)
    server_time = getattr(database, "now", "")
    for hours in (0, -1, -2, 1, -1):
        monkeypatch.setattr(time, "time", lambda hours=hours: present + 3600 * hours)
        if database is not None:
            monkeypatch.setattr(database, "now", f"({server_time} + {3600 * hours})")
        kept, removed = record(experiment, f"kept {len(expected)}"), record(experiment, f"removed {len(expected)}")
        whole.upsert([kept, removed])
        whole.add_replicas([Replica(kept.path, "u", "local", "c", _WHEN)])
        whole.remove([removed.path])
        expected += [
            (ChangeKind.NEW, kept.path),
            (ChangeKind.REPLICA_ADDED, kept.path),
            (ChangeKind.GONE, removed.path),
        ]
        assert [(change.kind, change.key) for change in told(whole, start)] == expected


@pytest.mark.parametrize("backend", ["sqlite", POSTGRES])
def test_a_reader_from_before_the_oldest_removal_starts_again(
    new_url: Callable[[str], str], backend: str, experiment: str
) -> None:
    with open_catalogue(new_url(backend)) as catalogue:
        catalogue.upsert([record(experiment, name) for name in "abc"])
        seen = catalogue.revision()
        catalogue.remove([f"/{experiment}/site/a"])
        assert [c.kind for c in told(catalogue, seen)] == [ChangeKind.GONE]
        with catalogue._db.write() as session:  # type: ignore[attr-defined]  # time passes
            session.run(f"UPDATE change SET at = at - {KEEP_DAYS * 86_400 - 60}")
        catalogue.remove([f"/{experiment}/site/b"])
        assert len(told(catalogue, seen)) == 2  # not yet too old
        with catalogue._db.write() as session:  # type: ignore[attr-defined]
            session.run("UPDATE change SET at = at - 61")
        catalogue.remove([f"/{experiment}/site/c"])
        with pytest.raises(StaleReaderError, match="from revision 0"):
            catalogue.changes(seen)
        assert [c.key for c in told(catalogue, 0)] == [f"/{experiment}/site/{name}" for name in "bc"]
        # one that began at 0 and has read no further than that yet goes on
        assert [c.key for c in catalogue.changes(seen, from_start=True)] == [
            f"/{experiment}/site/{name}" for name in "bc"
        ]
        assert [c.key for c in told(catalogue, seen + 1)] == [f"/{experiment}/site/{name}" for name in "bc"]


LOADER = """
import sys
from apbatch.formats.reader import Attribute
from apbatch.index.backends import open_catalogue
from apbatch.index.files import FileRecord
url, who, many = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_catalogue(url) as catalogue:
    catalogue.declare([Attribute("zenith", "number", "z", "deg")])
    for n in range(many):
        files = [FileRecord(
            path=f"/e/s{who}/{n % 7}/{n}-{k}", site=f"s{who}", source=f"{n % 7}/{n}-{k}", size=n, mtime_ns=n,
            checksum=f"{n}-{k}", adler32="", format="f", experiment="e", place=f"/e/{n % 7}/{n}-{k}",
            attributes={"zenith": float(n)},
        ) for k in range(20)]
        catalogue.upsert(files)
        if n % 5 == 4:
            catalogue.remove([file.path for file in files[:3]])
        print(n, flush=True)
"""


def loader(url: str, who: str, many: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", LOADER, url, who, str(many)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("backend", ["sqlite", POSTGRES, CASSANDRA])
def test_a_follower_of_three_writers_ends_with_the_catalogue_itself(
    new_url: Callable[[str], str], backend: str
) -> None:
    url = new_url(backend)
    mirror: dict[str, FileRecord] = {}
    with open_catalogue(url) as catalogue:
        writers = [loader(url, who, 30) for who in "abc"]
        last = 0
        running = True
        while running:
            running = any(writer.poll() is None for writer in writers)
            for change in catalogue.all_changes(last):
                assert change.revision > last
                last = change.revision
                if change.record is None:
                    mirror.pop(change.key, None)
                else:
                    mirror[change.key] = change.record
            time.sleep(0.02)
        assert [writer.returncode for writer in writers] == [0, 0, 0]
        held = {file.path: file for who in "abc" for file in catalogue.of_site(f"s{who}")}
        assert len(held) == 3 * (30 * 20 - 6 * 3)
        assert mirror == held
        # three sites hold the same: one entry each
        assert sum(len(catalogue.entries(f"/e/{n}", limit=10_000).entries) for n in range(7)) == 30 * 20 - 6 * 3


@pytest.mark.parametrize("backend", ["sqlite", POSTGRES, CASSANDRA])
def test_a_loader_that_is_killed_leaves_whole_records(new_url: Callable[[str], str], backend: str) -> None:
    url = new_url(backend)
    for who in "abcd":
        process = loader(url, "x", 100_000)
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(4 + ord(who) % 3)]
        process.send_signal(signal.SIGKILL)
        seen += process.stdout.read().split()
        process.wait(timeout=30)
        with open_catalogue(url) as catalogue:
            # What a killed process has sent, a server may still be writing.
            until(lambda: sites_of(catalogue) == feed_of(catalogue) == tree_of(catalogue) == sites_of(catalogue))
            held = {file.path: file for file in catalogue.of_site("sx")}
            batches = max(int(n) for n in seen if n.strip()) + 1
            assert len(held) >= 20 * batches - 3 * (batches // 5)
            assert all(dict(file.attributes) == {"zenith": float(file.size)} for file in held.values())


def sites_of(catalogue: Catalogue) -> list[str]:
    return sorted(file.path.rpartition("/")[2] for file in catalogue.of_site("sx"))


def feed_of(catalogue: Catalogue) -> list[str]:
    return sorted({c.key.rpartition("/")[2] for c in told(catalogue, 0, 500) if c.record is not None})


def tree_of(catalogue: Catalogue) -> list[str]:
    return sorted(e.name for n in range(7) for e in catalogue.entries(f"/e/{n}", limit=100_000).entries)


def test_replicas_are_kept_many_at_once(whole: Catalogue, experiment: str) -> None:
    files = [record(experiment, f"{n}") for n in range(1200)]
    whole.upsert(files)
    copies = [Replica(file.path, f"hdfs://h/{file.source}", "hdfs", "c", _WHEN) for file in files]
    unknown = Replica(f"/{experiment}/nothing", "u", "local", "c", _WHEN)
    assert whole.add_replicas([*copies, unknown]) == 1200
    found = whole.replicas([file.path for file in files] + [unknown.path])
    assert found == {**{copy.path: [copy] for copy in copies}, unknown.path: []}
    assert whole.remove_replicas([(copy.path, copy.url) for copy in copies[:700]]) == 700
    assert sum(map(len, whole.replicas([file.path for file in files]).values())) == 500


def content(number: int, blocks: int = 3) -> Content:
    size = (blocks - 1) * BLOCK + 1
    return Content(f"{number:064x}", size, "00000001", bytes(range(32)) * blocks, b"s" * 20 * blocks, b"l" * 20)


def test_hashes_are_kept_by_content(whole: Catalogue) -> None:
    kept = [content(number) for number in range(250)]
    whole.put_contents(kept)
    whole.put_contents(kept)
    names = [one.checksum for one in kept]
    assert whole.contents([*names, "f" * 64]) == dict(zip(names, kept, strict=True))
    assert whole.has_contents([*names[:3], "f" * 64]) == set(names[:3])
    assert kept[0].block(1) == bytes(range(32))
    with pytest.raises(IndexError):
        kept[0].block(3)
    empty = Content("e" * 64, 0, "00000001", b"", b"", b"")
    whole.put_contents([empty])
    assert whole.contents([empty.checksum]) == {empty.checksum: empty}


@pytest.mark.parametrize(
    "wrong", [{"size": 1}, {"blocks": b""}, {"small_pieces": b"x"}, {"large_pieces": b""}, {"checksum": "xyz"}], ids=str
)
def test_hashes_that_do_not_fit_are_refused(whole: Catalogue, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        whole.put_contents([replace(content(7), **wrong)])  # type: ignore[arg-type]


def test_one_holds_a_lease_and_the_other_is_told_who(whole: Catalogue, experiment: str) -> None:
    lease = whole.acquire(experiment, "host a, process 1", 60)
    with pytest.raises(LeaseHeldError, match="host a, process 1"):
        whole.acquire(experiment, "host b", 60)
    whole.renew(lease)
    whole.acquire(f"{experiment} other", "host b", 60)
    whole.release(lease)
    later = whole.acquire(experiment, "host b", 60)
    assert later.token > lease.token
    with pytest.raises(LeaseLostError):
        whole.renew(lease)
    whole.release(lease)  # of one that is no longer ours: nothing happens
    whole.renew(later)


def test_a_silent_holder_loses_its_lease(whole: Catalogue, experiment: str) -> None:
    lease = whole.acquire(experiment, "a", 0.2)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            other = whole.acquire(experiment, "b", 60)
            break
        except LeaseHeldError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with pytest.raises(LeaseLostError):
        whole.renew(lease)
    whole.release(other)


def test_a_lease_does_not_go_by_the_clocks_of_hosts(
    whole: Catalogue, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = whole.acquire(experiment, "a", 60)
    for hours in (1, -1):
        now = time.time() + 3600 * hours
        monkeypatch.setattr(time, "time", lambda now=now: now)
        with pytest.raises(LeaseHeldError):
            whole.acquire(experiment, "b", 60)
        whole.renew(lease)
    whole.release(lease)


@pytest.mark.parametrize("names", [[f"{n}" for n in range(8)], ["threads of one process"] * 8], ids=["eight", "one"])
def test_of_many_at_once_one_gets_the_lease(whole: Catalogue, experiment: str, names: list[str]) -> None:
    won: list[str] = []

    def contend(who: str) -> None:
        try:
            whole.acquire(experiment, who, 60)
            won.append(who)
        except LeaseHeldError:
            pass

    threads = [threading.Thread(target=contend, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_lease_is_held_for_a_block_of_work(whole: Catalogue, experiment: str) -> None:
    with leased(whole, experiment) as keeper:
        keeper.keep()
        with pytest.raises(LeaseHeldError, match="process"), leased(whole, experiment):
            pass
    with leased(whole, experiment):
        pass


def test_descriptions_are_for_all_hosts(whole: Catalogue, experiment: str) -> None:
    site = Description(DescriptionKind.SITE, experiment, "name: ä\nroot: /x\n", preferred=True)
    whole.put_description(site)
    whole.put_description(replace(site, text="root: /y"))
    whole.put_description(replace(site, kind=DescriptionKind.POLICY))
    (found,) = [one for one in whole.descriptions(DescriptionKind.SITE) if one.name == experiment]
    assert replace(found, revision=0) == replace(site, text="root: /y") and found.revision > 0
    whole.remove_description(DescriptionKind.SITE, experiment)
    whole.remove_description(DescriptionKind.SITE, experiment)
    assert experiment not in {one.name for one in whole.descriptions(DescriptionKind.SITE)}
    assert experiment in {one.name for one in whole.descriptions(DescriptionKind.POLICY)}

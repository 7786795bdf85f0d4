"""Changes at a site reach the feed by themselves; nothing here waits for a time, only for what must happen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from apbatch.client.client import connect
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import State
from apbatch.index.leases import LeaseHeldError, leased
from apbatch.ingest import watch as watch_module
from apbatch.ingest.scan import ingest, lease_name
from apbatch.ingest.site import Site
from apbatch.ingest.watch import FolderEvents, watch
from tests.unit.formats.test_formats_taiga_raw import record

_LIMIT_S = 300.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "BSM01").mkdir(parents=True)
    (folder / "BSM01" / "28107001.001").write_bytes(record())
    return folder


@pytest.fixture
def url(home: Path) -> str:
    return f"sqlite:///{home}/catalogue.sqlite"


def site(root: Path) -> Site:
    return Site(name="s", experiment="TAIGA", root=str(root))


@contextmanager
def watched(root: Path, url: str, every_s: float = 3600.0) -> Iterator[list[BaseException]]:
    """Watch in a thread that has a catalogue of its own, from when it has listed the site once."""
    stop, ready, failures = threading.Event(), threading.Event(), []

    def run() -> None:
        try:
            with open_catalogue(url) as catalogue:
                watch(site(root), catalogue, stop, every_s=every_s, after=ready.set)
        except BaseException as error:
            failures.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(_LIMIT_S)
        yield failures
    finally:
        stop.set()
        thread.join(_LIMIT_S)
        assert not thread.is_alive()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _LIMIT_S
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def states(catalogue: Catalogue) -> dict[str, State]:
    return {one.source: one.state for one in catalogue.of_site("s")}


def test_new_moved_changed_and_removed_files_reach_the_catalogue(root: Path, url: str) -> None:
    with watched(root, url), open_catalogue(url) as catalogue:
        assert states(catalogue) == {"BSM01/28107001.001": State.REGISTERED}
        (root / "BSM02" / "deep").mkdir(parents=True)
        (root / "BSM02" / "deep" / "28107002.001").write_bytes(record(board=1))
        until(lambda: states(catalogue).get("BSM02/deep/28107002.001") is State.REGISTERED)
        (root / "BSM01" / "28107001.001").write_bytes(record() + record(2))
        until(lambda: [one.events for one in catalogue.of_site("s")] == [2, 1])
        (root / "BSM02").rename(root / "BSM03")
        until(lambda: states(catalogue).get("BSM03/deep/28107002.001") is State.REGISTERED)
        until(lambda: states(catalogue)["BSM02/deep/28107002.001"] is State.MISSING)
        (root / "BSM03" / "deep" / "28107002.002").write_bytes(record(board=1))  # the moved folder is watched, too
        until(lambda: states(catalogue).get("BSM03/deep/28107002.002") is State.REGISTERED)
        (root / "BSM01" / "28107001.001").unlink()
        until(lambda: states(catalogue)["BSM01/28107001.001"] is State.MISSING)


def test_where_the_system_tells_nothing_listings_find_what_changed(
    root: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FolderEvents, "add", lambda self, folder: None)
    with watched(root, url, every_s=0.2), open_catalogue(url) as catalogue:
        (root / "BSM01" / "28107001.002").write_bytes(record())
        until(lambda: states(catalogue).get("BSM01/28107001.002") is State.REGISTERED)


def test_lost_news_lead_to_a_whole_listing(root: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_MANY", -1)
    with watched(root, url), open_catalogue(url) as catalogue:
        (root / "BSM01" / "28107001.002").write_bytes(record())
        until(lambda: states(catalogue).get("BSM01/28107001.002") is State.REGISTERED)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a watch says."""
    lines: list[str] = []
    monkeypatch.setattr(watch_module, "say", lines.append)
    monkeypatch.setattr(watch_module, "_LEASE_S", 0.1)
    return lines


def test_one_host_watches_a_site_and_who_lost_the_lease_waits_for_the_other(
    root: Path, url: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "leased", partial(leased, ttl_s=10.0))
    with watched(root, url) as failures, open_catalogue(url) as catalogue:
        with pytest.raises(LeaseHeldError) as held:
            ingest(site(root), catalogue)
        catalogue.release(held.value.lease)  # as if it had been silent for too long
        lease = catalogue.acquire(lease_name("s"), "another host", 3600.0)
        until(lambda: any("done by another host; waiting" in line for line in said))
        (root / "BSM01" / "28107001.002").write_bytes(record())
        assert "BSM01/28107001.002" not in states(catalogue)
        catalogue.release(lease)
        until(lambda: states(catalogue).get("BSM01/28107001.002") is State.REGISTERED)
    assert not failures
    assert sum("waiting" in line for line in said) == 1


def test_a_watch_takes_over_when_the_lease_of_a_dead_host_ends(root: Path, url: str, said: list[str]) -> None:
    with open_catalogue(url) as catalogue:
        catalogue.acquire(lease_name("s"), "a dead host", 2.0)
        with watched(root, url) as failures:
            assert states(catalogue) == {"BSM01/28107001.001": State.REGISTERED}
    assert not failures
    assert "done by a dead host" in said[0]


def test_a_watch_that_waits_can_be_stopped(root: Path, url: str, said: list[str]) -> None:
    stop = threading.Event()
    with open_catalogue(url) as catalogue:
        catalogue.acquire(lease_name("s"), "another host", 3600.0)
        thread = threading.Thread(target=stop.set)
        thread.start()
        watch(site(root), catalogue, stop)
        thread.join()
        assert states(catalogue) == {}


def test_a_follower_of_the_feed_goes_on_from_its_revision(root: Path, url: str) -> None:
    with open_catalogue(url) as catalogue, connect() as client:
        ingest(site(root), catalogue)
        follower = client.follow(0)
        seen = []
        while (change := next(follower)) is not None:
            seen.append(change)
        assert [one["path"] for one in seen if one["change"] == "new"] == ["/taiga/s/BSM01/28107001.001"]
        (root / "BSM01" / "28107001.002").write_bytes(record())
        ingest(site(root), catalogue)
        following = next(follower)
        assert following is not None and following["path"] == "/taiga/s/BSM01/28107001.002"
        assert next(client.follow(seen[-1]["revision"])) == following

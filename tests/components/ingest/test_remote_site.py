"""A site whose root is the address of its agent: registered from the feed, read by blocks, mounted, up to date."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from apbatch.access.agents.capability import rotate_secret
from apbatch.access.guard import Guard
from apbatch.access.mount import mounting
from apbatch.access.policy import Policy
from apbatch.access.principals import OWNER
from apbatch.access.reader import Reader
from apbatch.errors import ApbatchError, ServerError, UsageError
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.contents import BLOCK
from apbatch.ingest.opening import open_source
from apbatch.ingest.remote.client import Agent
from apbatch.ingest.scan import ingest
from apbatch.ingest.site import Site
from apbatch.ingest.sites import add_site
from apbatch.ingest.watch import watch
from tests.agents import ALL_OPEN
from tests.waits import until

DATA = random.Random(3).randbytes(2 * BLOCK + 77)
COMMAND = str(Path(sys.executable).with_name("apbatch"))

#: The other host: a home of its own, the site watched and served.
AGENT = """
import sys, threading
from pathlib import Path
from apbatch.access.agents.agent import serve_site
from apbatch.config import load_settings
from apbatch.formats.reader import readers
from apbatch.index.backends import open_catalogue
from apbatch.ingest.sites import load_site
from apbatch.ingest.watch import watch

def watching():
    with open_catalogue(load_settings().catalogue) as catalogue:
        watch(load_site("far"), catalogue, threading.Event())

readers()  # imported before there are threads
threading.Thread(target=watching, daemon=True).start()
serve_site("far", policy=Path(sys.argv[1]), secrets=Path(sys.argv[2]), announce=lambda text: print(text, flush=True))
"""


class Far:
    """The site on the other host."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "data"
        (self.root / "night").mkdir(parents=True)
        (self.root / "night" / "large").write_bytes(DATA)
        (self.root / "a b%").write_bytes(b"small")
        sites = folder / "home" / "sites"
        sites.mkdir(parents=True)
        (sites / "far.yaml").write_text(f"name: far\nexperiment: TAIGA\nroot: {self.root}\ntree: /taiga/raw\n")
        policy, secrets = folder / "policy.yaml", folder / "secrets"
        policy.write_text(ALL_OPEN)
        rotate_secret(secrets)
        environment = {**os.environ, "APBATCH_HOME": str(folder / "home"), "APBATCH_CACHE": str(folder / "cache")}
        environment.pop("APBATCH_CONFIG", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(policy), str(secrets)], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    far = Far(tmp_path_factory.mktemp("far"))
    yield far
    far.close()


@pytest.fixture(scope="module")
def catalogue(here: Path) -> Iterator[Catalogue]:
    (here / "home").mkdir()
    with open_catalogue(f"sqlite:///{here}/home/catalogue.sqlite") as one:
        yield one


@pytest.fixture(scope="module")
def site(far: Far, here: Path, catalogue: Catalogue) -> Site:
    """The site as this host knows it, registered."""
    file = here / "far.yaml"
    file.write_text(f"name: far\nexperiment: TAIGA\nroot: {far.url}/\n")
    site, outcome = add_site(file)
    assert outcome == "added"
    assert site.root == far.url
    registered: list[int] = []

    def take_over() -> bool:
        registered.append(ingest(site, catalogue).registered)
        return sum(registered) >= 2

    until(take_over, "the agent's own host registers its files meanwhile", 0.2)
    return site


def test_an_agents_files_are_registered_where_it_places_them(site: Site, catalogue: Catalogue) -> None:
    records = {record.place: record for record in catalogue.of_site("far")}
    assert set(records) == {"/taiga/raw/night/large", "/taiga/raw/a b%25"}
    again = ingest(site, catalogue).record()
    assert {name for name, value in again.items() if value} <= {"site", "seconds"}


def test_bytes_come_by_blocks_and_are_verified(
    site: Site, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []
    block = Agent.block
    monkeypatch.setattr(Agent, "block", lambda self, path, n, length: fetched.append(n) or block(self, path, n, length))
    with Reader(Guard(catalogue, None, Policy.load(None), OWNER)) as reader:
        with reader.open("/taiga/raw/night/large") as file:
            assert file.verified
            assert file.read(2 * BLOCK - 2, 4) == DATA[2 * BLOCK - 2 : 2 * BLOCK + 2]
        assert sorted(fetched) == [1, 2]
        with reader.open("/taiga/raw/a b%25") as file:
            assert file.read(0, 100) == b"small"


def test_who_reads_a_site_reads_from_its_agent(site: Site, catalogue: Catalogue) -> None:
    record = next(record for record in catalogue.of_site("far") if record.size == len(DATA))
    with open_source(record) as stream:
        assert stream.read() == DATA
        stream.seek(-7, os.SEEK_END)
        assert stream.read() == DATA[-7:]


def test_what_the_site_itself_says_is_refused_here(tmp_path: Path, far: Far, here: Path) -> None:
    file = tmp_path / "far.yaml"
    file.write_text(f"name: far\nexperiment: TAIGA\nroot: {far.url}\ntree: /elsewhere\n")
    with pytest.raises(UsageError, match="said at the site itself"):
        add_site(file)
    file.write_text("name: far\nexperiment: TAIGA\nroot: ftp://host/files\n")
    with pytest.raises(UsageError, match="address of an agent"):
        add_site(file)


def test_another_sites_agent_is_no_root(tmp_path: Path, far: Far, here: Path) -> None:
    file = tmp_path / "near.yaml"
    file.write_text(f"name: near\nexperiment: TAIGA\nroot: {far.url}\n")
    with pytest.raises(ApbatchError, match="serves site 'far'"):
        add_site(file)
    file.write_text("name: near\nexperiment: TAIGA\nroot: http://127.0.0.1:9\n")
    with pytest.raises(ServerError, match="does not answer"):
        add_site(file)


@pytest.mark.skipif(
    (not Path("/dev/fuse").exists() or find_spec("pyfuse3") is None) and not os.environ.get("CI"),
    reason="nothing can be mounted here: pyfuse3 or /dev/fuse is missing",
)
@pytest.mark.skipif(os.geteuid() != 0 and shutil.which("fusermount3") is None, reason="fuse3 is not installed")
def test_a_new_file_at_the_agents_site_shows_in_a_mount_here(
    far: Far, site: Site, here: Path, tmp_path: Path, record_property: object
) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    stop = threading.Event()

    def watching() -> None:
        with open_catalogue(f"sqlite:///{here}/home/catalogue.sqlite") as catalogue:
            watch(site, catalogue, stop)

    watcher = threading.Thread(target=watching)
    watcher.start()
    try:
        subprocess.run([COMMAND, "mount", str(folder)], check=True)
        shown = folder / "taiga/raw"
        assert (shown / "night/large").read_bytes() == DATA
        assert not (shown / "new").exists()
        start = time.monotonic()
        (far.root / "new").write_bytes(b"new at the site")
        until((shown / "new").exists)
        seconds = time.monotonic() - start
        assert seconds < 28, "without the feeds it would take 30 s at least"
        print(f"a new file showed after {seconds:.1f} s")
        until(lambda: (shown / "new").read_bytes() == b"new at the site")
        (far.root / "new").unlink()
        until(lambda: not (shown / "new").exists())
        far.process.kill()
        far.process.wait()
        assert (shown / "night/large").read_bytes() == DATA  # what was read once is kept here
        with pytest.raises(OSError, match="Input/output error"):
            (shown / "a b%").read_bytes()
    finally:
        stop.set()
        watcher.join()
        if mounting.is_mounted(folder):
            mounting.detach(folder)

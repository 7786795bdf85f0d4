"""Two sites, two caches, two gateways, three nodes of Cassandra and two mounts, each on a host of its own.

The hosts' clocks are hours apart, the sites are reached by a wide-area link that delays and loses, and each part is
lost once. Clocks of the nodes alone agree, which Cassandra demands.
"""

from __future__ import annotations

import errno
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from apbatch.access.agents.capability import rotate_secret
from apbatch.cluster.cassandra import _LOGBACK, Cassandra
from apbatch.index.contents import BLOCK
from tests import links
from tests.agents import ALL_OPEN
from tests.hosts import COMMAND, Host, Network, network, what_is_missing
from tests.waits import PATIENCE_S, until

pytestmark = [pytest.mark.cassandra, pytest.mark.campaign]

DELAY_S, LOSS = 0.02, 0.02
_SQUID = """http_port 3128
pid_filename /srv/squid/squid.pid
cache_dir ufs /srv/squid/spool 100 16 256
access_log stdio:/srv/squid/access.log
cache_log /srv/squid/cache.log
netdb_filename none
coredump_dir /srv/squid
visible_hostname {name}
pinger_enable off
shutdown_lifetime 1 seconds
http_access allow all
"""
_NONE_OPEN = "rules: [{name: nobody reads, who: anyone, may: metadata}]"


class Ring(Cassandra):
    """The development server's settings for nodes on hosts of their own."""

    nodes = 3

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    def _hosts(self) -> list[str]:
        return self._addresses

    def start_node(self, number: int, host: Host) -> None:
        """Start a node, on data that it may have."""
        folder = host.folder / "cassandra"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "logback.xml").write_text(_LOGBACK)
        inside = Path("/srv/cassandra")
        (folder / "cassandra.yaml").write_text(yaml.safe_dump(self._settings(inside / "data", host.address)))
        java, *rest = self._node(number, inside).command
        host.start("cassandra", java, "-XX:TieredStopAtLevel=1", *rest)  # nodes start in half of the time

    def url(self) -> str:
        """Return the catalogue's URL."""
        return f"cassandra://{','.join(self._addresses)}:{self.port(30)}/tree"


class World:
    """All hosts, and how what runs on them is started.

    Parameters
    ----------
    net : Network
    """

    def __init__(self, net: Network) -> None:
        self.draws = random.Random(20)
        self.wan = net.add("wan")
        self.nodes = [net.add(f"db{number}") for number in (1, 2, 3)]
        self.sites = {"taiga": net.add("taiga", 3600, site=True), "fact": net.add("fact", -3600, site=True)}
        self.caches = {"near": net.add("near", 1800), "far": net.add("far", -1800)}
        self.gateways = {"gw1": net.add("gw1", 1200), "gw2": net.add("gw2", -1200)}
        self.mounts = {"m1": net.add("m1", 7200), "m2": net.add("m2", -5400)}
        self.hosts = net.hosts
        #: Content by path in the merged tree.
        self.files: dict[str, bytes] = {}
        self.agents = {name: f"http://{self.wan.address}:{9001 + n}" for n, name in enumerate(self.sites)}
        self.balancer = f"http://{self.wan.address}:9000"

    def start(self) -> None:
        """Start everything, in the order in which it depends on each other."""
        self.ring = Ring([node.address for node in self.nodes])
        Ring.fetch()
        for number, node in enumerate(self.nodes):
            self.ring.start_node(number, node)
        self.start_links()
        self.start_cache("far")
        self.start_cache("near")
        for name in self.sites:
            self.prepare_site(name)
            self.start_watch(name)
            self.start_agent(name)
        for node in self.nodes:
            self.await_node(node)
        self.prepare_gateways()
        for name in self.gateways:
            self.start_gateway(name)
        self.mounts["m1"].environment = {
            "APBATCH_CATALOGUE": self.ring.url(), "APBATCH_BLOCK_PROXY": f"http://{self.caches['near'].address}:3128",
        }  # fmt: skip
        self.mounts["m2"].environment = {"APBATCH_CATALOGUE": "sqlite:////srv/home/catalogue.sqlite"}
        self.start_mount("m1")
        self.start_mount("m2")

    # parts

    def start_links(self) -> None:
        gateways = ",".join(f"{host.address}:8000" for host in self.gateways.values())
        ways = [f"{9001 + n}={host.address}:8000" for n, host in enumerate(self.sites.values())]
        command = [sys.executable, links.__file__, str(DELAY_S), str(LOSS), "20", *ways, f"9000={gateways}"]
        self.link = self.wan.start("links", *command, until_it_says="listening")

    def turn_link(self, word: str, port: int) -> None:
        assert self.link.stdin is not None
        self.link.stdin.write(f"{word} {port}\n".encode())
        self.link.stdin.flush()
        log = self.wan.log("links")
        until(lambda: log.read_text().endswith(f"{word} {port}\n"))

    def start_cache(self, name: str) -> None:
        host = self.caches[name]
        folder = host.folder / "squid"
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o777)  # Squid gives up root
            settings = _SQUID.format(name=name)
            if name == "near":
                far = self.caches["far"].address
                settings += f"cache_peer {far} parent 3128 0 no-query no-digest default\nnever_direct allow all\n"
            (folder / "squid.conf").write_text(settings)
            host.run("squid", "-N", "-z", "-f", "/srv/squid/squid.conf")
        (folder / "squid.pid").unlink(missing_ok=True)  # of one that was killed
        (folder / "cache.log").unlink(missing_ok=True)
        host.start("squid", "squid", "-N", "-f", "/srv/squid/squid.conf")
        until(lambda: "Accepting HTTP" in _text(folder / "cache.log"), f"{name}: Squid does not serve")

    def prepare_site(self, name: str) -> None:
        host = self.sites[name]
        host.environment = {
            "APBATCH_CATALOGUE": "sqlite:////srv/home/catalogue.sqlite", "APBATCH_SITE_SECRET_FILE": "/srv/secrets",
        }  # fmt: skip
        tree = {"raw": f"/{name}/raw", "common": "/common"}
        described = {"name": name, "experiment": "SKY", "root": "/srv/site", "tree": tree}
        (host.folder / f"{name}.yaml").write_text(yaml.safe_dump(described))
        (host.folder / "policy.yaml").write_text(ALL_OPEN)
        rotate_secret(host.folder / "secrets")

    def start_watch(self, name: str) -> None:
        self.sites[name].start("watch", COMMAND, "ingest", f"/srv/{name}.yaml", "--watch")
        until((self.sites[name].folder / f"home/sites/{name}.yaml").exists, f"{name}: the site is not added", 0.2)

    def start_agent(self, name: str) -> None:
        host = self.sites[name]
        command = ["serve", "--site", name, "--host", host.address, "--port", "8000", "--policy", "/srv/policy.yaml"]
        host.start("agent", COMMAND, *command, until_it_says="is served at")

    def await_node(self, node: Host) -> None:
        log = node.log("cassandra")
        until(lambda: "Starting listening for CQL clients" in _text(log), f"{node.name} does not serve", 0.5)

    def prepare_gateways(self) -> None:
        first, second = self.gateways.values()
        for host in (first, second):
            host.environment = {
                "APBATCH_CATALOGUE": self.ring.url(), "APBATCH_SITE_SECRET_FILE": "/srv/secrets",
                "APBATCH_BLOCK_PROXY": f"http://{self.caches['far'].address}:3128",
            }  # fmt: skip
        (first.folder / "policy.yaml").write_text(ALL_OPEN)
        rotate_secret(first.folder / "secrets")
        (second.folder / "secrets").write_bytes((first.folder / "secrets").read_bytes())
        (second.folder / "secrets").chmod(0o600)
        first.run(COMMAND, "policy", "share", "/srv/policy.yaml")
        for name, root in self.agents.items():
            self.describe_site(first, name, root)
            first.run(COMMAND, "site", "add", f"/srv/{name}.yaml")

    def describe_site(self, host: Host, name: str, root: str) -> None:
        (host.folder / f"{name}.yaml").write_text(f"name: {name}\nexperiment: SKY\nroot: {root}\n")

    def start_gateway(self, name: str) -> None:
        host = self.gateways[name]
        agents = [word for site, url in self.agents.items() for word in ("--agent", f"{site}={url}")]
        command = ["gateway", *agents, "--host", host.address, "--port", "8000"]
        host.start("gateway", COMMAND, *command, until_it_says="is served at")

    def start_mount(self, name: str) -> None:
        host = self.mounts[name]
        (host.folder / "sky").mkdir(exist_ok=True)
        if name == "m2":  # a catalogue of its own, from the gateways' feed
            for site in self.sites:
                self.describe_site(host, site, self.balancer)
                host.start(f"watch {site}", COMMAND, "ingest", f"/srv/{site}.yaml", "--watch")
        host.run(COMMAND, "mount", "/srv/sky")

    # files

    def write(self, site: str, source: str, size: int, data: bytes = b"") -> str:
        """Write a file at a site, at the time of its clock; return its path in the merged tree."""
        data = data or self.draws.randbytes(size)
        host = self.sites[site]
        file = host.site / source
        file.parent.mkdir(exist_ok=True)
        part = host.folder / "part"
        part.write_bytes(data)
        stamp = time.time() + host.offset_s
        os.utime(part, (stamp, stamp))
        part.replace(file)
        path = f"/{source}" if source.startswith("common/") else f"/{site}/{source}"
        self.files[path] = data
        return path

    def remove(self, site: str, source: str) -> str:
        """Remove a file at a site; return its path in the merged tree."""
        (self.sites[site].site / source).unlink()
        del self.files[f"/{site}/{source}"]
        return f"/{site}/{source}"

    def reads(self, mount: str, path: str) -> bool:
        """Tell whether a mount gives the content that the site has."""
        try:
            return (self.sky(mount) / path[1:]).read_bytes() == self.files[path]
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            assert error.errno in (errno.EIO, errno.ENOTCONN), error
            return False

    def sky(self, mount: str) -> Path:
        """Return the mounted tree, as the test can read it."""
        return self.mounts[mount].root / "srv/sky"

    def shows(self, mount: str, path: str) -> bool:
        """Tell whether a mount has a name."""
        return (self.sky(mount) / path[1:]).exists()

    def await_read(self, *paths: str, mounts: tuple[str, ...] = ("m1", "m2")) -> None:
        """Wait until mounts give the contents of files."""
        for path in paths:
            for mount in mounts:
                until(lambda path=path, mount=mount: self.reads(mount, path), f"{mount} does not give {path}", 0.3)

    def block_bytes(self, site: str) -> int:
        """Return how many bytes of blocks a site's agent has sent."""
        url = f"http://{self.sites[site].address}:8000/metrics"
        text = self.wan.get(url)[1].decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return int(sum(sample.value for sample in samples if sample.name == "apbatch_block_bytes_total"))

    def periods(self) -> list[int]:
        """Return the day that each site's clock shows: with it capabilities change, and with them blocks' URLs."""
        return [int(time.time() + host.offset_s) // 86400 for host in self.sites.values()]


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if missing := what_is_missing():
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with network(tmp_path_factory.mktemp("hosts")) as net:
        world = World(net)
        world.write("taiga", "common/same", BLOCK + 3)
        world.write("fact", "common/same", 0, world.files["/common/same"])
        world.write("taiga", "raw/large", 2 * BLOCK + 77)
        world.write("fact", "raw/a b%", 5000)
        world.write("fact", "raw/large", BLOCK + 9)
        begun = time.monotonic()
        world.start()
        print(f"{len(net.hosts)} hosts after {time.monotonic() - begun:.0f} s")
        yield world


def test_two_mounts_show_what_two_sites_hold_and_each_block_leaves_them_once(world: World) -> None:
    days = world.periods()
    world.await_read(*world.files)
    for mount in world.mounts:
        sky = world.sky(mount)
        assert sorted(f"/{file.relative_to(sky)}" for file in sky.rglob("*") if file.is_file()) == sorted(world.files)
        mounted = (sky / "taiga/raw/large").stat()
        assert mounted.st_mtime_ns == (world.sites["taiga"].site / "raw/large").stat().st_mtime_ns
    sent = {site: world.block_bytes(site) for site in world.sites}
    common = len(world.files["/common/same"])  # may come from either site, to each reader from another
    for site, size in sent.items():
        own = sum(len(data) for path, data in world.files.items() if path.startswith(f"/{site}/"))
        assert size in (own, own + common) or world.periods() != days


def test_clocks_of_hosts_are_apart(world: World) -> None:
    for host in world.hosts.values():
        inside = float(host.run(sys.executable, "-I", "-S", "-c", "import time; print(time.time())").stdout)
        assert abs(inside - time.time() - host.offset_s) < PATIENCE_S


def test_no_host_sees_anothers_files_or_changes_its_site(world: World) -> None:
    site = world.sites["taiga"]
    assert site.run("ls", str(site.folder.parent)).stdout == ""
    assert "Read-only" in site.run("touch", "/srv/site/raw/large", check=False).stderr
    assert world.mounts["m1"].run("ls", "/srv/site").stdout == ""


def test_new_changed_and_removed_files_show_in_both_mounts(world: World) -> None:
    begun = time.monotonic()
    new = world.write("taiga", "raw/new", 70_000)
    world.await_read(new)
    print(f"a new file was read in both mounts after {time.monotonic() - begun:.1f} s")
    world.write("taiga", "raw/new", 80_000)
    world.await_read(new)
    world.remove("taiga", "raw/new")
    for mount in world.mounts:
        until(lambda mount=mount: not world.shows(mount, new), f"{mount} still shows {new}", 0.3)


def test_of_two_hosts_one_ingests_a_site_and_the_other_takes_over_when_it_dies(world: World) -> None:
    ahead, behind = world.gateways.values()
    ahead.start("watch", COMMAND, "ingest", "taiga", "--watch")

    def refused() -> bool:
        done = behind.run(COMMAND, "ingest", "taiga", check=False)
        assert done.returncode == 0 or "is being done by gw1" in done.stderr, done.stderr
        return done.returncode != 0

    until(refused, "two hosts ingest one site", 0.5)
    ahead.kill("watch")
    begun = time.monotonic()
    until(lambda: not refused(), "the lease of a dead host never ends", 1)
    assert time.monotonic() - begun > 10, "a holder that may live was not waited for"


def test_what_is_revoked_is_given_to_nobody_any_more(world: World) -> None:
    first, second = world.gateways.values()
    url = f"http://{second.address}:8000/f/fact/raw/large"
    assert world.mounts["m2"].get(url)[0] == 200
    (first.folder / "closed.yaml").write_text(_NONE_OPEN)
    first.run(COMMAND, "policy", "share", "/srv/closed.yaml")
    until(lambda: world.mounts["m2"].get(url)[0] == 404, "the other gateway still gives it", 0.5)
    first.run(COMMAND, "policy", "share", "/srv/policy.yaml")
    until(lambda: world.mounts["m2"].get(url)[0] == 200, "the other gateway gives nothing any more", 0.5)

    site = world.sites["fact"]
    body = json.dumps({"paths": ["/sky/fact/raw/large"]}).encode()
    answer = json.loads(world.wan.get(f"http://{site.address}:8000/locate", body)[1])
    old = f"http://{site.address}:8000/b/{answer['files']['/sky/fact/raw/large']['capability']}/0"
    assert world.wan.get(old)[0] == 200
    site.run(COMMAND, "secret", "new", "/srv/secrets", "--keep", "0")
    until(lambda: world.wan.get(old)[0] == 404, "a revoked capability still opens a block", 0.5)
    world.await_read(world.write("fact", "raw/after the new secret", BLOCK + 1))  # readers ask anew by themselves


def _policy_of_site(world: World, text: str) -> None:
    (world.sites["fact"].folder / "policy.yaml").write_text(text)


def test_a_site_that_closes_its_data_is_read_no_more(world: World) -> None:
    closed = world.write("fact", "raw/never read before", 4000)
    for mount in world.mounts:
        until(lambda mount=mount: world.shows(mount, closed), f"{mount} does not show {closed}", 0.3)
    site = world.sites["fact"]
    _policy_of_site(world, _NONE_OPEN)
    url = f"http://{site.address}:8000/f{closed.replace(' ', '%20')}"
    until(lambda: world.wan.get(url)[0] == 404, "the agent still gives it", 0.5)
    for mount in world.mounts:
        assert world.shows(mount, closed) and not world.reads(mount, closed)
    _policy_of_site(world, ALL_OPEN)
    world.await_read(closed)


#: Each part: what takes it away, what brings it back, the mounts that go on, and the site that does.
PARTS: dict[str, tuple[Callable[[World], None], Callable[[World], None], tuple[str, ...], str]] = {}


def _part(name: str, lose: Callable[[World], None], bring: Callable[[World], None], mounts: str, site: str) -> None:
    PARTS[name] = lose, bring, tuple(mounts.split()), site


def _bring_node(world: World) -> None:
    node = world.nodes[1]
    node.power_on()
    world.ring.start_node(1, node)
    world.await_node(node)


def _bring_site(world: World) -> None:
    world.sites["fact"].power_on()
    world.start_watch("fact")
    world.start_agent("fact")


def _bring(kind: str, name: str) -> Callable[[World], None]:
    def bring(world: World) -> None:
        world.hosts[name].power_on()
        getattr(world, f"start_{kind}")(name)

    return bring


def _off(name: str) -> Callable[[World], None]:
    return lambda world: world.hosts[name].power_off()


_part("a node of the catalogue", _off("db2"), _bring_node, "m1 m2", "taiga")
_part("a site", _off("fact"), _bring_site, "m1 m2", "taiga")
_part("an agent", lambda w: w.sites["taiga"].kill("agent"), lambda w: w.start_agent("taiga"), "m1 m2", "fact")
_part("a watch", lambda w: w.sites["taiga"].kill("watch"), lambda w: w.start_watch("taiga"), "m1 m2", "fact")
_part("the near cache", _off("near"), _bring("cache", "near"), "m1 m2", "taiga")
_part("the far cache", _off("far"), _bring("cache", "far"), "m1 m2", "taiga")
_part("a gateway", _off("gw1"), _bring("gateway", "gw1"), "m1 m2", "taiga")
_part("the other gateway", lambda w: w.gateways["gw2"].kill("gateway"), lambda w: w.start_gateway("gw2"), "m1 m2",
      "fact")  # fmt: skip
_part("a mount", _off("m1"), _bring("mount", "m1"), "m2", "taiga")
_part("the other mount", _off("m2"), _bring("mount", "m2"), "m1", "fact")
_part("the link", lambda w: w.turn_link("stall", 9001), lambda w: w.turn_link("go", 9001), "m1 m2", "fact")


@pytest.mark.parametrize("part", PARTS)
def test_work_goes_on_without(world: World, part: str) -> None:
    lose, bring, mounts, site = PARTS[part]
    other = next(name for name in world.sites if name != site)
    common = world.write("taiga", f"common/before {part}", BLOCK + 1)
    world.write("fact", f"common/before {part}", 0, world.files[common])
    for mount in world.mounts:
        listing = f"common/before {part}"
        until(lambda mount=mount, listing=listing: _sources(world, mount, listing) == 2, f"{mount}: one source", 0.5)
    begun = time.monotonic()
    lose(world)
    there = world.write(site, f"raw/without {part}", 60_000)
    world.await_read(there, common, mounts=mounts)
    print(f"without {part}: {time.monotonic() - begun:.1f} s")
    away = world.write(other, f"raw/meanwhile {part}", 50_000)
    begun = time.monotonic()
    bring(world)
    world.await_read(there, common, away)
    print(f"with {part} again: {time.monotonic() - begun:.1f} s")


def _sources(world: World, mount: str, path: str) -> int:
    """Return how many sites hold an entry, as a mount says."""
    try:
        return len(os.getxattr(world.sky(mount) / path, "user.apbatch.sites").replace(b",", b" ").split())
    except FileNotFoundError:
        return 0


def test_at_the_end_every_file_is_there_and_right(world: World) -> None:
    world.await_read(*world.files)
    for site, host in world.sites.items():
        listed = host.run("find", "/srv/site", "-type", "f", "-printf", "%P\\n").stdout.splitlines()
        own = {path.removeprefix(f"/{site}/").removeprefix("/") for path in world.files if f"/{site}/" in path}
        assert own <= set(listed)

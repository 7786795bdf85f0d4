"""Hosts for tests: namespaces of network, processes, files and names, with a clock of their own, on one switch.

A host ends with its first process, and all that runs or is mounted in it with that; the first process ends with the
test that started it, however that ends. Nothing of it can be seen from outside: no link, no mount, no named namespace.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from queue import Queue
from threading import Thread
from urllib.parse import urlsplit

import psutil

from tests.waits import PATIENCE_S, until

COMMAND = str(Path(sys.executable).with_name("apbatch"))
_SWITCH = "lan"
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
#: Preloaded, it moves what programs take for the time of day, which no namespace does. libfaketime 0.9.10 makes
#: Python's sleep fail, unless it moves the monotonic clock as well: then Python's locks wait without end.
_CLOCK = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long ahead(void) { const char *text = getenv("CLOCK_AHEAD_S"); return text ? atol(text) : 0; }
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead();
    return result;
}
int gettimeofday(struct timeval *now, void *zone) {
    int result = syscall(SYS_gettimeofday, now, zone);
    if (!result) now->tv_sec += ahead();
    return result;
}
time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return place ? *place = now.tv_sec : now.tv_sec;
}
"""
#: The first process: makes the host's view of files, and waits for the end. What other hosts have is hidden.
_FIRST = """
set -e
mount --make-rprivate /
mount --bind "$1/$2" /srv
if [ -d "$1/$2.site" ]; then mount --bind "$1/$2.site" /srv/site; mount -o remount,bind,ro /srv/site; fi
mount -t tmpfs none "$1"
mount -t tmpfs none /dev/shm
echo "$2" >/proc/sys/kernel/hostname
ip link set lo up
echo ready
read -r _ || true
"""


def what_is_missing() -> str | None:
    """Return why there can be no hosts here, or None."""
    if os.geteuid() != 0:
        return "only root can lay out hosts in namespaces"
    programs = [name for name in ("ip", "unshare", "nsenter", "gcc") if shutil.which(name) is None]
    if programs:
        return f"{', '.join(programs)} missing: jobs/setup.sh system"
    if not Path("/dev/fuse").exists():
        return "nothing can be mounted here: /dev/fuse is missing"
    done = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "ip", "link", "add", _SWITCH, "type",
                           "bridge"], capture_output=True, text=True, check=False)  # fmt: skip
    return f"no namespaces here: {done.stderr.strip()}" if done.returncode else None


class Host:
    """A host; its folder ``/srv`` is kept when it loses its power.

    Attributes
    ----------
    name, address : str
    offset_s : int
        By how much its clock is ahead.
    folder : pathlib.Path
        Its ``/srv``, as the test sees it.
    site : pathlib.Path
        The folder of its site, which the host itself can only read.
    """

    def __init__(self, network: Network, name: str, number: int, offset_s: int, *, site: bool) -> None:
        self.name, self.offset_s, self._network, self._number = name, offset_s, network, number
        self.address = f"10.77.0.{number}"
        self.folder, self.site = network.folder / name, network.folder / f"{name}.site"
        for folder in ("home", "cache", "tmp", "logs", "site"):
            (self.folder / folder).mkdir(parents=True)
        if site:
            self.site.mkdir()
        self._holder: subprocess.Popen[str] | None = None
        self._first = 0
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        #: Added to the environment of what is started.
        self.environment: dict[str, str] = {}

    def power_on(self) -> None:
        """Start it, and plug it in."""
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc",
             "bash", "-c", _FIRST, "first", str(self._network.folder), self.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        line = self._holder.stdout.readline()
        assert line == "ready\n", line + self._holder.stdout.read()
        self._first = psutil.Process(self._holder.pid).children()[0].pid
        self._network.plug_in(self, self._first)

    def power_off(self) -> None:
        """Take its power away: everything in it is killed at once, and no connection is closed."""
        if self._holder is not None:
            if self._holder.poll() is None:
                os.kill(self._first, signal.SIGKILL)
            self._holder.communicate()
            for process in self._started.values():
                process.communicate()
            self._holder, self._started = None, {}

    def _entering(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self._first), "-n", "-m", "-u", "-i", "-p", "--wdns=/srv", "--", *command]

    def _environment(self) -> dict[str, str]:
        # compiled modules are kept, or each of many programs would compile pandas anew
        own = ("APBATCH_", "PYTHONDONTWRITEBYTECODE")
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(own)}
        clock = {"LD_PRELOAD": str(self._network.clock), "CLOCK_AHEAD_S": str(self.offset_s)}
        return {
            **inherited, "HOME": "/srv", "TMPDIR": "/srv/tmp", "APBATCH_HOME": "/srv/home",
            "APBATCH_CACHE": "/srv/cache", **(clock if self.offset_s else {}), **self.environment,
        }  # fmt: skip

    def run(self, *command: str, check: bool = True, limit_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            self._entering(*command), env=self._environment(), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=limit_s, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{self.name}: {' '.join(command)}: {done.stdout}{done.stderr}"
        return done

    @property
    def root(self) -> Path:
        """Its view of files; only absolute links in it lead elsewhere."""
        return Path(f"/proc/{self._first}/root")

    def get(self, url: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Ask a server from this host, with POST if there is a body; return status and answer."""
        answers: Queue[tuple[int, bytes] | BaseException] = Queue()

        def ask() -> None:
            try:
                with Path(f"/proc/{self._first}/ns/net").open() as namespace:
                    if _LIBC.setns(namespace.fileno(), _CLONE_NEWNET):  # of this thread alone
                        raise OSError(ctypes.get_errno(), "setns")
                parts = urlsplit(url)
                connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
                connection.request("GET" if body is None else "POST", parts.path, body)
                answer = connection.getresponse()
                answers.put((answer.status, answer.read()))
                connection.close()
            except BaseException as error:
                answers.put(error)

        Thread(target=ask, daemon=True).start()
        answer = answers.get(timeout=PATIENCE_S)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def log(self, name: str) -> Path:
        """Return the file with what a started command said."""
        return self.folder / "logs" / name

    def start(self, name: str, *command: str, until_it_says: str = "") -> subprocess.Popen[bytes]:
        """Start a command, under a name, and wait until it has said that it is ready."""
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                self._entering(*command), env=self._environment(), stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        self._started[name] = process

        def ready() -> bool:
            said = self.log(name).read_text(errors="replace")
            assert process.poll() is None, f"{self.name}: {name} ended: {said[-2000:]}"
            return until_it_says in said

        until(ready, f"{self.name}: {name} never said '{until_it_says}'", 0.2)
        return process

    def kill(self, name: str) -> None:
        """Kill a started command, and what it started."""
        process = self._started.pop(name)
        for one in psutil.Process(process.pid).children(recursive=True):
            one.kill()
        process.communicate()


class Network:
    """A switch, and hosts on it.

    Parameters
    ----------
    folder : pathlib.Path
        Where their folders lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: dict[str, Host] = {}
        self._plugs = count(1)
        #: The library that moves clocks, where every host sees it.
        self.clock = folder.with_name(f"{folder.name}-clock.so")
        command = ["gcc", "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", str(self.clock)]
        subprocess.run(command, input=_CLOCK, text=True, check=True)

    def add(self, name: str, offset_s: int = 0, *, site: bool = False) -> Host:
        """Add a host and start it; the first one holds the switch.

        Parameters
        ----------
        name : str
        offset_s : int
            By how much its clock is ahead.
        site : bool
            It holds files that it can only read.
        """
        host = self.hosts[name] = Host(self, name, len(self.hosts) + 1, offset_s, site=site)
        host.power_on()
        return host

    def plug_in(self, host: Host, first: int) -> None:
        """Connect a host, of which the first process is given, with the switch."""
        switch = next(iter(self.hosts.values()))
        plug = f"plug{next(self._plugs)}"
        if host is switch:
            host.run("ip", "link", "add", _SWITCH, "type", "bridge")
            host.run("ip", "link", "set", _SWITCH, "up")
        # the hardware address stays, so that others find a host again that was away
        command = f"ip link add eth0 address 02:00:0a:4d:00:{host.address.split('.')[-1]:0>2} netns {first} type veth"
        subprocess.run([*command.split(), "peer", "name", plug, "netns", str(switch._first)], check=True)
        switch.run("ip", "link", "set", plug, "master", _SWITCH, "up")
        host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """Lay out a network; at the end, whatever happens, nothing of it is left but its folders."""
    one = Network(folder)
    try:
        yield one
    finally:
        for host in reversed(one.hosts.values()):
            host.power_off()
        mounts = Path("/proc/self/mountinfo").read_text()
        assert str(folder) not in mounts, "mounts are left"

"""A real OpenAFS cell: KDC, database and file servers, and a FUSE client, in a private mount and network namespace.

Nothing of the host is touched: configuration folders are bind-mounted inside the namespace, and its only network is
its own loopback, so that no packet can leave and two cells can run side by side. Other processes reach the mount
through ``/proc/PID/root`` of the process that keeps the namespace.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import psutil

from apbatch.cluster.process import Daemon
from apbatch.cluster.server import ProcessStatus, Server, memory_mb, publish, withdraw
from apbatch.errors import MissingSoftwareError, ServerError

PACKAGES = (
    "openafs-fileserver", "openafs-dbserver", "openafs-client", "openafs-fuse", "openafs-krb5",
    "krb5-kdc", "krb5-admin-server", "krb5-user", "iproute2", "util-linux",
)  # fmt: skip
_PROGRAMS = ("bosserver", "afsd.fuse", "vos", "pts", "bos", "krb5kdc", "kdb5_util", "kadmin.local", "akeyconvert", "ip")
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_ADDRESS = "10.99.0.1"
_CELL = "apbatch.test"
_REALM = "APBATCH.TEST"
_VOLUME = "ap.data"
_LIMIT_S = 60.0
#: Every process inside carries the cell's folder in this variable.
_MARK = "APBATCH_CELL"
_ANSWERS = f"""krb5-config krb5-config/default_realm string {_REALM}
krb5-config krb5-config/kerberos_servers string {_ADDRESS}
krb5-config krb5-config/admin_server string {_ADDRESS}
openafs-client openafs-client/thiscell string {_CELL}
openafs-client openafs-client/cachesize string 100000
openafs-client openafs-client/run-client boolean false
openafs-fileserver openafs-fileserver/thiscell string {_CELL}
"""


def missing_programs() -> list[str]:
    """Return the programs of a cell that are not installed."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]


def install_answers() -> None:
    """Answer the questions of Debian's packages before they are installed."""
    subprocess.run(["debconf-set-selections"], input=_ANSWERS, text=True, check=False)


class Afs(Server):
    """One cell with one file server and one client."""

    name: ClassVar[str] = "afs"

    def daemons(self) -> list[Daemon]:
        """Return the keeper of the namespace, with which all the cell's processes end."""
        command = ["unshare", "-m", "-n", "--propagation", "private", "sleep", "infinity"]
        return [Daemon("keeper", command, self.folder)]

    def prepare(self) -> None:
        """Check programs and rights; the cell itself is made inside the namespace.

        Raises
        ------
        ServerError
            If this is not root.
        MissingSoftwareError
            With the command that installs what is missing.
        """
        if os.geteuid() != 0:
            raise ServerError("only root can start an OpenAFS cell (namespaces, FUSE mount)", remedy="run as root")
        missing = missing_programs()
        if missing:
            packages = " ".join(PACKAGES)
            raise MissingSoftwareError(
                f"OpenAFS is not installed (no {', '.join(missing)})",
                remedy=f"apt-get install --no-install-recommends {packages}, or apbatch doctor --install --for test",
            )
        if not Path("/dev/fuse").exists():
            raise ServerError("there is no /dev/fuse", remedy="modprobe fuse")
        if not self._whole.exists():  # an `up` that was killed left keys without volumes: such a cell never comes up
            for name in ("etc", "lib", "log", "partition", "krb", "cache"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in ("etc/server", "lib/db", "lib/local", "log", "partition", "krb", "cache", "mount"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for folder in ("/vicepa", "/var/log/openafs", "/var/lib/openafs", "/etc/openafs"):
            Path(folder).mkdir(parents=True, exist_ok=True)  # empty places to mount on
        for name in ("lib/db", "lib/local"):
            (self.folder / name).chmod(0o700)

    @property
    def _whole(self) -> Path:
        """The file that tells that the cell was once built to its end."""
        return self.folder / "whole"

    def start(self) -> None:
        """Start the keeper; what a killed `up` or a killed keeper left is taken down first."""
        if self.unhealthy() is not None:
            self.down()
        super().start()

    def finish_start(self) -> None:
        """Build the cell, or start it again over its old data."""
        if self.unhealthy() is not None:
            try:
                self._build()
            except BaseException:
                self.down()
                raise
        # one stable path, whatever the keeper's pid: replicas are recorded under it
        link = self.folder / "data.new"
        link.unlink(missing_ok=True)
        link.symlink_to(self._data())
        link.replace(self.folder / "data")
        publish(self.addresses())

    def unhealthy(self) -> str | None:
        """The mounted volume must list within its time limit."""
        if not self.running():
            return "the cell does not run"
        try:
            done = subprocess.run(["ls", str(self._data())], capture_output=True, timeout=15, check=False)
        except subprocess.TimeoutExpired:
            return "the mount does not answer"
        return None if done.returncode == 0 else "the volume is not mounted"

    def _data(self) -> Path:
        process = self.daemons()[0].process()
        pid = process.pid if process else 0
        return Path(f"/proc/{pid}/root{self.folder}/mount/.:mount/{_CELL}:{_VOLUME}")

    def addresses(self) -> dict[str, str]:
        """Return the path of the mounted volume, as seen from outside the namespace."""
        return {"afs": f"afs://{self.folder}/data"}

    def down(self) -> None:
        """Unmount, shut the servers down in order, end the namespace."""
        withdraw({"afs": ""})
        if self.running():
            self._inside(["umount", str(self.folder / "mount")], check=False)
            self._inside(["bos", "shutdown", _ADDRESS, "-wait", "-localauth"], check=False)
        inside = self._processes()
        for process in inside:
            with suppress(psutil.NoSuchProcess):  # the overseer ends the servers under it by itself
                process.terminate()
        _, stubborn = psutil.wait_procs(inside, 10)
        for process in stubborn:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        super().down()

    def _processes(self) -> list[psutil.Process]:
        """Return the processes that were started inside; they outlive a keeper that is killed."""
        processes = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == str(self.folder):
                    processes.append(process)
            except (OSError, psutil.Error):
                continue
        return processes

    def _keeper(self) -> psutil.Process:
        """Return the keeper, once it is in namespaces of its own.

        Until then its namespaces are the host's: a command run "inside" would change the host's mounts and network,
        and the processes "inside" would be everybody's.

        Raises
        ------
        ServerError
            If it does not run, or does not get there.
        """
        deadline = time.monotonic() + _LIMIT_S
        while (keeper := self.daemons()[0].process()) is not None:
            # unshare makes the mounts private before it turns into sleep
            if keeper.name() == "sleep" and all(
                Path(f"/proc/{keeper.pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()
                for kind in ("mnt", "net")
            ):
                return keeper
            if time.monotonic() > deadline:
                raise ServerError("the cell got no namespaces", where=str(self.daemons()[0].log))
            time.sleep(0.02)
        raise ServerError(
            f"the cell's namespaces have ended: {self.daemons()[0].last_lines()}", where=str(self.daemons()[0].log)
        )

    def status(self) -> list[ProcessStatus]:
        """Return the keeper and the processes in its namespace."""
        (row,) = super().status()
        if row.pid is None:
            return [row]
        inside = [
            replace(row, process=name, pid=process.pid, memory_mb=memory_mb(process), log=f"{self.folder}/log")
            for process in self._processes()
            if (name := _name(process))
        ]
        return [row, *inside]

    def _inside(self, command: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        keeper = self._keeper()
        krb = self.folder / "krb"
        environment = {
            **os.environ,
            "PATH": _PATH,
            "KRB5_CONFIG": str(krb / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(krb / "kdc.conf"),
            "KRB5CCNAME": str(krb / "cc"),
            _MARK: str(self.folder),
        }
        whole = ["nsenter", "-m", "-n", "-t", str(keeper.pid), *command]
        output = self.folder / "command.out"
        # a file, not a pipe: daemons that a command leaves behind would hold a pipe open
        with output.open("w+") as out:
            try:
                status = subprocess.run(
                    whole,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd="/",
                    timeout=120,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                status = 124
            out.seek(0)
            text = out.read()
        if check and status:
            raise ServerError(
                f"{' '.join(command[:3])} failed (status {status}): {text[-600:]}", where=str(self.folder)
            )
        return subprocess.CompletedProcess(whole, status, text, "")

    def _until(self, command: Sequence[str]) -> None:
        deadline = time.monotonic() + _LIMIT_S
        while (done := self._inside(command, check=False)).returncode:
            if time.monotonic() > deadline:
                raise ServerError(f"{' '.join(command[:3])} failed for {_LIMIT_S:.0f} s: {done.stdout[-400:]}")
            time.sleep(0.2)

    def _build(self) -> None:
        fresh = not (self.folder / "krb" / "principal").exists()
        self._mount_folders()
        self._write_identity()
        if fresh:
            self._make_keys()
        self._inside(["krb5kdc", "-P", str(self.folder / "krb" / "kdc.pid")])
        self._start_servers(fresh)
        if fresh:
            self._make_volumes()
        self._mount_client()
        self._whole.touch()

    def _mount_folders(self) -> None:
        here = self.folder
        self._inside(["ip", "link", "set", "lo", "up"])
        self._inside(["ip", "addr", "add", f"{_ADDRESS}/24", "dev", "lo"])
        (here / "hosts").write_text(f"{_ADDRESS} afs afs.{_CELL}\n{Path('/etc/hosts').read_text()}")
        for source, target in (
            ("etc", "/etc/openafs"),
            ("lib", "/var/lib/openafs"),
            ("log", "/var/log/openafs"),
            ("partition", "/vicepa"),
            ("hosts", "/etc/hosts"),
        ):
            self._inside(["mount", "--bind", str(here / source), target])

    def _write_identity(self) -> None:
        etc = self.folder / "etc"
        for folder in (etc, etc / "server"):
            (folder / "ThisCell").write_text(f"{_CELL}\n")
            (folder / "CellServDB").write_text(f">{_CELL} #test\n{_ADDRESS} #afs.{_CELL}\n")
        (etc / "server" / "krb.conf").write_text(f"{_REALM}\n")
        (etc / "server" / "UserList").write_text("admin\n")
        for file in (etc / "server" / "NetInfo", self.folder / "lib" / "local" / "NetInfo"):
            file.write_text(f"{_ADDRESS}\n")
        (etc / "cacheinfo").write_text(f"/afs:{self.folder}/cache:100000\n")
        (self.folder / "partition" / "AlwaysAttach").touch()  # else a plain folder is no partition
        # database servers only: the file server must not start before they answer
        bnodes = "".join(
            f"bnode simple {name} 1\nparm /usr/lib/openafs/{name} -rxbind\nend\n" for name in ("ptserver", "vlserver")
        )
        boring = "restrictmode 0\nrestarttime 16 0 0 0 0\ncheckbintime 16 0 0 0 0\n"
        (etc / "BosConfig").write_text(boring + bnodes)
        krb = self.folder / "krb"
        (krb / "krb5.conf").write_text(
            f"[libdefaults]\n default_realm = {_REALM}\n dns_lookup_kdc = false\n dns_lookup_realm = false\n"
            f" rdns = false\n dns_canonicalize_hostname = false\n"
            f"[realms]\n {_REALM} = {{\n  kdc = {_ADDRESS}:8888\n }}\n"
            f"[domain_realm]\n {_CELL} = {_REALM}\n"
        )
        (krb / "kdc.conf").write_text(
            f"[kdcdefaults]\n kdc_listen = {_ADDRESS}:8888\n kdc_tcp_listen = {_ADDRESS}:8888\n"
            f"[realms]\n {_REALM} = {{\n  database_name = {krb}/principal\n  key_stash_file = {krb}/stash\n"
            f"  supported_enctypes = aes256-cts-hmac-sha1-96:normal\n }}\n[logging]\n kdc = FILE:{krb}/kdc.log\n"
        )

    def _make_keys(self) -> None:
        # The KDC's master password is random: it protects keys of a cell that nobody outside can reach.
        self._inside(["kdb5_util", "create", "-s", "-P", os.urandom(16).hex(), "-r", _REALM])
        keytab = "/etc/openafs/server/rxkad.keytab"
        for request in (f"addprinc -randkey afs/{_CELL}", f"ktadd -norandkey -k {keytab} afs/{_CELL}"):
            self._inside(["kadmin.local", "-q", request])
        self._inside(["akeyconvert", "-all"])

    def _start_servers(self, fresh: bool) -> None:
        self._inside(["bosserver", "-rxbind", f"-pidfiles={self.folder}"])
        if fresh:  # some seconds: the database servers elect themselves, then take writes
            self._until(["pts", "createuser", "-name", "admin", "-id", "1", "-localauth"])
            self._inside(["pts", "adduser", "-user", "admin", "-group", "system:administrators", "-localauth"])
        self._until(["vos", "listvldb", "-localauth"])
        programs = ["dafileserver -rxbind", "davolserver -rxbind", "salvageserver", "dasalvager"]
        commands = [f"/usr/lib/openafs/{program}" for program in programs]
        self._until(["bos", "create", _ADDRESS, "dafs", "dafs", "-cmd", *commands, "-localauth"])
        self._until(["vos", "partinfo", _ADDRESS, "a", "-localauth"])

    def _make_volumes(self) -> None:
        for volume in ("root.afs", "root.cell", _VOLUME):
            self._until(["vos", "create", _ADDRESS, "a", volume, "-maxquota", "0", "-localauth"])
        for volume in ("root.cell", _VOLUME):
            self.open_to_everybody(volume)

    def open_to_everybody(self, volume: str) -> None:
        """Give system:anyuser all rights on the root of a volume.

        The FUSE client can't set access lists, so the volume is dumped, the list in its root folder replaced (a
        struct of big-endian integers: size, version, total, positives, negatives, then pairs of id and rights), and
        the dump restored over it.
        """
        dump = self.folder / f"{volume}.dump"
        self._inside(["vos", "dump", "-id", volume, "-file", str(dump), "-localauth"])
        administrators, anyuser, everything = -204, -101, 127
        old = struct.pack(">7i", 28, 1, 1, 1, 0, administrators, everything) + bytes(8)
        new = struct.pack(">9i", 36, 1, 2, 2, 0, administrators, everything, anyuser, everything)
        content = dump.read_bytes()
        if content.count(old) != 1:
            raise ServerError(f"the access list of volume {volume} is not where it was expected", where=str(dump))
        dump.write_bytes(content.replace(old, new))
        restore = ["vos", "restore", _ADDRESS, "a", volume, "-file", str(dump), "-overwrite", "full", "-localauth"]
        self._inside(restore)
        dump.unlink()

    def _mount_client(self) -> None:
        here = self.folder
        command = ["afsd.fuse", "-dynroot-sparse", "-fakestat", "-cachedir", f"{here}/cache", "-blocks", "100000"]
        command += ["-chunksize", "20", "-mountdir", f"{here}/mount", "-confdir", "/etc/openafs"]
        self._inside(command)
        self._until(["ls", f"{here}/mount/.:mount/{_CELL}:{_VOLUME}"])


def _name(process: psutil.Process) -> str | None:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return None

"""A PostgreSQL server from Debian's package, without root and without passwords, on loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from apbatch.cluster.process import Daemon
from apbatch.cluster.server import Server, replace_text
from apbatch.errors import MissingSoftwareError, ServerError

#: The role that catalogues use: it may create databases, but not run programs, as a superuser may.
ROLE = "apbatch"
_ACCOUNTS = ("postgres", "nobody")
_ORPHANS_WAIT_S = 60.0
#: The first message of a client (protocol 3.0), which a server that takes it answers with R, and the last one.
_NAMES = f"user\0{ROLE}\0database\0postgres\0\0".encode()
_STARTUP = struct.pack("!II", 8 + len(_NAMES), 3 << 16) + _NAMES
_TERMINATE = b"X\0\0\0\4"
_RULES = f"host all {ROLE} 127.0.0.1/32 trust\n"
_SETTINGS = """listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
shared_buffers = 128MB
random_page_cost = 1.1
log_timezone = UTC
timezone = UTC
"""


def programs() -> Path:
    """Return the folder of PostgreSQL's programs, of the newest version that is installed.

    Raises
    ------
    MissingSoftwareError
        If there are none.
    """
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    if (program := shutil.which("postgres")) is not None:
        return Path(program).resolve().parent
    raise MissingSoftwareError("PostgreSQL is not installed", remedy="as root: apt-get install postgresql")


class Postgres(Server):
    """One server; if you are root, it runs under the account ``postgres`` or ``nobody``."""

    name: ClassVar[str] = "postgres"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        """Make the database cluster on first use, and write its settings."""
        folder = programs()
        account = _account()
        if not (self._data / "PG_VERSION").exists():
            shutil.rmtree(self._data, ignore_errors=True)  # of an initdb that was killed
            part = self.folder / "data.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(mode=0o700, parents=True)
            if account is not None:
                os.chown(part, account.pw_uid, account.pw_gid)
                _require_way(self.folder, account)
            self._run([str(folder / "initdb"), "-D", str(part), "-U", "postgres", "-E", "UTF8", "--locale=C", "-k"])
            create = f"CREATE ROLE {ROLE} LOGIN CREATEDB;\n"
            self._run([str(folder / "postgres"), "--single", "-j", "-D", str(part), "postgres"], create)
            part.rename(self._data)
        self._await_orphans()
        replace_text(self._data / "pg_hba.conf", _RULES)
        replace_text(self._data / "postgresql.auto.conf", _SETTINGS + f"port = {self.port(35)}\n")

    def _await_orphans(self) -> None:
        """Wait for processes that outlived a server's main one: beside them the next server refuses to start."""
        try:
            segment = (self._data / "postmaster.pid").read_text().splitlines()[6].split()[1]  # "key id"
        except (OSError, IndexError):
            return
        deadline = time.monotonic() + _ORPHANS_WAIT_S
        while _attached(segment):
            if time.monotonic() > deadline:
                raise ServerError(
                    "processes of a PostgreSQL server that was killed still run",
                    where=str(self._data),
                    remedy="end them: they are in the way of the next one",
                )
            time.sleep(0.05)

    def _run(self, command: Sequence[str], text: str = "") -> None:
        done = subprocess.run(
            _as_account(command), input=text, capture_output=True, text=True, check=False, cwd=self.folder
        )
        if done.returncode:
            raise ServerError(
                f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-500:]}", where=str(self.folder)
            )

    def daemons(self) -> list[Daemon]:
        """Return the server."""
        try:
            program = programs() / "postgres"
        except MissingSoftwareError:
            program = Path("postgres")
        command = _as_account([str(program), "-D", str(self._data)])
        return [Daemon("postgres", command, self.folder, ports=[self.port(35)], end=signal.SIGINT)]

    def unhealthy(self) -> str | None:
        """The server must let the role in, which it does once it has recovered what a killed one left."""
        try:
            with socket.create_connection(("127.0.0.1", self.port(35)), timeout=2) as connection:
                connection.sendall(_STARTUP)
                answer = connection.recv(1)
                connection.sendall(_TERMINATE)
        except OSError as error:
            return f"no PostgreSQL on port {self.port(35)} ({error})"
        return None if answer == b"R" else "the server takes no connections yet"

    def addresses(self) -> dict[str, str]:
        """Return the server's address; a catalogue's URL adds the name of its database."""
        return {"postgres": f"postgresql://{ROLE}@127.0.0.1:{self.port(35)}"}


def _attached(segment: str) -> bool:
    """Tell whether a process holds a segment of shared memory (System V)."""
    try:
        rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()]
    except OSError:
        return False
    column = {name: number for number, name in enumerate(rows[0])}
    return any(row[column["shmid"]] == segment and row[column["nattch"]] != "0" for row in rows[1:])


def _account() -> pwd.struct_passwd | None:
    """Return the account that the server runs under, or None for one's own: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServerError("PostgreSQL does not run as root", remedy="as root: adduser --system postgres")


def _as_account(command: Sequence[str]) -> list[str]:
    account = _account()
    if account is None:
        return list(command)
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", *command]


def _require_way(folder: Path, account: pwd.struct_passwd) -> None:
    """Refuse a folder that the account can't reach."""
    for parent in (folder, *folder.parents):
        status = parent.stat()
        if not (status.st_mode & 0o001 or (status.st_uid == account.pw_uid and status.st_mode & 0o100)):
            raise ServerError(
                f"the account '{account.pw_name}', under which PostgreSQL runs, can't pass this folder",
                where=str(parent),
                remedy=f"chmod o+x {parent}, or choose another APBATCH_HOME, or be another user than root",
            )

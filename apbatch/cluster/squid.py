"""A chain of two HTTP caches (Squid, Debian's package), as sites put them before a wide network: stock configuration.

Only addresses, folders and the next cache are set; what is cached, and up to which size, is Squid's own choice.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar

from apbatch.cluster.process import Daemon
from apbatch.cluster.server import Server, replace_text
from apbatch.errors import MissingSoftwareError, ServerError

_NEAR, _FAR = 24, 25
_ACCOUNT = "proxy"
_SETTINGS = """http_port 127.0.0.1:{port}
pid_filename {folder}/squid.pid
cache_dir ufs {folder}/spool 100 16 256
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
netdb_filename none
coredump_dir {folder}
visible_hostname {name}
unique_hostname {name}
pinger_enable off
shutdown_lifetime 1 seconds
acl here src 127.0.0.0/8
http_access allow here
http_access deny all
"""
_NEXT = "cache_peer 127.0.0.1 parent {port} 0 no-query no-digest default\nnever_direct allow all\n"


class Squid(Server):
    """Two caches: clients ask the near one, which asks the far one, which asks the origin."""

    name: ClassVar[str] = "squid"

    def prepare(self) -> None:
        """Write the configurations, and make the spools on first use."""
        program = _program()
        for name, offset in (("far", _FAR), ("near", _NEAR)):
            folder = self.folder / name
            folder.mkdir(parents=True, exist_ok=True)
            settings = _SETTINGS.format(port=self.port(offset), folder=folder, name=f"{name}.localhost")
            if name == "near":
                settings += _NEXT.format(port=self.port(_FAR))
            replace_text(folder / "squid.conf", settings)
            (folder / "squid.pid").unlink(missing_ok=True)  # of one that was killed
            if os.geteuid() == 0:  # Squid gives up root for this account
                account = pwd.getpwnam(_ACCOUNT)
                os.chown(folder, account.pw_uid, account.pw_gid)
            if not (folder / "spool" / "00").exists():
                command = [program, "-N", "-z", "-f", str(folder / "squid.conf")]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise ServerError(f"squid -z failed: {done.stderr.strip()[-500:]}", where=str(folder))

    def daemons(self) -> list[Daemon]:
        """Return the caches."""
        try:
            program = _program()
        except MissingSoftwareError:
            program = "squid"
        return [
            Daemon(
                f"squid-{name}",
                [program, "-N", "-f", str(self.folder / name / "squid.conf")],
                self.folder,
                ports=[self.port(offset)],
                end=signal.SIGTERM,
            )
            for name, offset in (("far", _FAR), ("near", _NEAR))
        ]

    def unhealthy(self) -> str | None:
        """The near one must forward to the far one, which it does not yet do when it first takes connections."""
        port = self.port(_NEAR)
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "http://127.0.0.1:1/")  # where nobody listens: the far one says so
            way = connection.getresponse().getheader("Via") or ""
        except (OSError, HTTPException) as error:
            return f"no Squid on port {port} ({error})"
        finally:
            connection.close()
        return None if "far.localhost" in way else f"the Squid on port {port} does not reach the other yet"

    def addresses(self) -> dict[str, str]:
        """Return the address of the near cache, as ``http_proxy`` takes it."""
        return {"squid": f"http://127.0.0.1:{self.port(_NEAR)}"}


def _program() -> str:
    usual = Path("/usr/sbin/squid")
    program = shutil.which("squid") or (str(usual) if usual.exists() else None)
    if program is None:
        raise MissingSoftwareError("Squid is not installed", remedy="as root: apt-get install squid")
    return program

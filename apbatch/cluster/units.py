"""Units of systemd for what runs all the time or now and then: services, and timers for work (``systemd.unit(5)``).

Secrets stay in files that the account alone can read; a unit names them, so that a running service follows when one is
rotated or revoked (a credential of systemd would be a copy from its start). A service sees the file system read-only
but for its state and cache, has no rights beyond its account's, and is told to end by SIGTERM, at which it finishes
what is under way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from apbatch.errors import UsageError, nearest_word

#: Longer than a server takes to drain, s.
_STOP_S = 45
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HARDENING = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077
"""


@dataclass(frozen=True)
class Place:
    """Where a service runs.

    Attributes
    ----------
    program : str
        Absolute path of ``apbatch``.
    user : str
        Account.
    folder : str
        Settings, rules and secrets: ``apbatch.yaml``, ``replicas.yaml``, ``secrets``, ``agent-token``.
    site : str
        For an agent and for ``watch``.
    agents : sequence of str
        For a gateway: ``SITE=URL``.
    """

    program: str
    user: str = "apbatch"
    folder: str = "/etc/apbatch"
    site: str = ""
    agents: Sequence[str] = ()


@dataclass(frozen=True)
class _Kind:
    """What a unit does.

    Attributes
    ----------
    about : str
    command : callable
        Words after ``apbatch``, from the place.
    secrets : mapping
        File in the folder with something secret, by the variable that names it to the program.
    schedule : str, optional
        ``OnCalendar=`` of its timer; without one it runs all the time.
    tells : bool
        Whether it says itself when it is ready.
    """

    about: str
    command: Callable[[Place], list[str]]
    secrets: Mapping[str, str] = field(default_factory=dict)
    schedule: str | None = None
    tells: bool = False


_SECRETS = {"APBATCH_SITE_SECRET_FILE": "secrets"}
KINDS: dict[str, _Kind] = {
    "serve": _Kind("catalogue for people and programs", lambda place: ["serve", "--auth"], tells=True),
    "agent": _Kind(
        "agent of site {site}", lambda place: ["serve", "--site", place.site, "--port", "8766"], _SECRETS, tells=True
    ),
    "gateway": _Kind(
        "gateway over agents",
        lambda place: ["gateway", "--port", "8767", *(word for one in place.agents for word in ("--agent", one))],
        {**_SECRETS, "APBATCH_AGENT_TOKEN_FILE": "agent-token"},
        tells=True,
    ),
    "watch": _Kind("changes at site {site}", lambda place: ["ingest", place.site, "--watch"]),
    "mirror": _Kind(
        "replicas as rules want them",
        lambda place: ["mirror", "--rules", f"{place.folder}/replicas.yaml", "--prune"],
        schedule="hourly",
    ),
    "verify": _Kind(
        "verification of replicas",
        lambda place: ["verify", "", "--older-than", "30", "--rate", "50"],
        schedule="daily",
    ),
}


def units(names: Sequence[str], place: Place) -> dict[str, str]:
    """Return units by file name.

    Parameters
    ----------
    names : sequence of str
        Of `KINDS`.
    place : Place

    Raises
    ------
    UsageError
        If a name is unknown, or a site or agents are missing.
    """
    written: dict[str, str] = {}
    for name in names:
        kind = KINDS.get(name)
        if kind is None:
            raise UsageError(
                f"unknown service '{name}'", nearest=nearest_word(name, KINDS), remedy=f"there are {', '.join(KINDS)}"
            )
        if "{site}" in kind.about and not _NAME.fullmatch(place.site):
            raise UsageError(f"'{name}' needs the name of a site", remedy="--site NAME")
        if name == "gateway" and not place.agents:
            raise UsageError("a gateway needs agents", remedy="--agent SITE=http://HOST:PORT")
        unit = f"apbatch-{name}" + (f"-{place.site}" if "{site}" in kind.about else "")
        about = kind.about.format(site=place.site)
        written[f"{unit}.service"] = _service(kind, about, place)
        if kind.schedule is not None:
            written[f"{unit}.timer"] = _timer(kind.schedule, about)
    return written


def _service(kind: _Kind, about: str, place: Place) -> str:
    command = " ".join(map(_quoted, [place.program, "--config", f"{place.folder}/apbatch.yaml", *kind.command(place)]))
    secrets = "".join(
        f"Environment={_quoted(f'{variable}={place.folder}/{file}')}\n" for variable, file in kind.secrets.items()
    )
    if kind.schedule is not None:
        running = "Type=oneshot\n"
    else:
        running = f"Type={'notify' if kind.tells else 'exec'}\nRestart=on-failure\nRestartSec=5\n"
    install = "" if kind.schedule is not None else "\n[Install]\nWantedBy=multi-user.target\n"
    return (
        f"[Unit]\nDescription=apbatch: {about}\n"
        "Wants=network-online.target\nAfter=network-online.target\n\n"
        f"[Service]\n{running}User={place.user}\nExecStart={command}\n"
        f"KillSignal=SIGTERM\nTimeoutStopSec={_STOP_S}\n"
        "StateDirectory=apbatch\nCacheDirectory=apbatch\n"
        "Environment=APBATCH_HOME=/var/lib/apbatch\nEnvironment=APBATCH_CACHE=/var/cache/apbatch\n"
        f"{secrets}{_HARDENING}{install}"
    )


def _timer(schedule: str, about: str) -> str:
    return (
        f"[Unit]\nDescription=apbatch: {about}, {schedule}\n\n"
        f"[Timer]\nOnCalendar={schedule}\nRandomizedDelaySec=10min\nPersistent=yes\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


def _quoted(word: str) -> str:
    """Return a word of a command line as systemd reads it back."""
    if any(ord(char) < 32 for char in word):
        raise UsageError("a control character can't be in a unit", where=ascii(word))
    plain = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return plain if re.fullmatch(r"[A-Za-z0-9_@%+=:,./~-]+", plain) else f'"{plain}"'

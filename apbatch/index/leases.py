"""Leases: what one host at a time may do, such as the ingest of a site."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from apbatch.errors import UsageError

#: A holder that was not heard of for so long is taken for dead, seconds.
TTL_S = 60.0


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that is held.

    Attributes
    ----------
    name : str
        What it is for, such as ``ingest taiga-raw``.
    holder : str
        Who holds it, for people: host and process.
    token : int
        Grows with each acquisition; whoever writes outside the catalogue can refuse older tokens.
    ttl_s : float
        It ends so many seconds after the last renewal, by the clock of the catalogue's server.
    """

    name: str
    holder: str
    token: int
    ttl_s: float


class LeaseHeldError(UsageError):
    """Another host or process holds the lease.

    Attributes
    ----------
    lease : Lease
        As it is held; how long it is good for is its holder's affair.
    """

    lease: Lease


class LeaseLostError(UsageError):
    """The lease ended and somebody else may hold it: stop at once."""


def held_by(name: str, holder: str, token: int) -> LeaseHeldError:
    """Return the error that names who holds a lease.

    Parameters
    ----------
    name : str
        Of the lease.
    holder : str
        As `this_process` says it.
    token : int
        Number of the lease.
    """
    error = LeaseHeldError(f"'{name}' is being done by {holder}", remedy="wait for its end")
    error.lease = Lease(name, holder, token, 0.0)
    return error


def lost(lease: Lease) -> LeaseLostError:
    """Return the error for a holder that was silent for too long."""
    return LeaseLostError(
        f"the lease '{lease.name}' ended: nothing was heard for {lease.ttl_s:g} s", remedy="start again"
    )


def this_process() -> str:
    """Return host and process, for people, and what tells the process from any other of its number."""
    return f"{platform.node() or 'a host'}, process {os.getpid()} [{_birth(os.getpid())} {_world()}]"


def is_dead(holder: str) -> bool:
    """Tell whether a holder, as `this_process` names it, is a process of this very system that has ended."""
    match = _HOLDER.search(holder)
    return match is not None and match["world"] == _world() and _birth(int(match["process"])) != match["birth"]


_HOLDER = re.compile(r", process (?P<process>\d+) \[(?P<birth>\d+) (?P<world>[0-9a-f-]+)\]\Z")


@cache
def _world() -> str:
    """Return what names this start of this system, and the set of process numbers that is seen from here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return "0"


def _birth(process: int) -> str:
    """Return when a process was started, in the system's own count; ``gone`` if it has ended."""
    try:
        state, *rest = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return "gone"
    return "gone" if state in "ZX" else rest[18]


class LeaseStore(Protocol):
    """Where leases are kept: a catalogue."""

    def acquire(self, name: str, holder: str, ttl_s: float) -> Lease:
        """Take a lease, or raise `LeaseHeldError`; see `Catalogue.acquire`."""

    def renew(self, lease: Lease) -> None:
        """Begin its time anew, or raise `LeaseLostError`."""

    def release(self, lease: Lease) -> None:
        """Give it back."""


class Keeper:
    """Renews a lease when a third of its time is over; call `keep` between pieces of work."""

    def __init__(self, catalogue: LeaseStore, lease: Lease) -> None:
        self.lease = lease
        self._catalogue = catalogue
        self._renewed = time.monotonic()

    def keep(self) -> None:
        """Renew if it is time.

        Raises
        ------
        LeaseLostError
            If somebody else holds it meanwhile.
        """
        if time.monotonic() - self._renewed > self.lease.ttl_s / 3:
            self._catalogue.renew(self.lease)
            self._renewed = time.monotonic()


@contextmanager
def leased(catalogue: LeaseStore, name: str, ttl_s: float = TTL_S) -> Iterator[Keeper]:
    """Hold a lease for a block of work; one whose holder was a process of this system, now ended, is taken over.

    Parameters
    ----------
    catalogue : LeaseStore
    name : str
        Of what is done under the lease.
    ttl_s : float
        Seconds after which a silent holder loses it.

    Raises
    ------
    LeaseHeldError
        If another holds it; the message says who.
    """
    try:
        lease = catalogue.acquire(name, this_process(), ttl_s)
    except LeaseHeldError as error:
        if not is_dead(error.lease.holder):
            raise
        catalogue.release(error.lease)
        lease = catalogue.acquire(name, this_process(), ttl_s)
    try:
        yield Keeper(catalogue, lease)
    finally:
        catalogue.release(lease)

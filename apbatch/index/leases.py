"""Leases: what one host at a time may do, such as the ingest of a site."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    """Another host or process holds the lease."""


class LeaseLostError(UsageError):
    """The lease ended and somebody else may hold it: stop at once."""


def held_by(name: str, holder: str) -> LeaseHeldError:
    """Return the error that names who holds a lease."""
    return LeaseHeldError(f"'{name}' is being done by {holder}", remedy="wait for its end")


def lost(lease: Lease) -> LeaseLostError:
    """Return the error for a holder that was silent for too long."""
    return LeaseLostError(
        f"the lease '{lease.name}' ended: nothing was heard for {lease.ttl_s:g} s", remedy="start again"
    )


def this_process() -> str:
    """Return host and process, for people."""
    return f"{platform.node() or 'a host'}, process {os.getpid()}"


class LeaseStore(Protocol):
    """Where leases are kept: a catalogue."""

    def acquire(self, name: str, holder: str, ttl_s: float) -> Lease:
        """Take a lease, or raise `LeaseHeldError`."""

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
    """Hold a lease for a block of work.

    Raises
    ------
    LeaseHeldError
        If another holds it; the message says who.
    """
    lease = catalogue.acquire(name, this_process(), ttl_s)
    try:
        yield Keeper(catalogue, lease)
    finally:
        catalogue.release(lease)

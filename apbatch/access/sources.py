"""Where the bytes of an entry are: its holdings at their sites, then replicas in stores; and which to leave alone.

A source that fails is passed over for a while, which doubles each time it fails again, and is then tried anew.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apbatch.config import home
from apbatch.errors import FileUnavailableError, NotFoundError
from apbatch.index.files import FileRecord, Replica, State
from apbatch.ingest.opening import ingest_remedy, open_source, site_of
from apbatch.ingest.remote.client import Agent, AgentRanges, agent_at
from apbatch.ingest.walk import time_of_change
from apbatch.storage.backends import split_url, store_of
from apbatch.storage.store import Ranges
from apbatch.storage.transfer import SourceChangedError

#: A source that failed is left alone for so long, the first time and at most.
FIRST_REST_S, LONGEST_REST_S = 2.0, 60.0
#: A site that is not known here is looked for again after so long.
_UNKNOWN_S = 10.0
_unknown_until: dict[tuple[Path, str], float] = {}


@dataclass(frozen=True, slots=True)
class Source:
    """One place that should have the bytes.

    Attributes
    ----------
    service : str
        What fails as a whole: ``site NAME``, or the root of a store.
    where : str
        For messages: the site and its path, or the URL.
    open : callable
        Opens the file; `Ranges.read` checks that it is still the one that was registered, as far as its place tells.
    """

    service: str
    where: str
    open: Callable[[], Ranges]


#: Gives the source of a holding, or None if it is none of its sites.
Opener = Callable[[FileRecord], Source | None]


class SiteRanges(Ranges):
    """A file in place at its site, as it was registered or listed; other size or time are an error."""

    def __init__(self, record: FileRecord) -> None:
        self._record, self._file = record, open_source(record)
        self.size = record.size
        try:
            self._compare()
        except BaseException:
            self._file.close()
            raise

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range.

        Raises
        ------
        SourceChangedError
            If the file is no longer the one that was registered.
        FileUnavailableError
            If the disk fails; one that hangs is noticed by who waits for it.
        """
        try:
            data = os.pread(self._file.fileno(), max(0, min(length, self.size - offset)), offset)
            self._compare()
        except OSError as error:
            raise FileUnavailableError(f"can't be read: {error.strerror}", where=_at_site(self._record)) from error
        return data

    def _compare(self) -> None:
        status = os.fstat(self._file.fileno())
        if (status.st_size, time_of_change(status)) != (self._record.size, self._record.mtime_ns):
            raise SourceChangedError(
                f"the file changed at its site since it was {self._record.state}",
                where=_at_site(self._record),
                remedy=ingest_remedy(self._record),
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def at_site(record: FileRecord) -> Source | None:
    """Return the source of a holding at its site, a folder or an agent; None if that site is not known here."""
    key = home(), record.site
    if time.monotonic() < _unknown_until.get(key, 0.0):
        return None
    try:
        site = site_of(record)
    except NotFoundError:  # the catalogue, too, was asked for it, which takes a while
        _unknown_until[key] = time.monotonic() + _UNKNOWN_S
        return None
    if site.is_remote:
        return _at_agent(agent_at(site.root), record)
    return Source(f"site {record.site}", _at_site(record), lambda: SiteRanges(record))


def at_agents(agents: Mapping[str, Agent]) -> Opener:
    """Return what opens the holdings of sites that agents serve.

    Parameters
    ----------
    agents : Mapping
        By name of the site.
    """

    def source(record: FileRecord) -> Source | None:
        agent = agents.get(record.site)
        return None if agent is None else _at_agent(agent, record)

    return source


def _at_agent(agent: Agent, record: FileRecord) -> Source:
    return Source(f"agent {agent.url}", f"{agent.url} {record.path}", lambda: AgentRanges(agent, record))


def _at_site(record: FileRecord) -> str:
    return f"{record.site}:{record.source}"


def sources_of(
    records: Sequence[FileRecord], replicas: Iterable[Replica], openers: Sequence[Opener] = (at_site,)
) -> list[Source]:
    """Return where the bytes of an entry are, the best first.

    Parameters
    ----------
    records : sequence of FileRecord
        The entry's holdings, all of one content; one that is missing at its site is passed over.
    replicas : iterable of Replica
        Of any of them; those of an older content are passed over.
    openers : sequence of Opener
        Asked in order for each holding; the first that knows its site counts.
    """
    sources: list[Source] = []
    for record in records:
        if record.state not in (State.MISSING, State.ARCHIVED):
            candidates = (opener(record) for opener in openers)
            sources += [source for source in candidates if source is not None][:1]
    checksum = next((record.checksum for record in records if record.checksum), None)
    good = {replica.url: replica for replica in replicas if checksum and replica.checksum == checksum}
    for replica in sorted(good.values(), key=lambda one: (one.kind != "local", -one.verified.timestamp(), one.url)):
        sources.append(Source(split_url(replica.url)[0], replica.url, _opening(replica.url)))
    return sources


def _opening(url: str) -> Callable[[], Ranges]:
    def open_replica() -> Ranges:
        store, path = store_of(url)
        return store.ranges(path)

    return open_replica


class Breakers:
    """Which services failed, and until when each is left alone; threads share it."""

    def __init__(self, first_s: float = FIRST_REST_S, longest_s: float = LONGEST_REST_S) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._lock = threading.Lock()
        self._rests: dict[str, _Rest] = {}

    def rests(self, service: str) -> bool:
        """Tell whether a service is to be left alone now; when its time is over, one caller is let through to try."""
        with self._lock:
            rest = self._rests.get(service)
            if rest is None:
                return False
            now = time.monotonic()
            if now < rest.end:
                return True
            rest.end = now + rest.length_s
            return False

    def failed(self, service: str, begin: float) -> None:
        """Note that a service failed; `begin` is the monotonic time at which it was asked."""
        with self._lock:
            now, rest = time.monotonic(), self._rests.get(service)
            if rest is None:
                self._rests[service] = _Rest(self._first_s, now + self._first_s, now)
            elif begin >= rest.failure:  # else it is the same failure, met by another thread
                length = min(2 * rest.length_s, self._longest_s)
                self._rests[service] = _Rest(length, now + length, now)

    def answered(self, service: str) -> None:
        """Note that a service works."""
        with self._lock:
            self._rests.pop(service, None)


@dataclass
class _Rest:
    """For how long a service is left alone, until when, and when it failed."""

    length_s: float
    end: float
    failure: float

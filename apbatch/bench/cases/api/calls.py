"""Single calls: what REST adds to looking up a path, and a search of one file in a hundred."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.catalogue.records import SEED
from apbatch.bench.runner import Group
from apbatch.client.remote import RemoteTransport
from apbatch.client.transport import Transport
from apbatch.errors import VerificationError
from apbatch.index.files import FileRecord

#: Files that the page shows of a search.
FIRST = 50
#: Events that one file in a hundred has: half of all files are TAIGA's, of any number of events below 20,000 alike.
_FROM, _TO = 5_000, 5_400


def search_of(records: Sequence[FileRecord]) -> tuple[str, list[str]]:
    """Return a query that one file in a hundred matches, and the paths that plain Python finds for it."""
    paths = sorted(
        one.path
        for one in records
        if one.experiment == "TAIGA" and one.events is not None and _FROM <= one.events < _TO
    )
    return f"experiment = 'TAIGA' and events between {_FROM} and {_TO - 1}", paths


def get_groups(
    lookups: int, records: Sequence[FileRecord], local: Mapping[str, Transport], remote: Mapping[str, Transport]
) -> Iterator[Group]:
    """Yield the groups of a get: how long it takes here and by REST, and the difference.

    Parameters
    ----------
    lookups : int
        Calls of one round.
    records : sequence of FileRecord
    local, remote : Mapping of str to Transport
        The same catalogues by back-end, opened in this process and behind a service.
    """
    draw = random.Random(SEED + 2)
    some = [draw.choice(records) for _ in range(lookups)]
    get = Operation(
        "api",
        "get an entry",
        f"The median of {lookups} entries of the merged tree by their paths, one call each: by "
        "the client in one process with the catalogue, and by the same client over HTTP, on a connection that stays "
        "open.",
        "ms",
        1.0,
    )
    cases: list[Case] = []
    for peer in local:
        cases += [_Get(get, f"{peer}, local", some, local[peer]), _Get(get, f"{peer}, REST", some, remote[peer])]
    yield Group(get, cases)
    adds = Operation(
        "api",
        "what REST adds to a get",
        f"The median of {lookups} differences: a path is asked here, then by REST. The aim is at most 3 ms.",
        "ms",
        1.0,
    )
    yield Group(adds, [_Added(adds, peer, some, local[peer], remote[peer]) for peer in local])


def search_group(records: Sequence[FileRecord], remote: Mapping[str, RemoteTransport]) -> Group:
    """Return the group of a search by REST, on each back-end."""
    query, paths = search_of(records)
    search = Operation(
        "api",
        "first files of a search",
        f"A search that {len(paths)} of {len(records)} files match, by REST: the "
        f"first {FIRST} by path, as the page asks for them. The aim is at most 300 ms with 1 % of 1,000,000.",
        "ms",
        1.0,
    )
    return Group(search, [_Search(search, peer, one, query, paths) for peer, one in remote.items()])


class _Get(Case):
    """Look paths up; proof: the sizes."""

    def __init__(self, operation: Operation, peer: str, records: Sequence[FileRecord], *transports: Transport) -> None:
        super().__init__(operation, peer)
        self._records, self._transports = records, transports
        self._seconds: list[list[float]] = []
        self._sizes: list[int | None] = []

    def run(self) -> None:
        self._seconds, self._sizes = [], []
        for record in self._records:
            times = []
            for transport in self._transports:
                start = time.perf_counter()
                entry = transport.entry(record.path)
                times.append(time.perf_counter() - start)
                self._sizes.append(None if entry is None else entry.size)
            self._seconds.append(times)

    def figure(self, seconds: float) -> float:
        return 1000.0 * statistics.median(times[-1] for times in self._seconds)

    def check(self) -> None:
        if self._sizes != [record.size for record in self._records for _ in self._transports]:
            raise VerificationError("an entry is not the right one", where=self.peer)


class _Added(_Get):
    """Look each path up twice, and take the difference."""

    def figure(self, seconds: float) -> float:
        return 1000.0 * statistics.median(times[1] - times[0] for times in self._seconds)


class _Search(Case):
    """Ask for the first page; proof: its paths are the first that plain Python finds."""

    def __init__(
        self, operation: Operation, peer: str, transport: RemoteTransport, query: str, paths: Sequence[str]
    ) -> None:
        super().__init__(operation, peer)
        self._ask: Callable[[], list[dict[str, str]]] = lambda: transport.json(
            "/files", q=query, columns="path,size,night,run,events,place", limit=FIRST
        )["items"]
        self._paths = list(paths[:FIRST])
        self._items: list[dict[str, str]] = []

    def run(self) -> None:
        self._items = self._ask()

    def check(self) -> None:
        if [item["path"] for item in self._items] != self._paths:
            raise VerificationError("the files are not the right ones", where=self.peer)

"""Index cases: the same records in every catalogue and, by hand, in its server; answers compared with plain Python.

Each catalogue is measured against the bare driver of its own back-end, in the same rounds.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cache, partial
from heapq import nsmallest
from itertools import pairwise
from typing import Any

import numpy as np

from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.catalogue.bare_sql import BareIndex
from apbatch.bench.cases.catalogue.records import SEED, SyntheticRecords, synthetic_records
from apbatch.bench.cases.peers import bare_name
from apbatch.bench.runner import Group
from apbatch.bench.sizes import Size
from apbatch.errors import VerificationError
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord
from apbatch.index.query import And, Between, Compare, Query

_FIRST_PAGE = 1000
#: Records that are in memory at a time.
_BLOCK = 5000
#: Records that are written anew in a round, at most.
_MOST_AGAIN = 20_000
_LOW, _HIGH = 5_000, 9_000
#: Calls of an operation so that its 95th percentile is one.
_FEWEST_CALLS = 20
_P95 = ", 95th percentile"


class _Peer:
    """A catalogue as the questions ask it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def prepared(self, records: Sequence[FileRecord], first: int) -> Sequence[Any]:
        return records

    def write(self, rows: Sequence[Any]) -> None:
        report = self._catalogue.upsert(rows)
        if report.refusals:
            raise VerificationError(f"a record was refused: {report.refusals[0].reason}")

    def size_of(self, path: str) -> int | None:
        record = self._catalogue.get(path)
        return None if record is None else record.size

    def paths(self, query: Query, limit: int | None = None) -> list[str]:
        return [record.path for record in self._catalogue.select(query, limit=limit)]

    def count(self, query: Query) -> int:
        return self._catalogue.count(query)[None]

    def count_by_night(self, experiment: str) -> dict[date | None, int]:
        return self._catalogue.count(Compare("experiment", "=", experiment), by="night")

    def names(self, folder: str) -> list[str]:
        return [entry.name for entry in self._catalogue.entries(folder).entries]


_AnyPeer = _Peer | BareIndex


class _Call:
    """One call, and its right answer, found without any catalogue when it is first compared.

    Parameters
    ----------
    ask : callable
    answer : callable
        Of a million records some take longer than all that is measured, so that it is called once.
    """

    def __init__(self, ask: Callable[[_AnyPeer], Any], answer: Callable[[], Any]) -> None:
        self.ask, self.answer = ask, cache(answer)


def index_groups(size: Size, catalogues: Mapping[str, Catalogue], bare: Mapping[str, BareIndex]) -> Iterator[Group]:
    """Yield the groups of the index suite.

    Parameters
    ----------
    size : Size
    catalogues : Mapping
        Peers by name, each an empty catalogue, or what an earlier part of this run loaded into it.
    bare : Mapping
        The same for bare drivers.
    """
    records = synthetic_records(size.records)
    peers: dict[str, _AnyPeer] = {**{name: _Peer(one) for name, one in catalogues.items()}, **bare}
    baselines = tuple((name, bare_name(name)) for name in catalogues if bare_name(name) in bare)
    slices = np.linspace(0, len(records), size.repeats + 2).astype(int).tolist()
    load = Operation(
        "index", "load", f"{len(records)} file records, each round another part of them: all are new. Without making "
        "the records (or rows) that are written.", "records/s", float(len(records)), baselines=baselines,
    )  # fmt: skip
    yield Group(load, [_Load(load, name, peer, records, slices) for name, peer in peers.items()])
    again = min(_MOST_AGAIN, len(records))
    rewrite = Operation(
        "index", "write again", f"{again} records that are there already, written anew in each round.", "records/s",
        float(again), baselines=baselines,
    )  # fmt: skip
    yield Group(rewrite, [_WriteAgain(rewrite, name, peer, records, again) for name, peer in peers.items()])
    for operation, calls in _questions(size, records, random.Random(SEED + 1)):
        operation = replace(operation, baselines=baselines)
        counted = f"{operation.description} Of {len(calls)} calls a round,"
        usual = replace(operation, description=f"{counted} the median." if len(calls) > 1 else operation.description)
        yield Group(usual, [_Ask(usual, name, peer, records, calls, 50) for name, peer in peers.items()])
        if len(calls) >= _FEWEST_CALLS:
            slow = replace(
                operation, name=operation.name + _P95, description=f"{counted} 5 % take longer than this."
            )  # fmt: skip
            yield Group(slow, [_Ask(slow, name, peer, records, calls, 95) for name, peer in peers.items()])


def _questions(size: Size, records: SyntheticRecords, draw: random.Random) -> Iterator[tuple[Operation, list[_Call]]]:
    numbers = [draw.randrange(len(records)) for _ in range(size.lookups)]
    nights = numbers[: max(1, size.lookups // 4)]
    per_night = records.files_a_night

    def operation(name: str, description: str) -> Operation:
        return Operation("index", name, description, "ms", 1.0)

    yield (
        operation("look up a path", "The record of a file by its path."),
        [_Call(_get(records[n].path), partial(_size, records, n)) for n in numbers],
    )  # fmt: skip
    yield (
        operation("select a night", f"All files of one experiment and night (up to {per_night}), whole records."),
        [_Call(_select(_of_night(records[n])), partial(_paths, records, n)) for n in nights],
    )  # fmt: skip
    yield (
        operation("select a range", f"Files of one experiment and night with {_LOW} to {_HIGH} events, whole "
                  "records."),
        [
            _Call(
                _select(And((_of_night(records[n]), Between("events", _LOW, _HIGH)))),
                partial(_paths, records, n, in_range=True),
            )
            for n in nights
        ],
    )  # fmt: skip
    yield (
        operation("list a folder", f"The first {_FIRST_PAGE} entries of one folder of the merged tree (up to "
                  f"{per_night}), with kind, size, time, state."),
        [
            _Call(
                _list(records[n].path.rpartition("/")[0]),
                partial(_names, records, n),
            )
            for n in nights
        ],
    )  # fmt: skip
    some = And((Compare("experiment", "=", "TAIGA"), Compare("telescope", "=", 2), Between("events", _LOW, _HIGH)))
    yield (
        operation("search several attributes", f"Files of one experiment and telescope with {_LOW} to {_HIGH} events: "
                  f"the first {_FIRST_PAGE} by path, and how many there are."),
        [_Call(lambda peer: (peer.paths(some, _FIRST_PAGE), peer.count(some)), lambda: _searched(records))],
    )  # fmt: skip
    yield (
        operation("count by night", "All files of one experiment, counted by night."),
        [
            _Call(
                lambda peer: peer.count_by_night("TAIGA"),
                lambda: dict(Counter(record.night for record in records if record.experiment == "TAIGA")),
            )
        ],
    )


def _get(path: str) -> Callable[[_AnyPeer], Any]:
    return lambda peer: peer.size_of(path)


def _select(query: Query) -> Callable[[_AnyPeer], Any]:
    return lambda peer: peer.paths(query)


def _list(folder: str) -> Callable[[_AnyPeer], Any]:
    return lambda peer: peer.names(folder)


def _of_night(record: FileRecord) -> Query:
    assert record.night is not None
    return And((Compare("experiment", "=", record.experiment), Compare("night", "=", record.night)))


def _paths(records: SyntheticRecords, n: int, *, in_range: bool = False) -> list[str]:
    of_night = (records[k] for k in records.night_of(n))
    return sorted(one.path for one in of_night if not in_range or _LOW <= (one.events or 0) <= _HIGH)


def _size(records: SyntheticRecords, n: int) -> int:
    return records[n].size


def _names(records: SyntheticRecords, n: int) -> list[str]:
    return [path.rpartition("/")[2] for path in _paths(records, n)]


def _searched(records: SyntheticRecords) -> tuple[list[str], int]:
    number = 0

    def matching() -> Iterator[str]:
        nonlocal number
        for one in records:
            if (one.experiment, one.telescope) == ("TAIGA", 2) and _LOW <= (one.events or 0) <= _HIGH:
                number += 1
                yield one.path

    first = nsmallest(_FIRST_PAGE, matching())
    return first, number


class _Writing(Case):
    """Write stretches of the records; proof: some at random come back as they were given."""

    def __init__(self, operation: Operation, peer: str, target: _AnyPeer, records: SyntheticRecords) -> None:
        super().__init__(operation, peer)
        self._target, self._records = target, records
        self._stretch, self._seconds = range(0), 0.0

    def run(self) -> None:
        self._seconds = write(self._target, self._records, self._stretch)

    def figure(self, seconds: float) -> float:
        return len(self._stretch) / self._seconds

    def check(self) -> None:
        for n in random.sample(self._stretch, min(100, len(self._stretch))):
            if self._target.size_of(self._records[n].path) != self._records[n].size:
                raise VerificationError("a record came back otherwise than it was loaded", where=self._records[n].path)


def write(target: _AnyPeer, records: SyntheticRecords, stretch: range) -> float:
    """Write a stretch of records block by block; return how long the writing alone took, s.

    Parameters
    ----------
    target : catalogue or BareIndex
    records : SyntheticRecords
    stretch : range
        Numbers of the records.
    """
    seconds = 0.0
    for start in range(stretch.start, stretch.stop, _BLOCK):
        rows = target.prepared(records[start : min(start + _BLOCK, stretch.stop)], start + 1)
        begin = time.perf_counter()
        target.write(rows)
        seconds += time.perf_counter() - begin
    return seconds


class _Load(_Writing):
    """Write a part of the records in each round."""

    def __init__(
        self, operation: Operation, peer: str, target: _AnyPeer, records: SyntheticRecords, slices: Sequence[int]
    ) -> None:
        super().__init__(operation, peer, target, records)
        self._parts = [range(*ends) for ends in pairwise(slices)]

    def prepare(self) -> None:
        """Take the first part that is not there: rounds that an earlier run has kept are not loaded again."""
        while len(self._parts) > 1 and self._holds(self._parts[0]):
            self._parts.pop(0)
        self._stretch = self._parts[0]

    def _holds(self, part: range) -> bool:
        return self._target.size_of(self._records[part[-1]].path) is not None


class _WriteAgain(_Writing):
    """Write the same records again in each round, from the middle of all."""

    def __init__(
        self, operation: Operation, peer: str, target: _AnyPeer, records: SyntheticRecords, number: int
    ) -> None:
        super().__init__(operation, peer, target, records)
        start = (len(records) - number) // 2
        self._stretch = range(start, start + number)

    def set_up(self) -> None:
        _load_what_lacks(self._target, self._records)


class _Ask(Case):
    """Ask; proof: the answers are those that plain Python finds in the records."""

    def __init__(
        self, operation: Operation, peer: str, target: _AnyPeer, records: SyntheticRecords, calls: Sequence[_Call],
        percentile: int,
    ) -> None:  # fmt: skip
        super().__init__(operation, peer)
        self._target, self._records, self._calls, self._percentile = target, records, calls, percentile
        self._results: list[Any] = []
        self._times: list[float] = []

    def set_up(self) -> None:
        _load_what_lacks(self._target, self._records)

    def prepare(self) -> None:
        self._results, self._times = [], []

    def run(self) -> None:
        for call in self._calls:
            begin = time.perf_counter()
            result = call.ask(self._target)
            self._times.append(time.perf_counter() - begin)
            self._results.append(result)

    def figure(self, seconds: float) -> float:
        return 1000.0 * float(np.percentile(self._times, self._percentile))

    def check(self) -> None:
        for call, result in zip(self._calls, self._results, strict=True):
            if result != call.answer():
                raise VerificationError("the answer is not the right one", where=self.operation.name)


def _load_what_lacks(target: _AnyPeer, records: SyntheticRecords) -> None:
    """Load everything into a catalogue that is empty, as after a run that was broken off and whose servers ended."""
    if target.size_of(records[-1].path) is None:
        write(target, records, range(len(records)))

"""Index cases: the same records in every catalogue, the same questions, and answers compared with plain Python."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.bare_index import BareSqlite
from apbatch.bench.runner import Group
from apbatch.bench.sizes import Size
from apbatch.errors import VerificationError
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord
from apbatch.index.query import And, Between, Compare, Query

#: Records with the same seed are the same records: runs can be compared.
SEED = 2018
_FILES_A_NIGHT = 150
_FIRST_NIGHT = date(2017, 10, 1)
_EXPERIMENTS = ("TAIGA", "KASCADE")


def synthetic_records(number: int, seed: int = SEED) -> list[FileRecord]:
    """Return records as a site's scan would register them: nights of files, in one folder each."""
    draw = random.Random(seed)
    records = []
    for n in range(number):
        folder = n // _FILES_A_NIGHT
        experiment = _EXPERIMENTS[folder % len(_EXPERIMENTS)]
        night = _FIRST_NIGHT + timedelta(days=folder // len(_EXPERIMENTS))
        start = datetime(night.year, night.month, night.day, 16, tzinfo=UTC) + timedelta(minutes=n % _FILES_A_NIGHT)
        name = f"{night:%d%m%y}.{n % _FILES_A_NIGHT:03}"
        records.append(
            FileRecord(
                path=f"/{experiment.lower()}/bench/{night.isoformat()}/{name}",
                site="bench",
                source=f"{night.isoformat()}/{name}",
                size=draw.randrange(1_000, 5_000_000),
                mtime_ns=int(start.timestamp()) * 1_000_000_000,
                checksum=f"{draw.getrandbits(256):064x}",
                adler32=f"{draw.getrandbits(32):08x}",
                format="taiga-raw" if experiment == "TAIGA" else "kascade",
                experiment=experiment,
                run=folder,
                night=night,
                time_start=start,
                time_end=start + timedelta(minutes=1),
                telescope=1 + n % 3,
                cluster=n % 22,
                events=draw.randrange(0, 20_000),
            )
        )
    return records


def index_groups(size: Size, catalogues: Mapping[str, Catalogue]) -> Iterator[Group]:
    """Yield the groups of the index suite.

    Parameters
    ----------
    size : Size
    catalogues : Mapping
        Peers by name, each an empty catalogue.
    """
    records = synthetic_records(size.records)
    load = Operation(
        "index", "load", f"{len(records)} file records upserted in one call; the same keys in each round.",
        "records/s", float(len(records)),
    )  # fmt: skip
    yield Group(load, [_Load(load, peer, catalogue, records) for peer, catalogue in catalogues.items()])
    for operation, question, answer in _questions(size, records, random.Random(SEED + 1)):
        yield Group(
            operation, [_Ask(operation, peer, catalogue, question, answer) for peer, catalogue in catalogues.items()]
        )


Question = Callable[[Catalogue], Any]


def _questions(size: Size, records: list[FileRecord], draw: random.Random) -> Iterator[tuple[Operation, Question, Any]]:
    """Yield each question with its right answer, found without any catalogue."""
    lookups = [draw.choice(records) for _ in range(size.lookups)]
    yield (
        Operation("index", "look up a path", f"{len(lookups)} files by their paths, one call each; time of one.", "ms",
                  float(len(lookups))),
        lambda catalogue: [_size_of(catalogue.get(record.path)) for record in lookups],
        [record.size for record in lookups],
    )  # fmt: skip

    nights = [draw.choice(records) for _ in range(max(1, size.lookups // 10))]
    yield (
        Operation("index", "select a night", f"All files of one experiment and night (up to {_FILES_A_NIGHT}), "
                  f"{len(nights)} times; time of one.", "ms", float(len(nights))),
        lambda catalogue: [_paths(catalogue, _of_night(record)) for record in nights],
        [_matching(records, lambda other, record=record: _same_night(other, record)) for record in nights],  # type: ignore[misc]
    )  # fmt: skip

    low, high = 5_000, 9_000
    yield (
        Operation("index", "select a range", f"Files of one experiment and night with {low} to {high} events, "
                  f"{len(nights)} times; time of one.", "ms", float(len(nights))),
        lambda catalogue: [
            _paths(catalogue, And((_of_night(record), Between("events", low, high)))) for record in nights
        ],
        [
            _matching(records, lambda other, record=record: _same_night(other, record)  # type: ignore[misc]
                      and other.events is not None and low <= other.events <= high)
            for record in nights
        ],
    )  # fmt: skip

    yield (
        Operation("index", "count by night", "All files of one experiment, counted by night.", "ms", 1.0),
        lambda catalogue: catalogue.count(Compare("experiment", "=", "TAIGA"), by="night"),
        dict(Counter(record.night for record in records if record.experiment == "TAIGA")),
    )

    folders = [record.path.rsplit("/", 1)[0] for record in nights]
    paths = [record.path for record in records]
    yield (
        Operation("index", "list a folder", f"Entries of one folder of the merged tree (up to {_FILES_A_NIGHT}), "
                  f"{len(folders)} times; time of one.", "ms", float(len(folders))),
        lambda catalogue: [[(e.name, e.kind) for e in catalogue.entries(folder).entries] for folder in folders],
        [
            sorted((path[len(folder) + 1 :], "file") for path in paths if path.startswith(f"{folder}/"))
            for folder in folders
        ],
    )  # fmt: skip


def _size_of(record: FileRecord | None) -> int | None:
    return None if record is None else record.size


def _of_night(record: FileRecord) -> Query:
    assert record.night is not None
    return And((Compare("experiment", "=", record.experiment), Compare("night", "=", record.night)))


def _same_night(other: FileRecord, record: FileRecord) -> bool:
    return (other.experiment, other.night) == (record.experiment, record.night)


def _paths(catalogue: Catalogue, query: Query) -> list[str]:
    return [record.path for record in catalogue.select(query)]


def _matching(records: list[FileRecord], matches: Callable[[FileRecord], bool]) -> list[str]:
    return sorted(record.path for record in records if matches(record))


class _Load(Case):
    """Upsert all records; proof: the catalogue holds each, and one at random as it was given."""

    def __init__(self, operation: Operation, peer: str, catalogue: Catalogue, records: list[FileRecord]) -> None:
        super().__init__(operation, peer)
        self._catalogue, self._records = catalogue, records
        if isinstance(catalogue, BareSqlite):
            catalogue.prepare(records)

    def run(self) -> None:
        self._catalogue.upsert(self._records)

    def check(self) -> None:
        count = sum(1 for _ in self._catalogue.of_site("bench"))
        if count != len(self._records):
            raise VerificationError(f"{count} records are held, {len(self._records)} were loaded")
        record = random.choice(self._records)
        copy = self._catalogue.get(record.path)
        if copy is None or (copy.checksum, copy.events) != (record.checksum, record.events):
            raise VerificationError("a record came back otherwise than it was loaded", where=record.path)


class _Ask(Case):
    """Ask; proof: the answer is the one that plain Python finds in the records."""

    def __init__(self, operation: Operation, peer: str, catalogue: Catalogue, question: Question, answer: Any) -> None:
        super().__init__(operation, peer)
        self._catalogue, self._question, self._answer = catalogue, question, answer
        self._result: Any = None

    def run(self) -> None:
        self._result = self._question(self._catalogue)

    def check(self) -> None:
        if self._result != self._answer:
            raise VerificationError("the answer is not the right one", where=self.operation.name)

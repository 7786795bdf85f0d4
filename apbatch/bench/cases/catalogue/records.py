"""The records of the index suite: each follows from its number alone, so that a million of them take no memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import overload

from apbatch.index.files import FileRecord

#: Records with the same seed are the same records: runs can be compared.
SEED = 2018
EXPERIMENTS = ("TAIGA", "KASCADE")
_MOST_A_NIGHT = 1000
_FIRST_NIGHT = date(2017, 10, 1)


@dataclass(frozen=True)
class SyntheticRecords(Sequence[FileRecord]):
    """Records as a site's scan would register them: nights of files, in one folder each, of two experiments in turn.

    Attributes
    ----------
    number : int
        How many there are.
    seed : int
    """

    number: int
    seed: int = SEED

    @property
    def files_a_night(self) -> int:
        """How many files a night has, all in one folder: 1,000, or a quarter of few."""
        return max(1, min(_MOST_A_NIGHT, self.number // 4))

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, index: int) -> FileRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[FileRecord]: ...
    def __getitem__(self, index: int | slice) -> FileRecord | list[FileRecord]:
        if isinstance(index, slice):
            return [self._record(n) for n in range(*index.indices(self.number))]
        return self._record(range(self.number)[index])

    def __iter__(self) -> Iterator[FileRecord]:
        return map(self._record, range(self.number))

    def night_of(self, n: int) -> range:
        """Return the numbers of the files of the night, and folder, that file `n` is in."""
        first = n - n % self.files_a_night
        return range(first, min(first + self.files_a_night, self.number))

    def _record(self, n: int) -> FileRecord:
        digest = hashlib.blake2b(f"{self.seed}/{n}".encode(), digest_size=32)
        bits = int.from_bytes(digest.digest()[:16])
        folder, place = divmod(n, self.files_a_night)
        experiment = EXPERIMENTS[folder % len(EXPERIMENTS)]
        night = _FIRST_NIGHT + timedelta(days=folder // len(EXPERIMENTS))
        start = datetime(night.year, night.month, night.day, 16, tzinfo=UTC) + timedelta(seconds=30 * place)
        name = f"{night:%d%m%y}.{place:04}"
        checksum = digest.hexdigest()
        return FileRecord(
            path=f"/{experiment.lower()}/bench/{night.isoformat()}/{name}",
            site="bench",
            source=f"{experiment.lower()}/{night.isoformat()}/{name}",
            size=1_000 + bits % 4_999_000,
            mtime_ns=int(start.timestamp()) * 1_000_000_000,
            checksum=checksum,
            adler32=checksum[-8:],
            format="taiga-raw" if experiment == "TAIGA" else "kascade",
            experiment=experiment,
            run=folder,
            night=night,
            time_start=start,
            time_end=start + timedelta(seconds=30),
            telescope=1 + n % 3,
            cluster=n % 22,
            events=(bits >> 64) % 20_000,
        )


def synthetic_records(number: int, seed: int = SEED) -> SyntheticRecords:
    """Return so many records."""
    return SyntheticRecords(number, seed)
